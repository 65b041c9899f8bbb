"""Stored rollouts under other rewards: every figure against plain loops; and arms that train, in a few small steps."""

import json
import math
import sys
import warnings

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import stats

from r1jax import ablation
from r1jax.config import CHECKOUT
from r1jax.errors import UserError
from r1jax.rewards import Example, RewardMix, register
from r1jax.runtime.rollouts import LATER, as_rows, read_rollouts, step_path, write_rollouts
from r1jax.stages.grpo import GRPOStage
from r1jax.stages.rollout import Rollout, row

RIGHT, WRONG = '<think> t </think> <answer> {} </answer>', '<think> t </think> <answer> 0 </answer>'
SHIPPED = 'experiments/notebooks/reward_ablation.parquet'
G = 4


def draws(step, prompt_id, texts, lengths, task='arithmetic', **fields):
    example = Example(prompt=f'User: {prompt_id}+1\nAssistant:', answer=str(prompt_id + 1), task=task, language='en',
                      id=f'sum/{prompt_id}', question=f'{prompt_id}+1 <b>?', **fields)
    return [Rollout(example, prompt_id, i, np.zeros(3, np.int32), np.zeros(n, np.int32), np.zeros(n, np.float32), True,
                    text.format(prompt_id + 1)) for i, (text, n) in enumerate(zip(texts, lengths, strict=True))]


GROUPS = [
    draws(1, 3, [RIGHT, WRONG, '{}', 'no <script>alert(1)</script>'], [40, 10, 2, 5]),
    draws(1, 5, [WRONG, WRONG, WRONG, WRONG], [9, 9, 9, 9]),
    draws(1, 7, [RIGHT, '<answer> {} </answer>', WRONG, 'tea'], [50, 30, 8, 3]),
]


def write_run(folder, groups=GROUPS, rewards='accuracy=1,format=0.5', steps=(1,), change=None, **settings):
    """A stage's folder as a GRPO stage of today leaves it; returns that of its rollouts."""
    mix = RewardMix(rewards, options=settings.get('reward_options'))
    for step in steps:
        rows = []
        for rollouts in groups:
            output = mix([r.for_rewards(step) for r in rollouts], [r.example for r in rollouts])
            rows += [row(r, step, reward=float(output.values[i]), advantage=0.0,
                         components={k: float(v[i]) for k, v in output.info.items() if not np.isnan(v[i])})
                     for i, r in enumerate(rollouts)]
        if change is not None:
            change(rows)
        write_rollouts(step_path(folder / 'rollouts', step), rows)
    (folder / 'config.json').write_text(json.dumps({'kind': 'grpo', 'rewards': rewards} | settings))
    return folder / 'rollouts'


@pytest.fixture
def rollouts(tmp_path):
    return ablation.load(write_run(tmp_path))


# ---- loading ----


