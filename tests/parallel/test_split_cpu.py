"""A CPU split into devices does not lock up when more programs are queued than it takes in flight."""

import os
import subprocess
import sys
import textwrap

# One device or the other lags behind in every collective, and more small programs wait for its result than a device takes
# in flight. On two cores, where XLA by default has two threads, five of six runs of this size hung for good.
SCRIPT = textwrap.dedent('''
    import os, sys; sys.path[:] = {path!r}
    if hasattr(os, 'sched_setaffinity'):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    from r1jax.parallel.mesh import MeshConfig, make_mesh, split_cpu
    split_cpu(2)
    import jax, jax.numpy as jnp
    from jax.sharding import NamedSharding, PartitionSpec as P

    def lagging(w, c, late):
        rounds = jnp.where(late == jax.lax.axis_index('data'), 400, 1)
        y = jax.lax.fori_loop(0, rounds, lambda _, y: jnp.tanh(y @ w[0]), w[0] + c)
        return jax.lax.psum(y.sum(), 'data')

    mesh = make_mesh(MeshConfig())
    collective = jax.jit(jax.shard_map(lagging, mesh=mesh, in_specs=(P('data'), P(), P()), out_specs=P()))
    w = jax.device_put(jnp.ones((2, 64, 64)), NamedSharding(mesh, P('data')))
    c, *late = (jax.device_put(x, NamedSharding(mesh, P())) for x in (jnp.float32(0), jnp.int32(0), jnp.int32(1)))
    for _ in range(200):
        queued = []
        for i in range(30):
            y = collective(w, c, late[i % 2])
            queued += [y + y for _ in range(40)]
        jax.block_until_ready(queued)
    print(os.environ['NPROC'])
''')


def test_more_programs_than_a_device_takes_in_flight():
    """In a process of its own, because a hang ends it: XLA aborts after a minute."""
    environment = {name: value for name, value in os.environ.items() if name not in ('XLA_FLAGS', 'NPROC')}
    done = subprocess.run(
        [sys.executable, '-c', SCRIPT.format(path=sys.path)], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) >= 4
