"""What a cluster is like, in a TOML file: partition, GPUs, cores, memory, time, set-up lines, extra sbatch options."""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import tomllib
import types
import typing
from pathlib import Path

from slurm import container, gpus
from slurm.container import Container
from slurm.errors import InputError
from slurm.inherited import of_ranks

PACKAGED = Path(__file__).parent / "profiles"

OWN_OPTIONS = {
    "job-name", "nodes", "ntasks", "ntasks-per-node", "cpus-per-task", "gpus-per-node", "partition", "account", "mem",
    "time", "signal", "output", "error", "open-mode", "requeue", "no-requeue", "array", "dependency", "gres", "gpus",
    "gpus-per-task", "gpus-per-socket", "cpus-per-gpu", "ntasks-per-gpu", "tres-per-task", "tres-per-node",
}  # fmt: skip
"""sbatch options that a profile's other fields or the command line decide; [sbatch] may not fight them."""

_SECRET = re.compile(r"(?i)\b(\w*(?:token|secret|passw(?:or)?d|api_?key|access_?key|credential)\w*)\s*=")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Profile:
    """One cluster (or one part of it) as jobs see it."""

    name: str
    """The file's name without .toml."""
    partition: str | None = None
    """Partition to queue in; None takes the cluster's default."""
    account: str | None = None
    """Account to charge; None takes the user's default."""
    gpus_per_node: int | str = 0
    """GPUs taken on each node, by --gpus-per-node: a number, or "TYPE:NUMBER" such as "a100:4"; 0 for CPU nodes."""
    gres: str | None = None
    """Generic resources of each node, by --gres. On sites that take GPUs only so: "gpu:4" or "gpu:a100:4", in place of
    gpus_per_node."""
    ranks_per_node: int | None = None
    """Training processes on each node; None means one per GPU, or one where there is none."""
    cpus_per_rank: int = 1
    """Cores for each rank."""
    mem: str | None = None
    """Memory per node as SLURM writes it (8G, 500M, 0 for all of a node); None takes the cluster's default."""
    time: str = "01:00:00"
    """Time limit of one stretch: MINUTES, HH:MM:SS, D-HH or D-HH:MM:SS. The run itself may take many stretches."""
    signal_delay_s: int = 120
    """Seconds before the time limit at which the ranks are asked to save and stop; cut to half of a short limit."""
    max_requeues: int = 100
    """How often the job may be requeued before it ends with an error."""
    max_restarts: int = 3
    """How often torchrun restarts the ranks of a stretch after one of them died."""
    setup: tuple[str, ...] = ()
    """Shell lines run before the job on its first node (module load ...); no secrets."""
    env: dict[str, str] = dataclasses.field(default_factory=dict)
    """Variables exported on every node; no secrets."""
    sbatch: dict[str, str | int | bool] = dataclasses.field(default_factory=dict)
    """Other sbatch options by their long names, without the dashes."""
    container: Container | None = None
    """Image in which jobs run; None runs them in this Python's own environment."""

    @property
    def gpus(self) -> int:
        """GPUs taken on each node, whichever way they are asked for."""
        return sum(self._gpus.values())

    @property
    def gpu_type(self) -> str:
        """Their type; "" takes any."""
        return next(iter(self._gpus), "")

    @property
    def _gpus(self) -> dict[str, int]:
        return gpus.counts(f"gpu:{self.gpus_per_node}") if self.gpus_per_node else gpus.counts(self.gres or "")

    @property
    def ranks(self) -> int:
        """Ranks on each node."""
        return self.ranks_per_node or self.gpus or 1

    def gpu_options(self, count: int) -> dict[str, str]:
        """Return the sbatch options (long names) that ask for `count` of its GPUs and its other generic resources.

        Args:
            count: GPUs on each node; 0 for work that needs none.
        """
        kind = f"{self.gpu_type}:" if self.gpu_type else ""
        others = gpus.without(self.gres or "")
        by_gres = not self.gpus_per_node
        gres = [f"gpu:{kind}{count}"] if by_gres and count else []
        found = {"gpus-per-node": f"{kind}{count}"} if count and not by_gres else {}
        gres += [others] if others else []
        return found | ({"gres": ",".join(gres)} if gres else {})

    @property
    def minutes(self) -> int:
        """Time limit in whole minutes, rounded up."""
        return -(-time_seconds(self.time) // 60)


def names() -> list[str]:
    """Return the names that `load` knows, the user's own first."""
    return sorted({path.stem for folder in _folders() for path in folder.glob("*.toml")})


def own_folder() -> Path:
    """Where a user's own profiles lie; it need not exist."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "cxrdist" / "profiles"


def _folders() -> list[Path]:
    return [own_folder(), PACKAGED]


def load(name: str) -> Profile:
    """Return a profile by name, or from a .toml file.

    Raises:
        InputError: no such profile, not TOML, a wrong key, type or value; the message names file and key.
    """
    if "\0" in name or max(map(len, name.split("/"))) > 200:  # no file has such a name
        raise InputError(f"--profile {name[:40]!r}...: no such profile or file")
    path = Path(name)
    if path.suffix == ".toml" or "/" in name:
        if not path.is_file():
            raise InputError(f"--profile {name}: no such file")
    else:
        found = [folder / f"{name}.toml" for folder in _folders() if (folder / f"{name}.toml").is_file()]
        if not found:
            raise InputError(f"--profile {name}: not one of {', '.join(names())}, and not a .toml file")
        path = found[0]
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not TOML: {error}") from error
    return check(Profile(name=path.stem, **_typed(values, path)), str(path))


def _typed(values: dict[str, object], path: Path) -> dict[str, typing.Any]:
    fields = {field.name: field for field in dataclasses.fields(Profile) if field.name != "name"}
    hints = typing.get_type_hints(Profile)
    built: dict[str, typing.Any] = {}
    if "container" in values:
        built["container"] = container.read(values["container"], str(path))
        values = {key: value for key, value in values.items() if key != "container"}
    for key, value in values.items():
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise InputError(f"{path}: unknown key {key!r}{hint} Known keys: {', '.join(fields)}")
        kind = hints[key]
        wanted = (
            [kind]
            if not isinstance(kind, types.UnionType)
            else [t for t in typing.get_args(kind) if t is not type(None)]
        )
        if key == "setup":
            good = isinstance(value, list) and all(isinstance(line, str) for line in value)
            value = tuple(value) if isinstance(value, list) else value
            wanted_text = "a list of strings"
        elif key in ("env", "sbatch"):
            good = isinstance(value, dict) and all(isinstance(item, (str, int)) for item in value.values())
            wanted_text = "a table of strings, numbers and true/false"
        else:
            good = type(value) in wanted
            wanted_text = " or ".join({"str": "a string", "int": "a whole number"}[t.__name__] for t in wanted)
        if not good:
            raise InputError(f"{path}: {key} must be {wanted_text}, not {value!r}")
        built[key] = value
    return built


def check(profile: Profile, where: str) -> Profile:
    """Return the profile when its values can work together.

    Raises:
        InputError: a value out of range, ranks that do not divide the GPUs, a secret in `setup` or `env`.
    """
    _check_gpus(profile, where)
    low = {"cpus_per_rank": 1, "signal_delay_s": 1, "max_requeues": 0, "max_restarts": 0}
    for key, least in low.items():
        if getattr(profile, key) < least:
            raise InputError(f"{where}: {key} = {getattr(profile, key)} must be at least {least}")
    if profile.ranks_per_node is not None and profile.ranks_per_node < 1:
        raise InputError(f"{where}: ranks_per_node = {profile.ranks_per_node} must be at least 1")
    if profile.gpus and profile.ranks != profile.gpus:
        raise InputError(
            f"{where}: ranks_per_node = {profile.ranks} with {profile.gpus} GPUs on a node: each rank drives one GPU, "
            "so make them equal or leave ranks_per_node out"
        )
    if profile.mem is not None and not re.fullmatch(r"\d+[KMGTkmgt]?[Bb]?", profile.mem):
        raise InputError(f"{where}: mem = {profile.mem!r} is not a size like 200G, 8000M or 0")
    try:
        time_seconds(profile.time)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    for option in profile.sbatch:
        if option in ("clusters", "cluster"):
            raise InputError(
                f"{where}: [sbatch] {option}: choose the cluster by `export SLURM_CLUSTERS=NAME` instead, so that "
                "status and cancel ask the same one"
            )
        if option.replace("_", "-") in OWN_OPTIONS:
            if re.search("gpu|gres|tres", option):
                raise InputError(
                    f"{where}: [sbatch] {option}: GPUs are asked for by the profile's own gpus_per_node = 4 or "
                    '"a100:4", or gres = "gpu:a100:4"; ranks, Ray and the number of nodes follow from it'
                )
            raise InputError(f"{where}: [sbatch] {option} is decided by the profile's own keys or the command line")
    for name in profile.env:
        if of_ranks(name):
            raise InputError(f"{where}: [env] {name} is set by the launcher for each rank; leave it out")
    for text in [*profile.setup, *(f"{key}=" for key in profile.env)]:
        secret = _SECRET.search(text)
        if secret:
            raise InputError(
                f"{where}: {secret[1]} looks like a secret, and it would be written to the run folder; put it in a "
                "file that only you can read and `source` that in setup"
            )
    return profile


def _check_gpus(profile: Profile, where: str) -> None:
    asked = profile.gpus_per_node
    if isinstance(asked, int) and asked < 0:
        raise InputError(f"{where}: gpus_per_node = {asked} must be at least 0")
    if isinstance(asked, str) and not re.fullmatch(r"(?:[\w.-]+:)?\d+", asked):
        raise InputError(f'{where}: gpus_per_node = {asked!r} is neither a number nor TYPE:NUMBER, such as "a100:4"')
    if profile.gres is None:
        return
    if not re.fullmatch(r"[\w./-]+(?:[:=][\w.-]+)*(?:,[\w./-]+(?:[:=][\w.-]+)*)*", profile.gres):
        raise InputError(f'{where}: gres = {profile.gres!r} is not a list such as "gpu:a100:4" or "gpu:4,nvme:1"')
    kinds = gpus.counts(profile.gres)
    if kinds and asked:
        raise InputError(f"{where}: gres = {profile.gres!r} asks for GPUs and so does gpus_per_node; keep one of them")
    if len(kinds) > 1:
        raise InputError(f"{where}: gres = {profile.gres!r} asks for GPUs of several types; one run takes one type")


def time_seconds(text: str) -> int:
    """Return SLURM's time notation in seconds: M, M:S, H:M:S, D-H, D-H:M or D-H:M:S.

    Raises:
        InputError: another notation, or zero.
    """
    if not re.fullmatch(r"\d+(:\d{1,2}){0,2}|\d+-\d+(:\d{1,2}){0,2}", text):
        raise InputError(f"time {text!r} is not MINUTES, HH:MM:SS, D-HH or D-HH:MM:SS")
    days, dash, rest = text.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if dash:
        hours, minutes, seconds = (*parts, 0, 0)[:3]
    elif len(parts) == 3:
        hours, minutes, seconds = parts
    else:
        hours, minutes, seconds = 0, *(*parts, 0)[:2]
    total = ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds
    if total == 0:
        raise InputError(f"time {text!r} leaves no time at all")
    return total


def nodes_for(profile: Profile, *, nodes: int | None, gpus: int | None) -> int:
    """Return the number of nodes for a request of nodes or of GPUs.

    Raises:
        InputError: both given, below 1, GPUs from a profile without any, or GPUs that do not fill whole nodes.
    """
    if nodes is not None and gpus is not None:
        raise InputError("give --nodes or --gpus, not both")
    if gpus is None:
        if nodes is not None and nodes < 1:
            raise InputError(f"--nodes {nodes} must be at least 1")
        return nodes or 1
    per = profile.gpus
    if per == 0:
        raise InputError(f"--gpus {gpus}: profile {profile.name} has gpus_per_node = 0; give --nodes")
    if gpus < 1 or gpus % per:
        raise InputError(
            f"--gpus {gpus} does not fill whole nodes of profile {profile.name} ({per} per node); "
            f"give {max(per, gpus // per * per)} or {(gpus // per + 1) * per}"
        )
    return gpus // per
