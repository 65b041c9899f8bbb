"""Measures a model on held-out problems: pass@1 with an interval, majority vote, format, length, reflection, language.

The paper's protocol (DeepSeek-R1, arXiv 2501.12948, section 3): k samples a question at T = 0.6 and top-p 0.95,
pass@1 is the mean correctness of all samples, cons@k the majority vote.
"""

import collections
import dataclasses
import itertools
import json
import math
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from r1jax.data import tasks
from r1jax.data.tinyworld import count_reflection_words, preferences
from r1jax.data.tokenizers import Tokenizer
from r1jax.errors import UserError, at_least
from r1jax.learning.step import reshard
from r1jax.models.config import ModelConfig
from r1jax.parallel.distributed import is_leader
from r1jax.parallel.mesh import MeshConfig, make_mesh
from r1jax.parallel.rules import DECODING, Sharding
from r1jax.rewards.accuracy import UNGRADED, are_correct, canonical, final_answer
from r1jax.rewards.base import Example
from r1jax.rewards.format import has_format
from r1jax.rewards.language import language_metric
from r1jax.rewards.lenient import last_answer
from r1jax.runtime.checkpoint import Model, load_model
from r1jax.runtime.progress import Progress
from r1jax.runtime.rollouts import write_rollouts
from r1jax.sampling.engine import Engine, Request
from r1jax.sampling.logits import SamplingConfig
from r1jax.stages.base import Inputs
from r1jax.stages.parts import portion
from r1jax.stages.rollout import Rollout, check_lengths, prefilled, row, sample

# Two-sided 95% quantile of the normal distribution.
Z95 = 1.959964


@dataclasses.dataclass(frozen=True)
class Suite:
    """One measurement.

    Attributes:
        task: task or mixture, options included ('tiny_arithmetic:difficulty=7').
        problems: how many problems of the test split, from its beginning.
        samples: k, completions a problem.
        sampling: temperature, filters and limits.
        split: which split.
    """

    task: str
    problems: int = 512
    samples: int = 16
    sampling: SamplingConfig = SamplingConfig(temperature=0.6, top_p=0.95)
    split: str = 'test'

    def __post_init__(self):
        at_least(1, self, 'problems', 'samples')

    def examples(self) -> list[Example]:
        """Returns the problems. Raises UserError for an unknown task or split, or one with fewer problems than wanted."""
        found = list(itertools.islice(tasks.open_task(self.task, self.split), self.problems))
        if len(found) < self.problems:
            raise UserError(f"task '{self.task}': problems={self.problems}, but '{self.split}' has only {len(found)}")
        return found

    def check(self, sharding: Sharding, models: Iterable[ModelConfig]) -> None:
        """Raises UserError for what can be known to fail before any of the models is there."""
        for model in models:
            check_lengths(model, self.sampling, sharding)
        self.examples()
        tasks.check_answers(self.task, self.split)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The measurements of an experiment. Figures of the suite 'main' (and of 'main@1', which may have another temperature)
    are named by family and language; those of any other suite begin with its name."""

    suites: dict[str, Suite]

    def __post_init__(self):
        figures = set()
        for name, suite in self.suites.items():
            if not re.fullmatch(r'[A-Za-z0-9][A-Za-z0-9_.@-]*', name):
                raise UserError(f"'{name}' cannot name a suite: use letters, digits, _ . @ -")
            named = (_prefix(name), f'{suite.sampling.temperature:g}')
            if named in figures:
                raise UserError(f"suite '{name}' would write its figures over those of another: give it another name")
            figures.add(named)


def _prefix(name: str) -> str:
    """What the figures of a suite begin with."""
    return '' if name.split('@')[0] == 'main' else f'{name}/'


def measure(
    model: Model, suite: Suite, sharding: Sharding, seed: int, title: str, samples_file: pathlib.Path | None = None
) -> list[dict]:
    """Samples and grades a suite.

    Args:
        model: parameters in whatever layout.
        sharding: of decoding.
        samples_file: where to write the first two samples of each problem as Parquet; None keeps none.

    Returns:
        One dictionary a problem, see `_grade`.

    Raises:
        UserError: for an unknown task, or one with fewer problems than asked for.
    """
    examples = suite.examples()
    engine = decoding_engine(model, suite.sampling, sharding, seed)
    graded, kept = [], []
    size = portion(suite.sampling.slots, suite.samples)  # in portions, so that there is progress to show
    with Progress(len(examples), title, enabled=is_leader()) as progress:
        for first in range(0, len(examples), size):
            some = examples[first:first + size]
            rollouts = sample(engine, model.tokenizer, some, range(first, first + len(some)), suite.samples, step=0)
            for start in range(0, len(rollouts), suite.samples):
                group = rollouts[start:start + suite.samples]
                graded.append(_grade(group))
                kept += [_row(r, correct) for r, correct in zip(group[:2], graded[-1]['correct'], strict=False)]
            progress.update(len(graded), **_so_far(graded))
    if samples_file is not None and is_leader():
        write_rollouts(samples_file, kept)
    return graded


def decoding_engine(model: Model, sampling: SamplingConfig, sharding: Sharding, seed: int) -> Engine:
    """A sampler with the parameters as training's has them: in the dtype that the model computes in."""
    params = reshard(model.params, cfg=model.cfg, sharding=sharding, dtype=model.cfg.dtype)
    return Engine(params, model.cfg, sampling, eos=model.tokenizer.eos_id, sharding=sharding, seed=seed)


