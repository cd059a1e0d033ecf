"""The page of tested runs: a browser's numbers are those of predictions.parquet, whatever a hand does to the page."""

from __future__ import annotations

import base64
import html
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from cxrdist.inference import explorer, tested_run
from jobs import cli
from jobs import explore as command
from results.stats.metrics import compute
from tests import browser
from tests.cxrdist.finetuning import trained

SHARES = {"sensitivity": "recall", "specificity": "specificity", "PPV": "precision", "accuracy": "accuracy", "F1": "f1"}


@pytest.fixture(scope="module")
def runs(blobs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two real, hardly trained fine-tunings on one shard set."""
    folder = tmp_path_factory.mktemp("explorer")
    settings: dict[str, Any] = {"epochs": 1, "min_steps": 5, "n_boot": 0}
    return trained(folder / "one", blobs, **settings).path, trained(folder / "two", blobs, seed=1, **settings).path


@pytest.fixture(scope="module")
def page(runs: tuple[Path, Path]) -> Path:
    assert cli.main(["explore", *map(str, runs), "--device", "cpu"]) == 0
    return runs[0] / "explore.html"


def predicted(run: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Keys, truths and scores of the test split, straight from the file."""
    table = pq.read_table(run / "results" / "predictions.parquet")
    table = table.filter(pc.field("split") == "test")
    return (
        table["key"].to_pylist(),
        np.array(table["y_true"].to_pylist()),
        np.array(table["y_score"].to_pylist(), np.float64),
    )


def test_the_page_needs_no_network(page: Path) -> None:
    text = page.read_text()
    bare = re.sub(r'<script id="data".*?</script>', "", text, flags=re.DOTALL)
    assert not re.search(
        r"https?://(?!www\.w3\.org/2000/svg)|<link(?! rel=\"icon\" href=\"data:,\")|src=|@import|fetch\(", bare
    )
    assert not re.search(r"@[A-Z]+@", bare), "a mark that nothing replaced"


def test_moving_the_slider_gives_the_numbers_of_the_predictions(
    page: Path, runs: tuple[Path, Path], tmp_path: Path
) -> None:
    script = """
      const wait = () => new Promise(done => setTimeout(done, 60));
      const card = document.querySelectorAll(".card")[0], out = [];
      const pairs = (things, of) => Object.fromEntries([...things].map(of));
      const read = () => ({
        threshold: column(page.runs[0]).threshold,
        counts: pairs(["TP", "FP", "FN", "TN"], k => [k, Number(card.querySelector("td." + k).textContent)]),
        rates: pairs(card.querySelectorAll(".metrics div"), d => [d.dataset.metric, d.dataset.value]),
        point: { ...document.querySelector("#roc circle").dataset },
        chips: pairs(document.querySelectorAll("#outcomes button"),
          b => [b.dataset.outcome, Number(b.querySelector("small").textContent)]),
        auroc: Number(document.querySelector("#legend li").dataset.auroc),
      });
      await wait(); out.push(read());
      for (const to of page.sliders) {
        const slider = card.querySelector(".threshold");
        slider.value = to; slider.dispatchEvent(new Event("input"));
        await wait(); out.push(read());
      }
      return out;
    """
    _, truth, score = predicted(runs[0])
    asked = [float(np.quantile(score, q)) + 1e-4 for q in (0.2, 0.6, 0.9)] + [0.0, 1.0]
    answers = browser.used(page, script.replace("page.sliders", json.dumps(asked)), tmp_path)
    own = pq.read_table(runs[0] / "results" / "metrics.parquet").to_pylist()
    stored = {row["metric"]: row for row in own if row["label"] == "pneumonia"}
    assert answers[0]["threshold"] == stored["accuracy"]["threshold"]
    assert answers[0]["auroc"] == pytest.approx(stored["auroc"]["value"], abs=1e-12)
    assert float(answers[0]["rates"]["accuracy"]) == pytest.approx(stored["accuracy"]["value"], abs=1e-12)
    for answer, wanted in zip(answers[1:], asked, strict=True):
        assert answer["threshold"] == pytest.approx(wanted, abs=1e-9)
        expected: Any = compute(truth, score, answer["threshold"])
        counts = {name.upper(): expected[name] for name in ("tp", "fp", "fn", "tn")}
        assert answer["counts"] == answer["chips"] == counts, "all images are on this page, so the list counts them too"
        for name, metric in SHARES.items():
            shown = answer["rates"][name]
            assert (shown == "null") == (expected[metric] is None), name
            if expected[metric] is not None:
                assert float(shown) == pytest.approx(expected[metric], abs=1e-12), name
        negatives = counts["TN"] + counts["FN"]
        shown = answer["rates"]["NPV"]
        assert shown == "null" if not negatives else float(shown) == pytest.approx(counts["TN"] / negatives)
        assert float(answer["point"]["tpr"]) == pytest.approx(expected["recall"])
        assert float(answer["point"]["fpr"]) == pytest.approx(1 - (expected["specificity"] or 0))


def test_a_picked_sample_shows_both_runs_scores(page: Path, runs: tuple[Path, Path], tmp_path: Path) -> None:
    script = """
      const out = [], see = () => ({
        key: page.key[state.now], facts: document.getElementById("facts").textContent,
        chosen: document.querySelector('#list [aria-selected="true"] b').textContent,
        cards: [...document.querySelectorAll(".card")].map(c => [c.querySelector("h2").textContent,
          c.querySelector(".against").textContent, c.querySelector(".outcome").textContent]),
        ink: [...document.querySelectorAll(".picture")].map(c => {
          const d = c.getContext("2d").getImageData(0, 0, 512, 512).data; let colour = 0, light = 0;
          for (let k = 0; k < d.length; k += 4) { colour += d[k] !== d[k + 2]; light += d[k] > 20; }
          return [colour, light]; }),
      });
      const settle = () => new Promise(done => setTimeout(done, 200));
      const press = key => document.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
      document.querySelectorAll("#list li")[7].click(); await settle(); out.push(see());
      press("ArrowRight"); await settle(); out.push(see());
      press(" "); await settle(); out.push(see());
      press("ArrowLeft"); press(" "); await settle(); out.push(see());
      const map = document.getElementById("map"), box = map.getBoundingClientRect(), [x, y] = place(3, map.clientWidth);
      map.dispatchEvent(new MouseEvent("click", { clientX: box.left + x, clientY: box.top + y }));
      await settle();
      const flat = page.runs[0].flat, near = [flat.x, flat.y].map(values => values[state.now] - values[3]);
      out.push({ ...see(), near });
      const search = document.getElementById("search");
      search.value = page.key[5]; search.dispatchEvent(new Event("input"));
      out.push([...document.querySelectorAll("#list b")].map(b => b.textContent).concat(page.key[5]));
      return out;
    """
    answers = browser.used(page, script, tmp_path)
    keys, _, score = predicted(runs[0])
    ranked = [keys[i] for i in np.argsort(-score, kind="stable")]
    assert [answers[0]["key"], answers[1]["key"]] == ranked[7:9], "sorted by confidence"
    assert answers[3]["key"] == answers[0]["key"]
    for answer in answers[:5]:
        assert answer["chosen"] == answer["key"] and answer["key"] in answer["facts"]
        for (name, against, outcome), run in zip(answer["cards"], runs, strict=True):
            keys, truth, score = predicted(run)
            at = keys.index(answer["key"])
            threshold = next(
                row["threshold"]
                for row in pq.read_table(run / "results" / "metrics.parquet").to_pylist()
                if row["label"] == "pneumonia" and row["metric"] == "accuracy"
            )
            called = score[at] >= threshold
            assert name == run.name and against.startswith(f"probability {score[at]:.3f} {'≥' if called else '<'}")
            assert outcome == f"{'true' if called == truth[at] else 'false'} {'positive' if called else 'negative'}"
    assert all(light > 1000 for answer in answers[:4] for _, light in answer["ink"]), "an X-ray is on every canvas"
    assert max(c for c, _ in answers[0]["ink"]) > 1000 and all(c == 0 for c, _ in answers[2]["ink"]), (
        "space takes the map off"
    )
    assert np.hypot(*answers[4]["near"]) < 0.02, "the dot that was clicked"
    assert answers[5] == [answers[5][-1]] * 2, "search leaves the one"


def test_list_and_numbers_are_there_before_the_pictures_are_read(page: Path, tmp_path: Path) -> None:
    look = "document.querySelectorAll('#list li').length, document.querySelector('td.TP').textContent"
    early = f"<script>window.early = [{look}, document.readyState];</script>"
    slow = tmp_path / "slow.html"
    slow.write_text(page.read_text().replace('<script id="images"', early + '<script id="images"', 1))
    script = f"""
      await new Promise(done => setTimeout(done, 200));
      const pen = document.querySelector(".picture").getContext("2d"), ink = pen.getImageData(0, 0, 512, 512).data;
      return [window.early, [{look}], ink.filter((value, k) => k % 4 === 0 && value > 20).length];
    """
    before, after, light = browser.used(slow, script, tmp_path)
    assert before == [*after, "loading"] and before[0] == 40
    assert light > 1000, "and the first picture is drawn when they have been"


def test_a_phone_shows_all_of_the_page_without_scrolling_sideways(page: Path, tmp_path: Path) -> None:
    inside = html.escape(page.read_text(encoding="utf-8"), quote=True)
    phone = tmp_path / "phone.html"
    frame = f'<iframe srcdoc="{inside}" style="width:390px;height:844px;border:0"></iframe>'
    phone.write_text(f"<!doctype html><html><head><title></title></head><body>{frame}</body></html>")
    script = """
      await new Promise(done => setTimeout(done, 500));
      const inner = document.querySelector("iframe").contentWindow, doc = inner.document;
      const seen = one => one.getClientRects().length > 0;
      const all = [...doc.body.querySelectorAll("*")].filter(seen).filter(one => !one.closest("#list"));
      const outside = all.filter(one => one.getBoundingClientRect().right > 391).map(one => one.outerHTML.slice(0, 90));
      const touched = [...doc.querySelectorAll("button")].filter(seen).map(one => one.getBoundingClientRect().height);
      const picture = doc.querySelector(".picture").getBoundingClientRect(), list = doc.getElementById("list");
      doc.querySelectorAll("#list li")[3].click();
      const slider = doc.querySelector(".threshold");
      slider.value = 0.25; slider.dispatchEvent(new inner.Event("input"));
      return { width: inner.innerWidth, page: doc.documentElement.scrollWidth, outside, touched: Math.min(...touched),
        picture: [picture.left, picture.right, picture.top], list: list.getBoundingClientRect().height,
        chosen: doc.querySelector('#list [aria-selected="true"] b').textContent,
        facts: doc.getElementById("facts").textContent, against: doc.querySelector(".against").textContent };
    """
    found = browser.used(phone, script, tmp_path)
    assert found["width"] == 390 and found["page"] <= 390 and found["outside"] == []
    assert found["touched"] >= 34, "a finger hits every button"
    left, right, top = found["picture"]
    assert left >= 0 and right <= 390 and right - left > 250 and top < 844, (
        "the X-ray is large, and on the first screen"
    )
    assert found["list"] > 100 and found["chosen"] in found["facts"] and found["against"].endswith("threshold 0.250")


def test_a_page_of_some_images_still_counts_all(runs: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "few.html"
    assert cli.main(["explore", str(runs[0]), "--limit", "8", "--out", str(out), "--device", "cpu"]) == 0
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', out.read_text(), re.DOTALL)
    assert found is not None
    data = json.loads(found[1])
    images = re.search(r'<script id="images" type="text/plain">(.*?)</script>', out.read_text(), re.DOTALL)
    assert images is not None and len(data["key"]) == len(images[1].split("\n")) == 8 and data["count"] == 40
    scores = np.frombuffer(base64.b64decode(data["runs"][0]["scores"]["pneumonia"]), "<f4")
    by_key = dict(zip(predicted(runs[0])[0], predicted(runs[0])[2].tolist(), strict=True))
    assert len(scores) == 40
    assert [float(scores[at]) for at in data["tested"]] == [by_key[key] for key in data["key"]]


def test_a_notebook_shows_the_page_in_a_frame(runs: tuple[Path, Path], tmp_path: Path) -> None:
    shown = command.show(str(runs[0]), limit=5, out=str(tmp_path / "n.html"), device="cpu", height=500)
    text = shown._repr_html_()
    assert text.startswith('<iframe srcdoc="') and "height:500px" in text
    wrapped = tmp_path / "notebook.html"
    wrapped.write_text(f"<!doctype html><html><head><title></title></head><body>{text}</body></html>")
    script = """
      const frame = document.querySelector("iframe");
      await new Promise(done => setTimeout(done, 500));
      return frame.contentDocument.querySelectorAll("#list li").length;
    """
    assert browser.used(wrapped, script, tmp_path) == 5


def test_runs_that_cannot_stand_side_by_side_are_refused_in_one_line(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["explore", str(runs[0]), str(runs[0]), "--device", "cpu"]) == 2
    assert "is named twice" in capsys.readouterr().err
    bare = tmp_path / "bare"
    shutil.copytree(runs[0], bare, ignore=shutil.ignore_patterns("results"))
    assert cli.main(["explore", str(runs[0]), str(bare), "--device", "cpu"]) == 2
    assert "holds no results" in capsys.readouterr().err
    mixed = [str(runs[0]), str(runs[1] / "model.safetensors"), "--device", "cpu"]
    assert cli.main(["explore", *mixed]) == 2
    assert "only fine-tuned runs" in capsys.readouterr().err


def test_names_are_as_long_as_they_must_be() -> None:
    assert tested_run.names_of(["runs/a", "runs/b/"]) == ["a", "b"]
    assert tested_run.names_of(["x/ft", "y/ft"]) == ["x/ft", "y/ft"]


def test_maps_are_kept_small_and_hottest_at_255() -> None:
    fine = np.zeros((28, 28), np.float32)
    fine[:2, :2] = 5
    small = explorer._small(fine)
    assert small.shape == (14, 14) and small[0, 0] == 255 and small[1:, 1:].max() == 0
    assert explorer._small(np.zeros((7, 7), np.float32)).max() == 0


def test_text_in_a_page_cannot_end_its_script() -> None:
    page = explorer.page_of("<b>", "n", {"key": ["</script><script>alert(1)</script>", "@STYLE@"]})
    assert "<script>alert" not in page and "<title>&lt;b&gt;</title>" in page and '"@STYLE@"' in page


def test_a_threshold_above_one_comes_back_and_an_empty_field_changes_nothing(page: Path, tmp_path: Path) -> None:
    script = """
      const c = column(page.runs[0]), card = document.querySelectorAll(".card")[0], out = [];
      const exact = card.querySelector(".exact");
      c.own = 1 + 2 ** -52; // as specificity=0.9 gives it where the highest score of a negative is 1
      exact.value = "0.25"; exact.dispatchEvent(new Event("input")); out.push(c.threshold);
      exact.value = ""; exact.dispatchEvent(new Event("input")); out.push(c.threshold);
      card.querySelector(".reset").click(); out.push(c.threshold);
      return out;
    """
    assert browser.used(page, script, tmp_path) == [0.25, 0.25, 1 + 2**-52]
