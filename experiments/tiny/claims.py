"""What the paper claims of R1, measured in miniature: each claim a row with three seeds, an interval, and its control.

    bash launch/claims.sh

runs `r1.py` with three seeds, and two arms of `r1_zero.py` beside it: random rewards, and a language reward. Each is a run
like any other, in a folder of its own, and what is done is skipped; so the same command goes on with what was interrupted.
Then it prints the table and writes it to claims.md and claims.json. `--table` makes it from what is there.

A seed has one value in each row, usually a difference between two models of its own run. The interval is Student's, over
seeds: it holds what another seed would bring, and problems that were drawn alike for all of them. All seeds start from the
one base that ships with the package.
"""

import argparse
import collections
import dataclasses
import datetime
import json
import pathlib
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from scipy import stats

from experiments.tiny.r1 import ZERO_STEPS
from experiments.tiny.suites import STAGE_PROBLEMS
from r1jax.errors import UserError
from r1jax.runtime.files import write_json, write_text
from r1jax.runtime.rollouts import read_rollouts

ARMS = {
    'r1': 'experiments/tiny/r1.py:seed={}',
    # As long, and measured on the same problems, as R1-Zero in r1.py.
    'random': f'experiments/tiny/r1_zero.py:arm=random_reward,steps={ZERO_STEPS},problems={STAGE_PROBLEMS},seed={{}}',
    'language': f'experiments/tiny/r1_zero.py:arm=language,steps={ZERO_STEPS},problems={STAGE_PROBLEMS},seed={{}}',
}
ROOT = pathlib.Path(__file__).resolve().parents[2]
# What "small" and "as good as" allow in accuracy.
MARGIN = 0.03


class Run:
    """What one run has left: figures of its models, the metrics of its steps, its rollouts."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        try:
            self.stages = json.loads((folder / 'summary.json').read_text())['stages']
        except OSError as error:
            raise UserError(f'{folder} has no summary.json: the run is not finished') from error

    def figure(self, stage: str, metric: str) -> float:
        """The mean of a metric of a stage's model, as in summary.json. Raises UserError if it was not measured."""
        try:
            return self.stages[stage][metric]['mean']
        except KeyError as error:
            raise UserError(f"{self.folder}: '{stage}' has no figure '{metric}'") from error

    def steps(self, stage: str, metric: str) -> np.ndarray:
        """A metric of every step of a stage, in order."""
        lines = (self.folder / 'stages' / stage / 'metrics.jsonl').read_text().splitlines()
        return np.array([json.loads(line)[metric] for line in lines])


@dataclasses.dataclass(frozen=True)
class Row:
    """One measure of a claim.

    Attributes:
        claim: its number.
        says: what is claimed.
        measure: what the values are.
        value: of one seed, from its runs by arm.
        bar: the claim is that the value lies above it.
        control: the same measure where the cause is missing; the value must lie above that as well. None: `value` is
            already a difference to the control.
        against: what the control is.
        decides: whether the verdict depends on the control; else it only stands beside.
    """

    claim: str
    says: str
    measure: str
    value: Callable[[dict[str, Run]], float]
    bar: float = 0.0
    control: Callable[[dict[str, Run]], float] | None = None
    against: str = ''
    decides: bool = True


def gain(after: str, before: str, metric: str, arm: str = 'r1') -> Callable[[dict[str, Run]], float]:
    """The difference between two models of one run."""
    return lambda runs: runs[arm].figure(after, metric) - runs[arm].figure(before, metric)


def between(arm: str, other: str, metric: str) -> Callable[[dict[str, Run]], float]:
    """The difference between the R1-Zeros of two arms."""
    return lambda runs: runs[arm].figure('r1_zero', metric) - runs[other].figure('r1_zero', metric)


def lengthening(arm: str) -> Callable[[dict[str, Run]], float]:
    """By how many tokens the completions of the last five steps are longer than those of the first five."""

    def value(runs: dict[str, Run]) -> float:
        length = runs[arm].steps('r1_zero', 'length/mean')
        return float(length[-5:].mean() - length[:5].mean())

    return value


