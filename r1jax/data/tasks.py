"""Tasks and mixtures of problems as seqio objects; the only module that imports seqio and TensorFlow, lazily.

A task has a name, and so has a narrowed one: 'tiny_logic', 'tiny_arithmetic:difficulty=7,language=zh',
'tiny_reasoning:families=arithmetic+logic', 'jsonl:path=problems.jsonl,template=boxed', 'gym_leg_counting:min_animals=2',
'gym:generators=chain_sum+maze*2,difficulty=1'. What comes out is text, the features of `sources.FEATURES`; tokenising is
left to `r1jax.data.tokenizers`.

    for example in open_task('tiny_reasoning', seed=0, shard_index=host, shard_count=hosts, position=p): ...
    seqio.get_mixture_or_task('tiny_reasoning').get_dataset(split='test', shuffle=False)    # after register()

Both give the same examples in the same order: the seqio objects registered here compute their order from the
seed (`sources.Order`) instead of filling shuffle buffers, so example i is the same on any number of hosts and
`start` goes to any position at once. Tasks that others registered with seqio can be opened too, if they emit
at least `prompt` and `answer` as strings; going on from a position then reads past what came before.
"""

import atexit
import contextlib
import functools
import itertools
import json
import math
import os
import re
import secrets
import sys
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

from r1jax.data import gym, sources, tinyworld
from r1jax.errors import UserError, nearest
from r1jax.rewards.accuracy import check_example
from r1jax.rewards.base import Example, tests_from_text

_REASONING = {'arithmetic': 0.4, 'logic': 0.25, 'choice': 0.2, 'code': 0.15}
_GENERAL = {'translation': 0.25, 'everyday': 0.4, 'knowledge': 0.35}
# Three quarters reasoning, as in the paper's examples for fine-tuning: about 600,000 of reasoning and 200,000
# general (DeepSeek-R1, arXiv 2501.12948, section 2.3.3).
MIXTURES: dict[str, dict[str, float]] = {
    'tiny_reasoning': _REASONING,
    'tiny_general': _GENERAL,
    'tiny_all': {f: 0.75 * r for f, r in _REASONING.items()} | {f: 0.25 * r for f, r in _GENERAL.items()},
    # What only people can compare, for a reward model of helpfulness; that of harmlessness learns from tiny_safety.
    'tiny_helpful': {'everyday': 0.5, 'knowledge': 0.2, 'safety': 0.3},
    # Every kind of request at once, for the last stage of RL (the paper's, section 2.3.4).
    'tiny_scenarios': {f: 0.25 * r for f, r in _REASONING.items()} | {'everyday': 0.35, 'knowledge': 0.15, 'safety': 0.25},
    # The general part of the data to fine-tune on: those with demonstrations.
    'tiny_assistant': {'everyday': 0.4, 'knowledge': 0.25, 'translation': 0.05, 'safety': 0.3},
    # Every generator of reasoning-gym alike; generators=maze*2+gcd has two mazes for each gcd.
    'gym': dict.fromkeys(gym.LEVELS, 1.0),
}
_SOURCES: dict[str, sources.Source] = {
    **{f'tiny_{f}': sources.TinyWorld(f) for f in tinyworld.FAMILIES}, **{f'gym_{g}': gym.Gym(g) for g in gym.LEVELS}}
# What the option is called that chooses among a mixture's tasks, what those names begin with, and what they may be.
_PARTS = {name: ('families', 'tiny_', tuple(tinyworld.FAMILIES)) for name in MIXTURES} | {
    'gym': ('generators', 'gym_', tuple(gym.LEVELS))}
_JSONL_OPTIONS = ('path', 'train', 'test', 'task', 'question', 'answer')  # beside sources.OPTIONS


def register() -> None:
    """Puts every task and mixture into seqio's registries; calling it again does nothing."""
    for name in [*_SOURCES, *MIXTURES]:
        _provider(name)


