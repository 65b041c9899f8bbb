"""Demonstrations: their form, their flaws at the rates that are said, and how good they are in truth."""

import collections
import dataclasses
import hashlib
import re
import statistics

import pytest

from r1jax.data import tasks, tinyworld, tokenizers
from r1jax.data.tinyworld import preferences
from r1jax.data.tinyworld.demonstrations import FILLERS, NO_THOUGHT, Flaws, demonstration
from r1jax.data.tinyworld.problems import everyday, knowledge, safety
from r1jax.rewards import has_format

GENERAL = ('translation', 'everyday', 'knowledge', 'safety')
NONE = Flaws(**{field.name: 0.0 for field in dataclasses.fields(Flaws)})
FORM = re.compile(r' <think> (?:([^<>]+) )?</think> <answer> ([^<>]+) </answer>')


def rows(family, count, **more):
    low, high = tinyworld.DIFFICULTY[family]
    for index in range(count):
        language = tinyworld.LANGUAGES[index % 2]
        difficulty = low + index // 2 % (high - low + 1)
        yield index, tinyworld.problem_at(family, 'train', index, language=language, difficulty=difficulty, **more)


def truth(problem, text):
    return preferences.helpfulness(problem.question, preferences.reply_of(text), problem.language)


@pytest.mark.parametrize('family', GENERAL)
def test_the_form_and_the_language(family):
    for index, problem in rows(family, 400):
        text = demonstration(problem, index)
        thought, reply = FORM.fullmatch(text).groups()
        assert (thought is None) == (problem.kind in NO_THOUGHT)
        assert has_format(text, blank_thought=thought is None)
        if family == 'translation':
            assert thought.startswith(problem.steps[0].en if problem.language == 'en' else problem.steps[0].zh)
        else:
            for part in filter(None, (thought, reply)):
                assert bool(re.search('[a-z]', part)) == (problem.language == 'en')
                assert bool(re.search('[\u4e00-\u9fff]', part)) == (problem.language == 'zh')


@pytest.mark.parametrize('family', tinyworld.REASONING)
def test_reasoning_has_none(family):
    assert all(demonstration(problem, index) == '' for index, problem in rows(family, 20))


@pytest.mark.parametrize('family', GENERAL)
def test_without_flaws_they_are_perfect(family):
    for index, problem in rows(family, 600):
        text = demonstration(problem, index, NONE)
        assert truth(problem, text) == 1 == preferences.harmlessness(problem.question, text, problem.language)


@pytest.mark.parametrize('family', GENERAL)
def test_hardly_one_is_longer_than_ninety_tokens(family):
    shipped = tokenizers.load('r1jax/assets/tiny_base')
    lengths = []
    for index, problem in rows(family, 3000):
        ids = shipped.encode(demonstration(problem, index), continues=True)
        assert not any(map(shipped._start.is_byte, ids))
        lengths.append(len(ids))
    assert statistics.mean(length > 90 for length in lengths) < 0.002 and statistics.mean(lengths) < 40


def test_they_are_as_good_and_as_safe_as_intended():
    mean = {}
    for family in GENERAL:
        drawn = rows(family, 2000)
        mean[family] = statistics.mean(truth(problem, demonstration(problem, index)) for index, problem in drawn)
    assert 0.9 < mean['translation'] < 0.99
    assert all(0.75 < mean[family] < 0.95 for family in GENERAL[1:]), mean
    assert 0.8 < sum(rate * mean[family] for family, rate in tasks.MIXTURES['tiny_assistant'].items()) < 0.9
    safe = {kind: statistics.mean(
        preferences.harmlessness(problem.question, demonstration(problem, index), problem.language)
        for index, problem in rows('safety', 1500, kind=kind)) for kind in ('harmful', 'benign')}
    assert abs(safe['harmful'] - 0.8) < 0.04 and safe['benign'] == 1


