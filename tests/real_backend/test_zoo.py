"""The networks in torch, and what is recorded from them, against published totals and the generators."""

from __future__ import annotations

import csv
import tomllib
from functools import cache
from math import prod
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from coordsim.scenario.generators import Generated, stemdl
from coordsim.units import parse_time
from real_backend.record_workload import CATALOG, RECIPES, main, module_work, ready_order
from real_backend.zoo import MODELS, InceptionV3, ResNet50, StemdlNet

DEVICE_FLOPS = 60 * 10**12


PARAMETERS = {
    "bert_large": (398, 336_226_108),
    "gpt2": (148, 124_439_808),
    "inception_v3": (284, 23_834_568),
    "llama3_8b": (291, 8_030_261_248),
    "resnet101": (314, 44_549_160),
    "resnet50": (161, 25_557_032),
    "vgg16": (32, 138_357_544),
}
"""Tensors and values, as torchvision and Hugging Face count them."""
GIGA_MACS = {"inception_v3": 5.71, "resnet101": 7.80, "resnet50": 4.09, "vgg16": 15.47}
"""Multiply-adds forward of one image, as torchvision lists them (GFLOPS there)."""


@cache
def nominal_flops(name: str) -> int:
    """Forward FLOPs of one sample."""
    return forward_flops(on_meta(name), *RECIPES[name].nominal[1:])


