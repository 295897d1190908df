"""All parameters in one tensor train as they would one by one, and are kept as if they were."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from hfir import HFIRConfig
from hfir.model import build_model
from search.evaluation.flat import FlatTraining

RATE, BETAS, CLIP, DECAY = 0.01, (0.9, 0.9), 0.05, 0.5


def network() -> nn.Module:
    torch.manual_seed(0)
    config = HFIRConfig(width=6, encoder_blocks=(1,), bottleneck_blocks=0, decoder_blocks=(0,))
    return build_model(config).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


class Mixed(nn.Module):
    """Parameters of two types, one of them frozen, one that is no dense tensor, and one that nothing depends on."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.scale = nn.Parameter(torch.ones(3, 1, 1, dtype=torch.float64))
        self.conv = nn.Conv2d(3, 12, 3, padding=1)
        self.frozen = nn.Parameter(torch.full((12,), 2.0), requires_grad=False)
        self.every_other = nn.Parameter(torch.linspace(0, 1, 24)[::2])
        self.idle = nn.Parameter(torch.ones(5))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x) * (self.frozen * self.every_other)[:, None, None]
        return (
            (y.unflatten(1, (3, 4)).sum(2).double() * self.scale)
            .float()
            .repeat_interleave(2, 2)
            .repeat_interleave(2, 3)
        )


MODELS = pytest.mark.parametrize("make", [network, Mixed])


def loss_of(model: nn.Module, step: int) -> Tensor:
    x = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(step))
    return (model(x) - x.repeat_interleave(2, 2).repeat_interleave(2, 3)).abs().mean()


class OneByOne:
    """What `FlatTraining` is held against: torch's own, over the parameters (fused it mistakes those with gaps)."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.adam = torch.optim.AdamW(model.parameters(), lr=RATE, betas=BETAS, weight_decay=0.0)
        self.average = [p.detach().clone() for p in model.parameters()]

    def step(self, loss: Tensor) -> None:
        self.adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self.adam.step()
        for now, average in zip(self.model.parameters(), self.average, strict=True):
            get_ema_multi_avg_fn(DECAY)([average], [now.detach()], None)

    def state(self) -> dict:
        return {"optimiser": self.adam.state_dict(), "average": self.average}


def flat(model: nn.Module) -> FlatTraining:
    return FlatTraining(model, lr=RATE, betas=BETAS, clip=CLIP)


def close(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    return all(torch.allclose(a, b, rtol=1e-5, atol=1e-7) for a, b in zip(ours, theirs, strict=True))


@MODELS
def test_parameters_keep_value_shape_and_layout_and_share_their_memory(make):
    model, before = make(), make()
    flat(model)
    for now, then in zip(model.parameters(), before.parameters(), strict=True):
        assert torch.equal(now, then)
        assert now.stride() == torch.empty_like(then).stride()
        assert now.data_ptr() % 64 == 0
    ours = [p for p in model.parameters() if p.dtype == torch.float32]
    assert len({p.untyped_storage().data_ptr() for p in ours}) == 1


@MODELS
def test_it_trains_clips_and_averages_as_one_by_one(make):
    model, other = make(), make()
    ours, theirs = flat(model), OneByOne(other)
    for step in range(5):
        ours.step(loss_of(model, step), DECAY)
        theirs.step(loss_of(other, step))
    assert not close(list(model.parameters()), list(make().parameters()))
    assert close(list(model.parameters()), list(other.parameters()))
    assert close(ours.average, theirs.average)


def test_the_gradients_norm_is_over_all_parameters():
    model, other = network(), network()
    ours = flat(model)
    ours.step(loss_of(model, 0), DECAY)
    norm = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
    loss_of(other, 0).backward()
    whole = torch.stack([p.grad.norm() for p in other.parameters() if p.grad is not None]).norm()
    assert whole > CLIP
    assert float(norm) == pytest.approx(CLIP, rel=1e-3)


@MODELS
@pytest.mark.parametrize("written_by", ["flat", "one by one"])
def test_a_state_is_taken_up_whoever_wrote_it(make, written_by):
    model, other = make(), make()
    ours, theirs = flat(model), OneByOne(other)
    for step in range(3):
        ours.step(loss_of(model, step), DECAY)
        theirs.step(loss_of(other, step))
    state = copy.deepcopy(ours.state() if written_by == "flat" else theirs.state())
    again = make()
    again.load_state_dict(model.state_dict())
    resumed = flat(again)
    resumed.resume(state)
    for step in range(3, 6):
        ours.step(loss_of(model, step), DECAY)
        resumed.step(loss_of(again, step), DECAY)
    assert close(list(again.parameters()), list(model.parameters()))
    assert close(resumed.average, ours.average)


def test_a_state_is_written_parameter_by_parameter_as_torch_does():
    model, other = network(), network()
    ours, theirs = flat(model), OneByOne(other)
    assert ours.state()["optimiser"]["state"] == {}
    ours.step(loss_of(model, 0), DECAY)
    theirs.step(loss_of(other, 0))
    theirs.adam.load_state_dict(ours.state()["optimiser"])
    for place, (one, two) in enumerate(zip(ours.state()["average"], model.parameters(), strict=True)):
        assert one.shape == two.shape == ours.state()["optimiser"]["state"][place]["exp_avg"].shape


def test_the_rate_is_that_of_the_next_step():
    model = network()
    ours = flat(model)
    ours.rate = 0.0
    before = [p.detach().clone() for p in model.parameters()]
    ours.step(loss_of(model, 0), DECAY)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert ours.rate == 0.0
