"""Checkpoints of other layouts in open_clip's names, and checkpoints put into a model: exactly, or not at all.

Transformers' CLIP goes into open_clip's VisionTransformer, its SigLIP into timm's. Names and whether queries, keys and
values are one matrix differ; the numbers are the same, and so is what the model computes.
"""

import math
import re

import torch
from open_clip.convert import convert_state_dict
from open_clip.model import resize_pos_embed, resize_text_pos_embed

from clipspectra import InputError

# Transformers' names -> ours, one after another: of both towers, of CLIP's image tower, of SigLIP's.
BLOCKS = [
    (r"^text_model\.embeddings\.token_embedding\.weight$", "token_embedding.weight"),
    (r"^text_model\.embeddings\.position_embedding\.weight$", "positional_embedding"),
    (r"^text_model\.encoder\.layers\.(\d+)\.", r"transformer.resblocks.\1."),
    (r"^text_model\.final_layer_norm\.", "ln_final."),
    (r"^text_model\.head\.", "text_projection."),
    (r"(resblocks\.\d+)\.self_attn\.", r"\1.attn."),
    (r"(resblocks\.\d+)\.layer_norm([12])\.", r"\1.ln_\2."),
    (r"(resblocks\.\d+)\.mlp\.fc1\.", r"\1.mlp.c_fc."),
    (r"(resblocks\.\d+)\.mlp\.fc2\.", r"\1.mlp.c_proj."),
]
CLIP_TOWER = [
    (r"^vision_model\.embeddings\.class_embedding$", "visual.class_embedding"),
    (r"^vision_model\.embeddings\.patch_embedding\.", "visual.conv1."),
    (r"^vision_model\.embeddings\.position_embedding\.weight$", "visual.positional_embedding"),
    (r"^vision_model\.pre_layrnorm\.", "visual.ln_pre."),
    (r"^vision_model\.encoder\.layers\.(\d+)\.", r"visual.transformer.resblocks.\1."),
    (r"^vision_model\.post_layernorm\.", "visual.ln_post."),
    (r"^visual_projection\.weight$", "visual.proj"),
    (r"^text_projection\.weight$", "text_projection"),
]
SIGLIP_TOWER = [
    (r"^vision_model\.embeddings\.patch_embedding\.", "visual.trunk.patch_embed.proj."),
    (r"^vision_model\.embeddings\.position_embedding\.weight$", "visual.trunk.pos_embed"),
    (r"^vision_model\.encoder\.layers\.(\d+)\.", r"visual.trunk.blocks.\1."),
    (r"^vision_model\.post_layernorm\.", "visual.trunk.norm."),
    (r"^vision_model\.head\.probe$", "visual.trunk.attn_pool.latent"),
    (r"^vision_model\.head\.attention\.out_proj\.", "visual.trunk.attn_pool.proj."),
    (r"^vision_model\.head\.attention\.", "visual.trunk.attn_pool."),
    (r"^vision_model\.head\.layernorm\.", "visual.trunk.attn_pool.norm."),
    (r"^vision_model\.head\.", "visual.trunk.attn_pool."),
    (r"(blocks\.\d+)\.self_attn\.out_proj\.", r"\1.attn.proj."),
    (r"(blocks\.\d+)\.self_attn\.", r"\1.attn."),
    (r"(blocks\.\d+)\.layer_norm([12])\.", r"\1.norm\2."),
]
# Buffers that other versions and layouts keep with the weights; the model makes its own.
BUFFERS = re.compile(r"(^|\.)(position_ids|attn_mask|input_resolution|context_length|vocab_size|n_averaged)$")

IMAGE_POSITIONS = ("visual.positional_embedding", "visual.trunk.pos_embed", "visual.attnpool.positional_embedding")
TEXT_POSITIONS = ("positional_embedding", "text.positional_embedding")
RESIZED = ("visual.positional_embedding", *TEXT_POSITIONS)  # those that open_clip interpolates
# The text tower's names in a model that has it as a part of its own.
TEXT_TOWER = re.compile(r"^(token_embedding|positional_embedding|transformer|ln_final|text_projection)(?=\.|$)")

