"""The pointing game: boxes as a model sees them, hits, energy and the interval of the rate."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from cxrdist.inference import pointing_game
from cxrdist.inference.pointing_game import Box
from shards import ShardSet


def test_energy_is_the_share_of_a_map_inside_the_boxes() -> None:
    heat = np.zeros((10, 10), np.float32)
    heat[2, 7], heat[8, 1] = 3, 1
    assert pointing_game.energy(heat, [Box("a", 0.7, 0.2, 0.8, 0.3)]) == pytest.approx(0.75)
    assert pointing_game.energy(np.zeros((10, 10), np.float32), [Box("a", 0, 0, 1, 1)]) == 0
    assert pointing_game.energy(np.ones((10, 10), np.float32), [Box("a", 0, 0, 0.5, 1)]) == pytest.approx(0.5)


def test_boxes_of_nih_count_in_its_1024_frame_whatever_the_size_of_the_files(shards_path: Path, source: Path) -> None:
    found = pointing_game.read_boxes(ShardSet(shards_path, "test"))
    rows = list(csv.reader((source / "BBox_List_2017.csv").read_text().splitlines()))[1:]
    assert sum(len(own) for own in found.values()) == len(rows) > 10
    name, _, x, y, w, h = rows[0]
    first = found[name.removesuffix(".png")][0]
    edges = (first.left, first.top, first.right, first.bottom)
    wanted = (float(x) / 1024, float(y) / 1024, (float(x) + float(w)) / 1024, (float(y) + float(h)) / 1024)
    assert edges == pytest.approx(wanted, abs=1e-6)


def test_boxes_are_cut_to_the_centre_square_that_a_model_sees() -> None:
    row = {"label": "mass", "x": 10.0, "y": 50.0, "width": 60.0, "height": 25.0}
    box = pointing_game._in_view(row, 100, 200)  # the square spans x = 50..150
    assert box == Box("mass", 0.0, 0.5, pytest.approx(0.2), 0.75)  # pyright: ignore[reportArgumentType]
    assert pointing_game._in_view(row | {"width": 30.0}, 100, 200) is None


def test_pointing_game_counts_the_hottest_point() -> None:
    heat = np.zeros((10, 10), np.float32)
    heat[2, 7] = 1
    assert pointing_game.peak(heat) == pytest.approx((0.75, 0.25))
    assert pointing_game.is_hit(heat, [Box("a", 0.7, 0.2, 0.8, 0.3)])
    assert not pointing_game.is_hit(heat, [Box("a", 0.0, 0.0, 0.7, 1.0)])
    assert not pointing_game.is_hit(
        np.zeros((10, 10), np.float32), [Box("a", 0, 0, 1, 1)]
    )  # nothing speaks for the label
    assert pointing_game.covered([Box("a", 0, 0, 0.5, 1), Box("a", 0.25, 0, 0.75, 1)]) == pytest.approx(0.75)


def test_interval_of_the_hit_rate_widens_when_images_share_patients() -> None:
    hits = np.tile([1, 0], 50).astype(bool)
    low, high = pointing_game.interval(hits, np.arange(100))
    assert 0.38 < low < 0.43 and 0.57 < high < 0.62  # 0.5 +- 1.96 * sqrt(0.25 / 100)
    few = pointing_game.interval(np.repeat([True, False], 50), np.repeat(np.arange(20), 5))
    assert few[1] - few[0] > 1.7 * (high - low)
