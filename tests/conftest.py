"""Fixtures shared by all tests, and the count of what was skipped and why."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

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
    "slurm",
    "tests/jobs/test_demo.py",
    "tests/cxrdist/test_sweep.py",
    "tests/cxrdist/test_sweep_kills.py",
    "tests/cxrdist/test_pretrain_kills.py",
)
"""Groups that the workers of `pytest -n` take first, so that no long one is left for the end."""


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    _skip_gpu(items)
    if hasattr(config, "workerinput"):
        _share_out(items)


def _share_out(items: list[pytest.Item]) -> None:
    """Under `pytest -n` a file stays on one worker, where its tests share fixtures; so does all that needs SLURM."""
    for item in items:
        group = "slurm" if item.get_closest_marker("slurm") else item.nodeid.partition("::")[0]
        item.add_marker(pytest.mark.xdist_group(group))

    def place(item: pytest.Item) -> tuple[int, bool]:
        (group,) = item.get_closest_marker("xdist_group").args  # pyright: ignore[reportOptionalMemberAccess]
        first = LONGEST.index(group) if group in LONGEST else len(LONGEST)
        return first, not group.startswith("tests/cxrdist/")

    items.sort(key=place)


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