IMAGE_TOWER = re.compile(r"(visual|vision_model|visual_projection|trunk)\.|conv1\.weight|class_embedding|ln_post\.")
ANY_TEXT_TOWER = re.compile(r"text\.|text_model\.|token_embedding|ln_final")


def is_transformers(tensors):
    """Whether a checkpoint has the names that transformers gives a CLIP or a SigLIP."""
    return any(name.startswith(("vision_model.", "text_model.")) for name in tensors)


def is_siglip(tensors):
    """Whether a checkpoint of transformers is a SigLIP: it pools by attention, and CLIP by a class token."""
    return not {"vision_model.embeddings.class_embedding", "visual_projection.weight"} & set(tensors)


def load_weights(model, tensors, path, name, *, resize=False):
    """Load a checkpoint's tensors into an open_clip model, every one of them and nothing missing.

    path, name: of the weights and of the architecture, for sentences
    resize: whether position embeddings of another image size or context may be interpolated

    Raises InputError naming both sizes where they differ, or weights that are missing, left over or of other shapes.
    """
    if is_transformers(tensors):
        tensors = _from_transformers(tensors)
    tensors = convert_state_dict(model, {key: part for key, part in tensors.items() if not BUFFERS.search(key)})
    own = model.state_dict()
    if "text.token_embedding.weight" in own:
        tensors = {TEXT_TOWER.sub(r"text.\1", key): part for key, part in tensors.items()}
    elif "token_embedding.weight" in own:
        tensors = {key.removeprefix("text."): part for key, part in tensors.items()}
    for logit in ("logit_scale", "logit_bias"):  # no embedding depends on them
        part = tensors.pop(logit, None)
        if logit in own:
            fits = part is not None and part.numel() == own[logit].numel()
            tensors[logit] = part.reshape(own[logit].shape) if fits else own[logit]
    counters = [key for key, part in tensors.items() if part.ndim == 0 and key not in own]  # of training
    tensors = {key: part for key, part in tensors.items() if key not in counters}
    tensors = _apart_or_fused(tensors, own)
    missing, extra = sorted(set(own) - set(tensors)), sorted(set(tensors) - set(own))
    if missing or extra:
        raise InputError(f"The weights {path} do not fit {name}: {_why_not(missing, extra, set(tensors))}.")
    for other, part in tensors.items():
        if part.is_floating_point() and part.numel() and not torch.isfinite(torch.stack(part.aminmax())).all():
            raise InputError(f"The weights {path} are not all finite numbers: {other} holds nan or inf.")
        if own[other].is_floating_point() and not part.is_floating_point():
            raise InputError(f"The weights {path} hold {other} as {part.dtype}: quantised weights are not exact.")
    for other in own:
        if own[other].shape != tensors[other].shape and other not in IMAGE_POSITIONS + TEXT_POSITIONS:
            shapes = [*tensors[other].shape], [*own[other].shape]
            raise InputError(
                f"The weights {path} do not fit {name}: {other} has shape {shapes[0]}, {name} has {shapes[1]}."
            )
    _check_sizes(model, tensors, own, path, name, resize)
    model.load_state_dict(tensors)


def _why_not(missing, extra, present):
    """In words, what a checkpoint lacks and has too much."""
    if any("lora_" in key for key in extra):
        return "they hold LoRA adapters; merge them into the weights first"
    towers = {"an image tower": IMAGE_TOWER, "a text tower": ANY_TEXT_TOWER}
    found = [tower for tower, names in towers.items() if any(names.match(key) for key in present)]
    if len(found) == 1:
        return f"they are {found[0]} alone, and both are needed"
    kinds = (("they lack", missing), ("they have besides", extra))
    parts = [(what, names[:3], len(names) - 3) for what, names in kinds if names]
    return "; ".join(f"{what} {', '.join(few)}{f' and {more} more' if more > 0 else ''}" for what, few, more in parts)


