"""From examples to sampled text and back to rows: what training and evaluation share."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from r1jax.data.tinyworld import count_reflection_words
from r1jax.data.tokenizers import Tokenizer
from r1jax.errors import UserError
from r1jax.models.config import ModelConfig
from r1jax.parallel.rules import Sharding
from r1jax.rewards import base as rewards
from r1jax.rewards.accuracy import UNGRADED
from r1jax.rewards.answers import THINK
from r1jax.rewards.format import has_format
from r1jax.rewards.language import language_metric
from r1jax.sampling.engine import Engine, Request
from r1jax.sampling.logits import SamplingConfig


@dataclasses.dataclass(frozen=True)
class Rollout:
    """One sample of one example, as tokens and as text.

    Attributes:
        example: the problem; `prompt_id` names it within the run and `sample` is which of its samples this is.
        prompt: int32 [P], BOS included where the tokenizer has one.
        tokens: int32 [C], EOS included if it was drawn.
        logprobs: float32 [C], the sampler's.
        finished: True if it ends in EOS.
        text: the decoded completion, EOS removed.
    """

    example: rewards.Example
    prompt_id: int
    sample: int
    prompt: np.ndarray
    tokens: np.ndarray
    logprobs: np.ndarray
    finished: bool
    text: str

    def for_rewards(self, step: int) -> rewards.Completion:
        """The completion as reward functions see it."""
        key = rewards.sample_key(step, self.prompt_id, self.sample)
        return rewards.Completion(self.text, len(self.tokens), self.finished, key)


def sample(
    engine: Engine, tokenizer: Tokenizer, examples: Sequence[rewards.Example], prompt_ids: Sequence[int], n: int, step: int,
    on_finished: Callable[[Rollout], None] | None = None,
) -> list[Rollout]:
    """Samples every example n times; rollouts come back ordered by example, then by sample.

    on_finished: called with each rollout as soon as it is there, the quick ones first, while others are sampled.
    """
    prompts = {}
    for prompt_id, example in zip(prompt_ids, examples, strict=True):
        bos = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
        prompts[prompt_id] = (example, np.asarray(bos + tokenizer.encode(example.prompt), np.int32))
    requests = (Request(tuple(prompt.tolist()), prompt_id, n) for prompt_id, (_, prompt) in prompts.items())
    found = {}
    for completion in engine.generate(requests, step):
        example, prompt = prompts[completion.prompt_id]
        rollout = found[completion.prompt_id, completion.sample] = Rollout(
            example, completion.prompt_id, completion.sample, prompt, completion.tokens, completion.logprobs,
            completion.finished, tokenizer.decode(completion.tokens, continues=True))
        if on_finished is not None:
            on_finished(rollout)
    return [found[prompt_id, i] for prompt_id in prompts for i in range(n)]


def row(
    rollout: Rollout, step: int, *, reward: float | None, components: dict[str, float], advantage: float | None
) -> dict:
    """One row of `runtime.rollouts.SCHEMA`."""
    example = rollout.example
    return {
        'step': step,
        'prompt_id': rollout.prompt_id,
        'sample': rollout.sample,
        'task': example.task,
        'kind': example.kind,
        'language': example.language,
        'difficulty': example.difficulty,
        'prompt': example.prompt,
        'completion': rollout.text,
        'answer': example.answer,
        'reward': reward,
        'rewards': components,
        'advantage': advantage,
        'n_tokens': len(rollout.tokens),
        'finished': rollout.finished,
        'reflection_words': count_reflection_words(rollout.text),
        'logprob_mean': float(np.mean(rollout.logprobs)),
        'id': example.id,
        'question': example.question,
        'options': list(example.options),
        'tests': rewards.tests_to_text(example.tests),
    }


def read_row(row: Mapping[str, Any]) -> tuple[rewards.Completion, rewards.Example]:
    """What the reward functions saw of a completion that was stored by `row`, its key included."""
    example = rewards.Example(
        **{name: row[name] or '' for name in ('prompt', 'answer', 'task', 'language', 'kind', 'id', 'question')},
        difficulty=row['difficulty'] or 0, options=tuple(row['options'] or ()),
        tests=rewards.tests_from_text(row['tests'] or ''))
    key = rewards.sample_key(row['step'], row['prompt_id'], row['sample'])
    return rewards.Completion(row['completion'], row['n_tokens'], row['finished'], key), example


def text_metrics(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """What can be said of completions without knowing their reward; names as in metrics.jsonl."""
    lengths = np.array([len(r.tokens) for r in rollouts])
    finished = np.array([r.finished for r in rollouts])
    reflection = sum(count_reflection_words(r.text) for r in rollouts)
    consistency = np.array([language_metric(r.text, r.example.language) for r in rollouts])
    consistency = consistency[~np.isnan(consistency)]
    return {
        'length/mean': lengths.mean(),
        'length/min': lengths.min(),
        'length/max': lengths.max(),
        'length/finished_mean': lengths[finished].mean() if finished.any() else float('nan'),
        'truncated': 1 - finished.mean(),
        'format_rate': np.mean([
            has_format(r.text, r.finished, prefilled(r.example), r.example.task in UNGRADED) for r in rollouts]),
        'language_consistency': consistency.mean() if len(consistency) else float('nan'),
        'reflection_per_1k': 1000 * reflection / lengths.sum(),
    }


def check_lengths(cfg: ModelConfig, sampling: SamplingConfig, sharding: Sharding) -> None:
    """Raises UserError if the mesh does not divide the slots, or no prompt fits beside the longest completion."""
    sharding.check_batch('sampling.slots', sampling.slots)
    if sampling.max_tokens >= cfg.max_positions:
        raise UserError(
            f"sampling.max_tokens={sampling.max_tokens} leaves no room for a prompt in the model's {cfg.max_positions} "
            'positions')


def prefilled(example: rewards.Example) -> bool:
    """Whether the template wrote the opening think tag, so that the response begins inside the thought."""
    return example.prompt.rstrip().endswith(THINK)
