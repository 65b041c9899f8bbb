"""The weighted sum, in this process and in workers."""

import dataclasses
import os
import sys
import time

import numpy as np
import pytest

from r1jax.errors import UserError
from r1jax.rewards import Completion, Example, ExampleError, RewardMix, WorkerPool, base, register, sample_key

GOOD = '<think>37+58=95</think><answer>81</answer>'
TEXTS = [GOOD, '<answer>81</answer>', '<think>no</think><answer>80</answer>', '81', '']
SUM = Example('what is 37+58-14?', '81', 'arithmetic', 'en', id='sum')

VERIFIER = '''
import os, time
import numpy as np
from r1jax.rewards import RewardOutput

def verify(completions, examples, *, bonus=0.0):
    values = []
    for c in completions:
        if 'hang' in c.text:
            time.sleep(60)
        if 'crash' in c.text:
            os._exit(1)
        if 'memory' in c.text:
            bytearray(64 << 30)
        while 'print' in c.text:
            print('x' * 1000)
        if 'raise' in c.text:
            raise ZeroDivisionError('in the verifier')
        values.append(1.0 + bonus)
    return RewardOutput(np.array(values), {'pid': np.full(len(values), os.getpid() % 1000)})
'''


@pytest.fixture
def verifier(tmp_path):
    (tmp_path / 'verifier.py').write_text(VERIFIER)
    return f'{tmp_path}/verifier.py:verify'


def batch(texts):
    return [Completion(text, 10, key=sample_key(0, 'sum', i)) for i,
    text in enumerate(texts)], [SUM] * len(texts)


def test_total_and_components():
    output = RewardMix('accuracy=1,format=0.5')(*batch(TEXTS))
    assert output.values.dtype == np.float32
    assert output.info['accuracy'].tolist() == [1, 1, 0, 0, 0]
    assert output.info['format'].tolist() == [1, 0, 1, 0, 0]
    assert output.values.tolist() == [1.5, 1, 0.5, 0, 0]
    for key in ('accuracy/ungraded', 'timeouts', 'crashes'):
        assert output.info[key].tolist() == [0] * 5
    assert output.info['unparseable'].tolist() == [0, 0, 0, 1, 1]


def test_weight_0_is_reported_and_does_not_count():
    output = RewardMix({'accuracy': 1, 'language': 0})(*batch(['so 错<answer>81</answer>']))
    assert output.values.tolist() == [1] and output.info['language'].tolist() == [0.5]


def test_products():
    mix = RewardMix('accuracy*format=2,format=0.5', tasks={'format': ('arithmetic',)})
    output = mix(*batch(TEXTS))
    assert output.info['accuracy'].tolist() == [1, 1, 0, 0, 0] and output.values.tolist() == [2.5, 0, 0.5, 0, 0]
    completions, examples = batch([GOOD])
    other = [dataclasses.replace(examples[0], task='math')]
    assert mix(completions, other).values.tolist() == [0]  # a factor that is not for the task
    assert np.isnan(mix(completions, other).info['format'])


def test_unparseable_is_told_once_for_all_rewards():
    @register('unreadable')
    def unreadable(completions, examples):
        flags = np.array(['?' in c.text for c in completions], np.float32)
        return base.RewardOutput(1 - flags, {'unparseable': flags})

    output = RewardMix('unreadable=1,format=1', tasks={'unreadable': ('arithmetic',)})(*batch(['?', GOOD]))
    assert output.info['unparseable'].tolist() == [1, 0]


def test_a_reward_is_prepared_in_workers_and_outside_of_its_time(tmp_path):
    (tmp_path / 'slow.py').write_text(
        'import time\n\nfrom r1jax.rewards import register\n\nREADY = []\n\n\ndef prepare(examples):\n'
        '    time.sleep(3)\n    READY.extend(e.id for e in examples)\n\n\n'
        "@register('slow', prepare)\ndef slow(completions, examples):\n    return [float(len(READY))] * len(completions)\n")
    sys.path.insert(0, str(tmp_path))
    try:
        import slow  # noqa: F401  (registers itself; workers have this path)

        with WorkerPool(1, 2) as pool:
            output = RewardMix('slow=1', pool=pool)(*batch(['a']))
    finally:
        sys.path.remove(str(tmp_path))
    assert output.values.tolist() == [1] and not output.info['timeouts'].any()


