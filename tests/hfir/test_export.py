"""Exported files compute what the network computes, at any size and through every expert, or are not kept."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import jaxtyping
import pytest
import torch
from torch import Tensor, nn

from hfir import (
    ConfigError,
    Exported,
    ExportError,
    FrequencySplitConfig,
    HFIRConfig,
    LargeKernelConfig,
    MoEConfig,
    WindowAttentionConfig,
    export_model,
    fuse,
    load_preset,
)
from hfir import export as exporting
from hfir.config import _KINDS
from hfir.export import CHECK_SIZES, FORMATS, TOLERANCE, deploy_form, file_name, plainer
from hfir.slots import ALL, UPSAMPLERS

SMALL = HFIRConfig(width=4, encoder_blocks=(1,), bottleneck_blocks=1, decoder_blocks=(0,))
TWO_LEVELS = dataclasses.replace(SMALL, bottleneck_blocks=0, encoder_blocks=(1, 1), decoder_blocks=(0, 0))
SPLIT = dataclasses.replace(SMALL, frequency_split=FrequencySplitConfig())
COMPOSITE = dataclasses.replace(
    TWO_LEVELS,
    width=8,
    decoder_blocks=(0, 1),
    mixer=LargeKernelConfig(kernel_size=5),
    attention=WindowAttentionConfig(window_size=8, stages=("enc2", "dec1")),
    experts=MoEConfig(num_experts=3, top_k=2, stages=("enc2",)),
    frequency_split=FrequencySplitConfig(),
)
STIRRED = 0.05
NEEDS_OPSET_16 = ("mixer=dense", "refiner=deformable", "upsampler=dysample")
"""PRelu and GridSample are of opset 16; all else is of 15."""


def single_options() -> dict[str, HFIRConfig]:
    """One small network for each option of each slot, and for each part that can be switched on."""
    found = {"plain": dataclasses.replace(TWO_LEVELS, upscale=1)}
    for slot, parts in ALL.items():
        for name in parts:
            base = TWO_LEVELS if "sampler" in slot else SPLIT if slot == "refiner" else SMALL
            found[f"{slot}={name}"] = dataclasses.replace(
                base, **{slot: _KINDS[slot][name]() if slot in _KINDS else name}
            )
    overlapping = WindowAttentionConfig(window_size=8, overlap=0.5, num_tokens=4, stages=("enc1", "mid"))
    found["attention=overlap,tokens"] = dataclasses.replace(SMALL, attention=overlapping)
    found["experts"] = dataclasses.replace(SMALL, experts=MoEConfig(num_experts=3, top_k=2))
    found["experts=window"] = dataclasses.replace(SMALL, experts=MoEConfig(num_experts=3, top_k=2, routing="window"))
    return {name: config for name, config in found.items() if config not in (SMALL, TWO_LEVELS)}


@pytest.fixture(autouse=True, scope="module")
def unchecked_shapes() -> Iterator[None]:
    """Shape checks would compare the symbolic sizes of a trace, and so tie it to the traced size."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def onnx_file(built, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("onnx")
    return export_model(built(COMPOSITE, stirred=STIRRED), folder, format="onnx", name="All", task="denoise")


def session_of(path: Path) -> Callable[[Tensor], Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(["output"], {"input": x.numpy()})[0])


def inferred_sides(path: Path, height: int, width: int, **options: bool) -> list[int]:
    """Return the output's sides as programs find them that never run a network: chaiNNer, strictly."""
    import onnx

    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    for dim, side in zip(proto.graph.input[0].type.tensor_type.shape.dim[2:], (height, width), strict=True):
        dim.dim_value = side
    inferred = onnx.shape_inference.infer_shapes(proto, data_prop=not options["strict_mode"], **options)
    return [dim.dim_value for dim in inferred.graph.output[0].type.tensor_type.shape.dim[2:]]


