"""Models that are asked in words: one behind an OpenAI-compatible endpoint, or an r1jax checkpoint.

A `Chat` gets prompts and gives texts, in the order of the prompts. A text is a whole reply or '': where the prompt does
not fit into the model, the reply was cut at `max_tokens`, or the model refused, there is nothing to rely on.
"""

import collections
import concurrent.futures
import dataclasses
import math
import os
import re
import urllib.parse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from r1jax.data import templates
from r1jax.errors import UserError, at_least, nearest
from r1jax.rewards.answers import THINK
from r1jax.rewards.base import sample_key

if TYPE_CHECKING:
    from r1jax.models.config import ModelConfig
    from r1jax.parallel.rules import Sharding
    from r1jax.runtime.checkpoint import Model

Chat = Callable[[Sequence[str]], list[str]]

# The model's name for the tiny world's simulated annotator, which judges pairs without being asked in words.
WORLD = 'world'

# How servers say that a prompt is too long (OpenAI, vLLM, SGLang, llama.cpp); their status is that of other faults, too.
_TOO_LONG = re.compile(r'context[ _](?:length|size|window)')


@dataclasses.dataclass(frozen=True)
class JudgeConfig:
    """Which model is asked, and how.

    Attributes:
        model: an OpenAI-compatible endpoint ('http://127.0.0.1:8000/v1'), a checkpoint ('package:NAME' or a model folder),
            or 'world', the tiny world's simulated annotator.
        name: the model's name at the endpoint.
        api_key_env: the environment variable that holds the endpoint's key; it need not exist for one without keys.
        timeout_s: seconds that the endpoint may let a request wait.
        retries: further attempts after a failure that may pass (no connection, a timeout, HTTP 408, 409, 429 or 5xx).
        parallel: requests in flight; for a checkpoint, sequences decoded at once, rounded up to what the mesh divides.
        max_tokens: longest reply, thinking included.
        temperature: 0 is greedy.
        template: prompt template of a checkpoint, a name of `data.templates`; an endpoint has its own.
    """

    model: str
    name: str = ''
    api_key_env: str = 'OPENAI_API_KEY'
    timeout_s: float = 60.0
    retries: int = 2
    parallel: int = 8
    max_tokens: int = 512
    temperature: float = 0.0
    template: str = 'none'

    def __post_init__(self):
        if not self.model:
            raise UserError("model is empty: name an endpoint ('http://127.0.0.1:8000/v1'), a checkpoint or 'world'")
        if self.is_endpoint:
            if not _is_url(self.model):
                raise UserError(f"model='{self.model}' is no address: write one like 'http://127.0.0.1:8000/v1'")
            if not self.name:
                raise UserError(f"the endpoint '{self.model}' needs the model's name: set name")
        at_least(1, self, 'parallel', 'max_tokens')
        at_least(0, self, 'retries', 'temperature')
        for name in ('timeout_s', 'temperature'):
            if not math.isfinite(getattr(self, name)):
                raise UserError(f'{name}={getattr(self, name)} must be finite')
        if self.timeout_s <= 0:
            raise UserError(f'timeout_s={self.timeout_s} must be more than 0')
        templates.check(self.template)

    @property
    def is_endpoint(self) -> bool:
        return self.model.startswith(('http://', 'https://'))


def open_chat(config: JudgeConfig, sharding: 'Sharding') -> Chat:
    """Returns the client of an endpoint, or the checkpoint, loaded with `sharding` (of decoding).

    Raises UserError as `check_chat` does, and for a checkpoint that is damaged or that the mesh does not divide.
    """
    if config.is_endpoint:
        return EndpointChat(config)
    check_chat(config)
    from r1jax.runtime.checkpoint import load_model  # see CheckpointChat

    return CheckpointChat(load_model(config.model, sharding), sharding, config)


def check_chat(config: JudgeConfig) -> None:
    """Raises UserError for what can be known to fail before anything is loaded or asked.

    That is: an endpoint without the package openai, a checkpoint that does not exist or whose positions leave no room
    for a prompt, or 'world', which nobody can talk to.
    """
    if config.is_endpoint:
        EndpointChat(config)
        return
    if config.model == WORLD:
        raise UserError(
            f"the judge '{WORLD}' cannot be asked in words, so it tells nothing of correctness: set model to an endpoint "
            "('http://127.0.0.1:8000/v1') or to a checkpoint")
    from r1jax.runtime.checkpoint import read_config  # see CheckpointChat

    _check_room(config, read_config(config.model))


