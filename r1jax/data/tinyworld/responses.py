"""What an assistant of the corpus may answer: guesses and solutions, with tags, broken tags or no tags."""

from random import Random

from r1jax.data.tinyworld.draws import chance, pick, weighted
from r1jax.data.tinyworld.problems import DIFFICULTY, REASONING, Problem, everyday
from r1jax.data.tinyworld.recipe import Recipe
from r1jax.data.tinyworld.solutions import Pen, Step, write_out
from r1jax.data.tinyworld.words import BARE, CLOSING, GUESSES, LANGUAGES, WAITS, Pair

BROKEN = (
    '<think> {body} <answer> {answer} </answer>',
    '{body} </think> <answer> {answer} </answer>',
    '<think> {body} </think> {answer} </answer>',
    '<think> {body} </think> <answer> {answer}',
    '<think> {body} </think> {answer}',
    '<answer> {answer} </answer> <think> {body} </think>',
)


def response(problem: Problem, rng: Random, recipe: Recipe) -> tuple[str, str]:
    """Draws (kind of response, text); the text begins with a space and ends without a line break."""
    if problem.family not in REASONING:
        kind = 'tagged_thought' if chance(rng, recipe.tagged_thought) else 'bare'
        return kind, ' ' + _talk(problem, rng, thought=kind == 'tagged_thought')
    kind = weighted(rng, recipe.responses)
    return kind, ' ' + _FORMS[kind](problem, rng, recipe)


def guess(problem: Problem, rng: Random, recipe: Recipe) -> Pair:
    """A result, right with a probability that falls with difficulty, else a near miss of the right type."""
    easiest, hardest = recipe.guess_right
    low, high = DIFFICULTY[problem.family]
    place = min(max((problem.difficulty - low) / (high - low), 0.0), 1.0)
    if chance(rng, easiest + (hardest - easiest) * place):
        return problem.solve(Pen())
    return problem.miss(rng)


def worked(problem: Problem, rng: Random, recipe: Recipe) -> tuple[list[Step], Pair]:
    """Steps and result of a solution with the recipe's slips."""
    pen = Pen(rng, recipe.slip, recipe.noticed)
    result = problem.solve(pen)
    return pen.steps, result


def closing(problem: Problem, result: Pair) -> Pair:
    """'so the answer is 81.' in both languages, the answer always in the language of the question."""
    answer = problem.full(result[_language(problem)])
    en, zh = (form.format(answer) for form in CLOSING)
    return (en[:-1], zh[:-1]) if problem.family == 'code' else (en, zh)  # a program ends without a full stop


def _language(problem: Problem) -> int:
    return LANGUAGES.index(problem.language)


def _guess_sentence(result: Pair, rng: Random) -> Pair:
    form = weighted(rng, GUESSES)
    return form[0].format(result[0]), form[1].format(result[1])


def _switches(problem: Problem, rng: Random, recipe: Recipe) -> bool:
    return chance(rng, recipe.switch_english if problem.language == 'en' else recipe.switch_chinese)


def _work(problem: Problem, rng: Random, recipe: Recipe, *, reflect: bool, close: bool) -> tuple[str, str]:
    """(worked text, answer): with `reflect` after a guess and "wait"; with `close`, "so the answer is"."""
    lead = (_guess_sentence(guess(problem, rng, recipe), rng), weighted(rng, WAITS)) if reflect else ()
    steps, result = worked(problem, rng, recipe)
    switch = _switches(problem, rng, recipe)
    last = closing(problem, result) if close or switch or chance(rng, recipe.closing) else None
    language = _language(problem)
    text = write_out(steps, language, rng, lead=lead, closing=last, switch=switch)
    return text, problem.full(result[language])


def _tagged(body: str, answer: str) -> str:
    return f'<think> {body} </think> <answer> {answer} </answer>'


def _bare(problem: Problem, rng: Random, recipe: Recipe) -> str:
    language = _language(problem)
    answer = problem.full(guess(problem, rng, recipe)[language])
    return answer if problem.family == 'code' or chance(rng, 0.5) else BARE[language].format(answer)


def _tagged_guess(problem: Problem, rng: Random, recipe: Recipe) -> str:
    result, language = guess(problem, rng, recipe), _language(problem)
    return _tagged(_guess_sentence(result, rng)[language], problem.full(result[language]))


def _guess_only(problem: Problem, rng: Random, recipe: Recipe) -> str:
    result, language = guess(problem, rng, recipe), _language(problem)
    return f'<think> {_guess_sentence(result, rng)[language]} </think> {problem.full(result[language])}'


def _tagged_reflection(problem: Problem, rng: Random, recipe: Recipe) -> str:
    return _tagged(*_work(problem, rng, recipe, reflect=True, close=False))


def _tagged_steps(problem: Problem, rng: Random, recipe: Recipe) -> str:
    return _tagged(*_work(problem, rng, recipe, reflect=False, close=False))


def _steps(problem: Problem, rng: Random, recipe: Recipe) -> str:
    return _work(problem, rng, recipe, reflect=False, close=True)[0]


def _reflection(problem: Problem, rng: Random, recipe: Recipe) -> str:
    return _work(problem, rng, recipe, reflect=True, close=True)[0]


def _broken(problem: Problem, rng: Random, recipe: Recipe) -> str:
    reflect = chance(rng, recipe.broken_reflection)
    body, answer = _work(problem, rng, recipe, reflect=reflect, close=False)
    return pick(rng, BROKEN).format(body=body, answer=answer)


_FORMS = {
    'bare': _bare,
    'tagged_guess': _tagged_guess,
    'guess_only': _guess_only,
    'tagged_reflection': _tagged_reflection,
    'tagged_steps': _tagged_steps,
    'steps': _steps,
    'reflection': _reflection,
    'broken': _broken,
}


def _talk(problem: Problem, rng: Random, *, thought: bool) -> str:
    """A reply to everyday talk, or a translation; with `thought`, in tags, a short think before it."""
    language = _language(problem)
    if problem.family == 'everyday':
        answer = everyday.reply(problem.kind, problem.content, rng, language)
        body = everyday.THOUGHTS[problem.kind][language]
    else:
        answer = problem.answer
        body = write_out(list(problem.steps), language, rng) if thought else ''
    return _tagged(body, answer) if thought else answer
