"""Reinforcement learning with group relative policy optimisation: R1-Zero, and the RL stages of R1.

One step: prompts -> G samples each -> rewards -> advantages within each group -> packing -> old and reference
log-probabilities -> M minibatches of clipped updates, for `inner_epochs` passes -> metrics, rollouts, checkpoint.
What the paper calls a step is one update; a step here is one rollout and all its updates.

A checkpoint is taken between two steps, where no rollout is in flight. It holds parameters, optimizer state, reference
and the position in the data; all randomness is a function of the seed and the step. A run that was killed goes on from
there with the very numbers of an undisturbed one.
"""

import collections
import dataclasses
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import jax
import numpy as np

from r1jax.data import tasks
from r1jax.errors import UserError, at_least, nearest
from r1jax.learning.balance import BalanceConfig, balance_metrics, balance_of, balance_shares
from r1jax.learning.grpo import (
    GRPOLoss,
    group_advantages,
    kl_shaped_rewards,
    mean_diagnostics,
    merge_diagnostics,
    zero_variance_groups,
)
from r1jax.learning.optimizer import OptimizerConfig
from r1jax.learning.packing import TokenSequence, loss_weights, pack, unpack
from r1jax.learning.step import (
    TrainState,
    accumulate,
    apply_gradients,
    grpo_gradients,
    init_state,
    micro_batches,
    reshard,
    score,
)
from r1jax.models import transformer
from r1jax.models.config import ModelConfig
from r1jax.parallel.distributed import is_leader
from r1jax.parallel.rules import Sharding
from r1jax.rewards.accuracy import TASKS
from r1jax.rewards.base import Reward
from r1jax.rewards.mix import RewardMix, routed
from r1jax.rewards.model import RewardModel
from r1jax.rewards.weights import parse_weights, reward
from r1jax.runtime.checkpoint import Checkpoints, Model, load_model, save_model
from r1jax.runtime.metrics import MetricWriter
from r1jax.runtime.progress import Progress
from r1jax.runtime.rollouts import step_path, write_rollouts
from r1jax.sampling.engine import Engine
from r1jax.sampling.logits import SamplingConfig
from r1jax.stages.base import MODEL, Artifact, Inputs, StageKind
from r1jax.stages.rollout import check_lengths, prefilled, row, sample, text_metrics
from r1jax.stages.scoring import Payroll, Scored, pay, reward_metrics, reward_pool

OldLogprobs = Literal['trainer', 'sampler']
OLD_LOGPROBS = get_args(OldLogprobs)


@dataclasses.dataclass(frozen=True)
class FinalPart:
    """What is different in the last steps of a stage. Reward models pay in them alone.

    The paper's all-scenario RL adds general prompts and preference rewards in its last 400 of 1,700 steps, and R1-Zero
    writes up to 65,536 tokens instead of 32,768 in its last 2,200 (DeepSeek-R1, arXiv 2501.12948, 2025 revision).

    Attributes:
        steps: how many.
        task: the prompts of these steps; '' keeps the stage's.
        max_tokens: the longest completion; 0 keeps the stage's.
    """

    steps: int
    task: str = ''
    max_tokens: int = 0

    def __post_init__(self):
        at_least(1, self, 'steps')
        at_least(0, self, 'max_tokens')


