"""From networks back to points of a space, and what a user enqueues."""

import dataclasses
from pathlib import Path

import pytest

from hfir.config import WindowAttentionConfig
from hfir.errors import ConfigError
from hfir.presets import preset_config
from search.experiment import available_spaces, encode, load_experiment, with_enqueued
from search.space import SpaceError
from search.types import InputError, SpecError

HEAD = "name: small\ntask: {kind: super_resolution, upscale: 2}\n"
SPACE = "space: {width: [8, 16], levels: [1, 2], encoder_blocks: [1, 2], decoder_blocks: 0, bottleneck_blocks: 1}\n"


@pytest.fixture
def small(tmp_path):
    def load(search="", *changes):
        path = tmp_path / "small.yaml"
        path.write_text(HEAD + SPACE + search)
        return load_experiment(path, changes)

    return load


@pytest.mark.parametrize("name", available_spaces())
def test_every_network_of_a_space_is_found_again(name):
    experiment, found = load_experiment(name), 0
    for seed in range(60):
        point = experiment.space.sample(seed)
        try:
            config = experiment.decode(point)
        except ConfigError:
            continue
        found += 1
        assert experiment.decode(encode(config, experiment.space)) == config
    assert found


@pytest.mark.parametrize("attention", ["window", "[none, window]"])
@pytest.mark.parametrize("heads", ["2", "[1, 4]"])
def test_attention_after_no_blocks_is_no_attention(small, attention, heads):
    changes = (f"space.attention={attention}", f"space.num_heads={heads}", "space.bottleneck_blocks=0")
    experiment = small("", *changes)
    config = experiment.decode(experiment.space.sample(0))
    idle = dataclasses.replace(config, attention=WindowAttentionConfig(stages=("mid",)))
    assert config.attention is None
    for same in (config, idle):
        assert experiment.decode(encode(same, experiment.space)) == config


def test_a_space_that_always_attends_has_no_network_without(small):
    experiment = small("", "space.attention=window")
    config = experiment.decode(experiment.space.sample(0))
    with pytest.raises(SpaceError, match='attention_stages = "none" is not among'):
        encode(dataclasses.replace(config, attention=None), experiment.space)


def test_a_network_outside_a_space_is_refused_with_what_lacks(small):
    with pytest.raises(SpaceError, match="width = 48 is not among its choices"):
        encode(preset_config("enhanced"), small().space)


def test_what_no_parameter_can_say_is_named(small):
    experiment = small()
    config = experiment.decode(experiment.space.sample(0))
    with pytest.raises(SpaceError, match="residual_scale cannot be said"):
        encode(type(config).from_dict({**config.to_dict(), "residual_scale": 0.2}), experiment.space)


def test_entries_name_what_the_space_leaves_open(small):
    search = """search:
  enqueue:
    - {width: 8, levels: 1, encoder_blocks: 2}
    - {width: 16, levels: 2, encoder_blocks: [2, 1]}
    - {width: 16, levels: 2, encoder_blocks.1: 1, encoder_blocks.2: 2, bottleneck_blocks: 1}
"""
    experiment = small(search)
    blocks = [experiment.decode(point).encoder_blocks for point in experiment.enqueued]
    assert blocks == [(2,), (2, 1), (1, 2)]
    assert all(experiment.space.contains(point) for point in experiment.enqueued)
    assert experiment.identity == small().identity
    again = small("", f"search.enqueue={experiment.spec['search']['enqueue']}")
    assert again.enqueued == experiment.enqueued  # as `experiment.yaml` of the run holds them


def test_presets_and_files_are_enqueued_from_the_command_line(small, tmp_path):
    from ruamel.yaml import YAML

    experiment = small()
    point = experiment.space.sample(3)
    (tmp_path / "preset").mkdir()
    card = {"config": experiment.decode(point).to_dict() | {"fused": True}}
    YAML(typ="safe").dump(card, tmp_path / "preset" / "preset.yaml")
    (tmp_path / "more.yaml").write_text("enqueue:\n  - preset: preset\n  - {width: 8, levels: 1, encoder_blocks: 1}\n")
    from_folder = with_enqueued(experiment, [str(tmp_path / "preset")])
    assert from_folder.enqueued == (point,)
    both = with_enqueued(from_folder, [str(tmp_path / "more.yaml")])
    assert both.enqueued[:2] == (point, point)
    assert both.spec["search"]["enqueue"][2]["width"] == 8


def test_wrong_sources_are_told_with_their_place(small, tmp_path):
    (tmp_path / "wrong.yaml").write_text("enqueue:\n  - {width: 8, levels: 1, encoder_blocks: 1}\n  - {width: 9}\n")
    with pytest.raises(SpecError, match=r"wrong\.yaml:3: enqueue\.width: width = 9 is not among") as caught:
        with_enqueued(small(), [str(tmp_path / "wrong.yaml")])
    assert caught.value.line == 3
    with pytest.raises(SpecError, match="--enqueue nowhere: preset: there is no preset nowhere"):
        with_enqueued(small(), ["nowhere"])
    (tmp_path / "list.yaml").write_text("configurations: []\n")
    with pytest.raises(SpecError, match="holds no list of configurations"):
        with_enqueued(small(), [str(tmp_path / "list.yaml")])
    (tmp_path / "preset.yaml").write_text("name: x\n")
    with pytest.raises(InputError, match="holds no network"):
        with_enqueued(small(), [str(Path(tmp_path / "preset.yaml"))])
