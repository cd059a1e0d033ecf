"""What a run starts from: scratch, ImageNet weights or an encoder file, described by its header. Free of torch."""

from __future__ import annotations

import dataclasses
import functools
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxrdist.core import hub, named_inits, pixel_scale, published
from cxrdist.core.published import Found
from cxrdist.core.shard_sets import card
from cxrdist.errors import InputError
from results.run import Run
from shards.format import file_sha256

KMEANS_PATCHES = "kmeans-patches"
"""The initialisation that is learnt from the trial's own train images (`cxrdist.core.kmeans_patches`)."""
NAMED_INITS = ("scratch", "imagenet", KMEANS_PATCHES)
PATCH_FEATURES = "patch_features"
"""The architecture of `KMEANS_PATCHES`."""
SMALL_CNN = "small_cnn"
"""The architecture that is not timm's (`cxrdist.core.small_cnn`)."""


@dataclass(frozen=True, kw_only=True)
class Initialisation:
    """What a trial starts from, read without torch."""

    name: str
    """scratch, imagenet, or a display name such as simclr:nih."""
    file: Path | None
    """The encoder file; None for scratch and imagenet."""
    sha256: str | None
    """Of the file's bytes."""
    arch: str | None
    """timm name the file says it holds; None when it does not say."""
    image_size: int | None
    """Side in pixels it was trained at; None when it does not say."""
    dataset: str | None
    """Name of the shard set it was trained on, if any."""
    signature: str | None
    """Signature of the run that made it."""
    dataset_hash: str | None = None
    """Hash of that shard set (`Card.sha256`)."""
    method: str | None = None
    """Self-supervised method it was trained by; None when it saw no X-rays, or which is not known."""
    pixel: tuple[float, float] | None = None
    """Mean and deviation of the pixels in [0, 1] that the file says its network expects."""
    per_set: bool = False
    """Whether it was trained on several shard sets, each normalised by its own mean and deviation, so that it expects
    those of the images' own set."""
    stem: str | None = None
    """Its first layers, standard or small; None when it does not say."""
    published: Found | None = None
    """What is known of weights that cxrdist did not write."""

    def facts(self) -> dict[str, Any]:
        """What a run records of it, for its results and to know it again."""
        file = None if self.file is None else str(self.file)
        facts = {"name": self.name, "file": file, "sha256": self.sha256, "signature": self.signature}
        facts |= {"method": self.method, "dataset": self.dataset, "dataset_hash": self.dataset_hash}
        facts |= {"image_size": self.image_size}
        if self.published is not None:
            facts |= {"recipe": self.published.recipe, "pixels_from": self.published.source}
            facts |= {"pixels": None if self.published.grey is None else list(self.published.grey)}
        return facts

    def pixels_that_count(self, own: float | None) -> tuple[float, float] | None:
        """Mean and deviation as a signature takes them: those that may stand in another file than the weights.

        Args:
            own: `init_mean` of the configuration, which is part of it already.
        """
        if self.published is None or self.pixel is not None or own is not None:
            return None
        return self.published.grey


def encoder_file(init: str) -> Path:
    """The encoder file that `init` means: the file itself, encoder.safetensors of a run, or what the hub has.

    Raises:
        InputError: nothing there, or the run has not finished an encoder.
    """
    if (named := named_inits.entry(init)) is not None:
        return encoder_file(named.init)
    path = hub.fetched(init) if init.startswith(hub.SCHEME) else Path(init)
    if path.is_file():
        return path
    if path.is_dir():
        encoder = Run(path).encoder
        if encoder.is_file():
            return encoder
        raise InputError(f"init {init}: the folder has no {encoder.name}; finish that pretraining first")
    raise InputError(
        f"init {init}: no such file or run; also known: {', '.join((*NAMED_INITS, *named_inits.listed()))}"
    )


