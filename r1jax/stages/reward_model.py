"""Reward models: a policy with a scalar head, trained on pairs of responses or on labelled ones.

In the paper (DeepSeek-R1, arXiv 2501.12948, 2025 revision) the helpful model learns from pairs and reads the summary only,
the one for safety from labels and reads everything; both have the policy's architecture, 256 items an update, a learning
rate of 6e-6, one epoch and 8,192 tokens.

Some prompts are held out, chosen by a hash, so that they stay the same whatever the seed and however the data grow. On them
the finished model is measured: does it order pairs rightly, and can its probabilities be believed?
"""

import dataclasses
import hashlib
import math
import pathlib
import time
from collections.abc import Sequence

import jax
import numpy as np

from r1jax.data.tokenizers import Tokenizer
from r1jax.errors import UserError, at_least, nearest
from r1jax.learning.optimizer import OptimizerConfig
from r1jax.learning.preference import LOSSES, POOLINGS, Loss, Pooling, pack_items, reward_gradients, scores_of
from r1jax.learning.step import accumulate, apply_gradients, cut_rows, init_state
from r1jax.models import transformer
from r1jax.models.config import ModelConfig
from r1jax.parallel.distributed import barrier, is_leader
from r1jax.parallel.rules import Sharding
from r1jax.rewards.answers import READS, Reads
from r1jax.rewards.model import Description, tokenize
from r1jax.runtime import datasets
from r1jax.runtime.checkpoint import Checkpoints, Model, load_model, save_model
from r1jax.runtime.files import write_json
from r1jax.runtime.metrics import MetricWriter
from r1jax.runtime.progress import Progress
from r1jax.stages.base import MODEL, Artifact, Inputs, StageKind
from r1jax.stages.evaluate import Z95, share_interval
from r1jax.stages.sft import batch_at

# What the stage writes of its calibration, for the report.
CALIBRATION = 'calibration.json'
BINS = 10


@dataclasses.dataclass(frozen=True)
class RewardModelStage:
    """Settings of the stage.

    Attributes:
        loss: 'pairwise' learns from `datasets.PAIRS`, 'pointwise' from `datasets.LABELS`.
        reads: 'summary', which is what follows the last </think> (all of a response without one), or 'response'.
        pooling: 'last' reads the score at the last token, 'sum' adds up those of all tokens.
        optimizer: learning rate, schedule, clipping.
        epochs: passes over the data.
        batch: items of one update, pairs or labelled responses.
        row_length: T, tokens of a packed row. An item lies in one row, a pair with both its sequences; longer ones are left
            out, and counted.
        micro_rows: rows of one gradient computation.
        holdout: about which share of the prompts is held out, at least one.
        checkpoint_every: updates between two checkpoints.
    """

    loss: Loss
    reads: Reads
    optimizer: OptimizerConfig
    pooling: Pooling = 'last'
    epochs: int = 1
    batch: int = 256
    row_length: int = 512
    micro_rows: int = 4
    holdout: float = 0.1
    checkpoint_every: int = 100

    def __post_init__(self):
        at_least(1, self, 'epochs', 'batch', 'row_length', 'micro_rows', 'checkpoint_every')
        for name, known in (('loss', LOSSES), ('reads', READS), ('pooling', POOLINGS)):
            if getattr(self, name) not in known:
                raise UserError(f"{name}='{getattr(self, name)}' is unknown{nearest(str(getattr(self, name)), known)}")
        if not 0 < self.holdout < 1:
            raise UserError(f'holdout={self.holdout} must lie between 0 and 1: on that share the model is measured')

    def check(self, sharding: Sharding, model: ModelConfig | None) -> ModelConfig:
        """Returns what the model will be: the policy with a scalar head.

        Raises UserError without a policy, or if the mesh does not divide rows or weights.
        """
        if model is None:
            raise UserError('a stage of kind reward_model needs a model to start from: set base, or put a stage before it')
        if model.scalar_head:
            raise UserError('a stage of kind reward_model starts from a policy, and what it is given is a reward model')
        sharding.check_batch('micro_rows', self.micro_rows)
        cfg, _ = self.trains(model)
        transformer.shardings(cfg, sharding)
        return cfg

    def trains(self, model: ModelConfig) -> tuple[ModelConfig, float]:
        """Returns what becomes of a policy, and the coefficient of the MTP loss, which there is none of."""
        return dataclasses.replace(model, scalar_head=True, mtp=0), 0.0


