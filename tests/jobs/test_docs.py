"""Every `cxrdist` command that the documentation shows is one that the command line accepts."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from jobs import cli

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(page: Path) -> list[str]:
    """Return the command lines of a page's code blocks: lines that begin with `cxrdist` or `$ cxrdist`."""
    text = re.sub(r"\\\n\s*", " ", page.read_text())
    found = []
    for line in text.splitlines():
        match = re.match(r"^(?:    )?\s*(?:\$ )?(cxrdist [a-z].*)$", line)
        if match:
            found.append(re.split(r"\s+#\s|\s{3,}|\s[|>]\s|\s&&\s", match[1])[0].strip())
    return found


def cases() -> list[tuple[str, str]]:
    return [(page.name, line) for page in PAGES for line in commands(page)]


@pytest.mark.parametrize(("page", "line"), cases(), ids=lambda value: value[:70])
def test_a_command_shown_in_the_docs_is_accepted(page, line, monkeypatch):
    words = shlex.split(line.replace("...", ""))[1:]
    words = [word for word in words if word not in ("--debug",)]
    monkeypatch.chdir(ROOT)
    if len(words) == 1 or words[-1] == "--help":
        assert words[0] in cli.COMMANDS or words[0] == "--help"
        return
    module = cli._load(words[0])
    if hasattr(module, "main"):
        return  # its own parser has its own tests
    for flag in ("--config", "--spec"):  # a user's own spec stands for itself
        if flag in words and not Path(words[words.index(flag) + 1]).is_file():
            position = words.index(flag)
            del words[position : position + 2]
            try:
                cli.parse(words[0], words[1:])
            except cli.UsageError as error:
                assert "required" in str(error)
            return
    cli.parse(words[0], words[1:])


def test_the_documentation_shows_commands_at_all():
    assert len(commands(ROOT / "README.md")) >= 3
    assert len(cases()) >= 20


def test_every_link_between_pages_leads_somewhere():
    missing = []
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text()):
            if not (page.parent / target).exists():
                missing.append(f"{page.name} -> {target}")
    assert missing == []


def test_the_architecture_page_names_every_module():
    named = set(re.findall(r"\w+", (ROOT / "docs/architecture.md").read_text()))
    missing = []
    for package in ("cxrdist", "shards", "slurm", "results"):
        missing += [path for path in sorted((ROOT / package).rglob("*.py")) if path.stem not in named]
    shared = [path for path in (ROOT / "jobs").rglob("*.py") if path.parent.name == "_study" or path.stem[0] == "_"]
    missing += [path for path in sorted(shared) if path.stem not in named]
    assert [str(path.relative_to(ROOT)) for path in missing if path.name != "__init__.py"] == []


def test_the_index_lists_every_page():
    index = (ROOT / "docs/index.md").read_text()
    pages = sorted(page.name for page in (ROOT / "docs").glob("*.md") if page.name != "index.md")
    assert [page for page in pages if f"]({page})" not in index] == []
