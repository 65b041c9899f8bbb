"""The generators of reasoning-gym as sources: procedural problems of algebra, logic, code, games and more.

Source: reasoning-gym (Stojanovski et al., arXiv 2505.24760), version 0.1.25, an optional package that is imported when a
task of it is opened, and then in a worker process: its generators follow the order of sets of strings (isomorphic_strings,
knight_swap, polynomial_multiplication, ransom_note, word_ladder), draw from and seed the global generators (list_functions,
pool_matrix), set the precision of all decimal numbers (decimal_arithmetic), run stored programs that print and open files
(codeio), and may hang. In a worker, hashes have one seed, and what is global is its own and set anew for each draw.

The package's 'composite' is no generator but a mixture of them: that is the mixture 'gym' here.
"""

import contextlib
import dataclasses
import decimal
import functools
import hashlib
import importlib.util
import io
import json
import random
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np

from r1jax.data import templates
from r1jax.data.sources import SPLITS, TRAIN_DRAWS, Row
from r1jax.errors import UserError
from r1jax.rewards import gym
from r1jax.rewards.base import Example
from r1jax.rewards.pool import WorkerPool

# The lowest and the highest level of each generator's curriculum, None without one. Left out are levels that the package's
# own checks refuse (caesar_cipher 2-3, knight_swap all, modulo_grid 1, rubiks_cube 4, survo 2-3), those with problems that
# took more than 10 s (arc_1d 3, jugs 2-3, sokoban 0, zebra_puzzles 4-5), boards of which the question leaves out the middle
# (game_of_life_halting 2-3), cubes of which the scorer cannot read the turns (rubiks_cube 1-3), and propositional_logic 0,
# which has too few problems.
LEVELS: dict[str, tuple[int, int] | None] = {
    'ab': (0, 3), 'acre': None, 'advanced_geometry': (0, 3), 'aiw': (0, 8), 'arc_1d': (0, 2), 'arc_agi': (0, 3),
    'base_conversion': (0, 4), 'basic_arithmetic': (0, 4), 'bf': (0, 2), 'binary_alternation': (0, 3),
    'binary_matrix': (0, 3), 'bitwise_arithmetic': (0, 9), 'boxnet': (0, 8), 'caesar_cipher': (0, 1),
    'calendar_arithmetic': (0, 3), 'chain_sum': (0, 10), 'circuit_logic': (0, 4), 'codeio': (0, 3),
    'coin_flip': (0, 12), 'color_cube_rotation': (0, 4), 'complex_arithmetic': (0, 3), 'count_bits': (0, 4),
    'count_primes': (0, 4), 'countdown': (0, 4), 'course_schedule': (0, 4), 'cryptarithm': (0, 3),
    'decimal_arithmetic': (0, 3), 'decimal_chain_sum': (0, 4), 'dice': (0, 3), 'emoji_mystery': (0, 5),
    'family_relationships': (0, 8), 'figlet_font': (0, 5), 'fraction_simplification': (0, 3), 'futoshiki': (0, 3),
    'game_of_life': (0, 3), 'game_of_life_halting': (0, 1), 'gcd': (0, 3), 'graph_color': (0, 3),
    'group_anagrams': (0, 3), 'gsm_symbolic': None, 'intermediate_integration': (0, 7), 'isomorphic_strings': (0, 3),
    'jugs': (0, 1), 'kakurasu': (0, 3), 'knight_swap': None, 'knights_knaves': (0, 3), 'largest_island': (0, 3),
    'lcm': (0, 3), 'leg_counting': (0, 35), 'letter_counting': (0, 7), 'letter_jumble': (0, 4),
    'list_functions': None, 'mahjong_puzzle': (0, 3), 'manipulate_matrix': (0, 4), 'maze': (0, 3),
    'mini_sudoku': (0, 4), 'modulo_grid': (2, 5), 'n_queens': (0, 4), 'needle_haystack': (0, 3),
    'number_filtering': (0, 3), 'number_format': (0, 3), 'number_sequence': (0, 3), 'number_sorting': (0, 7),
    'palindrome_generation': (0, 3), 'palindrome_partitioning': (0, 3), 'path_star': (0, 3),
    'polynomial_equations': (0, 3), 'polynomial_multiplication': (0, 3), 'pool_matrix': (0, 3),
    'power_function': (0, 4), 'prime_factorization': (0, 3), 'products': (0, 10), 'propositional_logic': (1, 4),
    'puzzle24': (0, 6), 'quantum_lock': (0, 9), 'ransom_note': (0, 3), 'rearc': (0, 6), 'rectangle_count': (0, 4),
    'rotate_matrix': (0, 4), 'rotten_oranges': (0, 3), 'rubiks_cube': (0, 0), 'rush_hour': (0, 3),
    'self_reference': (0, 9), 'sentence_reordering': (0, 3), 'shortest_path': (0, 3), 'simple_equations': (0, 3),
    'simple_geometry': (0, 3), 'simple_integration': (0, 3), 'sokoban': (1, 13), 'spell_backward': (0, 4),
    'spiral_matrix': (0, 3), 'string_insertion': (0, 3), 'string_manipulation': (0, 4), 'string_splitting': (0, 3),
    'string_synthesis': (0, 3), 'sudoku': (0, 4), 'survo': (0, 1), 'syllogism': (0, 3), 'time_intervals': (0, 6),
    'tower_of_hanoi': (0, 3), 'tsumego': (0, 3), 'word_ladder': (0, 2), 'word_sequence_reversal': (0, 3),
    'word_sorting': (0, 4), 'zebra_puzzles': (0, 3),
}

