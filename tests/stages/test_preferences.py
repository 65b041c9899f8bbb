"""Preference data: both orders are asked, a bias for what stands first cancels, unclear pairs go, and going on is exact."""

import dataclasses
import json

import numpy as np
import pytest

from r1jax.data.tinyworld import preferences as truth
from r1jax.data.tinyworld.preferences import Annotator
from r1jax.errors import UserError
from r1jax.rewards.base import Example
from r1jax.rewards.chat import JudgeConfig
from r1jax.runtime import datasets
from r1jax.runtime.checkpoint import read_config
from r1jax.sampling.logits import SamplingConfig
from r1jax.stages import preferences
from r1jax.stages.preferences import PreferencesStage, judge_pairs_of
from r1jax.stages.rollout import Rollout

STAGE = PreferencesStage(task='tiny_helpful', questions=20, sampling=SamplingConfig(slots=8, max_tokens=24))
QUESTION = 'good morning!'
GOOD = ' <think> </think> <answer> good morning! how can i help you? </answer>'
BAD = ' <think> </think> <answer> no. </answer>'


def rollout(text, n_tokens=10, finished=True):
    example = Example('Q', '', 'everyday', 'en', question=QUESTION)
    return Rollout(
        example, 0, 0, np.zeros(1, np.int32), np.zeros(n_tokens, np.int32), np.zeros(n_tokens, np.float32), finished, text)


def judged(stage, a, b, compare):
    [row] = judge_pairs_of(stage, [a, b], compare)
    return row


def fixed(score):
    """A judge with one opinion of GOOD against BAD, and the record of what it was asked."""
    asked = []

    def compare(examples, firsts, seconds, vote):
        asked.append((firsts[0], seconds[0], vote))
        return [score if 'help' in firsts[0] else -score]

    return compare, asked


def test_every_other_vote_is_in_the_other_order_and_reads_the_reply_alone():
    compare, asked = fixed(4.0)
    row = judged(STAGE, rollout(GOOD), rollout(BAD), compare)
    good, bad = 'good morning! how can i help you?', 'no.'
    assert asked == [(good, bad, 0), (bad, good, 1), (good, bad, 2), (bad, good, 3)]
    assert (row['chosen'], row['rejected'], row['margin'], row['agreed'], row['reason']) == (GOOD, BAD, 4.0, True, '')
    row = judged(STAGE, rollout(BAD), rollout(GOOD), compare)
    assert (row['chosen'], row['rejected']) == (GOOD, BAD)


def test_a_judge_who_favours_what_stands_first_prefers_nothing():
    row = judged(STAGE, rollout(GOOD), rollout(BAD), lambda e, a, b, vote: [9.0] * len(a))
    assert (row['margin'], row['agreed'], row['reason']) == (0.0, False, 'unclear')


def request(question, reply, **example):
    """A response to a request of its own."""
    made = rollout(f' <think> </think> <answer> {reply} </answer>')
    return dataclasses.replace(
        made, example=dataclasses.replace(made.example, question=question, prompt=f'P{question}', **example))


def test_borrowed_responses_were_given_to_the_next_request_of_the_same_sort_and_of_the_same_language():
    stage = dataclasses.replace(STAGE, borrowed=1)
    requests = [('a', {'kind': 'x'}), ('b', {'kind': 'y'}), ('c', {'kind': 'x'}), ('d', {'kind': 'x', 'language': 'zh'}),
                ('e', {'kind': 'x'}), ('f', {'kind': 'x', 'task': 'safety'}), ('b', {'kind': 'y'})]
    rollouts = [request(q, f'{q}{sample}', **more) for q, more in requests for sample in range(2)]
    asked = []

    def compare(examples, firsts, seconds, vote):
        asked.extend(zip([e.question for e in examples], firsts, seconds, strict=True))
        return [5.0 if first.startswith(e.question) else -5.0 for e, first in zip(examples, firsts, strict=True)]

    rows = judge_pairs_of(stage, rollouts, compare)
    own = [(q, f'{q}0', f'{q}1') for q, _ in requests]
    # The two requests 'b' are one question, and 'd' and 'f' are alone with their language and task.
    assert asked[:len(rows)] == own + [('a', 'a0', 'c0'), ('c', 'c0', 'e0'), ('e', 'e0', 'a0')]
    assert [(row['prompt'], truth.reply_of(row['chosen']), truth.reply_of(row['rejected'])) for row in rows[-3:]] == [
        ('Pa', 'a0', 'c0'), ('Pc', 'c0', 'e0'), ('Pe', 'e0', 'a0')]
    asked.clear()
    rows = judge_pairs_of(dataclasses.replace(stage, borrowed=2), rollouts, compare)
    # Of the second ones, every request has one but the only one in Chinese.
    assert asked[len(requests) + 3:len(rows)] == [
        ('a', 'a1', 'b1'), ('b', 'b1', 'c1'), ('c', 'c1', 'e1'), ('e', 'e1', 'f1'), ('f', 'f1', 'b1'), ('b', 'b1', 'a1')]
    assert len(judge_pairs_of(dataclasses.replace(stage, borrowed=0), rollouts, compare)) == len(requests)
    four = [request(q, f'{q}{sample}', **more) for q, more in requests for sample in range(4)]
    rows = judge_pairs_of(dataclasses.replace(stage, samples=4, borrowed=3), four, compare)
    assert len(rows) == 2 * len(requests) + 3 + 6 + 3  # the third is of the same sort again


