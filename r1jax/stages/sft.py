"""Supervised fine-tuning on prompts and completions: the cold start, the SFT of R1's third stage, and distillation.

All three are one thing with other inputs: which model starts and which data it is given (DeepSeek-R1, arXiv 2501.12948, 2025
revision: 2 to 3 epochs, cosine to a tenth of the rate, sequences packed). Distillation is SFT of a student on the teacher's
data, which is stored as text, so that the student may have another tokenizer.

Update i trains on sequences i n to (i + 1) n of the epochs laid end to end, each in an order of its own, so going on needs
no more position than the step.
"""

import dataclasses
import pathlib
import time
from collections.abc import Callable, Sequence

import numpy as np

from r1jax.data.sources import permutation
from r1jax.data.tokenizers import Tokenizer
from r1jax.errors import UserError, at_least
from r1jax.learning.balance import BalanceConfig, balance_metrics, balance_of, balance_shares, mtp_coefficient
from r1jax.learning.optimizer import OptimizerConfig
from r1jax.learning.packing import TokenSequence, loss_weights, pack
from r1jax.learning.step import TrainState, accumulate, apply_gradients, init_state, micro_batches, sft_gradients
from r1jax.models import transformer
from r1jax.models.config import ModelConfig
from r1jax.parallel.distributed import is_leader
from r1jax.parallel.rules import Sharding
from r1jax.runtime import datasets
from r1jax.runtime.checkpoint import Checkpoints, Model, load_model, save_model
from r1jax.runtime.metrics import MetricWriter
from r1jax.runtime.progress import Progress
from r1jax.stages.base import MODEL, Artifact, Inputs, StageKind

MTP_LOSS = 0.1  # the default of `SFTStage.mtp_loss`


@dataclasses.dataclass(frozen=True)
class SFTStage:
    """Settings of the stage.

    Attributes:
        optimizer: learning rate, schedule, clipping.
        epochs: passes over the data.
        batch: sequences of one update.
        row_length: T, tokens of a packed row; longer sequences are left out, and counted.
        micro_rows: rows of one gradient computation.
        checkpoint_every: updates between two checkpoints.
        balance: of a mixture of experts; None is DeepSeek-V3's.
        mtp_loss: coefficient of the loss of a module that predicts the token after the next one. None is what DeepSeek-V3's
            pretraining ended with, .1 (arXiv 2412.19437, section 4.2), if the model has one; with 0 it is left as it is.
    """

    optimizer: OptimizerConfig
    epochs: int = 2
    batch: int = 128
    row_length: int = 192
    micro_rows: int = 4
    checkpoint_every: int = 100
    balance: BalanceConfig | None = None
    mtp_loss: float | None = None

    def __post_init__(self):
        at_least(1, self, 'epochs', 'batch', 'row_length', 'micro_rows', 'checkpoint_every')

    def check(self, sharding: Sharding, model: ModelConfig | None) -> ModelConfig:
        """Returns what the model will be.

        Raises UserError without one, if the mesh does not divide it or the rows, or for settings it has no use for.
        """
        if model is None:
            raise UserError('a stage of kind sft needs a model to start from: set base, or put a stage before it')
        sharding.check_batch('micro_rows', self.micro_rows)
        transformer.shardings(model, sharding)
        balance_of(self.balance, model)
        self.trains(model)
        return model

    def trains(self, model: ModelConfig) -> tuple[ModelConfig, float]:
        """Returns what it trains of a model, and the coefficient of the MTP loss: without one the module is set aside."""
        mtp_loss = mtp_coefficient(self.mtp_loss, model, MTP_LOSS)
        return (model if mtp_loss else dataclasses.replace(model, mtp=0)), mtp_loss


