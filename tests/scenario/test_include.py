"""``include``: which file wins, what names are relative to, and whose mistake it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordsim.scenario import load_scenario


@pytest.fixture
def tree(small: Path) -> Path:
    """``top.toml`` includes ``parts/first.toml`` and ``second.toml``; the first includes ``deep.toml`` beside it."""
    folder = small.parent
    (folder / "parts").mkdir()
    (folder / "parts" / "deep.toml").write_text('steps = 2\nseed = 2\n[control_plane]\nname = "cached"\nradix = 2\n')
    (folder / "parts" / "first.toml").write_text(
        'include = ["deep.toml"]\nsteps = 3\nworkload = "list.csv"\n[control_plane]\ncycle_time = "3ms"\n'
    )
    (folder / "parts" / "list.csv").write_text("name,shape\na,4\nb,8\n")
    (folder / "second.toml").write_text('ranks = 6\ncluster = "summit"\n[control_plane]\ncycle_time = "4ms"\n')
    top = folder / "top.toml"
    top.write_text('include = ["parts/first.toml", "second.toml"]\n[control_plane]\nfusion_threshold = "1MiB"\n')
    return top


def test_later_wins_and_the_including_file_most_of_all(tree):
    scenario = load_scenario(tree)
    assert (scenario.seed, scenario.steps, scenario.ranks) == (2, 3, 6)  # deep; first over deep; second
    plane = scenario.control_plane
    assert (plane.radix, plane.cycle_time_ns, plane.fusion_threshold_bytes) == (2, 4_000_000, 2**20)
    tree.write_text(tree.read_text().replace("\n[", "\nsteps = 9\n[", 1) + 'cycle_time = "5ms"\n')
    scenario = load_scenario(tree, seed=1)
    assert (scenario.steps, scenario.seed, scenario.control_plane.cycle_time_ns) == (9, 1, 5_000_000)


def test_names_are_relative_to_the_file_they_are_in(tree):
    workload = load_scenario(tree).workload
    assert [tensor.name for tensor in workload.tensors] == ["b", "a"]
    assert workload.name == "list"


def test_a_file_may_be_included_by_two_others(tree):
    folder = tree.parent
    (folder / "third.toml").write_text('include = ["parts/deep.toml"]\nseed = 3\n')
    tree.write_text(tree.read_text().replace('"second.toml"', '"second.toml", "third.toml"'))
    scenario = load_scenario(tree)
    assert (scenario.seed, scenario.steps) == (3, 2)  # deep comes again, above first


def test_sources_name_the_file_that_a_value_is_from(tree):
    (tree.parent / "second.toml").write_text('ranks = 6\n[cluster]\nbase = "summit"\nhost = { launch = "3us" }\n')
    sources = load_scenario(tree).cluster.sources
    assert sources["host.launch"] == f"set in {tree.parent / 'second.toml'}"


def test_a_mistake_is_placed_in_the_file_it_is_in(tree, refused):
    second = tree.parent / "second.toml"
    second.write_text(second.read_text() + "cycletime = 3\n")
    (problem,) = refused(tree)
    assert (problem.where, problem.key) == (str(second), "control_plane.cycletime")
    assert "did you mean 'cycle_time'?" in str(problem)


def test_another_workload_replaces_the_whole_table_below(tree):
    tree.write_text(tree.read_text().replace("\n[", '\nworkload = "resnet50"\n[', 1))
    workload = load_scenario(tree).workload
    assert (workload.name, len(workload.tensors), workload.forward_ns) == ("resnet50", 161, 31_000_000)


def test_a_missing_file_names_the_chain(tree, refused):
    deep = tree.parent / "parts" / "deep.toml"
    deep.rename(deep.with_name("deeper.toml"))
    (problem,) = refused(tree)
    assert problem.where == str(deep)
    first = tree.parent / "parts" / "first.toml"
    reason = "cannot be read: No such file or directory (did you mean 'deeper.toml'?)"
    assert problem.message == f"{reason} ({tree} includes {first} includes {deep})"


def test_a_circle_names_the_chain(tree, refused):
    deep = tree.parent / "parts" / "deep.toml"
    deep.write_text('include = ["../top.toml"]\n')
    (problem,) = refused(tree)
    assert (problem.where, problem.key) == (str(deep), "include")
    assert problem.message.startswith(f"goes in a circle ({tree} includes ")
    assert problem.message.endswith("top.toml)")


def test_a_file_that_includes_itself(tmp_path, refused):
    path = tmp_path / "a.toml"
    path.write_text('include = ["a.toml"]\n')
    (problem,) = refused(path)
    assert problem.message == f"goes in a circle ({path} includes {path})"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"steps = ", "is not TOML"),
        (b"steps = 1\n\xff", "is not UTF-8 text (byte 0xff)"),
    ],
)
def test_an_unreadable_included_file_is_the_only_mistake(tree, refused, content, message):
    second = tree.parent / "second.toml"
    second.write_bytes(content)
    (problem,) = refused(tree)
    assert problem.where == str(second)
    assert message in problem.message
    assert f"({tree} includes {second})" in problem.message


@pytest.mark.parametrize("value", ['"second.toml"', "3", '["second.toml", 3]', "{}"])
def test_include_is_a_list_of_files(tree, refused, value):
    tree.write_text(f"include = {value}\n")
    (problem,) = refused(tree)
    assert (problem.where, problem.key) == (str(tree), "include")
    assert "is not a list of files" in problem.message


def test_include_belongs_in_a_file(tree, refused):
    (problem,) = refused(tree, overrides=['include=["second.toml"]'])
    assert (problem.where, problem.key, problem.message) == ("--set", "include", "belongs in a scenario file")


def test_a_misspelt_include_is_offered_the_right_one(tree, refused):
    tree.write_text(tree.read_text().replace("include", "includes"))
    assert any("did you mean 'include'?" in str(problem) for problem in refused(tree))


def test_a_scenario_is_of_a_few_files_only(tmp_path, refused):
    """Each includes the next twice: 2^30 files, were they all read."""
    for number in range(30):
        (tmp_path / f"{number}.toml").write_text(f'include = ["{number + 1}.toml", "{number + 1}.toml"]\n')
    (tmp_path / "30.toml").write_text("")
    (problem,) = refused(tmp_path / "0.toml")
    assert "leads to more than 64 files" in problem.message


def test_a_file_named_as_a_cluster_may_include(small):
    from coordsim.scenario import catalog

    (small.parent / "theirs.toml").write_text(catalog.show("summit"))
    (small.parent / "mine.toml").write_text('include = ["theirs.toml"]\n[control]\nlatency = "9us"\n')
    small.write_text(small.read_text().replace('"summit"', '"mine.toml"'))
    scenario = load_scenario(small)
    assert (scenario.cluster.name, scenario.cluster.control.latency_ns) == ("mine", 9_000)
    assert scenario.noise.rank.sigma_ppm == 15_000