def test_rescoring_gives_what_was_paid_and_says_so(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        found = ablation.load(write_run(tmp_path, steps=(1, 2)))
        # The coin depends on step, problem, sample and id: all of them have come back.
        ablation.load(write_run(tmp_path / 'coin', steps=(1, 2), rewards='random=1,format=0.25'))
    assert (len(found.completions), found.groups, found.group, found.steps) == (24, 6, G, [1, 2])
    assert found.checked == "Rescored under the run's own rewards, each has the reward that was paid."
    assert repr(found) == ("24 completions in 6 groups of 4 (steps 1, 2), paid by 'accuracy=1,format=0.5'. " + found.checked)
    assert found._repr_html_() == '<p>' + repr(found).replace("'", '&#x27;') + '</p>'
    assert found.name(5) == 'step 1, problem 5, sample 1'
    assert found.components['format'].tolist() == ([1, 1, 0, 0] + [1, 1, 1, 1] + [1, 0, 1, 0]) * 2
    assert set(found.components) == {'accuracy', 'format'}
    assert ablation.load(tmp_path / 'rollouts', steps=[2]).steps == [2]


def test_a_reward_that_is_another_today_is_warned_of_by_name(tmp_path):
    def change(rows):
        rows[8]['answer'] = '99'  # it was right when it was paid
    with pytest.warns(UserWarning, match='1 have another reward') as seen:
        found = ablation.load(write_run(tmp_path, change=change))
    assert 'step 1, problem 7, sample 0: 1.5 -> 0.5 (accuracy 1 -> 0).' in str(seen[0].message)
    assert seen[0].filename == __file__ and found.checked in str(seen[0].message)


def test_difference_in_the_last_bit_of_float32_is_none(tmp_path):
    def change(rows):
        for r in rows:
            r['reward'] = float(np.nextafter(np.float32(r['reward']), np.float32(9)))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        ablation.load(write_run(tmp_path, change=change))


def test_what_reward_models_paid_is_taken_as_stored(tmp_path):
    def change(rows):
        for i, r in enumerate(rows):
            r['rewards']['helpful'] = i / 7
            r['reward'] += 0.5 * i / 7
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        ablation.load(write_run(tmp_path, change=change, reward_models={'helpful': 0.5}))
    with pytest.warns(UserWarning, match='11 have another reward'):
        ablation.load(write_run(tmp_path, change=change))


def test_without_the_runs_settings_nothing_is_checked(tmp_path):
    folder = write_run(tmp_path)
    (tmp_path / 'config.json').unlink()
    assert 'not known' in ablation.load(folder).checked

    def evaluation(rows):
        for r in rows:
            r['advantage'] = None
    found = ablation.load(write_run(tmp_path / 'eval', change=evaluation))
    assert found.paid is None and 'not known' in found.checked


def test_older_files_are_read_and_the_columns_that_they_lack_are_named_where_it_matters(tmp_path):
    def age(folder):
        path = step_path(folder, 1)
        pq.write_table(pq.read_table(path).drop_columns(list(LATER)), path)
    folder = write_run(tmp_path / 'sums')
    age(folder)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert ablation.load(folder).examples[0].id == ''
    # The coin is a hash of the id, too.
    folder = write_run(tmp_path / 'coin', rewards='random=1')
    age(folder)
    with pytest.warns(UserWarning, match='older than the columns id, question, options, tests'):
        ablation.load(folder)


def test_groups_must_be_whole_and_something_must_be_there(tmp_path):
    with pytest.raises(UserError, match='problem 5 of step 1 is no whole group: it has 3 completions, where others have 4'):
        ablation.load(write_run(tmp_path / 'a', change=lambda rows: rows.pop(4)))
    with pytest.raises(UserError, match='problem 3 of step 1 is no whole group: it has 4 .* not side by side'):
        ablation.load(write_run(tmp_path / 'b', change=lambda rows: rows.append(rows.pop(0))))
    with pytest.raises(UserError, match='no such folder'):
        ablation.load(tmp_path / 'none')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(UserError, match='there are no rollouts'):
        ablation.load(tmp_path / 'empty')


def test_an_excerpt_is_the_first_groups_of_its_steps_and_knows_what_was_paid(tmp_path, monkeypatch):
    folder = write_run(tmp_path / 'rl', steps=(1, 2, 3), reward_options={'format': {}}, advantage_std=False)
    ablation.excerpt(folder, tmp_path / 'some.parquet', steps=[1, 3], groups=2)
    found = ablation.load(tmp_path / 'some.parquet')
    assert list(zip(found.step_B[::G], found.prompt_id_B[::G], strict=True)) == [(1, 3), (1, 5), (3, 3), (3, 5)]
    assert found.paid == ablation.Mix('accuracy=1,format=0.5', {'format': {}}, advantage_std=False)
    assert 'each has the reward that was paid' in found.checked
    assert as_rows(read_rollouts(tmp_path / 'some.parquet'))[:8] == as_rows(read_rollouts(folder, [1]))[:8]
    monkeypatch.chdir(tmp_path)
    assert len(ablation.load('some.parquet').completions) == 16
    (folder.parent / 'config.json').unlink()
    with pytest.raises(UserError, match="no 'config.json'"):
        ablation.excerpt(folder, tmp_path / 'some.parquet', steps=[1], groups=1)


def test_the_shipped_excerpt_is_found_from_any_folder_and_is_what_today_would_pay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        found = ablation.load(SHIPPED)
    assert (found.groups, found.group) == (48, 16) and 'each has the reward that was paid' in found.checked
    assert (CHECKOUT / SHIPPED).stat().st_size < 300_000


# ---- rescoring ----

MIXES = {
    'paid': 'accuracy=1,format=0.5',
    'format': {'rewards': 'format=1', 'advantage_std': False},
    'short': {'rewards': 'accuracy=0.5,overlong=1', 'reward_options': {'overlong': {'max_length': 60, 'cache': 50}}},
    'routed': {'rewards': 'accuracy=1,format=1', 'reward_tasks': {'accuracy': 'math+code'}},
}
ACCURACY = [1, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0]
FORMAT = [1, 1, 0, 0, 1, 1, 1, 1, 1, 0, 1, 0]
OVERLONG = [min(0, (10 - n) / 50) for n in (40, 10, 2, 5, 9, 9, 9, 9, 50, 30, 8, 3)]
EXPECTED = {
    'paid': [a + f / 2 for a, f in zip(ACCURACY, FORMAT, strict=True)], 'format': FORMAT,
    'short': [a / 2 + o for a, o in zip(ACCURACY, OVERLONG, strict=True)], 'routed': FORMAT}


def by_loop(rewards, divided=True):
    found = []
    for start in range(0, len(rewards), G):
        group = rewards[start:start + G]
        mean = sum(group) / G
        std = math.sqrt(sum((r - mean) ** 2 for r in group) / G)
        found += [(r - mean) / (std or 1 if divided else 1) for r in group]
    return found


def test_rewards_and_advantages_are_those_of_a_loop(rollouts):
    table = ablation.rescore(rollouts, MIXES)
    for name, expected in EXPECTED.items():
        np.testing.assert_allclose(table.scored[name].reward_B, expected, atol=1e-6)
        np.testing.assert_allclose(table.scored[name].advantage_B, by_loop(expected, name != 'format'), atol=1e-4)
    assert np.isnan(table.scored['routed'].components['accuracy']).all()
    np.testing.assert_allclose(table.scored['short'].components['overlong'], OVERLONG, atol=1e-6)


def test_advantages_are_divided_as_the_run_did_unless_a_mix_says(tmp_path):
    found = ablation.load(write_run(tmp_path, advantage_std=False))
    table = ablation.rescore(found, {'paid': 'accuracy=1,format=0.5', 'd': {'rewards': 'format=1', 'advantage_std': True}})
    np.testing.assert_allclose(table.scored['paid'].advantage_B, by_loop(EXPECTED['paid'], divided=False), atol=1e-6)
    np.testing.assert_allclose(table.scored['d'].advantage_B, by_loop(FORMAT), atol=1e-4)


def test_comparisons_are_those_of_loops(rollouts):
    versus = ablation.rescore(rollouts, MIXES).compare('paid', 'short')
    paid, short = EXPECTED['paid'], EXPECTED['short']
    for group, start in enumerate(range(0, 12, G)):
        some = slice(start, start + G)
        if group == 1:  # all alike under both
            assert np.isnan(versus.rank_correlation_P[1]) and not versus.another_best_P[1]
            continue
        assert versus.rank_correlation_P[group] == pytest.approx(stats.spearmanr(paid[some], short[some])[0])
        best = [{i for i in range(G) if x[some][i] == max(x[some])} for x in (paid, short)]
        assert versus.another_best_P[group] == (not best[0] & best[1])
    assert versus.another_best_P.tolist() == [True, False, True]
    assert (versus.flat_P.tolist(), versus.flat_other_P.tolist()) == ([False, True, False],) * 2
    flipped = [a * b < 0 for a, b in zip(by_loop(paid), by_loop(short), strict=True)]
    assert versus.flipped_B.tolist() == flipped and 0 < sum(flipped) < 12
    text = repr(versus)
    correlation = np.mean([stats.spearmanr(paid[i:i + G], short[i:i + G])[0] for i in (0, 8)])
    assert [line.split()[:1] for line in text.splitlines()[-2:]] == [['step'], ['all']]
    assert text.splitlines()[-1].split() == [
        'all', '3', '33.3%', '33.3%', f'{correlation:.2f}', '66.7%', f'{sum(flipped) / 12:.1%}']


def test_float_noise_changes_no_rank_and_no_best(rollouts):
    other = ablation.rescore(rollouts, {'a': 'accuracy=1,format=0.5'})
    scored = other.scored['a']
    noisy = scored.reward_B + np.float32(1e-7) * np.arange(12, dtype=np.float32)
    both = ablation.Rescored(rollouts, other.scored | {
        'b': ablation.Scored(scored.mix, noisy, scored.advantage_B, scored.components)})
    versus = both.compare('a', 'b')
    np.testing.assert_allclose(versus.rank_correlation_P[[0, 2]], 1)
    assert np.isnan(versus.rank_correlation_P[1]) and not versus.another_best_P.any() and not versus.flipped_B.any()


def test_flips_are_sorted_have_their_rival_and_their_cause(rollouts):
    table = ablation.rescore(rollouts, MIXES)
    flips = table.flips('paid', 'short', most=1)
    change = np.subtract(by_loop(EXPECTED['short']), by_loop(EXPECTED['paid']))
    expected = sorted(np.flatnonzero(table.compare('paid', 'short').flipped_B), key=lambda i: -abs(change[i]))
    assert flips.index_F.tolist() == expected
    for index, rival in zip(flips.index_F, flips.rival_F, strict=True):
        group = range(index // G * G, index // G * G + G)
        assert rival in group and rival == max(group, key=lambda i: -np.sign(change[index]) * change[i])
    # The right answer of problem 3 took 40 tokens: what it loses is the length's doing; without tags, 2 tokens win.
    assert 0 in flips.index_F and flips.cause(0) == 'overlong' and 2 in flips.index_F
    assert sum(flips.causes().values()) == len(expected)
    assert len(flips.shown) == 1 and flips.shown[0][0] == expected[0]
    assert len(table.flips('paid', 'short', most=9).shown) == 2  # one of a group
    none = table.flips('paid', 'paid')
    assert repr(none) == "0 of 12 completions: opposite advantages under 'paid' and 'paid'." in none._repr_html_().replace(
        '&#x27;', "'")


def test_flips_are_shown_side_by_side_and_nothing_in_them_is_markup(rollouts):
    flips = ablation.rescore(rollouts, MIXES).flips('paid', 'short', most=9)
    page, text = flips._repr_html_(), repr(flips)
    for index, rival in flips.shown:
        for here in (index, rival):
            assert rollouts.name(here) in page and rollouts.name(here) in text
    assert '&lt;think&gt; t &lt;/think&gt; &lt;answer&gt; 4 &lt;/answer&gt;' in page and '<think>' not in page
    assert '3+1 &lt;b&gt;?' in page and '<b>?' not in page and '3+1 <b>? (answer: 4)' in text
    # 0.5 * (1 - 0.25) and (-0.6 - mean(-0.6, 0, 0, 0)) of problem 3's right answer.
    line = next(line.split() for line in text.splitlines() if line.strip().startswith('overlong *'))
    assert line == ['overlong', '*', '-0.60', '0.00', '-0.15', '+0.000', '-0.450']
    assert 'overlong *' in page


def test_a_completion_that_is_shown_cannot_write_html(tmp_path):
    attack = '</pre></td><script>alert(1)</script>'
    groups = [draws(1, 3, [attack, RIGHT], [3, 60])]
    flips = ablation.rescore(ablation.load(write_run(tmp_path, groups)), MIXES).flips('paid', 'short')
    assert len(flips.index_F) == 2 and '<script>' not in flips._repr_html_() and '&lt;script&gt;' in flips._repr_html_()
    assert attack in repr(flips).replace('\n', '')


def test_parts_add_up_to_the_reward_and_what_no_weight_explains_is_told(rollouts):
    scored = ablation.rescore(rollouts, MIXES).scored
    for name, expected in EXPECTED.items():
        parts = scored[name].parts(G)
        np.testing.assert_allclose(sum(parts.values()), np.array(by_loop(expected, divided=False)), atol=1e-6)


def test_a_product_of_rewards_is_one_part(rollouts):
    scored = ablation.rescore(rollouts, {'gated': 'accuracy*format=2,format=1'}).scored
    gated = scored['gated']
    product_B = gated.components['accuracy'] * gated.components['format']
    np.testing.assert_allclose(gated.reward_B, 2 * product_B + gated.components['format'])
    parts = gated.parts(G)
    assert list(parts) == ['accuracy*format', 'format']
    np.testing.assert_allclose(parts['accuracy*format'], by_loop((2 * product_B).tolist(), divided=False), atol=1e-6)


def test_correlations_are_those_within_groups(rollouts):
    options = {'overlong': {'max_length': 20, 'cache': 1}}
    other = {'rewards': 'overlong=1', 'reward_options': options}
    found = ablation.rescore(rollouts, {'short': MIXES['short'], 'format': 'format=1', 'steep': other}).correlations()
    assert found.names == ('accuracy', 'overlong', 'format', 'overlong (steep)')
    centred = [by_loop(values, divided=False) for values in (ACCURACY, OVERLONG, FORMAT)]
    np.testing.assert_allclose(found.matrix_CC[:3, :3], np.corrcoef(centred), atol=1e-6)
    text = repr(found).splitlines()[-4].split()
    assert text == ['accuracy', *(f'{value:.2f}' for value in found.matrix_CC[0])]


def test_a_reward_without_variance_in_groups_has_no_correlation(tmp_path):
    @register('of_the_question')
    def of_the_question(completions, examples):
        return [len(example.answer) for example in examples]

    found = ablation.rescore(ablation.load(write_run(tmp_path)), {'a': 'accuracy=1,of_the_question=1'}).correlations()
    assert np.isnan(found.matrix_CC).tolist() == [[False, True], [True, True]]
    assert repr(found).splitlines()[-1].split() == ['of_the_question', '-', '-']


def test_a_group_is_ranked_under_every_mix(rollouts):
    table = ablation.rescore(rollouts, {name: MIXES[name] for name in ('paid', 'short')})
    grid = table.ranking(1, 7)
    assert grid.header == ('sample', 'tokens', 'accuracy', 'format', 'overlong', 'paid', 'short')
    # paid: 1.5, 1, 0.5, 0; short: 0.5 - 0.8, 0.5 - 0.4, 0, 0
    assert [row[0] for row in grid.rows] == ['0', '1', '2', '3'] and [row[1] for row in grid.rows] == ['50', '30', '8', '3']
    assert [row[5].split()[0] for row in grid.rows] == ['1', '2', '3', '4']
    assert [row[6].split()[0] for row in grid.rows] == ['4', '1', '2', '2']
    assert grid.rows[0][5] == f'1 ({by_loop(EXPECTED["paid"])[8]:+.2f})'
    with pytest.raises(UserError, match="no problem 8 of step 1.*known: 3, 5, 7"):
        table.ranking(1, 8)


def test_rewards_of_a_cell_and_of_a_file_can_be_mixed(rollouts, tmp_path):
    @register('brevity_of_a_cell')
    def brevity(completions, examples, *, limit=9):
        return [float(c.n_tokens <= limit) for c in completions]

    (tmp_path / 'my_rewards.py').write_text('def first(completions, examples):\n  return range(len(completions))\n')
    table = ablation.rescore(rollouts, {
        'cell': {'rewards': 'brevity_of_a_cell=2', 'reward_options': {'brevity_of_a_cell': {'limit': 5}}},
        'file': f'{tmp_path}/my_rewards.py:first=1'})
    assert table.scored['cell'].reward_B.tolist() == [0, 0, 2, 2, 0, 0, 0, 0, 0, 0, 0, 2]
    assert table.scored['file'].components['first'].tolist() == list(range(12))
    np.testing.assert_allclose(table.scored['file'].parts(G)['first'], [-1.5, -.5, .5, 1.5] * 3)


def test_a_reward_that_hangs_is_killed_in_a_worker_and_told_of(rollouts, tmp_path):
    (tmp_path / 'slow.py').write_text(
        'import time\ndef slow(completions, examples):\n'
        '  time.sleep(60 * any(c.n_tokens == 2 for c in completions))\n  return [1.0] * len(completions)\n')
    mixes = {'slow': f'{tmp_path}/slow.py:slow=1'}
    with pytest.warns(UserWarning, match="the mix 'slow': rewards of 1 completions took more than 0.5 s") as seen:
        table = ablation.rescore(rollouts, mixes, workers=2, timeout_s=0.5)
    assert table.scored['slow'].reward_B.tolist() == [1, 1, 0] + [1] * 9 and seen[0].filename == __file__
    # The check of a run that had workers has them as well.
    stored = tmp_path / 'config.json'
    stored.write_text(json.dumps(json.loads(stored.read_text()) | {
        'rewards': mixes['slow'], 'reward_workers': 1, 'reward_timeout_s': 0.5}))
    with pytest.warns(UserWarning, match='another reward'):
        ablation.load(tmp_path / 'rollouts')


def test_a_run_whose_reward_is_broken_can_still_be_looked_at(tmp_path):
    folder = write_run(tmp_path)
    (tmp_path / 'broken.py').write_text('def broken(completions, examples):\n  return 1 / 0\n')
    (tmp_path / 'config.json').write_text(json.dumps({'kind': 'grpo', 'rewards': f'{tmp_path}/broken.py:broken=1'}))
    with pytest.warns(UserWarning, match='fails: ZeroDivisionError: division by zero'):
        assert ablation.load(folder).groups == 3


@pytest.mark.parametrize('mixes, sentence', [
    ({}, 'there is no mix'),
    ({'a': 'acuracy=1'}, "no reward 'acuracy'.*did you mean 'accuracy'"),
    ({'a': {'rewards': 'format=1', 'reward_option': {}}}, "unknown key 'reward_option' in the mix 'a'.*'reward_options'"),
    ({'a': {'rewards': 'overlong=1'}}, "'overlong' needs the option 'max_length'"),
    ({'a': {}}, "the mix 'a' lacks the key 'rewards'"),
])
def test_what_is_wrong_with_a_mix_is_one_sentence(rollouts, mixes, sentence):
    with pytest.raises(UserError, match=sentence):
        ablation.rescore(rollouts, mixes)


def test_an_unknown_mix_is_told_the_nearest(rollouts):
    table = ablation.rescore(rollouts, MIXES)
    for ask in (table.compare, table.flips, lambda a, b: ablation.plot_advantages(table, a, b)):
        with pytest.raises(UserError, match="no mix 'shrot'.*'short'"):
            ask('paid', 'shrot')


def test_the_summary_compares_with_the_first(rollouts):
    table = ablation.rescore(rollouts, MIXES)
    lines = [line.split() for line in repr(table).splitlines()[-4:]]
    assert lines[0] == ['paid', 'accuracy=1,format=0.5', f'{np.mean(EXPECTED["paid"]):.3f}', '33.3%']
    versus = table.compare('paid', 'short')
    assert lines[2][:4] == ['short', 'accuracy=0.5,overlong=1', f'{np.mean(EXPECTED["short"]):.3f}', '33.3%']
    assert lines[2][4:] == [f'{np.nanmean(versus.rank_correlation_P):.2f}', '66.7%', f'{versus.flipped_B.mean():.1%}']
    assert f'<td style="text-align:left">{np.mean(EXPECTED["short"]):.3f}</td>' in table._repr_html_()
    named = ablation.rescore(rollouts, {'<i>': 'format=1'})
    assert '<td style="text-align:left">&lt;i&gt;</td>' in named._repr_html_() and '<i>' not in named._repr_html_()


# ---- arms ----

TINY = """
from ml_collections import ConfigDict
def get_config(arg=''):
    small = {'slots': 8, 'max_tokens': 8}
    return ConfigDict({
        'name': 'arms', 'seed': 1, 'base': 'package:tiny_base', 'result': 'rl', 'sources': (('stages.rl.steps', 'here'),),
        'stages': {'rl': {
            'kind': 'grpo', 'label': 'RL', 'task': 'tiny_arithmetic', 'steps': 9, 'prompts': 2, 'group': 4, 'micro_rows': 8,
            'row_length': 96, 'sampling': small, 'optimizer': {'learning_rate': 1e-3}, 'advantage_std': False,
            'rewards': 'accuracy=1,cosine=1', 'reward_options': {'cosine': {'max_length': 8}}}},
        'evaluation': {'suites': {name: {
            'task': 'tiny_arithmetic', 'problems': 8, 'samples': 2, 'sampling': small} for name in ('main', 'main@1')}}})
"""


def test_arms_are_stages_of_one_experiment_and_differ_in_what_is_paid_alone(tmp_path):
    @register('brevity_of_an_arm')
    def brevity(completions, examples):
        return [-c.n_tokens for c in completions]

    (tmp_path / 'tiny.py').write_text(TINY)
    mixes = {'paid': 'accuracy=1,format=1', 'short': {'rewards': 'brevity_of_an_arm=1', 'advantage_std': True}}
    ask = {'steps': 2, 'problems': 4, 'experiment': str(tmp_path / 'tiny.py'), 'workdir': tmp_path / 'run'}
    arms = ablation.run_arms(mixes, **ask)
    stages = json.loads((tmp_path / 'run' / 'manifest.json').read_text())['experiment']['stages']
    different = {key for key in stages['paid'] if stages['paid'][key] != stages['short'][key]}
    assert different == {'rewards', 'advantage_std'} and stages['short']['steps'] == 2
    # A mix leaves what it does not name, but for options of rewards that are no longer paid.
    assert stages['paid']['advantage_std'] is False and stages['paid']['reward_options'] == {}
    assert [stage['inputs'] for stage in stages.values()] == [{'model': 'base'}] * 2
    assert arms.rewards == {'paid': 'accuracy=1,format=1', 'short': 'brevity_of_an_arm=1'}
    for name in mixes:
        lines = (tmp_path / 'run' / 'stages' / name / 'metrics.jsonl').read_text().splitlines()
        for key in ('step', 'length/mean', 'format_rate'):
            assert arms.metrics[name][key].tolist() == [json.loads(line)[key] for line in lines]
    # The same base draws the same samples, which are paid otherwise.
    first = [as_rows(read_rollouts(tmp_path / 'run' / 'stages' / name / 'rollouts', [1])) for name in mixes]
    assert [r['completion'] for r in first[0]] == [r['completion'] for r in first[1]]
    assert [r['reward'] for r in first[1]] == [-r['n_tokens'] for r in first[1]]
    # Measured on as many problems as asked for, by one suite, the base once.
    assert list(arms.figures) == ['base', 'paid', 'short'] and arms.pass_at_1('short')['n'] == 4
    assert sum(name.startswith('pass@1') and name.endswith('/all') for name in arms.figures['base']) == 1
    assert [line.split()[0] for line in repr(arms).splitlines()[-3:]] == ['base', 'paid', 'short']
    # Done is done; another reward is another arm, which is refused until it is asked for.
    assert repr(ablation.run_arms(mixes, **ask)) == repr(arms) == repr(ablation.read_arms(tmp_path / 'run'))
    with pytest.raises(UserError, match="stage 'paid' was run with other settings"):
        ablation.run_arms(mixes | {'paid': 'format=1'}, **ask)
    again = ablation.run_arms(mixes | {'paid': 'format=1'}, rerun=['paid'], **ask)
    assert again.rewards['paid'] == 'format=1' and again.rewards['short'] == arms.rewards['short']
    # What an arm has written can be scored again, under a reward of this process too.
    assert 'each has the reward that was paid' in ablation.load(tmp_path / 'run' / 'stages' / 'short' / 'rollouts').checked


def test_an_experiment_of_other_stages_is_refused(tmp_path):
    with pytest.raises(UserError, match="'experiments/tiny/r1.py' must have one stage, of kind 'grpo', and not grpo, sft"):
        ablation.run_arms({'a': 'format=1'}, experiment='experiments/tiny/r1.py', workdir=tmp_path / 'run')
    with pytest.raises(UserError, match='no experiment file'):
        ablation.run_arms({'a': 'format=1'}, experiment=str(tmp_path / 'none.py'), workdir=tmp_path / 'run')
    with pytest.raises(UserError, match="'a b' cannot name"):
        ablation.run_arms({'a b': 'format=1'}, workdir=tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


def test_a_folder_without_arms_is_refused(tmp_path):
    with pytest.raises(UserError, match="no run's folder"):
        ablation.read_arms(tmp_path)
    (tmp_path / 'manifest.json').write_text(json.dumps({'experiment': {'stages': {'a': {'kind': 'sft'}}}}))
    with pytest.raises(UserError, match="no stage of kind 'grpo'"):
        ablation.read_arms(tmp_path)


def made_up_arms():
    metrics = {arm: {'step': np.arange(1.0, 4), 'pass_rate': np.array([.1, .2, value]), 'format_rate': np.ones(3),
                     'length/mean': np.array([10, np.nan, 30]), 'language_consistency': np.full(3, .9)}
               for arm, value in (('paid', .3), ('coin', .1))}
    figure = {'mean': .25, 'low': .125, 'high': .5, 'n': 32}
    return ablation.Arms(CHECKOUT, {'paid': 'accuracy=1', 'coin': 'random=1'}, metrics, {
        'base': {'pass@1/T=0.6/all': figure, 'pass@1/T=0.6/all/en': None}, 'paid': {}})


def test_arms_are_told_in_figures():
    lines = [line.split() for line in repr(made_up_arms()).splitlines()[-3:]]
    assert lines[0] == ['base', '0.250', '[0.125,', '0.500]']
    assert lines[1] == ['paid', 'accuracy=1', '0.10', '->', '0.30', '10.0', '->', '30.0', '1.00', '->', '1.00', '0.90', '->',
                        '0.90']


def test_four_panels_with_labelled_axes_and_a_line_an_arm():
    arms = made_up_arms()
    figure = ablation.plot_arms(arms)
    assert [ax.get_title() for ax in figure.axes] == ['accuracy', 'length', 'format', 'language']
    for ax, key in zip(figure.axes, ('pass_rate', 'length/mean', 'format_rate', 'language_consistency'), strict=True):
        assert ax.get_xlabel() == 'step' and ax.get_ylabel() and ax.get_ylim()[0] == 0
        for line, arm in zip(ax.lines, ('paid', 'coin'), strict=True):
            np.testing.assert_array_equal(line.get_ydata(), arms.metrics[arm][key])
        assert len({(line.get_color(), line.get_marker()) for line in ax.lines}) == 2
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ['paid', 'coin']
    from matplotlib import pyplot
    assert not pyplot.get_fignums()  # a cell would show it twice


def test_advantages_are_drawn_with_the_flips_apart(rollouts):
    table = ablation.rescore(rollouts, MIXES)
    ax, = ablation.plot_advantages(table, 'paid', 'short').axes
    n = int(table.compare('paid', 'short').flipped_B.sum())
    assert [len(points.get_offsets()) for points in ax.collections] == [12 - n, n]
    assert "'paid'" in ax.get_xlabel() and "'short'" in ax.get_ylabel()


def test_without_matplotlib_the_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, 'matplotlib.pyplot', None)
    with pytest.raises(UserError, match='notebook'):
        ablation.plot_arms(made_up_arms())


def test_a_mix_has_the_names_that_the_stage_has():
    assert set(ablation.Mix.__dataclass_fields__) <= set(GRPOStage.__dataclass_fields__)
