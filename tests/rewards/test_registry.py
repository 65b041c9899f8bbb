"""Names, options and weights of rewards, and what the user is told when one of them is wrong."""

import pickle

import numpy as np
import pytest

from r1jax.errors import UserError
from r1jax.rewards import (
    Completion,
    Example,
    ExampleError,
    RewardOutput,
    base,
    get,
    names,
    parse_weights,
    register,
    reward,
)


@pytest.fixture(autouse=True)
def own_registry(monkeypatch):
    monkeypatch.setattr(base, '_REGISTRY', dict(base._REGISTRY))


BATCH = [Completion('a'), Completion('bb')], [Example('q'), Example('r')]


def test_names():
    assert {'accuracy', 'format', 'language', 'overlong', 'random'} <= set(names())
    assert names() == sorted(names())


def test_register_and_options():
    @register('length')
    def length(completions, examples, *, scale=1.0):
        return [scale * len(c.text) for c in completions]

    output = get('length', scale=2)(*BATCH)
    assert isinstance(output, RewardOutput) and output.values.dtype == np.float32
    assert output.values.tolist() == [2, 4] and get('length')(*BATCH).values.tolist() == [1, 2]
    with pytest.raises(UserError, match="no option 'scales' .*did you mean 'scale'"):
        get('length', scales=2)


def test_defining_again_replaces_but_a_second_function_is_refused():
    def make(value):
        @register('mine')
        def mine(completions, examples):
            return [value] * len(completions)

    make(1), make(2)
    assert get('mine')(*BATCH).values.tolist() == [2, 2]
    with pytest.raises(UserError, match='already registered'):

        @register('accuracy')
        def other(completions, examples):
            return []


@pytest.mark.parametrize('result', [[1], [[1, 2]], [1, float('nan')], [1, float('inf')], 3.0])
def test_a_reward_must_give_one_finite_number_a_completion(result):
    register('odd')(lambda completions, examples: result)
    with pytest.raises(UserError, match="'odd'"):
        get('odd')(*BATCH)


@pytest.mark.parametrize('result, words', [
    ([1, float('inf')], 'have inf for completion 1 of 2'), ([None, 1], 'have nan for completion 0 of 2'),
    (['good', 1], 'are not numbers'), ([[1], [1, 2]], 'are not numbers'), ([1], r'shape \(1,\) for 2')])
def test_what_a_reward_gives_wrongly_is_told(result, words):
    register('odd')(lambda completions, examples: result)
    with pytest.raises(UserError, match=words):
        get('odd')(*BATCH)


def test_a_reward_that_fails_on_an_empty_batch_says_so_where_options_are_checked():
    register('odd')(lambda completions, examples, *, a=1: [max(len(c.text) for c in completions)] * len(completions))
    with pytest.raises(UserError, match="'odd' fails on an empty batch.*ValueError"):
        get('odd', a=2)


def test_info_is_checked_too():
    register('odd')(lambda completions, examples: RewardOutput(np.zeros(2), {'x': np.zeros(3)}))
    with pytest.raises(UserError, match='x have the shape'):
        get('odd')(*BATCH)


def test_numbers_of_completions_and_examples_must_agree():
    with pytest.raises(ValueError, match='2 completions but 1 examples'):
        get('format')(BATCH[0], BATCH[1][:1])


def test_parse_weights():
    assert parse_weights('accuracy=1,format=0.5') == {'accuracy': 1.0, 'format': 0.5}
    assert list(parse_weights(' format = -1e-1 , accuracy=0,')) == ['format', 'accuracy']
    assert parse_weights({'accuracy': 1, 'format': 0.5}) == {'accuracy': 1.0, 'format': 0.5}
    assert parse_weights('accuracy=+1,format=1e+1') == {'accuracy': 1.0, 'format': 10.0}


def test_sums_and_products_of_rewards():
    written = parse_weights('accuracy * format + 0.5*language')
    assert written == {'accuracy*format': 1.0, 'language': 0.5}
    assert written.names == ('accuracy', 'format', 'language') and written['accuracy*format'] == 1
    assert written == reward('accuracy') * reward('format') + 0.5 * reward('language')
    assert parse_weights(str(written)) == written == parse_weights(written)
    # (accuracy + 2 language) (format + language), multiplied out; equal terms are added up.
    product = (reward('accuracy') + reward('language') * 2) * (reward('format') + reward('language'))
    assert product == {
        'accuracy*format': 1, 'accuracy*language': 1, 'language*format': 2, 'language*language': 2}
    assert reward('format') * reward('accuracy') + reward('accuracy') * reward('format') == {'format*accuracy': 2}
    assert parse_weights('accuracy*format=2,accuracy') == {'accuracy*format': 2.0, 'accuracy': 1.0}
    with pytest.raises(TypeError):
        reward('accuracy') + 'format'


