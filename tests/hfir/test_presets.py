"""Weight files: out and back, and what is said of files that are not ours."""

import dataclasses
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hfir import (
    ConfigError,
    HFIRConfig,
    LargeKernelConfig,
    WeightsError,
    fuse,
    list_presets,
    load_preset,
    preset_config,
    save_weights,
)
from hfir.presets import METADATA_KEY, WEIGHTS_FILE


def test_a_preset_is_loaded_from_a_folder_of_any_name(built, tmp_path: Path):
    folder = tmp_path / os.fsdecode(b"r\xdfn")
    folder.mkdir()
    model = built(preset_config("efficient", width=4))
    save_weights(model, folder / WEIGHTS_FILE)
    loaded = load_preset(folder).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("fused", [False, True])
def test_saved_weights_load_to_the_same_network(everything, built, image, tmp_path: Path, fused: bool):
    model = built(everything, stirred=0.05)
    model = fuse(model) if fused else model
    save_weights(model, tmp_path / "a.safetensors")
    loaded = load_preset(tmp_path / "a.safetensors")
    assert loaded.config == model.config
    assert loaded.config.fused is fused
    assert not loaded.training
    x = image(1, 3, 21, 18)
    with torch.no_grad():
        assert torch.equal(loaded(x), model(x))


def test_a_folder_stands_for_the_weights_in_it(everything, built, tmp_path: Path):
    model = built(everything, stirred=0.05)
    save_weights(model, tmp_path / WEIGHTS_FILE)
    for given in (tmp_path, str(tmp_path), tmp_path / WEIGHTS_FILE):
        loaded = load_preset(given).state_dict()
        assert all(torch.equal(value, loaded[name]) for name, value in model.state_dict().items())


def test_the_memory_format_of_the_saved_network_does_not_matter(everything, built, tmp_path: Path):
    model = built(everything, stirred=0.05).to(memory_format=torch.channels_last)
    save_weights(model, tmp_path / "a.safetensors")
    loaded = load_preset(tmp_path / "a.safetensors").state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in model.state_dict().items())


def test_the_file_alone_tells_its_configuration_twice(everything, built, tmp_path: Path):
    from safetensors import safe_open

    save_weights(built(everything), tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        metadata, buffer = file.metadata(), file.get_tensor("hfir_cfg")
    assert HFIRConfig.from_dict(json.loads(metadata[METADATA_KEY])) == everything
    assert bytes(buffer.tolist()).decode() == metadata[METADATA_KEY]


@pytest.fixture
def saved(everything, built, tmp_path: Path) -> Path:
    path = tmp_path / "a.safetensors"
    save_weights(built(everything), path)
    return path


def refused(path: Path | str) -> str:
    with pytest.raises(WeightsError) as caught:
        load_preset(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_a_torn_file_says_to_copy_it_again(saved: Path, kept: int):
    saved.write_bytes(saved.read_bytes()[:kept])
    assert "Copy the file again" in refused(saved)


def test_something_else_altogether_says_to_copy_it_again(tmp_path: Path):
    (tmp_path / "a.safetensors").write_bytes(b"GIF89a" * 100)
    assert "Copy the file again" in refused(tmp_path / "a.safetensors")


def test_a_missing_file_lists_what_there_is(tmp_path: Path):
    for missing in (tmp_path / "none.safetensors", "efficeint"):
        assert "no such file" in refused(missing)
        assert "efficient" in refused(missing)


def test_a_folder_without_weights_names_the_file_it_looked_for(tmp_path: Path):
    assert f"{WEIGHTS_FILE}: no such file" in refused(tmp_path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_another_networks_file_says_whose_it_should_be(tmp_path: Path, metadata):
    save_file({"conv.weight": torch.zeros(3)}, tmp_path / "a.safetensors", metadata=metadata)
    text = refused(tmp_path / "a.safetensors")
    assert "not written by hfir" in text
    assert "Use a file that hfir-search exported" in text


def test_metadata_that_is_no_json_is_refused(tmp_path: Path):
    save_file({"a": torch.zeros(3)}, tmp_path / "a.safetensors", metadata={METADATA_KEY: "{width:"})
    assert "Use a file that hfir-search exported" in refused(tmp_path / "a.safetensors")


def test_weights_that_do_not_fit_their_configuration_are_refused(saved: Path, everything):
    state = load_file(saved)
    wider = dataclasses.replace(everything, width=16).to_json_bytes().decode()
    save_file(state, saved, metadata={METADATA_KEY: wider})
    assert "do not fit" in refused(saved)
    state.pop("stem.weight")
    save_file(state, saved, metadata={METADATA_KEY: everything.to_json_bytes().decode()})
    assert "stem.weight" in refused(saved)


def test_a_file_of_a_newer_schema_says_what_to_install(everything, tmp_path: Path):
    newer = json.dumps(everything.to_dict() | {"schema": 2})
    save_file({"a": torch.zeros(3)}, tmp_path / "a.safetensors", metadata={METADATA_KEY: newer})
    with pytest.raises(ConfigError, match="Install"):
        load_preset(tmp_path / "a.safetensors")


def test_names_are_listed():
    assert "efficient" in list_presets()


@pytest.mark.parametrize("name", list_presets())
def test_a_name_loads_untrained_in_eval_mode(name: str):
    with torch.device("meta"):
        model = load_preset(name)
    assert model.config == preset_config(name)
    assert not model.training


def test_fields_of_a_named_configuration_can_be_changed():
    assert preset_config("efficient", upscale=4) == dataclasses.replace(preset_config("efficient"), upscale=4)
    assert preset_config("efficient").upscale == 2


def test_a_change_that_breaks_a_rule_is_refused():
    with pytest.raises(ConfigError, match="upscale = 7"):
        preset_config("efficient", upscale=7)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"'efficeint'.*efficient"):
        preset_config("efficeint")


def test_the_named_configurations_are_those_of_the_draft():
    efficient, enhanced = preset_config("efficient"), preset_config("enhanced")
    for config in (efficient, enhanced):
        assert (config.levels, config.encoder_blocks, config.decoder_blocks) == (3, (2, 3, 4), (4, 3, 2))
        assert config.attention is not None
        assert config.experts is not None
        assert config.refiner is not None
        assert not any("1" in stage for stage in config.attention.stages)  # stages 2 and 3 only
        assert isinstance(config.mixer, LargeKernelConfig)
        assert config.mixer.reparam
    assert (efficient.experts.stages, efficient.experts.top_k) == (("enc3", "mid"), 1)
    assert {"enc2", "enc3", "dec2", "dec3", "refiner"} < set(enhanced.experts.stages)
    assert enhanced.experts.top_k == 2
    assert enhanced.attention.overlap > 0
    assert enhanced.attention.num_tokens > 0
    assert enhanced.refiner.noise


def test_a_file_that_names_fewer_options_still_loads(tmp_path, everything, built, image):
    # As an older version wrote it: configuration without what came later, in the metadata and in the buffer.
    model = built(everything, stirred=0.1)
    older = {name: value for name, value in everything.to_dict().items() if name not in ("skip", "channel_attention")}
    text = json.dumps(older).encode()
    state = {**model.state_dict(), "hfir_cfg": torch.tensor(list(text), dtype=torch.uint8)}
    save_file(state, tmp_path / "old.safetensors", metadata={METADATA_KEY: text.decode()})
    loaded = load_preset(tmp_path / "old.safetensors")
    assert bytes(loaded.hfir_cfg.tolist()) == everything.to_json_bytes()
    with torch.no_grad():
        assert torch.equal(loaded(image(1, 3, 9, 8)), model(image(1, 3, 9, 8)))
