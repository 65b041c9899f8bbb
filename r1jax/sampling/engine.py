"""Streaming sampler: slots that are refilled as they finish, each prompt prefilled once for all its samples.

The host keeps the queue and the slots; the device runs `chunk` decode steps at a time on one pytree, `DecodeState`.
Noise is keyed by (seed, step, prompt, sample, position), never by slot or batch, so a completion does not depend on
what else was in flight, on the number of slots, or on the mesh.
"""

import collections
import dataclasses
import functools
from collections.abc import Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from r1jax.errors import UserError
from r1jax.models import transformer
from r1jax.models.cache import Cache, LayerCache, cache_axes, empty_cache, widened
from r1jax.models.config import ModelConfig
from r1jax.models.kernels import LANES
from r1jax.parallel.rules import Sharding
from r1jax.sampling.logits import SamplingConfig, sample

# Cache lengths and prompt lengths are rounded up to this at least, see `bucket`, and the number of prompts that are
# prefilled together to this many times a power of two, so that few programs are compiled.
BUCKET = 64
PREFILL_ROWS = 8
# When nothing is left to refill with, the batch is halved as it empties, down to this share of the slots.
SMALLEST = 1 / 8


@dataclasses.dataclass(frozen=True)
class Request:
    """A prompt and how many samples of it are wanted.

    Attributes:
        prompt: token ids, BOS included where the model wants one.
        id: names the prompt in the noise key and in its completions.
        n: number of samples, numbered from 0.
    """

    prompt: tuple[int, ...]
    id: int
    n: int = 1


@dataclasses.dataclass(frozen=True)
class Completion:
    """One sample.

    Attributes:
        prompt_id, sample: whose it is.
        tokens: int32 [n], EOS included if it was drawn.
        logprobs: float32 [n], of each token under the distribution it was drawn from.
        finished: True if it ends in EOS; False if it was cut at `max_tokens`.
    """

    prompt_id: int
    sample: int
    tokens: np.ndarray
    logprobs: np.ndarray
    finished: bool


@struct.dataclass
class DecodeState:
    """Everything the device knows about the slots."""

    cache: Cache
    token_S: jax.Array  # int32, the token to feed next
    position_S: jax.Array  # int32, where it stands
    last_S: jax.Array  # int32, the position whose sampled token is the last one allowed
    active_S: jax.Array  # bool
    key_S: jax.Array  # PRNG keys, one a sample; positions are folded in


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def empty_state(cfg: ModelConfig, slots: int, sharding: Sharding) -> DecodeState:
    """Slots that are all idle, with a short cache."""
    zeros_S = jnp.zeros(slots, jnp.int32)
    return _pin(DecodeState(
        cache=empty_cache(cfg, slots, BUCKET, lanes(sharding)), token_S=zeros_S, position_S=zeros_S, last_S=zeros_S,
        active_S=jnp.zeros(slots, bool), key_S=jax.random.split(jax.random.key(0), slots)), cfg, sharding)


def lanes(sharding: Sharding) -> int:
    """What the width of a cache's heads is a multiple of, see `empty_cache`."""
    return LANES if sharding.platform == 'tpu' else 1


def _pin(state: DecodeState, cfg: ModelConfig, sharding: Sharding) -> DecodeState:
    """Pins the slots split as a batch is, and the cache's heads beside as the projections that write them."""
    cache = jax.tree.map(lambda x: sharding.constrain(x, cache_axes(cfg)), state.cache)
    return sharding.constrain_rows(state.replace(cache=None)).replace(cache=cache)


