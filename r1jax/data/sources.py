"""Where problems come from, and in which order they are read; plain Python and NumPy.

A source gives any row of a split by its number, so the order of a whole mixture can be computed instead of
remembered: `Order.at(position)` is a function of the seed alone. Reading on from position 1,000,000, or every
third example on the second of three hosts, costs as much as reading from the start.
"""

import dataclasses
import functools
import json
import pathlib
import re
import string
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from r1jax.data import templates, tinyworld
from r1jax.errors import Missing, UserError
from r1jax.rewards.accuracy import UNGRADED
from r1jax.rewards.base import tests_to_text
from r1jax.rewards.code import with_a_test

Row = dict[str, str | int]
FEATURES = (
    'prompt', 'question', 'answer', 'response', 'task', 'language', 'kind', 'difficulty', 'tests', 'options', 'id')
OPTIONS = ('language', 'difficulty', 'kind', 'template')  # what `Source.select` takes

SPLITS = ('train', 'test')
# What routes the accuracy reward where that is not the family's own name: its programs are graded without being run.
TASK_OF = {'code': 'function'}
TRAIN_DRAWS, TEST_DRAWS = 100_000, 2_000


class Source(Protocol):
    """Problems by number.

    splits: names of the splits.
    size(split): number of rows.
    row(split, index): one problem, a value for each of FEATURES (`difficulty` an integer, the rest strings).
    select(...): the same source, narrowed by OPTIONS.
    """

    @property
    def splits(self) -> tuple[str, ...]: ...

    def size(self, split: str) -> int: ...

    def row(self, split: str, index: int) -> Row: ...

    def select(self, **options: Any) -> 'Source': ...