def load_sampler(inputs: Inputs, sampling: SamplingConfig) -> tuple[Engine, Tokenizer]:
    """A sampler of a stage's model, and its tokenizer. What was read as float32 is not kept beside."""
    model = load_model(inputs.model, inputs.decoding, inputs.execution)
    return decoding_engine(model, sampling, inputs.decoding, inputs.seed), model.tokenizer


def _so_far(graded: Sequence[dict]) -> dict[str, float]:
    """What progress shows: means over the problems that a measure says something of."""
    told = {
        shown: [np.mean(g[name]) for g in graded if not np.isnan(g[name][0])]
        for shown, name in (('pass_rate', 'correct'), ('helpfulness',) * 2, ('harmlessness',) * 2)}
    return {shown: float(np.mean(values)) for shown, values in told.items() if values}


def _row(rollout: Rollout, correct: float) -> dict:
    told = not np.isnan(correct)
    return row(
        rollout, 0, reward=correct if told else None, components={'accuracy': correct} if told else {}, advantage=None)


def _grade(group: Sequence[Rollout]) -> dict:
    """All that is measured on one problem: lists over its samples, and what they agree on."""
    example = group[0].example
    strict = [final_answer(r.text, example, prefilled(example)) for r in group]
    lenient = [last_answer(r.text, example) for r in group]
    ungraded = example.task in UNGRADED
    correct, last_correct = ([float(right) for right in are_correct(x, [example] * len(x))] for x in (strict, lenient))
    return {
        'example': example,
        # NaN where no rule can tell.
        'correct': [float('nan')] * len(group) if ungraded else correct,
        'cons': _majority(strict, correct, example),
        'last_answer': last_correct,
        'last_answer_cons': _majority(lenient, last_correct, example),
        'format': [float(has_format(r.text, r.finished, prefilled(example), ungraded)) for r in group],
        'length': [len(r.tokens) for r in group],
        'reflection': [count_reflection_words(r.text) for r in group],
        'language': [language_metric(r.text, example.language) for r in group],
        'truncated': [float(not r.finished) for r in group],
        # NaN for what is no request of the tiny world, which alone knows what is preferred.
        'helpfulness': [_told(preferences.helpfulness, example, preferences.reply_of(r.text)) for r in group],
        'harmlessness': [_told(preferences.harmlessness, example, r.text) for r in group],
    }


def _told(truth: Callable[[str, str, str], float | None], example: Example, text: str) -> float:
    value = truth(example.question, text, example.language)
    return float('nan') if value is None else value


