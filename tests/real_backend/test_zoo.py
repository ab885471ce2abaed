"""The networks in torch, and what is recorded from them, against published totals and the generators."""

from __future__ import annotations

import tomllib
from math import prod
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from coordsim.scenario.generators import Generated, stemdl
from real_backend.record_workload import CATALOG, main, module_work, ready_order
from real_backend.zoo import MODELS, ResNet50, StemdlNet

DEVICE_FLOPS = 60 * 10**12


def on_meta(name: str, **parameters: int) -> nn.Module:
    with torch.device("meta"):
        return MODELS[name](**parameters)


def forward_flops(model: nn.Module, *input_shape: int) -> int:
    return sum(work.forward_flops for work in module_work(model, (1, *input_shape)).values())


class TestResNet50:
    def test_parameters(self) -> None:
        shapes = {name: tuple(value.shape) for name, value in on_meta("resnet50").named_parameters()}
        assert len(shapes) == 161
        assert sum(map(prod, shapes.values())) == 25_557_032
        assert list(shapes)[:3] == ["conv1.weight", "bn1.weight", "bn1.bias"]
        assert list(shapes)[-2:] == ["fc.weight", "fc.bias"]
        assert shapes["layer1.0.downsample.0.weight"] == (256, 64, 1, 1)
        assert shapes["layer4.2.conv2.weight"] == (512, 512, 3, 3)

    def test_output(self) -> None:
        with torch.no_grad():
            assert ResNet50(classes=10)(torch.zeros(2, 3, 64, 64)).shape == (2, 10)

    def test_flops_are_those_of_the_catalog(self) -> None:
        """4.09 G multiply-adds forward: v1.5, with the stride in the 3x3 convolution."""
        flops = forward_flops(on_meta("resnet50"), 3, 224, 224)
        assert flops / 2 == pytest.approx(4.09e9, rel=0.001)
        entry = tomllib.loads((CATALOG / "resnet50.toml").read_text(encoding="utf-8"))
        assert f"{3 * flops / 1e9:.1f}GFLOP" == entry["flops_per_sample"]


class TestStemdl:
    @pytest.mark.parametrize(
        ("growth", "channels", "parameters", "teraflops"),
        [(64, 256, 14.5e6, 4.7), (128, 1024, 59.8e6, 21.3), (256, 1024, 232.8e6, 74.7)],
    )
    def test_published_totals(self, growth: int, channels: int, parameters: float, teraflops: float) -> None:
        model = on_meta("stemdl", growth=growth, channels=channels)
        assert sum(value.numel() for value in model.parameters()) == pytest.approx(parameters, rel=0.004)
        assert 3 * forward_flops(model, channels, 512, 512) / 1e12 == pytest.approx(teraflops, abs=0.05)

    def test_output_has_the_size_of_the_input(self) -> None:
        with torch.no_grad():
            output = StemdlNet(growth=4, kernel=3, channels=2)(torch.zeros(2, 2, 16, 24))
        assert output.shape == (2, 1, 16, 24)


@pytest.fixture
def model() -> StemdlNet:
    return StemdlNet(growth=8, kernel=3, channels=16)


@pytest.fixture
def generated() -> Generated:
    return stemdl.build(device_flops=DEVICE_FLOPS, growth=8, kernel=3, input=(16, 32, 32))


class TestGeneratorAgainstTorch:
    """The generator knows no torch; here it meets the real network."""

    def test_ready_order(self, model: StemdlNet, generated: Generated) -> None:
        order = ready_order(model, (1, 16, 32, 32))
        assert [tensor.name for tensor in generated.tensors] == order
        assert len(order) == 33

    def test_names_and_shapes_in_registration_order(self, model: StemdlNet, generated: Generated) -> None:
        registered = sorted(generated.tensors, key=lambda tensor: tensor.registration)
        assert [(tensor.name, tensor.shape) for tensor in registered] == [
            (name, tuple(value.shape)) for name, value in model.named_parameters()
        ]

    def test_layers_are_the_networks_blocks(self, model: StemdlNet, generated: Generated) -> None:
        blocks = [name for name, _ in model.named_children()]
        assert len(blocks) == 15
        registered = sorted(generated.tensors, key=lambda tensor: tensor.registration)
        assert list(dict.fromkeys(tensor.layer for tensor in registered)) == blocks
        for tensor in generated.tensors:
            owned = dict(model.get_submodule(tensor.layer).named_parameters(prefix=tensor.layer))
            assert tensor.name in owned

    @pytest.mark.parametrize("size", [(16, 32, 32), (16, 40, 8)])
    def test_work_of_each_module(self, model: StemdlNet, size: tuple[int, int, int]) -> None:
        work = {module.name: module.work for module in stemdl.network(8, 3, size)}
        assert work == module_work(model, (1, *size))


class TestRecording:
    def test_flops_agree_with_torchs_own_counter(self) -> None:
        stemdl_on_meta = on_meta("stemdl", growth=8, channels=16)
        for network, size in ((on_meta("resnet50"), (3, 64, 64)), (stemdl_on_meta, (16, 32, 32))):
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                network(torch.zeros((1, *size), device="meta"))
            assert forward_flops(network, *size) == counter.get_total_flops() > 0

    def test_the_catalogs_table_is_what_the_script_writes(self, tmp_path: Path) -> None:
        main(["resnet50", "--out", str(tmp_path / "again.csv")])
        assert (tmp_path / "again.csv").read_bytes() == (CATALOG / "resnet50.tensors.csv").read_bytes()

    def test_the_order_does_not_depend_on_the_image_size(self) -> None:
        model = ResNet50(classes=10)
        assert ready_order(model, (1, 3, 64, 64)) == ready_order(model, (2, 3, 96, 32))

    def test_hooks_are_removed(self) -> None:
        model = StemdlNet(growth=2, kernel=1, channels=1)
        first = ready_order(model, (1, 1, 8, 8))
        assert ready_order(model, (1, 1, 8, 8)) == first
        assert len(first) == 33

    def test_an_unknown_kind_of_module_is_refused(self) -> None:
        with pytest.raises(TypeError, match="no rule counts the FLOPs of a Embedding"):
            module_work(_Embedded(), (1, 3))


class _Embedded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(2, 2)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        rows: torch.Tensor = self.table(values.long())
        return rows
