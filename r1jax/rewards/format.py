"""The format reward of DeepSeek-R1-Zero: a thought in think tags, an answer in answer tags, and nothing else.

Source: DeepSeek-R1, arXiv 2501.12948, section 2.2.2 and the template of table 1. For simple requests such as "hello" the
data of its third stage (rejection sampling and fine-tuning; section 2.3.3, and the 2025 revision) has no chain of thought,
so for requests that no rule can grade the thought may be blank.
"""

from collections.abc import Sequence

import numpy as np

from r1jax.rewards.accuracy import UNGRADED
from r1jax.rewards.answers import ANSWER, ANSWER_END, THINK, THINK_END
from r1jax.rewards.base import Completion, Example, RewardOutput, register


def has_format(text: str, finished: bool = True, prefilled: bool = False, blank_thought: bool = False) -> bool:
    """Whether a response is `<think> thought </think> <answer> answer </answer>` and nothing else.

    Each tag occurs exactly once, in this order; thought and answer are not blank; only white space stands
    outside. A truncated response (`finished` False) never has the format. prefilled: the template wrote the
    opening `<think>` already, so the response begins within the thought. blank_thought: nothing, or only white space,
    may stand between the think tags, which are still needed.
    """
    if not finished:
        return False
    if prefilled:
        text = THINK + text
    if any(text.count(tag) != 1 for tag in (THINK, THINK_END, ANSWER, ANSWER_END)):
        return False
    before, _, rest = text.partition(THINK)
    thought, thought_closed, rest = rest.partition(THINK_END)
    between, answer_opened, rest = rest.partition(ANSWER)
    answer, answer_closed, after = rest.partition(ANSWER_END)
    if not (thought_closed and answer_opened and answer_closed):
        return False
    return bool((thought.strip() or blank_thought) and answer.strip()) and not (before + between + after).strip()


@register('format')
def format_reward(
    completions: Sequence[Completion], examples: Sequence[Example], *, prefilled: bool = False
) -> RewardOutput:
    """1 for a completion that `has_format`, else 0; to a request that no rule can grade, also without a thought."""
    formatted = [
        has_format(completion.text, completion.finished, prefilled, blank_thought=example.task in UNGRADED)
        for completion, example in zip(completions, examples, strict=True)]
    return RewardOutput(np.array(formatted, np.float32))
