"""Mixtures of experts: what is routed where, and that only the chosen ones work and learn."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from hfir.blocks.moe import ExpertBank, Flow, MoEX

CHANNELS = 6
seeds = st.integers(0, 9999)


def mixture(num_experts: int = 4, top_k: int = 1, *, cue: int = 0, seed: int = 0) -> MoEX:
    """A mixture whose router spreads the images: the start weights hardly tell normalised features apart."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        moe = MoEX(CHANNELS, num_experts=num_experts, top_k=top_k, expansion=2.0, cue_channels=cue, scale=0.5)
        nn.init.normal_(moe.router.weight, std=4.0)
        nn.init.normal_(moe.norm.bias)
    return moe


def alone(bank: ExpertBank, expert: int, x: Tensor) -> Tensor:
    """One expert on one image, as three plain convolutions."""
    hidden = bank.look.shape[1]
    y = nn.functional.conv2d(x, bank.expand[expert][:, :, None, None], bank.expand_bias[expert])
    kernel = bank.look[expert].view(hidden, 1, 3, 3)
    y = nn.functional.conv2d(y, kernel, bank.look_bias[expert], padding=1, groups=hidden)
    a, b = y.chunk(2, dim=1)
    y = nn.functional.gelu(a) * b
    return nn.functional.conv2d(y, bank.project[expert][:, :, None, None], bank.project_bias[expert])


def roughness(features: Tensor) -> Tensor:
    """The mean distance of each feature from its 3×3 neighbourhood, as far as that lies inside: [b c]."""
    padded = nn.functional.pad(features, (1, 1, 1, 1), value=float("nan"))
    around = padded.unfold(2, 3, 1).unfold(3, 3, 1).flatten(4).nanmean(dim=4)
    return (features - around).abs().mean(dim=(2, 3))


def naive(moe: MoEX, x: Tensor) -> Tensor:
    """The mixture image by image and expert by expert."""
    out = []
    for one in x.split(1):
        features = moe.norm(one)
        probability = torch.softmax(moe.router(roughness(features))[0], dim=0)
        best = probability.argsort(descending=True)[: moe.top_k].tolist()
        total = sum(float(probability[e]) for e in best) if moe.top_k > 1 else 1.0
        mixed = sum(float(probability[e]) / total * alone(moe.experts, e, features) for e in best)
        out.append(one + moe.scale * mixed)
    return torch.cat(out)


