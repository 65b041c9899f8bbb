"""Prompt templates: how a question becomes the text a model goes on from."""

import dataclasses

from r1jax.data import tinyworld
from r1jax.errors import UserError, nearest

# The R1-Zero training template, word for word: DeepSeek-R1 (arXiv 2501.12948 v1), table 1. The last `prompt`
# in it stands for the question.
R1_ZERO = (
    'A conversation between User and Assistant. The user asks a question, and the Assistant solves it. '
    'The assistant first thinks about the reasoning process in the mind and then provides the user with the '
    'answer. The reasoning process and answer are enclosed within <think> </think> and <answer> </answer> '
    'tags, respectively, i.e., <think> reasoning process here </think> <answer> answer here </answer>. '
    'User: prompt. Assistant:')

# What the paper's evaluation adds to a mathematics question (arXiv 2501.12948, and DeepSeek-R1's model card).
BOXED_SUFFIX = 'Please reason step by step, and put your final answer within \\boxed{}.'


@dataclasses.dataclass(frozen=True)
class Template:
    """What stands around the question; BOS is not part of it.

    Where `after` ends in an opening think tag, responses begin inside the thought: see `rollout.prefilled`.
    """

    before: str = ''
    after: str = ''


_TEMPLATES = {
    'none': Template(),
    'r1_zero': Template(*R1_ZERO.rsplit('prompt', 1)),
    'boxed': Template(after='\n' + BOXED_SUFFIX),
    # R1's chat form: one turn, no system prompt (as its authors advise), in its tokenizer's own tokens.
    'r1_chat': Template(before='<｜User｜>', after='<｜Assistant｜><think>\n'),
    'tiny': Template(*tinyworld.prompt('\0').split('\0')),
}


def names() -> list[str]:
    """Returns the names `apply` knows."""
    return sorted(_TEMPLATES)


def apply(name: str, question: str) -> str:
    """Returns the prompt for `question`.

    Args:
        name: 'r1_zero' (the paper's template), 'tiny' (tiny world's one-line header), 'boxed' (the evaluation
            suffix for mathematics), 'r1_chat' (R1's own chat form) or 'none' (the bare question).
        question: the problem.

    Raises:
        UserError: unknown template name.
    """
    check(name)
    template = _TEMPLATES[name]
    return template.before + question + template.after


def check(name: str) -> None:
    """Raises UserError for a name that `apply` does not know."""
    if name not in _TEMPLATES:
        raise UserError(f'template {name!r}: no such template{nearest(name, names())}')