@functools.partial(jax.jit, static_argnames=('cfg', 'sampling', 'eos', 'sharding'), donate_argnames=('state',))
def decode_chunk(
    params: transformer.Params,
    state: DecodeState,
    *,
    cfg: ModelConfig,
    sampling: SamplingConfig,
    eos: int,
    sharding: Sharding,
) -> tuple[DecodeState, jax.Array, jax.Array]:
    """Runs `sampling.chunk` steps. Returns the state, tokens [C, S] (-1 where a slot was idle), and log-probs [C, S]."""
    head_DV = transformer.head(params).astype(cfg.dtype)

    def step(state: DecodeState, _):
        token_S1, position_S1 = state.token_S[:, None], state.position_S[:, None]
        out = transformer.forward(params, token_S1, position_S1, position_S1, cfg, state.cache, sharding)
        logits_SV = jnp.einsum('sd,dv->sv', out.hidden_BTD[:, 0], head_DV, preferred_element_type=jnp.float32)
        uniform_S = jax.vmap(lambda key, position: jax.random.uniform(jax.random.fold_in(key, position)))(
            state.key_S, state.position_S)
        token_S, logp_S = sample(logits_SV, uniform_S, sampling)
        emitted_S = jnp.where(state.active_S, token_S, -1)
        active_S = state.active_S & (token_S != eos) & (state.position_S < state.last_S)
        state = state.replace(
            cache=out.cache,
            token_S=jnp.where(active_S, token_S, state.token_S),
            position_S=jnp.where(active_S, state.position_S + 1, state.position_S),
            active_S=active_S)
        return state, (emitted_S, logp_S)

    state, sampled = jax.lax.scan(step, state, None, length=sampling.chunk)
    return _pin(state, cfg, sharding), *sharding.constrain_replicated(sampled)


@functools.partial(jax.jit, static_argnames=('cfg', 'sharding'))
def prefill(
    params: transformer.Params, tokens_PT: jax.Array, *, cfg: ModelConfig, sharding: Sharding
) -> Cache:
    """Keys and values of P prompts, padded on the right: causal attention keeps the padding out of what is used."""
    positions_PT = jnp.broadcast_to(jnp.arange(tokens_PT.shape[1]), tokens_PT.shape)
    return transformer.forward(
        params, tokens_PT, positions_PT, jnp.ones_like(tokens_PT), cfg, sharding=sharding, prefill=True).cache


@functools.partial(jax.jit, donate_argnames=('state',))
def insert(state: DecodeState, prompts: Cache, rows_S: jax.Array, fresh: dict[str, jax.Array]) -> DecodeState:
    """Puts prompt `rows_S[s]` into slot s where that is not -1; `fresh` holds the slot's other fields by name, [S].

    Its field `id` is the quadruple [S, 4] (seed, step, prompt, sample) that the noise key is made of.
    """
    new_S = rows_S >= 0
    rows_S = jnp.maximum(rows_S, 0)

    def put(old_SNTK: jax.Array, prompt_PNTK: jax.Array) -> jax.Array:
        length = prompt_PNTK.shape[2]
        new_SNTK = widened(prompt_PNTK[rows_S], old_SNTK.shape[-1])
        chosen = jnp.where(new_S[:, None, None, None], new_SNTK, old_SNTK[:, :, :length])
        return old_SNTK.at[:, :, :length].set(chosen)

    def key(quadruple):
        seed, *rest = quadruple
        return functools.reduce(jax.random.fold_in, rest, jax.random.key(seed))

    def where(new, old):
        return jnp.where(new_S, new, old)

    return DecodeState(
        cache=jax.tree.map(put, state.cache, prompts),
        token_S=where(fresh['token'], state.token_S),
        position_S=where(fresh['position'], state.position_S),
        last_S=where(fresh['last'], state.last_S),
        active_S=new_S | state.active_S,
        key_S=where(jax.vmap(key)(fresh['id']), state.key_S))


@functools.partial(jax.jit, static_argnames=('length',))
def _lengthen_layer(layer: LayerCache, *, length: int) -> LayerCache:
    more = ((0, 0), (0, 0), (0, length - layer.k_SNTK.shape[2]), (0, 0))
    return jax.tree.map(lambda x: jnp.pad(x, more), layer)


def lengthen(cache: Cache, length: int) -> Cache:
    """Lengthens a cache with zeros. Decoding starts short, so that early tokens do not attend over empty space.

    Layer by layer, each of which is deleted when its copy is made: never is the whole cache there twice.
    """
    layers = []
    for layer in cache.layers:
        layers.append(_lengthen_layer(layer, length=length))
        jax.tree.map(lambda x: x.delete(), layer)
    return Cache(tuple(layers))


@functools.partial(jax.jit, static_argnames=('cfg', 'sharding'))
def take(state: DecodeState, rows_S: jax.Array, *, cfg: ModelConfig, sharding: Sharding) -> DecodeState:
    """Keeps the slots `rows_S` only. The last completions of a batch, the long ones, are decoded without empty rows."""
    return _pin(jax.tree.map(lambda x: x[rows_S], state), cfg, sharding)


