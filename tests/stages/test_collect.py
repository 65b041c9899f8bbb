"""Collecting examples: every reason to drop one, the choice among what is left, the mixture, the card, and going on."""

import dataclasses
import json

import numpy as np
import pytest

from r1jax.data import tokenizers
from r1jax.data.tasks import open_task
from r1jax.errors import UserError
from r1jax.rewards import RewardMix
from r1jax.rewards.accuracy import final_answer, is_correct
from r1jax.rewards.base import Example
from r1jax.rewards.chat import JudgeConfig
from r1jax.runtime import datasets
from r1jax.runtime.checkpoint import read_config
from r1jax.sampling.logits import SamplingConfig
from r1jax.stages import collect
from r1jax.stages.collect import CollectStage, Keep, choose, formatted
from r1jax.stages.rollout import Rollout

ANY = Keep(format=False, correct=False, language=0.0, repetition=1.0)
STAGE = CollectStage(
    task='tiny_reasoning', questions=20, samples=2, sampling=SamplingConfig(slots=8, max_tokens=24), keep=ANY)
GOOD = ' <think> 3+4=7. </think> <answer> 7 </answer>'


def rollout(text, language='en', finished=True, task='arithmetic', prompt='Q:', answer='7', sample=0):
    example = Example(prompt, answer, task, language)
    return Rollout(example, 0, sample, np.zeros(1, np.int32), np.zeros(4, np.int32), np.zeros(4, np.float32), finished, text)


@pytest.mark.parametrize('text, reason, change', [
    (GOOD, '', {}),
    (' <think> 3+4=7. <answer> 7 </answer>', 'format', {}),
    (' <think> 3+4=8. </think> <answer> 8 </answer>', 'wrong', {}),
    (' <think> 三加四是七 it is seven. </think> <answer> 7 </answer>', 'mixed_language', {}),
    (' <think> ' + 'the sum of three and four is seven, so ' * 4 + '7. </think> <answer> 7 </answer>', 'repetition', {}),
    (' <think> ```print(3+4)``` 7. </think> <answer> 7 </answer>', 'code_block', {}),
    (' <think> ```print(3+4)``` 7. </think> <answer> 7 </answer>', '', {'code_blocks': True}),
    (' <think> short.\n\n' + ' '.join(f'{i}+1={i + 1}.' for i in range(9)) + ' </think> <answer> 7 </answer>',
     'long_paragraph', {'paragraph': 40}),
    (' <think> one.\n\ntwo.\n\nthree. </think> <answer> 7 </answer>', '', {'paragraph': 40}),
    ('7', '', {'format': False, 'correct': False}),
])
def test_each_fault_is_the_reason_for_dropping_it(text, reason, change):
    r = rollout(text)
    correct = is_correct(final_answer(r.text, r.example) or '', r.example)
    assert Keep(**change).reason(r, correct) == reason


def test_what_was_cut_is_dropped_and_what_nothing_can_grade_too():
    assert Keep().reason(rollout(GOOD, finished=False), True) == 'unfinished'
    general = rollout(' <think> </think> <answer> hello! </answer>', task='everyday')
    assert Keep().reason(general, None) == 'ungraded' and Keep(correct=False).reason(general, None) == ''
    assert Keep().reason(general, True) == '' and Keep().reason(general, False) == 'wrong'


def test_a_language_that_nothing_shows_drops_nothing():
    words = ' <think> we add. </think> <answer> 7 </answer>'
    assert Keep().reason(rollout(words, language='xx'), True) == Keep().reason(rollout(GOOD, language='fr'), True) == ''
    assert Keep().reason(rollout(words, language='zh'), True) == 'mixed_language'


