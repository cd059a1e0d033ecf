"""The report: complete, self-contained, and looked at in a browser."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from results.cells.options import Options
from results.collect import collect
from results.report.report import write_report
from results.report.sections import RESEARCH_ONLY
from tests.results import simulate

BROWSER_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
)


@pytest.fixture(scope="module")
def written(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report") / "report.html"
    left_out = write_report(study, out, "A study of <labels>")
    assert [line.split(":")[0] for line in left_out] == ["table transfer", "table ablation", "table thresholds"]
    return out


class _Links(HTMLParser):
    """Everything the page would fetch or point to."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.anchors: list[str] = []
        self.ids: set[str] = set()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        held = dict(attrs)
        self.ids |= {held["id"]} if "id" in held else set()
        if tag == "a":
            self.anchors.append(held["href"])
        elif tag not in ("a",) and ("src" in held or "href" in held):
            self.fetched.append(held.get("src") or held["href"])
        assert tag not in ("script", "iframe", "object")
        if tag not in ("meta", "link", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_fetches_nothing_and_its_links_lead_somewhere(written: Path) -> None:
    links = _Links()
    text = written.read_text(encoding="utf-8")
    links.feed(text)
    assert links.open == []
    assert all(link.startswith("data:") for link in links.fetched) and len(links.fetched) >= 10
    inside = [link for link in links.anchors if link.startswith("#")]
    assert inside and all(link.removeprefix("#") in links.ids for link in inside)
    assert set(links.anchors) - set(inside) == {simulate.HOME}, "the owners' page, which only a click opens"
    assert not re.search(r"url\(|@import", text)


def test_page_holds_data_tables_figures_configurations_provenance_and_limits(written: Path) -> None:
    text = written.read_text(encoding="utf-8")
    assert "A study of &lt;labels&gt;" in text and RESEARCH_ONLY in text
    for part in ("label-efficiency", "per-class", "models", "peak-accuracy", "search", "cost"):
        assert f'id="table-{part}"' in text
    for part in ("label-efficiency", "roc", "confusion", "calibration", "history"):
        assert f'id="figure-{part}"' in text
    assert "Patients in two splits" in text and "2 (train/test)" in text
    assert "label_fraction" in text and "28 runs" in text
    assert "the spread over seeds is hardly known" in text


def test_every_setting_that_varies_is_listed(tmp_path: Path) -> None:
    """Also one that takes another value in every run, as a search's."""
    for seed, rate in enumerate((0.1, 0.2, 0.3, 0.4)):
        simulate.finetune(
            tmp_path, seed=seed, config={"optim": {"lr": rate}, "epochs": 3 + seed // 2}, intervals=False, history=False
        )
    write_report(collect(tmp_path, tmp_path / "all.parquet") and tmp_path / "all.parquet", tmp_path / "r.html", "All")
    text = re.sub(r"<[^>]*>", " ", (tmp_path / "r.html").read_text(encoding="utf-8"))
    for words in (
        "optim.lr +0.1 \\(1\\), 0.2 \\(1\\), 0.3 \\(1\\), 0.4 \\(1\\)",
        "epochs +3 \\(2\\), 4 \\(2\\)",
        "seed +0 \\(1\\), 1",
    ):
        assert re.search(words, text), words


def test_filters_choose_what_the_report_is_about(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    options = Options(where=("init=scratch,simclr:nih", "label_fraction=1"), labels=("edema",), allow=("configs",))
    write_report(study, out, "Filtered", options)
    text = out.read_text(encoding="utf-8")
    assert "7 runs" in text, "six fine-tunings, and the pretraining of one of the two"
    assert "AUROC of edema" in text and "ImageNet" not in text
    assert "Allowed on request: runs of several configurations in one cell." in text


def test_report_of_one_run_says_what_it_cannot_show(tmp_path: Path) -> None:
    simulate.finetune(tmp_path / "runs", history=False)
    simulate.finetune(tmp_path / "runs", intervals=False, seed=1, done=False)
    left_out = write_report(tmp_path / "runs", tmp_path / "report.html", "One run")
    assert any("history" in line for line in left_out)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "One seed; 95 % interval over test patients" in text and "not done yet" in text


def test_another_shard_set_under_a_run_s_path_is_not_described(tmp_path: Path) -> None:
    place = simulate.card(tmp_path / "shards")
    simulate.finetune(tmp_path / "runs", intervals=False, history=False, shards={str(place): "5" * 64})
    write_report(tmp_path / "runs", tmp_path / "report.html", "One run")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert f"Another shard set than the runs read lies now at {place}" in text
    assert "Patients in two splits" not in text


def test_terms_and_reference_of_each_dataset_are_printed_once(written: Path) -> None:
    text = written.read_text(encoding="utf-8")
    section = re.sub(r"<[^>]*>", " ", text[text.index('id="datasets"') : text.index('id="tables"')])
    for words in ("Datasets", "Licence +CC BY 4.0", f"Home +{simulate.HOME}", "Used for +training and test"):
        assert len(re.findall(words, section)) == 1, words
    assert section.count("@article{someone2020,\n  title = {Drawn &lt;X-rays&gt;}\n}") == 1
    assert "Licence and citation of nih are not recorded" in section


def test_terms_are_printed_when_the_shard_sets_are_gone(tmp_path: Path) -> None:
    facts = {"name": "phantom", "licence": "CC0", "home": "javascript:alert(1)"}
    hashes: dict[str, Any] = {"train_dataset_hash": "a" * 64, "test_dataset_hash": "b" * 64, "pretrain_dataset": "mine"}
    simulate.finetune(
        tmp_path / "runs",
        intervals=False,
        history=False,
        shards={"/gone": "a" * 64},
        datasets={"a" * 64: facts, "b" * 64: {"name": "phantom", "licence": "other terms"}},
        **hashes,
        pretrain_dataset_hash="c" * 64,
    )
    write_report(tmp_path / "runs", tmp_path / "report.html", "One run")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    plain = re.sub(r"<[^>]*>", " ", text)
    assert re.search("Used for +training +Licence +CC0", plain) and re.search("Used for +test +Licence +other", plain)
    assert "No card found any more at /gone" in plain and "javascript:alert(1)" in plain
    assert 'href="javascript' not in text
    assert "Licence and citation of mine are not recorded" in plain


def test_page_opens_in_a_browser(written: Path, tmp_path: Path) -> None:
    browser = next(
        (path for path in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if path), None
    )
    if browser is None:
        pytest.skip("browser: no chromium here")
    common = [browser, *BROWSER_FLAGS, f"--user-data-dir={tmp_path / 'profile'}"]
    quiet = {name: value for name, value in os.environ.items() if not name.startswith("DBUS")}
    shot = subprocess.run(
        [*common, "--window-size=1200,2400", f"--screenshot={tmp_path / 'page.png'}", written.as_uri()],
        capture_output=True,
        timeout=120,
        env=quiet,
    )
    assert shot.returncode == 0, shot.stderr[-500:]
    with Image.open(tmp_path / "page.png") as image:
        grey = image.convert("L")
        assert image.size == (1200, 2400)
        share = sum(grey.histogram()[:128]) / (1200 * 2400)
        colours = image.convert("RGB").resize((120, 240)).getcolors(maxcolors=100_000)
    assert 0.005 < share < 0.4, "text is dark on white"
    assert colours is not None and len(colours) > 50
    tree = subprocess.run(
        [*common, "--dump-dom", written.as_uri()], capture_output=True, timeout=120, env=quiet, text=True
    )
    assert tree.returncode == 0 and tree.stdout.count("<table") == written.read_text(encoding="utf-8").count("<table")
