"""Pretraining of the tiny base model on the tiny world's documents: next-token prediction from scratch.

Step i reads documents i n to (i + 1) n of an endless, randomly accessible stream, so going on needs no more position
than the step.
"""

import dataclasses
import pathlib

import jax
import numpy as np

from r1jax.data import tinyworld, tokenizers
from r1jax.errors import UserError, at_least, nearest
from r1jax.learning.balance import BalanceConfig, balance_of, mtp_coefficient
from r1jax.learning.optimizer import OptimizerConfig
from r1jax.learning.packing import TokenSequence
from r1jax.learning.step import init_state
from r1jax.models import transformer
from r1jax.models.config import ModelConfig
from r1jax.models.presets import preset
from r1jax.parallel.distributed import barrier, is_leader
from r1jax.parallel.rules import Sharding
from r1jax.runtime.checkpoint import Model, save_model
from r1jax.stages import sft
from r1jax.stages.base import Artifact, Inputs, StageKind

MTP_LOSS = 0.3  # the default of `PretrainStage.mtp_loss`


@dataclasses.dataclass(frozen=True)
class PretrainStage:
    """Settings of the stage.

    Attributes:
        model: name of a preset; its vocabulary is the tokenizer's size.
        optimizer: learning rate, schedule, clipping.
        steps: optimizer updates.
        recipe: name of the document mixture in `tinyworld.RECIPES`.
        tokenizer_documents: how many documents the SentencePiece model is trained on.
        documents_per_step: documents of one update.
        row_length: T, tokens of a packed row; longer documents are cut.
        micro_rows: rows of one gradient computation.
        checkpoint_every: steps between two checkpoints.
        balance: of a mixture of experts; None is DeepSeek-V3's.
        mtp_loss: coefficient of the loss of a module that predicts the token after the next one. None is what DeepSeek-V3's
            pretraining began with, .3 (arXiv 2412.19437, section 4.2), if the preset has one; with 0 the model gets none.
    """

    model: str
    optimizer: OptimizerConfig
    steps: int
    recipe: str = 'reflective'
    tokenizer_documents: int = 20_000
    documents_per_step: int = 64
    row_length: int = 192
    micro_rows: int = 4
    checkpoint_every: int = 500
    balance: BalanceConfig | None = None
    mtp_loss: float | None = None

    def __post_init__(self):
        at_least(
            1, self, 'steps', 'tokenizer_documents', 'documents_per_step', 'row_length', 'micro_rows', 'checkpoint_every')
        preset(self.model)
        self.optimizer.over(self.steps)
        if self.recipe not in tinyworld.RECIPES:
            raise UserError(f"recipe '{self.recipe}' is unknown{nearest(self.recipe, tinyworld.RECIPES)}")

    def check(self, sharding: Sharding, base: ModelConfig | None) -> ModelConfig:
        """Returns what the model will be.

        Raises UserError if the mesh does not divide micro-batches or parameters, or for settings the preset has no use for.
        """
        sharding.check_batch('micro_rows', self.micro_rows)
        cfg, _ = self.trains(preset(self.model))
        balance_of(self.balance, cfg)
        transformer.shardings(cfg, sharding)
        return cfg

    def trains(self, model: ModelConfig) -> tuple[ModelConfig, float]:
        """Returns the model, without MTP if that learns nothing, and the coefficient of its loss."""
        mtp_loss = mtp_coefficient(self.mtp_loss, model, MTP_LOSS)
        return (model if mtp_loss else dataclasses.replace(model, mtp=0)), mtp_loss


def run(stage: PretrainStage, inputs: Inputs, folder: pathlib.Path) -> Artifact:
    cfg, mtp_loss = stage.trains(inputs.execution.of(preset(stage.model)))
    tokenizer = _tokenizer(stage, cfg, folder)
    sharding = inputs.training
    optimizer = stage.optimizer.over(stage.steps)
    state = init_state(transformer.init(jax.random.key(inputs.seed), cfg), cfg, optimizer, sharding)
    state = sft.fit(
        state, lambda step: documents(stage, tokenizer, inputs.seed, step), stage.steps, optimizer, cfg, inputs, folder,
        stage.row_length, stage.micro_rows, stage.checkpoint_every, balance_of(stage.balance, cfg), mtp_loss)
    save_model(folder / 'model', Model(state.params, cfg, tokenizer))
    return Artifact(folder / 'model')


def _tokenizer(stage: PretrainStage, cfg: ModelConfig, folder: pathlib.Path) -> tokenizers.Tokenizer:
    """Trains the tokenizer, or reads the one that an earlier start has trained."""
    path = folder / 'tokenizer.model'
    if path.exists():
        return tokenizers.load(path)
    barrier('tokenizer')
    if not is_leader():
        barrier('tokenizer trained')
        return tokenizers.load(path)
    texts = (tinyworld.document_at(i, recipe=stage.recipe) for i in range(stage.tokenizer_documents))
    tokenizer = tokenizers.train_sentencepiece(texts, path, cfg.vocab_size, tinyworld.SYMBOLS)
    barrier('tokenizer trained')
    return tokenizer


def documents(
    stage: PretrainStage, tokenizer: tokenizers.Tokenizer, seed: int, step: int
) -> list[TokenSequence]:
    """Returns one step's documents as token sequences: BOS, text, EOS, every token but BOS predicted."""
    first = step * stage.documents_per_step
    sequences = []
    for index in range(first, first + stage.documents_per_step):
        text = tinyworld.document_at(index, seed=seed, recipe=stage.recipe)
        tokens = [tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id]
        sequences.append(TokenSequence(np.asarray(tokens[:stage.row_length], np.int32), prompt_length=1))
    return sequences


KIND = StageKind(PretrainStage, run)