def register_jsonl_task(
    name: str,
    path: str | Mapping[str, str],
    *,
    task: str = 'math',
    template: str = 'r1_zero',
    language: str = '',
    fields: Mapping[str, str] | None = None,
) -> None:
    """Makes a file of JSON lines a task that `open_task` and seqio know by `name`.

    Args:
        name: letters, digits and underscores. Registering a name again replaces it.
        path: split -> file, such as {'train': ..., 'test': ...}; one file alone serves as both splits.
        task: what routes the accuracy reward: 'math', 'choice', 'code', 'exact', ...
        template: prompt template, one of `templates.names()`.
        language: ISO code of rows that do not tell their language.
        fields: our field ('question', 'answer', 'tests', 'setup', 'options', 'language', 'kind', 'difficulty', 'id')
            -> the file's key; the spellings in `sources.JsonLines` need no entry.

    Raises:
        UserError: a bad name or field, no such file, or a line that is not such a row.
    """
    if not re.fullmatch(r'\w+', name) or name == 'jsonl':
        raise UserError(f'task {name!r}: a name is made of letters, digits and underscores, and is not jsonl')
    for field in fields or {}:
        if field not in sources.FIELDS:
            raise UserError(f'task {name!r}: no field {field!r}{nearest(field, sources.FIELDS)}')
    source = _jsonl(path, task, template, language, fields or {})
    registry = _seqio().TaskRegistry
    ours = isinstance(_SOURCES.get(name), sources.JsonLines)
    if name in {*_SOURCES, *MIXTURES, *registry.names(), *_seqio().MixtureRegistry.names()} and not ours:
        raise UserError(f'task {name!r}: the name is taken')
    for known in [known for known in registry.names() if known.partition(':')[0] == name]:
        registry.remove(known)
    _SOURCES[name] = source


def names() -> list[str]:
    """Returns the names of all tasks and mixtures, those that others registered with seqio too."""
    register()
    seqio = _seqio()
    known = {*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()}
    return sorted(name for name in known if ':' not in name)


def open_task(
    name: str,
    split: str = 'train',
    *,
    seed: int = 0,
    shard_index: int = 0,
    shard_count: int = 1,
    position: int = 0,
    language: str | None = None,
    difficulty: int | tuple[int, int] | None = None,
    kind: str | None = None,
    template: str | None = None,
    families: Mapping[str, float] | None = None,
) -> 'ExampleIterator':
    """Opens a task or mixture.

    'train' never ends and is shuffled, by epochs; every other split is read once, in its own order, the same
    for every seed. A mixture ends with the first of its tasks that does. Host i of n gets examples i, i + n,
    i + 2n, ... of one global order that does not depend on n.

    Args:
        name: a task or mixture, with or without options ('tiny_logic:language=zh').
        split: 'train' or 'test'.
        seed: decides the order of 'train' and nothing else.
        shard_index, shard_count: which host this is.
        position: examples that this host has consumed already; going on is exact.
        language, difficulty, kind, template, families: options, as if written in the name. difficulty may be
            a range (low, high); families maps family names to rates and is for mixtures.

    Raises:
        UserError: unknown name, option, value or split.
    """
    difficulty = tuple(difficulty) if isinstance(difficulty, list) else difficulty
    numbers = difficulty if isinstance(difficulty, tuple) and len(difficulty) == 2 else (difficulty,)
    if difficulty is not None and not all(type(number) is int for number in numbers):
        raise UserError(f'task {name!r}: difficulty is a number or a range (low, high), not {difficulty!r}')
    options = dict(language=language, difficulty=difficulty, kind=kind, template=template, families=families)
    options = {key: value for key, value in options.items() if value is not None}
    if not 0 <= shard_index < shard_count or position < 0:
        raise UserError(f'task {name!r}: no shard {shard_index} of {shard_count} at position {position}')
    provider = _provider(name, options)
    if split not in provider.splits:
        raise UserError(f'task {name!r}: no split {split!r}{nearest(split, provider.splits)}')
    return ExampleIterator(provider, split, seed, shard_index, shard_count, position)


def check_answers(name: str, split: str) -> None:
    """Raises ExampleError, which names the example, for a gold answer that cannot be graded.

    Every row of a file is looked at; of other tasks, which have no end or are made by rule, the first.
    """
    rows = getattr(_provider(name), 'rows', None)
    if isinstance(rows, sources.JsonLines):
        for index in range(rows.size(split)):
            check_example(_example(rows.row(split, index), name))
    else:
        check_example(next(open_task(name, split)))


_OPEN: 'weakref.WeakSet[ExampleIterator]' = weakref.WeakSet()
# What a source said while TensorFlow was reading it, until `ExampleIterator` says it again.
_REFUSED: list[UserError] = []


@atexit.register
def _close_all() -> None:
    """TensorFlow complains on the terminal about generators that outlive the interpreter."""
    for examples in _OPEN:
        examples._rows = iter(())