@pytest.mark.parametrize('a, b, reason, score', [
    (rollout(GOOD), rollout(BAD, finished=False), 'unfinished', 5.0),
    (rollout(GOOD), rollout(GOOD), 'same', 5.0),
    (rollout(GOOD), rollout(BAD), 'unclear', 0.9),
    (rollout(GOOD), rollout(BAD), 'unreadable', None),
    (rollout(GOOD, 30), rollout(BAD, 10), 'lengths', 5.0),
    (rollout(GOOD, 20), rollout(BAD, 10), '', 5.0),
])
def test_why_a_pair_is_dropped(a, b, reason, score):
    compare, _ = fixed(score) if score is not None else (lambda e, x, y, vote: [None if vote == 2 else 5.0], None)
    assert judged(STAGE, a, b, compare)['reason'] == reason


def test_the_annotator_of_the_world_agrees_with_the_truth_more_often_than_chance():
    exact = Annotator(noise=0.0, bias=0.0)
    assert exact.compare(QUESTION, truth.reply_of(GOOD), truth.reply_of(BAD), 'en', 0) == pytest.approx(10.0)


def test_pairs_of_a_run_add_up_and_an_interrupted_one_goes_on_to_the_same(inputs, tmp_path, monkeypatch):
    # A random model's replies are alike to the annotator; its noise makes some pairs clear.
    stage = dataclasses.replace(STAGE, questions=130, annotator=Annotator(noise=6.0), length_ratio=100.0)
    monkeypatch.setattr(preferences, '_why_not', _without_finish)
    whole = preferences.run(stage, inputs, tmp_path / 'whole')
    rows = datasets.read(whole.folder, datasets.PAIRS)
    card = json.loads((whole.folder / 'card.json').read_text())
    assert 0 < len(rows) < 130 and card['examples']['all'] == len(rows)
    assert len(rows) + sum(card['dropped'].values()) == 130
    assert all(row['margin'] >= stage.margin and row['chosen'] != row['rejected'] for row in rows)
    assert whole.figures['kept']['mean'] == pytest.approx(len(rows) / 130)
    real, calls = preferences.judge_pairs_of, []

    def fail_at_second(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(preferences, 'judge_pairs_of', fail_at_second)
    with pytest.raises(KeyboardInterrupt):
        preferences.run(stage, inputs, tmp_path / 'cut')
    resumed = preferences.run(stage, inputs, tmp_path / 'cut')
    assert datasets.read(resumed.folder, datasets.PAIRS) == rows


def _without_finish(stage, a, b, mean):
    """A random model does not end its replies: leave that check out."""
    return _WHY_NOT(stage, dataclasses.replace(a, finished=True), dataclasses.replace(b, finished=True), mean)


_WHY_NOT = preferences._why_not


def test_labels_are_the_annotators_and_read_the_whole_response(inputs, tmp_path, monkeypatch):
    stage = dataclasses.replace(STAGE, task='tiny_safety', form='labels', samples=1, annotator=Annotator(slip=0.3))
    seen = []
    real = Annotator.is_safe
    monkeypatch.setattr(
        Annotator, 'is_safe', lambda self, q, r, language: seen.append(r) or real(self, q, r, language))
    artifact = preferences.run(stage, inputs, tmp_path)
    rows = datasets.read(artifact.folder, datasets.LABELS)
    assert [row['response'] for row in rows] == seen and len(rows) == 20
    assert {row['safe'] for row in rows} == {True, False}
    assert artifact.figures['labelled_safe']['mean'] == pytest.approx(np.mean([row['safe'] for row in rows]))


def test_a_language_model_may_judge(inputs, tmp_path, monkeypatch):
    replies = {'score_a': '{"analysis": "", "score_a": 9, "score_b": 2}', 'safe': '{"analysis": "", "safe": false}'}

    def chat(prompts):
        return [next(reply for key, reply in replies.items() if key in prompt) for prompt in prompts]

    monkeypatch.setattr(preferences, 'open_judge', lambda config, sharding: chat)
    judge = JudgeConfig('package:tiny_base')
    compare, label = preferences.judges(dataclasses.replace(STAGE, judge=judge), inputs)
    examples = [Example('Q', question='hello!')]
    assert list(compare(examples, ['x'], ['y'], 0)) == [7] and list(label(examples, ['x'])) == [False]


@pytest.mark.parametrize('change, sentence', [
    ({'samples': 3}, 'pairs need even samples and votes, got 3 and 4'),
    ({'votes': 3}, 'pairs need even samples and votes, got 2 and 3'),
    ({'borrowed': 3}, 'borrowed=3 must be at most samples=2'),
    ({'borrowed': 1, 'form': 'labels'}, "borrowed=1 makes pairs, and form='labels' has none"),
    ({'length_ratio': 0.5}, 'length_ratio=0.5 at least 1'),
    ({'task': 'tiny_arithmetic'}, "the annotator knows nothing of the requests of 'tiny_arithmetic'"),
    ({'judge': JudgeConfig('nowhere')}, 'nowhere'),
])
def test_what_can_be_known_to_fail_is_refused(inputs, change, sentence):
    with pytest.raises(UserError, match=sentence):
        dataclasses.replace(STAGE, **change).check(inputs.decoding, read_config(inputs.model))
    with pytest.raises(UserError, match='needs a model to sample'):
        STAGE.check(inputs.decoding, None)
