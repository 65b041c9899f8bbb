"""Builds the data of reward models: pairs of which one is preferred, or responses labelled safe and unsafe.

Pairs, as in the paper (DeepSeek-R1, arXiv 2501.12948, 2025 revision): two responses to one question are judged four times,
now the one and now the other standing first; the scores are averaged, and a pair is kept where the difference is clear and
the lengths are comparable. A judge is a language model that is asked in words (`rewards/judge.py`), or the tiny world's
simulated annotator, who knows what is preferred there but errs, and favours what stands first.

What one policy replies to one question is mostly to the point, so that a reward model can order such pairs without having
read the question; a policy that is paid by it then finds what pleases anywhere. Hence `borrowed` pairs (RRM, arXiv
2409.13156): a response against one that was given to another question.
"""

import collections
import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import pyarrow as pa

from r1jax.data import tasks
from r1jax.data.tinyworld.preferences import Annotator, helpfulness, reply_of
from r1jax.errors import UserError, at_least
from r1jax.models.config import ModelConfig
from r1jax.parallel.distributed import barrier, is_leader
from r1jax.parallel.rules import Sharding
from r1jax.rewards.base import Example
from r1jax.rewards.chat import WORLD, JudgeConfig, check_chat
from r1jax.rewards.judge import judge_pairs, judge_safety
from r1jax.runtime import datasets
from r1jax.runtime.datacard import family_of, make_card, source_of, write_card
from r1jax.runtime.progress import Progress
from r1jax.sampling.logits import SamplingConfig
from r1jax.stages.base import MODEL, Artifact, Inputs, StageKind
from r1jax.stages.evaluate import load_sampler, share_interval
from r1jax.stages.parts import in_parts, open_judge, portion
from r1jax.stages.rollout import Rollout, check_lengths, sample

# (examples, firsts, seconds, which vote) -> scores in favour of the first, on a scale of -10..10; None: unreadable
Compare = Callable[[Sequence[Example], Sequence[str], Sequence[str], int], Sequence[float | None]]
Label = Callable[[Sequence[Example], Sequence[str]], Sequence[bool | None]]


@dataclasses.dataclass(frozen=True)
class PreferencesStage:
    """Settings of the stage.

    Attributes:
        task: the requests.
        questions: how many of the training split, from its beginning.
        sampling: temperature, filters and limits.
        form: 'pairs' (of two responses) or 'labels' (safe or unsafe, of each response).
        samples: responses to each request; even for pairs.
        borrowed: how many of them are judged against a response to another request, too; for pairs. The other request is
            by turns of the same task, kind and language, and of the same language.
        judge: who is asked; its model 'world' is the tiny world's annotator.
        votes: how often a pair is judged, half of them in either order.
        margin: the least mean difference, on a scale of -10..10, of a pair that is kept.
        length_ratio: the longer response of a kept pair has at most this many times the tokens of the shorter one.
        annotator: how the tiny world's annotator errs.
    """

    task: str
    questions: int
    sampling: SamplingConfig
    form: Literal['pairs', 'labels'] = 'pairs'
    samples: int = 2
    borrowed: int = 0
    judge: JudgeConfig = JudgeConfig(model=WORLD)
    votes: int = 4
    margin: float = 1.0
    length_ratio: float = 2.0
    annotator: Annotator = Annotator()

    def __post_init__(self):
        at_least(1, self, 'questions', 'samples', 'votes')
        if self.form == 'pairs' and (self.samples % 2 or self.votes % 2):
            raise UserError(f'pairs need even samples and votes, got {self.samples} and {self.votes}')
        at_least(0, self, 'borrowed')
        if self.borrowed and self.form != 'pairs':
            raise UserError(f"borrowed={self.borrowed} makes pairs, and form='{self.form}' has none")
        if self.borrowed > self.samples:
            raise UserError(f'borrowed={self.borrowed} must be at most samples={self.samples}')
        if self.margin < 0 or self.length_ratio < 1:
            raise UserError(f'margin={self.margin} must be 0 or more, length_ratio={self.length_ratio} at least 1')

    @property
    def prompts_from(self) -> list[str]:
        """The tasks that prompts come from."""
        return [self.task]

    def check(self, sharding: Sharding, model: ModelConfig | None) -> None:
        """Raises UserError without a model, or for lengths, an unknown task, or one that the annotator knows nothing of."""
        if model is None:
            raise UserError('a stage of kind preferences needs a model to sample: set base, or put a stage before it')
        check_lengths(model, self.sampling, sharding)
        example = next(tasks.open_task(self.task, 'train'))
        if self.judge.model != WORLD:
            check_chat(self.judge)
        elif helpfulness(example.question, '', example.language) is None:
            raise UserError(f"judge.model='world': the annotator knows nothing of the requests of '{self.task}'")


