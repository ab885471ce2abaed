"""Orders are permutations, drawn by counter."""

from __future__ import annotations

import numpy as np

from coordsim.cost.draws import draw, keys
from coordsim.cost.orders import STREAM_ORDER, shuffled_places


def test_every_rank_has_a_permutation() -> None:
    places = shuffled_places(1, 0, 0, 50, 33)
    np.testing.assert_array_equal(np.sort(places, axis=1), np.tile(np.arange(33), (50, 1)))
    assert len({tuple(row) for row in places.tolist()}) == 50


def test_places_follow_the_draws() -> None:
    key = keys(7, STREAM_ORDER, 3, np.array([5]))
    draws = [int(draw(key, tensor)[0]) for tensor in range(20)]
    by_draw = sorted(range(20), key=draws.__getitem__)
    assert [by_draw.index(tensor) for tensor in range(20)] == shuffled_places(7, 3, 5, 6, 20)[0].tolist()


def test_a_rank_has_its_order_whoever_else_is_drawn() -> None:
    whole = shuffled_places(9, 4, 0, 40, 12)
    np.testing.assert_array_equal(shuffled_places(9, 4, 13, 29, 12), whole[13:29])


def test_step_and_seed_change_it() -> None:
    one = shuffled_places(9, 4, 0, 4, 12)
    assert (shuffled_places(9, 5, 0, 4, 12) != one).any()
    assert (shuffled_places(10, 4, 0, 4, 12) != one).any()


def test_no_place_is_preferred() -> None:
    """Each gradient is in each of 5 places of 20,000 ranks about 4,000 times (5 standard deviations: 283)."""
    places = shuffled_places(3, 1, 0, 20_000, 5)
    counts = np.array([np.bincount(places[:, tensor], minlength=5) for tensor in range(5)])
    assert abs(counts - 4000).max() < 283
