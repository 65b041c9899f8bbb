"""The accuracy reward: 1 for a right final answer, else 0, by rules that depend on the example's task.

Source: DeepSeek-R1, arXiv 2501.12948, section 2.2.2 (rule-based rewards only, no neural reward model).

Most tasks have one exact form for their answers, and an answer is right if its form is that of the gold answer. So equality
is symmetric, never a matter of substrings, and the same forms pool a majority's votes. Mathematics has more ways to write an
answer than forms can tell (`equivalence`), programs are run (`code`), and reasoning-gym has scorers of its own (`gym`).
"""

from collections.abc import Sequence

import numpy as np

from r1jax.errors import UserError, nearest
from r1jax.rewards import choice, code, equivalence, functions, gym
from r1jax.rewards.answers import (
    ANSWER,
    MAX_ANSWER_CHARS,
    after_thought,
    asks_for_tags,
    extract_answer,
    plain_text,
    tagged_answer,
)
from r1jax.rewards.base import Completion, Example, ExampleError, RewardOutput, register
from r1jax.rewards.math import parse_number
from r1jax.rewards.sandbox import Limits

# Tasks no rule can grade; their accuracy is 0 for every sample, which gives no advantage to any. 'general' is for users'
# own files of such requests.
UNGRADED = frozenset({'everyday', 'knowledge', 'safety', 'general'})

_TEXT = frozenset({'exact', 'logic', 'translation'})
_PROGRAM = frozenset({'code', 'function'})
TASKS = frozenset({'arithmetic', 'math', 'choice', gym.TASK}) | _PROGRAM | _TEXT | UNGRADED
# What is told of programs -> the statuses of `code.STATUSES` that it counts.
_CODE_INFO = {'code_timeouts': ('timeout',), 'code_errors': ('error', 'memory', 'output')}


def final_answer(response: str, example: Example, prefilled: bool = False) -> str | None:
    """Returns the answer of a response, see `extract_answer`; None where there is none.

    Only answer tags count if the prompt has them. Programs are taken as they stand in the tags; without any, what follows
    the thought is the answer if it has a fenced block. prefilled: the template wrote `<think>`.
    """
    tagged = asks_for_tags(example.prompt)
    if example.task not in _PROGRAM:
        return extract_answer(response, prefilled, tagged)
    tail = after_thought(response, prefilled)
    if tagged or not tail or ANSWER in tail:
        return tagged_answer(response, prefilled)
    return tail if code.last_block(tail) is not None else None


def answer_form(answer: str, task: str, options: tuple[str, ...] = ()) -> str | None:
    """Returns the exact form of an answer, or None if it is no answer of this task's kind (empty, hedged).

    'arithmetic': a number. 'math': whatever `equivalence` reads, plain or LaTeX. 'choice': a capital letter. 'function': the
    function in one spelling. 'code': the text of the program. 'reasoning_gym': the text but for spaces. 'exact', 'logic',
    'translation': a number, or text without case, outer punctuation and spaces. Raises ExampleError for an unknown task.
    """
    if task not in TASKS:
        raise ExampleError(f'the accuracy reward knows no task {task!r}{nearest(task, TASKS)}')
    if task == 'code':
        return code.program_of(answer)
    if len(answer) > MAX_ANSWER_CHARS:
        return None
    if task == 'math':
        return equivalence.form_text(answer)
    if task == 'choice':
        return choice.parse_choice(answer, options)
    if task == 'function':
        return functions.normal_form(answer)
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
    """Whether `answer` (not a whole response) is right; False for ungraded tasks. Raises as `are_correct` does."""
    return are_correct([answer], [example])[0]


def are_correct(answers: Sequence[str | None], examples: Sequence[Example]) -> list[bool]:
    """Whether each answer to its example is right, None for no answer; False for ungraded tasks. Programs run side by side.

    Raises ExampleError for an unknown task, and for a gold answer or tests that cannot be read, whatever the answer;
    UserError where a program is to be run and no sandbox works.
    """
    return [credit == 1 for credit in _credits(answers, examples, partial=False, timeout_s=Limits.cpu_s)[0]]