def test_the_first_different_responses_of_a_question_are_chosen():
    example, other = Example('Q1:', '7', 'arithmetic'), Example('Q2:', '7', 'arithmetic')
    rows = [(example, 'x', ''), (example, 'x', ''), (example, 'w', 'wrong'), (example, 'y', ''), (example, 'z', ''),
            (other, 'x', '')]
    verdicts = [(e, {'prompt_id': i, 'sample': 0, 'completion': c, 'reason': r}) for i, (e, c, r) in enumerate(rows)]
    kept, dropped = choose(dataclasses.replace(STAGE, most=2), verdicts)
    assert [(e.prompt, row['completion']) for e, row in kept] == [('Q1:', 'x'), ('Q1:', 'y'), ('Q2:', 'x')]
    assert [row['reason'] for _, row in dropped] == ['duplicate', 'wrong', 'enough']


def test_the_form_takes_thought_summary_and_answer_and_no_text_can_smuggle_a_field_in():
    stage = dataclasses.replace(STAGE, form='{thought}\n</think>\n\n{summary} [{answer}]')
    text = ' <think> a {answer} b </think> so it is <answer> 7 </answer>'
    assert formatted(stage, Example('Q'), text) == 'a {answer} b\n</think>\n\nso it is \n 7 [7]'
    assert formatted(STAGE, Example('Q'), text) == text


def test_a_run_leaves_examples_card_and_rejects_that_add_up(inputs, tmp_path):
    stage = dataclasses.replace(STAGE, general='tiny_assistant', general_ratio=2.5)
    artifact = collect.run(stage, inputs, tmp_path)
    rows = datasets.read(artifact.folder, datasets.EXAMPLES)
    card = json.loads((artifact.folder / 'card.json').read_text())
    reasoning = [row for row in rows if row['source'] == 'reasoning']
    general = [row for row in rows if row['source'] == 'general']
    assert len(general) == round(2.5 * len(reasoning)) > 0
    assert card['examples'] == {'all': len(rows), 'reasoning': len(reasoning), 'general': len(general)}
    sampled = sum(family['sampled'] for family in card['families'].values())
    dropped = sum(n for family in card['families'].values() for n in family['dropped'].values())
    assert sampled == 40 == len(reasoning) + dropped
    assert dropped == sum(card['dropped'].values())
    assert '| family |' in (artifact.folder / 'card.md').read_text()
    # Demonstrations are those of the world, prompts those of the task, and lengths count EOS.
    first = next(open_task('tiny_assistant', 'train', seed=inputs.seed))
    assert (general[0]['prompt'], general[0]['completion']) == (first.prompt, first.response)
    tokenizer = tokenizers.load(inputs.model)
    assert all(row['n_tokens'] == len(tokenizer.encode(row['completion'], continues=True)) + 1 for row in rows)
    prompts = {example.prompt for example, _ in zip(open_task('tiny_reasoning', 'train', seed=3), range(20), strict=False)}
    assert {row['prompt'] for row in reasoning} <= prompts
    assert len({(row['prompt'], row['completion']) for row in rows}) == len(rows)
    share = artifact.figures['acceptance/T=1/all']
    assert share['n'] == 20 and share['low'] <= share['mean'] <= share['high']