def _majority(answers: Sequence[str | None], correct: Sequence[float], example: Example) -> float:
    """Whether the most frequent answer is right; equal answers pool their votes, and no answer has no vote."""
    forms = [canonical(a, example.task, example.options) if a else None for a in answers]
    votes = collections.Counter(form for form in forms if form is not None)
    if not votes:
        return 0.0
    # A tie goes to the answer given first: no peeking at which one is right.
    return correct[forms.index(votes.most_common(1)[0][0])]


def groups_of(example: Example) -> list[str]:
    """The rows of the table that a problem counts in: all, its language, its family, its kind, and both together."""
    names = ['all', example.task]
    if example.language:
        names += [f'all/{example.language}', f'{example.task}/{example.language}']
    if example.kind and example.kind != example.task:
        names.append(f'{example.task}:{example.kind}')
    return names


def summarise(graded: Sequence[dict], suite: Suite, prefix: str = '') -> dict[str, dict[str, float]]:
    """Returns {METRIC/T=t/GROUP: {mean, low, high, n}} with 95% intervals over problems."""
    by_group = collections.defaultdict(list)
    for problem in graded:
        for name in groups_of(problem['example']):
            by_group[prefix + name].append(problem)
    k, t = suite.samples, f'T={suite.sampling.temperature:g}'
    metrics = {}
    for group, problems in by_group.items():
        shares = {
            'format': [np.mean(p['format']) for p in problems],
            'truncated': [np.mean(p['truncated']) for p in problems],
        }
        # NaN where the measure says nothing: of all samples of a problem (an unknown language), or of some (no words).
        for name, values in (('language_consistency', 'language'), ('helpfulness',) * 2, ('harmlessness',) * 2):
            told = [np.nanmean(p[values]) for p in problems if not np.isnan(p[values]).all()]
            if told:
                shares[name] = told
        rated = [p for p in problems if p['example'].task not in UNGRADED]
        if rated:
            shares['pass@1'] = [np.mean(p['correct']) for p in rated]
            shares['last_answer'] = [np.mean(p['last_answer']) for p in rated]
        if rated and k > 1:
            shares[f'cons@{k}'] = [p['cons'] for p in rated]
            shares[f'pass@{k}'] = [max(p['correct']) for p in rated]
            shares[f'last_answer_cons@{k}'] = [p['last_answer_cons'] for p in rated]
            shares[f'last_answer_pass@{k}'] = [max(p['last_answer']) for p in rated]
        metrics |= {f'{name}/{t}/{group}': share_interval(values) for name, values in shares.items()}
        metrics[f'length/{t}/{group}'] = mean_interval([np.mean(p['length']) for p in problems])
        metrics[f'reflection_per_1k/{t}/{group}'] = ratio_interval(
            [1000 * np.sum(p['reflection']) for p in problems], [np.sum(p['length']) for p in problems])
    return metrics


def mean_interval(values: Sequence[float]) -> dict[str, float]:
    """Mean over problems with a normal 95% interval; the problems, not the samples, are what is drawn at random."""
    values = np.asarray(values, np.float64)
    half = Z95 * values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return {'mean': float(values.mean()), 'low': float(values.mean() - half), 'high': float(values.mean() + half),
            'n': len(values)}


def share_interval(values: Sequence[float]) -> dict[str, float]:
    """Mean of shares in [0, 1] with a 95% interval that stays inside and does not vanish at 0 and 1.

    Wilson's interval (1927) with the effective number of draws p (1 - p) / SE^2, where SE is that of the mean over
    problems: for one sample a problem that is Wilson's own, for many it narrows as far as the problems agree.
    """
    values = np.asarray(values, np.float64)
    n, p = len(values), float(values.mean())
    variance = values.var(ddof=1) / n if n > 1 else 0.0
    effective = p * (1 - p) / variance if variance > 0 else n
    centre = (p + Z95**2 / (2 * effective)) / (1 + Z95**2 / effective)
    half = Z95 / (1 + Z95**2 / effective) * math.sqrt(p * (1 - p) / effective + Z95**2 / (4 * effective**2))
    # The ends are rounded outwards to p itself at 0 and 1, where floats could leave it outside.
    return {'mean': p, 'low': min(p, max(0.0, centre - half)), 'high': max(p, min(1.0, centre + half)), 'n': n}


