"""fvcore's count next to ours: by hand, and where it leaves something out."""

import json
from collections.abc import Iterator

import jaxtyping
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from hfir import HFIRConfig, build_model, fuse
from search.cli.app import app
from search.evaluation.cost import as_deployed
from search.evaluation.plan import CostPlan
from search.measuring.fvcore_count import count_by_fvcore
from search.measuring.networks import Subject, count_subject
from search.types import EvaluationError, InputSize

AT = InputSize(width=6, height=4)


@pytest.fixture(autouse=True)
def unchecked_shapes() -> Iterator[None]:
    """No checks of shapes: in a trace, sizes are tensors."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


class Enlarge(nn.Module):
    """A convolution, PReLU and a pixel shuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 3, padding=1)
        self.act = nn.PReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.pixel_shuffle(self.act(self.conv(x)), 2)


def test_fvcore_counts_a_multiply_add_as_one_and_names_what_it_has_no_formula_for():
    found = count_by_fvcore(Subject("a", Enlarge().eval(), 3, 0.0, 0.0), AT)
    # 6 x 4 pixels, 12 output channels, each a sum over 3 channels and 9 taps.
    assert found.macs == found.by_module["conv"] == 6 * 4 * 12 * 27
    assert found.by_module[""] == found.macs
    assert found.left_out == {"aten::prelu": 1, "aten::pixel_shuffle": 1}


def test_a_network_of_convolutions_has_the_same_count_by_both():
    config = HFIRConfig(width=8, encoder_blocks=(1, 1), decoder_blocks=(1, 1), channel_attention=False, skip="add")
    subject = Subject("a", as_deployed(fuse(build_model(config))), 3, 0.0, 0.0)
    plan = CostPlan(macs_at=InputSize(width=16, height=12), latency_at=AT, threads=1, limits=())
    ours = {m.path: m.macs for m in count_subject(subject, plan).modules if m.name == "Conv2d" and m.macs}
    theirs = count_by_fvcore(subject, plan.macs_at).by_module
    assert ours
    assert {path: theirs[path] for path in ours} == ours


def test_what_cannot_be_traced_is_said():
    class Failing(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no such thing")

    with pytest.raises(EvaluationError, match=r"odd: fvcore cannot trace it \(RuntimeError: no such thing"):
        count_by_fvcore(Subject("odd", Failing(), 3, 0.0, 0.0), AT)


def test_the_command_shows_both_counts_and_what_is_left_out():
    command = ["measure", "network", "results/reference/small/presets/fastest", "--by-module", "--at", "16x12"]
    shown = CliRunner().invoke(app, command)
    assert shown.exit_code == 0, shown.output
    assert "fvcore" in shown.output
    assert "It leaves out, with the number of calls: aten::" in " ".join(shown.output.split())
    record = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert record["fvcore"]["macs"] == record["modules"][0]["fvcore_macs"] > 0
    assert record["fvcore"]["left_out"]