@pytest.mark.slow
@pytest.mark.parametrize("option", single_options())
def test_every_single_option_exports_to_onnx(built, tmp_path: Path, option: str):
    exported = export_model(built(single_options()[option], stirred=STIRRED), tmp_path, format="onnx", name="one")
    assert [(check.height, check.width) for check in exported.checks] == list(CHECK_SIZES)
    assert all(check.max_difference < TOLERANCE for check in (*exported.checks, *exported.expert_checks))
    assert [path.name for path in tmp_path.iterdir()] == [exported.path.name]
    assert exported.opset == (16 if option in NEEDS_OPSET_16 else 15)
    assert exported.ir_version == 8
    first = "1.11" if option in NEEDS_OPSET_16 else "1.9"
    assert exported.notes[0] == f"ONNX Runtime {first} or later reads it."
    assert any("OpenCV" in note for note in exported.notes) is option.startswith("attention")
    for strict in (False, True):
        for sides in ((16, 16), (64, 64), (37, 50)):
            scale = 1 if option == "plain" else 2
            assert inferred_sides(exported.path, *sides, strict_mode=strict) == [scale * side for side in sides]


def test_every_option_is_among_the_single_ones():
    together = json.dumps([config.to_dict() for config in single_options().values()])
    for slot, parts in ALL.items():
        assert all(f'"{name}"' in together for name in parts), slot


def test_parts_work_together_and_every_expert_is_checked(onnx_file: Exported):
    assert onnx_file.path.name == "2x_All_HydraFusionIR_1x3xHxW_dyn-HW_fp32_op15.onnx"
    assert len(onnx_file.checks) == 3
    assert len(onnx_file.expert_checks) == 3
    assert all(check.max_difference < TOLERANCE for check in (*onnx_file.checks, *onnx_file.expert_checks))


@pytest.mark.parametrize("size", [(1, 1), (16, 7), (33, 40)])
def test_the_onnx_file_takes_any_size_also_below_a_window(built, image, onnx_file: Exported, size):
    x = image(1, 3, *size)
    with torch.no_grad():
        expected = built(COMPOSITE, stirred=STIRRED)(x)
    torch.testing.assert_close(session_of(onnx_file.path)(x), expected, rtol=0, atol=TOLERANCE)


def test_the_onnx_file_says_what_it_is(built, onnx_file: Exported):
    import onnx

    proto = onnx.load(onnx_file.path)
    facts = {entry.key: entry.value for entry in proto.metadata_props}
    assert HFIRConfig.from_dict(json.loads(facts["hfir_config"])) == dataclasses.replace(COMPOSITE, fused=True)
    assert (facts["scale"], facts["channels"], facts["task"]) == ("2", "3", "denoise")
    assert facts["hfir_version"]
    assert [entry.version for entry in proto.opset_import if entry.domain == ""] == [15]
    assert proto.ir_version == 8
    assert inferred_sides(onnx_file.path, 37, 50, strict_mode=True) == [74, 100]
    sides = [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in proto.graph.input]
    assert sides == [[1, 3, "height", "width"]]
    assert [v.name for v in proto.graph.input] == ["input"]
    assert [v.name for v in proto.graph.output] == ["output"]


def test_the_onnx_file_tells_nothing_of_the_machine(onnx_file: Exported):
    assert str(Path(exporting.__file__).parent).encode() not in onnx_file.path.read_bytes()
    assert b"stack_trace" not in onnx_file.path.read_bytes()


@pytest.mark.slow
def test_a_torch_export_file_takes_any_size_and_says_what_it_is(built, image, tmp_path: Path):
    config = dataclasses.replace(
        SMALL,
        attention=WindowAttentionConfig(window_size=8, stages=("enc1",)),
        experts=MoEConfig(num_experts=2, stages=("mid",)),
    )
    model = built(config, stirred=STIRRED)
    exported = export_model(model, tmp_path, format="torch-export", name="All")
    assert exported.path.name == "2x_All_HydraFusionIR_1x3xHxW_dyn-HW_fp32.pt2"
    assert len(exported.expert_checks) == 2
    facts = {"hfir_config": ""}
    program = torch.export.load(exported.path, extra_files=facts).module()
    assert HFIRConfig.from_dict(json.loads(facts["hfir_config"])) == dataclasses.replace(config, fused=True)
    with torch.no_grad():
        for size in ((5, 9), (8, 8), (40, 33)):
            x = image(1, 3, *size)
            torch.testing.assert_close(program(x), model(x), rtol=0, atol=TOLERANCE)
    assert str(Path(exporting.__file__).parent).encode() not in exported.path.read_bytes()


