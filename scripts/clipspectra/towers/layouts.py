"""Convert checkpoints to open_clip's names and load them into a model: exactly, or not at all.

Transformers' CLIP goes into open_clip's VisionTransformer, its SigLIP into timm's. Names differ, and so does whether
queries, keys and values are one matrix; the weights and what the model computes are the same.
"""

import math
import re

import torch
from open_clip.convert import convert_state_dict
from open_clip.model import resize_pos_embed, resize_text_pos_embed

from clipspectra import InputError
from clipspectra.towers.tower import image_size

# Transformers' names -> open_clip's, applied in order: blocks of both towers, CLIP's image tower, SigLIP's.
SHARED_NAMES = [
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
# Buffers that other versions and layouts store with the weights; the model creates its own.
BUFFERS = re.compile(r"(^|\.)(position_ids|attn_mask|input_resolution|context_length|vocab_size|n_averaged)$")

IMAGE_POSITIONS = ("visual.positional_embedding", "visual.trunk.pos_embed", "visual.attnpool.positional_embedding")
TEXT_POSITIONS = ("positional_embedding", "text.positional_embedding")
RESIZED = ("visual.positional_embedding", *TEXT_POSITIONS)  # those that open_clip interpolates
# The text tower's names in a checkpoint, which a model with a separate text tower has under `text.`.
TEXT_TOWER = re.compile(r"^(token_embedding|positional_embedding|transformer|ln_final|text_projection)(?=\.|$)")

IMAGE_TOWER = re.compile(r"(visual|vision_model|visual_projection|trunk)\.|conv1\.weight|class_embedding|ln_post\.")
ANY_TEXT_TOWER = re.compile(r"text\.|text_model\.|token_embedding|ln_final")


def is_kept(name, towers):
    """Whether a weight or module of an open_clip model is kept with `towers`, "both", "image" or "text"."""
    part = name.split(".")[0]
    tower = {"visual": "image", "text_decoder": "captions"}.get(part, "text")
    return towers in ("both", tower) or part in ("logit_scale", "logit_bias")


def is_transformers(tensors):
    """Whether a checkpoint has the names of a CLIP or a SigLIP of transformers."""
    return any(name.startswith(("vision_model.", "text_model.")) for name in tensors)


def is_siglip(tensors):
    """Whether a checkpoint of transformers is a SigLIP: it pools by attention, and CLIP by a class token."""
    return not {"vision_model.embeddings.class_embedding", "visual_projection.weight"} & set(tensors)


def load_weights(model, tensors, path, name, *, resize=False, towers="both"):
    """Load all tensors of a checkpoint into an open_clip model, with none missing.

    path, name: of the weights and of the architecture, for error messages
    resize: whether position embeddings of another image size or context may be interpolated
    towers: "both", "image" or "text"; of the weights that are not kept only names, types and shapes are checked

    Tensors of the model's dtype are not copied: they replace its parameters.

    Raises InputError naming both sizes where they differ, or weights that are missing, left over or of other shapes.
    """
    if is_transformers(tensors):
        tensors = _from_transformers(tensors)
    tensors = convert_state_dict(model, {key: tensor for key, tensor in tensors.items() if not BUFFERS.search(key)})
    expected = model.state_dict()
    if "text.token_embedding.weight" in expected:
        tensors = {TEXT_TOWER.sub(r"text.\1", key): tensor for key, tensor in tensors.items()}
    elif "token_embedding.weight" in expected:
        tensors = {key.removeprefix("text."): tensor for key, tensor in tensors.items()}
    for key in ("logit_scale", "logit_bias"):  # no embedding depends on them
        tensor = tensors.pop(key, None)
        if key in expected:
            fits = tensor is not None and tensor.numel() == expected[key].numel()
            tensors[key] = tensor.reshape(expected[key].shape) if fits else expected[key]
    # Scalars that the model lacks are counters of training.
    tensors = {key: tensor for key, tensor in tensors.items() if tensor.ndim or key in expected}
    tensors = {key: tensor if is_kept(key, towers) else tensor.to("meta") for key, tensor in tensors.items()}
    tensors = _match_attention_layout(tensors, expected)
    missing, extra = sorted(set(expected) - set(tensors)), sorted(set(tensors) - set(expected))
    if missing or extra:
        raise InputError(f"The weights {path} do not fit {name}: {_explain_mismatch(missing, extra, set(tensors))}.")
    for key, tensor in tensors.items():
        if expected[key].is_floating_point() and not tensor.is_floating_point():
            raise InputError(f"The weights {path} hold {key} as {tensor.dtype}: quantised weights are not exact.")
        tensors[key] = tensor = tensor.to(expected[key].dtype)
        checked = tensor.is_floating_point() and tensor.numel() and not tensor.is_meta
        if checked and not torch.isfinite(torch.stack(tensor.aminmax())).all():
            raise InputError(f"The weights {path} are not all finite numbers: {key} holds nan or inf.")
    for key in expected:
        if expected[key].shape != tensors[key].shape and key not in IMAGE_POSITIONS + TEXT_POSITIONS:
            shapes = [*tensors[key].shape], [*expected[key].shape]
            raise InputError(
                f"The weights {path} do not fit {name}: {key} has shape {shapes[0]}, {name} needs {shapes[1]}."
            )
    _check_sizes(model, tensors, expected, path, name, resize)
    kept = {key: tensor.contiguous() for key, tensor in tensors.items() if is_kept(key, towers)}
    model.load_state_dict(kept, strict=False, assign=True)


def _explain_mismatch(missing, extra, present):
    """In words, which weights a checkpoint lacks and which it has besides; all arguments are names."""
    if any("lora_" in key for key in extra):
        return "they hold LoRA adapters; merge them into the weights first"
    towers = {"an image tower": IMAGE_TOWER, "a text tower": ANY_TEXT_TOWER}
    present_towers = [tower for tower, pattern in towers.items() if any(pattern.match(key) for key in present)]
    if len(present_towers) == 1:
        return f"they hold {present_towers[0]} alone, and both towers are needed"
    clauses = [("they lack", missing), ("they also have", extra)]
    more = {clause: f" and {len(names) - 3} more" if len(names) > 3 else "" for clause, names in clauses}
    return "; ".join(f"{clause} {', '.join(names[:3])}{more[clause]}" for clause, names in clauses if names)


def _from_transformers(tensors):
    """Tensors of transformers' CLIP or SigLIP with open_clip's names and shapes."""
    siglip = is_siglip(tensors)
    result = {}
    for name, tensor in tensors.items():
        for pattern, replacement in [*(SIGLIP_TOWER if siglip else CLIP_TOWER), *SHARED_NAMES]:
            name = re.sub(pattern, replacement, name)
        if name in ("visual.proj", "text_projection", "text_projection.weight") and not siglip:
            tensor = tensor.T.contiguous()
        if name == "visual.trunk.pos_embed":
            tensor = tensor[None]
        result[name] = tensor
    return result


def _match_attention_layout(tensors, expected):
    """Weights of queries, keys and values as one matrix or several, as in `expected`, the model's tensors."""
    result = dict(tensors)
    for name in [name for name in expected if name not in tensors]:
        if match := re.fullmatch(r"(.*\.)(?:in_proj_|qkv\.)(weight|bias)", name):
            start, kind = match.groups()
            for sources in (
                [f"{start}{letter}_proj.{kind}" for letter in "qkv"],
                [f"{start}in_proj_{kind}"],
                [f"{start}qkv_proj.{kind}"],
                [f"{start}qkv.{kind}"],
            ):
                if all(source in tensors for source in sources):
                    result[name] = torch.cat([result.pop(source) for source in sources])
                    break
        elif match := re.fullmatch(r"(.*\.)(q|k|v)_proj\.(weight|bias)", name):
            start, letters, kind = match.groups()
            for fused in (f"{start}in_proj_{kind}", f"{start}qkv.{kind}"):
                if fused in tensors:
                    result[name] = tensors[fused].chunk(3)["qkv".index(letters)]
                    result.pop(fused, None)
        elif match := re.fullmatch(r"(.*attn_pool\.)(q|kv)\.(weight|bias)", name):
            start, letters, kind = match.groups()
            fused = f"{start}in_proj_{kind}"
            if fused in tensors:
                query, keys_and_values = tensors[fused].tensor_split([len(tensors[fused]) // 3])
                result[name] = query if letters == "q" else keys_and_values
                result.pop(fused, None)
    return result


def _check_sizes(model, tensors, expected, path, name, resize):
    """Raise InputError for weights of another image size or text context; with `resize`, interpolate them instead."""
    for key in IMAGE_POSITIONS + TEXT_POSITIONS:
        if key not in expected or tensors[key].shape == expected[key].shape:
            continue
        if key in TEXT_POSITIONS:
            trained, taken = (f"texts of {len(weights[key])} tokens" for weights in (tensors, expected))
        else:
            embeddings = tensors[key], expected[key]
            trained, taken = (_describe_image_size(model, embedding, expected[key]) for embedding in embeddings)
        resizable = key in RESIZED
        if not (resize and resizable):
            advice = ", or set resize_positions: true to interpolate them" if resizable else ""
            raise InputError(
                f"The weights {path} were trained for {trained}, but {name} takes {taken}. Set the "
                f"architecture of that size{advice}."
            )
    resize_pos_embed(tensors, model)
    resize_text_pos_embed(tensors, model)


def _describe_image_size(model, embedding, expected):
    """In words, the size of images with these position embeddings; `expected` are the model's."""
    visual, size = model.visual, image_size(model.visual)
    count, embedding = expected.flatten(0, -2).shape[0], embedding.flatten(0, -2)
    patch_embed = getattr(getattr(visual, "trunk", None), "patch_embed", visual)
    rows, columns = getattr(patch_embed, "grid_size", None) or (math.isqrt(count - 1),) * 2
    patches = len(embedding) - (count - rows * columns)
    if len(embedding) == count:
        return f"images of {size[0]} × {size[1]} px ({rows} × {columns} patches)"
    side = math.isqrt(patches)
    if side * side != patches:
        return f"images of {patches} patches"
    return f"images of {side * size[0] // rows} × {side * size[1] // columns} px ({side} × {side} patches)"
