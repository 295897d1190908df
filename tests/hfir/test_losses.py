"""Losses, worked by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hfir.blocks.moe import Routing
from hfir.losses import PIXEL_LOSSES, charbonnier, l1, load_balance, router_z, routing_loss


def decided(logits: list[list[float]], chosen: list[list[int]]) -> Routing:
    return Routing(logits=torch.tensor(logits), chosen=torch.tensor(chosen))


@pytest.mark.parametrize("num_experts", [2, 4, 8])
def test_a_fair_share_for_every_expert_costs_one(num_experts: int):
    # f = P = 1/E for each: E * E * (1/E * 1/E) = 1.
    routing = decided([[0.0] * num_experts] * num_experts, [[e] for e in range(num_experts)])
    assert load_balance(routing).item() == pytest.approx(1.0)


@pytest.mark.parametrize("num_experts", [2, 4, 8])
def test_one_expert_for_all_costs_the_number_of_experts(num_experts: int):
    # f = P = (1, 0, ...): E * 1 * 1 = E.
    routing = decided([[100.0] + [0.0] * (num_experts - 1)] * 3, [[0]] * 3)
    assert load_balance(routing).item() == pytest.approx(num_experts)


def test_a_fair_share_costs_one_with_two_experts_for_each_image_too():
    routing = decided([[0.0] * 4] * 2, [[0, 1], [2, 3]])
    assert load_balance(routing).item() == pytest.approx(1.0)


def test_balance_by_hand():
    # Logits 0 and ln 3 are probabilities 1/4, 3/4. Both images go to expert 1: 2 * (0 * 1/4 + 1 * 3/4) = 1.5.
    assert load_balance(decided([[0.0, math.log(3)]] * 2, [[1], [1]])).item() == pytest.approx(1.5)


def test_router_z_by_hand():
    # logsumexp(0, 0) = ln 2, logsumexp(ln 3, ln 5) = ln 8: ((ln 2)^2 + (3 ln 2)^2) / 2 = 5 (ln 2)^2.
    routing = decided([[0.0, 0.0], [math.log(3), math.log(5)]], [[0], [1]])
    assert router_z(routing).item() == pytest.approx(5 * math.log(2) ** 2)


def test_the_losses_of_all_mixtures_are_summed():
    one = decided([[0.0, 0.0]] * 2, [[0], [1]])  # balance 1, z (ln 2)^2
    expected = 2 * (0.01 + 0.001 * math.log(2) ** 2)
    assert float(routing_loss([one, one])) == pytest.approx(expected)
    assert float(routing_loss([one], balance=1.0, z=0.0)) == pytest.approx(1.0)
    assert routing_loss([]) == 0.0


def test_balancing_pushes_the_crowded_expert_down():
    logits = torch.tensor([[1.0, 0.0], [2.0, 0.0]], requires_grad=True)
    load_balance(Routing(logits=logits, chosen=torch.tensor([[0], [0]]))).backward()
    assert (logits.grad[:, 0] > 0).all()
    assert (logits.grad[:, 1] < 0).all()


def test_pixel_losses_by_hand():
    # Differences 0 and 0.3: mean absolute 0.15; sqrt(1e-6) = 0.001 and sqrt(0.090001) = 0.3000017, mean 0.1505.
    restored, clean = torch.tensor([0.5, 0.8]).view(1, 1, 1, 2), torch.full((1, 1, 1, 2), 0.5)
    assert l1(restored, clean).item() == pytest.approx(0.15)
    assert charbonnier(restored, clean).item() == pytest.approx(0.15050083, abs=1e-6)


@pytest.mark.parametrize("name", PIXEL_LOSSES)
@given(seed=st.integers(0, 99))
def test_a_pixel_loss_is_symmetric_and_least_for_equal_images(image, name: str, seed: int):
    loss, a, b = PIXEL_LOSSES[name], image(1, 3, 4, 4, seed=seed), image(1, 3, 4, 4, seed=seed + 100)
    assert torch.equal(loss(a, b), loss(b, a))
    assert loss(a, a) < loss(a, b)
    assert loss(a, a) <= 1e-3 + 1e-9


@pytest.mark.parametrize("name", PIXEL_LOSSES)
def test_a_pixel_loss_has_a_finite_gradient_where_images_agree(name: str):
    x = torch.full((1, 1, 2, 2), 0.5, requires_grad=True)
    PIXEL_LOSSES[name](x, torch.full((1, 1, 2, 2), 0.5)).backward()
    assert x.grad.isfinite().all()