@pytest.mark.parametrize("fp16", [False, True])
def test_weights_alone_load_again(everything, built, tmp_path: Path, fp16: bool):
    model = built(everything, stirred=STIRRED)
    exported = export_model(model, tmp_path, format="safetensors", name="All", fp16=fp16)
    assert exported.path.name == f"2x_All_HydraFusionIR{'_fp16' if fp16 else ''}.safetensors"
    assert exported.opset is None
    loaded = load_preset(exported.path)
    assert loaded.config.fused
    for name, value in fuse(model).state_dict().items():
        expected = value.half().float() if fp16 and value.is_floating_point() else value
        assert torch.equal(loaded.state_dict()[name], expected), name
    assert all(check.max_difference == 0 for check in exported.checks) is not fp16


def test_exporting_leaves_the_network_as_it_was(everything, built, tmp_path: Path):
    model = built(everything).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    export_model(model, tmp_path, format="safetensors", name="a", fp16=True)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_deploy_form_is_fused_and_at_rest(everything, built):
    network = deploy_form(built(everything).to(memory_format=torch.channels_last).double().train())
    assert network.config.fused
    assert not network.training
    assert all(p.dtype == torch.float32 and p.is_contiguous() and not p.requires_grad for p in network.parameters())


@pytest.mark.parametrize(
    ("config", "name", "options", "expected"),
    [
        (SMALL, "Name", {"format": "safetensors"}, "2x_Name_HydraFusionIR.safetensors"),
        (SMALL, "A b/ü..", {"format": "safetensors", "fp16": True}, "2x_A-b_HydraFusionIR_fp16.safetensors"),
        (SMALL, "../x", {"format": "onnx", "opset": 15}, "2x_x_HydraFusionIR_1x3xHxW_dyn-HW_fp32_op15.onnx"),
        (SMALL, "x", {"format": "onnx"}, "2x_x_HydraFusionIR_1x3xHxW_dyn-HW_fp32_op*.onnx"),
        (
            HFIRConfig(upscale=1, in_channels=1),
            "n_1.2",
            {"format": "onnx", "opset": 20, "fp16": True},
            "1x_n_1.2_HydraFusionIR_1x1xHxW_dyn-HW_fp16_op20.onnx",
        ),
        (SMALL, "Name", {"format": "torch-export"}, "2x_Name_HydraFusionIR_1x3xHxW_dyn-HW_fp32.pt2"),
    ],
)
def test_names_are_those_that_others_expect(config: HFIRConfig, name: str, options, expected: str):
    assert file_name(config, name, **options) == expected


@pytest.mark.parametrize("name", ["", "..", "/", "é"])
def test_a_name_without_letters_is_refused(name: str):
    with pytest.raises(ConfigError, match="letters or digits"):
        file_name(SMALL, name, format="onnx")


def test_an_unknown_format_lists_the_known_ones(built, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"'tflite'.*safetensors"):
        export_model(built(SMALL), tmp_path, format="tflite", name="a")


def test_a_file_is_never_overwritten_unasked(built, tmp_path: Path):
    first = export_model(built(SMALL), tmp_path, format="safetensors", name="a").path
    before = first.read_bytes()
    with pytest.raises(FileExistsError, match=r"exists.*--overwrite"):
        export_model(built(SMALL, 1), tmp_path, format="safetensors", name="a")
    assert first.read_bytes() == before
    export_model(built(SMALL, 1), tmp_path, format="safetensors", name="a", overwrite=True)
    assert first.read_bytes() != before


