"""`cxrdist doctor`: what this machine and a SLURM profile can do, and what is missing, each with its fix."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Annotated

from slurm.errors import InputError

HELP = "what this machine and a SLURM profile can do, and what is missing"
POSITIONALS: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """What to look at."""

    profile: str | None = None
    """Cluster profile to check as well; None looks at this machine only."""
    nodes: Annotated[int, "[1, inf)"] = 1
    """Nodes to look at, by a short job."""
    out: str = "."
    """Folder in which runs will be made; the nodes must share it."""
    wait: Annotated[float, "(0, inf)"] = 120.0
    """Seconds to wait for free nodes."""


def run(config: Config) -> int:
    """Print every finding; 1 when something must be fixed."""
    from cxrdist.start import shadows, shared
    from slurm import doctor, profiles

    profile = profiles.load(config.profile) if config.profile else None
    out = Path(config.out).expanduser()
    if not out.is_dir():
        raise InputError(f"--out {config.out}: no such folder")
    with tempfile.TemporaryDirectory(dir=out, prefix=".cxrdist-doctor-") as name:
        folder = Path(name).absolute()
        strangers = [*shadows(), *shared()]
        findings = [doctor.Diagnosis(level="FAIL", what="packages", found=line) for line in strangers]
        findings = findings or [doctor.Diagnosis(level="ok", what="packages", found="all ours")]
        findings += [*doctor.here(folder), *doctor.slurm_here(profile)]
        if profile is not None and not any(one.level == "FAIL" for one in findings):
            findings.append(doctor.fits(profile, config.nodes, folder))
            if findings[-1].level == "ok":
                findings += doctor.on_nodes(profile, config.nodes, folder, config.wait)
    for one in findings:
        print(one)
    failed = sum(one.level == "FAIL" for one in findings)
    print(f"{failed} to fix" if failed else "nothing to fix")
    return 1 if failed else 0
