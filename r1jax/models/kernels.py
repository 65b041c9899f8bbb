"""Attention over long rows and grouped matrix products: which kernel runs on which platform.

On TPU attention is splash attention and grouped products are megablox, both of which jax brings; on NVIDIA GPUs attention is
cuDNN's. Everywhere else, and where a kernel does not take the shapes, both are plain jax, which the kernels are tested
against.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.megablox.gmm import tgmm
from jax.experimental.pallas.ops.tpu.megablox.ops import gmm
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as splash_mask

from r1jax.parallel.rules import Sharding

# Both kernels walk in tiles of whole vector registers, 128 lanes wide.
LANES = 128
# Longest side of a tile. Of 32,768 tokens of 128 to 192 dimensions, tiles of 512 fill half of a core's 16 MiB.
ATTENTION_TILE = 512
# Longest sides of a tile of a grouped product: rows, and inputs or outputs.
PRODUCT_ROWS, PRODUCT_WIDTH = 512, 1024


def flash_attention(
    q_BTHK: jax.Array, k_BTNK: jax.Array, v_BTNV: jax.Array, segments_BT: jax.Array, scale: float, sharding: Sharding
) -> jax.Array | None:
    """What `attention.self_attention` computes, without ever holding [T, T] scores; None where no kernel can.

    Heads are split over the mesh as the rules say, rows as a batch. T is filled up to whole tiles with padding.
    """
    T, K = q_BTHK.shape[1], q_BTHK.shape[3]
    if sharding.platform == 'tpu':
        kernel = functools.partial(splash_attention, scale=scale)
    elif sharding.platform == 'gpu' and q_BTHK.dtype == jnp.bfloat16 and K % 8 == 0 and K <= 256:
        kernel = functools.partial(cudnn_attention, scale=scale)
    else:
        return None
    query, key = (sharding.spec(('batch', None, heads, None)) for heads in ('heads', 'kv_heads'))
    # Kernels do not say over which mesh axes their results vary, so that cannot be checked.
    attend = jax.shard_map(
        kernel, mesh=sharding.mesh, in_specs=(query, key, key, sharding.spec(('batch', None))), out_specs=query,
        check_vma=False)
    filled = (jnp.pad(x, [(0, 0), (0, -T % LANES)] + [(0, 0)] * (x.ndim - 2)) for x in (q_BTHK, k_BTNK, v_BTNV, segments_BT))
    return attend(*filled)[:, :T]


def splash_attention(q_BTHK, k_BTNK, v_BTNV, segments_BT, *, scale: float) -> jax.Array:
    """On one device of a TPU; T is a multiple of 128."""
    T, H = q_BTHK.shape[1:3]
    tile = _tile(ATTENTION_TILE, T)
    blocks = splash.BlockSizes(
        block_q=tile, block_kv=tile, block_q_dkv=tile, block_kv_dkv=tile, block_q_dq=tile, block_kv_dq=tile)
    kernel = splash.make_splash_mha(
        splash_mask.MultiHeadMask([splash_mask.CausalMask((T, T))] * H), block_sizes=blocks, head_shards=1, q_seq_shards=1)

    def of_row(q_THK, k_TNK, v_TNV, segments_T):
        ids = splash.SegmentIds(segments_T, segments_T)
        # The kernel knows no factor of the scores.
        mixed_HTV = kernel(q_THK.swapaxes(0, 1) * scale, k_TNK.swapaxes(0, 1), v_TNV.swapaxes(0, 1), ids)
        return mixed_HTV.swapaxes(0, 1)

    return jax.vmap(of_row)(q_BTHK, k_BTNK, v_BTNV, segments_BT)


def cudnn_attention(q_BTHK, k_BTNK, v_BTNV, segments_BT, *, scale: float) -> jax.Array:
    """On one NVIDIA GPU. Segments become a mask of [B, 1, T, T] bits, which cuDNN reads as a bias of bfloat16."""
    same_BTT = segments_BT[:, :, None] == segments_BT[:, None, :]
    # Latent attention has narrower values than keys, which jax's interface to cuDNN does not take.
    K, V = q_BTHK.shape[-1], v_BTNV.shape[-1]
    v_BTNK = jnp.pad(v_BTNV, ((0, 0), (0, 0), (0, 0), (0, K - V)))
    return jax.nn.dot_product_attention(
        q_BTHK, k_BTNK, v_BTNK, mask=same_BTT[:, None], scale=scale, is_causal=True, implementation='cudnn')[..., :V]


def _tile(longest: int, size: int) -> int:
    """The longest side of a tile that divides a size, which is a multiple of LANES."""
    return next(tile for tile in range(min(longest, size), 0, -LANES) if size % tile == 0)


def grouped_product(x_RI: jax.Array, w_EIO: jax.Array, sizes_E: jax.Array, platform: str | None) -> jax.Array:
    """Rows of x times the matrix of their group: the first sizes[0] rows times w[0] and so on.

    Rows of no group hold anything at all, NaN included, in what is returned and in the gradient of x.

    Args:
        platform: where this is to run; None for what every platform has.
    """
    R, inner, outer = len(x_RI), *w_EIO.shape[1:]
    if platform == 'tpu' and all(size % LANES == 0 for size in (R, inner, outer)):
        # XLA has a kernel for ragged_dot as well, but computes the gradient of w as if each row were in every group.
        # The gradient of x has inputs and outputs the other way round, and the same tiles.
        width = _tile(PRODUCT_WIDTH, math.gcd(inner, outer))
        return gmm(x_RI, w_EIO, sizes_E, x_RI.dtype, (_tile(PRODUCT_ROWS, R), width, width))
    return jax.lax.ragged_dot(x_RI, w_EIO, sizes_E)


def sum_of_rows(y_RD: jax.Array, row_MA: jax.Array, here_MA: jax.Array, platform: str | None) -> jax.Array:
    """Returns out[m] = the sum of y[row[m, a]] over those a where here[m, a], [M, D]; added up in float32.

    Each row is at most one pair's. Other rows may hold anything, NaN included.

    Args:
        platform: as for `grouped_product`.
    """
    R, D = y_RD.shape
    M, A = row_MA.shape
    if platform != 'tpu' or R % LANES or D % LANES:
        y_MAD = jnp.where(here_MA[..., None], y_RD[row_MA], 0)
        return y_MAD.sum(1, dtype=jnp.float32).astype(y_RD.dtype)
    # A token has few of its A rows here, and a TPU has matrix products to spare: rows go in the order of tokens, and a
    # matrix of zeros and ones adds up those of 128 tokens at a time. Only rows that are here are moved, which A slots a
    # token would be several times over.
    pad = ((0, -M % LANES), (0, 0))
    row_MA, here_MA = jnp.pad(row_MA, pad), jnp.pad(here_MA, pad)
    here_P = here_MA.reshape(-1)
    pairs_P = jnp.arange(len(here_P), dtype=jnp.int32)
    place_P = jnp.where(here_P, jnp.cumsum(here_P) - 1, R + pairs_P)
    pair_R = jnp.zeros(R, jnp.int32).at[place_P].set(pairs_P, mode='drop', unique_indices=True)
    token_R = pair_R // A
    is_token_LR = (token_R % LANES == jnp.arange(LANES)[:, None]).astype(y_RD.dtype)
    sizes = here_MA.reshape(-1, LANES * A).sum(1, dtype=jnp.int32)
    sums = tgmm(is_token_LR, y_RD[row_MA.reshape(-1)[pair_R]], sizes, y_RD.dtype, (LANES, LANES, _tile(PRODUCT_WIDTH, D)))
    return sums.reshape(-1, D)[:M]
