"""``validate here``: what counts towards its promise, on launches that real Horovod made under another name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from coordsim.analyse.validate.here import FIT, TOLERANCE, judge, measure
from coordsim.analyse.validate.recorded.costs import CONTROLLERS, parameters
from coordsim.errors import EnvironmentProblem, InputError
from coordsim.report.tables import Page
from coordsim.report.validation import here_report

RECORDED = Path(__file__).parents[1] / "data" / "horovod_runs"
WORKLOADS = ("seq", "group5")


def borrow(folder: Path, name: str, recorded: str) -> None:
    """A recorded launch, as if the backend had made it."""
    content = json.loads((RECORDED / f"{recorded}.json").read_text())
    content |= {"controller": "coordsim", "case": name}
    content["workloads"] = {key: value for key, value in content["workloads"].items() if key in WORKLOADS}
    (folder / f"{name}.json").write_text(json.dumps(content))


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("here")
    borrow(folder, "here_n2_cache", "mpi_n2_cache")
    borrow(folder, "here_n2_cache0", "mpi_n2_cache0")
    borrow(folder, "here_n2_cache_cyc5", "mpi_n2_cache_cyc5")
    borrow(folder, "here_n2_cache0_cyc5", "mpi_n2_cache0_cyc5")
    borrow(folder, "here_n4_cache", "mpi_n4_cache")
    return judge(folder)


def test_only_predicted_step_times_of_ranks_with_a_core_each_count(found):
    counted = [
        row for row in found["rows"]
        if row["metric"] == "step_ms" and not row["fitted"] and row["ranks"] == 2 and row["judged_by"] == "median"
    ]  # fmt: skip
    errors = sorted(abs(row["relative_error"]) for row in counted)
    assert found["target"]["cases"] == len(errors) == 2
    assert found["target"]["median"] == pytest.approx(sum(errors) / 2)
    assert errors[0] <= found["target"]["p90"] <= errors[1]
    assert found["target"]["tolerance"] == TOLERANCE
    assert any(row["ranks"] == 4 and row["predicted"] is not None for row in found["rows"])
    assert found["fitted_on"] == list(FIT)


def test_what_misses_is_said_and_nothing_else(found):
    target = found["target"]
    missed = {name for name in TOLERANCE if target[name] > TOLERANCE[name]}
    assert len(found["missed"]) == len(missed)
    assert all(any(name in told for told in found["missed"]) for name in missed)


def test_the_page_says_what_was_promised_within_80_columns(found):
    page = here_report(found, Page())
    assert max(map(len, page.splitlines())) <= 80
    text = " ".join(page.split())
    assert "2 cases, absolute error median" in text
    assert "promised 5.0 %" in text
    assert "nothing is promised" in text


def test_a_folder_without_the_fitted_launches_is_one_error(tmp_path):
    borrow(tmp_path, "here_n2_cache", "mpi_n2_cache")
    with pytest.raises(InputError, match=r"holds no here_n2_cache0\.json"):
        judge(tmp_path)


def test_without_torch_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EnvironmentProblem, match=r"pip install 'coordsim\[torch\]'"):
        measure(tmp_path, [2], True)


def test_hops_of_the_backends_star():
    star = CONTROLLERS["coordsim"]
    assert [star.allreduce(ranks) for ranks in (1, 2, 4)] == [0, 2, 4]
    assert star.along_bytes == 65_536
    assert CONTROLLERS["mpi"].along_bytes < 0
    assert {each.name: each.expected for each in parameters("coordsim", (2,), ())}["request"] == 15.0
    assert {each.name: each.expected for each in parameters("mpi", (2,), ())}["request"] == 0.6


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(("--ranks", "4"), "2 among them"), (("--ranks", "two"), "2 among them"), (("--out", "file"), "is no folder"),
     (("--out", "none/here"), "does not exist")],
)  # fmt: skip
def test_bad_arguments_are_refused_before_anything_is_launched(tmp_path, monkeypatch, arguments, told):
    from typer.testing import CliRunner

    from coordsim.cli import app

    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(app, ["validate", "here", *arguments])
    assert result.exit_code == 2
    assert told in result.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
