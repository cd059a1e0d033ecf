"""Which layer and which kind of class activation map points at what was drawn: pointing game and energy in the box.

Run: python -m benches.explain [--arch resnet18,convnext_atto] [--patients 420] [--longer 4]. One JSON line a network,
size, layer and method; `--table FILE...` turns such lines into the Markdown of benches/reports/explain.md.

One network of each architecture learns which of five labels have a box in an image, at 64 pixels, and goes on for fewer
steps at the other sizes, so that each size has a network that reads it; ARCH=FILE begins with the weights of a file.
Scored are the test images with a box of the label. Energy is the share of a map's sum that lies inside the boxes; by
chance both are the boxes' share of the view. The same network with the weights it began with, untrained, is scored
beside it (sanity check of Adebayo et al. 2018).
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from cxrdist.finetune import classifier
from cxrdist.finetune.classifier import Classifier
from cxrdist.finetune.config import FinetuneConfig
from cxrdist.inference import heatmaps
from cxrdist.inference.pointing_game import Box, covered, energy, is_hit, read_boxes
from results.stats.metrics import auroc
from shards import ShardSet

ARCHS = ("resnet18", "mobilenetv2_050", "convnext_atto", "regnetx_002")
LABELS = ("cardiomegaly", "pleural_effusion", "consolidation", "infiltration", "atelectasis")
STEPS = {64: 360, 28: 120, 128: 60, 224: 24}
"""Optimiser steps of 48 images at each size, in this order."""
PER_LABEL = 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", default=",".join(ARCHS))
    parser.add_argument("--patients", type=int, default=420)
    parser.add_argument("--longer", type=int, default=1, help="so many times the steps, for networks that learn slowly")
    parser.add_argument("--shards", help="a shard set of drawn X-rays; none = draw one")
    parser.add_argument("--table", nargs="+", help="files of lines to make the table of")
    options = parser.parse_args()
    if options.table:
        print(table([json.loads(line) for path in options.table for line in Path(path).read_text().splitlines()]))
        return
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as scratch:
        place = options.shards or _drawn(Path(scratch) / "shards", options.patients)
        for arch in options.arch.split(","):
            for line in measured(arch, place, options.longer):
                print(json.dumps(line), flush=True)


def _drawn(out: Path, patients: int) -> str:
    from shards.convert.phantom import convert_phantom
    from shards.phantom import PhantomConfig

    convert_phantom(PhantomConfig(out=str(out), patients=patients, size=224, workers=1), say=lambda line: None)
    return str(out)


def measured(arch: str, place: str, longer: int = 1) -> Iterator[dict]:
    """Train one architecture through the sizes and score it at each."""
    arch, _, weights = arch.partition("=")
    init = weights or "scratch"
    network, before = None, None
    for size, steps in STEPS.items():
        config = FinetuneConfig(shards=place, out="-", arch=arch, image_size=size, stem="standard", init=init)
        grown = classifier.build(config, LABELS, (0.5, 0.25))
        if network is not None:
            grown.load_state_dict(network.state_dict())
        else:
            before = copy.deepcopy(grown)
        began = time.monotonic()
        train(grown, ShardSet(place, "train"), size, steps * longer)
        seconds = time.monotonic() - began
        network = network or grown
        test = ShardSet(place, "test")
        quality = test_auroc(grown, test, size)
        print(f"{arch} {size}: {seconds:.0f} s, test AUROC {quality:.3f}", file=sys.stderr, flush=True)
        assert before is not None
        before.facts["image_size"] = size
        for line in scored(grown, before, test, size):
            yield {"arch": arch, "size": size, "auroc": round(quality, 4)} | line


def train(network: Classifier, shards: ShardSet, size: int, steps: int) -> None:
    """Adam on random batches, with shifts of up to a twelfth of the side."""
    images = shards.images(np.arange(len(shards)), size)
    truth = torch.from_numpy(drawn(shards)).float()
    rare = (len(truth) / truth.sum(0) - 1).clamp(max=10)
    optimiser = torch.optim.AdamW(network.parameters())
    plan = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=1e-3, total_steps=steps)
    draw = torch.Generator().manual_seed(0)
    network.train()
    for _ in range(steps):
        chosen = torch.randint(len(images), (48,), generator=draw)
        shift = torch.randint(-(size // 12), size // 12 + 1, (2,), generator=draw).tolist()
        pixels = torch.roll(_pixels(images[chosen]), shift, dims=(2, 3))
        loss = F.binary_cross_entropy_with_logits(network(pixels), truth[chosen], pos_weight=rare)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        plan.step()
    network.eval()


def drawn(shards: ShardSet) -> np.ndarray:
    """Which labels have a box in each image, bool (n, labels): the findings as drawn, without the errors of reports."""
    boxes = read_boxes(shards)
    keys = shards.index.keys(shards.rows).tolist()
    return np.array([[any(box.label == label for box in boxes.get(key, [])) for label in LABELS] for key in keys])


def _pixels(images: torch.Tensor) -> torch.Tensor:
    return (images.float() / 255 - 0.5) / 0.25


@torch.inference_mode()
def test_auroc(network: Classifier, test: ShardSet, size: int) -> float:
    """Mean AUROC over labels."""
    parts = [
        network(_pixels(test.images(part, size))) for part in np.array_split(np.arange(len(test)), len(test) // 64 + 1)
    ]
    scores, truth = torch.cat(parts).numpy(), drawn(test)
    return float(np.mean([auroc(truth[:, i], scores[:, i]) for i in range(len(LABELS))]))


def layers_of(network: Classifier) -> list[str]:
    """The last module of each resolution from 28 cells down that carries all: those the default chooses between."""
    last: dict[int, str] = {}
    for name, cells in reversed(heatmaps.feature_maps(network).items()):
        if cells <= 28 and cells not in last and heatmaps.carries_all(network, name):
            last[cells] = name
    return list(reversed(last.values()))


def scored(network: Classifier, random: Classifier, test: ShardSet, size: int) -> Iterator[dict]:
    """Hits and energy over all boxed test images, for each layer and method, of the network and the random one."""
    boxes = read_boxes(test)
    keys = test.index.keys(test.rows).tolist()
    cases: list[tuple[int, int, list[Box]]] = []
    for column, label in enumerate(LABELS):
        own = [(i, [box for box in boxes.get(key, []) if box.label == label]) for i, key in enumerate(keys)]
        cases += [(i, column, found) for i, found in own if found][:PER_LABEL]
    chance = float(np.mean([covered(found) for _, _, found in cases]))
    cells = heatmaps.feature_maps(network)
    for layer in layers_of(network):
        for method in heatmaps.CAMS:
            line = {"layer": layer, "cells": cells[layer], "method": method, "n": len(cases), "chance": chance}
            for who, model in (("", network), ("random_", random.eval())):
                if who and method != "gradcam":
                    continue
                hits, energies = _score(model, test, size, cases, layer, method)
                line |= {f"{who}rate": float(np.mean(hits)), f"{who}energy": float(np.mean(energies))}
            yield line


def _score(model: Classifier, test: ShardSet, size: int, cases: list, layer: str, method: str) -> tuple[list, list]:
    hits, energies = [], []
    for column in range(len(LABELS)):
        own = [(i, found) for i, c, found in cases if c == column]
        pixels = _pixels(test.images(np.array([i for i, _ in own]), size))
        maps = heatmaps.grown(heatmaps.class_maps(model, pixels, [column], layer, method)[0], size)
        for heat, (_, found) in zip(maps, own, strict=True):
            hits.append(is_hit(heat, found))
            energies.append(energy(heat, found))
    return hits, energies


def table(lines: list[dict]) -> str:
    """Markdown, one row a network, size and layer, the pointing rate and energy of each method."""
    methods = list(heatmaps.CAMS)
    head = ["network", "pixels", "test AUROC", "layer", "cells", *methods, "as it began", "chance"]
    out = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    places = dict.fromkeys((line["arch"], line["size"], line["layer"]) for line in lines)
    for arch, size, layer in places:
        own = {
            line["method"]: line for line in lines if (line["arch"], line["size"], line["layer"]) == (arch, size, layer)
        }
        any_ = own["gradcam"]
        row = [arch, size, f"{any_['auroc']:.3f}", f"`{layer}`", any_["cells"]]
        row += [f"{own[m]['rate']:.2f} / {own[m]['energy']:.2f}" for m in methods]
        row += [f"{any_['random_rate']:.2f} / {any_['random_energy']:.2f}", f"{any_['chance']:.2f}"]
        out.append("| " + " | ".join(map(str, row)) + " |")
    return "\n".join(out)


if __name__ == "__main__":
    main()
