"""Language consistency: what counts as a word, and as a word of the language."""

import time

import pytest

from r1jax.errors import UserError
from r1jax.rewards import Completion, Example, ExampleError, get, language_consistency

ZH = '先算乘法，再算加法'  # 8 characters


@pytest.mark.parametrize('text, language, share', [
    ('first we multiply, then we add', 'en', 1.0),
    (ZH, 'zh', 1.0),
    (ZH, 'en', 0.0),
    ('first we multiply', 'zh', 0.0),
    (ZH + ' then add', 'zh', 0.8),  # 8 characters and 2 words
    (ZH + ' then add', 'en', 0.2),
    ('まず掛け算をする', 'ja', 1.0),
    ('まず掛け算をする', 'zh', 2 / 8),
    ('먼저 곱하고 더한다', 'ko', 1.0),
    ('먼저 곱하고 then', 'ko', 2 / 3),
    ('сначала умножим и сложим', 'ru', 1.0),
    ('сначала multiply', 'ru', 0.5),
    ('نضرب أولا ثم نجمع', 'ar', 1.0),
    ('คูณก่อน', 'th', 1.0),
    ('पहले गुणा करें', 'hi', 1.0),
    ('पहले multiply करें', 'hi', 2 / 3),
    ('প্রথমে গুণ করি', 'bn', 1.0),
    ('ముందు గుణించండి', 'te', 1.0),
    ('first πολλά multiply', 'en', 2 / 3),  # another script is another language
    ('naïve café', 'en', 1.0),
    ('Tom和Ann一样高', 'zh', 4 / 6),  # names are counted as they are written
])
def test_share(text, language, share):
    assert language_consistency(text, language) == pytest.approx(share)


@pytest.mark.parametrize('left_out', [
    '', '37+58=95.', '12 345 6.7', 'x = 3y + 4', 'f(x)=2*x', 'x, y', 'x>y', '$\\frac{a}{b} = mean$',
    '\\(mean + std\\)', '\\[ mean \\]',
    '$$ mean $$', '\\alpha \\text{mean}', '```python\nfor word in words: print(word)\n```', '`word`',
    'def f(x): return x+7', '(B)',
    '...!?', '，。！', 'π α', 'B', '2nd', 'a_b', 'path/to', '<b>', '٣٤', '१२', '１２',
])
def test_left_out(left_out):
    assert language_consistency(f'{ZH} {left_out} {ZH}', 'zh') == 1.0
    assert language_consistency(left_out, 'zh') == 1.0  # nothing to count
    assert language_consistency(f'first add {left_out} then stop', 'en') == 1.0


def test_prices_are_no_mathematics():
    assert language_consistency('一个 $5 then another $6', 'zh') == 0.5


def test_only_the_thought_counts():
    assert language_consistency(f'<think>{ZH}</think><answer>eighty one</answer>', 'zh') == 1.0
    assert language_consistency(f'<think>eighty one</think><answer>{ZH}</answer>', 'zh') == 0.0
    assert language_consistency(f'{ZH}</think>eighty one', 'zh') == 1.0  # the template wrote <think>
    assert language_consistency(f'<think>{ZH}', 'zh') == 1.0  # truncated
    assert language_consistency('<think></think>eighty one', 'zh') == 1.0


def test_region_codes():
    assert language_consistency(ZH, 'zh-CN') == 1.0 and language_consistency('first', 'EN_us') == 1.0


@pytest.mark.parametrize('language, words',
[('fr', 'cannot be told from English'), ('xx', "no language 'xx'"), ('', 'no language')])
def test_languages_that_cannot_be_told(language, words):
    with pytest.raises(UserError, match=words):
        language_consistency('bonjour', language)


def test_reward():
    reward = get('language')
    output = reward([Completion(ZH), Completion(ZH + ' then add')],
    [Example('q', language='en'), Example('q', language='zh')])
    assert output.values.tolist() == pytest.approx([0.0, 0.8])
    with pytest.raises(ExampleError, match="'p7'"):
        reward([Completion(ZH)], [Example('q', id='p7')])


@pytest.mark.parametrize('spam',
['`' * 30_000, '$' * 30_000, '\\(' * 15_000, 'a' * 60_000, '$a' * 15_000, '```' * 10_001, "a-" * 30_000,
                                  '\\[' * 15_000, 'def f(' * 5_000])
def test_spam_is_fast(spam):
    start = time.perf_counter()
    language_consistency(spam, 'en')
    assert time.perf_counter() - start < 2.0
