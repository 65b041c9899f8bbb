"""The generators of reasoning-gym as tasks: all of them, the same in every process, splits apart, levels, resumes, hosts."""

import dataclasses
import decimal
import importlib.util
import itertools
import json
import os
import pathlib
import random
import subprocess
import sys
from collections import Counter

import pytest

from r1jax.data import gym, sources, tasks, templates
from r1jax.errors import UserError
from r1jax.rewards import Example, WorkerPool, is_correct
from r1jax.rewards.accuracy import check_example

ROOT = pathlib.Path(gym.__file__).parents[2]
GENERATORS = list(gym.LEVELS)


def take(count, *args, **options):
    return list(itertools.islice(tasks.open_task(*args, **options), count))


def example_of(row):
    return Example(**{key: value for key, value in row.items() if key != 'options'})


def in_another_process(program, **environment):
    return subprocess.run(
        [sys.executable, '-c', program], check=True, capture_output=True, text=True, cwd=ROOT, env=os.environ | environment)


# --- all generators -------------------------------------------------------------------------------------------


def test_every_generator_of_the_package_is_here_but_its_mixture():
    from reasoning_gym.factory import CURRICULA, DATASETS

    assert set(gym.LEVELS) == DATASETS.keys() - {'composite'}
    for generator, levels in gym.LEVELS.items():
        assert generator in CURRICULA or levels is None
        if levels is not None:
            attributes = CURRICULA[generator]().attributes.values()
            assert 0 <= levels[0] <= levels[1] < max(len(attribute.levels) for attribute in attributes), generator


def test_every_generator_gives_the_same_gradable_problems_in_every_process():
    program = (
        'import json; from r1jax.data import gym\n'
        "for name in gym.LEVELS: print(json.dumps([gym.Gym(name).row(split, 1) for split in ('train', 'test')]))")
    other = in_another_process(program, PYTHONHASHSEED='1', TZ='Asia/Tokyo').stdout.splitlines()
    for generator, line in zip(GENERATORS, other, strict=True):
        here = [gym.Gym(generator).row(split, 1) for split in sources.SPLITS]
        assert json.loads(line) == here, generator
        for split, row in zip(sources.SPLITS, here, strict=True):
            assert sorted(row) == sorted(sources.FEATURES)
            assert (row['task'], row['kind']) == ('reasoning_gym', generator)
            assert row['prompt'] == templates.apply('r1_zero', row['question'])
            assert gym.split_of(row['question']) == split
            example = example_of(row)
            check_example(example)
            assert is_correct(example.answer, example) == bool(example.answer)
            # The tags are the template's: a question must not ask for others.
            assert not any(tag in row['question'] for tag in ('<answer>', '<think>', '\\boxed'))


@pytest.mark.slow
@pytest.mark.parametrize('generator', GENERATORS)
def test_many_rows_and_the_lowest_and_the_highest_level(generator):
    levels = gym.LEVELS[generator]
    for difficulty in [None] if levels is None else [None, levels[0], levels[1]]:
        source = gym.Gym(generator, difficulty=difficulty)
        for split, count in (('train', 20), ('test', 5)) if difficulty is None else (('train', 2), ('test', 1)):
            for row in (source.row(split, index) for index in range(count)):
                check_example(example_of(row))
                assert row['difficulty'] == (difficulty or 0) and gym.split_of(row['question']) == split


def test_a_row_does_not_depend_on_what_was_drawn_before():
    for generator in ('list_functions', 'pool_matrix', 'acre', 'gsm_symbolic', 'word_ladder', 'survo', 'chain_sum'):
        source = gym.Gym(generator)
        forward = [source.row('train', index) for index in range(4)]
        assert [source.row('train', index) for index in (3, 2, 1, 0)] == forward[::-1]
        assert len({row['question'] for row in forward}) > 1


def test_a_draw_does_not_depend_on_global_state_and_other_draws():
    jobs = [('list_functions', None, (), seed) for seed in (2, 25, 34)]
    jobs += [('decimal_chain_sum', 4, (), seed) for seed in (0, 1)]
    for job in jobs:
        random.seed(1)
        decimal.setcontext(decimal.Context())
        first = gym.draw(job)
        assert gym.draw(('decimal_arithmetic', None, (), 0)) is not None
        random.seed(2)
        decimal.setcontext(decimal.Context(prec=12))
        assert first is not None and gym.draw(job) == first
    decimal.setcontext(decimal.Context())


@pytest.mark.parametrize('generator', ['tower_of_hanoi', 'string_synthesis', 'acre', 'count_bits'])
def test_the_splits_share_no_question(generator):
    rows = {split: [gym.Gym(generator).row(split, i)['question'] for i in range(100)] for split in sources.SPLITS}
    assert not set(rows['train']) & set(rows['test'])
    assert gym.Gym(generator).size('test') == 100