def reflecting_pays(arm: str) -> Callable[[dict[str, Run]], float]:
    """Share of right answers among completions that reflect, less that among the others, of the same problem and step.

    Over the second half of the training, where both kinds were sampled of a problem; every such problem counts alike.
    """

    def value(runs: dict[str, Run]) -> float:
        table = read_rollouts(
            runs[arm].folder / 'stages' / 'r1_zero' / 'rollouts',
            columns=['step', 'prompt_id', 'reflection_words', 'rewards'])
        groups = collections.defaultdict(lambda: ([], []))
        last = max(table['step'].to_pylist())
        for row in table.to_pylist():
            if row['step'] > last // 2:
                groups[row['step'], row['prompt_id']][row['reflection_words'] > 0].append(dict(row['rewards'])['accuracy'])
        both = [np.mean(does) - np.mean(does_not) for does_not, does in groups.values() if does and does_not]
        return float(np.mean(both)) if both else float('nan')

    return value


PASS, PASS_HOT = 'pass@1/T=0.6/all', 'pass@1/T=1/all'
LANGUAGE, LANGUAGE_ZH = 'language_consistency/T=1/all', 'language_consistency/T=1/all/zh'
HELPFUL, HARMLESS = 'helpfulness/T=0.6/helpful/all', 'harmlessness/T=0.6/harmful/all'
RANDOM = 'random rewards'

ROWS = (
    Row('1', 'pure RL on the base raises accuracy', 'pass@1, Zero - base, T = 0.6',
        gain('r1_zero', 'base', PASS), control=gain('r1_zero', 'base', PASS, 'random'), against=RANDOM),
    Row('1', 'the same at T = 1', 'pass@1, Zero - base, T = 1',
        gain('r1_zero', 'base', PASS_HOT), control=gain('r1_zero', 'base', PASS_HOT, 'random'), against=RANDOM),
    Row('2', 'thinking grows longer with training', 'tokens, last five steps - first five',
        lengthening('r1'), control=lengthening('random'), against=RANDOM),
    Row('3', 'reflection words become more frequent', 'words per 1,000 tokens, Zero - base, T = 1',
        gain('r1_zero', 'base', 'reflection_per_1k/T=1/all'),
        control=gain('r1_zero', 'base', 'reflection_per_1k/T=1/all', 'random'), against=RANDOM),
    # Compared with the same problems' other answers already. The control tells whether RL brings this about.
    Row('3', 'answers that reflect are more often right than others to the same problem',
        'share right, reflecting - not, second half', reflecting_pays('r1'), control=reflecting_pays('random'),
        against=RANDOM, decides=False),
    Row('4', 'the majority is above pass@1', 'cons@16 - pass@1 of Zero, T = 0.6',
        lambda runs: runs['r1'].figure('r1_zero', 'cons@16/T=0.6/all') - runs['r1'].figure('r1_zero', PASS)),
    Row('5', 'R1-Zero mixes languages', "words in another language, Zero's thinking on Chinese problems, T = 1",
        lambda runs: 1 - runs['r1'].figure('r1_zero', LANGUAGE_ZH),
        control=lambda runs: 1 - runs['r1'].figure('base', LANGUAGE_ZH), against='base'),
    Row('5', 'a language reward repairs it', 'language consistency, with the reward - without, T = 1',
        between('language', 'r1', LANGUAGE)),
    Row('5', f'at a cost in accuracy below {MARGIN}', 'pass@1, with the reward - without, T = 0.6',
        between('language', 'r1', PASS), bar=-MARGIN),
    Row('6', 'cold start makes the thinking readable', 'language consistency, Dev1 - Zero, T = 1',
        gain('cold_start', 'r1_zero', LANGUAGE)),
    Row('6', 'reasoning RL improves reasoning', 'pass@1, Dev2 - Dev1, T = 1', gain('reasoning_rl', 'cold_start', PASS_HOT)),
    Row('6', 'SFT on all data makes it helpful', 'true helpfulness, Dev3 - Dev2', gain('sft', 'reasoning_rl', HELPFUL)),
    Row('6', 'all-scenario RL makes it more helpful', 'true helpfulness, R1 - Dev3',
        gain('all_scenario_rl', 'sft', HELPFUL)),
    Row('6', 'and less harmful', 'true harmlessness, R1 - Dev3', gain('all_scenario_rl', 'sft', HARMLESS)),
    Row('6', f'without losing more reasoning than {MARGIN}', 'pass@1, R1 - Dev2, T = 0.6',
        gain('all_scenario_rl', 'reasoning_rl', PASS), bar=-MARGIN),
    Row('7', 'distilling into a small student beats RL on it', 'pass@1, distilled - student by RL, T = 0.6',
        gain('distill', 'student_rl', PASS)),
    Row('8', 'SFT of the base on collected data matches the teacher', 'pass@1, Dev3 - Dev2, T = 0.6',
        gain('sft', 'reasoning_rl', PASS), bar=-MARGIN),
)