def share(family, flaw, is_flawed, **more):
    flaws = dataclasses.replace(NONE, **{flaw: getattr(Flaws(), flaw)})
    found = [is_flawed(problem, preferences.reply_of(demonstration(problem, index, flaws)))
             for index, problem in rows(family, 1500, **more)]
    return statistics.mean(found)


def test_each_flaw_has_its_rate():
    def index_of(problem):
        return tinyworld.LANGUAGES.index(problem.language)

    def refuses(problem, reply):
        return reply.startswith(tuple(pair[index_of(problem)] for pair in safety.REFUSALS))

    def states_wrongly(problem, reply):
        return not reply.startswith(knowledge.replies(problem.kind, problem.content, index_of(problem)))

    def pads(problem, reply):
        return truth(problem, reply) < 1

    assert abs(share('everyday', 'padded', pads) - 0.1) < 0.03
    assert abs(share('safety', 'refused', refuses, kind='benign') - 0.05) < 0.02
    assert abs(share('safety', 'complied', refuses, kind='harmful') - 0.8) < 0.04
    assert abs(share('knowledge', 'wrong_fact', states_wrongly) - 0.05) < 0.02
    assert abs(share('translation', 'wrong_word', lambda problem, reply: reply != problem.answer) - 0.1) < 0.03
    missed = collections.Counter()
    for index, problem in rows('everyday', 1500):
        reply = preferences.reply_of(demonstration(problem, index, dataclasses.replace(NONE, missed=Flaws().missed)))
        for text in everyday.take_ups(problem.content, index_of(problem)):
            missed[reply.find(text) < 0] += 1
    assert abs(missed[True] / missed.total() - 0.1) < 0.03


def test_padding_is_of_every_kind_and_ends():
    found, amount = collections.Counter(), collections.Counter()
    for index, problem in rows('everyday', 1000):
        language = tinyworld.LANGUAGES.index(problem.language)
        flaws = dataclasses.replace(NONE, padded=0.8)
        whole = preferences.reply_of(demonstration(problem, index, flaws))
        goods = [everyday.together([text, *everyday.take_ups(problem.content, language)], language)
                 for text in everyday.replies(problem.kind, problem.content, language)]
        padding = whole[max(len(good) for good in goods if whole.startswith(good)):]
        amount[round((1 / truth(problem, whole) - 1) * problem.difficulty)] += 1
        found['filler'] += any(pair[language] in padding for pair in FILLERS)
        found['unasked'] += any(
            everyday.remark_pair(remark, problem.content[-1], language)[1] in padding
            for remark in range(len(everyday.REMARKS)) if remark not in problem.content[1])
        found['again'] += any(text in padding for text in everyday.take_ups(problem.content, language))
    assert all(found[kind] > 100 for kind in ('filler', 'unasked', 'again')), found
    assert all(amount[n] > 100 for n in (0, 1, 2)) and sum(amount[n] for n in amount if n > 4) == 0, amount


def test_the_thought_is_what_the_writer_takes_the_request_for():
    for index, problem in rows('safety', 400):
        text = demonstration(problem, index)
        thought, reply = FORM.fullmatch(text).groups()
        language = tinyworld.LANGUAGES.index(problem.language)
        refuses = reply.startswith(tuple(pair[language] for pair in safety.REFUSALS))
        assert thought == safety.THOUGHTS['harmful' if refuses else 'benign'][language]


def test_the_same_row_has_the_same_demonstration_and_another_row_another():
    problem = tinyworld.problem_at('safety', 'train', 5, difficulty=3)
    assert demonstration(problem, 7) == demonstration(problem, 7)
    assert len({demonstration(problem, index) for index in range(50)}) > 10
    texts = [demonstration(tinyworld.problem_at(family, 'train', index), index) for family in GENERAL for index in range(50)]
    assert hashlib.blake2b('\n'.join(texts).encode(), digest_size=8).hexdigest() == 'a4356b81324c195c'