@dataclasses.dataclass(frozen=True)
class GRPOStage:
    """Settings of the stage.

    Attributes:
        task: the seqio task or mixture of prompts.
        steps: rollouts, each followed by `minibatches` x `inner_epochs` updates.
        prompts: questions of one rollout.
        group: G, samples of each question.
        rewards: weights by name, 'accuracy=1,format=1'.
        reward_options: options of single rewards by name, {'overlong': {'max_length': 512, 'cache': 64}}.
        reward_models: weights of reward models by role: the stage's inputs say which model has it. What is paid is the
            standardised score.
        reward_tasks: which tasks a reward or reward model is for, {'helpful': 'everyday+knowledge'}; all where not named.
        final: the last part, if it is another; reward models pay in it alone, or throughout without one.
        reward_workers: processes that compute rewards; 0 computes them in this one.
        reward_timeout_s: run time after which a worker is killed and its completion gets 0.
        sampling: of the rollouts; its temperature must be the loss's, without top-k, top-p and min-p.
        loss: the policy loss.
        normalize: how tokens add up: 'sequence' (GRPO), 'token' (DAPO) or 'constant' (Dr. GRPO).
        advantage_std: whether advantages are divided by the group's standard deviation (Dr. GRPO: not).
        mask_truncated: take truncated completions out of the loss (DAPO, overlong filtering).
        resample_rounds: how often groups of one same reward are replaced by new prompts (DAPO, dynamic sampling).
        old_logprobs: what the ratio is to, where there are several updates to a rollout. 'trainer': the rollouts are scored
            once more, so that the ratio is 1 whatever the sampler's numerics. 'sampler': what the sampler noted of its
            draws, which saves that pass and corrects for its numerics as well (as verl's bypass mode).
        minibatches: M, updates per pass over a rollout; questions are dealt to them at random.
        inner_epochs: passes over a rollout.
        reference_every: steps after which the reference becomes the current policy; 0 never. The first reference is
            the model that the stage started from.
        optimizer: of the updates (its schedule counts updates).
        row_length: T, tokens of a packed row: at least prompt + completion.
        micro_rows: rows of one gradient computation.
        checkpoint_every: steps between two checkpoints.
        balance: of a mixture of experts; None is DeepSeek-V3's. A module that predicts the token after the next one is left
            as it is, and comes back with the trained model: the paper does not say that RL trains it.
    """

    task: str
    steps: int
    prompts: int
    group: int
    optimizer: OptimizerConfig
    sampling: SamplingConfig
    rewards: str = 'accuracy=1,format=1'
    reward_options: dict[str, dict[str, int | float | bool | str]] = dataclasses.field(default_factory=dict)
    reward_models: dict[str, float] = dataclasses.field(default_factory=dict)
    reward_tasks: dict[str, str] = dataclasses.field(default_factory=dict)
    final: FinalPart | None = None
    reward_workers: int = 0
    reward_timeout_s: float = 10.0
    loss: GRPOLoss = GRPOLoss()
    normalize: Literal['sequence', 'token', 'constant'] = 'sequence'
    advantage_std: bool = True
    mask_truncated: bool = False
    resample_rounds: int = 0
    old_logprobs: OldLogprobs = 'trainer'
    minibatches: int = 1
    inner_epochs: int = 1
    reference_every: int = 0
    row_length: int = 256
    micro_rows: int = 16
    checkpoint_every: int = 20
    balance: BalanceConfig | None = None

    def __post_init__(self):
        at_least(
            1, self, 'steps', 'prompts', 'minibatches', 'inner_epochs', 'row_length', 'micro_rows', 'checkpoint_every')
        at_least(0, self, 'resample_rounds', 'reference_every', 'reward_workers')
        self.optimizer.over(self.updates)
        s = self.sampling
        if s.temperature != self.loss.temperature:
            raise UserError(
                f'loss.temperature={self.loss.temperature} must be sampling.temperature={s.temperature}: otherwise the '
                'ratio compares two different distributions')
        if s.top_k or s.top_p < 1 or s.min_p:
            raise UserError(
                'sampling: top_k, top_p and min_p must stay off in training: the likelihood ratio would be biased by '
                'the tokens they leave out')
        if self.old_logprobs not in OLD_LOGPROBS:
            raise UserError(
                f"old_logprobs='{self.old_logprobs}' is unknown{nearest(str(self.old_logprobs), OLD_LOGPROBS)}")
        if self.old_logprobs == 'sampler' and self.loss.importance_cap is not None:
            raise UserError(
                "old_logprobs='sampler' leaves nothing for loss.importance_cap, whose weight is the ratio between the "
                "trainer's and the sampler's log-probabilities: leave one of them out")
        if self.prompts % self.minibatches:
            raise UserError(f'prompts={self.prompts} is not divisible by minibatches={self.minibatches}')
        if self.group < 2:
            raise UserError(f'group={self.group} must be at least 2: an advantage is relative to the group')
        weighted = parse_weights(self.rewards).names
        for name, tasks_ in self.reward_tasks.items():
            known = {*weighted, *self.reward_models}
            if name not in known:
                raise UserError(f"reward_tasks names '{name}', which is no reward here{nearest(name, known)}")
            for task in tasks_.split('+'):
                if task not in TASKS:
                    raise UserError(f"reward_tasks.{name}: there is no task '{task}'{nearest(task, TASKS)}")
        for name in self.reward_models:
            if name in weighted or name == MODEL:
                raise UserError(f"reward_models: '{name}' is taken: give the reward model another name")
        if self.final is not None and self.final.steps > self.steps:
            raise UserError(f'final.steps={self.final.steps} is more than steps={self.steps}')

    @property
    def updates(self) -> int:
        """Optimizer updates of the whole stage."""
        return self.steps * self.minibatches * self.inner_epochs

    def check(self, sharding: Sharding, base: ModelConfig | None) -> ModelConfig:
        """Returns what the model will be, which is what the base is.

        Raises UserError for what can be known to fail before anything runs: no base, a batch or parameters that the mesh
        does not divide, an unknown task, an option that a reward does not have, a gold answer that cannot be graded.
        """
        if base is None:
            raise UserError("a stage of kind 'grpo' needs a model to start from: set base, or put a stage before it")
        transformer.shardings(base, sharding)
        balance_of(self.balance, base)
        for name, size in (('sampling.slots', self.sampling.slots), ('micro_rows', self.micro_rows)):
            sharding.check_batch(name, size)
        RewardMix(self.rewards, options=self.reward_options)
        for part in dict.fromkeys(map(self.part, (1, self.steps))):
            check_lengths(base, self.sampling_of(part), sharding)
        for task in self.prompts_from:
            first = next(tasks.open_task(task, 'train'))
            if first.task in TASKS or 'accuracy' in parse_weights(self.rewards).names:
                tasks.check_answers(task, 'train')
        return base

    def check_inputs(self, roles: Sequence[str]) -> None:
        """Raises UserError unless the inputs beside the model are the reward models."""
        for role in roles:
            if role not in self.reward_models:
                raise UserError(
                    f"inputs: '{role}' is no reward model of the stage{nearest(role, self.reward_models)}")
        for name in self.reward_models:
            if name not in roles:
                raise UserError(f"reward_models: inputs do not say which model '{name}' is")

    def trains(self, model: ModelConfig) -> tuple[ModelConfig, float]:
        """Returns what it trains of a model, which is all but MTP, and the coefficient of the MTP loss: none."""
        return dataclasses.replace(model, mtp=0), 0.0

    def part(self, step: int) -> str:
        """Which part a step (from 1) belongs to: 'final' or 'main'."""
        return 'final' if self.final is not None and step > self.steps - self.final.steps else 'main'

    @property
    def prompts_from(self) -> list[str]:
        """The tasks that prompts come from."""
        return list(dict.fromkeys(self.task_of(self.part(step)) for step in (1, self.steps)))

    def task_of(self, part: str) -> str:
        """The prompts of a part."""
        return self.final.task or self.task if part == 'final' else self.task

    def sampling_of(self, part: str) -> SamplingConfig:
        """How completions of a part are sampled."""
        longest = self.final.max_tokens if part == 'final' else 0
        return dataclasses.replace(self.sampling, max_tokens=longest or self.sampling.max_tokens)

    def tasks_of(self, name: str) -> list[str] | None:
        """The tasks that a reward is for, None for all."""
        return self.reward_tasks[name].split('+') if name in self.reward_tasks else None


