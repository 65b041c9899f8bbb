"""Prompt templates: the paper's text, and what of a response a template has written already."""

import hashlib

import pytest

from r1jax.data import templates, tinyworld
from r1jax.errors import UserError


def test_r1_zero_is_the_one_line_of_the_paper_with_the_question_in_it():
    prompt = templates.apply('r1_zero', 'What is prompt 7?')
    assert '\n' not in prompt
    assert prompt.startswith('A conversation between User and Assistant. The user asks a question, ')
    assert prompt.endswith('<answer> answer here </answer>. User: What is prompt 7?. Assistant:')
    # The whole of it, word for word: the digest is of the text in the paper's table.
    assert hashlib.sha256(templates.R1_ZERO.encode()).hexdigest()[:16] == '7ea49a7d669beb46'


@pytest.mark.parametrize('name, expected', [
    ('none', 'Q?'),
    ('boxed', 'Q?\nPlease reason step by step, and put your final answer within \\boxed{}.'),
    ('r1_chat', '<｜User｜>Q?<｜Assistant｜><think>\n'),
    ('tiny', tinyworld.prompt('Q?')),
])
def test_the_other_templates(name, expected):
    assert templates.apply(name, 'Q?') == expected


def test_an_unknown_name_is_refused_with_the_nearest():
    for function in (lambda name: templates.apply(name, 'Q?'), templates.check):
        with pytest.raises(UserError, match="did you mean 'r1_zero'"):
            function('r1zero')