def rows_of(name: str) -> list[dict[str, str]]:
    """The catalog's table; a test holds it equal to what the script writes."""
    with (CATALOG / f"{name}.tensors.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def on_meta(name: str, **parameters: int) -> nn.Module:
    with torch.device("meta"):
        return MODELS[name](**parameters)


def forward_flops(model: nn.Module, *input_shape: int) -> int:
    return sum(work.forward_flops for work in module_work(model, (1, *input_shape)).values())


class TestPublishedTotals:
    @pytest.mark.parametrize("name", PARAMETERS)
    def test_parameters(self, name: str) -> None:
        parameters = list(on_meta(name).parameters())
        assert (len(parameters), sum(each.numel() for each in parameters)) == PARAMETERS[name]

    def test_inception_with_its_auxiliary_classifier(self) -> None:
        with torch.device("meta"):
            parameters = list(InceptionV3(aux=True).parameters())
        assert (len(parameters), sum(each.numel() for each in parameters)) == (292, 27_161_264)

    @pytest.mark.parametrize("name", GIGA_MACS)
    def test_multiply_adds(self, name: str) -> None:
        assert nominal_flops(name) / 2e9 == pytest.approx(GIGA_MACS[name], abs=0.01)

    @pytest.mark.parametrize("name", RECIPES)
    def test_flops_are_those_of_the_catalog(self, name: str) -> None:
        training = 3 * nominal_flops(name)
        entry = tomllib.loads((CATALOG / f"{name}.toml").read_text(encoding="utf-8"))
        said = f"{training / 1e9:.1f}GFLOP" if training < 1e12 else f"{training / 1e12:.1f}TFLOP"
        assert entry["flops_per_sample"] == said

    @pytest.mark.parametrize("name", RECIPES)
    def test_the_recorded_backward_and_the_stated_step_belong_together(self, name: str) -> None:
        """One third of what the optimizer leaves is forward, two thirds are backward."""
        entry = tomllib.loads((CATALOG / f"{name}.toml").read_text(encoding="utf-8"))
        forward_ns = parse_time(entry["forward"])
        assert RECIPES[name].backward_ns == pytest.approx(2 * forward_ns, rel=0.035)

    def test_transformers_outputs(self) -> None:
        with torch.no_grad():
            for name, width in (("gpt2", (2, 8, 30)), ("llama3_8b", (2, 8, 30)), ("bert_large", (2, 8 * 30 + 2))):
                model = MODELS[name](**RECIPES[name].thin, layers=2)
                assert model(torch.zeros(2, 8)).shape == width

    @pytest.mark.parametrize("name", ["gpt2", "llama3_8b"])
    def test_a_causal_model_does_not_look_ahead(self, name: str) -> None:
        model = MODELS[name](**RECIPES[name].thin, layers=2).eval()
        words = torch.tensor([[1, 2, 3, 4, 5, 6]])
        other = words.clone()
        other[0, 4] = 9
        with torch.no_grad():
            difference = (model(words) - model(other)).abs().amax(dim=2)[0]
        assert difference[:4].max() == 0
        assert difference[4:].min() > 0

    def test_llama_knows_positions(self) -> None:
        """Without rotation the last word would see the others as a bag."""
        model = MODELS["llama3_8b"](**RECIPES["llama3_8b"].thin, layers=1).eval()
        with torch.no_grad():
            one, two = model(torch.tensor([[1, 2, 3]])), model(torch.tensor([[2, 1, 3]]))
        assert not torch.allclose(one[0, 2], two[0, 2])


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

    def test_flops(self) -> None:
        """4.09 G multiply-adds forward: v1.5, with the stride in the 3x3 convolution."""
        flops = forward_flops(on_meta("resnet50"), 3, 224, 224)
        assert flops / 2 == pytest.approx(4.09e9, rel=0.001)


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
        words = [(on_meta(name, layers=1), (64,)) for name in ("bert_large", "gpt2", "llama3_8b")]
        images = [(on_meta(name), (3, size, size)) for name, size in (("resnet50", 64), ("inception_v3", 139))]
        images.append((on_meta("vgg16"), (3, 32, 32)))
        for network, size in [(stemdl_on_meta, (16, 32, 32)), *images, *words]:
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                network(torch.zeros((1, *size), device="meta"))
            assert forward_flops(network, *size) == counter.get_total_flops() > 0

    @pytest.mark.parametrize("name", RECIPES)
    def test_the_catalogs_table_is_what_the_script_writes(self, name: str, tmp_path: Path) -> None:
        main([name, "--out", str(tmp_path / "again.csv")])
        assert (tmp_path / "again.csv").read_bytes() == (CATALOG / f"{name}.tensors.csv").read_bytes()
        assert [path.name for path in tmp_path.iterdir()] == ["again.csv"]

    @pytest.mark.parametrize(
        ("name", "wider", "fewer"),
        [
            ("bert_large", {"hidden": 64, "heads": 4, "vocabulary": 90}, {"layers": 2}),
            ("gpt2", {"hidden": 48, "heads": 3, "vocabulary": 90}, {"layers": 2}),
            ("llama3_8b", {"hidden": 64, "heads": 8, "key_heads": 2, "wide": 80, "vocabulary": 90}, {"layers": 2}),
            ("vgg16", {"thin": 8}, {}),
            ("resnet50", {"thin": 4}, {}),
        ],
    )
    def test_the_order_does_not_depend_on_the_width(
        self, name: str, wider: dict[str, int], fewer: dict[str, int]
    ) -> None:
        small = RECIPES[name].small
        thin = ready_order(MODELS[name](**RECIPES[name].thin, **fewer), small)
        assert ready_order(MODELS[name](**wider, **fewer), small) == thin

    @pytest.mark.parametrize(("name", "tied"), [("gpt2", "wte"), ("bert_large", "bert.embeddings.word_embeddings")])
    def test_a_tied_layers_work_comes_first_and_its_gradient_last(self, name: str, tied: str) -> None:
        rows = rows_of(name)
        assert rows[-1]["name"] == f"{tied}.weight"
        head = 2 * prod(map(int, rows[-1]["shape"].split("x"))) * RECIPES[name].nominal[1]
        before = next(row for row in rows if row["layer"].endswith(("ln_f", "transform.LayerNorm")))
        share = int(before["ready"]) / int(rows[-1]["ready"])
        assert share == pytest.approx(head / nominal_flops(name), rel=0.15)

    def test_attention_works_before_the_projections_that_feed_it(self) -> None:
        """In the last layer of Llama: output projection, then attention, then value, key, query."""
        rows = {row["name"]: int(row["ready"]) for row in rows_of("llama3_8b")}
        layer, tokens, width = "model.layers.31.self_attn.", 8192, 4096
        core, value = 4 * tokens * tokens * width, 2 * tokens * width * width // 4
        query = 2 * tokens * width * width
        value_ns = rows[f"{layer}v_proj.weight"] - rows[f"{layer}o_proj.weight"]
        query_ns = rows[f"{layer}q_proj.weight"] - rows[f"{layer}k_proj.weight"]
        assert value_ns / query_ns == pytest.approx((core + value) / query, rel=1e-6)

    def test_dtypes_are_those_that_are_reduced(self) -> None:
        dtypes = {name: {row["dtype"] for row in rows_of(name)} for name in RECIPES}
        half = {"bert_large": {"float16"}, "gpt2": {"bfloat16"}, "llama3_8b": {"bfloat16"}}
        assert dtypes == {name: {"float32"} for name in RECIPES} | half

    def test_the_order_does_not_depend_on_the_image_size(self) -> None:
        model = ResNet50(classes=10, thin=8)
        assert ready_order(model, (1, 3, 64, 64)) == ready_order(model, (2, 3, 96, 32))

    def test_hooks_are_removed(self) -> None:
        model = StemdlNet(growth=2, kernel=1, channels=1)
        first = ready_order(model, (1, 1, 8, 8))
        assert ready_order(model, (1, 1, 8, 8)) == first
        assert len(first) == 33

    def test_an_unknown_kind_of_module_is_refused(self) -> None:
        with pytest.raises(TypeError, match="no rule counts the FLOPs of a PReLU"):
            module_work(nn.Sequential(nn.PReLU()), (1, 3))