def describe(init: str) -> Initialisation:
    """Describe an initialisation from its file's header; cached until the file changes.

    Raises:
        InputError: nothing there, or the header cannot be read.
    """
    if init in NAMED_INITS:
        # Its activations are of grey values in [0, 1]: each patch is normalised by itself.
        pixel = (0.0, 1.0) if init == KMEANS_PATCHES else None
        return Initialisation(
            name=init, file=None, sha256=None, arch=None, image_size=None, dataset=None, signature=None, pixel=pixel
        )
    if (named := named_inits.entry(init)) is not None:
        found = describe(named.init)
        own = {"arch": named.arch or found.arch, "image_size": named.image_size or found.image_size}
        return dataclasses.replace(found, name=init if found.dataset is None else found.name, **own)
    path = encoder_file(init)
    facts = path.stat()
    # Not resolved: the hub's cache keeps a file under its name as a link to one without.
    place = Path(os.path.abspath(path))
    return _read(place, facts.st_mtime_ns, facts.st_size, *published.stamp(place.parent))


@functools.lru_cache(maxsize=256)
def _read(path: Path, *_state: int) -> Initialisation:
    header = safetensors_metadata(path) if path.suffix == ".safetensors" else {}
    foreign = None if {"image_size", "size"} & set(header) else _recognised(path, header)
    size = header.get("image_size", header.get("size", ""))
    dataset = header.get("dataset") or _pretrained_on(path.parent)
    method = header.get("method") or "simclr"
    return Initialisation(
        name=f"{method}:{dataset}" if dataset else _name(path),
        file=path,
        sha256=file_sha256(path),
        arch=header.get("arch") or (foreign and foreign.arch) or None,
        image_size=int(size) if size.isdecimal() and len(size) < 9 else foreign and foreign.image_size,
        dataset=dataset,
        signature=header.get("signature") or None,
        dataset_hash=header.get("shards_sha256") or None,
        method=method if dataset else None,
        pixel=_pixel(header),
        per_set=header.get("normalise") == "set",
        stem=header.get("stem") or None,
        published=foreign,
    )


def _name(path: Path) -> str:
    """What results call an encoder of which no shard set is known: by the user's list, the hub, or its file."""
    own = path.stem if path.stem != "encoder" else path.parent.name
    return named_inits.name_of(path) or hub.display_name(path) or own


def located(init: str) -> str:
    """An initialisation as a run freezes it: a word as it is, a place absolute, an address of the hub as its file.

    Raises:
        InputError, FailedError: see `encoder_file`.
    """
    if init in NAMED_INITS:
        return init
    return str(encoder_file(init)) if init.startswith(hub.SCHEME) else os.path.abspath(os.path.expanduser(init))


def _recognised(path: Path, header: dict[str, str]) -> Found:
    """What is known of weights by their names and shapes; torch is needed for files that are no safetensors."""
    if path.suffix == ".safetensors":
        return published.recognise(safetensors_shapes(path), "", header.get("arch"), path.parent)
    from cxrdist.core import foreign_weights

    held = foreign_weights.read_pickled(path)
    return foreign_weights.recognise(held.tensors, held.nest, None, path)


def _pixel(header: dict[str, str]) -> tuple[float, float] | None:
    try:
        return float(header["mean"]), float(header["std"])
    except (KeyError, ValueError):
        return None


def _pretrained_on(folder: Path) -> str | None:
    """Name of the shard set that the run in `folder` was trained on; None for a lone encoder file."""
    run = Run(folder)
    if not run.config.is_file():
        return None
    shards = run.read_config().get("shards")
    if isinstance(shards, list):
        return "+".join(Path(str(place)).name for place in shards)
    try:
        found = card(str(shards)) if shards else None
    except (InputError, ValueError):  # the shard set was moved away since
        found = None
    if found is not None and found.sha256 in run.shard_hashes().values():
        return found.name
    return Path(str(shards)).name if shards else None


def safetensors_metadata(path: Path) -> dict[str, str]:
    """The `__metadata__` of a safetensors file, read without its tensors and without torch.

    Raises:
        InputError: the file is not a safetensors file, or is cut off.
    """
    import safetensors

    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            return {str(key): str(value) for key, value in (file.metadata() or {}).items()}
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise InputError(
            f"{path} is not a safetensors file, or is damaged ({error}); restore it, or make it again"
        ) from error


