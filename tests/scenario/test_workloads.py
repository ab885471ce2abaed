"""The workload catalog, and the generators behind it, against published totals and closed forms. No torch."""

from __future__ import annotations

import csv
import inspect
import itertools
import tomllib
from math import prod
from pathlib import Path
from typing import Any

import pytest

from coordsim.errors import InputError
from coordsim.scenario import generators
from coordsim.scenario.generators import GENERATORS, Generated
from coordsim.scenario.generators.backward import ModuleWork, ready_times_ns
from coordsim.scenario.generators.stemdl import build

CATALOG = Path(generators.__file__).parents[1] / "catalog" / "workloads"
V100 = 60 * 10**12


def read_toml(name: str) -> dict[str, Any]:
    return tomllib.loads((CATALOG / f"{name}.toml").read_text(encoding="utf-8"))


def parameters_of(generated: Generated) -> int:
    return sum(prod(tensor.shape) for tensor in generated.tensors)


def step_ns(generated: Generated) -> int:
    return generated.forward_ns + generated.tensors[-1].ready_ns + generated.optimizer_ns


@pytest.fixture(scope="module")
def resnet50_rows() -> list[dict[str, str]]:
    with (CATALOG / "resnet50.tensors.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


class TestResNet50:
    def test_the_table_is_the_whole_network(self, resnet50_rows: list[dict[str, str]]) -> None:
        assert list(resnet50_rows[0]) == ["name", "shape", "dtype", "layer", "registration", "ready"]
        assert len({row["name"] for row in resnet50_rows}) == len(resnet50_rows) == 161
        assert sum(prod(map(int, row["shape"].split("x"))) for row in resnet50_rows) == 25_557_032
        assert {row["dtype"] for row in resnet50_rows} == {"float32"}
        assert sorted(int(row["registration"]) for row in resnet50_rows) == list(range(161))

    def test_a_layer_is_the_module_that_owns_the_gradient(self, resnet50_rows: list[dict[str, str]]) -> None:
        assert all(row["name"].rpartition(".")[0] == row["layer"] for row in resnet50_rows)
        assert len({row["layer"] for row in resnet50_rows}) == 53 + 53 + 1  # convolutions, norms, linear

    def test_the_order_is_the_one_another_spike_saw(self, resnet50_rows: list[dict[str, str]]) -> None:
        """TORCH_BACKEND.md, on torchvision's model: 55 of 161 stand where reversed registration puts them."""
        reverse = [160 - int(row["registration"]) for row in resnet50_rows]
        assert sum(position == place for place, position in enumerate(reverse)) == 55

    def test_times_increase_and_make_the_published_step(self, resnet50_rows: list[dict[str, str]]) -> None:
        ready_ns = [int(row["ready"]) for row in resnet50_rows]
        assert ready_ns[0] > 0
        assert all(earlier < later for earlier, later in itertools.pairwise(ready_ns))
        entry = read_toml("resnet50")
        assert (entry["forward"], entry["optimizer"], entry["batch"]) == ("31ms", "2ms", 64)
        step = 0.031 + ready_ns[-1] / 1e9 + 0.002
        assert entry["batch"] / step == pytest.approx(688, rel=0.001)


class TestStemdl:
    @pytest.mark.parametrize(
        ("growth", "channels", "parameters", "teraflops"),
        [(64, 256, 14.5e6, 4.7), (128, 1024, 59.8e6, 21.3), (256, 1024, 232.8e6, 74.7)],
    )
    def test_published_totals(self, growth: int, channels: int, parameters: float, teraflops: float) -> None:
        generated = build(device_flops=V100, growth=growth, input=(channels, 512, 512))
        assert parameters_of(generated) == pytest.approx(parameters, rel=0.004)
        assert generated.flops_per_sample / 1e12 == pytest.approx(teraflops, abs=0.05)

    @pytest.mark.parametrize(("growth", "kernel", "channels"), [(1, 1, 1), (8, 3, 16), (64, 5, 256)])
    def test_parameters_in_closed_form(self, growth: int, kernel: int, channels: int) -> None:
        """Inputs of the dense layers sum to 133 growths; the 1x1 convolutions' squares to 127."""
        area = kernel * kernel
        first = area * channels * growth + growth
        blocks = ((1, 2), (3, 4), (5, 6, 7), (8, 9, 10, 11), (12, 13, 14), (8, 9), (5, 6))
        dense = area * growth**2 * sum(map(sum, blocks))
        pointwise = growth**2 * sum(width**2 for width in (3, 5, 8, 4, 3, 2)) + 7 * growth
        norms = 2 * growth * (3 + 5 + 8)
        generated = build(device_flops=V100, growth=growth, kernel=kernel, input=(channels, 16, 16))
        assert parameters_of(generated) == first + dense + pointwise + norms

    def test_few_tensors_in_few_layers(self) -> None:
        tensors = build(device_flops=V100).tensors
        assert len({tensor.name for tensor in tensors}) == len(tensors) == 33
        assert len({tensor.layer for tensor in tensors}) == 15
        assert sorted(tensor.registration for tensor in tensors) == list(range(33))
        assert (tensors[0].name, tensors[-1].name) == ("final.weight", "init.bias")

    def test_the_lone_step_and_its_bytes(self) -> None:
        generated = build(device_flops=V100)
        assert step_ns(generated) / 1e9 == pytest.approx(1.25, abs=0.005)
        assert sum(tensor.nbytes for tensor in generated.tensors) / 1e6 == pytest.approx(466, abs=0.5)
        assert generated.sample_bytes / 1e6 == pytest.approx(537, abs=0.5)

    @pytest.mark.parametrize("size", [8, 512])
    def test_times_increase_to_twice_the_forward(self, size: int) -> None:
        generated = build(device_flops=10**12, input=(1024, size, size))
        ready_ns = [tensor.ready_ns for tensor in generated.tensors]
        assert all(earlier < later for earlier, later in itertools.pairwise([0, *ready_ns]))
        assert 2 * generated.forward_ns - ready_ns[-1] in (0, 1)
        assert [tensor.submit_ns for tensor in generated.tensors] == ready_ns

    def test_a_dense_layer_takes_its_share_of_the_flops(self) -> None:
        generated = build(device_flops=V100)
        at = {tensor.name: tensor.ready_ns for tensor in generated.tensors}
        share = (at["decoder1.conv1.weight"] - at["decoder1.conv2.weight"]) / at["init.bias"]
        flops = 2 * 25 * (5 * 256) * 256 * 512**2
        assert share == pytest.approx(3 * flops / generated.flops_per_sample, rel=0.01)

    def test_scales_with_batch_and_device(self) -> None:
        one, four = build(device_flops=V100), build(device_flops=V100, batch=4)
        slow = build(device_flops=V100 // 4)
        assert four.forward_ns == slow.forward_ns == pytest.approx(4 * one.forward_ns, abs=4)
        assert four.tensors == slow.tensors
        assert four.optimizer_ns == slow.optimizer_ns == one.optimizer_ns
        assert four.flops_per_sample == one.flops_per_sample
        assert (one.batch, four.batch) == (1, 4)

    def test_dtype_changes_bytes_only(self) -> None:
        half, single = build(device_flops=V100), build(device_flops=V100, dtype="float32")
        assert [2 * tensor.nbytes for tensor in half.tensors] == [tensor.nbytes for tensor in single.tensors]
        assert step_ns(half) == step_ns(single)

    def test_every_number_is_an_integer_even_on_a_tiny_network(self) -> None:
        generated = build(device_flops=10**18, growth=1, kernel=1, input=(1, 8, 8))
        assert [tensor.ready_ns for tensor in generated.tensors] == list(range(1, 34))
        assert generated.forward_ns == 1
        assert all(type(tensor.ready_ns) is int for tensor in generated.tensors)
        assert type(generated.optimizer_ns) is type(generated.flops_per_sample) is int

    @pytest.mark.parametrize(
        ("key", "value", "allowed"),
        [
            ("device_flops", 0, "1 or more"),
            ("growth", 0, "1 or more"),
            ("growth", 2.5, "whole number"),
            ("growth", True, "whole number"),
            ("growth", "many", "whole number"),
            ("kernel", 4, "odd"),
            ("kernel", -1, "odd"),
            ("input", [1024, 512, 100], "divisible by 8"),
            ("input", [1024, 512], "[channels, height, width]"),
            ("input", [0, 512, 512], "[channels, height, width]"),
            ("input", 512, "[channels, height, width]"),
            ("batch", 0, "1 or more"),
            ("dtype", "float61", "did you mean 'float16'?"),
        ],
    )
    def test_a_bad_parameter_is_named(self, key: str, value: Any, allowed: str) -> None:
        with pytest.raises(InputError) as caught:
            build(**{"device_flops": V100, key: value})
        (problem,) = caught.value.problems
        assert (problem.key, problem.value) == (key, value)
        assert f"{key}: {value!r} is not" in str(problem)
        assert allowed in str(problem)

    def test_all_mistakes_are_reported_at_once(self) -> None:
        with pytest.raises(InputError) as caught:
            build(device_flops=V100, growth=0, kernel=2)
        assert [problem.key for problem in caught.value.problems] == ["growth", "kernel"]


class TestCatalogEntries:
    def test_stemdl_is_built_from_its_entry(self) -> None:
        entry = read_toml("stemdl")
        generated = GENERATORS[entry["generator"]](device_flops=V100, **entry["parameters"])
        assert generated == build(device_flops=V100)

    @pytest.mark.parametrize("path", sorted(CATALOG.glob("*.toml")), ids=lambda path: path.stem)
    def test_every_number_has_a_source(self, path: Path) -> None:
        entry = tomllib.loads(path.read_text(encoding="utf-8"))
        words = {"description", "generator", "parameters", "rates", "fixed", "sources"}
        rates = {
            key
            for gpu, rate in entry.get("rates", {}).items()
            for key in ([f"rates.{gpu}.{batch}" for batch in rate] if isinstance(rate, dict) else [f"rates.{gpu}"])
        }
        fixed = {f"fixed.{gpu}" for gpu in entry.get("fixed", {})}
        numbers = {*entry, *entry.get("parameters", {}), *rates, *fixed} - words
        assert numbers
        assert numbers <= set(entry["sources"])
        kinds = ("READ:", "RECORDED:", "DERIVED:", "ASSUMED:", "RECALL:", "FITTED:")
        assert all(text.startswith(kinds) for text in entry["sources"].values())

    def test_what_is_unknown_of_production_says_so(self) -> None:
        sources = read_toml("stemdl")["sources"]
        assert all(sources[key].startswith("ASSUMED:") for key in ("growth", "kernel"))

    @pytest.mark.parametrize("name", GENERATORS)
    def test_every_generator_takes_keywords_only(self, name: str) -> None:
        kinds = {parameter.kind for parameter in inspect.signature(GENERATORS[name]).parameters.values()}
        assert kinds == {inspect.Parameter.KEYWORD_ONLY}


class TestReadyTimes:
    WORK = {  # noqa: RUF012
        "conv": ModuleWork(forward_flops=300_000, outputs=3),
        "norm": ModuleWork(0, outputs=3_000, norm=True),
    }

    def test_charges(self) -> None:
        """67 FLOPs a byte: 8 B an element for a norm, 2 B for a further gradient."""
        assert self.WORK["conv"].first_charge() == 600_000
        assert self.WORK["norm"].first_charge() == 3_000 * 8 * 200 // 3
        assert self.WORK["norm"].further_charge() == 3_000 * 2 * 200 // 3

    def test_the_first_gradient_of_a_module_carries_its_work(self) -> None:
        times_ns = ready_times_ns(["norm", "norm", "conv"], self.WORK, 2_600_003)
        assert times_ns == (1_600_000 + 1, 2_000_000 + 2, 2_600_000 + 3)

    def test_there_must_be_a_nanosecond_for_each(self) -> None:
        assert ready_times_ns(["norm", "norm", "conv"], self.WORK, 3) == (1, 2, 3)
        with pytest.raises(ValueError, match="2 ns are too few for 3 gradients"):
            ready_times_ns(["norm", "norm", "conv"], self.WORK, 2)