def test_a_quarter_of_the_questions_is_for_the_test_split():
    assert abs(sum(gym.split_of(str(i)) == 'test' for i in range(4000)) - 1000) < 100


# --- what goes wrong in a generator ---------------------------------------------------------------------------


def test_draws_that_fail_are_passed_over_and_too_many_of_them_are_told(monkeypatch):
    seeds = []

    def draw(generator, level, config, seed):
        seeds.append(seed)
        return None if seed % 61 < 5 else {'question': f'q{seed}'}

    monkeypatch.setattr(gym, '_draw', draw)
    first = next(s for s in itertools.count(61 * 7 + 5) if gym.split_of(f'q{s}') == 'train')
    assert gym.Gym('maze').row('train', 7)['question'] == f'q{first}' and seeds == list(range(61 * 7, first + 1))
    monkeypatch.setattr(gym, '_draw', lambda *job: None)
    with pytest.raises(UserError, match="61 draws of maze brought no problem for 'test', row 3"):
        gym.Gym('maze').row('test', 3)
    with pytest.raises(UserError, match='^reasoning-gym: 61 draws of maze') as error:
        next(tasks.open_task('gym_maze'))
    assert '\n' not in str(error.value) and not tasks._REFUSED


def test_a_draw_that_hangs_or_dies_is_passed_over(monkeypatch):
    monkeypatch.setattr(gym, 'prepare', 'builtins:repr')
    with WorkerPool(1, timeout_s=0.3) as pool:
        monkeypatch.setattr(gym, '_pool', lambda: pool)
        assert gym._call('time:sleep', 60) is None
        assert gym._call('os:_exit', 1) is None
        assert gym._call('builtins:len', 'abc') == 3
        assert (pool.timeouts, pool.crashes) == (1, 1)


def test_a_draw_that_raises_or_has_a_wrong_answer_is_none(monkeypatch):
    assert gym.draw(('maze', None, (), 1)) is not None
    for entry in ({'question': 'q', 'answer': 'x', 'metadata': {'source': object()}}, {'question': 'q'}):
        monkeypatch.setattr(gym, '_entry', lambda *job, entry=entry: entry)
        assert gym.draw(('maze', None, (), 1)) is None
    integral = {'integrand': '3*x**3*cos(3*x)', 'variable': 'x'}  # sympy leaves some as they were
    entry = {'question': 'q', 'answer': '3*Integral(x**3*cos(3*x), x) + C', 'metadata': integral}
    monkeypatch.setattr(gym, '_entry', lambda *job: entry)
    assert gym.draw(('intermediate_integration', None, (), 1)) is None

    def leaves(*job):
        raise SystemExit

    monkeypatch.setattr(gym, '_entry', leaves)
    assert gym.draw(('codeio', None, (), 1)) is None


def test_sequences_that_explode_are_given_up_and_others_are_the_packages():
    for seed, level in ((163, None), (413, 1), (23, 2), (5, 3)):  # these had not ended after 1.5 s
        gym.prepare(('number_sequence', level, ()))
        assert gym.draw(('number_sequence', level, (), seed))['answer']
    program = (
        'import reasoning_gym\n'
        "made = reasoning_gym.create_dataset('number_sequence', seed=1, size=60)\n"
        'for i in range(60): print(made[i]["question"])')
    theirs = in_another_process(program).stdout.splitlines()
    assert [gym.draw(('number_sequence', None, (), 1 + i))['question'] for i in range(60)] == theirs


# --- as tasks -------------------------------------------------------------------------------------------------


def test_names_are_known_without_the_package_which_is_asked_for_when_a_task_is_opened(monkeypatch):
    program = (
        "import sys; sys.modules['reasoning_gym'] = None; from r1jax.data import tasks\n"
        "print(sum(name.startswith('gym_') for name in tasks.names()), 'gym' in tasks.names())")
    assert in_another_process(program).stdout == '105 True\n'
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    for name in ('gym_maze', 'gym:difficulty=1'):
        with pytest.raises(UserError, match=r"not installed here: pip install 'r1jax\[gym\]'"):
            tasks.open_task(name)


def test_a_task_runs_through_seqio_in_the_same_order():
    tasks.register()
    import seqio

    dataset = seqio.get_mixture_or_task('gym_leg_counting').get_dataset(
        sequence_length=None, split='train', seed=6, shard_info=seqio.ShardInfo(1, 2))
    rows = list(dataset.take(20).as_numpy_iterator())
    expected = take(20, 'gym_leg_counting', seed=6, shard_index=1, shard_count=2)
    assert [row['prompt'].decode() for row in rows] == [example.prompt for example in expected]
    assert [row['id'].decode() for row in rows] == [example.id for example in expected]
    assert {example.language for example in expected} == {'en'}
    for example in expected:
        assert is_correct(example.answer, example) and not is_correct(example.answer + '1', example)
    test = list(tasks.open_task('gym_leg_counting', 'test', seed=3))
    assert len(test) == 100 and test == list(tasks.open_task('gym_leg_counting', 'test', seed=4))
    assert all(example.id == f'gym/leg_counting/default/test/{i}' for i, example in enumerate(test))