def test_an_interrupted_run_goes_on_after_its_last_part_to_the_same_data(inputs, tmp_path, monkeypatch):
    stage = dataclasses.replace(STAGE, questions=130, samples=2)  # portions of 64 questions
    whole = collect.run(stage, inputs, tmp_path / 'whole')
    real, calls = collect.sample_part, []

    def fail_at_third(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(collect, 'sample_part', fail_at_third)
    with pytest.raises(KeyboardInterrupt):
        collect.run(stage, inputs, tmp_path / 'cut')
    resumed = collect.run(stage, inputs, tmp_path / 'cut')
    assert len(calls) == 4  # the first two parts were not sampled again
    rows = [datasets.read(artifact.folder, datasets.EXAMPLES) for artifact in (whole, resumed)]
    assert rows[0] == rows[1] and whole.figures == resumed.figures


def test_answers_graded_in_workers_are_those_of_this_process(inputs, tmp_path):
    stage = dataclasses.replace(STAGE, questions=20)
    here = collect.run(stage, inputs, tmp_path / 'here')
    workers = collect.run(dataclasses.replace(stage, reward_workers=1), inputs, tmp_path / 'workers')
    rows = [datasets.read(artifact.folder, datasets.EXAMPLES) for artifact in (here, workers)]
    assert rows[0] == rows[1] and here.figures == workers.figures


def test_what_no_rule_grades_is_neither_right_nor_wrong(monkeypatch):
    asked = []
    monkeypatch.setattr(collect, 'sample', lambda *a, on_finished, **k: [on_finished(r) or r for r in rollouts])
    monkeypatch.setattr(Keep, 'reason', lambda self, r, correct: asked.append(correct) or '')
    rollouts = [
        dataclasses.replace(rollout(GOOD), prompt_id=0), dataclasses.replace(rollout(GOOD, task='everyday'), prompt_id=1),
        dataclasses.replace(rollout(' <think> 8 </think> <answer> 8 </answer>'), prompt_id=2)]
    stage = dataclasses.replace(STAGE, samples=1)
    collect.sample_part(stage, None, None, [r.example for r in rollouts], 0, RewardMix('accuracy=1'), None)
    assert asked == [True, None, False]


def test_nothing_kept_is_an_error_that_says_why(inputs, tmp_path):
    with pytest.raises(UserError, match=r'nothing was kept of 40 responses \((unfinished|format)'):
        collect.run(dataclasses.replace(STAGE, keep=Keep()), inputs, tmp_path)


def test_a_judge_decides_where_no_rule_can(inputs, tmp_path, monkeypatch):
    asked = []

    def judge(prompts):
        asked.extend(prompts)
        return [json.dumps({'analysis': 'so', 'correctness': i % 2 == 0}) for i in range(len(prompts))]

    monkeypatch.setattr(collect, 'open_judge', lambda config, sharding: judge)
    stage = dataclasses.replace(
        STAGE, task='tiny_helpful', judge=JudgeConfig('package:tiny_base'), keep=dataclasses.replace(ANY, correct=True),
        sampling=SamplingConfig(slots=8, max_tokens=96))
    artifact = collect.run(stage, inputs, tmp_path)
    rejected = datasets.read(tmp_path / 'rejected.parquet', collect._REJECTED)
    questions = [e.question for e, _ in zip(open_task('tiny_helpful', 'train', seed=3), range(20), strict=False)]
    assert len(asked) == 40 and all(questions[i // 2] in prompt for i, prompt in enumerate(asked))
    assert 'wrong' in {row['reason'] for row in rejected}
    assert len(datasets.read(artifact.folder, datasets.EXAMPLES)) + len(rejected) == 40


@pytest.mark.parametrize('change, sentence', [
    ({'questions': 0}, 'questions=0 must be at least 1'),
    ({'form': 'x'}, r'form must have a place for the \{thought\}'),
    ({'template': 'r1_chatt'}, "no such template.*did you mean 'r1_chat'"),
    ({'task': 'tiny_reasonning'}, "did you mean 'tiny_reasoning'"),
    ({'general': 'tiny_logic'}, "'tiny_logic' has no demonstrations"),
    ({'sampling': SamplingConfig(slots=8, max_tokens=256)}, 'leaves no room for a prompt'),
    ({'judge': JudgeConfig('world')}, 'world'),
])
def test_what_can_be_known_to_fail_is_refused(inputs, change, sentence):
    with pytest.raises(UserError, match=sentence):
        dataclasses.replace(STAGE, **change).check(inputs.decoding, read_config(inputs.model))
    with pytest.raises(UserError, match='needs a model to sample'):
        STAGE.check(inputs.decoding, None)


@pytest.mark.parametrize('change, sentence', [
    ({'language': 1.5}, 'keep.language must be a share'), ({'repetition': -0.1}, 'keep.repetition must be a share'),
    ({'paragraph': -1}, 'paragraph=-1 must be at least 0')])
def test_bad_checks_are_refused(change, sentence):
    with pytest.raises(UserError, match=sentence):
        Keep(**change)