def run(stage: PreferencesStage, inputs: Inputs, folder: pathlib.Path) -> Artifact:
    """Samples and judges what is missing of the parts, then writes data/ (the rows that were kept, and the card)."""
    engine, tokenizer = load_sampler(inputs, stage.sampling)
    compare, label = judges(stage, inputs)
    schema = datasets.PAIRS if stage.form == 'pairs' else datasets.LABELS
    kept, sampled, dropped, passed = [], [], [], []

    def make(first: int, examples: Sequence[Example]) -> list[dict]:
        rollouts = sample(
            engine, tokenizer, examples, range(first, first + len(examples)), stage.samples, step=0)
        return judge_pairs_of(stage, rollouts, compare) if stage.form == 'pairs' else label_all(rollouts, label)

    with Progress(stage.questions, inputs.name, enabled=is_leader()) as progress:
        size = portion(stage.sampling.slots, stage.samples)
        for first, examples, rows in in_parts(
                folder / 'parts', stage.task, stage.questions, size, inputs.seed, with_reason(schema), make):
            for row in rows:
                reason = row.pop('reason')
                family = family_of(row['task'], row['language'])
                sampled.append(family)
                passed.append(float(not reason))
                if reason:
                    dropped.append((family, reason))
                else:
                    kept.append(row)
            progress.update(first + len(examples), kept=len(kept))
    if not kept:
        raise UserError(f'{inputs.name}: nothing was kept of {len(dropped)} {stage.form}')
    if is_leader():
        datasets.write(folder / 'data' / f'{stage.form}.parquet', kept, schema)
        counted = [row | {'source': 'general', 'n_tokens': _length(row, tokenizer)} for row in kept]
        write_card(folder / 'data', make_card(
            {'stage': inputs.name, 'sampled from': source_of(inputs.model, folder), 'task': stage.task,
             'requests': stage.questions, 'responses to each': stage.samples,
             'temperature': stage.sampling.temperature, 'judge': stage.judge.model},
            counted, sampled, dropped))
    barrier(f'{inputs.name} data')
    figures = {'kept': share_interval(passed)}
    if stage.form == 'pairs':
        figures['orders_agree'] = share_interval([float(row['agreed']) for row in kept])
    else:
        figures['labelled_safe'] = share_interval([float(row['safe']) for row in kept])
    return Artifact(folder / 'data', figures)


def with_reason(schema: pa.Schema) -> pa.Schema:
    """The schema of a part: the rows that were dropped are in it too, with the reason."""
    return schema.append(pa.field('reason', pa.string()))


def judges(stage: PreferencesStage, inputs: Inputs) -> tuple[Compare, Label]:
    """Returns who compares two replies, and who labels a response."""
    if stage.judge.model == WORLD:
        annotator = dataclasses.replace(stage.annotator, seed=inputs.seed)

        def compare(examples, firsts, seconds, vote):
            return [
                annotator.compare(e.question, first, second, e.language, vote)
                for e, first, second in zip(examples, firsts, seconds, strict=True)]

        def label(examples, responses):
            return [annotator.is_safe(e.question, r, e.language) for e, r in zip(examples, responses, strict=True)]

        return compare, label
    chat = open_judge(stage.judge, inputs.decoding)
    return (
        lambda examples, firsts, seconds, vote: judge_pairs(chat, [e.question for e in examples], firsts, seconds),
        lambda examples, responses: judge_safety(chat, [e.question for e in examples], responses))


