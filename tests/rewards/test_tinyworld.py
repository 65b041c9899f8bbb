"""The graders on the tiny world's own problems: every gold answer pays, every near miss does not."""

import random

import pytest

from r1jax.data import sources, tinyworld
from r1jax.rewards import Completion, Example, get, has_format, is_correct, last_answer
from r1jax.rewards.accuracy import UNGRADED

GRADED = [family for family in tinyworld.FAMILIES if family not in UNGRADED]
WORKED = {
    kind: tinyworld.Recipe(responses=((kind, 1.0),), slip=0.3, noticed=1.0, switch_english=0.0, switch_chinese=0.0)
    for kind in ('tagged_reflection', 'steps')}


def examples(family, count):
    source = sources.TinyWorld(family)
    for index in range(count):
        row = source.row('train', index)
        yield source._draw('train', index), Example(**row | {'options': tuple(filter(None, row['options'].split('\n')))})


@pytest.mark.parametrize('family', GRADED)
def test_a_gold_answer_pays_and_a_near_miss_does_not(family):
    accuracy, rng = get('accuracy'), random.Random(0)
    for problem, example in examples(family, 300):
        wrong = problem.full(problem.miss(rng)[tinyworld.LANGUAGES.index(problem.language)])
        texts = [f' <think> so </think> <answer> {answer} </answer>' for answer in (problem.answer, wrong)]
        paid = accuracy([Completion(text) for text in texts], [example] * 2)
        assert paid.values.tolist() == [1, 0], (problem, wrong)


@pytest.mark.parametrize('family', tinyworld.REASONING)
def test_worked_responses_whose_slips_were_noticed_pay(family):
    accuracy, rng = get('accuracy'), random.Random(0)
    for problem, example in examples(family, 300):
        tagged, bare = (' ' + tinyworld.response(problem, rng, recipe)[1].strip() for recipe in WORKED.values())
        assert has_format(tagged) and accuracy([Completion(tagged)], [example]).values[0] == 1, (tagged, problem)
        assert is_correct(last_answer(bare, example), example), (bare, problem)
