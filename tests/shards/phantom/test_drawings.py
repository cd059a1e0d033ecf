"""Drawn X-rays are true to their findings, and labels mostly true to the drawings."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from shards import labels as names
from shards.phantom import contact_sheet
from shards.phantom.canvas import Canvas
from shards.phantom.case import CHEXPERT, NIH, STYLES, patient_cases
from shards.phantom.curves import ribbon
from shards.phantom.drawings import DRAWINGS
from shards.phantom.labels import chexpert_labels, nih_label
from shards.phantom.render import render
from shards.phantom.sheet import sample_case

SIZE = 96


def _pair(name: str, seed: int, size: float, style: str = "nih") -> tuple[np.ndarray, np.ndarray, tuple]:
    """The same patient, exposure and grain without and with a finding."""
    without = render(sample_case(None, seed=seed), STYLES[style], 128, 128)
    with_it = render(sample_case(name, seed=seed, size=size), STYLES[style], 128, 128)
    return without.image.astype(float), with_it.image.astype(float), with_it.boxes


@pytest.mark.parametrize("name", sorted(DRAWINGS))
def test_every_finding_changes_the_picture_where_its_box_is(name: str) -> None:
    for seed in range(3):
        without, with_it, boxes = _pair(name, seed, 0.8)
        changed = np.abs(with_it - without)
        assert changed.max() > 12, f"{name} cannot be seen (seed {seed})"
        label, x, y, w, h = boxes[0]
        assert len(boxes) == 1 or name == "nodule"
        assert label == name
        assert 0 <= x < x + w <= 1 and 0 <= y < y + h <= 1
        inside = changed[int(y * 128) : int(np.ceil((y + h) * 128)), int(x * 128) : int(np.ceil((x + w) * 128))]
        assert inside.mean() > 1.5 * changed.mean(), f"{name}: the box misses the change (seed {seed})"


@pytest.mark.parametrize("name", ["pleural_effusion", "consolidation", "edema", "mass", "nodule", "pneumonia"])
def test_dense_findings_are_white_and_pneumothorax_is_black(name: str) -> None:
    without, with_it, ((_, x, y, w, h), *_) = _pair(name, 1, 0.8)
    box = np.s_[int(y * 128) : int((y + h) * 128) + 1, int(x * 128) : int((x + w) * 128) + 1]
    assert with_it[box].mean() > without[box].mean() + 4
    without, with_it, _ = _pair("pneumothorax", 1, 0.6)
    assert (without - with_it).max() > 20  # the space without vessels


def test_cardiomegaly_is_a_cardiothoracic_ratio_above_one_half() -> None:
    for seed in range(12):
        healthy = render(sample_case(None, seed=seed), NIH, 32, 32)
        large = render(sample_case("cardiomegaly", seed=seed, size=0.5), NIH, 32, 32)
        assert large.ctr > healthy.ctr + 0.1
        assert large.ctr > 0.5


def test_effusion_box_lies_at_the_base_and_pneumothorax_box_at_the_top() -> None:
    for seed in range(6):
        (fluid,) = render(sample_case("pleural_effusion", seed=seed, size=0.4), NIH, 128, 128).boxes
        (air,) = render(sample_case("pneumothorax", seed=seed, size=0.4), NIH, 128, 128).boxes
        assert fluid[2] + fluid[4] > 0.6
        assert air[2] < 0.35


def test_boxes_stand_at_the_same_place_at_every_picture_size() -> None:
    for name in ("mass", "pleural_effusion", "cardiomegaly"):
        small = render(sample_case(name, seed=2, size=0.9), NIH, 64, 64).boxes[0]
        large = render(sample_case(name, seed=2, size=0.9), NIH, 512, 512).boxes[0]
        np.testing.assert_allclose(small[1:], large[1:], atol=0.04)


def test_anatomy_stays_with_the_patient_and_chronic_findings_stay_in_place() -> None:
    seen_persistent = False
    for patient in range(1, 60):
        cases = patient_cases(NIH, 0, patient)
        assert len({case.anatomy for case in cases}) == 1
        assert [case.age for case in cases] == sorted(case.age for case in cases)
        for name in ("mass", "cardiomegaly", "hernia"):
            places = {f for case in cases for f in case.findings if f.name == name}
            assert len(places) <= 1
            seen_persistent |= bool(places) and len(cases) > 1
    assert seen_persistent


def test_two_pictures_of_a_patient_are_more_alike_than_two_patients() -> None:
    def small(case) -> np.ndarray:
        image = render(case, NIH, 64, 64).image.astype(np.float32)
        return (image - image.mean()) / image.std()

    pairs = [cases[:2] for p in range(1, 80) if len(cases := patient_cases(NIH, 1, p)) > 1][:24]
    images = [[small(case) for case in pair] for pair in pairs]
    own = np.mean([np.abs(a - b).mean() for a, b in images])
    other = np.mean([np.abs(images[i][0] - images[(i + 1) % len(images)][1]).mean() for i in range(len(images))])
    assert own < 0.93 * other


def test_labels_are_mostly_true_but_not_always() -> None:
    right = wrong = 0
    for patient in range(1, 300):
        for case in patient_cases(NIH, 0, patient):
            said = {names.canonical(part) for part in nih_label(case, NIH).split("|")} - {"no_finding"}
            true = {finding.name for finding in case.findings}
            right += len(said & true)
            wrong += len(said ^ true)
    assert 0.03 < wrong / (right + wrong) < 0.30


def test_expert_labels_are_the_truth() -> None:
    for patient in range(1, 60):
        for case in patient_cases(CHEXPERT, 0, patient):
            row = chexpert_labels(case, CHEXPERT, expert=True)
            true = {finding.name for finding in case.findings}
            for name in names.SHARED_NIH_CHEXPERT:
                assert row[name] == float(name in true)
            assert row["support_devices"] == float(bool(case.devices))


@pytest.mark.parametrize("style", ["nih", "chexpert"])
def test_small_sets_have_positives_of_every_shared_label(style: str) -> None:
    cases = [case for patient in range(1, 201) for case in patient_cases(STYLES[style], 0, patient)]
    found = Counter(finding.name for case in cases for finding in case.findings)
    for name in names.SHARED_NIH_CHEXPERT:
        assert 0.04 < found[name] / len(cases) < 0.35, name
    assert 0.2 < np.mean([not case.findings for case in cases]) < 0.7
    assert 2 < len(cases) / 200 < 3.5


def test_contact_sheet_shows_every_name_asked_for(tmp_path: Path) -> None:
    contact_sheet(tmp_path / "sheet.png", names=["healthy", "mass", "pacemaker"], size=64, boxes=True)
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet is not None and sheet.shape == (3 * 64, 4 * 64, 3)
    assert sheet.std() > 20


def test_devices_are_seen_and_set_the_support_devices_label() -> None:
    for device in ("pacemaker", "sternotomy", "clips", "leads", "endotracheal", "gastric", "line", "drain_left"):
        bare = render(sample_case(None, seed=5), CHEXPERT, SIZE, SIZE).image.astype(int)
        case = sample_case(None, seed=5, devices=[device])
        assert np.abs(render(case, CHEXPERT, SIZE, SIZE).image.astype(int) - bare).max() > 20, device
        assert chexpert_labels(case, CHEXPERT, expert=True)["support_devices"] == 1.0


def test_several_nodules_have_a_box_each() -> None:
    several = [
        boxes for seed in range(30) if len(boxes := render(sample_case("nodule", seed=seed), NIH, 128, 128).boxes) > 1
    ]
    assert several
    for boxes in several:
        assert all(w < 0.15 and h < 0.15 for _, _, _, w, h in boxes)


def test_bands_made_at_once_are_those_made_one_by_one() -> None:
    rng = np.random.default_rng(0)
    lines, widths = rng.random((5, 7, 2)), rng.random((5, 7))
    alone = np.stack([ribbon(line, width) for line, width in zip(lines, widths, strict=True)])
    assert np.array_equal(ribbon(lines, widths), alone)
    straight = ribbon(np.stack([np.linspace(0, 1, 5), np.zeros(5)], axis=1), 0.1)
    assert np.allclose(straight[:5, 1], 0.1) and np.allclose(straight[5:, 1], -0.1)  # y down: the left bank is below


def test_outlines_filled_together_are_the_union_of_each_alone() -> None:
    canvas = Canvas(64, 64, scale=1.05, turn=0.03)
    outlines = [ribbon(np.array([[0.1, y], [0.5, y + 0.1], [0.9, y]]), 0.02) for y in (0.2, 0.5, 0.8)]
    alone = np.maximum.reduce([canvas.fill(outline) for outline in outlines])
    assert np.array_equal(canvas.fill(*outlines), alone)