def ratio_interval(above: Sequence[float], below: Sequence[float]) -> dict[str, float]:
    """sum(above) / sum(below) over problems with a 95% interval by the delta method."""
    above, below = np.asarray(above, np.float64), np.asarray(below, np.float64)
    ratio = above.sum() / below.sum()
    residual = (above - ratio * below) / below.mean()
    half = Z95 * residual.std(ddof=1) / math.sqrt(len(above)) if len(above) > 1 else 0.0
    return {'mean': float(ratio), 'low': float(max(0.0, ratio - half)), 'high': float(ratio + half), 'n': len(above)}


def evaluate(
    model: Model, evaluation: Evaluation, sharding: Sharding, seed: int, title: str, folder: pathlib.Path | None = None
) -> dict[str, dict[str, float]]:
    """Runs all suites; samples go to `folder`/TITLE.SUITE.parquet. Returns the metrics of all of them."""
    metrics = {}
    for name, suite in evaluation.suites.items():
        file = folder / f'{title}.{name}.parquet' if folder else None
        graded = measure(model, suite, sharding, seed, f'{title} {name}', file)
        metrics |= summarise(graded, suite, _prefix(name))
    return metrics


def _open(checkpoint: str) -> tuple[Model, Sharding]:
    sharding = Sharding(make_mesh(MeshConfig()), DECODING)
    return load_model(checkpoint, sharding), sharding


def _usual_length(model: Model) -> int:
    """The longest completion where none is given: leaves half of a small model's positions to the prompt."""
    return min(512, model.cfg.max_positions // 2)


def evaluate_checkpoint(
    checkpoint: str, task: str, samples: int, temperature: float, top_p: float, problems: int, max_tokens: int | None,
    seed: int, out: pathlib.Path | None,
) -> dict[str, Mapping[str, float]]:
    """`python -m r1jax eval`: measures a model folder on the test split of a task; writes JSON to `out` if given."""
    if out is not None:
        if out.is_dir():
            raise UserError(f'--out={out} is a folder: name a file')
        out.parent.mkdir(parents=True, exist_ok=True)
    tasks.check_answers(task, 'test')
    model, sharding = _open(checkpoint)
    slots = 64 + -64 % sharding.ways('batch')
    max_tokens = max_tokens or _usual_length(model)
    suite = Suite(task, problems, samples, SamplingConfig(slots, max_tokens, temperature, top_p=top_p))
    metrics = summarise(measure(model, suite, sharding, seed, 'eval'), suite)
    result = {'checkpoint': checkpoint, 'task': task, 'seed': seed, 'metrics': metrics}
    if out is not None:
        out.write_text(json.dumps(result, indent=2) + '\n')
    return result


@dataclasses.dataclass(frozen=True)
class Sampled:
    """One completion as `r1jax sample` prints it."""

    text: str
    n_tokens: int
    finished: bool


def sample_checkpoint(
    checkpoint: str, prompts: list[str], n: int, temperature: float, top_p: float, top_k: int, min_p: float,
    max_tokens: int | None, seed: int,
) -> Iterator[Sampled]:
    """`python -m r1jax sample`: yields n completions of each prompt as they finish."""
    model, sharding = _open(checkpoint)
    tokenizer = model.tokenizer
    slots = min(64, n * len(prompts))
    max_tokens = max_tokens or _usual_length(model)
    sampling = SamplingConfig(slots + -slots % sharding.ways('batch'), max_tokens, temperature, top_k, top_p, min_p)
    engine = decoding_engine(model, sampling, sharding, seed)
    bos = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    requests = [Request(tuple(bos + tokenizer.encode(prompt)), i, n) for i, prompt in enumerate(prompts)]
    for completion in engine.generate(requests):
        text = tokenizer.decode(completion.tokens, continues=True)
        yield Sampled(text, len(completion.tokens), completion.finished)
