"""Every family of open_clip's image towers at small size: open_clip's own configs with smaller sizes."""

from unittest.mock import patch

import open_clip
import timm
import torch
from open_clip.coca_model import CoCa, MultimodalCfg
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP

TEXT = {"context_length": 16, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1}
VIT = {"image_size": 32, "layers": 3, "width": 48, "head_width": 12, "patch_size": 8}
TIMM = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 4}

# name -> (architecture of open_clip, changes to its config)
SMALL = {
    "ViT": ("ViT-B-16", VIT),
    "QuickGELU": ("ViT-B-16-quickgelu", VIT),
    "layer scale": ("ViT-M-16-alt", VIT | {"ls_init_value": 0.3}),
    "no ln_pre": ("ViT-B-16", VIT | {"no_ln_pre": True}),
    "LayerNorm after class token": ("ViT-B-16", VIT | {"final_ln_after_pool": True}),
    "average, then LayerNorm": ("ViT-L-14-CLIPA", VIT),
    "LayerNorm, then average": ("ViT-B-16", VIT | {"pool_type": "avg"}),
    "CoCa": ("coca_ViT-B-32", VIT | {"attn_pooler_heads": 3, "attn_pooler_queries": 5}),
    "custom block": (
        "ViT-B-16",
        VIT | {"scale_heads": True, "scale_attn_inner": True, "scale_attn": True, "scale_fc": True},
    ),
    "SigLIP": ("ViT-B-16-SigLIP", TIMM),
    "SigLIP2": ("ViT-B-16-SigLIP2", TIMM),
    "EVA01": ("EVA01-g-14", TIMM),
    "EVA02, gated MLP and inner norms": ("EVA02-B-16", TIMM),
    "EVA02, norms last": ("EVA02-E-14", TIMM),
    "PE": ("PE-Core-B-16", TIMM),
    "timm, class token": ("MobileCLIP-B", {"img_size": 32, "depth": 2}),
    "timm, average": ("vit_medium_patch16_gap_256", TIMM),
    "ViTamin": ("ViTamin-S", {"img_size": 64, "depth": 2}),
    "relative positions": ("vit_relpos_medium_patch16_cls_224", TIMM),
    "ResNet": ("RN50", {"image_size": 64, "layers": [1, 1, 1, 2], "width": 8}),
}


def small(name, dtype=torch.float64):
    """A small model of a family in eval mode, all parameters and statistics random."""
    architecture, changes = SMALL[name]
    config = open_clip.get_model_config(architecture)
    vision, quick_gelu = config["vision_cfg"], config.get("quick_gelu", False)
    torch.manual_seed(0)
    if "timm_model_name" in vision:
        create = timm.create_model
        with patch("timm.create_model", lambda *args, **kwargs: create(*args, **kwargs, **changes)):
            model = CustomTextCLIP(
                24, CLIPVisionCfg(**vision | {"image_size": changes["img_size"]}), CLIPTextCfg(**TEXT)
            )
    elif architecture.startswith("coca"):
        multimodal = MultimodalCfg(context_length=16, vocab_size=64, width=24, heads=2, layers=1)
        model = CoCa(24, multimodal, CLIPTextCfg(**TEXT), CLIPVisionCfg(**vision | changes))
    else:
        model = CLIP(24, CLIPVisionCfg(**vision | changes), CLIPTextCfg(**TEXT), quick_gelu=quick_gelu)
    model = model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        for buffer_name, buffer in model.named_buffers():
            if buffer_name.endswith(("running_mean", "running_var")):
                buffer.add_(0.3 * torch.rand_like(buffer))
    return model.to(dtype)


def pictures(model, count, dtype=torch.float64, seed=1):
    """Random images of a model's size."""
    size = model.visual.image_size
    size = tuple(size) if isinstance(size, tuple | list) else (size, size)
    return torch.randn(count, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)