def _from_transformers(tensors):
    """Names and shapes of transformers' CLIP or SigLIP in open_clip's."""
    siglip = is_siglip(tensors)
    result = {}
    for name, tensor in tensors.items():
        for pattern, ours in [*(SIGLIP_TOWER if siglip else CLIP_TOWER), *BLOCKS]:
            name = re.sub(pattern, ours, name)
        if name in ("visual.proj", "text_projection", "text_projection.weight") and not siglip:
            tensor = tensor.T.contiguous()
        if name == "visual.trunk.pos_embed":
            tensor = tensor[None]
        result[name] = tensor
    return result


def _apart_or_fused(tensors, own):
    """Queries, keys and values as one matrix or as three, the way the model `own` has them."""
    result = dict(tensors)
    for name in [name for name in own if name not in tensors]:
        if match := re.fullmatch(r"(.*\.)(?:in_proj_|qkv\.)(weight|bias)", name):
            start, kind = match.groups()
            for parts in (
                [f"{start}{part}_proj.{kind}" for part in "qkv"],
                [f"{start}in_proj_{kind}"],
                [f"{start}qkv_proj.{kind}"],
                [f"{start}qkv.{kind}"],
            ):
                if all(part in tensors for part in parts):
                    result[name] = torch.cat([result.pop(part) for part in parts])
                    break
        elif match := re.fullmatch(r"(.*\.)(q|k|v)_proj\.(weight|bias)", name):
            start, part, kind = match.groups()
            for fused in (f"{start}in_proj_{kind}", f"{start}qkv.{kind}"):
                if fused in tensors:
                    result[name] = tensors[fused].chunk(3)["qkv".index(part)]
                    result.pop(fused, None)
        elif match := re.fullmatch(r"(.*attn_pool\.)(q|kv)\.(weight|bias)", name):
            start, part, kind = match.groups()
            fused = f"{start}in_proj_{kind}"
            if fused in tensors:
                query, keys_and_values = tensors[fused].tensor_split([len(tensors[fused]) // 3])
                result[name] = query if part == "q" else keys_and_values
                result.pop(fused, None)
    return result


def _check_sizes(model, tensors, own, path, name, resize):
    """Raise InputError where weights are of another image size or text context; with `resize`, interpolate those."""
    for key in IMAGE_POSITIONS + TEXT_POSITIONS:
        if key not in own or tensors[key].shape == own[key].shape:
            continue
        if key in TEXT_POSITIONS:
            there, here = (f"texts of {len(part[key])} tokens" for part in (tensors, own))
        else:
            there, here = (f"images of {_pixels(model, part[key], own[key])}" for part in (tensors, own))
        can = key in RESIZED
        if not (resize and can):
            advice = "; or set resize_positions: true to interpolate them" if can else ""
            raise InputError(
                f"The weights {path} were made for {there}, {name} asks for {here}. Name the architecture of that "
                f"size{advice}."
            )
    resize_pos_embed(tensors, model)
    resize_text_pos_embed(tensors, model)


def _pixels(model, embedding, own):
    """How large the images are whose tokens have these position embeddings, in words; `own` are the model's."""
    visual, count, embedding = model.visual, own.flatten(0, -2).shape[0], embedding.flatten(0, -2)
    size = visual.image_size if isinstance(visual.image_size, tuple | list) else (visual.image_size,) * 2
    patches = getattr(getattr(visual, "trunk", None), "patch_embed", visual)
    rows, columns = getattr(patches, "grid_size", None) or (math.isqrt(count - 1),) * 2
    patches = len(embedding) - (count - rows * columns)
    if len(embedding) == count:
        return f"{size[0]} × {size[1]} px ({rows} × {columns} patches)"
    side = math.isqrt(patches)
    if side * side != patches:
        return f"{patches} patches"
    return f"{side * size[0] // rows} × {side * size[1] // columns} px ({side} × {side} patches)"
