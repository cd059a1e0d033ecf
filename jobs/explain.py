"""`cxrdist explain`: heat maps of what a fine-tuned model looked at."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated, Literal

from cxrdist.inference.options import LookConfig

HELP = "Draw heat maps of what a fine-tuned run looked at, and score them against boxes where the shard set has some."
POSITIONALS = ("run",)


@dataclass(frozen=True, kw_only=True)
class Config(LookConfig):
    """Which model, on which images, by which method; `out` is a folder, None = RUN/explain-METHOD."""

    method: Literal["gradcam", "occlusion"] = "gradcam"
    """gradcam: one pass per label, needs feature maps. occlusion: for any network, some 200 passes per image."""
    labels: list[str] | str | None = None
    """Labels to explain; one string may hold several with commas; None = all that the run has learnt."""
    count: Annotated[int, "[0, inf)"] = 4
    """Pictures per label: the positives with the highest scores."""
    limit: Annotated[int | None, "[1, inf)"] = None
    """Most images per label in the pointing game; None = all with boxes."""
    layer: str | None = None
    """Grad-CAM's layer, by its name in the backbone (layer3); None = the deepest with a map of at least 7 x 7."""
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
    print(f"{out}: {found['panels']} pictures ({config.method} of {found['layer'] or 'all layers'})", file=sys.stderr)
    game = found.get("pointing_game")
    if game is None:
        print(f"{shards.path} has no boxes.parquet: no pointing game", file=sys.stderr)
        return 0
    print(f"{'label':<28} {'hits':>5} {'boxed':>6} {'rate':>6}  {'95 % interval':<13} {'by chance':>9}")
    for label, row in game.items():
        between = f"{row['ci_low']:.3f}-{row['ci_high']:.3f}"
        print(f"{label:<28} {row['hits']:>5} {row['n']:>6} {row['rate']:>6.3f}  {between:<13} {row['chance']:>9.3f}")
    return 0
