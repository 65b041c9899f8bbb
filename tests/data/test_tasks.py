"""Tasks and mixtures: one order on any number of hosts, exact resumes, rates, splits, options, own files."""

import itertools
import json
import pathlib
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest

from r1jax.data import sources, tasks, templates, tinyworld
from r1jax.errors import UserError
from r1jax.rewards.base import Example


def take(count, *args, **options):
    return list(itertools.islice(tasks.open_task(*args, **options), count))


def ids(examples):
    return [example.id for example in examples]


# --- order, on arrays ---------------------------------------------------------------------------------------


@pytest.mark.parametrize('shuffle', [True, False])
def test_an_order_reads_every_source_in_whole_epochs(shuffle):
    sizes, rates = (7, 11, 40), (0.5, 0.2, 0.3)
    order = sources.Order(sizes, rates, seed=5, shuffle=shuffle)
    rows = {0: [], 1: [], 2: []}
    for position in range(1200):
        source, row = order.at(position)
        rows[source].append(row)
    for source, size in enumerate(sizes):
        assert abs(len(rows[source]) - 1200 * rates[source]) <= 1
        epochs = [rows[source][i:i + size] for i in range(0, len(rows[source]) - size + 1, size)]
        assert len(epochs) > 5 and all(sorted(epoch) == list(range(size)) for epoch in epochs)
        assert (epochs[0] == epochs[1] == list(range(size))) != shuffle
        assert len(set(map(tuple, epochs))) == (len(epochs) if shuffle else 1)


@pytest.mark.parametrize('shuffle', [True, False])
@pytest.mark.parametrize('sizes, rates', [((5,), (3,)), ((10, 4), (0.5, 0.5)), ((6, 50, 9), (0.1, 0.7, 0.2))])
def test_length_is_where_the_first_source_runs_out(sizes, rates, shuffle):
    order = sources.Order(sizes, rates, seed=1, shuffle=shuffle)
    for epochs in (1, 3):
        seen = Counter()
        for position in itertools.count():
            source, _ = order.at(position)
            if seen[source] == sizes[source] * epochs:
                break
            seen[source] += 1
        assert order.length(epochs) == position


def test_every_stretch_of_an_order_has_the_rates_and_stays_random():
    order = sources.Order((100_000,) * 4, (0.4, 0.25, 0.2, 0.15), seed=0, shuffle=True)
    drawn = np.array([order.at(position)[0] for position in range(4000)])
    for start in range(0, 4000, 100):
        counts = np.bincount(drawn[start:start + 100], minlength=4)
        np.testing.assert_allclose(counts, [40, 25, 20, 15], atol=1)
    assert len({tuple(drawn[start:start + 20]) for start in range(0, 4000, 20)}) == 200


def test_rates_that_fit_no_short_block_are_kept_to_a_thousandth():
    order = sources.Order((10, 10, 10), (np.pi, np.e, 1e-9), seed=0, shuffle=True)
    drawn = np.bincount([order.at(position)[0] for position in range(3000)], minlength=3) / 3000
    np.testing.assert_allclose(drawn, np.array([np.pi, np.e, 0]) / (np.pi + np.e), atol=0.002)
    assert drawn[2] > 0  # a source that has a rate is never left out


def test_the_order_is_pinned():
    """A run that goes on after an upgrade must go on with the same problems."""
    order = sources.Order((1000, 500), (0.6, 0.4), seed=7, shuffle=True)
    assert [order.at(position) for position in (0, 1, 2, 10**6, 10**12)] == [
        (0, 798), (1, 175), (1, 335), (0, 664), (1, 307)]


# --- reading ------------------------------------------------------------------------------------------------


def test_the_same_examples_in_another_process():
    program = (
        'from itertools import islice; from r1jax.data import tasks\n'
        "examples = tasks.open_task('tiny_all', seed=11, position=123)\n"
        'for e in islice(examples, 40): print(repr((e.id, e.prompt)))')
    other = subprocess.run(
        [sys.executable, '-c', program], check=True, capture_output=True, text=True,
        cwd=pathlib.Path(tasks.__file__).parents[2])
    here = take(40, 'tiny_all', seed=11, position=123)
    assert other.stdout.splitlines() == [repr((e.id, e.prompt)) for e in here]
    assert other.stderr == ''  # TensorFlow says nothing on a user's terminal