TEST_ROWS = 100
# One problem in so many is kept for 'test', whichever draw brings it up.
_TEST_SHARE = 4
# Draws that a row may take; a prime, so that rows meet all turns of a generator that goes by its seed.
_ATTEMPTS = 61
_FIRST_TEST_SEED = 2**31
# Seconds that one draw may take: far more than the longest of 200 that were timed of each slow generator (futoshiki 21 on a
# busy core, knight_swap 9, sokoban 7), so that which draws are passed over does not depend on the machine.
_DRAW_LIMIT_S = 120.0

# Generators that make all entries, or the plan of all, when they are made.
_PLANNED = frozenset({'acre', 'gsm_symbolic', 'list_functions'})


@dataclasses.dataclass(frozen=True)
class Gym:
    """One generator of reasoning-gym.

    The rows of 'train' are 100,000 draws, repeats included; those of 'test' are 100. A problem belongs to 'test' if a hash
    of its question says so (one in four), so the splits share no question, however few a generator has; repeats in 'test'
    are left in. A row is a function of (generator, settings, split, index): it takes the first draw that belongs to the
    split and whose own answer is right by `rewards.gym`; draws that raise, or take more than 120 s, are passed over.

    Attributes:
        generator: one of LEVELS.
        difficulty: a level of the generator's curriculum or a range of them, gone round row by row; by default the
            generator's own settings, which are none of its levels and count as difficulty 0.
        template: a name of `templates.names()`.
        config: further fields of the generator's configuration with their values.
    """

    generator: str
    difficulty: int | tuple[int, int] | None = None
    template: str = 'r1_zero'
    config: tuple[tuple[str, Any], ...] = ()

    splits = SPLITS

    def size(self, split: str) -> int:
        if importlib.util.find_spec('reasoning_gym') is None:
            raise UserError(gym.NOT_INSTALLED)
        return TRAIN_DRAWS if split == 'train' else TEST_ROWS

    def row(self, split: str, index: int) -> Row:
        level = self._level(index)
        first = index * _ATTEMPTS + (0 if split == 'train' else _FIRST_TEST_SEED)
        for seed in range(first, first + _ATTEMPTS):
            drawn = _draw(self.generator, level, self.config, seed)
            if drawn is not None and split_of(drawn['question']) == split:
                return {
                    **drawn,
                    'prompt': templates.apply(self.template, drawn['question']),
                    'response': '',
                    'language': 'en',
                    'options': '',
                    'id': f'gym/{self.generator}/{"default" if level is None else level}/{split}/{index}',
                }
        raise UserError(
            f'reasoning-gym: {_ATTEMPTS} draws of {self.generator} brought no problem for {split!r}, row {index}')

    def select(self, **options: Any) -> 'Gym':
        """Returns the generator with other options; UserError for what it does not have."""
        fields = {key: value for key, value in options.items() if key in ('difficulty', 'template')}
        config = {key: value for key, value in options.items() if key not in fields}
        for key, only in (('language', 'en'), ('kind', self.generator)):
            if config.pop(key, only) != only:
                raise UserError(f'gym_{self.generator}: the {key} is {only!r}, not {options[key]!r}')
        selected = dataclasses.replace(self, **fields, config=tuple(sorted((dict(self.config) | config).items())))
        templates.check(selected.template)
        if selected.difficulty is not None:
            levels = LEVELS[self.generator]
            low, high = selected._levels
            if levels is None or not levels[0] <= low <= high <= levels[1]:
                known = f'levels {levels[0]} to {levels[1]}' if levels else 'no levels of difficulty'
                raise UserError(f'gym_{self.generator} has {known}, so difficulty={options["difficulty"]} is none of them')
        if selected.config:
            for level in range(low, high + 1) if selected.difficulty is not None else [None]:
                _call(check, (self.generator, level, selected.config))
        return selected

    @property
    def _levels(self) -> tuple[int, int]:
        return (self.difficulty, self.difficulty) if isinstance(self.difficulty, int) else self.difficulty

    def _level(self, index: int) -> int | None:
        if self.difficulty is None:
            return None
        low, high = self._levels
        return low + index % (high - low + 1)