Verdict = Literal['holds', 'does not hold', 'not shown']


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean over seeds with the 95% interval of Student's t."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> 'Interval':
        mean, n = float(np.mean(values)), len(values)
        half = stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / n**0.5 if n > 1 else float('inf')
        return cls(mean, float(mean - half), float(mean + half))


@dataclasses.dataclass(frozen=True)
class Measured:
    """A row with what was found: values and controls by seed."""

    row: Row
    values: list[float]
    controls: list[float]

    @property
    def verdict(self) -> Verdict:
        """'holds' where the whole interval lies above the bar, and that of the difference to a deciding control above 0."""
        margins = [Interval.of([value - self.row.bar for value in self.values])]
        if self.controls and self.row.decides:
            margins.append(Interval.of(np.subtract(self.values, self.controls)))
        if all(margin.low > 0 for margin in margins):
            return 'holds'
        return 'does not hold' if any(margin.high < 0 for margin in margins) else 'not shown'


def measure(workdir: pathlib.Path, seeds: Sequence[int]) -> list[Measured]:
    """Reads the runs of all seeds. Raises UserError for one that is not finished."""
    runs = [{arm: Run(workdir / f'{arm}_{seed}') for arm in ARMS} for seed in seeds]
    return [
        Measured(row, [row.value(of_seed) for of_seed in runs],
                 [row.control(of_seed) for of_seed in runs] if row.control else [])
        for row in ROWS]


def markdown(measured: Sequence[Measured], seeds: Sequence[int]) -> str:
    """The table, as README.md has it."""
    lines = [
        f'| claim | measure | seeds {", ".join(map(str, seeds))} | mean [95%] | control | |', '|---|---|---|---|---|---|']
    for found in measured:
        control = f'{found.row.against}: {_shown(Interval.of(found.controls))}' if found.controls else ''
        bar = f' (bar {found.row.bar:g})' if found.row.bar else ''
        lines.append(
            f'| {found.row.claim}. {found.row.says} | {found.row.measure} | {", ".join(map(_number, found.values))} | '
            f'{_shown(Interval.of(found.values))}{bar} | {control} | {found.verdict} |')
    return '\n'.join(lines) + '\n'


def _shown(interval: Interval) -> str:
    return f'{_number(interval.mean)} [{_number(interval.low)}, {_number(interval.high)}]'


def _number(value: float) -> str:
    return f'{value:.1f}' if abs(value) >= 2 else f'{value:.3f}'


def run_all(workdir: pathlib.Path, seeds: Sequence[int], overrides: Sequence[str]) -> None:
    """Runs what is not done yet, one after the other. Raises UserError if one of them fails."""
    for seed in seeds:
        for arm, spec in ARMS.items():
            folder = workdir / f'{arm}_{seed}'
            command = [sys.executable, '-m', 'r1jax', 'run', f'--config={ROOT / spec.format(seed)}', f'--workdir={folder}']
            print(f'claims: {folder.name}', flush=True)
            code = subprocess.run([*command, *overrides], cwd=ROOT).returncode
            if code:
                raise UserError(f'{folder.name} ended with the exit code {code}; the same command goes on from there')


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--workdir', required=True, type=pathlib.Path, help='the folder of the runs')
    parser.add_argument('--seeds', default=3, type=int, metavar='N', help='seeds 0 .. N - 1 (%(default)s)')
    parser.add_argument('--table', action='store_true', help='run nothing: make the table from what is there')
    args, overrides = parser.parse_known_args()
    if args.seeds < 1:
        parser.error(f'--seeds must be at least 1, got {args.seeds}')
    workdir, seeds = args.workdir.resolve(), range(args.seeds)
    try:
        if not args.table:
            run_all(workdir, seeds, overrides)
        measured = measure(workdir, seeds)
    except UserError as error:
        print(f'claims: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('\nclaims: interrupted; the same command goes on', file=sys.stderr)
        return 130
    table = markdown(measured, seeds)
    commit = json.loads((workdir / f'r1_{seeds[0]}' / 'manifest.json').read_text())['commit']
    write_text(workdir / 'claims.md', table + f'\nCommit {commit}, {datetime.date.today().isoformat()}.\n')
    write_json(workdir / 'claims.json', [
        {'claim': m.row.claim, 'says': m.row.says, 'measure': m.row.measure, 'values': m.values, 'controls': m.controls,
         'verdict': m.verdict} | dataclasses.asdict(Interval.of(m.values)) for m in measured])
    print(table)
    return 0


if __name__ == '__main__':
    sys.exit(main())