def check_example(example: Example) -> None:
    """Raises ExampleError, naming the example, unless its answers can be graded or need no grading."""
    is_correct('', example)


def prepare(examples: Sequence[Example]) -> None:
    """Imports and starts what grading these examples takes: scorers of reasoning-gym, the sandbox for programs."""
    gym.load(examples)
    code.warm_up(examples)


@register('accuracy', prepare)
def accuracy(
    completions: Sequence[Completion], examples: Sequence[Example], *, prefilled: bool = False, partial: bool = False,
    timeout_s: int = Limits.cpu_s
) -> RewardOutput:
    """1 where the answer of a completion (`final_answer`) is right, else 0.

    prefilled: the template wrote `<think>`, so a response that never closes it has no answer. partial: pays a share for an
    answer that is right in part: a program that passes some of its tests, reasoning-gym's own shares. timeout_s: seconds of
    CPU that a program may take.

    info, 1 or 0 each: 'ungraded' for tasks without a rule; 'unparseable' where a rule finds no answer, or one that is none
    of its task's kind; of programs, NaN elsewhere, 'code_timeouts' for those that ran out of time, and 'code_errors' for
    those that ended otherwise than by a test's verdict (exception, crash, memory, output). Raises as `are_correct` does.
    """
    if not isinstance(timeout_s, int) or timeout_s < 1:
        raise UserError(f"the reward 'accuracy' needs timeout_s of whole seconds, at least 1, not {timeout_s!r}")
    answers = [final_answer(c.text, e, prefilled) for c, e in zip(completions, examples, strict=True)]
    credit_B, statuses = _credits(answers, examples, partial, timeout_s)
    info = {
        'ungraded': [e.task in UNGRADED for e in examples],
        'unparseable': [
            e.task not in UNGRADED and (a is None or answer_form(a, e.task, e.options) is None)
            for a, e in zip(answers, examples, strict=True)]}
    info |= {name: [float('nan') if status is None else status in counted for status in statuses]
             for name, counted in _CODE_INFO.items()}
    return RewardOutput(credit_B, {name: np.array(values, np.float32) for name, values in info.items()})


def _credits(
    answers: Sequence[str | None], examples: Sequence[Example], partial: bool, timeout_s: int
) -> tuple[np.ndarray, list[str | None]]:
    """Returns what each answer is worth, float32 [B] in 0..1, and what came of each program (None of other tasks)."""
    credit_B, statuses = np.zeros(len(answers), np.float32), [None] * len(answers)
    programs = [i for i, example in enumerate(examples) if example.task == 'code']
    if programs:
        for i in programs:
            code.check(examples[i])
        sources = [None if answers[i] is None else code.program_of(answers[i]) for i in programs]
        credit_B[programs], found = code.grade(
            sources, [examples[i] for i in programs], partial=partial, timeout_s=timeout_s)
        for i, status in zip(programs, found, strict=True):
            statuses[i] = status
    for i, (answer, example) in enumerate(zip(answers, examples, strict=True)):
        if example.task == gym.TASK:
            credit = gym.grade(answer, example)
            credit_B[i] = credit if partial or credit == 1 else 0
        elif example.task != 'code' and example.task not in UNGRADED:
            credit_B[i] = _is_right(answer, example)
    return credit_B, statuses


def _is_right(answer: str | None, example: Example) -> bool:
    if example.task == 'function':
        return functions.passes(answer or '', _tests(example))
    if example.task not in TASKS:
        raise ExampleError(f'has a task without an accuracy rule{nearest(example.task, TASKS)}', example)
    gold = answer_form(example.answer, example.task, example.options)
    if gold is None:
        raise ExampleError(f'has a gold answer that cannot be graded: {example.answer!r}', example)
    if answer is None:
        return False
    if example.task == 'math':
        return equivalence.equal(example.answer, answer)
    return answer_form(answer, example.task, example.options) == gold


def _tests(example: Example) -> str:
    """Returns the tests of an example as one Python source that the grader of functions can read."""
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