class ExampleIterator(Iterator[Example]):
    """Examples of one host, made by `open_task`.

    Attributes:
        position: examples consumed so far, those before a resume included: what a checkpoint should hold.
    """

    def __init__(
        self, provider: Any, split: str, seed: int, shard_index: int, shard_count: int, position: int
    ):
        self._provider, self._split, self._seed = provider, split, seed
        self._shard_index, self._shard_count = shard_index, shard_count
        self.seek(position)

    def seek(self, position: int) -> None:
        """Goes to `position`, forward or back."""
        seqio, train = _seqio(), self._split == 'train'
        read = functools.partial(
            self._provider.get_dataset, sequence_length=None, split=self._split, shuffle=train,
            seed=self._seed, num_epochs=None if train else 1)
        if isinstance(self._provider, _provider_classes()):
            dataset = read(shard_info=seqio.ShardInfo(self._shard_index, self._shard_count), start=position)
        else:  # a sharded seqio mixture has another order for each number of shards: shard what it gives
            first = self._shard_index + position * self._shard_count
            dataset = read().skip(first).shard(self._shard_count, 0)
        self._rows = dataset.as_numpy_iterator()
        self.position = position
        _OPEN.add(self)

    def __next__(self) -> Example:
        try:
            row = next(self._rows)
        except StopIteration:
            raise
        except Exception:
            if _REFUSED:  # TensorFlow wraps it into an error and a traceback of its own
                raise _REFUSED.pop() from None
            raise
        example = _example(row, self._provider.name)
        self.position += 1
        return example


def _example(row: Mapping[str, Any], name: str) -> Example:
    values = {key: row[key].decode() if isinstance(row[key], bytes) else row[key]
              for key in sources.FEATURES if key in row}
    missing = [key for key in ('prompt', 'answer') if not isinstance(values.get(key), str)]
    if missing:
        raise UserError(f"task {name!r}: emits no string feature '{missing[0]}' (it has {', '.join(row)})")
    values['tests'] = tests_from_text(values.get('tests', ''))
    options = values.pop('options', '')
    difficulty = int(values.pop('difficulty', 0))
    return Example(**values, difficulty=difficulty, options=tuple(options.split('\n')) if options else ())


# --- names and options --------------------------------------------------------------------------------------


def _provider(name: str, more: Mapping[str, Any] | None = None) -> Any:
    """Returns the seqio task or mixture for a name with options, registering it if it is new."""
    seqio = _seqio()
    base, _, text = name.partition(':')
    options = _parse(name, text) | dict(more or {})
    full_name = f'{base}:{_spell(options)}' if options else base
    if base == 'jsonl' and full_name in seqio.TaskRegistry.names():
        seqio.TaskRegistry.remove(full_name)  # the file may be another by now
    for registry in (seqio.MixtureRegistry, seqio.TaskRegistry):
        if full_name in registry.names():
            return registry.get(full_name)
    if base not in ('jsonl', *_SOURCES, *MIXTURES):
        known = [*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names(), *_SOURCES, *MIXTURES, 'jsonl']
        if base in known:
            raise UserError(f'task {name!r}: {base} was not registered by r1jax and takes no options')
        raise UserError(f'task {name!r}: no such task{nearest(base, {k for k in known if ":" not in k})}')
    task_class, mixture_class = _provider_classes()
    # seqio allows fewer characters in a task's own name than in its registry.
    own_name = re.sub(r'[^\w.:#]', '.', full_name)
    if base in MIXTURES:
        option, prefix, _ = _PARTS[base]
        rates = _rates(name, base, options.pop(option, None))
        for key in options:
            if key not in sources.OPTIONS:
                raise UserError(f'task {name!r}: no option {key!r}{nearest(key, (*sources.OPTIONS, option))}')
        tasks = [(_provider(prefix + part, _options_of(part, options, base)), rate) for part, rate in rates.items()]
        provider = mixture_class(own_name, tasks)
        seqio.MixtureRegistry.add_provider(full_name, provider)
    else:
        provider = task_class(own_name, _source(name, base, options))
        seqio.TaskRegistry.add_provider(full_name, provider)
    return provider


def _options_of(part: str, options: Mapping[str, Any], mixture: str) -> Mapping[str, Any]:
    """The options of a mixture as one of its tasks takes them: the generators of reasoning-gym have levels of their own."""
    if mixture != 'gym' or 'difficulty' not in options:
        return options
    difficulty = gym.within(part, options['difficulty'])
    rest = {key: value for key, value in options.items() if key != 'difficulty'}
    return rest if difficulty is None else rest | {'difficulty': difficulty}


