"""spandrel, the loader inside chaiNNer and ComfyUI, recognises our files and computes what we compute."""

import dataclasses
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from hfir import ConfigError, HFIRConfig, WeightsError, export_model, fuse, save_weights

CONFIGS = {
    "sr": HFIRConfig(width=8),
    "restoration": HFIRConfig(width=4, upscale=1, in_channels=1),
}

needs_spandrel = pytest.mark.skipif(
    importlib.util.find_spec("spandrel") is None,
    reason="spandrel is not installed (pip install --no-deps spandrel)",
)


@pytest.fixture(scope="module")
def spandrel() -> Iterator[Any]:
    """spandrel with our plug-in registered, as its user has it.

    spandrel needs torchvision, which has no CPU build for every torch: two of its architectures (LaMa, RestoreFormer)
    import a function of it each. Nothing of ours uses them, so without torchvision a stand-in holds their names.
    """
    with pytest.MonkeyPatch.context() as patch:
        if importlib.util.find_spec("torchvision") is None:
            functional: Any = ModuleType("torchvision.transforms.functional")
            functional.InterpolationMode, functional.rotate, functional.normalize = SimpleNamespace, None, None
            for name in ("torchvision", "torchvision.transforms"):
                patch.setitem(sys.modules, name, ModuleType(name))
            patch.setitem(sys.modules, functional.__name__, functional)
        import spandrel

        from hfir.spandrel import register

        register()
        yield spandrel


@pytest.fixture(params=["training form", "deploy form"])
def network(request, built, everything):
    model = built(everything, stirred=0.05)
    return fuse(model) if request.param == "deploy form" else model


@needs_spandrel
def test_an_exported_file_is_recognised_and_computes_the_same(spandrel, everything, built, image, tmp_path: Path):
    model = built(everything, stirred=0.05)
    path = export_model(model, tmp_path, format="safetensors", name="Photo").path
    loaded = spandrel.ModelLoader().load_from_file(path)
    assert isinstance(loaded, spandrel.ImageModelDescriptor)
    assert loaded.architecture.id == "HydraFusionIR"
    x = image(1, 3, 37, 50)
    with torch.no_grad():
        assert torch.equal(loaded.eval().model(x), fuse(model)(x))
        assert torch.equal(loaded(x), fuse(model)(x).clamp(0, 1))
        assert loaded(image(1, 3, 5, 20)).shape == (1, 3, 10, 40)


@needs_spandrel
def test_both_forms_load_strictly(spandrel, network):
    state = network.state_dict()
    loaded = spandrel.ModelLoader().load_from_state_dict(state).model.state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(value, loaded[name]) for name, value in state.items())
    with pytest.raises(RuntimeError, match="something"):
        spandrel.ModelLoader().load_from_state_dict(state | {"something": torch.zeros(1)})


@needs_spandrel
@pytest.mark.parametrize("wrapper", ["params_ema", "params", "state_dict"])
def test_wrapped_state_dicts_are_recognised(spandrel, network, tmp_path: Path, wrapper: str):
    torch.save({wrapper: network.state_dict()}, tmp_path / "a.pth")
    assert spandrel.ModelLoader().load_from_file(tmp_path / "a.pth").model.config == network.config


@needs_spandrel
def test_half_precision_files_load(spandrel, network, image, tmp_path: Path):
    x = image(1, 3, 20, 20)
    with torch.no_grad():
        expected = network(x)
    save_weights(network.half(), tmp_path / "a.safetensors")
    for state in (None, {name: value.half() for name, value in network.state_dict().items()}):
        loader = spandrel.ModelLoader()
        found = (
            loader.load_from_file(tmp_path / "a.safetensors") if state is None else loader.load_from_state_dict(state)
        )
        with torch.no_grad():
            torch.testing.assert_close(found.eval().model(x), expected, rtol=0, atol=4e-3)


@needs_spandrel
@pytest.mark.parametrize("name", CONFIGS)
def test_the_descriptor_says_what_the_network_is(spandrel, built, name: str):
    config = CONFIGS[name]
    found = spandrel.ModelLoader().load_from_state_dict(built(config).state_dict())
    assert found.purpose == {"sr": "SR", "restoration": "Restoration"}[name]
    assert found.scale == config.upscale
    assert (found.input_channels, found.output_channels) == (config.in_channels, config.in_channels)
    assert (found.size_requirements.minimum, found.size_requirements.multiple_of) == (16, 1)
    model = found.model
    assert found.supports_half is getattr(model, "supports_fp16", False)
    discouraged = found.tiling is spandrel.ModelTiling.DISCOURAGED
    assert discouraged is getattr(model, "has_global_path", True)


@needs_spandrel
@pytest.mark.parametrize("number", range(10))
def test_no_other_architecture_claims_our_files(spandrel, drawn, built, number: int):
    model = built(drawn(number))
    for state in (model.state_dict(), fuse(model).state_dict()):
        claims = [support.architecture.id for support in spandrel.MAIN_REGISTRY if support.detect(state)]
        assert claims == ["HydraFusionIR"]


@needs_spandrel
def test_other_networks_are_left_to_others(spandrel):
    state = {"stem.weight": torch.zeros(1), "head.conv.weight": torch.zeros(1)}
    assert not spandrel.MAIN_REGISTRY["HydraFusionIR"].detect(state)


@needs_spandrel
def test_registering_twice_changes_nothing(spandrel):
    from hfir.spandrel import register

    before = list(spandrel.MAIN_REGISTRY)
    register()
    assert list(spandrel.MAIN_REGISTRY) == before


@needs_spandrel
def test_a_damaged_configuration_is_said_to_be_one(spandrel, built):
    state = built(CONFIGS["sr"]).state_dict()
    for text in (b"{width", b"\xff\xfe"):
        with pytest.raises(WeightsError, match=r"not JSON.*hfir-search exported"):
            spandrel.ModelLoader().load_from_state_dict(state | {"hfir_cfg": torch.tensor(list(text))})
    newer = json.dumps(dataclasses.asdict(CONFIGS["sr"]) | {"schema": 99}).encode()
    with pytest.raises(ConfigError, match="Install"):
        spandrel.ModelLoader().load_from_state_dict(state | {"hfir_cfg": torch.tensor(list(newer))})


def fresh(code: str, stand_in: Path) -> subprocess.CompletedProcess[str]:
    """Run code in a new interpreter in which `stand_in` is spandrel."""
    first = f"import sys; sys.path.insert(0, {str(stand_in.parent)!r}); "
    return subprocess.run([sys.executable, "-c", first + code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("code", "brought"), [("import hfir; hfir.export_model", False), ("import spandrel", True)])
def test_importing_the_network_does_not_bring_spandrel(tmp_path: Path, code: str, brought: bool):
    (tmp_path / "spandrel.py").write_text("")
    done = fresh(f"{code}; print('spandrel' in sys.modules)", tmp_path / "spandrel.py")
    assert done.stdout.strip() == str(brought), done.stderr


def test_without_spandrel_the_plug_in_says_what_to_install(tmp_path: Path):
    (tmp_path / "spandrel.py").write_text("raise ModuleNotFoundError('No module named spandrel', name='spandrel')")
    done = fresh("import hfir.spandrel", tmp_path / "spandrel.py")
    assert done.returncode == 1
    assert "hfir.spandrel needs spandrel" in done.stderr
    assert "pip install 'hfir-search[spandrel]'" in done.stderr