class Clock:
    """Seconds by phase; a phase ends where the next begins."""

    def __init__(self):
        self.seconds: dict[str, float] = collections.defaultdict(float)
        self._start = self._last = time.perf_counter()

    def lap(self, phase: str) -> None:
        now = time.perf_counter()
        self.seconds[phase] += now - self._last
        self._last = now

    def metrics(self) -> dict[str, float]:
        return {f'seconds/{k}': v for k, v in self.seconds.items()} | {'seconds/step': self._last - self._start}


def run(stage: GRPOStage, inputs: Inputs, folder: pathlib.Path) -> Artifact:
    """Trains; goes on from the newest checkpoint in `folder` if there is one."""
    training, decoding = inputs.training, inputs.decoding
    base = load_model(inputs.model, training, inputs.execution)
    (cfg, _), tokenizer = stage.trains(base.cfg), base.tokenizer
    optimizer = stage.optimizer.over(stage.updates)
    state = init_state(base.params.replace(mtp=None), cfg, optimizer, training)
    # A copy, because updates reuse the buffers of the state they replace.
    reference = jax.tree.map(lambda x: x.copy(), state.params)
    sample_example = next(tasks.open_task(stage.task, 'train', seed=inputs.seed))
    weights = parse_weights(stage.rewards)
    if sample_example.task in TASKS and 'accuracy' not in weights.names:
        weights += 0.0 * reward('accuracy')  # measured in every arm, paid or not
    models = {
        name: (weight, routed(RewardModel(inputs.given[name], training, inputs.execution), stage.tasks_of(name)))
        for name, weight in stage.reward_models.items()}

    with (
        Checkpoints(folder / 'checkpoints') as checkpoints,
        reward_pool(stage.reward_workers, stage.reward_timeout_s) as pool,
    ):
        mix = RewardMix(
            weights, options=stage.reward_options, prefilled=prefilled(sample_example), pool=pool,
            tasks={name: stage.tasks_of(name) for name in weights.names if name in stage.reward_tasks})
        first = checkpoints.latest() or 0
        part, position = '', {'task': stage.task, 'examples': 0}
        if first:
            (state, reference), restored = checkpoints.restore(first, (state, reference))
            position |= restored
        with (
            MetricWriter(folder, last_step=first, enabled=is_leader()) as writer,
            Progress(stage.steps, inputs.name, start=first, enabled=is_leader()) as progress,
        ):
            for step in range(first + 1, stage.steps + 1):
                clock = Clock()
                if part != stage.part(step):
                    part = stage.part(step)
                    if position['task'] != stage.task_of(part):
                        position = {'task': stage.task_of(part), 'examples': 0}
                    examples = tasks.open_task(
                        position['task'], 'train', seed=inputs.seed, position=position['examples'])
                    engine = Engine(
                        state.params, cfg, stage.sampling_of(part), eos=tokenizer.eos_id, sharding=decoding,
                        seed=inputs.seed)
                paying = models if part == 'final' or stage.final is None else {}
                engine.params = reshard(state.params, cfg=cfg, sharding=decoding, dtype=cfg.dtype)
                scored, metrics = collect(stage, engine, tokenizer, examples, mix, paying, step, clock)
                engine.params = None  # training needs the room
                sequences, advantages_B = prepare(stage, scored, state.params, reference, cfg, training, step)
                clock.lap('scoring')
                state, more = update(stage, optimizer, state, sequences, cfg, training, inputs.seed, step)
                clock.lap('update')
                position['examples'] = examples.position
                tokens = sum(len(s.tokens) for s in sequences)
                trained = tokens / (clock.seconds['scoring'] + clock.seconds['update'])
                metrics |= more | {'tokens_per_s/training': trained} | clock.metrics()
                if stage.reference_every and step % stage.reference_every == 0:
                    reference = jax.tree.map(lambda x: x.copy(), state.params)
                writer.write(step, metrics)
                if is_leader():
                    write_rollouts(step_path(folder / 'rollouts', step), rollout_rows(scored, advantages_B, step))
                if step % stage.checkpoint_every == 0 or step == stage.steps:
                    checkpoints.save(step, (state, reference), position)
                progress.update(
                    step, reward=metrics['reward/mean'], pass_rate=metrics['pass_rate'],
                    length=metrics['length/mean'], tokens_per_s=metrics['tokens_per_s/sampling'])
    save_model(folder / 'model', Model(state.params.replace(mtp=base.params.mtp), base.cfg, tokenizer))
    return Artifact(folder / 'model')


