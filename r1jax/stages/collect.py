"""Collects examples to fine-tune on: samples a model, keeps what is right and readable, and adds general data.

The paper does so twice (DeepSeek-R1, arXiv 2501.12948, 2025 revision). For the cold start R1-Zero is sampled at T = 1 and
what is correct and readable is kept. In the third stage, rejection sampling, the reasoning model is sampled several times a
question; chains that mix languages, hold long paragraphs or code blocks, or end in a wrong answer are dropped, and general
data are added, 1 to 3 of reasoning.

What is sampled is written in parts, so that an interrupted stage goes on after the last one. Beside the examples lies a data
card: how many were kept of which family, how long they are, and why the others were dropped.
"""

import collections
import dataclasses
import pathlib
import re
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from r1jax.data import tasks, templates
from r1jax.data.tokenizers import Tokenizer
from r1jax.errors import UserError, at_least
from r1jax.models.config import ModelConfig
from r1jax.parallel.distributed import barrier, is_leader
from r1jax.parallel.rules import Sharding
from r1jax.rewards.accuracy import UNGRADED, final_answer, is_correct
from r1jax.rewards.answers import text_read, thoughts, without_tags
from r1jax.rewards.base import Example
from r1jax.rewards.chat import JudgeConfig, check_chat
from r1jax.rewards.format import has_format
from r1jax.rewards.judge import judge_correctness
from r1jax.rewards.language import language_metric
from r1jax.rewards.mix import RewardMix
from r1jax.rewards.shaping import repetition
from r1jax.runtime import datasets
from r1jax.runtime.datacard import family_of, make_card, source_of, write_card
from r1jax.runtime.progress import Progress
from r1jax.sampling.engine import Engine
from r1jax.sampling.logits import SamplingConfig
from r1jax.stages.base import MODEL, Artifact, Inputs, StageKind
from r1jax.stages.evaluate import groups_of, load_sampler, share_interval
from r1jax.stages.parts import in_parts, open_judge, portion
from r1jax.stages.rollout import Rollout, check_lengths, prefilled, sample
from r1jax.stages.scoring import Payroll, reward_pool

# Repetition is measured over runs of this many words.
RUN = 8
_FIELD = re.compile(r'\{(thought|summary|answer)\}')
_SAMPLES = pa.schema(
    [('prompt_id', pa.int64()), ('sample', pa.int32()), ('completion', pa.string()), ('reason', pa.string())])
_REJECTED = pa.schema(
    [(name, pa.string()) for name in ('prompt', 'completion', 'task', 'language', 'answer', 'id', 'reason')])


@dataclasses.dataclass(frozen=True)
class Keep:
    """What a response must be. The checks are made in this order, and the first that fails is the reason it was dropped for.

    Attributes:
        format: whether it must have the form of thought and answer ('format'); one that was cut never passes ('unfinished').
        correct: whether its answer must be right ('wrong'), by rule, or by the judge for tasks that no rule grades.
        language: the least share of the thought in the language of the question ('mixed_language').
        repetition: the largest share of runs of 8 words that the thought has said before ('repetition').
        code_blocks: whether the thought may hold fenced code ('code_block').
        paragraph: most characters of a paragraph of the thought ('long_paragraph'); 0 is no limit.
    """

    format: bool = True
    correct: bool = True
    language: float = 1.0
    repetition: float = 0.2
    code_blocks: bool = False
    paragraph: int = 0

    def __post_init__(self):
        for name in ('language', 'repetition'):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f'keep.{name} must be a share in 0..1, got {getattr(self, name)}')
        at_least(0, self, 'paragraph')

    def reason(self, rollout: Rollout, correct: bool | None) -> str:
        """Returns why a response is dropped, '' if it is kept. `correct` None: nothing could tell."""
        text, example = rollout.text, rollout.example
        thought = thoughts(text)
        if not rollout.finished:
            return 'unfinished'
        if self.format and not has_format(text, True, prefilled(example), example.task in UNGRADED):
            return 'format'
        if self.correct and not correct:
            return 'wrong' if correct is not None else 'ungraded'
        if language_metric(text, example.language) < self.language:  # NaN, where nothing tells, is not
            return 'mixed_language'
        if repetition(thought, RUN) > self.repetition:
            return 'repetition'
        if not self.code_blocks and '```' in thought:
            return 'code_block'
        if self.paragraph and max(map(len, re.split(r'\n\s*\n', thought))) > self.paragraph:
            return 'long_paragraph'
        return ''


