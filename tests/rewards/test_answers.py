"""Where the answer of a response stands, and the plain forms it is compared in."""

import time

import pytest

from r1jax.rewards.answers import asks_for_tags, boxes_of, extract_answer, plain_characters, plain_text, thoughts, unbox

T = '<think>some thought</think>'


@pytest.mark.parametrize('text, answer', [
    (f'{T}<answer>81</answer>', '81'),
    (f'{T}\n<answer>\n 81 \n</answer>\n', '81'),
    (f'{T}<answer>x < 3</answer>', 'x < 3'),
    (f'{T}<answer>a\nb</answer>', 'a\nb'),
    (f'{T}<answer>81</answer> and more', '81'),
    (f'{T}<answer></answer>', ''),
    ('<answer>81</answer>', '81'),  # no thought at all: right or wrong is another question than the format
    ('some thought</think><answer>81</answer>', '81'),  # the template wrote <think>
    (f'{T}<answer>81</answer> so <answer> 81 </answer>', '81'),  # said twice
    (f'{T}<answer>81</answer> wait <answer>', '81'),  # a stray opening tag after it
    (f'{T}</answer><answer>81</answer>', '81'),
    ('<think>a</think><answer>81</answer><think>b</think><answer>81</answer>', '81'),
])
def test_finds_the_answer(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize('text', [
    '',
    '81',
    f'{T} 81',
    f'{T}<answer>81',
    f'{T}81</answer>',
    f'{T}<Answer>81</Answer>',
    f'{T}< answer >81</ answer >',
    '<answer>81</answer><think>some thought</think>',  # the answer before the thought
    '<think>so <answer>81</answer></think>',  # the answer inside the thought
    '<think>so <answer>81</answer>',  # a thought that never ends
    f'{T}<think><answer>81</answer>',
    f'{T}<answer><think>81</answer>',
    f'{T}<answer>81<answer></answer></answer>',  # nested
    f'{T}<answer><answer>81</answer></answer>',
    f'{T}<answer>so <answer>81</answer>',  # the outer one is never closed
    '<answer>81</think></answer>',
    f'{T}<answer>80</answer><answer>81</answer>',  # two answers are none
    f'{T}<answer>81</answer><answer>80</answer>',
    f'{T}<answer>81</answer><answer></answer>',
    f'{T}<answer>81</answer><answer>81.0</answer>',  # equal or not, they are two
    f'{T}<answer>so \\boxed{{81}}<answer>',  # tags that are no block hide what else stands there
    f'{T}the answer is 81 <answer>',
    f'{T}#### 81</answer>',
])
def test_finds_no_answer(text):
    assert extract_answer(text) is None
    assert extract_answer(text, tagged=True) is None


@pytest.mark.parametrize('content, answer', [
    (r'so \boxed{81} it is', '81'), (r'\boxed{\frac{1}{2}}', r'\frac{1}{2}'), (r'\boxed{1}, \boxed{2}', '1, 2'),
    (r'\boxed{A} or \boxed{B}', 'A, B'), (r'\boxed{81} and \boxed{81}', '81'), (r'\boxed{81', r'\boxed{81'),
    ('The answer is 81.', '81'), ('answer: 81', '81'), ('The final answer is: **81**', '81'), ('So the answer is 3.5!',
    '3.5'),
    ('答案是5。', '5'), ('所以答案是5', '5'), ('La réponse finale est 5', '5'), ('la respuesta es 5.', '5'), ('Answer: (B)',
    '(B)'),
    ('it is 81', 'it is 81'), ('80, but the answer is 81', '80, but the answer is 81'),  # what stands before it counts
    ('the answer', 'the answer'), ('-5', '-5'), ('', ''),
])
def test_what_counts_between_answer_tags(content, answer):
    text = f'{T}<answer>{content}</answer>'
    assert extract_answer(text) == extract_answer(text, tagged=True) == answer


@pytest.mark.parametrize('text, answer', [
    (r'so \boxed{81}.', '81'), (r'so \boxed{\frac{1}{2}}', r'\frac{1}{2}'), (r'\fbox{81}', '81'), (r'\boxed 81.', '81'),
    (r'$\boxed {81}$', '81'), (r'$\boxed 81$ it is', '81'), (r'\boxed{\{1,2\}}', r'\{1,2\}'),
    (r'\boxed{\boxed{5}}', '5'), (r'\boxed{\text{B}}', r'\text{B}'), (r'\boxed{81}, then \boxed{8', '81'),
    (r'\boxed{x \boxed{5}', '5'), (r'\boxed{a \boxed{5} b}', r'a \boxed{5} b'),
    (r'the answer is 80, \boxed{81}', '81'),  # boxes before words
    ('The answer is 81.', '81'), ('The final answer is $81$. I hope it is correct.', '$81$'), ('Final answer: 81', '81'),
    ('The answer is 81. Yes, the answer is 81. Good.', '81'), ('the answer is 3.5. Right?', '3.5'),
    ('The answer is:\n\n42\n', '42'),
    ('答案是５。谢谢', '５'), ('答案为：5', '：5'), ('答案：5元', '5元'), ('La réponse est 5 km.', '5 km'),
    ('Donc la réponse finale est 5.', '5'), ('La respuesta final es 5 manzanas.', '5 manzanas'), ('**Answer:** 5', '5'),
    ('17 + 25\n#### 42', '42'), ('#### 42\nno\n#### 42 \n', '42'), ('the answer is 41\n#### 42', '41'),
])
def test_without_tags(text, answer):
    assert extract_answer(T + text) == answer
    assert extract_answer(T + text, tagged=True) is None
    assert extract_answer(f'<think>{text}') is None and extract_answer(text, prefilled=True) is None


@pytest.mark.parametrize('text', [
    'The answer is 80. No, the answer is 81. Good.', '#### 41\nno\n#### 42', r'<answer>81</answer> \boxed{80}',
    r'\boxed{80} <answer>81</answer>',
])
def test_two_answers_are_none(text):
    assert extract_answer(T + text) is None


def test_a_text_that_is_its_own_thought_may_correct_itself():
    assert extract_answer('The answer is 80. No, the answer is 81. Good.') == '81'
    assert extract_answer('#### 41\nno\n#### 42') == '42'
    assert extract_answer(r'\boxed{80} is wrong. \boxed{81}') == '81'
    assert extract_answer(r'\boxed{80}, so far. <answer>81</answer>') is None


def test_an_answer_after_an_earlier_thought_counts_as_well():
    assert extract_answer('<think>a</think><answer>80</answer><think>b</think><answer>81</answer>') is None
    assert extract_answer('<think>a</think><answer>80</answer><think>b</think>') is None
    assert extract_answer('<think>a <answer>80</answer></think><answer>81</answer>') == '81'


@pytest.mark.parametrize('text, summary, whole', [
    (r'\boxed{A} \boxed{B} \boxed{C} \boxed{D}', 'A, B, C, D', 'A, B, C, D'),  # a list of all options is none of them
    (r'\boxed{80}. Wait, no: \boxed{81}', '80, 81', '81'),  # a thought may correct itself, a summary is the answer
    (r'$x = \boxed{1}$, $y = \boxed{2}$', '1, 2', '1, 2'), (r'\boxed{1} and \boxed{2}.', '1, 2', '1, 2'),
    (r'\boxed{3}? So 1: $\boxed{1}$ or $\boxed{2}$', '3, 1, 2', '1, 2'), (r'\boxed{1}和\boxed{2}', '1, 2', '1, 2'),
    (r'\boxed{5} Thus \boxed{5}', '5', '5'), (r'\boxed{1}' + '\n\n' + r'\boxed{2}', '1, 2', '1, 2'),
])
def test_several_boxes(text, summary, whole):
    assert extract_answer(T + text) == summary
    assert extract_answer(text) == whole


def test_prompts_that_ask_for_tags():
    assert asks_for_tags('answers in <answer> </answer>. q:') and not asks_for_tags('the final answer within \\boxed{}')


def test_boxes():
    assert [box.content for box in boxes_of(r'so \boxed{1}, no: \boxed{\frac{1}{2}}.')] == ['1', r'\frac{1}{2}']
    assert [box.content for box in boxes_of(r'so \boxed{1}, no: \boxed{2')] == ['1'] and boxes_of('81 {2}') == []
    text = r'a \boxed{b \{ c} d'
    assert [text[box.start:box.end] for box in boxes_of(text)] == [r'\boxed{b \{ c}']
    assert unbox(r'\boxed{\frac{1}{2}}') == r'\frac{1}{2}' and unbox(r'\boxed{1}+\boxed{2}') == r'\boxed{1}+\boxed{2}'


def test_prefilled_thought_that_stays_open_has_no_answer():
    assert extract_answer('<answer>81</answer>', prefilled=True) is None
    assert extract_answer('thought</think><answer>81</answer>', prefilled=True) == '81'


@pytest.mark.parametrize('text, thought', [
    ('<think>abc</think><answer>1</answer>', 'abc'),
    ('abc</think><answer>1</answer>', 'abc'),
    ('<think>abc', 'abc'),
    ('abc', 'abc'),
    ('before <think>abc</think> after', 'abc'),
    ('<think></think>abc', ''),
])
def test_thoughts(text, thought):
    assert thoughts(text) == thought


@pytest.mark.parametrize('text, plain', [
    ('８１', '81'), ('－８１．５', '-81.5'), ('−3', '-3'), ('（Ｂ）', '(B)'), ('٨١', '81'), ('८१', '81'),
    ('3²', '3²'), ('½', '½'), ('①', '①'), ('81', '81'), ('a\u3000b', 'a b'),
])
def test_plain_characters(text, plain):
    assert plain_characters(text) == plain


@pytest.mark.parametrize('text, plain', [
    (' Kim. ', 'kim'), ('KIM', 'kim'), ('the  red\nfriend', 'the red friend'), ('老师睡觉。', '老师睡觉'),
    ('“kim”', 'kim'),
    ('**kim**', 'kim'), ('Straße', 'strasse'), ('cafe\u0301', 'caf\u00e9'), ('kim!!', 'kim'), ('...', ''),
    ('', ''),
])
def test_plain_text(text, plain):
    assert plain_text(text) == plain


@pytest.mark.parametrize('spam', [
    '<answer>' * 20_000, '</answer>' * 20_000, '<answer>1</answer>' * 10_000, '<think>' * 20_000,
    '</think>' * 20_000,
    '<' * 100_000, '<answer></think>' * 10_000, '\\boxed{' * 20_000, '\\boxed{1}' * 10_000, '\\boxed{' * 5_000 + '}' * 5_000,
    '\\boxed ' * 10_000, 'box' + '{' * 50_000, 'the answer is ' * 8_000, 'answer' + ' ' * 100_000, '#### ' * 20_000,
    '\\boxed{1}' + ', ' * 40_000 + '\\boxed{2}', '\\boxed{1}' + ' and' * 20_000 + '\\boxed{2}',
    'the answer is' + '. ' * 40_000,
    '#' * 100_000, '\n#### ' * 15_000, '<answer>' + '-' * 99_000 + '</answer>', '\\boxed{1}' + 'and' * 30_000 + '\\boxed{2}',
    '\\boxed{1}' + 'x_1 ' * 20_000 + '\\boxed{2}',
])
def test_spam_takes_linear_time(spam):
    start = time.process_time()
    extract_answer(spam), extract_answer(T + spam), thoughts(spam)
    assert time.process_time() - start < 10