def judge_pairs_of(stage: PreferencesStage, rollouts: Sequence[Rollout], compare: Compare) -> list[dict]:
    """Judges neighbouring responses (0 and 1, 2 and 3, ...) and borrowed ones `votes` times, every other time in the other
    order.

    The judge reads what follows the thought, as the reward model will.
    """
    pairs = [*zip(rollouts[::2], rollouts[1::2], strict=True), *_borrowed(stage, rollouts)]
    examples = [a.example for a, _ in pairs]
    replies = [[reply_of(r.text) for r in side] for side in zip(*pairs, strict=True)]
    scores = np.zeros((stage.votes, len(pairs)))
    for vote in range(stage.votes):
        turned = vote % 2
        found = compare(examples, replies[turned], replies[1 - turned], vote)
        scores[vote] = [np.nan if score is None else score for score in found]
        if turned:
            scores[vote] *= -1
    rows = []
    for (a, b), mean, orders in zip(
            pairs, scores.mean(axis=0), np.stack([scores[::2].mean(0), scores[1::2].mean(0)], 1), strict=True):
        chosen, rejected = (a, b) if mean >= 0 else (b, a)
        rows.append({
            'prompt': a.example.prompt, 'question': a.example.question, 'chosen': chosen.text, 'rejected': rejected.text,
            'task': a.example.task, 'language': a.example.language, 'id': a.example.id, 'margin': float(abs(mean)),
            'votes': stage.votes, 'agreed': bool(orders[0] * orders[1] > 0), 'reason': _why_not(stage, a, b, mean)})
    return rows


def _borrowed(stage: PreferencesStage, rollouts: Sequence[Rollout]) -> list[tuple[Rollout, Rollout]]:
    """Pairs of a response and one that another request got; the first one's is the question.

    The other request is, by turns, the next of the same task, kind and language, whose responses are hard to tell from
    those to this one, and the next of the same language, without which a reply may please wherever it is never found. No
    pair is made of a request that is the only one of its sort.
    """
    groups = [rollouts[i:i + stage.samples] for i in range(0, len(rollouts), stage.samples)]
    pairs = []
    for nth in range(stage.borrowed):
        sorts = collections.defaultdict(list)
        for group in groups:
            example = group[0].example
            sorts[example.language, *(() if nth % 2 else (example.task, example.kind))].append(group)
        for some in sorts.values():
            pairs += [
                (group[nth], other[nth]) for group, other in zip(some, some[1:] + some[:1], strict=True)
                if group[0].example.question != other[0].example.question]
    return pairs


def _why_not(stage: PreferencesStage, a: Rollout, b: Rollout, mean: float) -> str:
    if not (a.finished and b.finished):
        return 'unfinished'
    if a.text == b.text:
        return 'same'
    if np.isnan(mean):
        return 'unreadable'
    if abs(mean) < stage.margin:
        return 'unclear'
    lengths = sorted((len(a.tokens), len(b.tokens)))
    return 'lengths' if lengths[1] > stage.length_ratio * lengths[0] else ''


def label_all(rollouts: Sequence[Rollout], label: Label) -> list[dict]:
    """Labels every response as a whole, the thought included."""
    safe = label([r.example for r in rollouts], [r.text for r in rollouts])
    return [
        {'prompt': r.example.prompt, 'question': r.example.question, 'response': r.text, 'task': r.example.task,
         'language': r.example.language, 'id': r.example.id, 'safe': bool(verdict),
         'reason': 'unreadable' if verdict is None else ''}
        for r, verdict in zip(rollouts, safe, strict=True)]


def _length(row: dict, tokenizer) -> int:
    return len(tokenizer.encode(row['chosen' if 'chosen' in row else 'response'], continues=True)) + 1


KIND = StageKind(PreferencesStage, run, makes='data', takes={MODEL: 'model'})
