"""`cxrdist explain`: heat maps of what a fine-tuned model looked at."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated, Literal

from cxrdist.inference.options import LookConfig

HELP = (
    "Draw heat maps of what a fine-tuned run looked at, and score them against boxes where the shard set has some; or, "
    "with --keys or --pick, compare chosen images and runs in one figure."
)
POSITIONALS = ("runs",)


@dataclass(frozen=True, kw_only=True)
class Config(LookConfig):
    """Which models, on which images, by which method.

    `out` is a folder, None = RUN/explain-METHOD; with `keys` or `pick` a .png or .pdf file, None =
    RUN/explain-METHOD-LABEL.png.
    """

    method: Literal["gradcam", "hirescam", "layercam", "eigencam", "occlusion"] = "gradcam"
    """gradcam, hirescam, layercam, eigencam: one pass, need feature maps. occlusion: for any network, some 200 passes
    per image."""
    keys: list[str] | str | None = None
    """Samples to compare in one figure, separated by commas."""
    pick: list[str] | str | None = None
    """Samples to compare by what the (first) run made of them: tp, fp, fn, tn, uncertain, by commas; the clearest of
    each kind. A kind named twice gives two."""
    label: str | None = None
    """Label of the figure; None = the only one that the runs have learnt."""
    labels: list[str] | str | None = None
    """Labels to explain, as a list or separated by commas; None = all that the run has learnt."""
    count: Annotated[int, "[0, inf)"] = 4
    """Images per label: the positives with the highest scores."""
    limit: Annotated[int | None, "[1, inf)"] = None
    """Most images per label in the pointing game; None = all with boxes."""
    layer: str | None = None
    """Layer of class activation maps, by its name in the backbone (layer3); None = the deepest that is fine enough (see
    docs/explain.md)."""
    patch: Annotated[int | None, "[1, 4096]"] = None
    """Side of occlusion's square in pixels; None = an eighth of the image."""


def run(config: Config) -> int:
    """Explain, and print the pointing game's table."""
    from cxrdist.errors import InputError
    from cxrdist.finetune.config import words
    from cxrdist.inference import network as networks
    from cxrdist.inference.explain import explain
    from cxrdist.inference.options import out_of, shards_of

    for name in ("count", "limit", "patch"):
        value = getattr(config, name)
        if value is not None and value < (0 if name == "count" else 1):
            raise InputError(f"{name} = {value}: must be at least {0 if name == 'count' else 1}")
    if config.keys is not None or config.pick is not None:
        return _compare(config)
    if len(config.runs) > 1 or config.label is not None:
        more = "several runs" if len(config.runs) > 1 else "--label"
        raise InputError(f"{more}: say with --pick tp,fp,fn,tn or --keys which images to compare")
    network = networks.load(config.run, config.device, classify=True)
    shards, out = shards_of(config), out_of(config, f"explain-{config.method}")
    found = explain(
        config.run,
        network,
        shards,
        out,
        method=config.method,
        labels=words(config.labels),
        count=config.count,
        limit=config.limit,
        layer=config.layer,
        patch=config.patch,
    )
    print(f"{out}: {found['panels']} images ({config.method} of {found['layer'] or 'all layers'})", file=sys.stderr)
    game = found.get("pointing_game")
    if game is None:
        print(f"{shards.path} has no boxes.parquet: no pointing game", file=sys.stderr)
        return 0
    head = f"{'label':<28} {'hits':>5} {'boxed':>6} {'rate':>6}  {'95 % interval':<13} {'by chance':>9} {'random':>7}"
    print(f"{head} {'energy':>7} {'random':>7}")
    for label, row in game.items():
        between = f"{row['ci_low']:.3f}-{row['ci_high']:.3f}"
        line = f"{label:<28} {row['hits']:>5} {row['n']:>6} {row['rate']:>6.3f}  {between:<13} {row['chance']:>9.3f}"
        print(f"{line} {row['random_rate']:>7.3f} {row['energy']:>7.3f} {row['random_energy']:>7.3f}")
    print(
        "random: the same network with weights drawn anew; energy: share of the map inside the boxes", file=sys.stderr
    )
    return 0


def _compare(config: Config) -> int:
    """Write the figure of chosen images."""
    from pathlib import Path

    from cxrdist.errors import InputError
    from cxrdist.finetune.config import words
    from cxrdist.inference import compare_maps, tested_run
    from cxrdist.inference import network as networks
    from cxrdist.inference.explain import Explainer
    from cxrdist.inference.options import shards_of

    if file := next((run for run in config.runs if Path(run).is_file()), None):
        raise InputError(f"{file} is a file, not a run, and says nothing of what it predicted; name the run")
    if config.out is not None and Path(config.out).suffix.lower() not in compare_maps.FORMATS:
        raise InputError(f"--out {config.out}: must end in {' or '.join(compare_maps.FORMATS)}")
    found = [networks.load(run, config.device, classify=True) for run in config.runs]
    shards, names = shards_of(config), tested_run.names_of(config.runs)
    trio = zip(config.runs, names, found, strict=True)
    runs = [tested_run.read(path, name, network, shards) for path, name, network in trio]
    labels = tested_run.comparable(runs)
    label = config.label or (labels[0] if len(labels) == 1 else None)
    if label not in labels:
        asked = (
            "several labels were learnt" if label is None else f"--label {label!r} is none that the runs have learnt"
        )
        raise InputError(f"{asked}; name one of them: --label {'|'.join(labels)}")
    keys = [(key, "") for key in words(config.keys) or []]
    keys += compare_maps.pick(runs[0], label, words(config.pick) or [])
    picked = compare_maps.chosen(shards, keys)
    if not picked:
        raise InputError("--keys and --pick name no image")
    explainers = [Explainer(network, config.method, config.layer, config.patch) for network in found]
    out = Path(config.out or Path(config.run) / f"explain-{config.method}-{label}.png")
    compare_maps.compare(runs, explainers, shards, label, picked, out)
    layers = ", ".join(dict.fromkeys(one.layer or "occlusion" for one in explainers))
    print(f"{out}: {len(picked)} images, {len(runs)} runs, {config.method} ({layers})", file=sys.stderr)
    return 0
