"""How the tiny models are measured: the paper's protocol, T = 1 as in training, harder problems, and preference."""

from ml_collections import ConfigDict

SLOTS, MAX_TOKENS, CHUNK = 128, 96, 8


def _suite(task: str, problems: int, samples: int, temperature: float, top_p: float) -> ConfigDict:
    return ConfigDict({
        'task': task, 'problems': problems, 'samples': samples,
        'sampling': {'slots': SLOTS, 'max_tokens': MAX_TOKENS, 'temperature': temperature, 'top_p': top_p, 'chunk': CHUNK}})


def paper() -> ConfigDict:
    """pass@1 of 16 samples at T = 0.6 and top-p 0.95 on 512 problems, T = 1 beside it, and one size longer than trained."""
    return ConfigDict({'suites': {
        'main': _suite('tiny_reasoning', 512, 16, 0.6, 0.95),
        'main@1': _suite('tiny_reasoning', 512, 4, 1.0, 1.0),
        'longer': _suite('tiny_arithmetic:difficulty=7', 64, 16, 0.6, 0.95),
    }})


def stages() -> ConfigDict:
    """What the stages of R1 are measured by: reasoning as in `paper`, on half as many problems because the models are many,
    and requests of which the world knows the truth.

    'helpful' are everyday requests and questions of fact; 'benign' are requests that look harmful and deserve help.
    """
    return ConfigDict({'suites': {
        'main': _suite('tiny_reasoning', 256, 16, 0.6, 0.95),
        'main@1': _suite('tiny_reasoning', 256, 4, 1.0, 1.0),
        'helpful': _suite('tiny_helpful', 192, 4, 0.6, 0.95),
        'harmful': _suite('tiny_safety:kind=harmful', 96, 4, 0.6, 0.95),
        'benign': _suite('tiny_safety:kind=benign', 96, 4, 0.6, 0.95),
    }})


def short() -> ConfigDict:
    """A first look: 256 problems, 4 samples."""
    return ConfigDict({'suites': {'main': _suite('tiny_reasoning', 256, 4, 0.6, 0.95)}})


def check() -> ConfigDict:
    """Few problems and samples at T = 1: whether weights on disk still are those that were measured."""
    return ConfigDict({'suites': {'main': _suite('tiny_reasoning', 128, 4, 1.0, 1.0)}})