@dataclasses.dataclass(frozen=True)
class Item:
    """One term of the loss: (chosen, rejected) or (response,) as token sequences, with what the figures need.

    `label` is 1 for a safe response, 0 for an unsafe one, and without meaning in a pair.
    """

    sequences: tuple[np.ndarray, ...]
    label: float
    prompt: str
    task: str


def run(stage: RewardModelStage, inputs: Inputs, folder: pathlib.Path) -> Artifact:
    """Trains and measures; goes on from the newest checkpoint in `folder` if there is one."""
    sharding = inputs.training
    policy = load_model(inputs.model, sharding, inputs.execution)
    params, cfg = transformer.with_scalar_head(policy.params, policy.cfg, jax.random.key(inputs.seed))
    items, counts = read_items(stage, inputs.given['data'], policy.tokenizer, cfg.max_positions)
    trained, held_out = split(items, stage.holdout)
    if not trained or stage.loss == 'pointwise' and len({item.label for item in trained}) < 2:
        missing = 'both safe and unsafe ones' if trained else 'more than one prompt, or a smaller holdout,'
        raise UserError(f"{inputs.given['data']}: {missing} are needed to train on")
    steps = -(-stage.epochs * len(trained) // stage.batch)
    optimizer = stage.optimizer.over(steps)
    state = init_state(params, cfg, optimizer, sharding)
    with Checkpoints(folder / 'checkpoints') as checkpoints:
        first = checkpoints.latest() or 0
        if first:
            state, _ = checkpoints.restore(first, state)
        with (
            MetricWriter(folder, last_step=first, enabled=is_leader()) as writer,
            Progress(steps, inputs.name, start=first, enabled=is_leader()) as progress,
        ):
            for step in range(first, steps):
                begun = time.perf_counter()
                batch = [trained[i] for i in batch_at(step, len(trained), stage.batch, stage.epochs, inputs.seed)]
                packed = pack_items([i.sequences for i in batch], stage.row_length, [i.label for i in batch])
                grads, sums = accumulate(
                    reward_gradients, state.params, cut_rows(packed, stage.micro_rows, sharding), cfg=cfg, loss=stage.loss,
                    pooling=stage.pooling, sharding=sharding)
                state, metrics = apply_gradients(state, grads, optimizer=optimizer, cfg=cfg, sharding=sharding)
                loss, accuracy = float(sums['loss_sum']), float(sums['accuracy_sum'])
                tokens_per_s = (packed.segments > 0).sum() / (time.perf_counter() - begun)
                writer.write(
                    step + 1, metrics | {'loss': loss, 'accuracy': accuracy, 'tokens_per_s/training': tokens_per_s})
                progress.update(step + 1, loss=loss, accuracy=accuracy, tokens_per_s=tokens_per_s)
                if (step + 1) % stage.checkpoint_every == 0 or step + 1 == steps:
                    checkpoints.save(step + 1, state, {})

    def scores(some: Sequence[Item]) -> np.ndarray:
        return scores_of(
            state.params, [item.sequences for item in some], row_length=stage.row_length, micro_rows=stage.micro_rows,
            cfg=cfg, pooling=stage.pooling, sharding=sharding).astype(np.float64)

    seen = scores(trained)
    figures, bins = measure(stage.loss, held_out, scores(held_out), inputs.seed)
    save_model(folder / 'model', Model(state.params, cfg, policy.tokenizer))
    if is_leader():
        # Scores that are all the same have no spread to divide by.
        Description(
            stage.loss, stage.reads, float(seen.mean()), float(seen.std()) or 1.0, stage.row_length, stage.micro_rows,
            stage.pooling,
        ).save(folder / 'model')
        write_json(folder / CALIBRATION, bins)
    barrier(f'{inputs.name} described')
    return Artifact(folder / 'model', figures | counts)


def read_items(
    stage: RewardModelStage, path: str, tokenizer: Tokenizer, max_positions: int
) -> tuple[list[Item], dict[str, dict[str, float]]]:
    """Reads pairs or labels as tokens, and counts what is left out.

    That is what does not fit into a row or the model's positions ('too_long'), and pairs of which the model would read the
    same ('alike'): chains of thought that end in one summary, say.

    Returns:
        The items, and {'examples', 'too_long', 'alike' of pairs} as figures of the stage.

    Raises:
        UserError: if nothing is left.
    """
    if stage.loss == 'pairwise':
        rows, names = datasets.read(path, datasets.PAIRS), ('chosen', 'rejected')
    else:
        rows, names = datasets.read(path, datasets.LABELS), ('response',)
    items = []
    left_out = dict.fromkeys(('too_long', 'alike') if stage.loss == 'pairwise' else ('too_long',), 0)
    for row in rows:
        sequences = tuple(tokenize(row['prompt'], row[name], stage.reads, tokenizer).tokens for name in names)
        lengths = [len(sequence) for sequence in sequences]
        if sum(lengths) > stage.row_length or max(lengths) > max_positions:
            left_out['too_long'] += 1
        elif len(sequences) == 2 and np.array_equal(*sequences):
            left_out['alike'] += 1
        else:
            items.append(Item(sequences, float(row.get('safe', 1)), row['prompt'], row['task']))
    if not items:
        why = ', '.join(f'{n} {name.replace("_", " ")}' for name, n in left_out.items())
        raise UserError(
            f'{path}: none of its {len(rows)} examples can be used ({why}) with row_length={stage.row_length} and '
            f"reads='{stage.reads}'")
    counts = {'examples': len(items), **left_out}
    return items, {name: {'mean': n, 'low': n, 'high': n, 'n': len(rows)} for name, n in counts.items()}


def split(items: Sequence[Item], holdout: float) -> tuple[list[Item], list[Item]]:
    """Returns the items to train on and those held out, all items of a prompt on one side.

    A prompt is held out if its hash, as a number in [0, 1), is below `holdout`; if that is true of none, the lowest is.
    """
    places = np.array([
        int.from_bytes(hashlib.blake2b(item.prompt.encode(), digest_size=8).digest()) / 2**64 for item in items])
    held_out = places < max(holdout, np.nextafter(places.min(), 1))
    return ([item for item, held in zip(items, held_out, strict=True) if not held],
            [item for item, held in zip(items, held_out, strict=True) if held])


def measure(
    loss: Loss, items: Sequence[Item], scores_NS: np.ndarray, seed: int
) -> tuple[dict[str, dict[str, float]], dict[str, list[dict[str, float]]]]:
    """Figures of a reward model on items that it was not trained on.

    - 'accuracy': share of pairs whose chosen response scores higher, of labels on their side of 0.
    - 'calibration_error', 'brier': of the probability that the first response of a pair is the better one, the two being in
      random order; of the probability that a response is safe.
    - 'recall_unsafe': share of unsafe responses that score 0 or less; where there are any.

    Returns:
        {METRIC or METRIC/TASK: {mean, low, high, n}}, by task where there are several, with 95% intervals. They are over
        prompts, of which n is the number: the items of one are not independent, and in shares each prompt counts once.
        And {'all' or TASK: bins}, as `calibration_bins` gives them.
    """
    if loss == 'pairwise':
        difference = scores_NS[:, 0] - scores_NS[:, 1]
        swapped = np.random.default_rng(seed).random(len(items)) < 0.5
        predicted, observed = _sigmoid(np.where(swapped, -difference, difference)), (~swapped).astype(np.float64)
        right, unsafe = difference > 0, np.zeros(len(items), bool)
    else:
        observed = np.array([item.label for item in items])
        predicted, right, unsafe = _sigmoid(scores_NS[:, 0]), (scores_NS[:, 0] > 0) == (observed > 0), observed == 0
    numbers = {prompt: i for i, prompt in enumerate(dict.fromkeys(item.prompt for item in items))}
    prompts = np.array([numbers[item.prompt] for item in items])
    tasks = np.array([item.task for item in items])
    groups = {'': np.ones(len(items), bool)}
    if len(set(tasks)) > 1:
        groups |= {f'/{task}': tasks == task for task in sorted(set(tasks) - {''})}
    figures, bins = {}, {}
    for name, chosen in groups.items():
        p, y, prompt = predicted[chosen], observed[chosen], prompts[chosen]
        figures[f'accuracy{name}'] = share_interval(_by_prompt(right[chosen], prompt))
        figures[f'calibration_error{name}'] = calibration_interval(p, y, prompt)
        figures[f'brier{name}'] = share_interval(_by_prompt((p - y)**2, prompt))
        if unsafe[chosen].any():
            caught = chosen & unsafe
            figures[f'recall_unsafe{name}'] = share_interval(_by_prompt(right[caught], prompts[caught]))
        bins[name.lstrip('/') or 'all'] = calibration_bins(p, y)
    return figures, bins


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(x / 2))  # nothing overflows