def _source(name: str, base: str, options: Mapping[str, Any]) -> sources.Source:
    if isinstance(_SOURCES.get(base), gym.Gym):  # which has options of its own, the settings of its generator
        return _SOURCES[base].select(**options)
    allowed = (*sources.OPTIONS, *_JSONL_OPTIONS) if base == 'jsonl' else sources.OPTIONS
    for key in options:
        if key not in allowed:
            raise UserError(f'task {name!r}: no option {key!r}{nearest(key, allowed)}')
    if base != 'jsonl':
        return _SOURCES[base].select(**options) if options else _SOURCES[base]
    options = dict(options)
    files = {split: options.pop(split) for split in sources.SPLITS if split in options}
    path = options.pop('path', None)
    if (path is None) == (not files):
        raise UserError(f'task {name!r}: give path=FILE for all splits, or train=FILE and test=FILE')
    fields = {key: options.pop(key) for key in ('question', 'answer') if key in options}
    source = _jsonl(path or files, options.pop('task', 'math'), options.pop('template', 'r1_zero'),
                    options.get('language', ''), fields)
    return source.select(**options) if options else source


def _jsonl(
    path: str | Mapping[str, str], task: str, template: str, default_language: str, fields: Mapping[str, str]
) -> sources.JsonLines:
    paths = path if isinstance(path, Mapping) else dict.fromkeys(sources.SPLITS, path)
    source = sources.JsonLines(
        tuple((split, str(file)) for split, file in paths.items()), tuple(fields.items()), task, template,
        default_language)
    return source.select()


def _parse(name: str, text: str) -> dict[str, Any]:
    """Reads 'difficulty=3-5,language=zh'; a comma inside a value is kept where no KEY= follows."""
    options: dict[str, Any] = {}
    for part in filter(None, re.split(r',(?=\s*\w+\s*=)', text)):
        key, equals, value = (piece.strip() for piece in part.partition('='))
        if not equals or not value or key in options:
            raise UserError(f'task {name!r}: options are written KEY=VALUE, each once, with commas between')
        if key == 'difficulty':
            match = re.fullmatch(r'(\d+)(?:-(\d+))?', value)
            if not match:
                raise UserError(f'task {name!r}: difficulty is a number or a range like 3-5, not {value!r}')
            low, high = match.groups()
            options[key] = int(low) if high is None else (int(low), int(high))
        elif key in ('families', 'generators'):
            options[key] = dict(_rate_of(name, part) for part in value.split('+'))
        elif name.startswith('gym_') and key not in sources.OPTIONS:
            options[key] = _setting(value)
        else:
            options[key] = value
    return options


def _setting(text: str) -> Any:
    """Returns the JSON value that a text is (7, 0.5, true, [1, 2]), or else the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _rate_of(name: str, text: str) -> tuple[str, float | None]:
    family, star, rate = text.partition('*')
    try:
        return family, float(rate) if star else None
    except ValueError:
        raise UserError(f'task {name!r}: {rate!r} is not a rate (write arithmetic*0.7+logic*0.3)') from None


def _rates(name: str, mixture: str, families: Mapping[str, float | None] | None) -> dict[str, float]:
    """Returns family -> rate; a family named without a rate keeps its rate in the mixture."""
    own, (option, _, known) = MIXTURES[mixture], _PARTS[mixture]
    rates = {}
    for family, rate in (families or own).items():
        if family not in known or (rate is None and family not in own):
            raise UserError(f'task {name!r}: none of the {option} of {mixture} is {family!r}{nearest(family, own)}')
        rates[family] = own[family] if rate is None else rate
    if min(rates.values()) < 0 or not 0 < sum(rates.values()) < math.inf:
        raise UserError(f'task {name!r}: rates must be positive and finite')
    return {family: rate for family, rate in rates.items() if rate > 0}


def _spell(options: Mapping[str, Any]) -> str:
    """The options in their one canonical spelling, the inverse of `_parse`."""
    parts = []
    for key, value in sorted(options.items()):
        if key in ('families', 'generators'):
            value = '+'.join(f if rate is None else f'{f}*{rate:g}' for f, rate in sorted(value.items()))
        elif isinstance(value, tuple):
            value = '-'.join(map(str, value))
        elif not isinstance(value, str):
            value = json.dumps(value)
        parts.append(f'{key}={value}')
    return ','.join(parts)


# --- the door to seqio and TensorFlow -----------------------------------------------------------------------

_CHUNK = 32  # rows that cross into TensorFlow together: one at a time costs ten times as much


@functools.cache
def _seqio() -> Any:
    """Imports seqio, keeping TensorFlow quiet and off the accelerators, which belong to JAX."""
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
    try:
        with _without_start_messages():
            import tensorflow as tf

            with contextlib.suppress(RuntimeError):  # in use before: what TensorFlow holds by now, it keeps
                for kind in ('GPU', 'TPU'):
                    tf.config.set_visible_devices([], kind)
            import seqio
    except ImportError as error:
        raise UserError(f'tasks need seqio and TensorFlow, which are not installed here ({error})') from error
    return seqio


@contextlib.contextmanager
def _without_start_messages() -> Iterator[None]:
    """Drops what TensorFlow's C++ code logs while it loads, which no setting silences; passes all else on."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as caught:
        stderr = os.dup(2)
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            caught.seek(0)
            # The error: it looks for a GPU where CUDA is installed and no GPU is.
            noise = re.compile(rb'I\d{4} |E\d{4} .*failed call to cuInit|WARNING: All log messages before absl::Init')
            os.write(2, b''.join(line for line in caught if not noise.match(line)))


