"""Reward-model stage: it learns a toy preference, resumes bit for bit, and its figures are what their names say."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from r1jax.data import tokenizers
from r1jax.errors import UserError
from r1jax.learning.optimizer import OptimizerConfig
from r1jax.rewards.base import Completion, Example
from r1jax.rewards.model import Description, RewardModel
from r1jax.runtime import datasets
from r1jax.runtime.checkpoint import Checkpoints, load_model, read_config
from r1jax.runtime.metrics import read_metrics
from r1jax.stages import reward_model
from r1jax.stages.evaluate import share_interval
from r1jax.stages.reward_model import Item, RewardModelStage, calibration_bins, calibration_error, measure, split

PAIRWISE = RewardModelStage(
    'pairwise', 'summary', OptimizerConfig(learning_rate=1e-2), epochs=3, batch=16, row_length=128, micro_rows=4,
    checkpoint_every=2)
POINTWISE = dataclasses.replace(PAIRWISE, loss='pointwise', reads='response')
WORDS = 'one two three four five six seven eight'.split()


def sentence(rng, extra=''):
    words = [str(rng.choice(WORDS)) for _ in range(rng.integers(3, 6))]
    words.insert(rng.integers(0, len(words)), extra)
    return ' '.join(filter(None, words))


def pairs(n, seed=0, **changes):
    """The better response is the one with 'wait' in its summary; in the thoughts it stands on either side."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        thoughts = [f'<think> {sentence(rng, "wait" if rng.random() < 0.5 else "")} </think> ' for _ in range(2)]
        rows.append({
            'prompt': f'question {i}:', 'question': '', 'chosen': thoughts[0] + sentence(rng, 'wait'),
            'rejected': thoughts[1] + sentence(rng), 'task': ('chat', 'poems')[i % 2], 'language': 'en', 'id': str(i),
            'margin': 1.0, 'votes': 2, 'agreed': True} | changes)
    return rows


