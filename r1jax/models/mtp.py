"""DeepSeek-V3's multi-token prediction (arXiv 2412.19437, section 2.2): a module that predicts the token after the next one.

It reads the model's hidden state of token t and the embedding of token t + 1, runs one more layer over them, and shares
embedding and head with the model: what it returns goes through `head(params)` as the model's own hidden states do.
"""

import jax
import jax.numpy as jnp

from r1jax.models import attention, latent
from r1jax.models.config import ModelConfig
from r1jax.models.layers import rms_norm
from r1jax.models.rope import rope
from r1jax.models.transformer import RESIDUAL, Balance, Layers, Output, Params, abstract, block, in_use, rematerialised
from r1jax.parallel.rules import Sharding


def predict_second(
    params: Params,
    hidden_BTD: jax.Array,
    next_tokens_BT: jax.Array,
    positions_BT: jax.Array,
    segments_BT: jax.Array,
    cfg: ModelConfig,
    sharding: Sharding | None = None,
) -> Output:
    """Returns hidden states [B, T, D] that predict, at index t, the token after `next_tokens_BT[:, t]` (eq. 21-23), and how
    evenly its layer used its experts, as `forward` does (L = 1).

    Args:
        hidden_BTD: what `transformer.forward` returned for the same tokens.
        next_tokens_BT: int32, the token that follows each; of each sequence's last token anything, nothing attends to it.
    """
    w = params.mtp
    constrain = sharding.constrain if sharding else lambda x, axes: x
    specs = abstract(cfg)
    embed_VD = in_use(params.embed_VD, specs.embed_VD, cfg, sharding)
    join = in_use(w.join, specs.mtp.join, cfg, sharding)
    next_BTD = rms_norm(embed_VD[next_tokens_BT], w.token_norm, cfg.norm_eps)
    both = jnp.stack([next_BTD, rms_norm(hidden_BTD, w.hidden_norm, cfg.norm_eps)], axis=2)
    x_BTD = constrain(jnp.einsum('btid,ide->bte', both, join), RESIDUAL)
    mix = latent if cfg.latent else attention
    angles = rope(positions_BT + 1, cfg)

    def layer(x_BTD: jax.Array, w: Layers) -> tuple[jax.Array, Balance | None]:
        x_BTD, _, balance = block(
            x_BTD, w, lambda h_BTD, attn: mix.attend(h_BTD, attn, *angles, segments_BT, cfg, sharding),
            segments_BT=segments_BT, cfg=cfg, sharding=sharding)
        return x_BTD, balance

    x_BTD, balance = rematerialised(layer, cfg, in_loop=False)(x_BTD, jax.tree.map(lambda a: a[0], w.layer))
    load_E, imbalance_BT = balance or (None, None)
    return Output(
        rms_norm(x_BTD, w.norm, cfg.norm_eps),
        load_LE=load_E[None] if balance else None,
        imbalance_LBT=imbalance_BT[None] if balance else None)
