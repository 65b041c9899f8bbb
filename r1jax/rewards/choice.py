r"""Multiple choice: which one option an answer names.

    'B', '(b)', '**B**', '\boxed{\text{B}}', 'Ｂ', '选B'   ->  'B'
    'The answer is (B) 81', 'Option B: 81', '81.0'       ->  'B', where 81 is the text of option B alone
    'A or B', 'not B', 'B is wrong', '(B) 12'            ->  None

Nothing is searched for: an answer is a label, an option's text or both, bare or after words that say that an answer follows.
So a hedge, a list or a denial names nothing, in whatever words.
"""

import re

from r1jax.rewards.answers import MAX_ANSWER_CHARS, plain_characters, plain_text
from r1jax.rewards.math import parse_number

LETTERS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ'

# '(B) 81', 'B. 81', 'B) 81', 'B - 81', 'B 81', 'b': a letter that stands alone, then what follows it.
_LABELLED = re.compile(
    r'(?:\(([A-Za-z])\)|\[([A-Za-z])\]|【([A-Za-z])】|([A-Za-z])(?![A-Za-z\d])\)?)'
    r'(?:[.:,、。]|\s+[-–—=](?=\s))?\s*(.*)',
    re.DOTALL,
)

# '81 (B)'
_LABEL_LAST = re.compile(r'(.*\S)\s*\(([A-Za-z])\)\.?', re.DOTALL)

# What says that an answer follows, in the languages that answers are most often written in. An article goes with it before a
# label alone ('la respuesta es la B'): it may belong to an option's text, or be the label ('a resposta é A').
_LEADS = re.compile(
    '|'.join((
        r'(?:(?:so|thus|hence|therefore),? )?(?:(?:the|my) )?(?:(?:final|correct|right|best) )*(?:answer|option|choice)'
        r'(?: (?:is|would be|must be)\b)?',
        r'i (?:choose|pick|select)\b',
        r'(?:la )?(?:respuesta|opción|alternativa|letra)(?: (?:correcta|final))*(?: es\b)?(?: la(?= \(?[a-z]\b))?',
        r"(?:la )?(?:bonne )?(?:réponse|option)(?: (?:correcte|finale))*(?: est\b)?(?: la(?= \(?[a-z]\b))?",
        r'(?:die )?(?:(?:richtige|korrekte|endgültige) )*(?:antwort|option|lösung)(?: (?:ist|lautet)\b)?',
        r'(?:la )?(?:risposta|opzione)(?: (?:corretta|giusta|finale))*(?: è\b)?(?: la(?= \(?[a-z]\b))?',
        r'(?:a )?(?:resposta|opção|alternativa|letra)(?: (?:correta|certa|final))*(?: é\b)?(?: a(?= \(?[a-z]\b))?',
        r'(?:het )?(?:(?:juiste|goede) )?antwoord(?: is\b)?',
        r'(?:(?:правильный|верный) )?(?:ответ|вариант)(?: ответа)?(?: это\b)?(?: [-–—](?= ))?',
        r'(?:(?:poprawna|prawidłowa) )?odpowiedź(?: to\b)?',
        r'(?:doğru )?(?:cevap|yanıt|seçenek)',
        r'(?:đáp án|câu trả lời)(?: đúng)?(?: là\b)?',
        r'jawaban(?:nya)?(?: yang benar)?(?: adalah\b)?',
        r'jibu(?: sahihi)?(?: ni\b)?',
        r'(?:所以|因此|故)?[,，]?(?:本题|最终|正确)?的?(?:正确)?(?:答案|选项)(?:应该|应)?[是为选]?(?:选项)?',
        r'(?:所以|因此|故|应该|应|我)?选择?(?:选项)?',
        r'(?:正解|正しい答え|答え|解答|回答|選択肢)は?',
        r'(?:정답|답|선택지)[은는]?',
        r'الإجابة(?: الصحيحة)?(?: هي)?',
        r'(?:सही )?(?:उत्तर|विकल्प)',
        r'(?:সঠিক )?(?:উত্তর|বিকল্প)(?: হল)?',
        r'คำตอบ(?:ที่ถูกต้อง)?(?:คือ)?',
    )),
    re.IGNORECASE,
)
_FOLLOWS = re.compile(r'\s*(?:[:=]|[-–—](?=\s))?\s*')

