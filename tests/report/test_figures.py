"""Figures: labels apart, bytes reproducible, files whole."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordsim.report.figures import Curve, Panel, efficiency_figure, save, spread, write_whole


@given(st.lists(st.floats(0, 100), min_size=1, max_size=8))
def test_labels_never_overlap_nor_leave_the_page(wanted):
    ordered = sorted(wanted, reverse=True)
    placed = spread(ordered, least=5.0, low=0.0, high=102.0)
    assert all(upper - lower >= 5.0 - 1e-9 for upper, lower in pairwise(placed))
    assert max(placed) <= 102.0 + 1e-9
    assert min(placed) >= -1e-9


def test_labels_with_room_stay_where_they_belong():
    assert spread([90.0, 50.0, 10.0], least=5.0, low=0.0, high=100.0) == [90.0, 50.0, 10.0]
    assert spread([50.0, 50.0], least=4.0, low=0.0, high=100.0) == [52.0, 48.0]


def test_the_same_numbers_give_the_same_bytes(tmp_path):
    curves = (Curve("ideal", (6, 96), (1.0, 0.98)), Curve("cached", (6, 96), (1.0, 0.97)))
    written = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        save(efficiency_figure("t", (Panel("one", curves), Panel("two", curves))), [folder / "f.png", folder / "f.svg"])
        written.append([path.read_bytes() for path in sorted(folder.iterdir())])
    assert written[0] == written[1]
    assert b"matplotlib" not in written[0][0].lower()


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "f.png"
    path.write_bytes(b"old")

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(KeyboardInterrupt):
        write_whole(path, b"new")
    assert [each.name for each in tmp_path.iterdir()] == ["f.png"]
    assert path.read_bytes() == b"old"