def test_workers_begin_before_the_outcome_is_asked_for(tmp_path):
    (tmp_path / 'marks.py').write_text(
        'import pathlib\n\n\ndef mark(completions, examples, *, folder):\n'
        '    for c in completions:\n        (pathlib.Path(folder) / c.text).touch()\n    return [1.0] * len(completions)\n')
    name = f'{tmp_path}/marks.py:mark'
    with WorkerPool(1, 20) as pool:
        mix = RewardMix({name: 1}, options={name: {'folder': str(tmp_path)}}, pool=pool)
        wait = mix.begin(*batch(['a', 'b']))
        for _ in range(6000):
            if (tmp_path / 'b').exists():
                break
            time.sleep(0.01)
        assert (tmp_path / 'b').exists()
        assert mix.ahead and wait().values.tolist() == [1, 1]
    assert not RewardMix('format=1').ahead


def test_options():
    mix = RewardMix('overlong=2', options={'overlong': {'max_length': 12, 'cache': 4}})
    assert mix(*batch(['a'])).values.tolist() == [-1]
    with pytest.raises(UserError, match="needs the option 'max_length'"):
        RewardMix('overlong=1')
    with pytest.raises(UserError, match="'overlng', which has no weight .*did you mean 'overlong'"):
        RewardMix('overlong=1', options={'overlng': {}})
    with pytest.raises(UserError, match="no option 'maxlength'"):
        RewardMix('overlong=1', options={'overlong': {'maxlength': 1, 'cache': 1}})


def test_prefilled_reaches_every_reward_that_asks():
    mix = RewardMix('accuracy=1,format=1,random=0', prefilled=True)
    assert mix(*batch(['so</think><answer>81</answer>', '<answer>81</answer>', GOOD])).values.tolist() == [2,
    0, 1]


def test_empty_batch_and_unequal_lengths():
    mix = RewardMix('accuracy=1,format=1')
    assert mix([], []).values.shape == (0,)
    with pytest.raises(ValueError, match='1 completions but 0 examples'):
        mix([Completion('')], [])


def test_bad_gold_is_raised():
    with pytest.raises(ExampleError, match="'p3'"):
        RewardMix('accuracy=1')([Completion(GOOD)], [Example('q', '', 'arithmetic', id='p3')])


def test_pool_gives_what_this_process_gives(verifier):
    weights, texts = f'accuracy=1,format=0.5,language=0.1,random=1,{verifier}=0.25', TEXTS * 20
    here = RewardMix(weights, prefilled=True)(*batch(texts))
    with WorkerPool(2, timeout_s=20) as pool:
        there = RewardMix(weights, prefilled=True, pool=pool)(*batch(texts))
        assert RewardMix(weights, pool=pool)([], []).values.shape == (0,)
    np.testing.assert_array_equal(here.values, there.values)
    assert here.info.keys() == there.info.keys()
    for key in here.info.keys() - {'verify/pid'}:
        np.testing.assert_array_equal(here.info[key], there.info[key])
    assert set(there.info['verify/pid']).isdisjoint(here.info['verify/pid'])


def test_only_the_offending_answers_are_lost(verifier, capfd):
    texts = [GOOD] * 24
    texts[3], texts[5], texts[11], texts[17], texts[23] = (
        GOOD + fault for fault in ('hang', 'print', 'crash', 'memory', 'crash'))
    with WorkerPool(2, timeout_s=0.5) as pool:
        mix = RewardMix(f'accuracy=1,{verifier}=1', options={verifier: {'bonus': 1.0}}, pool=pool)
        output = mix(*batch(texts))
    lost = np.isin(np.arange(24), [3, 5, 11, 17, 23])
    np.testing.assert_array_equal(output.values, np.where(lost, 0, 3))
    np.testing.assert_array_equal(np.flatnonzero(output.info['timeouts']), [3, 5])
    np.testing.assert_array_equal(np.flatnonzero(output.info['crashes']), [11, 17, 23])
    assert 'x' * 100 in (printed := capfd.readouterr().err) and len(printed) < 100_000