def labels(n, seed=0):
    """A response is safe unless it says 'wait', in its thought as well."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        bad = rng.random() < 0.4
        places = ['wait' if bad and place == i % 2 else '' for place in range(2)]
        rows.append({
            'prompt': f'question {i}:', 'question': '', 'task': 'safety', 'language': 'en', 'id': str(i), 'safe': not bad,
            'response': f'<think> {sentence(rng, places[0])} </think> {sentence(rng, places[1])}'})
    return rows


def given(inputs, tmp_path, rows):
    schema = datasets.PAIRS if 'chosen' in rows[0] else datasets.LABELS
    datasets.write(tmp_path / 'data' / 'rows.parquet', rows, schema)
    return dataclasses.replace(inputs, name='rm', given={'data': str(tmp_path / 'data')})


# ---- the whole stage ----


def test_a_preference_is_learnt_from_summaries_and_the_scorer_reads_the_folder(inputs, tmp_path):
    inputs = given(inputs, tmp_path, pairs(240))
    stage = dataclasses.replace(PAIRWISE, epochs=4)
    artifact = reward_model.run(stage, inputs, tmp_path / 'rm')
    assert artifact.folder == tmp_path / 'rm' / 'model' and read_config(artifact.folder).scalar_head
    figures = artifact.figures
    assert figures['accuracy']['mean'] > 0.9 and figures['brier']['mean'] < 0.1
    assert set(figures) == {
        f'{metric}{task}' for metric in ('accuracy', 'brier', 'calibration_error') for task in ('', '/chat', '/poems')
    } | {'examples', 'too_long', 'alike'}
    assert all(f['low'] <= f['mean'] <= f['high'] for f in figures.values())
    assert 10 < figures['accuracy']['n'] < 40 and figures['accuracy']['n'] == sum(
        figures[f'accuracy/{task}']['n'] for task in ('chat', 'poems'))
    bins = json.loads((tmp_path / 'rm' / 'calibration.json').read_text())
    assert set(bins) == {'all', 'chat', 'poems'} and sum(b['n'] for b in bins['all']) == figures['accuracy']['n']
    lines = read_metrics(tmp_path / 'rm')
    trained = 240 - figures['accuracy']['n']
    assert len(lines) == -(-4 * trained // 16)
    assert abs(lines[0]['loss'] - np.log(2)) < 0.3 and lines[-1]['loss'] < 0.3 and lines[-1]['accuracy'] > 0.8
    assert {'lr', 'grad_norm', 'tokens_per_s/training'} <= lines[0].keys()

    score = RewardModel(artifact.folder, inputs.decoding)
    seen = {item.prompt for item in split([Item((), 1, row['prompt'], '') for row in pairs(240)], 0.1)[0]}
    rows = [row for row in pairs(240) if row['prompt'] in seen]  # those it was trained on
    examples = [Example(prompt=row['prompt']) for row in rows]
    outputs = [score([Completion(row[name]) for row in rows], examples) for name in ('chosen', 'rejected')]
    assert (outputs[0].values > outputs[1].values).mean() > 0.9
    # Standardised over all responses of the training items.
    values = np.concatenate([output.values for output in outputs])
    np.testing.assert_allclose([values.mean(), values.std()], [0, 1], atol=1e-3)
    new = [Completion(f'<think> {thought} </think> five two {word} one') for word in ('wait', 'six') for thought in WORDS]
    values = score(new, [Example(prompt='another question:')] * 16).values
    assert values[:8].min() > values[8:].max() + 0.5
    np.testing.assert_allclose(values[:8], values[0], atol=1e-5)  # whatever it thought


def test_labels_are_learnt_from_whole_responses(inputs, tmp_path):
    inputs = given(inputs, tmp_path, labels(300))
    artifact = reward_model.run(dataclasses.replace(POINTWISE, epochs=4), inputs, tmp_path / 'rm')
    figures = artifact.figures
    assert figures['accuracy']['mean'] > 0.9 and figures['recall_unsafe']['mean'] > 0.8
    assert figures['recall_unsafe']['n'] < figures['accuracy']['n']
    assert not [name for name in figures if '/' in name] and 'alike' not in figures  # one task, and no pairs
    # The raw score itself is a logit: negative for unsafe, wherever it stands.
    score = RewardModel(artifact.folder, inputs.decoding)
    texts = [
        '<think> one wait two </think> six one', '<think> one two </think> six wait one', '<think> one two </think> six one']
    raw = score([Completion(text) for text in texts], [Example(prompt='question 1000:')] * 3).info['raw']
    assert raw[0] < 0 and raw[1] < 0 < raw[2]


def test_thoughts_that_are_not_read_cannot_be_learnt(inputs, tmp_path):
    """Guards the tests above: the labels hang on the thought as often as on the summary."""
    rows = [row for i, row in enumerate(labels(300)) if i % 2 == 0]  # 'wait' in the thought alone
    inputs = given(inputs, tmp_path, rows)
    stages = [dataclasses.replace(POINTWISE, epochs=4, reads=reads, holdout=0.3) for reads in ('response', 'summary')]
    right = [reward_model.run(stage, inputs, tmp_path / stage.reads).figures['accuracy']['mean'] for stage in stages]
    assert right[0] > 0.9 and right[1] < 0.8


@pytest.mark.parametrize('stage, rows', [(PAIRWISE, pairs(60)), (POINTWISE, labels(60))], ids=['pairwise', 'pointwise'])
def test_a_run_that_is_interrupted_ends_bit_for_bit_as_one_that_is_not(inputs, tmp_path, monkeypatch, stage, rows):
    inputs = given(inputs, tmp_path, rows)
    stage = dataclasses.replace(stage, optimizer=OptimizerConfig(1e-2, 'cosine', 1))
    whole = reward_model.run(stage, inputs, tmp_path / 'whole')
    real = reward_model.apply_gradients

    def fail_at_step_6(state, *arguments, **keywords):
        if int(state.step) == 5:
            raise KeyboardInterrupt
        return real(state, *arguments, **keywords)

    monkeypatch.setattr(reward_model, 'apply_gradients', fail_at_step_6)
    with pytest.raises(KeyboardInterrupt):
        reward_model.run(stage, inputs, tmp_path / 'cut')
    monkeypatch.setattr(reward_model, 'apply_gradients', real)
    assert Checkpoints(tmp_path / 'cut' / 'checkpoints').latest() == 4
    resumed = reward_model.run(stage, inputs, tmp_path / 'cut')
    results = [jax.tree.leaves(load_model(artifact.folder, inputs.training).params) for artifact in (whole, resumed)]
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)
    losses = [[(m['step'], m['loss'], m['lr']) for m in read_metrics(tmp_path / name)] for name in ('whole', 'cut')]
    assert losses[0] == losses[1] and [step for step, _, _ in losses[0]] == list(range(1, len(losses[0]) + 1))
    assert len({loss for _, loss, _ in losses[0]}) == len(losses[0]) > 9
    assert losses[0][-1][2] == pytest.approx(1e-3)  # the schedule ends with the stage
    assert whole.figures == resumed.figures
    # A start after the end measures and saves again, and trains no more.
    monkeypatch.setattr(reward_model, 'apply_gradients', None)
    assert reward_model.run(stage, inputs, tmp_path / 'cut').figures == whole.figures
    assert (tmp_path / 'cut' / 'model' / 'reward.json').read_text() == (
        tmp_path / 'whole' / 'model' / 'reward.json').read_text()


def test_every_epoch_has_its_own_order_and_reads_each_trained_item_once(inputs, tmp_path, monkeypatch):
    inputs = given(inputs, tmp_path, pairs(40))
    seen = []
    real = reward_model.pack_items

    def record(items, row_length, labels):
        seen.extend(item[0].tobytes() for item in items)
        return real(items, row_length, labels)

    monkeypatch.setattr(reward_model, 'pack_items', record)
    figures = reward_model.run(dataclasses.replace(PAIRWISE, epochs=2, batch=8), inputs, tmp_path / 'rm').figures
    trained = 40 - figures['accuracy']['n']
    first, second = seen[:trained], seen[trained:]
    assert len(set(first)) == trained and first != second and sorted(first) == sorted(second)


# ---- what is read and what is left out ----


def test_what_does_not_fit_or_reads_alike_is_left_out_and_counted(model_folder, tmp_path):
    rows = pairs(6)
    rows[1]['chosen'] = '<think> one </think> six two'
    rows[1]['rejected'] = '<think> two </think> six two'  # the same summary
    rows[2]['rejected'] = ' one' * 100
    rows[3]['rejected'] = ' one' * 25
    datasets.write(tmp_path / 'rows.parquet', rows, datasets.PAIRS)
    tokenizer = tokenizers.load(model_folder)
    read = lambda stage, positions: reward_model.read_items(stage, tmp_path, tokenizer, positions)  # noqa: E731
    items, counts = read(PAIRWISE, 256)
    assert [item.prompt for item in items] == [f'question {i}:' for i in (0, 3, 4, 5)]
    assert {name: figure['mean'] for name, figure in counts.items()} == {'examples': 4, 'too_long': 1, 'alike': 1}
    assert all(figure['n'] == 6 for figure in counts.values())
    # Of the whole response nothing is alike, and the longest just fits into the model's positions or does not.
    longest = max(len(s) for s in read(PAIRWISE, 256)[0][1].sequences)
    assert read(PAIRWISE, longest)[1]['too_long']['mean'] == 1
    assert read(PAIRWISE, longest - 1)[1]['too_long']['mean'] == 2
    assert read(dataclasses.replace(PAIRWISE, reads='response'), 256)[1]['alike']['mean'] == 0
    # A pair fits if both its sequences do, side by side.
    both = max(sum(len(s) for s in item.sequences) for item in items)
    assert read(dataclasses.replace(PAIRWISE, row_length=both), 256)[1]['too_long']['mean'] == 1
    assert read(dataclasses.replace(PAIRWISE, row_length=both - 1), 256)[1]['too_long']['mean'] == 2


def test_an_item_is_bos_prompt_what_is_read_and_eos(model_folder, tmp_path):
    datasets.write(tmp_path / 'rows.parquet', labels(3), datasets.LABELS)
    tokenizer = tokenizers.load(model_folder)
    for reads in ('summary', 'response'):
        items, _ = reward_model.read_items(dataclasses.replace(POINTWISE, reads=reads), tmp_path, tokenizer, 256)
        for item, row in zip(items, labels(3), strict=True):
            text = row['response'] if reads == 'response' else row['response'].split('</think>')[1]
            (sequence,) = item.sequences
            assert (sequence[0], sequence[-1]) == (tokenizer.bos_id, tokenizer.eos_id)
            assert tokenizer.decode(sequence) == row['prompt'] + text
            assert (item.label, item.task) == (float(row['safe']), 'safety')


def test_prompts_are_held_out_whole_and_stay_so_as_the_data_grow():
    items = [Item((), i % 2, f'prompt {i % 500}', '') for i in range(1000)]
    trained, held_out = split(items, 0.2)
    assert len(trained) + len(held_out) == 1000 and 140 < len(held_out) < 260
    names = {item.prompt for item in held_out}
    assert not names & {item.prompt for item in trained}
    assert {item.prompt for item in split(items[:500], 0.2)[1]} == names
    assert names < {item.prompt for item in split(items, 0.4)[1]}
    # At least one is held out, and then nothing but one prompt's items.
    few = [Item((), 1, 'a', ''), Item((), 1, 'b', ''), Item((), 0, 'a', '')]
    trained, held_out = split(few, 1e-9)
    assert trained and len({item.prompt for item in held_out}) == 1


# ---- figures ----


def as_items(labels, prompts=None, tasks=None):
    n = len(labels)
    return [Item((), labels[i], prompts[i] if prompts else f'p{i}', tasks[i] if tasks else 'a') for i in range(n)]


def test_figures_of_labels_are_those_of_their_definitions():
    rng = np.random.default_rng(1)
    label, score = rng.integers(0, 2, 200).astype(float), rng.normal(0, 2, 200)
    tasks = ['a' if x < 0.6 else 'b' for x in rng.random(200)]
    figures, bins = measure('pointwise', as_items(label, tasks=tasks), score[:, None], seed=0)
    p = 1 / (1 + np.exp(-score))
    for name, chosen in (('', np.ones(200, bool)), ('/a', np.array(tasks) == 'a'), ('/b', np.array(tasks) == 'b')):
        right = (score[chosen] > 0) == (label[chosen] == 1)
        assert figures[f'accuracy{name}'] == share_interval(right)
        np.testing.assert_allclose(figures[f'brier{name}']['mean'], np.mean((p[chosen] - label[chosen])**2))
        caught = score[chosen & (label == 0)] <= 0
        assert figures[f'recall_unsafe{name}'] == share_interval(caught)
        assert figures[f'calibration_error{name}']['mean'] == calibration_error(p[chosen], label[chosen])
    assert set(bins) == {'all', 'a', 'b'} and sum(b['n'] for b in bins['a']) == tasks.count('a')


def test_figures_of_pairs_are_told_in_random_order():
    """So that probabilities lie on both sides of a half, and what is observed is not always 1."""
    rng = np.random.default_rng(2)
    difference = rng.normal(1, 2, 400)
    scores = np.stack([difference, np.zeros(400)], axis=1)
    figures, bins = measure('pairwise', as_items(np.ones(400)), scores, seed=0)
    assert figures['accuracy']['mean'] == np.mean(difference > 0) and 'recall_unsafe' not in figures
    np.testing.assert_allclose(figures['brier']['mean'], np.mean((1 / (1 + np.exp(-difference)) - 1)**2))
    assert sum(b['n'] * b['observed'] for b in bins['all']) / 400 == pytest.approx(0.5, abs=0.08)
    assert bins['all'][0]['predicted'] < 0.1 and bins['all'][-1]['predicted'] > 0.9
    assert measure('pairwise', as_items(np.ones(400)), scores, seed=0)[0] == figures
    # A tie is not in order.
    assert measure('pairwise', as_items(np.ones(2)), np.zeros((2, 2)), 0)[0]['accuracy']['mean'] == 0


def test_items_of_one_prompt_do_not_count_as_many():
    label = np.array([1.0] * 50 + [1.0] * 2)
    score = np.array([1.0] * 50 + [-1.0] * 2)
    figures, _ = measure('pointwise', as_items(label, ['p'] * 50 + ['q', 'r']), score[:, None], 0)
    assert figures['accuracy']['n'] == 3 and figures['accuracy']['mean'] == pytest.approx(1 / 3)
    assert figures['calibration_error']['n'] == 3 and 'recall_unsafe' not in figures


def test_calibration_error_by_hand():
    p = np.array([0.9, 0.1, 0.5, 0.6])
    y = np.array([1.0, 0.0, 1.0, 0.0])
    # Four predictions, four bins: the mean of |y - p|.
    assert calibration_error(p, y) == pytest.approx(np.mean(np.abs(y - p)))
    # Twenty of two kinds: bins of two equal predictions each, one of them right, are off by |0.5 - p|.
    p = np.repeat(np.linspace(0.05, 0.95, 10), 2)
    y = np.tile([0.0, 1.0], 10)
    assert calibration_error(p, y) == pytest.approx(np.mean(np.abs(0.5 - p)))
    bins = calibration_bins(p[::-1], y)
    assert [b['n'] for b in bins] == [2] * 10 and bins[0]['predicted'] == pytest.approx(0.05)
    assert [b['n'] for b in calibration_bins(np.arange(23) / 23, np.ones(23))] == [3, 3, 3, 2, 2, 2, 2, 2, 2, 2]


@pytest.mark.parametrize('off', [0.0, 0.03, 0.08])
def test_the_interval_of_the_calibration_error_holds_the_truth(off):
    """Probabilities that are off by a known amount. The error itself is biased upwards: most so where the truth is 0."""
    rng = np.random.default_rng(3)
    holds, errors, widths = 0, [], []
    for _ in range(200):
        p = rng.random(300) * 0.6 + 0.3
        y = (rng.random(300) < p - off).astype(float)
        figure = reward_model.calibration_interval(p, y, np.arange(300))
        holds += figure['low'] <= off <= figure['high']
        errors.append(figure['mean'])
        widths.append(figure['high'] - figure['low'])
        assert 0 <= figure['low'] <= figure['mean'] <= figure['high'] <= 1 and figure['n'] == 300
    assert holds >= 190 and np.mean(errors) > off + 0.01 and np.mean(widths) < 0.16


def test_items_of_one_prompt_make_the_interval_no_narrower():
    rng = np.random.default_rng(4)
    p, y = rng.random(100), rng.integers(0, 2, 100).astype(float)
    of_many, of_few = (reward_model.calibration_interval(p, y, prompts) for prompts in (np.arange(100), np.zeros(100, int)))
    assert of_few['mean'] == of_many['mean'] and (of_many['n'], of_few['n']) == (100, 1)
    assert of_few['high'] - of_few['low'] > of_many['high'] - of_many['low']


# ---- bad input ----


@pytest.mark.parametrize('change, sentence', [
    ({'loss': 'pairwize'}, "loss='pairwize' is unknown .*did you mean 'pairwise'"),
    ({'reads': 'thinking'}, "reads='thinking' is unknown"),
    ({'holdout': 0.0}, r'holdout=0.0 must lie between 0 and 1'),
    ({'holdout': 1.0}, r'holdout=1.0 must lie between 0 and 1'),
    ({'batch': 0}, 'batch=0 must be at least 1'),
])
def test_settings_that_make_no_sense_are_refused(change, sentence):
    with pytest.raises(UserError, match=sentence):
        dataclasses.replace(PAIRWISE, **change)


def test_what_would_fail_later_is_refused_before_anything_runs(inputs):
    policy = read_config(inputs.model)
    assert PAIRWISE.check(inputs.training, policy) == dataclasses.replace(policy, scalar_head=True)
    with pytest.raises(UserError, match='needs a model to start from'):
        PAIRWISE.check(inputs.training, None)
    with pytest.raises(UserError, match='starts from a policy'):
        PAIRWISE.check(inputs.training, dataclasses.replace(policy, scalar_head=True))
    with pytest.raises(UserError, match='micro_rows=3 is not divisible by 2'):
        dataclasses.replace(PAIRWISE, micro_rows=3).check(inputs.training, policy)


@pytest.mark.parametrize('stage, rows, sentence', [
    (PAIRWISE, labels(5), "the column 'chosen' is missing"),
    (POINTWISE, pairs(5), "the column 'response' is missing"),
    (PAIRWISE, pairs(5, prompt='the same'), 'more than one prompt, or a smaller holdout, are needed to train on'),
    (POINTWISE, [row | {'safe': True} for row in labels(5)], 'both safe and unsafe ones are needed to train on'),
    (PAIRWISE, pairs(5, rejected=' one' * 500), r'none of its 5 examples can be used \(5 too long, 0 alike\) with row'),
    (PAIRWISE, pairs(5, chosen='</think> a', rejected='</think> a'), r'\(0 too long, 5 alike\)'),
    (dataclasses.replace(PAIRWISE, optimizer=OptimizerConfig(1e-2, 'cosine', 500)), pairs(5), 'warmup_steps'),
], ids=['labels', 'pairs', 'one prompt', 'one label', 'too long', 'alike', 'warm-up'])
def test_data_that_nothing_can_be_learnt_from_are_refused(inputs, tmp_path, stage, rows, sentence):
    with pytest.raises(UserError, match=sentence):
        reward_model.run(stage, given(inputs, tmp_path, rows), tmp_path / 'rm')


def test_the_description_says_what_was_trained(inputs, tmp_path):
    inputs = given(inputs, tmp_path, labels(20))
    artifact = reward_model.run(dataclasses.replace(POINTWISE, epochs=1), inputs, tmp_path / 'rm')
    told = Description.load(artifact.folder)
    assert (told.loss, told.reads, told.row_length, told.micro_rows) == ('pointwise', 'response', 128, 4)