def test_hosts_and_resumes_follow_one_order():
    name = 'gym:generators=chain_sum+maze+gcd*2'
    whole = take(120, name, seed=5)
    assert Counter(example.kind for example in whole) == {'chain_sum': 30, 'maze': 30, 'gcd': 60}
    shards = [take(60, name, seed=5, shard_index=i, shard_count=2) for i in range(2)]
    assert [example for turn in zip(*shards, strict=True) for example in turn] == whole
    assert take(20, name, seed=5, shard_index=1, shard_count=2, position=35) == shards[1][35:55]
    far = next(tasks.open_task(name, seed=5, position=10**6))
    assert far == next(tasks.open_task(name, seed=5, shard_index=1, shard_count=3, position=(10**6 - 1) // 3))


def test_the_mixture_has_every_generator_at_the_level_it_has():
    kinds = take(105, 'gym:generators=' + '+'.join(g for g in GENERATORS if g not in ('knight_swap', 'sokoban')), seed=1)
    assert {example.kind for example in kinds} == set(GENERATORS) - {'knight_swap', 'sokoban'}
    assert set(tasks.MIXTURES['gym']) == set(GENERATORS)
    leveled = take(40, 'gym:generators=acre+caesar_cipher+maze+modulo_grid,difficulty=1-2', seed=1)
    assert {(e.kind, e.difficulty) for e in leveled} == {
        ('acre', 0), ('caesar_cipher', 1), ('maze', 1), ('maze', 2), ('modulo_grid', 2)}


def test_levels_and_settings_change_the_problems():
    assert [gym.within('caesar_cipher', d) for d in (None, 0, 5, (0, 9))] == [None, (0, 0), (1, 1), (0, 1)]
    easy, hard = (take(10, 'gym_chain_sum', difficulty=level) for level in (0, 4))
    assert sum(len(e.question) for e in hard) > sum(len(e.question) for e in easy)
    both = take(40, 'gym_chain_sum:difficulty=0-1')
    assert {example.difficulty for example in both} == {0, 1}
    long = take(5, 'gym_chain_sum:min_terms=9,max_terms=9,template=none')
    assert all(sum(map(e.question.count, '+-')) >= 8 and e.prompt == e.question for e in long)
    for example in (*hard, *long):
        check_example(example)
    assert take(5, 'gym_word_sorting:min_words=3,max_words=4,transformation=uppercase')[0].answer.isupper()


@pytest.mark.parametrize('name, message', [
    ('gym_mazes', "no such task (did you mean 'gym_maze'?)"),
    ('gym_maze:min_distance=3', "maze has no setting 'min_distance' (did you mean 'min_dist'?)"),
    ('gym_maze:seed=3', "maze has no setting 'seed'"),
    ('gym_maze:min_dist=900', 'refuses maze with min_dist=900: max_dist must be >= min_dist'),
    ('gym_maze:difficulty=9', 'gym_maze has levels 0 to 3, so difficulty=9 is none of them'),
    ('gym_sokoban:difficulty=0-2', 'gym_sokoban has levels 1 to 13, so difficulty=(0, 2) is none of them'),
    ('gym_acre:difficulty=0', 'gym_acre has no levels of difficulty'),
    ('gym_leg_counting:min_animals=20,difficulty=0-3', 'with difficulty=0, min_animals=20'),
    ('gym_maze:language=zh', "the language is 'en', not 'zh'"),
    ('gym_maze:kind=gcd', "the kind is 'maze', not 'gcd'"),
    ('gym_maze:template=tiny_', "template 'tiny_': no such template"),
    ('gym:generators=mazes', "none of the generators of gym is 'mazes' (did you mean 'maze'?)"),
    ('gym:families=logic', "no option 'families'"),
    ('gym:min_dist=3', "no option 'min_dist'"),
    ('gym:generators=maze*x', 'is not a rate'),
    ('tiny_reasoning:generators=maze', "no option 'generators'"),
])
def test_wrong_options_are_told_in_one_sentence(name, message):
    with pytest.raises(UserError) as error:
        tasks.open_task(name)
    assert message in str(error.value) and '\n' not in str(error.value)


def test_the_check_of_answers_sees_a_task_of_the_gym(monkeypatch):
    tasks.check_answers('gym_gcd', 'test')
    row = gym.Gym('tower_of_hanoi').row('train', 0)
    monkeypatch.setattr(gym.Gym, 'row', lambda self, split, index: row | {'answer': 'Move disk 1 from Peg 1 to Peg 1'})
    with pytest.raises(UserError, match='gold answer that is wrong'):
        tasks.check_answers('gym_tower_of_hanoi', 'test')


def test_sources_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        gym.Gym('maze').difficulty = 3