def collect(
    stage: GRPOStage, engine: Engine, tokenizer, examples: tasks.ExampleIterator, reward: RewardMix,
    models: Mapping[str, tuple[float, Reward]], step: int, clock: Clock,
) -> tuple[Scored, dict[str, float]]:
    """Samples and scores one rollout of prompts x G completions.

    With `resample_rounds`, groups whose rewards are all the same give no gradient and are replaced by new prompts
    (DAPO, arXiv 2503.14476, section 3.2), until every group is mixed or the rounds are used up; then old ones fill the
    batch. Metrics describe everything sampled, not only what was kept, so that they stay comparable between settings.
    """
    kept: Scored | None = None
    seen: Scored | None = None
    for _ in range(stage.resample_rounds + 1):
        missing = stage.prompts - (len(kept.rollouts) // stage.group if kept else 0)
        first = examples.position
        batch = [next(examples) for _ in range(missing)]
        payroll = Payroll(reward, missing, stage.group, first, step)
        rollouts = sample(engine, tokenizer, batch, range(first, first + missing), stage.group, step, payroll.add)
        clock.lap('sampling')
        new = pay(rollouts, payroll, models)
        clock.lap('rewards')
        seen = seen.join(new) if seen else new
        if not stage.resample_rounds:
            kept = new
            break
        mixed = np.flatnonzero(~zero_variance_groups(new.reward_B, stage.group))
        if len(mixed):
            kept = kept.join(new.take(mixed, stage.group)) if kept else new.take(mixed, stage.group)
        if kept and len(kept.rollouts) == stage.prompts * stage.group:
            break
    else:
        n_kept = len(kept.rollouts) // stage.group if kept else 0
        constant = np.flatnonzero(zero_variance_groups(seen.reward_B, stage.group))[:stage.prompts - n_kept]
        fill = seen.take(constant, stage.group)
        kept = kept.join(fill) if kept else fill
    speed = sum(len(r.tokens) for r in seen.rollouts) / clock.seconds['sampling']
    return kept, reward_metrics(seen, kept, stage.group) | text_metrics(seen.rollouts) | {'tokens_per_s/sampling': speed}


def prepare(
    stage: GRPOStage, scored: Scored, params, reference, cfg: ModelConfig, sharding, step: int
) -> tuple[list[TokenSequence], np.ndarray]:
    """Scores the rollouts under the reference, and under the policy if it moves before all are used; adds advantages.

    With a single update per rollout the policy still is the one that sampled, so its log-probabilities are those of the
    update's own forward pass, and a pass over the data is saved; `old_logprobs='sampler'` saves it in any case.
    """
    sequences = [
        TokenSequence(
            np.concatenate([r.prompt, r.tokens]), len(r.prompt), per_token={'sampler_logp': r.logprobs},
            masked=stage.mask_truncated and not r.finished)
        for r in scored.rollouts]
    # What could be sampled and not what was, so that a run does not end hours later, when it has learnt to write long.
    longest = max(len(r.prompt) for r in scored.rollouts) + stage.sampling_of(stage.part(step)).max_tokens
    if longest > stage.row_length:
        raise UserError(
            f'row_length={stage.row_length} is shorter than a prompt with the longest completion: {longest} tokens')
    packed = pack(sequences, stage.row_length)

    def logprobs(params) -> list[np.ndarray]:
        rows = [
            np.asarray(score(params, batch, cfg=cfg, temperature=stage.loss.temperature, sharding=sharding))
            for batch in micro_batches(packed, packed.mask, stage.micro_rows, sharding)]
        return unpack(np.concatenate(rows)[:len(packed.tokens)], packed, sequences)

    per_token = {'ref_logp': logprobs(reference)}
    in_reward = stage.loss.kl_in == 'reward' and stage.loss.kl_coef > 0
    if stage.minibatches * stage.inner_epochs > 1 or in_reward:
        per_token['old_logp'] = (
            logprobs(params) if stage.old_logprobs == 'trainer' else [r.logprobs for r in scored.rollouts])
    rewards_B = scored.reward_B
    if in_reward:
        rewards_B = kl_shaped_rewards(
            rewards_B, per_token['old_logp'], per_token['ref_logp'], stage.loss.kl_coef, stage.loss.kl_estimator)
    advantages_B = group_advantages(rewards_B, stage.group, normalize_std=stage.advantage_std)
    return [
        dataclasses.replace(
            s, per_token=dict(s.per_token) | {name: values[i] for name, values in per_token.items()},
            per_sequence={'advantage': float(advantages_B[i])})
        for i, s in enumerate(sequences)], advantages_B


def update(
    stage: GRPOStage, optimizer: OptimizerConfig, state: TrainState, sequences: Sequence[TokenSequence], cfg: ModelConfig,
    sharding: Sharding, seed: int, step: int,
) -> tuple[TrainState, dict[str, float]]:
    """M minibatches of whole groups, dealt anew in every inner epoch; metrics over all of them."""
    shuffle = np.random.default_rng((seed, step))
    size = stage.prompts // stage.minibatches
    balance = balance_of(stage.balance, cfg)
    diagnostics, norms = None, []
    for _ in range(stage.inner_epochs):
        order = shuffle.permutation(stage.prompts)
        for first in range(0, stage.prompts, size):
            groups = order[first:first + size]
            chosen = [sequences[g * stage.group + i] for g in groups for i in range(stage.group)]
            packed = pack(chosen, stage.row_length)
            weights = loss_weights(
                packed.mask, packed.sequence, stage.normalize, stage.sampling_of(stage.part(step)).max_tokens)
            grads, more = accumulate(
                grpo_gradients, state.params,
                micro_batches(packed, weights, stage.micro_rows, sharding, balance_shares(packed, cfg)),
                cfg=cfg, loss=stage.loss, sharding=sharding, balance_loss=balance.loss)
            state, metrics = apply_gradients(
                state, grads, more.get('load_LE'), optimizer=optimizer, cfg=cfg, sharding=sharding,
                bias_rate=balance.bias_rate)
            diagnostics = more if diagnostics is None else merge_diagnostics(diagnostics, more)
            norms.append(metrics['grad_norm'])
    return state, mean_diagnostics(diagnostics) | balance_metrics(diagnostics, len(norms)) | {
        'loss': float(diagnostics['loss_sum']) / len(norms),
        'grad_norm': float(np.mean([float(n) for n in norms])),
        'lr': float(metrics['lr']),
    }


def rollout_rows(scored: Scored, advantages_B: np.ndarray, step: int) -> list[dict]:
    return [
        row(r, step, reward=float(scored.reward_B[i]), advantage=float(advantages_B[i]),
            components={k: float(v[i]) for k, v in scored.components.items() if not np.isnan(v[i])})
        for i, r in enumerate(scored.rollouts)]


KIND = StageKind(GRPOStage, run, takes={MODEL: 'model'}, more='reward_model')
