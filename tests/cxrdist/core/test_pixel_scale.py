"""The pixels that given weights expect: said by the weights or by the user, and part of a run's identity."""

from __future__ import annotations

import pytest
import torch

from cxrdist.core import pixel_scale
from cxrdist.core.backbones import build_backbone, save_encoder
from cxrdist.errors import InputError
from cxrdist.finetune import identity
from cxrdist.finetune.config import IGNORED_BY_SIGNATURE, run_settings
from cxrdist.pretrain import loop
from results.identity import signature
from shards import read_card
from tests.cxrdist.conftest import TINY
from tests.cxrdist.finetuning import LINEAR, trained, trial


@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_weights_that_do_not_say_what_pixels_they_expect_are_refused(ending, blobs, tmp_path, make_run):
    torch.manual_seed(0)
    backbone = build_backbone(TINY, 32, stem="standard")
    weights = tmp_path / f"published.{ending}"
    if ending == "pth":
        torch.save(backbone.state_dict(), weights)
    else:
        save_encoder(weights, backbone, {})
    given = {**LINEAR, "init": str(weights), "stem": "standard"}
    with pytest.raises(InputError, match=r"does not say what pixels .* --init_mean and --init_std"):
        trial(tmp_path / "run", blobs, **given)
    with pytest.raises(InputError, match="does not say what pixels"):
        make_run("pre", init=str(weights), stem="standard")
    with pytest.raises(InputError, match="init_mean is given alone"):
        trial(tmp_path / "run", blobs, **given, init_mean=0.5)
    with pytest.raises(InputError, match="init_std = 0.0: must be above 0"):
        trial(tmp_path / "run", blobs, **given, init_mean=0.5, init_std=0.0)
    with pytest.raises(InputError, match="has its own pixel scale"):
        trial(tmp_path / "run", blobs, **LINEAR, init_mean=0.5, init_std=1.0)
    run = trained(tmp_path / "run", blobs, **given, init_mean=0.5, init_std=1 / 2048)
    from cxrdist.finetune import classifier
    from cxrdist.finetune.features import normalise

    loaded = classifier.load(run.model)
    ends = normalise(torch.tensor([0, 255], dtype=torch.uint8).reshape(1, 1, 1, 2), loaded, torch.device("cpu"))
    assert ends.flatten().tolist() == [-1024, 1024], "as torchxrayvision's networks see black and white"
    pre = make_run("pre", init=str(weights), stem="standard", init_mean=0.5, init_std=1 / 2048)
    _, _, augment = loop.open_data(loop.from_dict(loop.PretrainConfig, pre.read_config()))
    assert (augment.mean, augment.std) == (0.5, 1 / 2048)


def test_the_signature_says_whose_imagenet_weights_expect_other_pixels_than_those_of_imagenet(
    blobs, tmp_path, make_run
):
    import timm

    usual = [name for name in timm.list_models() if pixel_scale.AS_IMAGENET.fullmatch(name)]
    assert {"resnet18", "resnet50", "densenet121"} <= set(usual)
    for name in usual:
        assert pixel_scale._of_timm(name) == pytest.approx(pixel_scale.IMAGENET_GREY, abs=1e-9), name
    assert pixel_scale._of_timm("tf_efficientnet_lite0") == (0.5, 0.5)
    assert pixel_scale.that_count("imagenet", "resnet18") == {} == pixel_scale.that_count("scratch", "vit_small")
    wanted = {"imagenet_pixels": "timm"}
    assert pixel_scale.that_count("imagenet", "tf_efficientnet_lite0") == wanted
    lite = {"arch": "tf_efficientnet_lite0", "init": "imagenet", "stem": "standard"}
    config, _ = trial(tmp_path / "lite", blobs, **{**LINEAR, **lite})
    values = run_settings(config) | {"shards": read_card(blobs).sha256, "eval_shards": [], "init_pixels": None}
    values.pop("level")
    assert identity.trial_signature(config) == signature(values | wanted, IGNORED_BY_SIGNATURE)
    pre = make_run("pre", **lite)
    assert pre.read_info()["signature"] != make_run("other", **{**lite, "init": "scratch"}).read_info()["signature"]
