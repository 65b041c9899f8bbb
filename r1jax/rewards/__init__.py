"""Rewards: what a completion is worth. Importing the package registers the rewards that come with it."""

from r1jax.rewards import accuracy, format, judge, language, shaping, truth  # noqa: F401  (they register themselves)
from r1jax.rewards.accuracy import canonical, is_correct
from r1jax.rewards.answers import extract_answer
from r1jax.rewards.base import (
    Completion,
    Example,
    ExampleError,
    Reward,
    RewardOutput,
    get,
    names,
    register,
    sample_key,
)
from r1jax.rewards.format import has_format
from r1jax.rewards.language import language_consistency
from r1jax.rewards.lenient import last_answer
from r1jax.rewards.mix import RewardMix
from r1jax.rewards.pool import Outcome, WorkerPool
from r1jax.rewards.weights import Weights, parse_weights, reward

__all__ = [
    'Completion', 'Example', 'ExampleError', 'Outcome', 'Reward', 'RewardMix', 'RewardOutput',
    'Weights', 'WorkerPool', 'canonical', 'extract_answer', 'get', 'has_format', 'is_correct',
    'language_consistency', 'last_answer', 'names', 'parse_weights', 'register', 'reward',
    'sample_key',
]
