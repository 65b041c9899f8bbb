"""Reward models as rewards: what they read of a response, and the score on a scale that does not depend on the model.

Such a model lies in a model folder with `reward.json` beside it. In the paper (DeepSeek-R1, arXiv 2501.12948, 2025 revision)
the helpful one reads the summary only, so that it does not meddle with the thinking, and the one for safety everything.
Importing this module loads jax, which the rules of the other rewards do without: the package leaves it to those who need it.
"""

import dataclasses
import json
import math
import pathlib
from collections.abc import Sequence

import numpy as np

from r1jax.data.tokenizers import Tokenizer
from r1jax.errors import UserError, nearest
from r1jax.learning.packing import TokenSequence
from r1jax.learning.preference import LOSSES, POOLINGS, Loss, Pooling, scores_of
from r1jax.learning.step import reshard
from r1jax.models.config import AS_DESCRIBED, Execution
from r1jax.parallel.rules import Sharding
from r1jax.rewards.answers import READS, Reads, text_read
from r1jax.rewards.base import Completion, Example, RewardOutput
from r1jax.runtime.checkpoint import load_model, read_config, resolve
from r1jax.runtime.files import write_json

FILE = 'reward.json'


@dataclasses.dataclass(frozen=True)
class Description:
    """What reward.json says.

    Attributes:
        loss: what it was trained with.
        reads: what it reads of a response, see `text_read`.
        mean, std: of its scores over all responses that it was trained on.
        row_length: T, tokens of a row in training: the longest sequence that it can have seen.
        micro_rows: rows of one computation in training.
        pooling: where a score comes from.

    Raises:
        UserError: an unknown loss, reading or pooling, or a standard deviation that nothing can be divided by.
    """

    loss: Loss
    reads: Reads
    mean: float
    std: float
    row_length: int
    micro_rows: int
    pooling: Pooling = 'last'

    def __post_init__(self):
        for name, known in (('loss', LOSSES), ('reads', READS), ('pooling', POOLINGS)):
            if getattr(self, name) not in known:
                raise UserError(f"{name}='{getattr(self, name)}' is unknown{nearest(str(getattr(self, name)), known)}")
        if not (math.isfinite(self.mean) and math.isfinite(self.std) and self.std > 0):
            raise UserError(f'mean={self.mean} must be finite and std={self.std} positive')

    def save(self, folder: pathlib.Path) -> None:
        write_json(folder / FILE, dataclasses.asdict(self))

    @classmethod
    def load(cls, folder: pathlib.Path) -> 'Description':
        """Reads a folder's. Raises UserError, naming the file, if it is missing or wrong."""
        path = folder / FILE
        try:
            return cls(**json.loads(path.read_text(encoding='utf-8')))
        except (OSError, ValueError, TypeError, UserError) as error:
            raise UserError(f'{path} is missing or describes no reward model: {error}') from error


def tokenize(prompt: str, response: str, reads: Reads, tokenizer: Tokenizer) -> TokenSequence:
    """What a reward model sees: BOS where the tokenizer has one, prompt, what it reads of the response, EOS."""
    bos = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    before = bos + tokenizer.encode(prompt)
    after = tokenizer.encode(text_read(response, reads), continues=True) + [tokenizer.eos_id]
    return TokenSequence(np.asarray(before + after, np.int32), prompt_length=len(before))


def cut(sequence: TokenSequence, limit: int) -> np.ndarray:
    """Returns the tokens of a sequence, at most `limit` of them: prompt, and the end of what is read.

    The beginning of a response is what can be spared: its conclusion stands last. Raises UserError if the prompt leaves no
    room for more than EOS.
    """
    room = limit - sequence.prompt_length
    if len(sequence.tokens) <= limit:
        return sequence.tokens
    if room < 2:
        raise UserError(
            f'a prompt of {sequence.prompt_length} tokens leaves no room for a response in the {limit} tokens that the '
            'reward model reads: train it with a longer row_length')
    return np.concatenate([sequence.tokens[:sequence.prompt_length], sequence.tokens[-room:]])


class RewardModel:
    """A trained reward model that scores completions, of mean 0 and standard deviation 1 on the responses of its training.

    A score depends on example and completion alone, not on what else is scored with them, but for the noise of float
    addition. All hosts must call it with the same batch, as the model lies on the mesh.

    folder: a model folder with reward.json, or the folder of the stage that made it.
    sharding: where to put the model.
    execution: how to run it.

    Raises UserError if there is none, it has no scalar head or its reward.json is missing or wrong.
    """

    def __init__(self, folder: str | pathlib.Path, sharding: Sharding, execution: Execution = AS_DESCRIBED):
        folder = resolve(folder)
        if not read_config(folder).scalar_head:
            raise UserError(f'{folder} is no reward model: it has no scalar head')
        self.description = Description.load(folder)
        model = load_model(folder, sharding, execution)
        self._cfg, self._tokenizer, self._sharding = model.cfg, model.tokenizer, sharding
        self._params = reshard(model.params, cfg=model.cfg, sharding=sharding, dtype=model.cfg.dtype)
        # Of the size that training had, rounded up to what this mesh divides.
        self._rows = self.description.micro_rows + -self.description.micro_rows % sharding.ways('batch')

    def __call__(self, completions: Sequence[Completion], examples: Sequence[Example]) -> RewardOutput:
        """Scores B completions of B examples, whose `prompt` it reads.

        Returns:
            values, the standardised scores; info 'raw', the scores themselves, and 'cut', 1 where the beginning of a
            response was left out because it is longer than what the model reads.

        Raises:
            UserError: a prompt leaves no room for a response.
        """
        seen = self.description
        whole = [
            tokenize(example.prompt, completion.text, seen.reads, self._tokenizer)
            for completion, example in zip(completions, examples, strict=True)]
        limit = min(seen.row_length, self._cfg.max_positions)
        raw = np.zeros(len(whole), np.float32)
        if whole:
            raw = scores_of(
                self._params, [(cut(sequence, limit),) for sequence in whole], row_length=seen.row_length,
                micro_rows=self._rows, cfg=self._cfg, pooling=seen.pooling, sharding=self._sharding)[:, 0]
        too_long = np.array([len(sequence.tokens) > limit for sequence in whole], np.float32)
        return RewardOutput((raw - np.float32(seen.mean)) / np.float32(seen.std), {'raw': raw, 'cut': too_long})