def bucket(length: int) -> int:
    """Rounds a length up to a multiple of `BUCKET`, from 512 on to a quarter of the power of two below it.

    A program is compiled for each length: 20 of them up to 32,768 tokens, of which a fifth at most are empty.
    """
    step = max(BUCKET, 2 ** (length.bit_length() - 3))
    return length + -length % step


def drawing(sampling: SamplingConfig) -> SamplingConfig:
    """What programs are compiled for: how tokens are drawn, whatever the number of slots and the longest completion."""
    return dataclasses.replace(sampling, slots=1, max_tokens=1)


@dataclasses.dataclass
class _Slot:
    """The host's side of a slot: whose sample it holds, and what came out so far."""

    request: Request
    sample: int
    tokens: list[np.ndarray] = dataclasses.field(default_factory=list)
    logprobs: list[np.ndarray] = dataclasses.field(default_factory=list)


class Engine:
    """Samples completions.

    Attributes:
        params: the parameters; assign new ones between calls of `generate` as training goes on, or None to free them.
    """

    def __init__(
        self,
        params: transformer.Params,
        cfg: ModelConfig,
        sampling: SamplingConfig,
        *,
        eos: int,
        sharding: Sharding,
        seed: int = 0,
    ):
        """Raises UserError if the mesh does not divide the slots."""
        sharding.check_batch('sampling.slots', sampling.slots)
        self._draw = drawing(sampling)
        self.params = params
        self._cfg, self._sampling, self._eos, self._seed, self._sharding = cfg, sampling, eos, seed, sharding

    def generate(self, requests: Iterable[Request], step: int = 0) -> Iterator[Completion]:
        """Yields completions as they finish, the quick ones first.

        Args:
            requests: read as slots become free, at most one filling of them ahead.
            step: goes into the noise key: the same step gives the same completions, another step others.

        Raises:
            UserError: if a prompt is empty or would not leave room for `max_tokens`.
        """
        queue = ((r, i) for r in requests for i in range(self._check(r).n))
        slots: list[_Slot | None] = [None] * self._sampling.slots
        state = empty_state(self._cfg, len(slots), self._sharding)
        prefilled: dict[tuple, tuple[Cache, int]] = {}  # prompt -> the cache, and the row in it, that hold it
        waiting = self._take(queue, len(slots))
        while waiting or any(slots):
            free = [s for s, slot in enumerate(slots) if slot is None]
            # A refill costs a pass over the cache, so it waits until an eighth of the slots is free.
            if waiting and len(free) >= max(1, min(len(slots) // 8, len(waiting))):
                batch = [waiting.popleft() for _ in range(min(len(free), len(waiting)))]
                chosen = dict(zip(free, batch, strict=False))
                for s, (request, sample_) in chosen.items():
                    slots[s] = _Slot(request, sample_)
                state, prefilled = self._insert(state, chosen, prefilled, step)
                waiting.extend(self._take(queue, len(slots) - len(waiting)))
            if not waiting:
                state, slots = self._halve(state, slots)
            state = self._fit(state, slots)
            state, tokens_CS, logps_CS = decode_chunk(
                self.params, state, cfg=self._cfg, sampling=self._draw, eos=self._eos, sharding=self._sharding)
            yield from self._collect(slots, np.asarray(tokens_CS), np.asarray(logps_CS))

    def _check(self, request: Request) -> Request:
        longest = max(0, self._cfg.max_positions - self._sampling.max_tokens)
        if not 0 < len(request.prompt) <= longest:
            raise UserError(
                f'prompt {request.id} has {len(request.prompt)} tokens; it must have at least 1 and at most {longest}, '
                f'so that {self._sampling.max_tokens} more fit into max_positions={self._cfg.max_positions}')
        return request

    @staticmethod
    def _take(queue: Iterator, n: int) -> collections.deque:
        return collections.deque(item for _, item in zip(range(n), queue, strict=False))

    def _insert(self, state, chosen: dict[int, tuple[Request, int]], prefilled, step: int):
        """Prefills the prompts that are new and puts each chosen sample into its slot."""
        wanted = list(dict.fromkeys(request.prompt for request, _ in chosen.values()))
        new = [prompt for prompt in wanted if prompt not in prefilled]
        if new:
            cache = self._prefill(new)
            prefilled = prefilled | {prompt: (cache, row) for row, prompt in enumerate(new)}
        for cache in {id(prefilled[prompt][0]): prefilled[prompt][0] for prompt in wanted}.values():
            here = {
                s: (prefilled[request.prompt][1], request, sample_) for s, (request, sample_) in chosen.items()
                if prefilled[request.prompt][0] is cache}
            state = self._insert_from(state, cache, here, step)
        # Requests come in order, so only the last one can have samples left for the next refill.
        return state, {wanted[-1]: prefilled[wanted[-1]]}

    def _prefill(self, prompts: list[tuple[int, ...]]) -> Cache:
        rows = PREFILL_ROWS
        while rows < len(prompts):
            rows *= 2
        rows += -rows % self._sharding.ways('batch')
        length = max(map(len, prompts))
        tokens_PT = np.zeros((rows, bucket(length)), np.int32)
        for row, prompt in enumerate(prompts):
            tokens_PT[row, :len(prompt)] = prompt
        return prefill(self.params, self._sharding.place_rows(tokens_PT), cfg=self._cfg, sharding=self._sharding)

    def _insert_from(self, state, prompts: Cache, chosen: dict[int, tuple[int, Request, int]], step: int):
        S = self._sampling.slots
        rows_S = np.full(S, -1, np.int32)
        fresh = {name: np.zeros(S, np.int32) for name in ('token', 'position', 'last')}
        fresh['id'] = np.zeros((S, 4), np.uint32)
        for s, (row, request, sample_) in chosen.items():
            end = len(request.prompt) - 1
            rows_S[s] = row
            fresh['token'][s], fresh['position'][s] = request.prompt[end], end
            fresh['last'][s] = end + self._sampling.max_tokens - 1
            fresh['id'][s] = (self._seed, step, request.id % 2**32, sample_)
        if prompts.length > state.cache.length:
            state = state.replace(cache=lengthen(state.cache, prompts.length))
        return insert(state, prompts, *self._sharding.place_rows((rows_S, fresh)))

    def _halve(self, state: DecodeState, slots: list[_Slot | None]) -> tuple[DecodeState, list[_Slot | None]]:
        """Halves the slots as long as the busy ones fit into half of them and the mesh divides that."""
        busy = [s for s, slot in enumerate(slots) if slot]
        size = len(slots)
        while (
            size % (2 * self._sharding.ways('batch')) == 0 and len(busy) <= size // 2 and
            size // 2 >= SMALLEST * self._sampling.slots
        ):
            size //= 2
        if size == len(slots):
            return state, slots
        rows = busy + [s for s, slot in enumerate(slots) if not slot][:size - len(busy)]
        return take(state, np.array(rows, np.int32), cfg=self._cfg, sharding=self._sharding), [slots[s] for s in rows]

    def _fit(self, state: DecodeState, slots: list[_Slot | None]) -> DecodeState:
        """Grows the cache where the next chunk could run past its end, up to where the longest completion ends."""
        busy = [slot for slot in slots if slot]
        done = max(len(slot.request.prompt) + sum(map(len, slot.tokens)) for slot in busy)
        end = max(len(slot.request.prompt) for slot in busy) + self._sampling.max_tokens + self._sampling.chunk
        needed = min(bucket(done + self._sampling.chunk), end + -end % BUCKET)
        if needed > state.cache.length:
            state = state.replace(cache=lengthen(state.cache, needed))
        return state

    def _collect(self, slots: list[_Slot | None], tokens_CS: np.ndarray, logps_CS: np.ndarray) -> Iterator[Completion]:
        for s, slot in enumerate(slots):
            if slot is None:
                continue
            n = int((tokens_CS[:, s] >= 0).sum())
            slot.tokens.append(tokens_CS[:n, s])
            slot.logprobs.append(logps_CS[:n, s])
            total = sum(map(len, slot.tokens))
            finished = tokens_CS[n - 1, s] == self._eos
            if finished or total == self._sampling.max_tokens:
                yield Completion(
                    slot.request.id, slot.sample, np.concatenate(slot.tokens), np.concatenate(slot.logprobs),
                    bool(finished))
                slots[s] = None
