"""Networks in the terminal's tables: short names, and nothing in them that the network does not have."""

import dataclasses

import pytest

from search.cli.tables import network_in_words
from search.experiment import load_experiment

SPACE = """name: words
task: {kind: super_resolution, upscale: 2}
space:
  width: 8
  encoder_blocks: 1
  decoder_blocks: 0
  attention: [none, window, channel]
  attention_stages: [mid, deepest, enc1]
  bottleneck_blocks: [0, 1]
  frequency_split: true
  refiner: [none, dft, deformable]
"""


@pytest.fixture
def name_of(tmp_path, make_trial):
    """Return the short name of the space's point that has these values."""
    path = tmp_path / "words.yaml"
    path.write_text(SPACE)
    experiment = load_experiment(path)

    def name(**values):
        usual = {p.name: p.choices[0] for p in experiment.space.parameters}
        point = experiment.space.canonical({**usual, **values})
        config = experiment.decode(point).to_dict()
        return network_in_words(dataclasses.replace(make_trial(0), genotype=point, config=config))

    return name


def test_attention_is_named_by_its_kind_and_place(name_of):
    assert name_of(attention="window", bottleneck_blocks=1) == "w8 L1 1|1|0 win8@mid split"
    assert name_of(attention="channel", bottleneck_blocks=1) == "w8 L1 1|1|0 chan@mid split"


def test_attention_without_blocks_is_not_named(name_of):
    assert name_of(attention="window", bottleneck_blocks=0) == "w8 L1 1|0|0 split"


def test_attention_is_named_where_it_stands(name_of):
    both = {"attention": "window", "attention_stages": "deepest"}
    assert name_of(**both, bottleneck_blocks=1) == "w8 L1 1|1|0 win8@enc1+mid split"  # dec1 has no blocks
    assert name_of(**both, bottleneck_blocks=0) == "w8 L1 1|0|0 win8@enc1 split"


@pytest.mark.parametrize("kind", ["dft", "deformable"])
def test_a_refiner_is_named_by_its_kind(name_of, kind):
    assert name_of(refiner=kind) == f"w8 L1 1|0|0 split+{kind}1"
