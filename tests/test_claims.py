"""The table of claims: values, controls and verdicts from runs that were written by hand."""

import json
import types

import numpy as np
import pytest

from experiments.tiny import claims
from r1jax.config import load_experiment
from r1jax.errors import UserError
from r1jax.pipeline import plan
from r1jax.runtime.rollouts import SCHEMA, step_path, write_rollouts

MODELS = ('base', 'r1_zero', 'cold_start', 'reasoning_rl', 'sft', 'all_scenario_rl', 'distill', 'student_rl')


def row(step, prompt, sample, reflects, right):
    blank = {field.name: None for field in SCHEMA}
    return blank | {
        'step': step, 'prompt_id': prompt, 'sample': sample, 'reflection_words': int(reflects),
        'rewards': {'accuracy': right}}


def write_run(folder, stages, lengths=(1.0,) * 10, rollouts=()):
    metrics = folder / 'stages' / 'r1_zero' / 'metrics.jsonl'
    metrics.parent.mkdir(parents=True)
    metrics.write_text(''.join(json.dumps({'step': i + 1, 'length/mean': n}) + '\n' for i, n in enumerate(lengths)))
    (folder / 'summary.json').write_text(json.dumps({'stages': stages}))
    for step in sorted({r['step'] for r in rollouts}):
        write_rollouts(step_path(metrics.parent / 'rollouts', step), [r for r in rollouts if r['step'] == step])


def test_every_claim_of_the_eight_has_a_row_and_every_stage_named_is_one():
    assert sorted({row.claim for row in claims.ROWS}) == list('12345678')
    stages = plan(load_experiment('experiments/tiny/r1.py', ())).experiment.stages
    assert set(MODELS[1:]) <= set(stages)
    runs = {arm: claims.Run.__new__(claims.Run) for arm in claims.ARMS}
    asked = []
    for arm, run in runs.items():
        run.figure = lambda stage, metric, arm=arm: asked.append((arm, stage, metric)) or 0.5
        run.steps = lambda stage, metric: np.zeros(10)
    for row_ in claims.ROWS:
        for value in (row_.value, row_.control):
            if value is not None and 'reflecting' not in row_.measure:
                value(runs)
    assert {stage for _, stage, _ in asked} == set(MODELS)
    assert {stage for arm, stage, _ in asked if arm != 'r1'} == {'base', 'r1_zero'}


def test_every_arm_is_an_experiment_that_can_run():
    for spec in claims.ARMS.values():
        assert plan(load_experiment(spec.format(1), ())).experiment.seed == 1


def test_the_interval_is_students():
    interval = claims.Interval.of([1.0, 2.0, 4.0])
    # t of 2 degrees of freedom at 0.975: 4.303; standard deviation 1.5275.
    assert interval.mean == pytest.approx(7 / 3)
    assert interval.high - interval.mean == pytest.approx(4.3027 * 1.52753 / 3**0.5, rel=1e-4)
    assert claims.Interval.of([1.0]).low == float('-inf')


@pytest.mark.parametrize('values, controls, bar, verdict', [
    ([0.80, 0.79, 0.81], [0.01, -0.01, 0.0], 0, 'holds'),
    ([0.80, 0.79, 0.81], [0.80, 0.80, 0.79], 0, 'not shown'),  # no better than the control
    ([0.80, 0.79, 0.81], [0.90, 0.89, 0.91], 0, 'does not hold'),
    ([0.30, -0.20, 0.10], [], 0, 'not shown'),
    ([-0.30, -0.31, -0.29], [], 0, 'does not hold'),
    ([-0.010, -0.011, -0.009], [], -0.03, 'holds'),
    ([-0.040, -0.041, -0.039], [], -0.03, 'does not hold'),
])
def test_verdicts(values, controls, bar, verdict):
    row_ = claims.Row('1', 'it', 'it', lambda runs: 0.0, bar=bar)
    assert claims.Measured(row_, values, controls).verdict == verdict


def test_a_control_that_only_stands_beside_does_not_decide():
    row_ = claims.Row('1', 'it', 'it', lambda runs: 0.0, decides=False)
    assert claims.Measured(row_, [0.80, 0.79, 0.81], [0.90, 0.89, 0.91]).verdict == 'holds'
    assert claims.Measured(row_, [-0.80, -0.79, -0.81], [-0.90, -0.89, -0.91]).verdict == 'does not hold'


def test_lengths_and_reflection_within_problems(tmp_path):
    rollouts = [
        row(1, 0, 0, True, 0.0), row(1, 0, 1, False, 1.0),  # the first half does not count
        row(4, 0, 0, True, 1.0), row(4, 0, 1, True, 0.0), row(4, 0, 2, False, 0.0),  # + 0.5
        row(4, 1, 0, True, 1.0), row(4, 1, 1, False, 0.0),  # + 1
        row(4, 2, 0, True, 1.0), row(4, 3, 0, False, 0.0),  # one kind only
        row(3, 0, 0, True, 0.0), row(3, 0, 1, False, 0.0),  # 0; the same problem in another step is another group
    ]
    write_run(tmp_path / 'r1', {}, lengths=[10] * 5 + [99] + [20, 20, 20, 20, 25], rollouts=rollouts)
    runs = {'r1': claims.Run(tmp_path / 'r1')}
    assert claims.lengthening('r1')(runs) == 11
    assert claims.reflecting_pays('r1')(runs) == pytest.approx(0.5)


def test_the_whole_table(tmp_path, monkeypatch):
    for seed in range(3):
        for arm in claims.ARMS:
            write_run(tmp_path / f'{arm}_{seed}', {}, rollouts=[row(2, 0, 0, True, 1.0), row(2, 0, 1, False, 0.0)])
    monkeypatch.setattr(
        claims.Run, 'figure', lambda run, stage, metric: 0.1 * MODELS.index(stage) + 0.001 * int(run.folder.name[-1]))
    measured = claims.measure(tmp_path, range(3))
    text = claims.markdown(measured, range(3))
    assert text.count('\n') == len(claims.ROWS) + 2
    assert (
        '| 1. pure RL on the base raises accuracy | pass@1, Zero - base, T = 0.6 | 0.100, 0.100, 0.100 | '
        '0.100 [0.100, 0.100] | random rewards: 0.100 [0.100, 0.100] | not shown |') in text


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(UserError, match='r1_0 has no summary.json: the run is not finished'):
        claims.measure(tmp_path, [0])
    write_run(tmp_path / 'r1_0', {'r1_zero': {}})
    with pytest.raises(UserError, match="'r1_zero' has no figure 'pass@1'"):
        claims.Run(tmp_path / 'r1_0').figure('r1_zero', 'pass@1')


def test_runs_are_started_by_seed_and_a_failure_ends_it(tmp_path, monkeypatch):
    started = []

    def run(command, **_):
        started.append(command)
        return types.SimpleNamespace(returncode=int('r1_1' in command[-2]))

    monkeypatch.setattr(claims.subprocess, 'run', run)
    with pytest.raises(UserError, match='r1_1 ended with the exit code 1'):
        claims.run_all(tmp_path, range(3), ['--config.dtype=float32'])
    assert [command[-2] for command in started] == [
        f'--workdir={tmp_path}/{name}' for name in ('r1_0', 'random_0', 'language_0', 'r1_1')]
    assert all(command[-1] == '--config.dtype=float32' for command in started)