def run(stage: SFTStage, inputs: Inputs, folder: pathlib.Path) -> Artifact:
    """Trains; goes on from the newest checkpoint in `folder` if there is one."""
    model = load_model(inputs.model, inputs.training, inputs.execution)
    rows = datasets.read(inputs.given['data'], datasets.EXAMPLES)
    sequences = [tokenize(row['prompt'], row['completion'], model.tokenizer) for row in rows]
    fitting = [s for s in sequences if len(s.tokens) <= stage.row_length]
    if not fitting:
        raise UserError(
            f"{inputs.given['data']}: none of its {len(rows)} examples fits into row_length={stage.row_length} tokens")
    steps = -(-stage.epochs * len(fitting) // stage.batch)
    optimizer = stage.optimizer.over(steps)
    cfg, mtp_loss = stage.trains(model.cfg)
    # What has no loss is set aside: a decaying weight would move it all the same.
    params = model.params if mtp_loss else model.params.replace(mtp=None)

    def batch(step: int) -> list[TokenSequence]:
        return [fitting[i] for i in batch_at(step, len(fitting), stage.batch, stage.epochs, inputs.seed)]

    state = fit(
        init_state(params, cfg, optimizer, inputs.training), batch, steps, optimizer, cfg, inputs, folder, stage.row_length,
        stage.micro_rows, stage.checkpoint_every, balance_of(stage.balance, cfg), mtp_loss)
    params = state.params if mtp_loss else state.params.replace(mtp=model.params.mtp)
    save_model(folder / 'model', Model(params, model.cfg, model.tokenizer))
    left_out = len(sequences) - len(fitting)
    return Artifact(folder / 'model', {
        'examples': {'mean': len(fitting), 'low': len(fitting), 'high': len(fitting), 'n': len(rows)},
        'too_long': {'mean': left_out, 'low': left_out, 'high': left_out, 'n': len(rows)}})


def tokenize(prompt: str, completion: str, tokenizer: Tokenizer) -> TokenSequence:
    """BOS where the tokenizer has one, prompt, completion, EOS; the completion and EOS are what is learnt."""
    bos = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    before = bos + tokenizer.encode(prompt)
    after = tokenizer.encode(completion, continues=True) + [tokenizer.eos_id]
    return TokenSequence(np.asarray(before + after, np.int32), prompt_length=len(before))


def batch_at(step: int, n: int, size: int, epochs: int, seed: int) -> Sequence[int]:
    """Returns which of n sequences update number `step` (from 0) trains on; the last update may be smaller."""
    chosen = []
    for position in range(step * size, min((step + 1) * size, epochs * n)):
        epoch, place = divmod(position, n)
        chosen.append(int(permutation(n, seed, epoch)[place]))
    return chosen


def fit(
    state: TrainState, batch: Callable[[int], list[TokenSequence]], steps: int, optimizer: OptimizerConfig, cfg: ModelConfig,
    inputs: Inputs, folder: pathlib.Path, row_length: int, micro_rows: int, checkpoint_every: int, balance: BalanceConfig,
    mtp_loss: float,
) -> TrainState:
    """Next-token prediction: the loop that pretraining and fine-tuning share. The loss is the mean over an update's tokens.

    Args:
        batch: the sequences of an update, by its number from 0.
        cfg: of what is trained: with MTP if, and only if, its loss has a coefficient.
        folder: of the stage; checkpoints, metrics.jsonl and TensorBoard files go there.
    """
    sharding = inputs.training
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
                packed = pack(batch(step), row_length)
                weights = loss_weights(packed.mask, packed.sequence, 'token')
                grads, sums = accumulate(
                    sft_gradients, state.params,
                    micro_batches(packed, weights, micro_rows, sharding, balance_shares(packed, cfg)), cfg=cfg,
                    sharding=sharding, balance_loss=balance.loss, mtp_loss=mtp_loss)
                state, metrics = apply_gradients(
                    state, grads, sums.get('load_LE'), optimizer=optimizer, cfg=cfg, sharding=sharding,
                    bias_rate=balance.bias_rate)
                loss = float(sums['nll_sum'] / sums['token_count'])
                tokens_per_s = float(sums['token_count']) / (time.perf_counter() - begun)
                more = balance_metrics(sums)
                if mtp_loss:
                    more['mtp_loss'] = float(sums['mtp_nll_sum'] / sums['mtp_token_count'])
                writer.write(step + 1, metrics | more | {'loss': loss, 'tokens_per_s/training': tokens_per_s})
                progress.update(step + 1, loss=loss, tokens_per_s=tokens_per_s)
                if (step + 1) % checkpoint_every == 0 or step + 1 == steps:
                    checkpoints.save(step + 1, state, {})
    return state


KIND = StageKind(SFTStage, run, takes={MODEL: 'model', 'data': 'data'})