@functools.cache
def _provider_classes() -> tuple[type, type]:
    """Returns the task and the mixture class; they can only be defined once seqio is there to derive from."""
    seqio = _seqio()
    import tensorflow as tf

    types = {name: tf.int32 if name == 'difficulty' else tf.string for name in sources.FEATURES}
    features = {name: seqio.Feature(seqio.PassThroughVocabulary(size=0), add_eos=False, dtype=dtype, rank=0)
                for name, dtype in types.items()}
    signature = {name: tf.TensorSpec((None,), dtype) for name, dtype in types.items()}

    def read(rows, rates, split, shuffle, seed, shard_info, num_epochs, start):
        if seed is None:
            seed = secrets.randbits(32) if shuffle else 0
        order = sources.Order(tuple(r.size(split) for r in rows), tuple(rates), int(seed), shuffle)
        index, count = (shard_info.index, shard_info.num_shards) if shard_info else (0, 1)
        first = index + start * count

        def generate():
            positions = itertools.count(first, count)
            if num_epochs is not None:
                positions = iter(range(first, order.length(num_epochs), count))
            while places := [order.at(position) for position in itertools.islice(positions, _CHUNK)]:
                try:
                    chunk = [rows[which].row(split, row) for which, row in places]
                except UserError as error:
                    _REFUSED.append(error)
                    raise
                yield {name: [row[name] for row in chunk] for name in types}

        return tf.data.Dataset.from_generator(generate, output_signature=signature).unbatch()

    class IndexedTask(seqio.Task):
        """A task over a `sources.Source`; example i of a split is a function of (seed, i)."""

        def __init__(self, name, rows):
            self.rows = rows

            def dataset_fn(split, shuffle_files, seed=None):
                return read([rows], [1], split, shuffle_files, seed, None, 1, 0)

            super().__init__(name, seqio.FunctionDataSource(dataset_fn, rows.splits), features)

        def num_input_examples(self, split):
            return self.rows.size(split)

        def get_dataset(
            self, sequence_length=None, split='train', *, shuffle=True, seed=None, shard_info=None,
            num_epochs=1, start=0, **unused,
        ):
            """As in seqio, and `start`: how many examples of this shard to leave out. Caching, trimming and
            shuffle buffers have no meaning here and are ignored."""
            return read([self.rows], [1], split, shuffle, seed, shard_info, num_epochs, start)

    class IndexedMixture(seqio.Mixture):
        """A mixture of such tasks, in an order that does not depend on the number of shards."""

        def get_dataset(
            self, sequence_length=None, split='train', *, shuffle=True, seed=None, shard_info=None,
            num_epochs=None, start=0, **unused,
        ):
            """As `IndexedTask.get_dataset`; an epoch ends with the first task that does."""
            rows, rates = [task.rows for task in self.tasks], [self.get_rate(task) for task in self.tasks]
            return read(rows, rates, split, shuffle, seed, shard_info, num_epochs, start)

    return IndexedTask, IndexedMixture