def test_a_slow_import_is_not_run_time(tmp_path):
    (tmp_path / 'slow.py').write_text(
        'import time\ntime.sleep(1)\ndef f(completions, examples):\n    return [1] * len(completions)\n')
    with WorkerPool(1, timeout_s=0.5) as pool:
        output = RewardMix(f'{tmp_path}/slow.py:f=1', pool=pool)(*batch(['a'] * 4))
        assert output.values.tolist() == [1] * 4 and pool.timeouts == 0


def test_exceptions_of_rewards_are_raised_here(verifier):
    with WorkerPool(1, timeout_s=20) as pool:
        with pytest.raises(ZeroDivisionError, match='in the verifier'):
            RewardMix(f'{verifier}=1', pool=pool)(*batch(['raise']))
        with pytest.raises(ExampleError, match="'p3'"):
            RewardMix('accuracy=1', pool=pool)([Completion(GOOD)], [Example('q', '', 'arithmetic', id='p3')])
        assert RewardMix('accuracy=1', pool=pool)(*batch([GOOD])).values.tolist() == [1]


def test_a_reward_that_workers_cannot_find_is_refused_at_once(monkeypatch):
    monkeypatch.setattr(base, '_REGISTRY', dict(base._REGISTRY))

    def mine(completions, examples):
        return [1] * len(completions)

    mine.__module__ = '__main__'
    register('mine')(mine)
    assert RewardMix('mine=1')(*batch(['a'])).values.tolist() == [1]
    with WorkerPool(1, timeout_s=20) as pool, pytest.raises(UserError, match="cannot find the reward 'mine'"):
        RewardMix('mine=1', pool=pool)


def test_a_reward_registered_by_a_module(tmp_path, monkeypatch):
    monkeypatch.setattr(base, '_REGISTRY', dict(base._REGISTRY))
    (tmp_path / 'r1jax_test_module.py').write_text(
        'from r1jax.rewards import register\n\n'
        '@register("always")\ndef always(completions, examples):\n    return [1] * len(completions)\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    import r1jax_test_module  # noqa: F401

    with WorkerPool(1, timeout_s=20) as pool:
        assert RewardMix('always=2', pool=pool)(*batch(['a', 'b'])).values.tolist() == [2, 2]
    sys.modules.pop('r1jax_test_module')


def test_workers_read_an_edited_file_anew(tmp_path):
    file = tmp_path / 'edited.py'
    with WorkerPool(1, timeout_s=20) as pool:
        for value in (1, 2):
            file.write_text(f'def one(completions, examples):\n    return [{value}] * len(completions)\n')
            os.utime(file, ns=(value * 10**9, value * 10**9))
            assert RewardMix(f'{file}:one=1', pool=pool)(*batch(['a'])).values.tolist() == [value]


def test_a_reward_is_nan_where_its_tasks_are_not_and_adds_nothing_there():
    mix = RewardMix('format=1,accuracy=2', tasks={'accuracy': ('arithmetic',)})
    completions = [Completion(' <think> so </think> <answer> 7 </answer>')] * 2
    examples = [Example('Q', '7', 'arithmetic'), Example('Q', '', 'everyday')]
    output = mix(completions, examples)
    np.testing.assert_array_equal(output.values, [3, 1])
    np.testing.assert_array_equal(output.info['accuracy'], [1, np.nan])
    with pytest.raises(UserError, match="tasks for 'acuracy', which has no weight.*did you mean 'accuracy'"):
        RewardMix('accuracy=1', tasks={'acuracy': ('math',)})


def test_routes_reach_the_workers_of_a_pool():
    completions = [Completion(' <think> so </think> <answer> 7 </answer>')] * 2
    examples = [Example('Q', '7', 'arithmetic'), Example('Q', '', 'everyday')]
    with WorkerPool(1, 30) as pool:
        output = RewardMix('format=1,accuracy=2', tasks={'accuracy': ('arithmetic',)}, pool=pool)(completions, examples)
    np.testing.assert_array_equal(output.values, [3, 1])
    np.testing.assert_array_equal(output.info['accuracy'], [1, np.nan])