@dataclasses.dataclass(frozen=True)
class CollectStage:
    """Settings of the stage.

    Attributes:
        task: the questions.
        questions: how many of the training split, from its beginning.
        samples: N, responses a question.
        sampling: temperature, filters and limits.
        keep: what is kept.
        most: kept responses of one question, the first ones.
        judge: a generative judge of responses that no rule grades.
        template: the prompt template of the examples; '' leaves the prompt that was sampled from.
        form: what a completion of the examples looks like, made of {thought}, {summary} (all that follows the thought,
            without tags) and {answer}; '' leaves what was sampled.
        general: a task whose demonstrations are added; '' adds none.
        general_ratio: how many of them for each example that was kept.
        general_correct: whether demonstrations that a rule can grade must be right.
        reward_workers: processes that grade answers while others are sampled; 0 grades them in this one.
        reward_timeout_s: run time after which a worker is killed and its response counts as wrong.
    """

    task: str
    questions: int
    sampling: SamplingConfig
    samples: int = 4
    keep: Keep = Keep()
    most: int = 1
    judge: JudgeConfig | None = None
    template: str = ''
    form: str = ''
    general: str = ''
    general_ratio: float = 1 / 3
    general_correct: bool = True
    reward_workers: int = 0
    reward_timeout_s: float = 10.0

    def __post_init__(self):
        at_least(1, self, 'questions', 'samples', 'most')
        at_least(0, self, 'reward_workers')
        if self.template:
            templates.check(self.template)
        if self.form and '{thought}' not in self.form:
            raise UserError("form must have a place for the {thought}")
        if not self.general_ratio >= 0:
            raise UserError(f'general_ratio must be 0 or more, got {self.general_ratio}')

    @property
    def prompts_from(self) -> list[str]:
        """The tasks that prompts come from."""
        return [self.task] + ([self.general] if self.general else [])

    def check(self, sharding: Sharding, model: ModelConfig | None) -> None:
        """Raises UserError without a model, or for lengths, an unknown task, missing demonstrations or gold answers."""
        if model is None:
            raise UserError('a stage of kind collect needs a model to sample: set base, or put a stage before it')
        check_lengths(model, self.sampling, sharding)
        if self.judge is not None:
            check_chat(self.judge)
        tasks.check_answers(self.task, 'train')
        if self.general and not next(tasks.open_task(self.general, 'train')).response:
            raise UserError(f"general: the task '{self.general}' has no demonstrations (the field 'response' is empty)")


def run(stage: CollectStage, inputs: Inputs, folder: pathlib.Path) -> Artifact:
    """Samples what is missing of the parts, then writes data/ (examples.parquet and the card) and rejected.parquet."""
    engine, tokenizer = load_sampler(inputs, stage.sampling)
    chat = open_judge(stage.judge, inputs.decoding) if stage.judge else None
    verdicts = []

    def make(first: int, examples: Sequence[Example]) -> list[dict]:
        mix = RewardMix('accuracy=1', prefilled=prefilled(examples[0]), pool=pool)
        return sample_part(stage, engine, tokenizer, examples, first, mix, chat)

    with (
        reward_pool(stage.reward_workers, stage.reward_timeout_s) as pool,
        Progress(stage.questions, inputs.name, enabled=is_leader()) as progress,
    ):
        size = portion(stage.sampling.slots, stage.samples)
        for first, examples, rows in in_parts(
                folder / 'parts', stage.task, stage.questions, size, inputs.seed, _SAMPLES, make):
            verdicts += [(examples[row['prompt_id'] - first], row) for row in rows]
            progress.update(first + len(examples), kept=float(np.mean([not row['reason'] for _, row in verdicts])))
    kept, dropped = choose(stage, verdicts)
    reasoning = [
        _row(stage, example, formatted(stage, example, row['completion']), 'reasoning', tokenizer)
        for example, row in kept]
    if not reasoning:
        counts = collections.Counter(row['reason'] for _, row in dropped).most_common(3)
        raise UserError(
            f'{inputs.name}: nothing was kept of {len(dropped)} responses ('
            + ', '.join(f'{reason} {count}' for reason, count in counts) + ')')
    general = list(demonstrations(stage, round(stage.general_ratio * len(reasoning)), inputs.seed, tokenizer))
    figures = acceptance(stage, verdicts)
    if is_leader():
        datasets.write(folder / 'data' / 'examples.parquet', reasoning + general, datasets.EXAMPLES)
        datasets.write(folder / 'rejected.parquet', [
            {'prompt': e.prompt, 'completion': row['completion'], 'task': e.task, 'language': e.language, 'answer': e.answer,
             'id': e.id, 'reason': row['reason']} for e, row in dropped], _REJECTED)
        write_card(folder / 'data', make_card(
            {'stage': inputs.name, 'sampled from': source_of(inputs.model, folder), 'task': stage.task,
             'questions': stage.questions, 'responses to each': stage.samples, 'temperature': stage.sampling.temperature,
             'general task': stage.general},
            reasoning + general, [family_of(e.task, e.language) for e, _ in verdicts],
            [(family_of(e.task, e.language), row['reason']) for e, row in dropped]))
    barrier(f'{inputs.name} data')
    return Artifact(folder / 'data', figures)