@pytest.fixture
def lying(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Make every file of weights differ from its network by so much."""

    def lie(much: float) -> None:
        def write(network, path: Path, opset: int | None, task: str | None):
            path.write_bytes(b"something")
            return exporting._Written(lambda overrides: lambda x: network(x.float()) + much, 15, 8)

        monkeypatch.setitem(exporting._WRITERS, "onnx", write)  # pyright: ignore[reportArgumentType]

    return lie


@pytest.mark.parametrize("much", [2e-4, 0.5, float("nan")])
def test_a_file_that_computes_something_else_is_not_kept(built, tmp_path: Path, lying, much: float):
    lying(much)
    with pytest.raises(ExportError, match=r"differs .* 1e-04 is allowed .*16x16: .*not kept"):
        export_model(built(SMALL), tmp_path, format="onnx", name="a")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", range(3))
def test_one_size_that_comes_out_as_no_number_is_enough_to_refuse(wrong: int):
    checks = [exporting.Check(*size, 0.0) for size in CHECK_SIZES]
    exporting._refuse_difference(Path("a.onnx"), tuple(checks), TOLERANCE)
    checks[wrong] = dataclasses.replace(checks[wrong], max_difference=float("nan"))
    with pytest.raises(ExportError, match="differs from the network by up to nan"):
        exporting._refuse_difference(Path("a.onnx"), tuple(checks), TOLERANCE)


def test_a_failed_export_keeps_the_file_that_was_there(built, tmp_path: Path, lying):
    path = tmp_path / file_name(SMALL, "a", format="onnx", opset=15)
    path.write_bytes(b"the older one")
    lying(0.1)
    with pytest.raises(ExportError):
        export_model(built(SMALL), tmp_path, format="onnx", name="a", overwrite=True)
    assert path.read_bytes() == b"the older one"
    assert list(tmp_path.iterdir()) == [path]


def test_small_differences_pass(built, tmp_path: Path, lying):
    lying(2e-5)
    exported = export_model(built(SMALL), tmp_path, format="onnx", name="a")
    assert exported.path.read_bytes() == b"something"
    assert max(check.max_difference for check in exported.checks) == pytest.approx(2e-5, rel=0.1)


def test_a_file_with_a_frozen_expert_would_be_noticed(built):
    # What a tracer makes of `experts[int(argmax)]`: the one expert of the traced image for all. Here: biases ignored.
    network = deploy_form(built(dataclasses.replace(SMALL, experts=MoEConfig(num_experts=4)), stirred=0.3))
    network.head.conv.weight.mul_(4)
    sizes, experts = exporting._compared(network, lambda overrides: network, fp16=False)
    assert all(check.max_difference == 0 for check in sizes)
    assert sum(check.max_difference > TOLERANCE for check in experts) >= 3


@pytest.mark.parametrize("expert", range(4))
def test_a_pushed_router_sends_every_image_to_one_expert_and_the_next(built, image, expert: int):
    experts = MoEConfig(num_experts=4, top_k=2, stages=("enc1", "mid"))
    network = deploy_form(built(dataclasses.replace(SMALL, experts=experts), stirred=0.3))
    network.load_state_dict(network.state_dict() | exporting._pushed_biases(network, expert))
    _, routings = network.forward_with_routing(image(3, 3, 9, 9))
    assert {frozenset(row) for r in routings for row in r.chosen.tolist()} == {frozenset({expert, (expert + 1) % 4})}


def test_experts_are_left_out_where_their_routers_share_a_tensor(built):
    config = dataclasses.replace(SMALL, experts=MoEConfig(num_experts=3, stages=("enc1", "mid")))
    network = deploy_form(built(config))
    assert len(exporting._compared(network, lambda overrides: network, fp16=False)[1]) == 3
    network.encoder.stages[0].experts.router.bias.zero_()
    network.bottleneck.experts.router.bias.zero_()
    assert exporting._compared(network, lambda overrides: network, fp16=False)[1] == ()


class Branching(nn.Module):
    """An upsampler that looks at the values: no tracer can follow it."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.up = UPSAMPLERS["pixelshuffle"](in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(x if x.sum() > 0 else -x)


def test_an_option_that_cannot_be_exported_is_named(built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(UPSAMPLERS, "nearest", Branching)  # pyright: ignore[reportArgumentType]
    config = dataclasses.replace(TWO_LEVELS, upsampler="nearest", downsampler="unshuffle")
    with pytest.raises(ExportError) as caught:
        export_model(built(config), tmp_path, format="torch-export", name="a")
    text = str(caught.value)
    assert "cannot export this network to torch-export (a part decides by the values of the image" in text
    assert "It exports with upsampler = pixelshuffle: train such a network." in text
    assert not list(tmp_path.iterdir())


def test_an_opset_below_what_the_network_needs_is_refused(built, tmp_path: Path):
    with pytest.raises(ExportError, match=r"opset = 14: this network needs opset 15 \(for Shape\).*--opset 15"):
        export_model(built(SMALL), tmp_path, format="onnx", name="a", opset=14)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("opset", "ir_version"), [(17, 8), (20, 9)])
def test_an_opset_that_is_asked_for_is_written(built, tmp_path: Path, opset: int, ir_version: int):
    import onnx

    exported = export_model(built(SMALL), tmp_path, format="onnx", name="a", opset=opset)
    proto = onnx.load(exported.path)
    assert (exported.opset, exported.ir_version) == (opset, ir_version)
    assert ([entry.version for entry in proto.opset_import], proto.ir_version) == ([opset], ir_version)
    assert exported.path.name.endswith(f"_op{opset}.onnx")


def test_an_onnx_file_of_any_opset_counts_as_there_unless_one_is_asked_for(built, tmp_path: Path, lying):
    lying(0)
    older = tmp_path / file_name(SMALL, "a", format="onnx", opset=18)
    older.write_bytes(b"the older one")
    with pytest.raises(FileExistsError, match=r"op18\.onnx exists"):
        export_model(built(SMALL), tmp_path, format="onnx", name="a")
    assert export_model(built(SMALL), tmp_path, format="onnx", name="a", opset=15).path != older
    assert older.read_bytes() == b"the older one"


@pytest.mark.parametrize("format", FORMATS)
def test_the_longest_name_works_and_one_more_is_refused_before_anything_is_spent(built, tmp_path: Path, format: str):
    room = 254 - len(file_name(SMALL, "a", format=format)) + 1
    assert len(file_name(SMALL, "a" * room, format=format)) == 254
    with pytest.raises(ConfigError, match="Use a shorter name"):
        export_model(built(SMALL), tmp_path, format=format, name="a" * (room + 1))
    if format == "safetensors":
        assert export_model(built(SMALL), tmp_path, format=format, name="a" * room).path.exists()


def test_half_precision_is_refused_where_the_network_overflows(built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model = built(SMALL)
    monkeypatch.setattr(type(model), "supports_fp16", False, raising=False)
    for format in ("onnx", "torch-export"):
        with pytest.raises(ExportError, match="not safe in half precision"):
            export_model(model, tmp_path, format=format, name="a", fp16=True)
    assert export_model(model, tmp_path, format="safetensors", name="a", fp16=True).dtype == "fp16"


def test_plainer_configurations_change_one_part_each(everything):
    found = dict(plainer(everything))
    assert {"refiner = None", "attention = None", "experts = None", "mixer = naf"} <= set(found)
    assert found["attention = None"] == dataclasses.replace(everything, attention=None)
    assert found["frequency_split = None"].refiner is None
    assert not list(plainer(HFIRConfig()))


def test_every_format_has_its_writer():
    assert tuple(exporting._WRITERS) == FORMATS
