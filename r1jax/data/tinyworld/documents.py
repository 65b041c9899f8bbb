"""The pretraining corpus: worksheets, lists of facts, dialogues, bare questions with answers, and prose."""

from random import Random
from typing import NamedTuple

from r1jax.data.tinyworld import facts, prose
from r1jax.data.tinyworld.draws import between, chance, generator, pick, weighted
from r1jax.data.tinyworld.problems import Problem, arithmetic, make_problem
from r1jax.data.tinyworld.recipe import RECIPES, Recipe
from r1jax.data.tinyworld.responses import closing, response, worked
from r1jax.data.tinyworld.solutions import write_out
from r1jax.data.tinyworld.words import EN, LANGUAGES, ZH, ended, prompt
from r1jax.errors import UserError, nearest

# A worksheet is written in one of these styles: what stands before the question and what before the steps.
STYLES = (
    (('q: ', ' '), ('problem: ', ' solution: '), ('', ' ')),
    (('题：', ''), ('题目：', '解：'), ('', '')),
)
QUESTION_ANSWER = ('question: {} answer: {}', '问题：{}答案：{}')


class Document(NamedTuple):
    """A document, the problems in it, and for a dialogue the kind of its response."""

    kind: str
    language: str
    text: str
    problems: tuple[Problem, ...] = ()
    response: str = ''


def document(rng: Random, recipe: Recipe) -> str:
    """Draws one document of up to about 300 characters; it holds no problem of the test split."""
    return document_with_problems(rng, recipe).text


def document_at(index: int, *, seed: int = 0, recipe: str = 'reflective') -> str:
    """Document number `index` of an endless corpus: the same in every process.

    At one index and seed, 'reflective' and 'plain' differ in no more than the response of a dialogue.
    """
    if recipe not in RECIPES:
        raise UserError(f"unknown tiny-world recipe '{recipe}'" + nearest(recipe, RECIPES))
    return document(generator('document', int(index), int(seed)), RECIPES[recipe])


def document_with_problems(rng: Random, recipe: Recipe) -> Document:
    """`document` with what it is made of."""
    kind = weighted(rng, recipe.documents)
    language = ZH if chance(rng, recipe.chinese) else EN
    return _DOCUMENTS[kind](rng, recipe, language)


def _problem(rng: Random, recipe: Recipe, family: str, language: int) -> Problem:
    difficulty = dict(recipe.difficulty).get(family)
    return make_problem(family, rng, language=LANGUAGES[language], difficulty=difficulty, split='train')


def _worksheet(rng: Random, recipe: Recipe, language: int) -> Document:
    """Problems of one family, each with its solution, in one style.

    A puzzle stands alone: the next one would say other things of the same people.
    """
    family = weighted(rng, recipe.study_families)
    before, middle = pick(rng, STYLES[language])
    expressions = family == 'arithmetic' and not before  # only the expression: '12+7*8: 7*8=56. 12+56=68.'
    lines, problems, length = [], [], 0
    for _ in range(1 if family == 'logic' else between(rng, *recipe.worksheet_length)):
        problem = _problem(rng, recipe, family, language)
        question = ended(problem.question, language)
        if expressions:
            question = arithmetic.expression(problem.content) + (':' if language == EN else '：')
        steps, result = worked(problem, rng, recipe)
        switch = language == ZH and chance(rng, recipe.switch_worksheet)
        solution = write_out(steps, language, rng, closing=closing(problem, result), switch=switch)
        line = before + question + middle + solution
        length += len(line) + 1
        if problems and length > recipe.characters[language]:
            break
        lines.append(line)
        problems.append(problem)
    return Document('worksheet', LANGUAGES[language], '\n'.join(lines), tuple(problems))


def _facts(rng: Random, recipe: Recipe, language: int) -> Document:
    text = facts.facts(rng, language, between(rng, *recipe.facts_length), recipe.characters[language])
    return Document('facts', LANGUAGES[language], text)


def _dialogue(rng: Random, recipe: Recipe, language: int) -> Document:
    problem = _problem(rng, recipe, weighted(rng, recipe.families), language)
    kind, text = response(problem, rng, recipe)
    return Document('dialogue', LANGUAGES[language], prompt(problem.question) + text, (problem,), kind)


def _question_answer(rng: Random, recipe: Recipe, language: int) -> Document:
    problem = _problem(rng, recipe, weighted(rng, recipe.study_families), language)
    text = QUESTION_ANSWER[language].format(ended(problem.question, language), problem.answer)
    return Document('question_answer', LANGUAGES[language], text, (problem,))


def _prose(rng: Random, recipe: Recipe, language: int) -> Document:
    return Document('prose', LANGUAGES[language], prose.story(rng, language))


_DOCUMENTS = {
    'worksheet': _worksheet,
    'facts': _facts,
    'dialogue': _dialogue,
    'question_answer': _question_answer,
    'prose': _prose,
}