def sample_part(
    stage: CollectStage, engine: Engine, tokenizer: Tokenizer, examples: Sequence[Example], first: int, mix: RewardMix, chat
) -> list[dict]:
    """Samples N responses of each question; a row for each, with the reason it is dropped for or ''."""
    payroll = Payroll(mix, len(examples), stage.samples, first, step=0)
    rollouts = sample(
        engine, tokenizer, examples, range(first, first + len(examples)), stage.samples, step=0, on_finished=payroll.add)
    right = [
        None if rollout.example.task in UNGRADED else bool(accuracy == 1)
        for rollout, accuracy in zip(rollouts, payroll.outcome()['accuracy'], strict=True)]
    if chat is not None:
        asked = [i for i, correct in enumerate(right) if correct is None]
        found = judge_correctness(
            chat, [rollouts[i].example.question for i in asked], [rollouts[i].example.answer for i in asked],
            [summary_of(rollouts[i].text) for i in asked])
        for i, verdict in zip(asked, found, strict=True):
            right[i] = verdict.correct
    return [
        {'prompt_id': r.prompt_id, 'sample': r.sample, 'completion': r.text, 'reason': stage.keep.reason(r, correct)}
        for r, correct in zip(rollouts, right, strict=True)]


def summary_of(text: str) -> str:
    """What follows the thought, without tags."""
    return without_tags(text_read(text, 'summary')).strip()


def choose(stage: CollectStage, verdicts: Sequence[tuple[Example, dict]]) -> tuple[list, list]:
    """Splits into kept and dropped: at most `most` responses of a question, and none of them twice."""
    kept, dropped = [], []
    taken: dict[str, set[str]] = collections.defaultdict(set)
    for example, row in verdicts:
        before = taken[example.prompt]
        reason = row['reason'] or (
            'duplicate' if row['completion'] in before else 'enough' if len(before) == stage.most else '')
        if reason:
            dropped.append((example, row | {'reason': reason}))
        else:
            before.add(row['completion'])
            kept.append((example, row))
    return kept, dropped


def formatted(stage: CollectStage, example: Example, text: str) -> str:
    """The completion of an example, in the form that is wanted."""
    if not stage.form:
        return text
    parts = {
        'thought': thoughts(text).strip(), 'summary': summary_of(text),
        'answer': final_answer(text, example, prefilled(example)) or ''}
    return _FIELD.sub(lambda field: parts[field[1]], stage.form)


def demonstrations(stage: CollectStage, n: int, seed: int, tokenizer: Tokenizer) -> Iterator[dict]:
    """Yields n different demonstrations of the general task; fewer where its training split repeats itself."""
    if not stage.general or not n:
        return
    seen = set()
    examples = tasks.open_task(stage.general, 'train', seed=seed)
    for _ in range(20 * n):
        example = next(examples)
        if not example.response or (example.prompt, example.response) in seen:
            continue
        seen.add((example.prompt, example.response))
        if stage.general_correct and example.task not in UNGRADED and not is_correct(
                final_answer(example.response, example, prefilled(example)) or '', example):
            continue
        yield _row(stage, example, example.response, 'general', tokenizer)
        n -= 1
        if not n:
            return


def _row(stage: CollectStage, example: Example, completion: str, source: str, tokenizer: Tokenizer) -> dict:
    prompt = templates.apply(stage.template, example.question) if stage.template else example.prompt
    return {
        'prompt': prompt, 'completion': completion, 'task': example.task, 'kind': example.kind, 'language': example.language,
        'answer': example.answer, 'id': example.id, 'source': source,
        'n_tokens': len(tokenizer.encode(completion, continues=True)) + 1}


def acceptance(stage: CollectStage, verdicts: Sequence[tuple[Example, dict]]) -> dict[str, dict[str, float]]:
    """The share of responses that pass all checks, by group, with intervals over questions."""
    by_question: dict[int, list[bool]] = collections.defaultdict(list)
    example_of = {}
    for example, row in verdicts:
        by_question[row['prompt_id']].append(not row['reason'])
        example_of[row['prompt_id']] = example
    groups = collections.defaultdict(list)
    for prompt_id, passed in by_question.items():
        for group in groups_of(example_of[prompt_id]):
            groups[group].append(np.mean(passed))
    t = f'T={stage.sampling.temperature:g}'
    return {f'acceptance/{t}/{group}': share_interval(shares) for group, shares in groups.items()}


KIND = StageKind(CollectStage, run, makes='data', takes={MODEL: 'model'})
