"""The adapters from image towers of open_clip to Tower, one function per family.

A tower without an exact decomposition is refused before any compute, and the error names the module that prevents it.
"""

from dataclasses import replace

import open_clip
import torch
from open_clip.model import _build_vision_tower
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import (
    CustomResidualAttentionBlock,
    LayerScale,
    ResidualAttentionBlock,
    VisionTransformer,
)
from timm.layers import AttentionPoolLatent
from timm.layers.attention import Attention, AttentionRope
from timm.models.eva import Eva, EvaAttention, EvaBlock, EvaBlockPostNorm
from timm.models.vision_transformer import Block
from timm.models.vision_transformer import VisionTransformer as TimmVisionTransformer
from timm.models.vision_transformer_relpos import RelPosAttention, RelPosBlock, VisionTransformerRelPos
from torch import nn

from clipspectra import InputError
from clipspectra.towers.tower import Layer, Readout, Tower, float64

TIMM_TRUNKS = (TimmVisionTransformer, Eva, VisionTransformerRelPos)
# Subclasses and other blocks may norm, add up or pool in another order.
TIMM_BLOCKS = (Block, EvaBlock, EvaBlockPostNorm, RelPosBlock)
TIMM_ATTENTION = (Attention, AttentionRope, EvaAttention, RelPosAttention)


class Unsupported(InputError):
    """A tower without an exact decomposition; `reason` says which module and why."""

    def __init__(self, reason):
        super().__init__(f"This image tower cannot be decomposed exactly: {reason}.")
        self.reason = reason


def describe(architecture):
    """The table row of an open_clip architecture: a dict with its adapter and sizes, or the reason why it has none.

    The tower is built without memory for its weights.
    """
    config = open_clip.get_model_config(architecture)
    with torch.device("meta"):
        visual = _build_vision_tower(config["embed_dim"], config["vision_cfg"], config.get("quick_gelu", False))
    row = {"architecture": architecture, "supported": "no", "adapter": ""}
    tokenizer = config["text_cfg"].get("hf_tokenizer_name", "open_clip's")
    try:
        tower = adapt(visual.eval())
    except Unsupported as error:
        return row | {"layers": "", "heads": "", "d_model": "", "tokenizer": tokenizer, "reason": error.reason}
    sizes = {"layers": len(tower.layers), "heads": tower.layers[0].heads, "d_model": tower.width}
    return row | {"supported": "yes", "adapter": tower.family} | sizes | {"tokenizer": tokenizer, "reason": ""}


def adapt(visual):
    """The Tower of an open_clip model's `visual`. Raises Unsupported with the reason, before any compute."""
    if hasattr(visual, "_orig_mod") or any(module._compiled_call_impl for module in visual.modules()):
        raise Unsupported(
            "it is compiled, and a compiled graph shows no heads; pass the model as it was before compile"
        )
    adapters = {VisionTransformer: _open_clip_tower, TimmModel: _timm_tower, ModifiedResNet: _resnet_tower}
    adapter = adapters.get(type(visual))
    if adapter is None:
        raise Unsupported(f"{type(visual).__module__}.{type(visual).__name__} is not an image tower of open_clip")
    tower = adapter(visual)
    if tower.dtype not in (torch.float32, torch.float64):
        raise Unsupported(f"its weights are {tower.dtype}, which rounds the sums; load it with precision 'fp32'")
    if visual.training:
        raise Unsupported("it is in training mode; call model.eval() first")
    return tower


def _layernorm(module):
    """The module if it is a LayerNorm, None if it is the identity."""
    if isinstance(module, nn.Identity):
        return None
    if not isinstance(module, nn.LayerNorm) or module.weight is None or module.bias is None:
        raise Unsupported(f"it normalises with {type(module).__name__}, which is not an affine LayerNorm")
    return module