def _by_prompt(values: np.ndarray, prompt: np.ndarray) -> np.ndarray:
    """Means over the items of each prompt."""
    _, index, counts = np.unique(prompt, return_inverse=True, return_counts=True)
    return np.bincount(index, values) / counts


def calibration_bins(predicted_N: np.ndarray, observed_N: np.ndarray) -> list[dict[str, float]]:
    """Sorts predictions into `BINS` bins of equal number (as near as can be); fewer if there are fewer predictions.

    Args:
        predicted_N: probabilities.
        observed_N: 1 where what was predicted is so, else 0.

    Returns:
        {'predicted': mean probability, 'observed': share, 'n'} of each bin, in ascending order.
    """
    return [
        {'predicted': float(predicted_N[part].mean()), 'observed': float(observed_N[part].mean()), 'n': len(part)}
        for part in _parts(predicted_N)]


def _parts(predicted_N: np.ndarray) -> list[np.ndarray]:
    """The indices in each bin."""
    return np.array_split(np.argsort(predicted_N, kind='stable'), min(BINS, len(predicted_N)))


def calibration_error(predicted_N: np.ndarray, observed_N: np.ndarray) -> float:
    """Expected calibration error: mean over the bins, weighted by n, of |observed - predicted|.

    arXiv 1706.04599, eq. 3, with bins of equal number as in arXiv 1904.01685.
    """
    bins = calibration_bins(predicted_N, observed_N)
    return sum(b['n'] * abs(b['observed'] - b['predicted']) for b in bins) / len(predicted_N)


