"""The format reward of DeepSeek-R1-Zero: a thought in think tags, an answer in answer tags, and nothing else.

Source: DeepSeek-R1, arXiv 2501.12948, section 2.2.2 and the template of table 1.
"""

from collections.abc import Sequence

import numpy as np

from r1jax.rewards.answers import ANSWER, ANSWER_END, THINK, THINK_END
from r1jax.rewards.base import Completion, Example, RewardOutput, register


def has_format(text: str, finished: bool = True, prefilled: bool = False) -> bool:
    """Whether a response is `<think> thought </think> <answer> answer </answer>` and nothing else.

    Each tag occurs exactly once, in this order; thought and answer are not blank; only white space stands
    outside. A truncated response (`finished` False) never has the format. prefilled: the template wrote the
    opening `<think>` already, so the response begins within the thought.
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
    return bool(thought.strip() and answer.strip()) and not (before + between + after).strip()


@register('format')
def format_reward(
    completions: Sequence[Completion], examples: Sequence[Example], *, prefilled: bool = False
) -> RewardOutput:
    """1 for a completion that `has_format`, else 0."""
    del examples
    formatted = [has_format(c.text, c.finished, prefilled) for c in completions]
    return RewardOutput(np.array(formatted, np.float32))
