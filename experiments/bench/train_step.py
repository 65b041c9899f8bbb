"""Tokens a second of one micro-batch's gradients, and milliseconds of an update, by micro-batch size.

    python experiments/bench/train_step.py --devices=2 [--model=tiny] [--rows=2,4,8,16] [--length=192]

Sizes take turns, so that a machine whose speed drifts treats them alike; the median counts.
"""

import argparse
import statistics
import time


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--model', default='tiny')
    parser.add_argument('--devices', type=int, default=1)
    parser.add_argument('--rows', default='2,4,8,16')
    parser.add_argument('--length', type=int, default=192)
    parser.add_argument('--rounds', type=int, default=9)
    args = parser.parse_args()

    import jax
    import numpy as np

    from r1jax.learning.optimizer import OptimizerConfig
    from r1jax.learning.step import MicroBatch, apply_gradients, init_state, sft_gradients
    from r1jax.models import transformer
    from r1jax.models.presets import preset
    from r1jax.parallel.mesh import MeshConfig, make_mesh, split_cpu
    from r1jax.parallel.rules import TRAINING, Sharding

    split_cpu(args.devices)
    cfg = preset(args.model)
    sharding = Sharding(make_mesh(MeshConfig()), TRAINING)
    states = {}
    for name in ('adamw', 'muon'):
        optimizer = OptimizerConfig(1e-3, name=name)
        states[optimizer] = init_state(transformer.init(jax.random.key(0), cfg), cfg, optimizer, sharding)
    params = transformer.init(jax.random.key(0), cfg)
    params = jax.device_put(params, transformer.shardings(cfg, sharding))

    def batch(rows: int) -> MicroBatch:
        shape = (rows, args.length)
        tokens = np.random.default_rng(0).integers(0, cfg.vocab_size, shape, np.int32)
        positions = np.tile(np.arange(args.length, dtype=np.int32), (rows, 1))
        ones = np.ones(shape, np.float32)
        return sharding.place_rows(
            MicroBatch(tokens, tokens, positions, np.ones(shape, np.int32), ones, ones / ones.size, {}))

    batches = {rows: batch(rows) for rows in map(int, args.rows.split(','))}
    times = {x: [] for x in (*batches, *states)}
    for round_ in range(args.rounds + 1):
        for rows, micro in batches.items():
            start = time.perf_counter()
            jax.block_until_ready(sft_gradients(params, micro, cfg=cfg, sharding=sharding)[0])
            if round_:  # the first round compiles
                times[rows].append(time.perf_counter() - start)
        for optimizer, state in states.items():
            start = time.perf_counter()
            states[optimizer], _ = jax.block_until_ready(
                apply_gradients(state, params, optimizer=optimizer, cfg=cfg, sharding=sharding))
            if round_:
                times[optimizer].append(time.perf_counter() - start)
    print(f'{args.model}: {transformer.n_params(cfg):,} parameters, {args.devices} device(s), T={args.length}')
    for rows in batches:
        median = statistics.median(times[rows])
        print(f'{rows:4d} rows  {1e3 * median:8.1f} ms  {rows * args.length / median:9,.0f} tokens/s')
    for optimizer in states:
        print(f'{optimizer.name:>9}  {1e3 * statistics.median(times[optimizer]):8.1f} ms')


if __name__ == '__main__':
    main()