def calibration_interval(predicted_N: np.ndarray, observed_N: np.ndarray, prompt_N: np.ndarray) -> dict[str, float]:
    """The calibration error with an interval that holds the true error of the bins in at least 95% of cases.

    Noise within a bin adds to the error, whatever its sign: sqrt(2 / pi) standard errors where the truth is 0, less
    elsewhere. The interval therefore begins that much lower. A bin's standard error is that of a share (Agresti and Coull,
    1998), the prompts in it being the draws.
    """
    bins = _parts(predicted_N)
    weights = np.array([len(part) for part in bins]) / len(predicted_N)
    prompts = np.array([len(np.unique(prompt_N[part])) for part in bins])
    shares = (prompts * np.array([observed_N[part].mean() for part in bins]) + 2) / (prompts + 4)
    errors = np.sqrt(shares * (1 - shares) / (prompts + 4))
    error = calibration_error(predicted_N, observed_N)
    noise, half = math.sqrt(2 / math.pi) * (weights * errors).sum(), Z95 * math.sqrt(((weights * errors)**2).sum())
    return {'mean': error, 'low': float(max(0, error - noise - half)), 'high': float(min(1, error + half)),
            'n': len(np.unique(prompt_N))}


KIND = StageKind(RewardModelStage, run, makes='reward_model', takes={MODEL: 'model', 'data': 'data'})
