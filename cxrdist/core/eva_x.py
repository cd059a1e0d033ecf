"""EVA-X (Yao et al. 2024): vision transformers pretrained on chest X-rays, registered as models of timm.

Their settings are those of eva_x.py in github.com/hustvl/EVA-X; timm has the network (`timm.models.eva.Eva`) but no
name for these sizes with patches of 16 pixels.
"""

from __future__ import annotations

from typing import Any

from cxrdist.core.lean_timm import timm

Eva = timm.models.eva.Eva
_CFG = {
    "url": "", "num_classes": 0, "input_size": (3, 224, 224), "fixed_input_size": True,
    "first_conv": "patch_embed.proj", "classifier": "head", "mean": (0.49185243,) * 3, "std": (0.28509309,) * 3,
}  # fmt: skip

default_cfgs = timm.models.generate_default_cfgs(
    {name: dict(_CFG) for name in ("eva_x_tiny_patch16", "eva_x_small_patch16", "eva_x_base_patch16")}
)


def _built(name: str, pretrained: bool, **given: Any) -> Eva:
    shared = {"patch_size": 16, "depth": 12, "mlp_ratio": 4 * 2 / 3, "swiglu_mlp": True}
    rotary = {"use_rot_pos_emb": True, "ref_feat_shape": (14, 14)}
    options = {"img_size": 224, **shared, **rotary, **given}
    return timm.models.build_model_with_cfg(
        Eva, name, pretrained, pretrained_filter_fn=timm.models.eva.checkpoint_filter_fn, **options
    )


@timm.models.register_model
def eva_x_tiny_patch16(pretrained: bool = False, **options: Any) -> Eva:
    """EVA-X-Ti: 192 wide."""
    return _built("eva_x_tiny_patch16", pretrained, **{"embed_dim": 192, "num_heads": 3, **options})


@timm.models.register_model
def eva_x_small_patch16(pretrained: bool = False, **options: Any) -> Eva:
    """EVA-X-S: 384 wide."""
    return _built("eva_x_small_patch16", pretrained, **{"embed_dim": 384, "num_heads": 6, **options})


@timm.models.register_model
def eva_x_base_patch16(pretrained: bool = False, **options: Any) -> Eva:
    """EVA-X-B: 768 wide, query, key and value apart, normalisation in the MLP."""
    base = {"embed_dim": 768, "num_heads": 12, "qkv_fused": False, "scale_mlp": True}
    return _built("eva_x_base_patch16", pretrained, **{**base, **options})