def _open_clip_tower(visual):
    """open_clip's VisionTransformer: pooled by class token, mean, or CoCa's attentional pool."""
    if visual.proj is None:
        raise Unsupported("it lacks the projection to the joint space")
    layers = [_open_clip_layer(block) for block in visual.transformer.resblocks]
    post, weight = _layernorm(visual.ln_post), visual.proj.T
    if visual.attn_pool is not None:
        if visual.attn_pool_contrastive is not None or visual.pool_type != "tok":
            raise Unsupported("it has two attentional pools in a row, which open_clip marks as unfinished")
        pool, values, offset = visual.attn_pool, *_multihead_values(visual.attn_pool.attn)
        readout = Readout(pool.attn, _layernorm(pool.ln_k), post, weight, values=values, offset=offset)
        family = "ViT, attentional pool"
    else:
        pools = {"tok": ("class", "ViT, class token"), "avg": ("mean", "ViT, average")}
        if visual.pool_type not in pools:
            raise Unsupported(f"it pools by '{visual.pool_type}'")
        pool, family = pools[visual.pool_type]
        before, after = (None, post) if visual.final_ln_after_pool else (post, None)
        readout = Readout(pool, before, after, weight, first=1)
    width = visual.conv1.out_channels
    return Tower(visual, family, layers, readout, visual.transformer.resblocks[0], visual.grid_size, 1, width)


def _open_clip_layer(block):
    """A block of open_clip's Transformer, plain or custom."""
    attention = block.attn
    options = {}
    if type(block) is CustomResidualAttentionBlock:
        if attention.logit_scale is not None:
            raise Unsupported("its cosine attention does not go through torch's attention function")
        options = {
            "inner": _layernorm(attention.ln_inner),
            "post": _layernorm(block.ln_attn),
            "out": attention.out_proj,
        }
        options["head_gain"] = None if attention.head_scale is None else attention.head_scale.flatten()
    elif type(block) is not ResidualAttentionBlock or type(attention) is not nn.MultiheadAttention:
        raise Unsupported(f"its blocks are {type(block).__name__} with {type(attention).__name__}")
    scale = block.ls_1.gamma if isinstance(block.ls_1, LayerScale) else None
    out = attention.out_proj
    options |= {"mlp": block.ls_2, "scale": scale, "before": block.ln_1}
    return Layer(attention, out.weight, out.bias, attention.num_heads, _value_weight(attention), **options)


def _value_weight(attention):
    """W_V [head * d_head, d_in] of an attention, packed with W_Q and W_K or separate."""
    packed = getattr(attention, "in_proj_weight", None)
    if packed is None and getattr(attention, "qkv", None) is not None:
        packed = attention.qkv.weight
    if packed is not None:
        return packed.chunk(3)[2]
    separate = getattr(attention, "v_proj_weight", None)
    return attention.v_proj.weight if separate is None else separate


def _multihead_values(attention):
    """V [head, d_pool, d_model] and c [d_pool] of a torch MultiheadAttention as a pool, in float64."""
    bias = attention.in_proj_bias.chunk(3)[2]
    return _pool_values(attention.out_proj, _value_weight(attention), bias, attention.num_heads)


def _pool_values(out, weight, bias, heads):
    """V_p = W_O^p W_V^p [head, d_pool, d_model] and c = W_O b_V + b_O [d_pool], in float64."""
    out_weight = float64(out.weight).unflatten(1, (heads, -1))  # [d_pool, head, d_head]
    values = torch.einsum("phd,hdm->hpm", out_weight, float64(weight).unflatten(0, (heads, -1)))
    offset = 0.0 if bias is None else float64(out.weight) @ float64(bias)
    return values, offset + float64(out.bias)