# What may stand behind a bare label.
_TAILS = re.compile(
    r'option|choice|(?:(?:option|choice) )?is (?:the )?(?:correct|right|best|final)?(?: ?(?:answer|option|choice))?|'
    r'es (?:la )?(?:respuesta )?(?:correcta|respuesta)|est (?:la )?(?:bonne réponse|correcte)|'
    r'ist (?:die )?richtige?(?: antwort)?|'
    r'(?:选项)?(?:是?(?:正确|对)的?(?:答案)?)?|です|だ|입니다|이다|है|ni jibu(?: sahihi)?',
    re.IGNORECASE,
)
_WORDS_IN_LATEX = re.compile(r'\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathsf)\s*\{([^{}]*)\}')
_SPACES_IN_LATEX = re.compile(r'\\[ ,;:!]|(?<=[)}])~')
# So many of them, and of the words above, are taken off an answer.
_LAYERS = 12
_HEADING = re.compile(r'#{1,6}\s+')
_BOLD = re.compile(r'(\*\*|__)(.+?)\1', re.DOTALL)
_WRAPPERS = (('\\boxed{', '}'), ('*', '*'), ('`', '`'), ('"', '"'), ("'", "'"), ('$', '$'),
             ('\\(', '\\)'), ('\\[', '\\]'), ('「', '」'), ('{', '}'))


def parse_choice(text: str, options: tuple[str, ...] = ()) -> str | None:
    """Returns the capital letter of the single option that `text` names, else None.

    A label ('B', '(b)', 'B.') names its option. A label with text counts only if the text is that
    option's ('(B) 81'), so a hedge ('A or B') or a list names nothing. The exact text of one option alone
    counts too, numbers by their value. Layout around either (markdown, quotes, LaTeX) and words that say that an answer
    follows ('The answer is', '答案是') are passed over. With `options` unknown only labels count.
    """
    if len(text) > MAX_ANSWER_CHARS:
        return None
    texts = [_comparable(_unlabelled(option, LETTERS[i])) for i, option in enumerate(options[: len(LETTERS)])]
    text = _SPACES_IN_LATEX.sub(' ', _WORDS_IN_LATEX.sub(r'\1', plain_characters(text))).strip()
    for _ in range(_LAYERS):
        letter, inner = _named(text, texts), _inside(text)
        if letter or inner == text:
            return letter
        text = inner
    return None


def _named(text: str, texts: list[str]) -> str | None:
    """Returns the letter of the option that a text names as it stands."""
    wanted = _comparable(text)
    by_text = LETTERS[texts.index(wanted)] if wanted and texts.count(wanted) == 1 else None
    match = _LABELLED.fullmatch(text)
    if not match:
        last = _LABEL_LAST.fullmatch(text)
        return by_text or (_named(f'({last[2]}) {last[1]}', texts) if last and texts else None)
    *labels, rest = match.groups()
    letter = next(filter(None, labels)).upper()
    position, rest = LETTERS.index(letter), rest.strip()
    if texts and position >= len(texts):
        return by_text
    if not rest:
        return letter
    bare = rest.removeprefix('(').removesuffix(')') if rest.startswith('(') else rest  # 'B (81)'
    if texts and texts[position] in (_comparable(rest), _comparable(bare)):
        return letter if by_text in (None, letter) else None  # 'a dog', where A is 'dog' and B is 'a dog'
    if by_text is None and _TAILS.fullmatch(rest.rstrip('.。!')):
        return letter
    return by_text


def _inside(text: str) -> str:
    """Returns a text without the outermost layout or the first words that announce an answer; itself without any."""
    for opening, closing in _WRAPPERS:
        body = text.removesuffix('.').removesuffix('。')
        if body.startswith(opening) and body.endswith(closing) and len(body) > len(opening) + len(closing):
            return body[len(opening) : -len(closing)].strip()
    if bold := _BOLD.match(text):
        return (bold[2] + text[bold.end() :]).strip()
    if heading := _HEADING.match(text):
        return text[heading.end() :]
    lead = _LEADS.match(text)
    if not lead:
        return text
    # 'Answers', 'optional' and the like are other words.
    if lead[0][-1].isascii() and text[lead.end() : lead.end() + 1].isalpha() and text[lead.end()].isascii():
        return text
    return text[_FOLLOWS.match(text, lead.end()).end() :].strip()


def _unlabelled(option: str, letter: str) -> str:
    """Returns an option without the label some data sets write into it ('A)21', '(B) 3')."""
    return re.sub(rf'^\s*(?:\({letter}\)|{letter}[).:])\s*', '', plain_characters(option))


def _comparable(text: str) -> str:
    number = parse_number(text)
    return plain_text(text) if number is None else str(number)