def safetensors_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of a safetensors file's tensors by name, read without them and without torch.

    Raises:
        InputError: the file is no safetensors file, or is cut off.
    """
    import safetensors

    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            return {str(name): tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise InputError(f"{path} is not a safetensors file, or is damaged ({error})") from error


def check_init(init: str, arch: str | None) -> None:
    """Open an initialisation as far as a login node can: its file, its header, its architecture; no tensor is read.

    Raises:
        InputError: nothing there, no file of weights, or weights of another architecture than `arch`.
    """
    if init in NAMED_INITS:
        return
    path = encoder_file(init)
    if path.suffix == ".safetensors":
        own = safetensors_metadata(path).get("arch")
        if arch is not None and own not in (None, arch):
            raise InputError(f"init {init} holds a {own}, this run asks for arch {arch}; they must be the same")
        return
    with open(path, "rb") as file:
        start = file.read(4)
    if not start.startswith((b"PK", b"\x80")):  # torch's zip files, and the pickles of its early versions
        raise InputError(f"init {init} is neither a .safetensors file nor one that torch.save wrote")


def check_start(config: Any, start: Initialisation) -> None:
    """Refuse a trial that its initialisation cannot serve.

    Args:
        config: its configuration.
        start: what its `init` is.

    Raises:
        InputError: weights of another architecture or stem, an image size that patches do not divide, weights for which
            nothing says what pixels they expect; nothing to train in this mode.
    """
    said = start.published is None or start.published.arch_said
    if said and start.arch and config.arch not in (None, start.arch):
        raise InputError(
            f"init {config.init} holds a {start.arch}, this trial asks for arch {config.arch}; leave arch out or "
            "pretrain one"
        )
    patch = re.search(r"patch(\d+)", config.arch or start.arch or "")
    if patch and config.image_size is not None and config.image_size % int(patch[1]):
        raise InputError(
            f"image_size is {config.image_size}, but {config.arch or start.arch} cuts images into patches of "
            f"{patch[1]} pixels; take a multiple of it"
        )
    if config.init == KMEANS_PATCHES:
        if config.mode != "linear":
            raise InputError(f"init {KMEANS_PATCHES} has no layers to train in mode {config.mode}; take --mode linear")
    elif config.arch == SMALL_CNN and config.init != "scratch":
        raise InputError(f"{SMALL_CNN} starts from scratch only, not from init {config.init}")
    if config.norm != "batch" and config.arch != SMALL_CNN:
        raise InputError(f"norm {config.norm} is for arch {SMALL_CNN} alone; other networks are as published")
    check_weights(config, start)


def check_weights(config: Any, start: Initialisation) -> None:
    """Refuse weights that a run cannot start from, in pretraining and fine-tuning alike.

    Args:
        config: a configuration with `init`, `stem`, `init_mean` and `init_std`.
        start: what its `init` is.

    Raises:
        InputError: the stem is another, or nothing says what pixels the weights expect.
    """
    if start.stem and config.stem not in ("auto", start.stem):
        raise InputError(
            f"init {config.init} has the {start.stem} stem, this run asks for {config.stem}; leave it auto"
        )
    pixel_scale.check(config, start)


def refuse_another(run: Run, init: str) -> None:
    """Refuse an encoder that is not the one the run was made with.

    Raises:
        InputError: naming both hashes.
    """
    recorded = run.read_info().get("init") or {}
    held = recorded.get("sha256")
    found = describe(init)
    if held is not None and held != found.sha256:
        raise InputError(
            f"{found.file or init} is another encoder than {run.path} was made with: hash {found.sha256}, not {held};"
            " put that one back, or train in a new --out"
        )
    if "pixels" in recorded and recorded["pixels"] != found.facts().get("pixels"):
        raise InputError(
            f"{found.file or init} is said to expect other pixels than when {run.path} was made: mean and deviation "
            f"{found.facts().get('pixels')}, not {recorded['pixels']}; put the config.json and "
            "preprocessor_config.json back beside it, or train in a new --out"
        )
