"""The check before the first cycle: ranks that were started alike go on, others all stop with the same words."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordsim.protocol import startup, wire
from coordsim.protocol.groups import GroupTable
from coordsim.protocol.messages import Claims
from coordsim.protocol.negotiator import AndReduce, Settings
from coordsim.protocol.session import Session
from coordsim.protocol.startup import GatherClaims, SettingsDiffer, agree_on_settings, claims, differences
from tests.protocol.drive import KINDS, UNMERGED, Job, settings
from tests.protocol.profile import profile


@dataclass
class OddJob(Job):
    """Some ranks have other settings, another plane, other settings of their driver's."""

    odd: dict[int, Any] = field(default_factory=dict)
    """By rank: Settings, a plane's name, or a dict of the driver's settings."""

    def session(self, rank: int) -> Session:
        odd = self.odd.get(rank)
        kind = odd if isinstance(odd, str) else self.kind
        own = odd if isinstance(odd, Settings) else self.settings
        return Session(kind, rank, own, more=odd if isinstance(odd, dict) else {"transport": "gloo"})


def refused(odd: dict[int, Any], kind: str = "cached", ranks: int = 4) -> list[str]:
    """The lines about settings of the error that every rank raised."""
    with pytest.raises(SettingsDiffer) as error:
        OddJob(kind, settings(ranks, groups=[("a", "b")]), through_wire=True, odd=odd)
    first, *lines = str(error.value).splitlines()
    assert first == "ranks were started with different settings:"
    return lines


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ranks", [1, 2, 5])
def test_ranks_that_agree_start_with_one_and(kind: str, ranks: int) -> None:
    own = claims(0, kind, settings(ranks))
    exchanges = agree_on_settings(own)
    first = next(exchanges)
    assert isinstance(first, AndReduce)
    assert first.words == 2
    with pytest.raises(StopIteration):
        exchanges.send(first.value)
    Job(kind, settings(ranks), through_wire=True).cycle()


BASE = settings(4, groups=[("a", "b")])
SETTINGS: dict[str, tuple[Settings, str]] = {
    "ranks": (replace(BASE, ranks=5), "4 on ranks 0-1,3; 5 on rank 2"),
    "fusion threshold (bytes, rounded)": (
        replace(BASE, fusion_threshold_bytes=512), "1048576 on ranks 0-1,3; 512 on rank 2"
    ),
    "cache capacity": (replace(BASE, cache_capacity=7), "1024 on ranks 0-1,3; 7 on rank 2"),
    "tree radix": (replace(BASE, radix=8), "2 on ranks 0-1,3; 8 on rank 2"),
    "tree merging": (replace(BASE, merge=False), "on on ranks 0-1,3; off on rank 2"),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_is_named_with_its_values_and_ranks(kind: str, name: str) -> None:
    odd, text = SETTINGS[name]
    if kind == UNMERGED:
        odd = replace(odd, merge=name == "tree merging")
        text = text.replace("on on ranks", "off on ranks").replace("off on rank 2", "on on rank 2")
    assert refused({2: odd}, kind) == [f"  {name}: {text}"]


@pytest.mark.parametrize(
    "groups",
    [
        GroupTable((("b", "a"),)), GroupTable((("a", "b"),), strict=True), GroupTable((("a", "b"), ("c", "d"))),
        GroupTable(), GroupTable((("a",), ("b",))), GroupTable((), strict=True),
    ],
)  # fmt: skip
def test_groups_are_compared_by_members_order_and_strictness(groups: GroupTable) -> None:
    (line,) = refused({0: replace(BASE, groups=groups)})
    assert line.startswith("  groups: ")
    assert line.count(" on rank") == 2


def test_another_control_plane_is_found_out_before_it_waits_for_exchanges_that_never_come() -> None:
    for odd in ("coordinator", "hierarchical"):
        assert refused({1: odd}) == [f"  control plane: cached on ranks 0,2-3; {odd} on rank 1"]


def test_several_settings_several_values_and_the_drivers_own() -> None:
    odd = {0: replace(BASE, radix=3, cache_capacity=9), 3: replace(BASE, cache_capacity=8), 2: {"transport": "mpi"}}
    assert refused(odd) == [
        "  cache capacity: 9 on rank 0; 1024 on ranks 1-2; 8 on rank 3",
        "  tree radix: 3 on rank 0; 2 on ranks 1-3",
        "  transport: gloo on ranks 0-1,3; mpi on rank 2",
    ]
    assert refused({1: {}}) == ["  transport: gloo on ranks 0,2-3; (not set) on rank 1"]


def test_other_versions_are_found_out() -> None:
    """Claims are read whatever their version, so the text says what differs."""
    old = replace(claims(1, "cached", BASE), settings=tuple(
        (name, "1" if name.endswith("version") else value) for name, value in claims(1, "cached", BASE).settings
    ))  # fmt: skip
    both = str(wire.VERSION), str(startup.PROTOCOL_VERSION)
    assert differences([claims(0, "cached", BASE), old]).splitlines()[1:] == [
        f"  protocol version: {both[1]} on rank 0; 1 on rank 1",
        f"  wire version: {both[0]} on rank 0; 1 on rank 1",
    ]


def test_thousands_of_ranks_stay_readable() -> None:
    """Half of 27,600 ranks, scattered, each value long; and a setting with a value of its own on every rank."""
    everybody = [
        Claims(rank, (("path", ("left" if rank % 2 else "right") * 40), ("own", str(rank)))) for rank in range(27_600)
    ]
    text = differences(everybody)
    assert len(text) < 1_000
    assert "on ranks 0,2,4,6,8,10 and 13,794 more; " in text
    assert "5 on rank 5; 27,594 more values on 27,594 ranks" in text


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=6))
@profile(300)
def test_two_words_tell_every_rank_whether_all_digests_are_equal(digests: list[int]) -> None:
    def started(rank: int, digest: int) -> Any:
        exchanges = agree_on_settings(Claims(rank, ()))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(startup, "_digest", lambda _: digest)
            return exchanges, next(exchanges)

    ranks = [started(rank, digest) for rank, digest in enumerate(digests)]
    common = -1
    for _, exchange in ranks:
        common &= exchange.value
    for exchanges, _ in ranks:
        try:
            goes_on = exchanges.send(common)
        except StopIteration:
            goes_on = None
        assert isinstance(goes_on, GatherClaims) == (len(set(digests)) > 1)