def _timm_tower(visual):
    """timm's VisionTransformer, Eva and VisionTransformerRelPos under open_clip's TimmModel."""
    trunk = visual.trunk
    if type(trunk) not in TIMM_TRUNKS:
        raise Unsupported(_unsupported_reason(type(trunk).__name__))
    final_modules = [module for module in visual.head if not isinstance(module, nn.Dropout)]
    final_modules = [module for module in (trunk.head, *final_modules) if not isinstance(module, nn.Identity)]
    if len(final_modules) > 1 or not all(type(module) is nn.Linear for module in final_modules):
        names = ", then ".join(type(module).__name__ for module in final_modules)
        raise Unsupported(f"it ends in {names}, which is not linear")
    weight, bias = (final_modules[0].weight, final_modules[0].bias) if final_modules else (None, None)
    before, after = _layernorm(trunk.norm), _layernorm(trunk.fc_norm)
    prefix, pool = trunk.num_prefix_tokens, getattr(trunk, "attn_pool", None)
    readout = Readout("class", before, after, weight, bias)
    if pool is not None:
        if type(pool) is not AttentionPoolLatent or pool.latent_len != 1 or pool.pos_embed is not None:
            raise Unsupported(f"it pools with {type(pool).__name__} of another kind than SigLIP's")
        _require_fused_attention(pool)
        value, value_bias = pool.kv.weight.chunk(2)[1], None if pool.kv.bias is None else pool.kv.bias.chunk(2)[1]
        values, offset = _pool_values(pool.proj, value, value_bias, pool.num_heads)
        first = prefix if not getattr(trunk, "pool_include_prefix", True) else 0
        pooling = {"pool": pool, "values": values, "offset": offset, "first": first, "pool_mlp": pool.mlp}
        if pool.mlp is not None and not isinstance(pool.norm, nn.Identity):
            readout, family = replace(readout, **pooling), "timm ViT, attentional pool"
        else:
            raise Unsupported("its attentional pool lacks the MLP that SigLIP's has")
    elif trunk.global_pool == "token":
        family = "timm ViT, class token"
    elif trunk.global_pool == "avg":
        first = 0 if getattr(trunk, "pool_include_prefix", False) else prefix
        readout, family = replace(readout, pool="mean", first=first), "timm ViT, average"
    else:
        raise Unsupported(f"it pools by '{trunk.global_pool}', which is not linear")
    layers = [_timm_layer(block) for block in trunk.blocks]
    grid = trunk.patch_embed.grid_size
    return Tower(visual, family, layers, readout, trunk.blocks[0], grid, prefix, trunk.embed_dim)


def _timm_layer(block):
    """A block of timm's ViTs, with layer scale as a module or as gamma_1, pre-norm or post-norm."""
    attention = getattr(block, "attn", None)
    if type(block) not in TIMM_BLOCKS or type(attention) not in TIMM_ATTENTION:
        raise Unsupported(f"no adapter knows its blocks, {type(block).__name__} with {type(attention).__name__}")
    _require_fused_attention(attention)
    if getattr(attention, "gate", None) is not None:
        raise Unsupported("its attention is gated")
    inner = _layernorm(getattr(attention, "norm", nn.Identity()))
    before, post = (None, _layernorm(block.norm1)) if isinstance(block, EvaBlockPostNorm) else (block.norm1, None)
    norms = {"before": before, "inner": inner, "post": post}
    scale = getattr(block, "gamma_1", None)
    if scale is None:
        scale = getattr(getattr(block, "ls1", None), "gamma", None)
    out, heads = attention.proj, attention.num_heads
    options = {"out": out, "mlp": block.drop_path2, "scale": scale} | norms
    return Layer(attention, out.weight, out.bias, heads, _value_weight(attention), **options)


def _require_fused_attention(attention):
    if not attention.fused_attn:
        raise Unsupported("timm's fused attention is switched off (TIMM_FUSED_ATTN), and only it shows the heads")


def _unsupported_reason(trunk):
    """Why a timm tower without a single residual stream has no decomposition by heads."""
    reasons = {
        "ConvNeXt": "ConvNeXt is convolutional and has no attention heads",
        "FastVit": "FastViT ends in a convolution with squeeze-and-excitation and GELU, which is not linear in what "
        "its attention writes",
        "SwinTransformer": "Swin merges patches between stages, so its heads do not write into one residual stream of "
        "one width",
    }
    return reasons.get(trunk, f"no adapter knows timm's {trunk}")


def _resnet_tower(visual):
    """CLIP's ModifiedResNet: the heads of its attention pool, split by the source that they read.

    "Layers" are the sources that add up in the last stage: its shortcut with the pool's positional embedding (0), and
    the branch of each of its blocks. ReLU gates are taken as given, like attention weights; earlier stages are not
    linear. Biases are shared evenly by the sources. The stream is the joint space itself.
    """
    pool, sources = visual.attnpool, 1 + len(visual.layer4)
    bias = pool.c_proj.bias.detach() / sources
    layers = [Layer(pool, pool.c_proj.weight, bias, pool.num_heads, _value_weight(pool)) for _ in range(sources)]
    side = visual.image_size // 32
    readout = Readout("class", None, None, None)
    return Tower(visual, "ResNet, attention pool", layers, readout, pool, (side, side), 1, len(bias))