def within(generator: str, difficulty: int | tuple[int, int] | None) -> int | tuple[int, int] | None:
    """Returns the nearest difficulty that the generator has, for mixtures of many."""
    levels = LEVELS[generator]
    if difficulty is None or levels is None:
        return None
    low, high = (difficulty, difficulty) if isinstance(difficulty, int) else difficulty
    return max(levels[0], min(low, levels[1])), max(levels[0], min(high, levels[1]))


def split_of(question: str) -> str:
    """Returns the split that a question belongs to: a hash of its text decides."""
    digest = hashlib.blake2b(question.encode(), digest_size=8).digest()
    return 'test' if int.from_bytes(digest, 'little') % _TEST_SHARE == 0 else 'train'


# --- the worker ---------------------------------------------------------------------------------------------

# generator, level, settings beside it, seed
Job = tuple[str, int | None, tuple[tuple[str, Any], ...], int]


@functools.cache
def _pool() -> WorkerPool:
    return WorkerPool(1, _DRAW_LIMIT_S)


def _draw(*job: Any) -> Row | None:
    return _call(draw, job)


def _call(function: Callable, job: Any) -> Any:
    """Returns function(job), called in the worker; None where that hung or took the worker with it."""
    outcome = _pool().map(function, [job], prepare=prepare)[0]
    if outcome.status == 'error':
        raise outcome.value
    return outcome.value


def prepare(job: Any) -> None:
    """What the worker does before its clock starts: it imports the package, and the generator loads its words or boards."""
    generator, level, config, *_ = job
    if generator == 'number_sequence':
        _bound_sequences()
    gym.dataset(generator, level, dict(config))


@functools.cache
def _bound_sequences() -> None:
    """Ends those of number_sequence that explode, of which it works out every term: at level 2, 4% take more than 1.5 s.

    The generator refuses numbers above 1,000 in the end, and OverflowError at once; none comes back from here.
    """
    from reasoning_gym.cognition.number_sequences import PatternRule

    apply = PatternRule.apply

    def bounded(self: Any, sequence: list[int], position: int) -> int:
        term = apply(self, sequence, position)
        if abs(term) > 10**12:
            raise OverflowError
        return term

    PatternRule.apply = bounded


def check(job: tuple[str, int | None, tuple[tuple[str, Any], ...]]) -> None:
    """Nothing: `prepare` has made the generator, and has raised UserError if it refuses its settings."""


def draw(job: Job) -> Row | None:
    """Returns the problem of one seed, all of `sources.FEATURES` that are its own; None for one that cannot be used.

    That is one that raises, or whose own answer is wrong by `rewards.gym.grade` (an integral that sympy left as it was, a
    solution for another number of jugs, a conclusion that repeats a premise).
    """
    generator, level, config, seed = job
    prepare(job)  # first: modules draw from the global generators while they are imported
    random.seed(seed)
    np.random.seed(seed)
    decimal.setcontext(decimal.Context())
    try:
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
            entry = _entry(generator, level, dict(config), seed)
        answer = _answer(generator, entry)
        row = {
            'question': entry['question'], 'answer': answer, 'task': gym.TASK, 'kind': generator, 'difficulty': level or 0,
            'tests': gym.pack(level, dict(config), entry['metadata'])}
        usable = not answer or gym.grade(answer, Example(prompt='', **row)) == 1
    except (Exception, SystemExit):  # what a generator or a stored program may raise
        gym.forget()  # some are of no use any more
        return None
    return row if usable else None


def _entry(generator: str, level: int | None, config: dict[str, Any], seed: int) -> dict[str, Any]:
    if generator in _PLANNED:  # the plan is drawn by the seed alone, the last of its entries by another
        return gym.make_dataset(generator, level, config, seed=seed, size=5)[4]
    made = gym.dataset(generator, level, config)
    made.seed = made.config.seed = seed
    return made[0]


def _answer(generator: str, entry: dict[str, Any]) -> str:
    """Returns the gold answer, a solution where there are several, '' for problems that come without one."""
    answer, metadata = entry['answer'], entry['metadata']
    match generator:
        case 'graph_color':
            return json.dumps(metadata['possible_answer'])
        case 'polynomial_equations':
            return answer or gym.NO_ROOTS
        case 'propositional_logic':
            answer = gym.find_conclusion(metadata)
            if answer is None:
                raise ValueError('nothing can be concluded')
        case 'rubiks_cube':
            return metadata['example_correct_answer']
    return answer or ''
