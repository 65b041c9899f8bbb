"""The tiny world: a seeded, endless, bilingual corpus and its held-out problems, for runs of minutes.

Its documents pretrain a base model of one or two million parameters, which has then seen guesses, worked
solutions and tags, but rarely all of them together in the right order. Reinforcement learning from rule
rewards has to find that combination. Texts are regular on purpose: few words, digits as tokens, equations
without spaces, and solutions in which every step is one local operation on what is already written.

    problem = problem_at('arithmetic', 'test', 0)
    text = prompt(problem.question)            # a response follows and begins with a space
    corpus = (document_at(index, recipe='reflective') for index in itertools.count())

`problems/` has a file for each family, `solutions.py` writes steps and slips, `recipe.py` holds every
probability of the mixture, `responses.py` and `documents.py` draw from it. The documents know nothing of the
families knowledge and safety: those come with `demonstrations.py` to fine-tune on, and with the truth about good
responses in `preferences.py`, which is for measuring and for simulated judges.
"""

from r1jax.data.tinyworld.demonstrations import Flaws, demonstration
from r1jax.data.tinyworld.documents import Document, document, document_at, document_with_problems
from r1jax.data.tinyworld.preferences import Annotator, harmlessness, helpfulness, reply_of
from r1jax.data.tinyworld.problems import (
    DIFFICULTY,
    FAMILIES,
    LIMITS,
    REASONING,
    Problem,
    make_problem,
    problem_at,
)
from r1jax.data.tinyworld.recipe import RECIPES, RESPONSES, Recipe
from r1jax.data.tinyworld.responses import response
from r1jax.data.tinyworld.solutions import Pen, Step
from r1jax.data.tinyworld.words import (
    HEADER,
    LANGUAGES,
    REFLECTION_WORDS,
    SYMBOLS,
    count_reflection_words,
    prompt,
)

__all__ = [
    'Annotator', 'DIFFICULTY', 'Document', 'FAMILIES', 'Flaws', 'HEADER', 'LANGUAGES', 'LIMITS', 'Pen', 'Problem',
    'REASONING', 'RECIPES', 'REFLECTION_WORDS', 'RESPONSES', 'Recipe', 'SYMBOLS', 'Step', 'count_reflection_words',
    'demonstration', 'document', 'document_at', 'document_with_problems', 'harmlessness', 'helpfulness', 'make_problem',
    'problem_at', 'prompt', 'reply_of', 'response',
]
