"""The notebook runs, says what the module says, and is kept with the outputs that today's code gives."""

import json
import re

import nbformat
import pytest

from experiments.notebooks.execute import NOTEBOOK, execute
from r1jax import ablation

STEPS, PROBLEMS = 2, 4
ARMS = ('paid', 'format', 'random', 'brevity')
# From here on cells depend on what was trained.
FIRST_OF_TRAINING = 'train'
AGAIN = 'run python -m experiments.notebooks.execute again'


@pytest.fixture(scope='module')
def kept():
    return nbformat.read(NOTEBOOK, as_version=4)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('notebook')


@pytest.fixture(scope='module')
def executed(folder):
    """The notebook as a new kernel leaves it, with few steps and problems, in a folder where nothing else is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('R1JAX_NOTEBOOK_STEPS', str(STEPS))
        patch.setenv('R1JAX_NOTEBOOK_PROBLEMS', str(PROBLEMS))
        patch.setenv('PYTHONPATH', str(NOTEBOOK.parents[2]))
        return execute(folder, timeout_s=600)


def outputs(notebook, kind):
    """Cell -> the output of that kind of each cell that has one."""
    return {cell.id: output.data[kind] for cell in notebook.cells if cell.cell_type == 'code'
            for output in cell.outputs if kind in output.get('data', {})}


def test_every_cell_runs_and_says_what_the_module_says(executed, folder):
    rollouts = ablation.load('experiments/notebooks/reward_ablation.parquet')
    table = ablation.rescore(rollouts, {
        'paid': 'accuracy=1,format=0.05', 'language': 'accuracy=1,format=0.05,language=0.2'})
    shown = outputs(executed, 'text/plain')
    assert shown['rollouts'] == repr(rollouts) and 'each has the reward that was paid' in shown['rollouts']
    assert shown['language-flips'] == repr(table.flips('paid', 'language', most=2))
    rows = dict(line.split(maxsplit=1) for line in shown['mixes'].splitlines()[4:])
    assert list(rows) == [
        'paid', 'accuracy', 'equal', 'product', 'format', 'random', 'language', 'brevity', 'overlong', 'cosine']
    correlation, _, flips = table.compare('paid', 'language').figures(table.compare('paid', 'language').flat_P >= 0)
    assert rows['language'].split()[-3] == correlation and rows['language'].split()[-1] == flips
    # A coin has nothing to do with what was paid, and turns every other completion.
    assert abs(float(rows['random'].split()[-3])) < 0.1 and 40 < float(rows['random'].split()[-1].rstrip('%')) < 60
    # The same as HTML, and two pictures.
    assert outputs(executed, 'text/html').keys() == {
        'rollouts', 'mixes', 'by-step', 'flips', 'language-flips', 'ranking', 'correlations', 'arms'}
    assert outputs(executed, 'image/png').keys() == {'advantages', 'plot'}


def test_the_arms_were_trained_and_are_those_of_the_run(executed, folder):
    run = folder / 'runs' / 'reward_ablation'
    arms = ablation.read_arms(run)
    assert outputs(executed, 'text/plain')['arms'] == repr(arms)
    assert tuple(arms.rewards) == ARMS and list(arms.figures) == ['base', *ARMS]
    for name in ARMS:
        assert arms.metrics[name]['step'].tolist() == list(range(1, STEPS + 1))
        assert arms.pass_at_1(name)['n'] == PROBLEMS
        # Before any update all arms draw the same completions; what they are paid for is another thing.
        assert arms.metrics[name]['length/mean'][0] == arms.metrics['paid']['length/mean'][0]
    assert len({arms.metrics[name]['reward/mean'][0] for name in ARMS}) == len(ARMS)
    assert json.loads((run / 'manifest.json').read_text())['experiment']['stages']['brevity']['rewards'] == (
        'accuracy=1,format=0.05,brevity=0.5')
    base, said = arms.pass_at_1('base'), outputs(executed, 'text/markdown')['arms-say']
    assert f'On {PROBLEMS} problems' in said and f'[{base["low"]:.3f}, {base["high"]:.3f}] for the base' in said
    for name in ARMS:
        assert f'{arms.metrics[name]["format_rate"][-1]:.2f} ({name})' in said


def test_the_outputs_that_are_kept_are_those_of_todays_code(kept, executed):
    order = [cell.id for cell in kept.cells]
    assert [(cell.id, cell.source) for cell in kept.cells] == [(cell.id, cell.source) for cell in executed.cells]
    for kind in ('text/plain', 'text/html', 'text/markdown'):
        there, today = outputs(kept, kind), outputs(executed, kind)
        assert there.keys() == today.keys(), AGAIN
        for cell in there:
            if order.index(cell) < order.index(FIRST_OF_TRAINING):
                assert there[cell] == today[cell], AGAIN


def test_the_notebook_is_small_complete_and_says_nothing_of_a_machine(kept):
    assert NOTEBOOK.stat().st_size < 500_000
    assert kept.metadata.kernelspec == {'display_name': 'Python 3', 'language': 'python', 'name': 'python3'}
    code = [cell for cell in kept.cells if cell.cell_type == 'code']
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), AGAIN
    assert not any(cell.metadata for cell in kept.cells)
    assert not any(output.output_type == 'error' for cell in code for output in cell.outputs)
    text = NOTEBOOK.read_text(encoding='utf-8')
    assert not re.search(r'(?<![\w.<])/(?:home|root|tmp|Users|work|usr|opt)/', text)
    # The outputs are those of the whole thing, not of a short one.
    assert 'What 5 steps can show' in outputs(kept, 'text/markdown')['arms-say']
