"""Tokens a second of the sampler's decode loop, over slots, with and without nucleus filtering.

    python experiments/bench/decode.py --devices=2 [--model=tiny] [--slots=32,64,128] [--length=128]

Settings take turns, so that a machine whose speed drifts treats them alike; the median counts. The floor on a CPU is the
matrix products: 2 x parameters operations a token at the speed of a [slots, D] x [D, F] product.
"""

import argparse
import dataclasses
import statistics
import time


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--model', default='tiny')
    parser.add_argument('--devices', type=int, default=1)
    parser.add_argument('--slots', default='32,64,128')
    parser.add_argument('--length', type=int, default=128, help='length of the cache')
    parser.add_argument('--rounds', type=int, default=7)
    args = parser.parse_args()

    import jax
    import jax.numpy as jnp

    from r1jax.models import transformer
    from r1jax.models.cache import empty_cache
    from r1jax.models.presets import preset
    from r1jax.parallel.mesh import MeshConfig, make_mesh, split_cpu
    from r1jax.parallel.rules import DECODING, Sharding
    from r1jax.sampling.engine import DecodeState, decode_chunk
    from r1jax.sampling.logits import SamplingConfig

    split_cpu(args.devices)
    cfg = preset(args.model)
    sharding = Sharding(make_mesh(MeshConfig()), DECODING)
    params = jax.device_put(transformer.init(jax.random.key(0), cfg), transformer.shardings(cfg, sharding))

    def run(slots: int, sampling: SamplingConfig) -> float:
        state = sharding.place_rows(DecodeState(
            empty_cache(cfg, slots, args.length), jnp.ones(slots, jnp.int32), jnp.full(slots, args.length // 2),
            jnp.full(slots, args.length), jnp.ones(slots, bool), jax.random.split(jax.random.key(0), slots)))
        jax.block_until_ready(state)
        start = time.perf_counter()
        # -1 is no token, so no slot ever stops.
        out = decode_chunk(params, state, cfg=cfg, sampling=sampling, eos=-1, sharding=sharding)
        jax.block_until_ready(out)
        return time.perf_counter() - start

    plain = SamplingConfig(temperature=1.0, chunk=16)
    settings = {
        (slots, name): sampling for slots in map(int, args.slots.split(',')) for name, sampling in (
            ('T=1', plain), ('T=0.6 top-p 0.95', dataclasses.replace(plain, temperature=0.6, top_p=0.95)),
            ('greedy', dataclasses.replace(plain, temperature=0.0)))}
    times = {key: [] for key in settings}
    for round_ in range(args.rounds + 1):
        for (slots, name), sampling in settings.items():
            seconds = run(slots, sampling)
            if round_:  # the first round compiles
                times[slots, name].append(seconds / plain.chunk)
    print(f'{args.model}: {transformer.n_params(cfg):,} parameters, {args.devices} device(s), cache {args.length}')
    for (slots, name), seconds in times.items():
        median = statistics.median(seconds)
        print(f'{slots:4d} slots  {name:18s} {1e3 * median:7.2f} ms a step  {slots / median:9,.0f} tokens/s')


if __name__ == '__main__':
    main()
