"""How the tiny models are measured: the paper's protocol, T = 1 as in training, harder problems, and preference."""

from ml_collections import ConfigDict

SLOTS, MAX_TOKENS, CHUNK = 128, 96, 8
STUDENT_TOKENS = 128
STAGE_PROBLEMS = 128


def _suite(
    task: str, problems: int, samples: int, temperature: float = 0.6, top_p: float = 0.95, max_tokens: int = MAX_TOKENS
) -> ConfigDict:
    return ConfigDict({
        'task': task, 'problems': problems, 'samples': samples,
        'sampling': {'slots': SLOTS, 'max_tokens': max_tokens, 'temperature': temperature, 'top_p': top_p, 'chunk': CHUNK}})


def _reasoning(problems: int, max_tokens: int = MAX_TOKENS) -> dict[str, ConfigDict]:
    return {
        'main': _suite('tiny_reasoning', problems, 16, max_tokens=max_tokens),
        'main@1': _suite('tiny_reasoning', problems, 4, 1.0, 1.0, max_tokens)}


def paper(problems: int = 512) -> ConfigDict:
    """pass@1 of 16 samples at T = 0.6 and top-p 0.95, T = 1 beside it, and one size longer than trained."""
    return ConfigDict({'suites': _reasoning(problems) | {'longer': _suite('tiny_arithmetic:difficulty=7', 64, 16)}})


def stages() -> ConfigDict:
    """What the stages of R1 are measured by: reasoning as in `paper`, on fewer problems because the models are many, and
    requests of which the world knows the truth.

    'helpful' are everyday requests and questions of fact; 'benign' are requests that look harmful and deserve help. Longer
    replies are let through, because the student's tokenizer cuts the same text into a fourth more tokens.
    """
    return ConfigDict({'suites': _reasoning(STAGE_PROBLEMS, STUDENT_TOKENS) | {
        'helpful': _suite('tiny_helpful', 128, 2, max_tokens=STUDENT_TOKENS),
        'harmful': _suite('tiny_safety:kind=harmful', 64, 2, max_tokens=STUDENT_TOKENS),
        'benign': _suite('tiny_safety:kind=benign', 64, 2, max_tokens=STUDENT_TOKENS),
    }})


def short() -> ConfigDict:
    """A first look: 256 problems, 4 samples."""
    return ConfigDict({'suites': {'main': _suite('tiny_reasoning', 256, 4)}})


def check() -> ConfigDict:
    """Few problems and samples at T = 1: whether weights on disk still are those that were measured."""
    return ConfigDict({'suites': {'main': _suite('tiny_reasoning', 128, 4, 1.0, 1.0)}})
