"""From environment, file and arguments to settings: each named in its errors, only what was given is changed."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from coordsim.errors import InputError
from real_backend.engine.settings import EngineSettings, settings_from
from tests.real_backend.processes import run


def test_without_anything_it_is_the_default() -> None:
    assert settings_from({}) == EngineSettings()
    assert EngineSettings().wakes


@pytest.mark.parametrize(
    ("variable", "text", "field", "value"),
    [
        ("CYCLE_TIME", "5ms", "cycle_time_ns", 5_000_000),
        ("CYCLE_TIME", "0", "cycle_time_ns", 0),
        ("CYCLE_TIME", "wake", "cycle_time_ns", -1),
        ("FUSION_THRESHOLD", "64MiB", "fusion_threshold_bytes", 64 << 20),
        ("FUSION_THRESHOLD", "0", "fusion_threshold_bytes", 0),
        ("CACHE_CAPACITY", "32", "cache_capacity", 32),
        ("STRICT_GROUPS", "1", "strict_groups", True),
        ("STRICT_GROUPS", "off", "strict_groups", False),
        ("CONTROL_PLANE", "hierarchical", "control_plane", "hierarchical"),
        ("RADIX", "8", "radix", 8),
        ("STALL_WARNING", "2s", "stall_warning_ns", 2_000_000_000),
        ("STALL_WARNING", "0", "stall_warning_ns", 0),
        ("PEER_TIMEOUT", "5s", "peer_timeout_ns", 5_000_000_000),
        ("TIMELINE", "t.json", "timeline", "t.json"),
        ("TIMELINE_MARK_CYCLES", "true", "timeline_mark_cycles", True),
        ("GATHER_WINDOW", "200us", "gather_window_ns", 200_000),
        ("RECORD", "folder", "record", "folder"),
    ],
)
def test_one_variable_changes_one_setting(variable: str, text: str, field: str, value: object) -> None:
    found = settings_from({f"COORDSIM_{variable}": text, "HOME": "/"})
    changed = {
        each.name: getattr(found, each.name)
        for each in fields(EngineSettings)
        if getattr(found, each.name) != getattr(EngineSettings(), each.name)
    }
    assert changed == ({} if getattr(EngineSettings(), field) == value else {field: value})


def test_a_file_then_the_environment_then_arguments(tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    path.write_text('cycle_time = "3ms"\nfusion_threshold = "1MiB"\nstrict_groups = true\nradix = 4\n')
    found = settings_from({"COORDSIM_CONFIG": str(path), "COORDSIM_FUSION_THRESHOLD": "2MiB"}, radix=5)
    assert (found.cycle_time_ns, found.fusion_threshold_bytes, found.strict_groups, found.radix) == (
        3_000_000, 2 << 20, True, 5,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"COORDSIM_CYCLE_TIME": "5"}, r"environment: COORDSIM_CYCLE_TIME: .*unit"),
        ({"COORDSIM_FUSION_TRESHOLD": "1MiB"}, "no such variable.*did you mean 'COORDSIM_FUSION_THRESHOLD'"),
        ({"COORDSIM_STRICT_GROUPS": "maybe"}, "COORDSIM_STRICT_GROUPS: 'maybe' is neither on nor off"),
        ({"COORDSIM_RADIX": "two"}, "COORDSIM_RADIX: 'two' is no whole number"),
        ({"COORDSIM_CONTROL_PLANE": "cashed"}, "control_plane: unknown 'cashed'.*did you mean 'cached'"),
        ({"COORDSIM_CACHE_CAPACITY": "0"}, "without a cache choose control_plane 'coordinator'"),
        ({"COORDSIM_CONTROL": "gloo"}, "gloo cannot wake a rank: set a cycle time"),
        ({"COORDSIM_STALL_WARNING": "9s", "COORDSIM_STALL_SHUTDOWN": "2s"}, "without a warning before"),
        ({"COORDSIM_PEER_TIMEOUT": "0"}, "peer_timeout: more than 0"),
        ({"COORDSIM_CONFIG": "/nowhere.toml"}, "/nowhere.toml: cannot be read"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_by_name(environment: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        settings_from(environment)


def test_an_unknown_key_of_a_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    path.write_text("cycle = 1\n")
    with pytest.raises(InputError, match=r"job\.toml: cycle: no such setting.*did you mean"):
        settings_from({}, path)


@pytest.mark.parametrize(("ranks", "radix"), [(1, 1), (2, 1), (64, 63), (65, 32), (27_600, 32)])
def test_a_star_while_it_is_small(ranks: int, radix: int) -> None:
    assert EngineSettings().tree_radix(ranks) == radix
    assert EngineSettings(radix=3).tree_radix(ranks) == 3


def test_the_threshold_is_rounded_by_the_node() -> None:
    settings = EngineSettings(fusion_threshold_bytes=1000, ranks_per_node=6)
    assert settings.protocol(12).fusion_threshold_bytes == 6 * 512
    assert EngineSettings(fusion_threshold_bytes=0, ranks_per_node=6).protocol(12).fusion_threshold_bytes == 0


def tell_thresholds() -> int:
    import real_backend as rb

    rb.init()
    rb.shutdown()
    return settings_from().cache_capacity


def test_settings_reach_every_rank() -> None:
    assert run(2, tell_thresholds, env={"COORDSIM_CACHE_CAPACITY": "77"}) == [77, 77]


def test_the_engine_needs_no_torch() -> None:
    code = (
        "import sys, real_backend, real_backend.engine.assembly, real_backend.recorder, real_backend.timeline;"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_every_public_name_is_there() -> None:
    import real_backend

    for name in real_backend.__all__:
        assert getattr(real_backend, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = real_backend.nothing


def test_the_page_names_every_setting_with_its_default() -> None:
    page = (Path(__file__).parents[2] / "docs" / "backend.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^\| `COORDSIM_(\w+)` \| (.*?) \|", page, re.MULTILINE))
    names = {each.name.removesuffix("_ns").removesuffix("_bytes").upper(): each for each in fields(EngineSettings)}
    assert set(told) == set(names)
    for variable, default in told.items():
        if variable in ("RANKS_PER_NODE", "INTERFACE"):
            continue
        value = getattr(EngineSettings(), names[variable].name)
        found = settings_from({f"COORDSIM_{variable}": default}) if default != "-" else EngineSettings()
        assert getattr(found, names[variable].name) == value, variable
