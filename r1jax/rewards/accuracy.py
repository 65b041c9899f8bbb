"""The accuracy reward: 1 for a right final answer, else 0, by rules that depend on the example's task.

Source: DeepSeek-R1, arXiv 2501.12948, section 2.2.2 (rule-based rewards only, no neural reward model).

Every task but code and reasoning_gym has one exact form for its answers, and an answer is right if its form is that of the
gold answer. So equality is symmetric, never a matter of substrings, and the same forms pool a majority's votes.
"""

from collections.abc import Sequence

import numpy as np

from r1jax.errors import nearest
from r1jax.rewards import choice, code, gym
from r1jax.rewards.answers import MAX_ANSWER_CHARS, extract_answer, plain_text
from r1jax.rewards.base import Completion, Example, ExampleError, RewardOutput, register
from r1jax.rewards.math import parse_math, parse_number

# Tasks no rule can grade; their accuracy is 0 for every sample, which gives no advantage to any. 'general' is for users'
# own files of such requests.
UNGRADED = frozenset({'everyday', 'knowledge', 'safety', 'general'})

_TEXT = frozenset({'exact', 'logic', 'translation'})
TASKS = frozenset({'arithmetic', 'math', 'choice', 'code', gym.TASK}) | _TEXT | UNGRADED


def answer_form(answer: str, task: str, options: tuple[str, ...] = ()) -> str | None:
    """Returns the exact form of an answer, or None if it is no answer of this task's kind (empty, hedged).

    'arithmetic': a number. 'math': also a multiple of a power of pi, plain or LaTeX. 'choice': a capital
    letter. 'code': the function in one spelling. 'reasoning_gym': the text but for spaces. 'exact', 'logic', 'translation':
    a number, or text without case, outer punctuation and spaces. Raises ExampleError for an unknown task.
    """
    if task not in TASKS:
        raise ExampleError(f'the accuracy reward knows no task {task!r}{nearest(task, TASKS)}')
    if len(answer) > MAX_ANSWER_CHARS:
        return None
    if task == 'math':
        return parse_math(answer)
    if task == 'choice':
        return choice.parse_choice(answer, options)
    if task == 'code':
        return code.normal_form(answer)
    if task == gym.TASK:  # problems may have several right answers: votes for each are its own
        return ' '.join(answer.split()) or None
    number = parse_number(answer)
    if number is not None:
        return str(number)
    return (plain_text(answer) or None) if task != 'arithmetic' else None


def canonical(answer: str, task: str, options: tuple[str, ...] = ()) -> str:
    """Returns the text under which an answer counts in a majority vote: its form, or else its plain text."""
    form = answer_form(answer, task, options)
    return plain_text(answer) if form is None else form


def is_correct(answer: str, example: Example) -> bool:
    """Whether `answer` (not a whole response) is right; False for ungraded tasks.

    Raises ExampleError for an unknown task, and for a gold answer or tests that cannot be read.
    """
    if example.task in UNGRADED:
        return False
    if example.task == 'code':
        return code.passes(answer, _tests(example))
    if example.task == gym.TASK:
        return gym.grade(answer, example) == 1
    gold = _gold_form(example)
    return answer_form(answer, example.task, example.options) == gold


def check_example(example: Example) -> None:
    """Raises ExampleError, naming the example, unless its answers can be graded or need no grading."""
    is_correct('', example)


@register('accuracy')
def accuracy(
    completions: Sequence[Completion], examples: Sequence[Example], *, prefilled: bool = False, partial: bool = False
) -> RewardOutput:
    """1 where the answer in the answer tags is right, else 0. info['ungraded'] is 1 for tasks without a rule.

    prefilled: the template wrote `<think>`, so a response that never closes it has no answer. partial: pays a share for an
    answer that is right in part, where a grader has shares (reasoning_gym). Raises ExampleError for an example that cannot
    be graded, whatever the completion says.
    """
    right = np.zeros(len(completions), np.float32)
    for index, (completion, example) in enumerate(zip(completions, examples, strict=True)):
        answer = extract_answer(completion.text, prefilled)
        if partial and example.task == gym.TASK:
            right[index] = gym.grade(answer, example)
        else:
            right[index] = is_correct(answer or '', example)
    ungraded = np.array([example.task in UNGRADED for example in examples], np.float32)
    return RewardOutput(right, {'ungraded': ungraded})


def _gold_form(example: Example) -> str:
    if example.task not in TASKS:
        raise ExampleError(f'has a task without an accuracy rule{nearest(example.task, TASKS)}', example)
    form = answer_form(example.answer, example.task, example.options)
    if form is None:
        raise ExampleError(f'has a gold answer that cannot be graded: {example.answer!r}', example)
    return form


def _tests(example: Example) -> str:
    """Returns the tests of an example as one Python source that the tiny grader can read."""
    tests = example.tests
    try:
        if not isinstance(tests, str):
            if not all(isinstance(test, str) for test in tests):
                raise code.Refused('they are not Python source')
            tests = '\n'.join(tests)
        code.parse_tests(tests)
    except code.Refused as error:
        raise ExampleError(
            f'has tests the tiny grader cannot read ({error}): general programs need the sandboxed grader',
            example,
        ) from None
    return tests