@dataclasses.dataclass(frozen=True)
class TinyWorld:
    """One family of the tiny world.

    Draws alternate between English and Chinese and go round the difficulties, so that every stretch of them
    is balanced. The rows of 'train' are 100,000 draws, repeats included. The rows of 'test' are 2,000 draws
    without the repeats: at low difficulty few problems exist, and an interval that counts one of them many
    times over is too narrow. No row depends on a seed.

    Attributes:
        family: one of tinyworld.FAMILIES.
        language: 'en' or 'zh' for one language only.
        difficulty: a number or a range (low, high); by default the family's own range.
        kind: a kind of the family; by default all of them.
        template: a name of `templates.names()`.
    """

    family: str
    language: str | None = None
    difficulty: int | tuple[int, int] | None = None
    kind: str | None = None
    template: str = 'tiny'

    splits = SPLITS

    def size(self, split: str) -> int:
        return TRAIN_DRAWS if split == 'train' else len(self._distinct)

    def row(self, split: str, index: int) -> Row:
        problem = self._draw(split, index if split == 'train' else self._distinct[index])
        return {
            'prompt': templates.apply(self.template, problem.question),
            'question': problem.question,
            'answer': problem.answer,
            'response': tinyworld.demonstration(problem, index) if split == 'train' else '',
            'task': TASK_OF.get(problem.family, problem.family),
            'language': problem.language,
            'kind': problem.kind,
            'difficulty': problem.difficulty,
            'tests': problem.tests,
            'options': '\n'.join(problem.options),
            'id': f'{problem.family}/{problem.kind}/{problem.language}/{problem.difficulty}/{split}/{index}',
        }

    def _draw(self, split: str, index: int) -> tinyworld.Problem:
        low, high = self._levels
        language = self.language or tinyworld.LANGUAGES[index % 2]
        return self._problem(split, index, language, low + index // 2 % (high - low + 1))

    def _problem(self, split: str, index: int, language: str | None, difficulty: Any) -> tinyworld.Problem:
        return tinyworld.problem_at(
            self.family, split, index, language=language, difficulty=difficulty, kind=self.kind)

    @property
    def _levels(self) -> tuple[int, int]:
        levels = tinyworld.DIFFICULTY[self.family] if self.difficulty is None else self.difficulty
        return (levels, levels) if isinstance(levels, int) else levels

    @functools.cached_property
    def _distinct(self) -> list[int]:
        """The draws of 'test' that are not repeats of an earlier one in the same language."""
        first: dict[tuple[str, str], int] = {}
        for index in range(TEST_DRAWS):
            problem = self._draw('test', index)
            first.setdefault((problem.key, problem.language), index)
        return list(first.values())

    def select(self, **options: Any) -> 'TinyWorld':
        """Returns the family narrowed by OPTIONS; UserError for an unknown name or a wrong range."""
        selected = dataclasses.replace(self, **options)
        templates.check(selected.template)
        low, high = selected._levels
        for split in selected.splits:
            selected._problem(split, 0, selected.language, (low, high))
            for level in range(low, high + 1):
                selected._problem(split, 0, selected.language, level)
        return selected


# What a row of a file may tell, and how published files spell it; the first spelling that a row has is read.
FIELDS = {
    'question': ('question', 'problem', 'prompt'),
    'answer': ('answer',),
    'response': ('response', 'completion', 'output'),
    'language': ('language', 'lang'),
    'task': ('task',),
    'kind': ('kind',),
    'difficulty': ('difficulty', 'grade'),
    'tests': ('tests', 'test_list'),
    'setup': ('setup', 'test_setup_code', 'test_imports'),
    'options': ('options', 'choices'),
    'id': ('id', 'task_id'),
}


@dataclasses.dataclass(frozen=True)
class JsonLines:
    """Files of JSON objects, one a line; one file for each split.

    Attributes:
        paths: split -> file.
        fields: our field -> the file's key, where it is not one of the usual spellings (question or problem
            or prompt, answer, language or lang, difficulty or grade, tests or test_list, setup or test_setup_code
            or test_imports, options or choices, id or task_id, kind).
        task: what routes the accuracy reward, of rows that do not tell theirs: 'math', 'choice', 'code', 'exact', ...; those
            that no rule grades ('general') need no answer.
        template: a name of `templates.names()`.
        default_language: language of rows that do not tell theirs.
        language, difficulty, kind: keep only the rows that have them.

    Programs (task 'code') need no answer; what sets their tests up is put before them, and their first test below a
    question that does not name what it calls. An answer that ends in '#### 42', as in GSM8K, is 42. Options are written
    below the question, one a line, as (A), (B), ...; such labels of the file's own are dropped.
    """

    paths: tuple[tuple[str, str], ...]
    fields: tuple[tuple[str, str], ...] = ()
    task: str = 'math'
    template: str = 'r1_zero'
    default_language: str = ''
    language: str | None = None
    difficulty: int | tuple[int, int] | None = None
    kind: str | None = None

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(split for split, _ in self.paths)

    def size(self, split: str) -> int:
        return len(self._rows[split])

    def row(self, split: str, index: int) -> Row:
        return self._rows[split][index]

    def select(self, **options: Any) -> 'JsonLines':
        selected = dataclasses.replace(self, **options)
        for split in selected.splits:
            if not selected.size(split):
                wanted = ', '.join(f'{name}={value}' for name, value in options.items())
                raise UserError(f'{dict(self.paths)[split]}: no row' + (f' with {wanted}' if wanted else ''))
        return selected

    @functools.cached_property
    def _rows(self) -> dict[str, list[Row]]:
        files = {path: self._read(pathlib.Path(path).expanduser()) for _, path in self.paths}
        return {split: files[path] for split, path in self.paths}

    def _read(self, path: pathlib.Path) -> list[Row]:
        if not path.is_file():
            raise Missing(f'{path}: no such file')
        try:
            text = path.read_text(encoding='utf-8-sig')
        except UnicodeDecodeError as error:
            raise UserError(f'{path}: not JSON lines, which are UTF-8 text ({error.reason})') from None
        rows = []
        # Not splitlines: JSON strings may hold U+2028 and other line ends of Unicode.
        for number, line in enumerate(text.split('\n'), 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except ValueError as error:
                raise UserError(f'{path}, line {number}: not JSON ({error})') from error
            if not isinstance(record, dict):
                raise UserError(f'{path}, line {number}: not a JSON object')
            row = self._row_of(record, f'{path}, line {number}', f'{path.stem}/{number}')
            if self._keeps(row):
                rows.append(row)
        return rows

    def _keeps(self, row: Row) -> bool:
        low, high = self.difficulty if isinstance(self.difficulty, tuple) else (self.difficulty,) * 2
        return ((self.language is None or row['language'] == self.language)
                and (self.kind is None or row['kind'] == self.kind)
                and (low is None or low <= row['difficulty'] <= high))

    def _row_of(self, record: dict, where: str, number: str) -> Row:
        fields = dict(self.fields)

        def value(name: str, default: Any) -> Any:
            keys = (fields[name],) if name in fields else FIELDS[name]
            for key in keys:
                if record.get(key) is not None:
                    return record[key]
            if default is None or name in fields:
                raise UserError(
                    f'{where}: no {name} under {" or ".join(keys)} (the row has {", ".join(record)})')
            return default

        options = value('options', [])
        if not isinstance(options, list) or not all(_is_text(option) for option in options):
            raise UserError(f'{where}: the options are no list of texts: {options!r}')
        options = _without_labels([' '.join(str(option).split()) for option in options])
        task = str(value('task', self.task))
        answer = value('answer', '' if task in UNGRADED or task == 'code' else None)
        if not _is_text(answer):
            raise UserError(f'{where}: the answer is neither a text nor a number: {answer!r}')
        if task == 'choice' and isinstance(answer, int):  # its place, counted from 0 or from 1, or its text?
            raise UserError(f'{where}: the answer {answer} of a choice must be a letter, or the text of an option')
        tests = value('tests', '')
        if isinstance(tests, list):
            is_source = all(isinstance(test, str) for test in tests)
            tests = tests_to_text([*_lines(value('setup', [])), *tests] if is_source else tests)
        elif not isinstance(tests, str):
            raise UserError(f'{where}: the tests are neither a text nor a list: {tests!r}')
        difficulty = value('difficulty', 0)
        if not isinstance(difficulty, int):
            raise UserError(f'{where}: the difficulty {difficulty!r} is not a whole number')
        letters = string.ascii_uppercase[:len(options)]
        if len(letters) < len(options):
            raise UserError(f'{where}: more than {len(letters)} options')
        shown = [f'({letter}) {option}' for letter, option in zip(letters, options, strict=True)]
        question = '\n'.join([str(value('question', None)), *shown])
        question = with_a_test(question, tests) if task == 'code' else question
        return {
            'prompt': templates.apply(self.template, question),
            'question': question,
            'answer': str(answer) if task == 'code' else str(answer).rpartition('####')[2].strip(),
            'response': str(value('response', '')),
            'task': task,
            'language': str(value('language', self.default_language)),
            'kind': str(value('kind', '')),
            'difficulty': difficulty,
            'tests': tests,
            'options': '\n'.join(options),
            'id': str(value('id', number)),
        }


def _lines(setup: str | list) -> list[str]:
    return [text for text in ([setup] if isinstance(setup, str) else map(str, setup)) if text]


def _is_text(value: object) -> bool:
    return isinstance(value, (str, int, float)) and not isinstance(value, bool)


def _without_labels(options: list[str]) -> list[str]:
    """Returns ['x', 'y'] for ['A) x', 'B) y'], and the options themselves where they are not labelled so."""
    parts = [re.fullmatch(r'\(?([A-Z])[).:]\s*(.*)', option, re.DOTALL) for option in options]
    labels = ''.join(part[1] for part in parts if part)
    return [part[2] for part in parts] if labels == string.ascii_uppercase[:len(options)] else options


# --- order --------------------------------------------------------------------------------------------------

_LONGEST_BLOCK = 1000


@dataclasses.dataclass(frozen=True)
class Order:
    """Which row of which source stands at each position of a mixture, by random access.

    Positions come in blocks; each block holds every source in proportion to its rate (to within one part in
    1,000), in an order of its own. Each source is read through in whole epochs, each in an order of its own.

    Attributes:
        sizes: rows of each source.
        rates: relative rate of each source, not negative.
        seed: another seed is another order. Unused without `shuffle`.
        shuffle: False reads every source in its own order, evenly interleaved.
    """

    sizes: tuple[int, ...]
    rates: tuple[float, ...]
    seed: int
    shuffle: bool

    def at(self, position: int) -> tuple[int, int]:
        """Returns (source, row) at a position >= 0; never ends: `length` says where an epoch does."""
        block, offset = divmod(position, sum(self._counts))
        sources, ranks = self._block(block if self.shuffle else 0)
        source = int(sources[offset])
        epoch, row = divmod(block * self._counts[source] + int(ranks[offset]), self.sizes[source])
        if self.shuffle:
            row = int(permutation(self.sizes[source], self.seed, source, epoch)[row])
        return source, row

    def length(self, epochs: int) -> int:
        """Returns the first position at which some source would begin its epoch number `epochs` (from 0)."""
        ends = []
        for source, count in enumerate(self._counts):
            if count:
                block, rank = divmod(self.sizes[source] * epochs, count)
                sources, ranks = self._block(block if self.shuffle else 0)
                offset = np.flatnonzero((sources == source) & (ranks == rank))[0]
                ends.append(block * sum(self._counts) + int(offset))
        return min(ends)

    @functools.cached_property
    def _counts(self) -> tuple[int, ...]:
        return _proportions(self.rates)

    def _block(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        return _block(self._counts, self.seed if self.shuffle else None, block)


def _proportions(rates: Sequence[float]) -> tuple[int, ...]:
    """Returns counts in the ratio of `rates`: the smallest exact ones, or 1,000 by largest remainder."""
    shares = np.asarray(rates, np.float64) / sum(rates)
    for total in range(1, _LONGEST_BLOCK + 1):
        counts = np.rint(shares * total)
        if np.abs(counts - shares * total).max() < 1e-9 * total:
            return tuple(counts.astype(int).tolist())
    exact = shares * _LONGEST_BLOCK
    counts = np.maximum(np.floor(exact).astype(int), shares > 0)  # no source with a rate is left out
    for source in np.argsort(counts - exact, kind='stable')[:max(0, _LONGEST_BLOCK - counts.sum())]:
        counts[source] += 1
    return tuple(counts.tolist())


@functools.lru_cache(maxsize=64)
def _block(counts: tuple[int, ...], seed: int | None, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns (source, how often that source stood in the block before) of each position of a block."""
    sources = np.repeat(np.arange(len(counts)), counts)
    if seed is None:
        evenly = np.concatenate([(np.arange(count) + 0.5) / count for count in counts if count])
        sources = sources[np.argsort(evenly, kind='stable')]
    else:
        sources = sources[permutation(len(sources), seed, -1, block)]
    ranks = np.zeros(len(sources), int)
    for source in range(len(counts)):
        here = sources == source
        ranks[here] = np.arange(here.sum())
    return sources, ranks


@functools.lru_cache(maxsize=128)  # the largest mixture goes round 105 sources
def permutation(size: int, *key: int) -> np.ndarray:
    """Returns an order of 0..size-1 drawn by `key`, the same on every machine and with every NumPy."""
    state = np.zeros(1, np.uint64)
    for part in key:
        state = _mix(state ^ np.uint64(part % 2**64))
    return np.argsort(_mix(state + np.arange(size, dtype=np.uint64)), kind='stable').astype(np.int32)


def _mix(x: np.ndarray) -> np.ndarray:
    """The splitmix64 generator's output for state x (Steele, Lea and Flood, OOPSLA 2014)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
