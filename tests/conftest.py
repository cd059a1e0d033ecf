"""Fixtures shared by all tests, and the count of what was skipped and why."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Deterministic, and two ranks of two threads would fight over two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def shared_folder() -> Path:
    """Folder of real data beside the checkout, or where CXRDIST_SHARED points; it may not exist."""
    return Path(os.environ.get("CXRDIST_SHARED", ROOT.parent / "shared")) / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real X-rays for tests; a test that asks for them is skipped by name where they are absent."""
    folder = shared_folder()
    if not folder.is_dir():
        pytest.skip("real data: no ../shared/data here (CXRDIST_SHARED points to another place)")
    return folder


LONGEST = (
    "tests/slurm",
    "forked ranks",
    "tests/slurm/test_launch.py",
    "tests/jobs/test_demo.py",
    "tests/cxrdist/sweep/test_sweep.py",
    "tests/cxrdist/sweep/test_sweep_kills.py",
)
"""Groups that the workers of `pytest -n` take first, so that no long one is left for the end."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    _skip_gpu(items)
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: _place(group_of(item.nodeid)))


WITHOUT_CLUSTER = tuple(
    f"tests/slurm/test_{name}.py" for name in ("importing", "launch", "meeting", "node", "profiles", "requeue")
)


FORKED = (
    *(f"tests/cxrdist/core/test_{name}.py" for name in ("device", "distributed", "lean_timm")),
    *(
        f"tests/cxrdist/pretrain/test_{name}.py"
        for name in ("data_parallel", "normalise", "nt_xent", "patients", "pretrain", "pretrain_kills", "union")
    ),
    "tests/golden/test_golden.py",
)
"""Files whose ranks come from tests/cxrdist/forked.py; the process that they are forked from takes 8 s to start."""


def group_of(nodeid: str) -> str:
    """What stays on one worker: a file, whose tests share fixtures; all that share a cluster; all with forked ranks."""
    file = nodeid.partition("::")[0]
    if file in FORKED:
        return "forked ranks"
    return "tests/slurm" if file.startswith("tests/slurm/") and file not in WITHOUT_CLUSTER else file


def _place(group: str) -> tuple[int, bool]:
    return LONGEST.index(group) if group in LONGEST else len(LONGEST), not group.startswith("tests/cxrdist/")


class _Plugin:
    """What only pytest-xdist knows how to call; without it the suite runs on one worker."""

    @staticmethod
    def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
        """Share groups out whole. (xdist's own loadgroup writes the group into test ids, which pytest 9.2 ignores.)"""
        from xdist.scheduler.loadscope import LoadScopeScheduling

        class ByGroup(LoadScopeScheduling):
            def _split_scope(self, nodeid: str) -> str:
                return group_of(nodeid)

        return ByGroup(config, log)


def pytest_configure(config: pytest.Config) -> None:
    # A shell that starts a command in the background lets it and what it starts ignore Ctrl-C, which tests send.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.pluginmanager.hasplugin("xdist") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Plugin())


def _skip_gpu(items: list[pytest.Item]) -> None:
    gpu = [item for item in items if item.get_closest_marker("gpu")]
    if not gpu:
        return
    import torch

    if not torch.cuda.is_available():
        for item in gpu:
            item.add_marker(pytest.mark.skip(reason="gpu: no CUDA device here"))


def _reason(report: pytest.TestReport) -> str:
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ").split(":")[0].strip()


def pytest_terminal_summary(terminalreporter) -> None:
    """Count skips by what was missing; under CI a skip whose need must be met there is a failure."""
    skipped = terminalreporter.stats.get("skipped", [])
    for reason, count in sorted(Counter(_reason(report) for report in skipped).items()):
        terminalreporter.write_line(f"skipped for want of {reason}: {count}")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """CXRDIST_MUST_RUN names the needs (comma separated, as the skip reasons begin) that this machine must meet."""
    must = {word.strip() for word in os.environ.get("CXRDIST_MUST_RUN", "").split(",") if word.strip()}
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if not must or reporter is None:
        return
    broken = [report for report in reporter.stats.get("skipped", []) if _reason(report) in must]
    for report in broken:
        reporter.write_line(f"\nMUST RUN HERE BUT WAS SKIPPED: {report.nodeid}: {_reason(report)}")
    if broken and exitstatus == 0:
        session.exitstatus = 1
