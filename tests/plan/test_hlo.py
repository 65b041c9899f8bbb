"""What is read from a program's text: on a module written by hand, and on what XLA makes of a known one."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from r1jax.parallel.mesh import MeshConfig, make_mesh
from r1jax.plan import hlo

# 28 turns of a loop; a fusion that reads one slice of a stack, one that writes a slice in place; a value on the chip, S(1).
MODULE = '''
HloModule jit_f, is_scheduled=true, num_partitions=8

%sliced (p0: f32[28,1024], p1: s32[]) -> f32[1,1024] {
  %p0 = f32[28,1024]{1,0:T(8,128)} parameter(0)
  %p1 = s32[]{:T(128)} parameter(1)
  %zero = s32[]{:T(128)} constant(0)
  ROOT %slice = f32[1,1024]{1,0:T(8,128)} dynamic-slice(%p0, %p1, %zero), dynamic_slice_sizes={1,1024}
}

%written (q0: f32[28,1024], q1: f32[1,1024], q2: s32[]) -> f32[28,1024] {
  %q0 = f32[28,1024]{1,0:T(8,128)} parameter(0)
  %q1 = f32[1,1024]{1,0:T(8,128)} parameter(1)
  %q2 = s32[]{:T(128)} parameter(2)
  %none = s32[]{:T(128)} constant(0)
  ROOT %put = f32[28,1024]{1,0:T(8,128)} dynamic-update-slice(%q0, %q1, %q2, %none)
}

%elsewhere (r: f32[4]) -> f32[4] {
  ROOT %r = f32[4]{0:T(128)} parameter(0)
}, execution_thread="sparsecore"

%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[]{:T(128)} parameter(0)
  %b = f32[]{:T(128)} parameter(1)
  ROOT %add = f32[]{:T(128)} add(%a, %b)
}

%condition (state: (s32[], f32[28,1024])) -> pred[] {
  %state = (s32[]{:T(128)}, /*index=1*/f32[28,1024]{1,0:T(8,128)}) parameter(0)
  %turn = s32[]{:T(128)} get-tuple-element(%state), index=0
  %turns = s32[]{:T(128)} constant(28)
  ROOT %less = pred[]{:T(512)} compare(%turn, %turns), direction=LT
}

%body (state.1: (s32[], f32[28,1024])) -> (s32[], f32[28,1024]) {
  %state.1 = (s32[]{:T(128)}, /*index=1*/f32[28,1024]{1,0:T(8,128)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%state.1), index=0
  %stack = f32[28,1024]{1,0:T(8,128)} get-tuple-element(%state.1), index=1
  %x = f32[1,1024]{1,0:T(8,128)} fusion(%stack, %i), kind=kLoop, calls=%sliced
  %all = f32[1,1024]{1,0:T(8,128)} all-reduce(%x), channel_id=1, GROUPS, use_global_device_ids=true, to_apply=%sum
  %near = f32[1,1024]{1,0:T(8,128)S(1)} custom-call(%all), custom_call_target="kernel", backend_config={"kernel": {
 "block": 512
}}, metadata={op_name="a kernel, whose description runs over lines"}
  %new = f32[28,1024]{1,0:T(8,128)} fusion(%stack, %near, %i), kind=kLoop, calls=%written
  %one = s32[]{:T(128)} constant(1)
  %next = s32[]{:T(128)} add(%i, %one)
  ROOT %out = (s32[]{:T(128)}, f32[28,1024]{1,0:T(8,128)}) tuple(%next, %new)
}

ENTRY %main (arg: f32[28,1024]) -> f32[28,1024] {
  %arg = f32[28,1024]{1,0:T(8,128)} parameter(0)
  %start = s32[]{:T(128)} constant(0)
  %begin = (s32[]{:T(128)}, f32[28,1024]{1,0:T(8,128)}) tuple(%start, %arg)
  %loop = (s32[]{:T(128)}, f32[28,1024]{1,0:T(8,128)}) while(%begin), condition=%condition, body=%body
  ROOT %result = f32[28,1024]{1,0:T(8,128)} get-tuple-element(%loop), index=1
}
'''


@pytest.mark.parametrize('groups, devices', [
    ('replica_groups={{0,1,2,3},{4,5,6,7}}', (0, 1, 2, 3)),
    ('replica_groups=[2,4]<=[8]', (0, 1, 2, 3)),
    ('replica_groups=[4,2]<=[2,4]T(1,0)', (0, 4)),
    ("replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_0'}", (0, 4)),
    ("replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1':(2)2}", (0, 1)),
    ("replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1':(1)2}", (0, 2)),
    ("replica_groups=mesh['axis_0'=4,'axis_1'=2], device_ids=([2,4]T(1,0)) {'axis_1'}", (0, 4)),
])
def test_loops_slices_and_memory_on_the_chip_count_as_they_run(groups, devices):
    found = hlo.traffic(MODULE.replace('GROUPS', groups))
    row = 1024 * 4
    # A turn: slice read and written (2), all-reduce (2), what a kernel leaves on the chip (1), the slice written back (1).
    # Counters of 4 bytes: one read by each fusion, two read and one written by the addition, and the comparison's two, and
    # its byte.
    assert found.hbm_bytes == 28 * (6 * row + 2 * 4 + 3 * 4) + 28 * (2 * 4 + 1)
    (collective,) = found.collectives
    assert collective == hlo.Collective('all-reduce', row, devices, 28)


# A cache of which four rows are written: by a scatter of its own, and by one in a fusion, which computes what it writes.
IN_PLACE = '''
HloModule jit_g, is_scheduled=true

%replace (old: bf16[], new: bf16[]) -> bf16[] {
  %old = bf16[]{:T(256)} parameter(0)
  ROOT %new = bf16[]{:T(256)} parameter(1)
}

%computed (c0: bf16[4096,128], c1: s32[4,1], c2: bf16[4,128]) -> bf16[4096,128] {
  %c0 = bf16[4096,128]{1,0:T(8,128)(2,1)} parameter(0)
  %c1 = s32[4,1]{1,0:T(8,128)} parameter(1)
  %c2 = bf16[4,128]{1,0:T(8,128)(2,1)} parameter(2)
  %doubled = bf16[4,128]{1,0:T(8,128)(2,1)} add(%c2, %c2)
  ROOT %put.1 = bf16[4096,128]{1,0:T(8,128)(2,1)} scatter(%c0, %c1, %doubled), update_window_dims={1}, to_apply=%replace
}

ENTRY %main (cache: bf16[4096,128], rows: s32[4,1], values: bf16[4,128]) -> bf16[4096,128] {
  %cache = bf16[4096,128]{1,0:T(8,128)(2,1)} parameter(0)
  %rows = s32[4,1]{1,0:T(8,128)} parameter(1)
  %values = bf16[4,128]{1,0:T(8,128)(2,1)} parameter(2)
  %first = bf16[4096,128]{1,0:T(8,128)(2,1)} scatter(%cache, %rows, %values), update_window_dims={1}, to_apply=%replace
  ROOT %second = bf16[4096,128]{1,0:T(8,128)(2,1)} fusion(%first, %rows, %values), kind=kLoop, calls=%computed
}
'''


def test_what_is_written_in_place_counts_without_what_lies_around_it():
    values, rows = 4 * 128 * 2, 4 * 4
    # Each reads the values and writes as many; that a lone scatter reads where they go is left out.
    assert hlo.traffic(IN_PLACE).hbm_bytes == 2 * values + (2 * values + rows)


def test_the_collectives_of_a_compiled_program_are_those_that_were_asked_for():
    mesh = make_mesh(MeshConfig(data=2, fsdp=1, tensor=4))

    def place(*axes):
        return NamedSharding(mesh, PartitionSpec(*axes))

    def layers(x, w):
        def layer(x, w):
            # Contracting over a split dimension leaves sums to be added up over tensor.
            return jax.lax.with_sharding_constraint(jnp.tanh(x) @ w, place('data', None)), None
        return jax.lax.scan(layer, x, w)[0]

    x = jax.ShapeDtypeStruct((16, 64), jnp.float32, sharding=place('data', 'tensor'))
    w = jax.ShapeDtypeStruct((5, 64, 64), jnp.float32, sharding=place(None, 'tensor', None))
    compiled = jax.jit(layers).lower(x, w).compile()
    found = hlo.traffic(compiled.runtime_executable().hlo_modules()[0].to_string()).collectives
    reduced = [c for c in found if c.kind == 'all-reduce']
    assert sum(c.times for c in reduced) == 5
    assert {(c.bytes, c.devices) for c in reduced} == {(8 * 64 * 4, (0, 1, 2, 3))}
