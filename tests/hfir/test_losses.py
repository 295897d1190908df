"""Losses, worked by hand."""

import math
import re
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from hfir.blocks.moe import Routing
from hfir.errors import ConfigError, WeightsError
from hfir.losses import (
    ADVERSARIAL_LOSSES,
    PIXEL_LOSSES,
    PerceptualLoss,
    charbonnier,
    frequency_loss,
    l1,
    load_balance,
    router_z,
    routing_loss,
    ssim_loss,
)


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


@pytest.mark.parametrize("size", [(8, 3, 16, 16), (2, 3, 37, 21)])
def test_charbonnier_and_its_gradients_are_to_the_bit_what_autograd_makes_of_the_formula(image, size):
    images = [image(*size, seed=seed).contiguous(memory_format=torch.channels_last) for seed in (0, 1)]
    ours, theirs = ([x.clone().requires_grad_() for x in images] for _ in range(2))
    one = charbonnier(*ours)
    other = torch.sqrt((theirs[0] - theirs[1]) ** 2 + 1e-6).mean()
    (0.7 * one).backward()
    (0.7 * other).backward()
    assert torch.equal(one, other)
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(ours, theirs, strict=True))


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


# SSIM and frequencies -----------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width", "channels"), [(11, 11, 3), (24, 31, 1), (40, 18, 3)])
def test_the_ssim_loss_is_one_minus_what_scikit_image_says(image, height: int, width: int, channels: int):
    from skimage.metrics import structural_similarity

    clean = image(1, channels, height, width)
    restored = (clean + 0.2 * (image(1, channels, height, width, seed=1) - 0.5)).clamp(0, 1)
    a, b = (t[0].permute(1, 2, 0).double().numpy() for t in (restored, clean))
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "channel_axis": -1}
    similarity = structural_similarity(a, b, data_range=1.0, **options)
    assert 1 - ssim_loss(restored, clean).item() == pytest.approx(similarity, abs=1e-5)


def test_the_ssim_loss_of_equal_images_is_zero_and_its_gradient_finite(image):
    clean = image(1, 3, 16, 16)
    restored = clean.clone().requires_grad_()
    loss = ssim_loss(restored, clean)
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    assert restored.grad.isfinite().all()


def test_ssim_says_when_images_are_smaller_than_its_window(image):
    with pytest.raises(ConfigError, match="12 x 10 px are smaller"):
        ssim_loss(image(1, 3, 10, 12), image(1, 3, 10, 12))


@pytest.mark.parametrize("loss", [ssim_loss, frequency_loss])
def test_means_and_spectra_are_taken_in_fp32_under_autocast(image, loss):
    clean, restored = image(2, 3, 32, 32), image(2, 3, 32, 32, seed=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = loss(restored, clean)
    assert under_autocast.dtype == torch.float32
    assert torch.equal(under_autocast, loss(restored, clean))


def test_the_frequency_loss_by_hand():
    # A constant difference of 0.5 on 2x2: only the zero frequency, 0.5 * 4 / sqrt(4) = 1. rfft2 keeps 2x2 bins of a
    # real and an imaginary part each: 1 / 8.
    assert frequency_loss(torch.full((1, 1, 2, 2), 0.5), torch.zeros(1, 1, 2, 2)).item() == pytest.approx(0.125)


def test_the_frequency_loss_of_white_noise_is_the_same_at_any_crop_size():
    # The mean of |part| over N bins has a relative deviation of 0.76 / sqrt(N): 0.3 % at the fewest, 64k. 2 % holds
    # that and the bins on the edges, whose imaginary part is zero. Unnormalised, the sizes would differ eightfold.
    generator = torch.Generator().manual_seed(0)
    losses = []
    for side, batch in ((32, 64), (256, 1)):
        noise = torch.randn(batch, 1, side, side, generator=generator)
        losses.append(frequency_loss(noise, torch.zeros_like(noise)).item())
    assert losses[0] == pytest.approx(losses[1], rel=0.04)


# Against a discriminator --------------------------------------------------------------------------


def test_adversarial_losses_by_hand():
    real, fake = torch.tensor([[0.0, 3.0]]), torch.tensor([[-2.0, 0.0]])
    vanilla, hinge, squares = (ADVERSARIAL_LOSSES[name] for name in ("vanilla", "hinge", "least_squares"))
    # -log sigmoid(x) = log(1 + e^-x), and -log(1 - sigmoid(x)) = log(1 + e^x).
    assert vanilla.generator(fake).item() == pytest.approx((math.log1p(math.e**2) + math.log(2)) / 2)
    told = (math.log(2) + math.log1p(math.e**-3)) / 2 + (math.log1p(math.e**-2) + math.log(2)) / 2
    assert vanilla.discriminator(real, fake).item() == pytest.approx(told)
    assert hinge.generator(fake).item() == pytest.approx(1.0)
    assert hinge.discriminator(real, fake).item() == pytest.approx((1 + 0) / 2 + (0 + 1) / 2)
    assert squares.generator(fake).item() == pytest.approx((9 + 1) / 2 / 2)
    assert squares.discriminator(real, fake).item() == pytest.approx(((1 + 4) / 2 + (4 + 0) / 2) / 2)


@pytest.mark.parametrize("name", ADVERSARIAL_LOSSES)
def test_the_players_pull_the_logits_of_restored_images_in_opposite_directions(name: str):
    loss, fake = ADVERSARIAL_LOSSES[name], torch.full((1, 4), 0.5, requires_grad=True)
    up = torch.autograd.grad(loss.generator(fake), fake)[0]
    down = torch.autograd.grad(loss.discriminator(torch.zeros(1, 4), fake), fake)[0]
    assert (up < 0).all()
    assert (down > 0).all()


# Features of a backbone ---------------------------------------------------------------------------


def backbone() -> nn.Module:
    """A factory as users have it: two convolutions, the activation in place as in VGG."""
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3))