@pytest.mark.parametrize('weights, words', [
    ('accurcy=1', "no reward 'accurcy' .*did you mean 'accuracy'"),
    ('accuracy=1,fromat=1', "did you mean 'format'"),
    ({'accurcy': 1}, "did you mean 'accuracy'"), ('accuracy=one', "not a number: 'one'"),
    ('accuracy=', 'not a number'),
    ('accuracy=1,0.5', "'0.5' names no reward"), ('format*accuracy=1,accuracy*format=2', 'given twice'),
    ('accuracy*fromat=1', "did you mean 'format'"), ('accuracy*=1', "no reward ''"),
    ('accuracy=1,accuracy=2', 'given twice'), ('accuracy=nan', 'finite'),
    ('accuracy=inf', 'finite'),
    ({'accuracy': None}, 'not a number'), ('', 'no rewards are named'), (' , ', 'no rewards'),
    ({}, 'no rewards'), ('=1', "no reward ''"),
    ('nowhere.py:f=1', "'nowhere.py', which does not exist"),
])
def test_bad_weights(weights, words):
    with pytest.raises(UserError, match=words):
        parse_weights(weights)


def test_a_reward_from_a_file(tmp_path):
    file = tmp_path / 'my_rewards.py'
    file.write_text(
        'def brevity(completions, examples, *, limit=1):\n'
        '    return [float(len(c.text) <= limit) for c in completions]\n'
    )
    name = f'{file}:brevity'
    assert parse_weights(f'accuracy=1,{name}=0.1') == {'accuracy': 1.0, name: 0.1}
    assert get(name)(*BATCH).values.tolist() == [1, 0]
    assert get(name, limit=2)(*BATCH).values.tolist() == [1, 1]
    with pytest.raises(UserError, match="no function 'brevty' .*did you mean 'brevity'"):
        get(f'{file}:brevty')
    with pytest.raises(UserError, match="'brevity' is given twice"):
        parse_weights({name: 1, f'{tmp_path}/./my_rewards.py:brevity': 1})


def test_a_reward_that_is_defined_again_is_prepared_as_it_says_now():
    seen = []

    def define(*prepare):
        @register('prepared', *prepare)
        def prepared(completions, examples):
            return [0.0] * len(completions)

    define(seen.extend)
    base.prepare('prepared', BATCH[1])
    assert seen == BATCH[1]
    define()
    base.prepare('prepared', BATCH[1])
    assert seen == BATCH[1]


def test_tests_come_back_from_their_text():
    cases = [{'stdin': 'ü', 'stdout': '1'}]
    assert base.tests_from_text(base.tests_to_text(cases)) == cases and 'ü' in base.tests_to_text(cases)
    assert base.tests_to_text(['assert f(1)', 'assert f(2)']) == 'assert f(1)\nassert f(2)' == base.tests_from_text(
        base.tests_to_text('assert f(1)\nassert f(2)'))


def test_an_edited_file_is_read_anew(tmp_path):
    import os

    file = tmp_path / 'edited.py'
    for value in (1, 2):
        file.write_text(f'def one(completions, examples):\n    return [{value}] * len(completions)\n')
        os.utime(file, ns=(value * 10**9, value * 10**9))
        assert get(f'{file}:one')(*BATCH).values.tolist() == [value, value]


def test_a_file_that_does_not_run(tmp_path):
    file = tmp_path / 'broken.py'
    file.write_text('def f(:\n')
    with pytest.raises(UserError, match='does not run: SyntaxError'):
        get(f'{file}:f')


def test_a_relative_path(tmp_path, monkeypatch):
    (tmp_path / 'here.py').write_text('def one(completions, examples):\n    return [1] * len(completions)\n')
    monkeypatch.chdir(tmp_path)
    assert get('here.py:one')(*BATCH).values.tolist() == [1, 1]


def test_example_errors_travel():
    error = pickle.loads(pickle.dumps(ExampleError('has no gold', Example('q', id='p7'))))
    assert isinstance(error, ValueError) and isinstance(error, UserError) and "'p7'" in str(error)
