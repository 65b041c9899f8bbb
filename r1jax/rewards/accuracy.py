"""The accuracy reward: 1 for a right final answer, else 0, by rules that depend on the example's task.

Source: DeepSeek-R1, arXiv 2501.12948, section 2.2.2 (rule-based rewards only, no neural reward model).

Every task but those of programs has one exact form for its answers, and an answer is right if its form is that of the gold
answer. So equality is symmetric, never a matter of substrings, and the same forms pool a majority's votes.
"""

from collections.abc import Sequence

import numpy as np

from r1jax.errors import UserError, nearest
from r1jax.rewards import choice, code, functions
from r1jax.rewards.answers import MAX_ANSWER_CHARS, THINK, THINK_END, extract_answer, plain_text
from r1jax.rewards.base import Completion, Example, ExampleError, RewardOutput, register
from r1jax.rewards.math import parse_math, parse_number

# Tasks no rule can grade; their accuracy is 0 for every sample, which gives no advantage to any. 'general' is for users'
# own files of such requests.
UNGRADED = frozenset({'everyday', 'knowledge', 'safety', 'general'})

_CODE_INFO = {
    'code_timeouts': ('timeout',), 'code_errors': ('error', 'memory', 'output'), 'code_missing': ('no code',)}
_TEXT = frozenset({'exact', 'logic', 'translation'})
TASKS = frozenset({'arithmetic', 'math', 'choice', 'function', 'code'}) | _TEXT | UNGRADED


def answer_form(answer: str, task: str, options: tuple[str, ...] = ()) -> str | None:
    """Returns the exact form of an answer, or None if it is no answer of this task's kind (empty, hedged).

    'arithmetic': a number. 'math': also a multiple of a power of pi, plain or LaTeX. 'choice': a capital
    letter. 'function': the function in one spelling. 'code': the text of the program. 'exact', 'logic', 'translation': a
    number, or text without case, outer punctuation and spaces. Raises ExampleError for an unknown task.
    """
    if task not in TASKS:
        raise ExampleError(f'the accuracy reward knows no task {task!r}{nearest(task, TASKS)}')
    if task == 'code':
        return code.program_of(answer)
    if len(answer) > MAX_ANSWER_CHARS:
        return None
    if task == 'math':
        return parse_math(answer)
    if task == 'choice':
        return choice.parse_choice(answer, options)
    if task == 'function':
        return functions.normal_form(answer)
    number = parse_number(answer)
    if number is not None:
        return str(number)
    return (plain_text(answer) or None) if task != 'arithmetic' else None


def canonical(answer: str, task: str, options: tuple[str, ...] = ()) -> str:
    """Returns the text under which an answer counts in a majority vote: its form, or else its plain text."""
    form = answer_form(answer, task, options)
    return plain_text(answer) if form is None else form


def final_answer(response: str, example: Example, prefilled: bool = False) -> str | None:
    """Returns the answer in a response's answer tags, None where there is none. prefilled: the template wrote `<think>`.

    A program without the tags is what follows the thought, if that has a fenced block.
    """
    answer = extract_answer(response, prefilled)
    if answer is None and example.task == 'code':
        _, closed, tail = response.rpartition(THINK_END)
        thinking = THINK in tail or (prefilled and not closed)
        return None if thinking or code.last_block(tail) is None else tail
    return answer


def is_correct(answer: str, example: Example) -> bool:
    """Whether `answer` (not a whole response) is right; False for ungraded tasks.

    Raises ExampleError for an unknown task, and for a gold answer or tests that cannot be read; UserError where a program is
    to be run and no sandbox works.
    """
    return are_correct([answer], example)[0]


def are_correct(answers: Sequence[str | None], example: Example) -> list[bool]:
    """`is_correct` of several answers to one example, None for no answer; programs run side by side."""
    if example.task in UNGRADED:
        return [False] * len(answers)
    if example.task == 'code':
        code.check(example)
        programs = [None if answer is None else code.program_of(answer) for answer in answers]
        return [status == 'passed' for status in code.grade(programs, [example] * len(programs))[1]]
    if example.task == 'function':
        tests = _tests(example)
        return [functions.passes(answer or '', tests) for answer in answers]
    gold = _gold_form(example)
    return [answer is not None and answer_form(answer, example.task, example.options) == gold for answer in answers]


def check_example(example: Example) -> None:
    """Raises ExampleError, naming the example, unless its answers can be graded or need no grading."""
    is_correct('', example)


@register('accuracy')
def accuracy(
    completions: Sequence[Completion], examples: Sequence[Example], *, prefilled: bool = False, partial: bool = False,
    timeout_s: int = 4
) -> RewardOutput:
    """1 where the answer in the answer tags is right, else 0. info['ungraded'] is 1 for tasks without a rule.

    prefilled: the template wrote `<think>`, so a response that never closes it has no answer. partial: a program (task
    'code') that passes some of its tests gets their share. timeout_s: seconds of CPU that a program may take. A program may
    also stand after the thought without answer tags, in the last fenced block. Of each program info says, 1 or 0, whether it
    ran out of time ('code_timeouts'), ended otherwise than by a test's verdict ('code_errors': exception, crash, memory,
    output), or is missing ('code_missing').

    Raises ExampleError for an example that cannot be graded, whatever the completion says, and UserError where programs are
    to be run and no sandbox works.
    """
    if not isinstance(timeout_s, int) or timeout_s < 1:
        raise UserError(f"the reward 'accuracy' needs timeout_s of whole seconds, at least 1, not {timeout_s!r}")
    right = np.zeros(len(completions), np.float32)
    programs = {}
    for index, (completion, example) in enumerate(zip(completions, examples, strict=True)):
        answer = final_answer(completion.text, example, prefilled)
        if example.task == 'code':
            programs[index] = None if answer is None else code.program_of(answer)
        else:
            right[index] = is_correct(answer or '', example)
    info = {'ungraded': np.array([example.task in UNGRADED for example in examples], np.float32)}
    places = np.array(list(programs), int)
    right[places], statuses = code.grade(
        list(programs.values()), [examples[place] for place in places], partial=partial, timeout_s=timeout_s)
    for name, counted in _CODE_INFO.items():
        info[name] = np.zeros(len(completions), np.float32)
        info[name][places] = [status in counted for status in statuses]
    return RewardOutput(right, info)


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
                raise functions.Refused('they are not Python source')
            tests = '\n'.join(tests)
        functions.parse_tests(tests)
    except functions.Refused as error:
        raise ExampleError(
            f"has tests the tiny grader cannot read ({error}): general programs are of the task 'code'", example) from None
    return tests