class EndpointChat:
    """A model behind an OpenAI-compatible endpoint, asked with `parallel` requests in flight. Safe to use from threads."""

    def __init__(self, config: JudgeConfig):
        """Contacts nothing. Raises UserError where the package openai is not installed."""
        self._openai, self._config = _openai(), config
        # Without any key the package would take OPENAI_API_KEY, which need not be meant for this endpoint.
        key = os.environ.get(config.api_key_env) or 'none'
        self._client = self._openai.OpenAI(
            api_key=key, base_url=config.model, timeout=config.timeout_s, max_retries=config.retries)

    def __call__(self, prompts: Sequence[str]) -> list[str]:
        """Returns the replies in order. Raises UserError if one fails for good; what still waits is not sent."""
        with concurrent.futures.ThreadPoolExecutor(self._config.parallel) as pool:
            return list(pool.map(self._ask, prompts))

    def _ask(self, prompt: str) -> str:
        config = self._config
        try:
            reply = self._client.chat.completions.create(
                model=config.name, messages=[{'role': 'user', 'content': prompt}], max_tokens=config.max_tokens,
                temperature=config.temperature)
        except self._openai.OpenAIError as error:
            if isinstance(error, self._openai.APIStatusError) and _TOO_LONG.search(f'{error} {error.body}'):
                return ''
            raise self._failure(self._problem(error)) from error
        try:
            choice = reply.choices[0]
            text, reason = choice.message.content, choice.finish_reason
        except (AttributeError, LookupError, TypeError):
            # The package takes whatever comes with status 200, even a web page, for a reply.
            raise self._failure("answers, but not in OpenAI's form: is the path right (usually /v1)?") from None
        return '' if text is None or reason in ('length', 'content_filter') else text

    def _problem(self, error: Exception) -> str:
        """What happened, to go on after the endpoint's name."""
        attempts = self._config.retries + 1
        if isinstance(error, self._openai.APITimeoutError):
            return f'gave no answer within timeout_s={self._config.timeout_s:g} ({attempts} attempts)'
        if isinstance(error, self._openai.APIConnectionError):
            return f'cannot be reached: {error.__cause__ or error} ({attempts} attempts)'
        if isinstance(error, self._openai.NotFoundError):
            known = self._known_models()
            if known and self._config.name not in known:
                return f'has no such model{nearest(self._config.name, known)}'
        if isinstance(error, self._openai.APIStatusError):
            return f'answers HTTP {error.status_code}: {_said(error)}'
        return f'failed: {error}'

    def _known_models(self) -> list[str]:
        try:
            return [model.id for model in self._client.models.list().data]
        except Exception:  # whatever goes wrong here, the first failure is the one to tell of
            return []

    def _failure(self, what: str) -> UserError:
        return UserError(
            f"the judge at {self._config.model} (model '{self._config.name}') {what}; nothing is lost: run the same "
            'command again once that is mended')


class CheckpointChat:
    """An r1jax model.

    A reply depends on its prompt and on how often the same prompt stands before it in the call (which matters where the
    temperature is not 0), not on the other prompts or their order. All hosts of the mesh must ask the same.
    """

    def __init__(self, model: 'Model', sharding: 'Sharding', config: JudgeConfig):
        """Takes parameters in any layout; `sharding` is decoding's. Raises UserError where no prompt could fit."""
        # Here and not above: the workers of rewards.pool import this module, and JAX would be most of their memory.
        from r1jax.learning.step import reshard
        from r1jax.sampling.engine import Engine
        from r1jax.sampling.logits import SamplingConfig

        self._longest = _check_room(config, model.cfg)
        self._template, self._tokenizer = config.template, model.tokenizer
        slots = config.parallel + -config.parallel % sharding.ways('batch')
        params = reshard(model.params, cfg=model.cfg, sharding=sharding, dtype=model.cfg.dtype)
        self._engine = Engine(
            params, model.cfg, SamplingConfig(slots, config.max_tokens, config.temperature),
            eos=model.tokenizer.eos_id, sharding=sharding)

    def __call__(self, prompts: Sequence[str]) -> list[str]:
        """Returns the replies in order; they begin in a think tag where the template wrote one."""
        from r1jax.sampling.engine import Request

        bos = [] if self._tokenizer.bos_id is None else [self._tokenizer.bos_id]
        written = {prompt: templates.apply(self._template, prompt) for prompt in prompts}
        ids = {prompt: sample_key(0, prompt, 0) for prompt in written}
        tokens = {prompt: tuple(bos + self._tokenizer.encode(text)) for prompt, text in written.items()}
        requests = [
            Request(tokens[prompt], ids[prompt], n) for prompt, n in collections.Counter(prompts).items()
            if len(tokens[prompt]) <= self._longest]
        replies = {
            (done.prompt_id, done.sample): self._tokenizer.decode(done.tokens, continues=True)
            for done in self._engine.generate(requests) if done.finished}
        seen, texts = collections.Counter(), []
        for prompt in prompts:
            text = replies.get((ids[prompt], seen[prompt]), '')
            texts.append(THINK + text if text and written[prompt].rstrip().endswith(THINK) else text)
            seen[prompt] += 1
        return texts


def _check_room(config: JudgeConfig, model: 'ModelConfig') -> int:
    """Returns how many tokens a prompt may have beside the longest reply. Raises UserError if that is none."""
    longest = model.max_positions - config.max_tokens
    if longest < 1:
        raise UserError(
            f"max_tokens={config.max_tokens} leaves no room for a prompt in the {model.max_positions} positions of the "
            f"judge '{config.model}'")
    return longest


def _is_url(text: str) -> bool:
    try:
        address = urllib.parse.urlsplit(text)
        return bool(address.hostname) and address.port != 0
    except ValueError:  # of a port that is no number, or brackets that do not close
        return False


def _openai() -> Any:
    try:
        import openai
    except ImportError:
        raise UserError("a judge at an endpoint needs the package openai: pip install 'r1jax[judge]'") from None
    return openai


def _said(error: Any) -> str:
    """The server's own words about an HTTP error, on one line."""
    body = error.body if isinstance(error.body, dict) else {}
    words = ' '.join(str(body.get('message') or error.response.text).split())
    return words[:200] or 'no explanation'