@given(st.integers(1, 5), st.integers(1, 7), st.integers(1, 7), seeds)
def test_a_gathered_expert_equals_that_expert_alone(image, b: int, h: int, w: int, seed: int):
    bank, x = mixture(seed=seed).experts, image(b, CHANNELS, h, w, seed=seed)
    expert = torch.randint(0, 4, (b,), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        expected = torch.cat([alone(bank, int(e), x[i : i + 1]) for i, e in enumerate(expert)])
        torch.testing.assert_close(bank(x, expert), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("top_k", [1, 2])
def test_a_mixture_equals_a_loop_over_images_and_experts(image, top_k: int):
    moe, x = mixture(top_k=top_k), image(6, CHANNELS, 5, 8) * torch.linspace(-3, 3, 36).view(6, 6, 1, 1)
    flow = Flow()
    with torch.no_grad():
        torch.testing.assert_close(moe(x, flow), naive(moe, x), rtol=1e-5, atol=1e-5)
    assert len(flow.routings[0].chosen[:, 0].unique()) > 1  # the images do go to different experts


@given(seeds, st.integers(1, 5), st.sampled_from([2, 3, 4, 8]))
def test_two_gates_sum_to_one(image, seed: int, b: int, num_experts: int):
    moe = mixture(num_experts, top_k=2, seed=seed)
    gates, routing = moe.route(image(b, CHANNELS, 3, 3, seed=seed), None)
    torch.testing.assert_close(gates.sum(dim=1), torch.ones(b))
    assert (gates[:, 0] >= gates[:, 1]).all()  # best first
    assert all(len(set(row)) == 2 for row in routing.chosen.tolist())


@given(seeds, st.integers(1, 5))
def test_one_gate_is_the_probability_of_the_best_expert(image, seed: int, b: int):
    gates, routing = mixture(seed=seed).route(image(b, CHANNELS, 3, 3, seed=seed), None)
    probability = torch.softmax(routing.logits, dim=1)
    torch.testing.assert_close(gates[:, 0], probability.amax(dim=1))
    assert torch.equal(routing.chosen[:, 0], probability.argmax(dim=1))


@pytest.mark.parametrize("top_k", [1, 2])
@pytest.mark.parametrize("num_experts", [2, 4, 8, 64])
@pytest.mark.parametrize("level", [0.0, 1.0, 30.0, 1000.0])
def test_equal_logits_go_to_the_first_experts(image, level: float, num_experts: int, top_k: int):
    moe = mixture(num_experts, top_k)
    nn.init.zeros_(moe.router.weight)
    nn.init.constant_(moe.router.bias, level)
    _, routing = moe.route(image(3, CHANNELS, 2, 2), None)
    assert routing.chosen.tolist() == [list(range(top_k))] * 3


def test_the_larger_logit_wins_over_the_order(image):
    moe = mixture(top_k=2)
    nn.init.zeros_(moe.router.weight)
    with torch.no_grad():
        moe.router.bias.copy_(torch.tensor([0.0, 2.0, 1.0, 3.0]))
    assert moe.route(image(1, CHANNELS, 2, 2), None)[1].chosen.tolist() == [[3, 1]]


@given(seeds)
def test_the_decision_does_not_depend_on_the_rest_of_the_batch(image, seed: int):
    moe, x = mixture(top_k=2, seed=seed), image(4, CHANNELS, 4, 5, seed=seed)
    with torch.no_grad():
        _, together = moe.route(x, None)
        for i in range(4):
            _, own = moe.route(x[i : i + 1], None)
            torch.testing.assert_close(own.logits[0], together.logits[i], rtol=1e-5, atol=1e-5)
            assert own.chosen[0].tolist() == together.chosen[i].tolist()


def test_the_cue_reaches_the_router(image):
    moe, x, cue = mixture(cue=3), image(1, CHANNELS, 4, 4), image(1, 3)
    _, routing = moe.route(x, cue)
    known = torch.cat([roughness(x), cue], dim=1)
    torch.testing.assert_close(routing.logits, moe.router(known), rtol=1e-4, atol=1e-4)


def test_the_router_tells_noise_and_blur_from_the_same_picture_without_them(image):
    moe, x = mixture(), image(1, CHANNELS, 32, 32)
    wave = torch.sin(torch.arange(32) / 4).expand_as(x)
    logits = [moe.route(wave + level * (x - x.mean(dim=(2, 3), keepdim=True)), None)[1].logits for level in (0, 0.3, 1)]
    assert all((a - b).abs().max() > 0.1 for a, b in ((logits[0], logits[1]), (logits[1], logits[2])))


def test_a_flat_image_of_one_pixel_has_no_roughness_and_a_finite_gradient():
    moe, x = mixture(), torch.ones(1, CHANNELS, 1, 1, requires_grad=True)
    _, routing = moe.route(x, None)
    assert torch.equal(routing.logits[0], moe.router.bias)
    routing.logits.sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("top_k", [1, 2])
def test_the_router_and_the_chosen_experts_learn_and_no_other(image, top_k: int):
    moe = mixture(top_k=top_k)
    flow = Flow()
    moe(image(1, CHANNELS, 4, 4), flow).square().sum().backward()
    assert moe.router.weight.grad.abs().sum() > 0
    chosen = set(flow.routings[0].chosen[0].tolist())
    for name, parameter in moe.experts.named_parameters():
        for expert in range(4):
            moved = bool(parameter.grad[expert].abs().sum() > 0)
            assert moved is (expert in chosen), (name, expert)


@pytest.mark.parametrize("top_k", [1, 2])
def test_bfloat16_stays_finite_and_the_router_in_fp32(image, top_k: int):
    moe, x = mixture(top_k=top_k), 100 * image(2, CHANNELS, 5, 5)
    flow = Flow()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert moe(x, flow).isfinite().all()
        features = moe.norm(x)
        inside = moe.route(features, None)[1].logits
    assert flow.routings[0].logits.dtype == torch.float32
    with torch.no_grad():  # and not only in name: autocast changes nothing
        assert torch.equal(inside, moe.route(features, None)[1].logits)


def test_router_logits_are_fp32_in_a_half_precision_network(image):
    moe = mixture().to(torch.bfloat16)
    gates, routing = moe.route(image(2, CHANNELS, 3, 3).to(torch.bfloat16), None)
    assert (gates.dtype, routing.logits.dtype) == (torch.bfloat16, torch.float32)
