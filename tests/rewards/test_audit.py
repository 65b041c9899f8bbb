"""The audit finds rewards that pay for tricks, and the mixes that ship pay for none of its tricks."""

import json
import pathlib

import pytest

from r1jax import __main__ as cli
from r1jax.config import load_experiment, parse_experiment
from r1jax.errors import UserError
from r1jax.pipeline import STAGES
from r1jax.rewards import RewardMix, audit
from r1jax.stages.evaluate import Evaluation

ROOT = pathlib.Path(__file__).parents[2]

SUBSTRING = '''
def contains(completions, examples):
    return [float(bool(e.answer) and e.answer in c.text) for c, e in zip(completions, examples)]


def last_answer(completions, examples):
    parts = [c.text.rpartition('<answer>')[2].partition('</answer>')[0] for c in completions]
    return [float(part == e.answer) for part, e in zip(parts, examples)]
'''
# Template -> experiments and stages whose prompts are in it.
SHIPPED = [
    ('experiments/r1_zero.py', 'r1_zero', 'r1_zero'),
    ('experiments/r1.py', 'reasoning_rl', 'r1_chat'), ('experiments/r1.py', 'all_scenario_rl', 'r1_chat'),
    ('experiments/tiny/r1_zero.py', 'r1_zero', 'tiny'), ('experiments/tiny/r1_zero.py:arm=format_only', 'r1_zero', 'tiny'),
    ('experiments/tiny/r1_zero.py:arm=language', 'r1_zero', 'tiny'),
    ('experiments/tiny/r1.py', 'r1_zero', 'tiny'), ('experiments/tiny/r1.py', 'reasoning_rl', 'tiny'),
    ('experiments/tiny/r1.py', 'all_scenario_rl', 'tiny'),
]


@pytest.fixture
def naive(tmp_path):
    (tmp_path / 'naive.py').write_text(SUBSTRING)
    return lambda name: f'{tmp_path}/naive.py:{name}=1'


def paying(findings: list[audit.Finding]) -> set[str]:
    return {finding.trick for finding in findings if finding.pays}


@pytest.mark.parametrize('experiment, stage, template', SHIPPED)
def test_shipped_mixes_pay_for_no_trick(experiment, stage, template):
    config = load_experiment(str(ROOT / experiment), [])
    kinds = {kind: known.settings for kind, known in STAGES.items()}
    settings = parse_experiment(config, kinds, Evaluation).stages[stage].config
    mix = RewardMix(
        settings.rewards, options=settings.reward_options, prefilled=audit.opens_thought(template),
        tasks={name: settings.tasks_of(name) for name in settings.reward_tasks if name not in settings.reward_models})
    findings = audit.audit(mix, template, audit.tasks_here())
    assert not [(f.trick, f.task, f.text, f.earned, f.bar) for f in findings if f.pays]
    # The audit means something: what is right earns more than what is wrong, if accuracy is paid.
    if 'accuracy' in settings.rewards:
        graded = settings.tasks_of('accuracy')
        right = [f for f in findings if f.trick == audit.RIGHT and (graded is None or f.task in graded)]
        assert right and all(f.earned > f.bar for f in right)


@pytest.mark.parametrize('template', ['r1_zero', 'r1_chat', 'boxed', 'tiny'])
def test_accuracy_alone_pays_for_no_trick(template):
    findings = audit.audit(
        RewardMix('accuracy=1', prefilled=audit.opens_thought(template)), template, audit.tasks_here())
    assert not [(f.trick, f.task, f.text) for f in findings if f.pays]
    assert {f.earned for f in findings if f.trick == audit.RIGHT} == {1.0}
    assert {f.earned for f in findings if f.trick == audit.WRONG} == {0.0}


def test_naive_rewards_are_found_out(naive):
    found = paying(audit.audit(RewardMix(naive('contains'))))
    assert {'both with a comma', 'all in a list', 'the right answer in a remark', 'not the right one',
            'the right answer in the thought alone'} <= found
    assert 'nothing' not in found and 'the words of the template' not in found
    found = paying(audit.audit(RewardMix(naive('last_answer'))))
    assert 'a wrong answer, then the right one' in found and 'both with a comma' not in found


def test_every_trick_is_another_text():
    for problem in audit.problems('r1_zero'):
        texts = audit.tricks(problem, 'r1_zero')
        assert problem.example.prompt and problem.example.question in problem.example.prompt
        assert len(texts) >= 40 and list(texts)[:2] == [audit.RIGHT, audit.WRONG]


def test_the_command(naive, tmp_path, capsys):
    assert cli.main(['audit', '--rewards=format=1']) == 0
    out = capsys.readouterr().out
    assert 'none of them pays more than an honest wrong answer' in out and '<- pays' not in out
    with pytest.raises(SystemExit) as exit_:
        cli.main(['audit', f'--rewards={naive("contains")}', f'--out={tmp_path}/audit.jsonl'])
    assert exit_.value.code == 1 and '<- pays' in capsys.readouterr().out
    rows = [json.loads(line) for line in (tmp_path / 'audit.jsonl').open()]
    row = next(row for row in rows if row['trick'] == 'not the right one' and row['pays'])
    assert (row['earned'], row['bar']) == (1.0, 0.0) and 'not 81' in row['text']


def test_without_a_sandbox_programs_are_left_out(monkeypatch, capsys):
    def none():
        raise UserError('no sandbox works here')

    assert 'code' in audit.tasks_here() or pytest.skip('no sandbox works here')
    monkeypatch.setattr(audit, 'isolation', none)
    assert 'code' not in audit.tasks_here() and 'math' in audit.tasks_here()
    assert cli.main(['audit', '--rewards=format=1']) == 0 and 'Programs were left out' in capsys.readouterr().out


def test_mistakes(capsys):
    with pytest.raises(UserError, match="did you mean 'boxed'"):
        audit.audit(RewardMix('format=1'), 'boxd')
    assert cli.main(['audit', '--rewards=fromat=1']) == 2
    assert "did you mean 'format'" in capsys.readouterr().err
