"""Every probability of the pretraining mixture, and the two worlds that are shipped.

What reinforcement learning finds depends on the corpus. In 'reflective' the commonest tagged form that works
a problem out is a guess followed by "wait, let me work it out"; in 'plain' it is the working alone. All else
is nearly the same, so the second is the control for claims about reflection in the first.
"""

import dataclasses

from r1jax.data.tinyworld.problems import DIFFICULTY

Weights = tuple[tuple[str, float], ...]

# The forms of a response in a dialogue:
RESPONSES = (
    'bare',  # an answer and nothing else, mostly guessed
    'tagged_guess',  # a guess in the think tags, repeated in the answer tags
    'guess_only',  # a guess in the think tags, no answer tags
    'tagged_reflection',  # in tags: a guess, "wait", the steps, the answer
    'tagged_steps',  # in tags: the steps, the answer
    'steps',  # the steps and the answer, no tags
    'reflection',  # a guess, "wait", the steps and the answer, no tags
    'broken',  # as tagged_reflection, with tags missing or in the wrong order
    'tagged_thought',  # translation and everyday talk: a short thought and the answer, in tags
)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What a document may be, as weights (they need not add up to one) and probabilities."""

    documents: Weights = (
        ('worksheet', 0.50), ('facts', 0.16), ('dialogue', 0.24), ('question_answer', 0.04), ('prose', 0.06))
    chinese: float = 0.4  # share of Chinese documents of each kind

    families: Weights = (  # of dialogues
        ('arithmetic', 0.32), ('logic', 0.20), ('choice', 0.16), ('code', 0.12), ('translation', 0.1),
        ('everyday', 0.1))
    study_families: Weights = (  # of worksheets and bare questions and answers
        ('arithmetic', 0.28), ('logic', 0.38), ('choice', 0.24), ('code', 0.06), ('translation', 0.04))
    difficulty: tuple[tuple[str, tuple[int, int]], ...] = tuple(DIFFICULTY.items())

    responses: Weights = (  # to reasoning problems
        ('bare', 0.46), ('tagged_guess', 0.30), ('guess_only', 0.06), ('tagged_reflection', 0.06),
        ('tagged_steps', 0.01), ('steps', 0.07), ('reflection', 0.02), ('broken', 0.02))
    broken_reflection: float = 1.0  # share of broken responses that guess and wait before they work
    tagged_thought: float = 0.15  # of the responses to translation and everyday talk
    closing: float = 0.3  # tagged steps that end with "so the answer is"; untagged ones always do

    guess_right: tuple[float, float] = (0.5, 0.2)  # at the easiest and at the hardest default difficulty
    slip: float = 0.07  # of the steps that can go wrong
    noticed: float = 0.5  # of the slips; the others are carried on to the answer

    switch_chinese: float = 0.45  # worked Chinese responses that go on in English half way
    switch_english: float = 0.04
    switch_worksheet: float = 0.08  # the same, of Chinese solutions in worksheets

    worksheet_length: tuple[int, int] = (2, 5)  # problems, as far as they fit
    facts_length: tuple[int, int] = (8, 16)
    characters: tuple[int, int] = (250, 180)  # most in an English and in a Chinese worksheet or list of facts


RECIPES: dict[str, Recipe] = {
    'reflective': Recipe(),
    'plain': Recipe(
        responses=(
            ('bare', 0.46), ('tagged_guess', 0.30), ('guess_only', 0.06), ('tagged_reflection', 0.01),
            ('tagged_steps', 0.06), ('steps', 0.08), ('reflection', 0.01), ('broken', 0.02)),
        broken_reflection=0.1,
    ),
}
