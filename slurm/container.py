"""Jobs inside an image: the words that Apptainer, Singularity or pyxis (enroot) need around what a node runs.

All that a job starts is inside: the launcher and what it starts (torchrun's agents and ranks, Ray, single commands).
Only the batch script is outside, because it speaks to SLURM. References: apptainer.org/docs (exec, bind paths, --nv);
pyxis' usage page (srun --container-image and its like).
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from slurm.errors import InputError

RUNTIMES = ("apptainer", "singularity", "pyxis")
_ADDRESS = re.compile(r"(docker|oras|library|shub|https?)://\S+")
"""Images that Apptainer fetches by itself."""
_ENROOT = re.compile(r"(docker://|dockerd://|podman://)?[\w.@#:/-]+")
"""Images as enroot names them: [USER@][REGISTRY#]IMAGE[:TAG]."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Container:
    """The [container] table of a profile."""

    image: str
    """Absolute path of an image (.sif, .sqsh, or a folder), or an address that the runtime fetches it from."""
    runtime: Literal["apptainer", "singularity", "pyxis"] = "apptainer"
    """Program that opens the image; pyxis is srun's own, and uses enroot."""
    binds: tuple[str, ...] = ()
    """Folders of the node that are seen inside: SOURCE, SOURCE:PLACE or SOURCE:PLACE:OPTIONS (such as ro). The folder
    of the run and the one from which it was submitted always are."""
    nv: bool | None = None
    """Whether NVIDIA's driver is brought in (--nv); None where GPUs are asked for. With pyxis enroot brings it in."""
    python: str = "/opt/cxrdist/bin/python"
    """The image's Python that has cxrdist."""
    options: tuple[str, ...] = ()
    """Further options, of `apptainer exec` or for pyxis of srun."""

    def srun(self, places: Iterable[Path], keep: Iterable[str]) -> list[str]:
        """Return the options of srun that open the image; none but for pyxis.

        Args:
            places: Folders that are seen inside whatever `binds` says, at least one; the last is the working folder.
            keep: Names of variables that the image's own must not overrule.
        """
        if self.runtime != "pyxis":
            return []
        places, kept = list(places), ",".join(keep)
        mounts = ",".join(_both_sides(bind) for bind in self._all_binds(places))
        return [
            f"--container-image={self.image}",
            f"--container-mounts={mounts}",
            f"--container-workdir={places[-1]}",
            *([f"--container-env={kept}"] if kept else []),
            *self.options,
        ]

    def words(self, places: Iterable[Path], gpus: int) -> list[str]:
        """Return the words that start the image's Python, to be followed by its options.

        Args:
            places: As for `srun`.
            gpus: GPUs that the job has on a node.
        """
        # What this machine's environment adds to its own Python does not belong into the image's.
        python = ["env", "-u", "PYTHONPATH", "PYTHONNOUSERSITE=1", self.python]
        if self.runtime == "pyxis":
            return python
        places = list(places)
        nv = gpus > 0 if self.nv is None else self.nv
        binds = [word for bind in self._all_binds(places) for word in ("--bind", bind)]
        return [
            self.runtime, "exec", *(["--nv"] if nv else []), *binds, "--pwd", str(places[-1]), *self.options,
            self.image, *python,
        ]  # fmt: skip

    def _all_binds(self, places: Iterable[Path]) -> list[str]:
        for place in places:
            if re.search(r"[:,]", str(place)):
                raise InputError(
                    f"{place}: ':' and ',' separate folders that a container sees, so it cannot see this one; choose"
                    " a path without them"
                )
        return list(dict.fromkeys([*self.binds, *(str(place) for place in places)]))


def _both_sides(bind: str) -> str:
    source, _, rest = bind.partition(":")
    return f"{source}:{rest or source}"


def read(values: Any, where: str) -> Container:
    """Return the [container] table of a profile.

    Args:
        values: As TOML has it.
        where: Its file, for errors.

    Raises:
        InputError: an unknown or missing key, a wrong type or value; the message names file and key.
    """
    fields = {field.name: field for field in dataclasses.fields(Container)}
    if not isinstance(values, dict):
        raise InputError(f"{where}: container must be a table with an image, not {values!r}")
    for key, value in values.items():
        if key not in fields:
            raise InputError(f"{where}: [container] unknown key {key!r}; known keys: {', '.join(fields)}")
        _check_type(key, value, where)
    if "image" not in values:
        raise InputError(f'{where}: [container] has no image = "/PATH/cxrdist.sif"')
    lists = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
    return _check(Container(**{**values, **lists}), where)


def _check_type(key: str, value: object, where: str) -> None:
    if key in ("binds", "options"):
        good, wanted = isinstance(value, list) and all(isinstance(one, str) for one in value), "a list of strings"
    elif key == "nv":
        good, wanted = isinstance(value, bool), "true or false"
    else:
        good, wanted = isinstance(value, str), "a string"
    if not good:
        raise InputError(f"{where}: [container] {key} must be {wanted}, not {value!r}")


def _check(container: Container, where: str) -> Container:
    def refuse(text: str) -> None:
        raise InputError(f"{where}: [container] {text}")

    if container.runtime not in RUNTIMES:
        refuse(f"runtime = {container.runtime!r} is not one of {', '.join(RUNTIMES)}")
    pyxis = container.runtime == "pyxis"
    if not container.image.startswith("/") and not (_ENROOT if pyxis else _ADDRESS).fullmatch(container.image):
        kinds = "[USER@][REGISTRY#]IMAGE[:TAG]" if pyxis else "an address such as docker://IMAGE:TAG"
        refuse(f"image = {container.image!r} is neither an absolute path nor {kinds}")
    if pyxis and container.nv is not None:
        refuse("nv: with pyxis enroot itself brings NVIDIA's driver in; leave it out")
    for bind in container.binds:
        if not re.fullmatch(r"/[^:,]*(:/[^:,]*(:[^:,]+)?)?", bind):
            refuse(f"binds: {bind!r} is not SOURCE, SOURCE:PLACE or SOURCE:PLACE:OPTIONS with absolute paths")
    if not container.python.startswith("/"):
        refuse(f"python = {container.python!r} must be an absolute path inside the image")
    for option in container.options:
        if not option.startswith("-"):
            refuse(f"options: {option!r} does not begin with a dash; write --name=value")
    return container


def missing(container: Container) -> str | None:
    """Return why the image cannot be opened, as far as this machine knows, or None."""
    if container.image.startswith("/") and not os.path.exists(container.image):
        return (
            f"image {container.image}: no such file here; build it from containers/cxrdist.def, or correct [container]"
        )
    return None