def not_a_module() -> int:
    return 3


@pytest.fixture
def factories(monkeypatch: pytest.MonkeyPatch) -> str:
    """The import path of this module's factories."""
    monkeypatch.setitem(sys.modules, "backbones_for_tests", sys.modules[__name__])
    return "backbones_for_tests"


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    torch.save(backbone().state_dict(), tmp_path / "backbone.pth")
    return tmp_path / "backbone.pth"


def test_the_perceptual_loss_is_the_weighted_difference_of_features(image, factories: str, trained: Path):
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    loss = PerceptualLoss(f"{factories}:backbone", trained, {"0": 0.5, "2": 2.0}, mean=mean, std=std)
    reference = backbone().eval()
    reference.load_state_dict(torch.load(trained))
    first, second = reference[0], nn.Sequential(reference[0], nn.ReLU(), reference[2])
    a, b = image(2, 3, 9, 9), image(2, 3, 9, 9, seed=1)
    x, y = ((t - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1) for t in (a, b))
    by_hand = 0.5 * (first(x) - first(y)).abs().mean() + 2.0 * (second(x) - second(y)).abs().mean()
    assert loss(a, b).item() == pytest.approx(by_hand.item(), rel=1e-5)
    assert loss(a, a).item() == 0.0


def test_the_backbone_stays_frozen_and_the_image_gets_the_gradient(image, factories: str, trained: Path):
    loss = PerceptualLoss(f"{factories}:backbone", trained, {"2": 1.0}).train()
    x = image(1, 3, 9, 9).requires_grad_()
    loss(x, image(1, 3, 9, 9, seed=1)).backward()
    assert x.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in loss.parameters())
    assert not any(module.training for module in loss.modules())


def test_backbone_weights_may_be_safetensors(image, factories: str, trained: Path):
    save_file(torch.load(trained), trained.with_suffix(".safetensors"))
    one, other = (
        PerceptualLoss(f"{factories}:backbone", trained.with_suffix(suffix), {"2": 1.0})
        for suffix in (".pth", ".safetensors")
    )
    a, b = image(1, 3, 9, 9), image(1, 3, 9, 9, seed=1)
    assert torch.equal(one(a, b), other(a, b))


@pytest.mark.parametrize("path", ["nowhere_at_all:backbone", "{}:nothing", "{}", ""])
def test_an_import_path_that_leads_to_no_backbone_is_named(factories: str, trained: Path, path: str):
    with pytest.raises(ConfigError, match=re.escape(f"backbone '{path.format(factories)}'")):
        PerceptualLoss(path.format(factories), trained, {"0": 1.0})


def test_a_factory_must_make_a_module(factories: str, trained: Path):
    with pytest.raises(ConfigError, match=r"not_a_module\(\) is a int"):
        PerceptualLoss(f"{factories}:not_a_module", trained, {"0": 1.0})


def test_an_unknown_layer_is_named_beside_those_that_exist(factories: str, trained: Path):
    with pytest.raises(ConfigError, match=r"no layer 'conv5_4'.*0, 1, 2"):
        PerceptualLoss(f"{factories}:backbone", trained, {"conv5_4": 1.0})


def test_weights_that_are_missing_damaged_or_of_another_backbone_are_named(factories: str, trained: Path):
    path = f"{factories}:backbone"
    with pytest.raises(WeightsError, match="no such file"):
        PerceptualLoss(path, trained.with_name("other.pth"), {"0": 1.0})
    for suffix in (".pth", ".safetensors"):
        broken = trained.with_name(f"broken{suffix}")
        broken.write_bytes(b"no weights")
        with pytest.raises(WeightsError, match="cannot be read"):
            PerceptualLoss(path, broken, {"0": 1.0})
    torch.save({"0.weight": torch.zeros(4, 3, 3, 3)}, trained)
    with pytest.raises(WeightsError, match=r"does not fit .*Missing key"):
        PerceptualLoss(path, trained, {"0": 1.0})
    torch.save([torch.zeros(1)], trained)
    with pytest.raises(WeightsError, match="does not fit"):
        PerceptualLoss(path, trained, {"0": 1.0})
