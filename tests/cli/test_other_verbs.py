"""``demo``, ``catalog`` and ``doctor``."""

from __future__ import annotations

import json
import re

import pytest

from coordsim.cli import doctor
from coordsim.cli.doctor import _numbers, problems
from coordsim.cli.kernels import kernel_cache
from coordsim.scenario import catalog as entries


def test_a_quick_demo_draws_a_table_and_a_figure(run, tmp_path):
    result = run("demo", "--quick", "--out", tmp_path)
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    for plane in ("ideal", "ddp", "point-to-point", "coordinator", "hierarchical", "cached", "cached + layers"):
        assert sum(line.startswith(f"  {plane} ") for line in lines) >= 2
    assert "At 1,536 GPUs STEMDL scales to" in result.stdout
    assert result.stderr.splitlines()[-1].startswith("next: coordsim simulate ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["coordsim-demo.png", "coordsim-demo.svg"]
    assert (tmp_path / "coordsim-demo.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "coordsim-demo.svg").read_text().startswith("<?xml")


def test_a_demo_in_json_and_the_same_figure_again(run, tmp_path):
    figures = []
    for _ in range(2):
        result = run("demo", "--quick", "--steps", "1", "--json", "--out", tmp_path)
        figures.append([path.read_bytes() for path in sorted(tmp_path.iterdir())])
    assert figures[0] == figures[1]
    found = json.loads(result.stdout)
    assert set(found) == {"schema", "cluster", "steps", "seed", "sizes", "results", "findings", "figures"}
    assert found["schema"] == "coordsim.demo/1"
    assert found["sizes"] == [6, 96, 1536]
    assert len(found["results"]) == 2 * 7 * 3
    assert len(found["findings"]) == 3
    assert all(0 < each["scaling_efficiency"] <= 1.1 for each in found["results"])


def test_the_catalog_lists_everything(run):
    found = json.loads(run("catalog", "--json").stdout)
    assert found["schema"] == "coordsim.catalog/1"
    names = [each["name"] for kind in ("clusters", "workloads") for each in found[kind]]
    assert names == [name for kind in entries.KINDS for name in entries.names(kind)]
    shown = run("catalog")
    assert max(map(len, shown.stdout.splitlines())) <= 80
    assert all(re.search(rf"^  {name} ", shown.stdout, re.MULTILINE) for name in names)
    assert shown.stderr.splitlines()[-1].startswith("next: coordsim catalog show ")


@pytest.mark.parametrize("name", [name for kind in entries.KINDS for name in entries.names(kind)])
def test_every_number_of_an_entry_has_a_source(run, name):
    found = json.loads(run("catalog", "show", name, "--json").stdout)
    assert found["schema"] == "coordsim.catalog_entry/1"
    assert found["name"] == name
    for each in found["values"]:
        assert set(each) == {"key", "field", "value", "text", "source"}
        if not isinstance(each["value"], str):
            assert each["source"], each["key"]
    shown = run("catalog", "show", name)
    assert shown.exit_code == 0
    assert max(map(len, shown.stdout.splitlines())) <= 80
    for each in found["values"]:
        assert each["key"].rpartition(".")[2] in shown.stdout


def test_the_next_command_of_an_entry_runs(run):
    command = run("catalog", "show", "localhost").stderr.removeprefix("next: coordsim ").split()
    assert command == ["simulate", "--cluster", "localhost", "--workload", "resnet50"]
    assert run(*command, "--steps", "1").exit_code == 0


def test_the_next_command_of_a_workload_names_a_cluster_of_its_gpus(run):
    for name, cluster in (("vgg16", "pascal-25g"), ("gpt2", "dgx-h100"), ("resnet50", "summit"), ("stemdl", "summit")):
        shown = run("catalog", "show", name)
        assert shown.stderr == f"next: coordsim simulate --cluster {cluster} --workload {name}\n"
        assert f"times: as on {cluster}\n" in shown.stdout
        assert "SCALED" not in shown.stdout


def test_the_rates_of_a_workload_are_shown_with_their_sources(run):
    shown = run("catalog", "show", "vgg16").stdout
    assert re.search(r"^rates\n  P100-PCIe +130.9 +READ: 130.9 images/s", shown, re.MULTILINE)


def test_the_schema_is_json_on_stdout_alone(run):
    from coordsim.scenario.json_schema import scenario_schema

    result = run("catalog", "--schema")
    assert json.loads(result.stdout) == scenario_schema()
    assert result.stderr == "next: coordsim catalog\n"


def test_doctor_finds_this_machine_well(run):
    result = run("doctor", "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert set(found) == {
        "schema", "coordsim", "python", "required", "optional", "machine", "kernel_cache", "terminal", "problems",
    }  # fmt: skip
    assert found["schema"] == "coordsim.doctor/1"
    assert found["problems"] == []
    assert found["machine"]["cores"] >= 1
    assert set(found["kernel_cache"]) == {"directory", "writable", "kernels", "nbytes"}
    shown = run("doctor")
    assert max(map(len, shown.stdout.splitlines())) <= 80
    assert shown.stderr == "next: coordsim demo\n"


def test_doctor_exits_with_3_when_something_is_missing(run, monkeypatch):
    monkeypatch.setattr(doctor, "installed", lambda name: None if name == "numba" else "99")
    result = run("doctor")
    assert result.exit_code == 3
    assert "numba           MISSING" in result.stdout
    assert result.stderr.splitlines()[0] == "error: numba is missing: pip install 'numba>=0.60'"


def test_doctor_compares_versions_as_numbers():
    assert problems({"numpy": {"version": "1.9.1", "needs": "1.26"}})[0].startswith("numpy 1.9.1 is older than 1.26")
    assert problems({"numpy": {"version": "1.26", "needs": "1.26"}, "rich": {"version": "13.8", "needs": "13"}}) == []
    assert _numbers("2.13.0+cpu") == (2, 13, 0)


def test_doctor_looks_where_numba_was_told_to(monkeypatch, tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "kernel.nbi").write_bytes(b"12")
    (tmp_path / "deep" / "kernel.1.nbc").write_bytes(b"345")
    (tmp_path / "other.txt").write_bytes(b"6")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    found = kernel_cache()
    assert (found.directory, found.kernels, found.nbytes) == (str(tmp_path), 1, 5)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "not" / "yet"))
    assert kernel_cache().kernels == 0
    assert kernel_cache().writable
