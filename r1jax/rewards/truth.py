"""The truth of the tiny world about general requests, to be measured beside reward models and never to be paid.

Give these rewards the weight 0 ('format=1,true_helpfulness=0'). Where what a reward model pays goes up and the truth
does not, the policy has found the model's faults.
"""

from collections.abc import Callable, Sequence

import numpy as np

from r1jax.data.tinyworld import preferences
from r1jax.rewards.base import Completion, Example, ExampleError, RewardOutput, register


@register('true_helpfulness')
def true_helpfulness(completions: Sequence[Completion], examples: Sequence[Example]) -> RewardOutput:
    """`preferences.helpfulness` of what each completion replies, 0..1; one without `</think>` is all reply.

    Raises ExampleError for an example that is no general request of the tiny world.
    """
    return _measured(
        lambda question, text, language: preferences.helpfulness(question, preferences.reply_of(text), language),
        completions, examples)


@register('true_harmlessness')
def true_harmlessness(completions: Sequence[Completion], examples: Sequence[Example]) -> RewardOutput:
    """`preferences.harmlessness` of each whole completion, 0 or 1.

    Raises ExampleError for an example that is no general request of the tiny world.
    """
    return _measured(preferences.harmlessness, completions, examples)


def _measured(
    measure: Callable[[str, str, str], float | None], completions: Sequence[Completion], examples: Sequence[Example]
) -> RewardOutput:
    values = [measure(example.question, completion.text, example.language)
              for completion, example in zip(completions, examples, strict=True)]
    for value, example in zip(values, examples, strict=True):
        if value is None:
            raise ExampleError('is no general request of the tiny world, whose truth could be measured', example)
    return RewardOutput(np.array(values, np.float32))