@pytest.mark.parametrize('name, split', [
    ('tiny_reasoning', 'train'), ('tiny_logic', 'train'), ('tiny_all', 'test')])
@pytest.mark.parametrize('hosts', [2, 3])
def test_hosts_interleave_to_the_order_of_one(name, split, hosts):
    whole = take(60, name, split, seed=2)
    shards = [take(60 // hosts, name, split, seed=2, shard_index=i, shard_count=hosts) for i in range(hosts)]
    assert [example for turn in zip(*shards, strict=True) for example in turn] == whole


@pytest.mark.parametrize('position', [0, 1, 31, 32, 33, 77])
def test_going_on_from_a_position_is_exact(position):
    options = dict(seed=4, shard_index=1, shard_count=2)
    whole = take(120, 'tiny_reasoning', **options)
    resumed = tasks.open_task('tiny_reasoning', position=position, **options)
    assert resumed.position == position
    assert list(itertools.islice(resumed, 40)) == whole[position:position + 40]
    assert resumed.position == position + 40
    resumed.seek(3)
    assert next(resumed) == whole[3] and resumed.position == 4


def test_going_on_crosses_epochs_exactly_and_from_far_at_once(monkeypatch):
    monkeypatch.setattr(sources, 'TRAIN_DRAWS', 50)
    whole = take(160, 'tiny_code', seed=1)
    assert sorted(ids(whole[:50])) == sorted(ids(whole[50:100])) != ids(whole[:50])
    assert take(60, 'tiny_code', seed=1, position=95) == whole[95:155]
    monkeypatch.undo()
    start = time.perf_counter()
    far = tasks.open_task('tiny_reasoning', seed=1, position=10**6)
    first = next(far)
    assert time.perf_counter() - start < 2
    third = tasks.open_task('tiny_reasoning', seed=1, shard_index=1, shard_count=3, position=(10**6 - 1) // 3)
    assert first == next(third)


def test_a_seed_orders_train_and_leaves_test_alone():
    assert ids(take(30, 'tiny_reasoning', seed=0)) != ids(take(30, 'tiny_reasoning', seed=1))
    assert take(30, 'tiny_reasoning', 'test', seed=0) == take(30, 'tiny_reasoning', 'test', seed=1)


def test_mixtures_have_their_rates():
    counts = Counter(example.task for example in take(400, 'tiny_reasoning', seed=3))
    assert counts == {'arithmetic': 160, 'logic': 100, 'choice': 80, 'function': 60}
    counts = Counter(example.task for example in take(800, 'tiny_all', seed=3))
    assert counts['everyday'] == 80 and counts['knowledge'] == 70 and counts['translation'] == 50
    assert counts['arithmetic'] == 240 and 'safety' not in counts
    counts = Counter(example.task for example in take(400, 'tiny_helpful', seed=3))
    assert counts == {'everyday': 200, 'knowledge': 80, 'safety': 120}
    counts = Counter(example.task for example in take(800, 'tiny_scenarios', seed=3))
    assert counts == {'arithmetic': 80, 'logic': 50, 'choice': 40, 'function': 30, 'everyday': 280, 'knowledge': 120,
                      'safety': 200}
    counts = Counter(example.task for example in take(400, 'tiny_assistant', seed=3))
    assert counts == {'everyday': 160, 'knowledge': 100, 'translation': 20, 'safety': 120}


def test_the_tasks_of_safety_and_of_every_mixture_are_what_their_names_say():
    assert {example.task for example in take(100, 'tiny_safety')} == {'safety'}
    for name, rates in tasks.MIXTURES.items():
        assert sum(rates.values()) == pytest.approx(1 if name != 'gym' else len(rates)) and name not in tasks._SOURCES


def test_only_general_training_rows_come_with_a_demonstration():
    for family in tinyworld.FAMILIES:
        source = sources.TinyWorld(family)
        for index in range(20):
            row = source.row('train', index)
            assert row['response'] == tinyworld.demonstration(source._draw('train', index), index)
            assert bool(row['response']) == (family not in tinyworld.REASONING)
            assert source.row('test', index)['response'] == ''
    assert all(example.response.startswith(' <think> ') for example in take(50, 'tiny_assistant'))


@pytest.mark.parametrize('family', tinyworld.FAMILIES)
def test_the_splits_share_no_problem(family):
    name = f'tiny_{family}'
    train, test = ({example.prompt for example in take(1000, name, split)} for split in sources.SPLITS)
    assert len(train) > 100 and len(test) > 100 and not train & test


@pytest.mark.parametrize('family', tinyworld.FAMILIES)
def test_a_test_split_is_balanced_and_asks_nothing_twice(family):
    source = sources.TinyWorld(family)
    keys = set()
    for index in range(source.size('test')):
        problem = source._draw('test', source._distinct[index])
        assert problem.split == 'test'
        keys.add((problem.key, problem.language))
    assert len(keys) == source.size('test') <= sources.TEST_DRAWS
    languages = Counter(language for _, language in keys)
    assert abs(languages['en'] - languages['zh']) <= 0.1 * len(keys)


def test_train_is_balanced_over_languages_and_difficulties():
    examples = take(1200, 'tiny_arithmetic', seed=9)
    low, high = tinyworld.DIFFICULTY['arithmetic']
    counts = Counter((e.language, e.difficulty) for e in examples)
    assert set(counts) == {(language, level) for language in ('en', 'zh') for level in range(low, high + 1)}
    assert min(counts.values()) > 0.7 * 1200 / len(counts)


def test_examples_carry_what_the_rewards_need():
    choice = take(1, 'tiny_choice', 'test')[0]
    problem = tinyworld.problem_at(
        'choice', 'test', 0, language='en', difficulty=tinyworld.DIFFICULTY['choice'][0])
    assert choice == Example(
        prompt=tinyworld.prompt(problem.question), question=problem.question, answer=problem.answer, task='choice',
        language='en', kind=problem.kind, difficulty=problem.difficulty, options=problem.options, id=choice.id)
    assert len(choice.options) == choice.difficulty
    code = take(1, 'tiny_code', 'test')[0]
    assert code.tests.startswith('assert f(')


# --- as seqio sees them -------------------------------------------------------------------------------------


def test_seqio_has_the_tasks_and_reads_the_same_order():
    tasks.register()
    tasks.register()
    import seqio

    mixture = seqio.get_mixture_or_task('tiny_reasoning')
    assert isinstance(mixture, seqio.Mixture) and isinstance(seqio.TaskRegistry.get('tiny_code'), seqio.Task)
    assert {task.name: mixture.get_rate(task) for task in mixture.tasks} == {
        'tiny_arithmetic': 0.4, 'tiny_logic': 0.25, 'tiny_choice': 0.2, 'tiny_code': 0.15}
    assert seqio.TaskRegistry.get('tiny_code').num_input_examples('train') == sources.TRAIN_DRAWS
    dataset = mixture.get_dataset(
        sequence_length=None, split='train', seed=6, shard_info=seqio.ShardInfo(1, 2))
    assert sorted(dataset.element_spec) == sorted(sources.FEATURES) == sorted(mixture.output_features)
    rows = list(dataset.take(50).as_numpy_iterator())
    expected = take(50, 'tiny_reasoning', seed=6, shard_index=1, shard_count=2)
    assert [row['id'].decode() for row in rows] == ids(expected)
    assert [row['prompt'].decode() for row in rows] == [example.prompt for example in expected]
    whole = seqio.get_dataset(
        'tiny_reasoning', None, seqio.PassThroughFeatureConverter(), dataset_split='test', shuffle=False)
    assert sum(1 for _ in whole) == len(list(tasks.open_task('tiny_reasoning', 'test')))

    code, expected = seqio.TaskRegistry.get('tiny_code'), ids(take(20, 'tiny_code', 'test'))
    in_order = code.get_dataset(split='test', shuffle=False).take(20).as_numpy_iterator()
    assert [row['id'].decode() for row in in_order] == expected
    shuffled = code.get_dataset(split='test').take(20).as_numpy_iterator()  # seqio's default, without a seed
    assert [row['id'].decode() for row in shuffled] != expected


def test_tasks_that_others_registered_can_be_opened(tmp_path):
    tasks.register()
    import seqio
    import tensorflow as tf

    def rows(split, shuffle_files, seed=None):
        numbers = tf.data.Dataset.range(40)
        return numbers.map(lambda n: {'prompt': tf.strings.as_string(n), 'answer': tf.strings.as_string(-n)})

    features = {name: seqio.Feature(seqio.PassThroughVocabulary(size=0), dtype=tf.string, rank=0)
                for name in ('prompt', 'answer')}
    seqio.TaskRegistry.add('others', seqio.FunctionDataSource(rows, ['train', 'test']), features)
    seqio.MixtureRegistry.add('others_twice', [('others', 1.0)])
    try:
        assert {'others', 'others_twice', 'tiny_all'} <= set(tasks.names())
        for name in ('others', 'others_twice'):
            whole = take(90, name, seed=3)
            assert len({e.prompt for e in whole}) > 20 and all(e.answer == str(-int(e.prompt)) for e in whole)
            shards = [take(30, name, seed=3, shard_index=i, shard_count=3) for i in range(3)]
            assert [example for turn in zip(*shards, strict=True) for example in turn] == whole
            assert take(10, name, seed=3, shard_index=2, shard_count=3, position=7) == shards[2][7:17]
            assert len(take(90, name, 'test')) == 40
        with pytest.raises(UserError, match='takes no options'):
            tasks.open_task('others', language='en')
        with pytest.raises(UserError, match='the name is taken'):
            tasks.register_jsonl_task('others', write(tmp_path / 'x.jsonl', {'question': 'x', 'answer': 'y'}))
    finally:
        seqio.MixtureRegistry.remove('others_twice')
        seqio.TaskRegistry.remove('others')


def test_without_tensorflow_the_reason_is_told():
    program = (
        'import sys; sys.modules["tensorflow"] = None\n'
        'from r1jax.data import tasks; from r1jax.errors import UserError\n'
        'try: tasks.names()\n'
        'except UserError as error: print(error)')
    other = subprocess.run(
        [sys.executable, '-c', program], capture_output=True, text=True,
        cwd=pathlib.Path(tasks.__file__).parents[2])
    assert other.stdout.startswith('tasks need seqio and TensorFlow, which are not installed'), other.stderr


# --- options ------------------------------------------------------------------------------------------------


def test_options_in_the_name_and_as_arguments_are_the_same():
    named = take(20, 'tiny_arithmetic:language=zh,difficulty=7')
    assert all(example.language == 'zh' and example.difficulty == 7 for example in named)
    assert named == take(20, 'tiny_arithmetic', language='zh', difficulty=7)
    assert named == take(20, 'tiny_arithmetic:difficulty=3', language='zh', difficulty=7)
    ranged = take(60, 'tiny_arithmetic:difficulty=8-9,kind=sum')
    assert {example.difficulty for example in ranged} == {8, 9} and {e.kind for e in ranged} == {'sum'}
    assert ranged == take(60, 'tiny_arithmetic', difficulty=[8, 9], kind='sum')


def test_options_of_a_mixture():
    examples = take(100, 'tiny_reasoning:language=en,template=r1_zero')
    assert {example.language for example in examples} == {'en'}
    assert Counter(e.task for e in examples)['arithmetic'] == 40
    assert all(e.prompt.startswith(templates.R1_ZERO[:50]) for e in examples)
    kept = Counter(e.task for e in take(130, 'tiny_reasoning:families=arithmetic+logic'))
    assert kept == {'arithmetic': 80, 'logic': 50}
    rates = {'logic': 0.25, 'everyday': 0.75, 'code': 0}
    given = Counter(e.task for e in take(40, 'tiny_reasoning', families=rates))
    assert given == {'logic': 10, 'everyday': 30}


@pytest.mark.parametrize('name, message', [
    ('tiny_reasonin', "did you mean 'tiny_reasoning'"),
    ('tiny_logic:dificulty=4', "no option 'dificulty' .did you mean 'difficulty'"),
    ('tiny_logic:difficulty=hard', 'a number or a range'),
    ('tiny_logic:difficulty=99', '99'),
    ('tiny_logic:difficulty=3-99', '99'),
    ('tiny_logic:language', 'KEY=VALUE'),
    ('tiny_logic:language=en,language=zh', 'each once'),
    ('tiny_logic:language=fr', "'fr'"),
    ('tiny_logic:kind=sum', "'sum'"),
    ('tiny_logic:template=r1', 'r1_zero|r1_chat'),
    ('tiny_reasoning:families=arithmetics', "did you mean 'arithmetic'"),
    ('tiny_reasoning:families=logic*x', 'is not a rate'),
    ('tiny_reasoning:families=logic*0', 'rates must be positive'),
    ('tiny_reasoning:families=logic*inf', 'rates must be positive and finite'),
    ('tiny_reasoning:path=x', "no option 'path'"),
    ('jsonl', 'give path=FILE'),
    ('jsonl:path=/nowhere/x.jsonl', '/nowhere/x.jsonl: no such file'),
])
def test_a_wrong_name_or_option_is_refused(name, message):
    with pytest.raises(UserError, match=message):
        tasks.open_task(name)


def test_a_wrong_split_shard_or_position_is_refused():
    with pytest.raises(UserError, match="no split 'tset' .did you mean 'test'"):
        tasks.open_task('tiny_all', 'tset')
    for options in (dict(shard_index=2, shard_count=2), dict(shard_index=-1), dict(position=-1)):
        with pytest.raises(UserError, match='no shard'):
            tasks.open_task('tiny_all', **options)


# --- users' own files ---------------------------------------------------------------------------------------


def write(path, *rows):
    path.write_text(''.join(json.dumps(row, ensure_ascii=False) + '\n\n' for row in rows), encoding='utf-8')
    return str(path)


def test_programs_come_with_what_sets_their_tests_up_and_a_name_to_call(tmp_path):
    path = write(
        tmp_path / 'programs.jsonl',
        {'question': 'Add one.', 'test_list': ['assert f(x) == 2', 'assert f(2) == 3'], 'test_setup_code': 'x = 1'},
        {'question': 'Write f(x).', 'test_list': ['assert f(1) == 2'], 'test_imports': ['import math', 'import re'],
         'answer': 'def f(x): return x + 1  #### one more'},
        {'question': 'Echo.', 'tests': [{'stdin': '1', 'stdout': '1'}], 'test_setup_code': ''})
    first, second, third = tasks.open_task(f'jsonl:path={path},task=code,template=none', 'test')
    assert first.tests == 'x = 1\nassert f(x) == 2\nassert f(2) == 3' and first.answer == ''
    assert first.prompt == first.question == 'Add one.\n\nYour code should pass this test:\n\nassert f(x) == 2'
    assert second.tests == 'import math\nimport re\nassert f(1) == 2' and second.question == 'Write f(x).'
    assert second.answer == 'def f(x): return x + 1  #### one more'
    assert third.tests == [{'stdin': '1', 'stdout': '1'}] and third.question == 'Echo.'


def test_a_file_of_the_user_in_all_its_spellings(tmp_path):
    path = write(
        tmp_path / 'mine.jsonl',
        {'id': 'a', 'question': 'How many?', 'answer': '6*7 = 42\n#### 42', 'lang': 'en', 'grade': 3},
        {'problem': '几个？', 'answer': 5, 'language': 'zh', 'choices': ['A) 五', 'B) 六'], 'grade': 4},
        {'prompt': 'Write f.', 'answer': '', 'test_list': ['assert f(1)', 'assert f(2)'],
         'options': ['A. Lee', 'Bo']},
        {'question': 'Echo.', 'answer': '', 'tests': [{'stdin': '1', 'stdout': '1'}]})
    tasks.register_jsonl_task('mine', path, template='none', language='de')
    first, second, third, fourth = tasks.open_task('mine', 'test')
    assert first == Example(
        prompt='How many?', question='How many?', answer='42', task='math', language='en', difficulty=3, id='a')
    asked = '几个？\n(A) 五\n(B) 六'
    assert second == Example(
        prompt=asked, question=asked, answer='5', task='math', language='zh', difficulty=4, id='mine/3',
        options=('五', '六'))
    assert third.tests == 'assert f(1)\nassert f(2)' and third.language == 'de'
    assert third.options == ('A. Lee', 'Bo')
    assert fourth.tests == [{'stdin': '1', 'stdout': '1'}]
    assert 'mine' in tasks.names()
    assert [e.id for e in tasks.open_task('mine:language=zh', 'test')] == ['mine/3']
    assert [e.id for e in tasks.open_task('mine', 'test', difficulty=(3, 4))] == ['a', 'mine/3']
    assert next(tasks.open_task('mine:template=boxed', 'test')).prompt.endswith('\\boxed{}.')
    assert Counter(ids(take(12, 'mine'))).most_common()[-1][1] == 3  # train goes round in epochs
    with pytest.raises(UserError, match='no row with language=fr'):
        tasks.open_task('mine', language='fr')


def test_fields_splits_and_registering_anew(tmp_path):
    train = write(tmp_path / 'train.jsonl', {'q': 'one', 'a': '1'}, {'q': 'two', 'a': '2'})
    test = write(tmp_path / 'test.jsonl', {'q': 'three', 'a': '3'})
    paths, fields = {'train': train, 'test': test}, {'question': 'q', 'answer': 'a'}
    tasks.register_jsonl_task('numbers', paths, task='exact', template='none', fields=fields)
    example, = tasks.open_task('numbers', 'test')
    assert (example.prompt, example.answer, example.task) == ('three', '3', 'exact')
    assert {e.prompt for e in take(2, 'numbers')} == {'one', 'two'}
    name = f'jsonl:train={train},test={test},question=q,answer=a,task=exact,template=none'
    assert next(tasks.open_task(name, 'test')).prompt == 'three'
    write(tmp_path / 'test.jsonl', {'q': 'four', 'a': '4'})
    tasks.register_jsonl_task('numbers', paths, template='none', fields=fields)
    assert [(e.prompt, e.task) for e in tasks.open_task('numbers', 'test')] == [('four', 'math')]


@pytest.mark.parametrize('line, message', [
    ('{"question": "x"', 'line 1: not JSON'),
    ('["x"]', 'line 1: not a JSON object'),
    ('{"text": "x", "answer": "1"}', 'line 1: no question under question or problem or prompt .the row ha'),
    ('{"question": "x"}', 'line 1: no answer under answer'),
    ('{"question": "x", "answer": "1", "difficulty": "hard"}', "the difficulty 'hard'"),
    ('{"question": "x", "answer": null}', 'line 1: no answer'),
    ('{"question": "x", "answer": ["4"]}', 'the answer is neither a text nor a number'),
    ('{"question": "x", "answer": true}', 'the answer is neither a text nor a number'),
    ('{"question": "x", "answer": "1", "options": "4 5 6"}', 'the options are no list of texts'),
    ('{"question": "x", "answer": "1", "options": {"text": ["4"], "label": ["A"]}}', 'the options are no list of texts'),
    ('{"question": "x", "answer": "1", "tests": {"a": 1}}', 'the tests are neither a text nor a list'),
    ('', 'no row'),
])
def test_a_file_that_cannot_be_read_says_where(tmp_path, line, message):
    (tmp_path / 'bad.jsonl').write_text(line)
    with pytest.raises(UserError, match=f'bad.jsonl.*{message}'):
        tasks.register_jsonl_task('bad', str(tmp_path / 'bad.jsonl'))


def test_the_place_of_an_option_is_not_taken_for_its_text(tmp_path):
    path = write(tmp_path / 'mmlu.jsonl', {'question': 'x', 'choices': ['1', '2', '3'], 'answer': 1})
    with pytest.raises(UserError, match='the answer 1 of a choice must be a letter, or the text of an option'):
        tasks.open_task(f'jsonl:path={path},task=choice')


def test_null_is_as_good_as_absent_and_a_byte_order_mark_is_passed_over(tmp_path):
    path = tmp_path / 'null.jsonl'
    row = {'question': 'one\u2028two', 'answer': '1', 'language': None, 'kind': None, 'options': None, 'tests': None}
    path.write_text('\ufeff' + json.dumps(row, ensure_ascii=False), encoding='utf-8')
    example, = tasks.open_task(f'jsonl:path={path},template=none', 'test')
    assert example == Example('one\u2028two', '1', 'math', id='null/1', question='one\u2028two')


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / 'x.jsonl').write_bytes(b'{"question": "caf\xe9", "answer": "1"}')
    with pytest.raises(UserError, match='x.jsonl: not JSON lines, which are UTF-8 text'):
        tasks.open_task(f"jsonl:path={tmp_path / 'x.jsonl'}")


def test_a_file_that_was_changed_is_read_anew(tmp_path):
    for question in ('old', 'new'):
        path = write(tmp_path / 'x.jsonl', {'question': question, 'answer': '1'})
        assert next(tasks.open_task(f'jsonl:path={path},template=none', 'test')).prompt == question


def test_rows_are_kept_by_kind(tmp_path):
    rows = [{'question': kind, 'answer': '1', 'kind': kind} for kind in ('sum', 'product')]
    name = f"jsonl:path={write(tmp_path / 'x.jsonl', *rows)},kind=product,template=none"
    assert [example.prompt for example in tasks.open_task(name, 'test')] == ['product']


def test_answers_that_cannot_be_graded_are_found_before_anything_is_sampled(tmp_path):
    path = write(tmp_path / 'x.jsonl', {'question': 'a', 'answer': '1'}, {'question': 'b', 'answer': '\\sqrt{2'})
    with pytest.raises(UserError, match=r"'x/3' .*gold answer that cannot be graded"):
        tasks.check_answers(f'jsonl:path={path}', 'train')
    tasks.check_answers(f'jsonl:path={path},task=exact', 'train')
    with pytest.raises(UserError, match="did you mean 'math'"):
        tasks.check_answers(f'jsonl:path={path},task=maths', 'train')
    tasks.check_answers('tiny_all', 'train')


@pytest.mark.parametrize('difficulty', ['3', 3.5, (3,), True])
def test_a_difficulty_that_is_no_number_is_refused(difficulty):
    with pytest.raises(UserError, match='difficulty is a number or a range'):
        tasks.open_task('tiny_logic', difficulty=difficulty)


@pytest.mark.parametrize('name', ['tiny_code', 'tiny_all', 'jsonl', 'a-b', 'a:b', ''])
def test_a_name_that_is_taken_or_not_one_is_refused(tmp_path, name):
    path = write(tmp_path / 'x.jsonl', {'question': 'x', 'answer': 'y'})
    with pytest.raises(UserError, match='name'):
        tasks.register_jsonl_task(name, path)


def test_a_field_that_does_not_exist_is_refused(tmp_path):
    path = write(tmp_path / 'x.jsonl', {'question': 'x', 'answer': 'y'})
    with pytest.raises(UserError, match="no field 'anwser' .did you mean 'answer'"):
        tasks.register_jsonl_task('x', path, fields={'anwser': 'answer'})


def test_real_files(shared):
    data = shared / 'data'
    gsm8k = tasks.open_task(f'jsonl:path={data}/math/gsm8k_test.jsonl', 'test')
    examples = list(gsm8k)
    assert len(examples) == 1319 and examples[0].answer == '18' and examples[0].id == 'gsm8k-test-0'
    chinese = list(tasks.open_task(f'jsonl:path={data}/lang/mgsm.jsonl,language=zh', 'test'))
    assert len(chinese) == 250
    aqua = next(tasks.open_task(f'jsonl:path={data}/mcq/aqua_rat.jsonl,task=choice,template=none', 'test'))
    assert aqua.answer == 'A' and len(aqua.options) == 5 and '\n(A) 5(√3 + 1)\n' in aqua.prompt
