"""Mixtures of experts: what is routed where, and that only the chosen ones work and learn."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from hfir import MoEConfig
from hfir.blocks.moe import ExpertBank, Flow, MoEX

CHANNELS = 6
seeds = st.integers(0, 9999)


def mixture(num_experts: int = 4, top_k: int = 1, *, cue: int = 0, seed: int = 0, **options: Any) -> MoEX:
    """A mixture whose router spreads the images: the start weights hardly tell normalised features apart."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = MoEConfig(num_experts=num_experts, top_k=top_k, **options)
        moe = MoEX(CHANNELS, config, expansion=2.0, cue_channels=cue, scale=0.5)
        nn.init.normal_(moe.router.weight, std=4.0)
        nn.init.normal_(moe.norm.bias)
    return moe


def means(x: Tensor) -> Tensor:
    """Some figures of images for a router to see."""
    return x.mean(dim=(2, 3)).float()


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
    """What a router sees of images: the mean distance of each feature from its neighbours, [b c]."""
    return distances(features).mean(dim=(2, 3))


def distances(features: Tensor) -> Tensor:
    """The distance of every second pixel, both ways, from those to its right and below, where there are any."""
    b, c, h, w = features.shape
    out = torch.zeros(b, c, (h + 1) // 2, (w + 1) // 2)
    for i in range(0, h, 2):
        for j in range(0, w, 2):
            for r, s in ((i + 1, j), (i, j + 1)):
                if r < h and s < w:
                    out[..., i // 2, j // 2] += (features[..., r, s] - features[..., i, j]).abs()
    return out


def naive(moe: MoEX, x: Tensor) -> Tensor:
    """The mixture image by image and expert by expert."""
    out = []
    for one in x.split(1):
        features = moe.norm(one)
        probability = torch.softmax(moe.router(roughness(features))[0], dim=0)
        best = probability.argsort(descending=True)[: moe.config.top_k].tolist()
        total = sum(float(probability[e]) for e in best) if moe.config.top_k > 1 else 1.0
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
    gates, routing = moe.route(means(image(b, CHANNELS, 3, 3, seed=seed)))
    torch.testing.assert_close(gates.sum(dim=1), torch.ones(b))
    assert (gates[:, 0] >= gates[:, 1]).all()  # best first
    assert all(len(set(row)) == 2 for row in routing.chosen.tolist())


@given(seeds, st.integers(1, 5))
def test_one_gate_is_the_probability_of_the_best_expert(image, seed: int, b: int):
    gates, routing = mixture(seed=seed).route(means(image(b, CHANNELS, 3, 3, seed=seed)))
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
    _, routing = moe.route(means(image(3, CHANNELS, 2, 2)))
    assert routing.chosen.tolist() == [list(range(top_k))] * 3


def test_the_larger_logit_wins_over_the_order(image):
    moe = mixture(top_k=2)
    nn.init.zeros_(moe.router.weight)
    with torch.no_grad():
        moe.router.bias.copy_(torch.tensor([0.0, 2.0, 1.0, 3.0]))
    assert moe.route(means(image(1, CHANNELS, 2, 2)))[1].chosen.tolist() == [[3, 1]]


@given(seeds)
def test_the_decision_does_not_depend_on_the_rest_of_the_batch(image, seed: int):
    moe, x = mixture(top_k=2, seed=seed), image(4, CHANNELS, 4, 5, seed=seed)
    with torch.no_grad():
        _, together = moe.route(means(x))
        for i in range(4):
            _, own = moe.route(means(x[i : i + 1]))
            torch.testing.assert_close(own.logits[0], together.logits[i], rtol=1e-5, atol=1e-5)
            assert own.chosen[0].tolist() == together.chosen[i].tolist()


def test_the_cue_reaches_the_router(image):
    moe, x, cue = mixture(cue=3), image(1, CHANNELS, 4, 4), image(1, 3)
    flow = Flow(cue=cue)
    moe(x, flow)
    known = torch.cat([roughness(moe.norm(x)), cue], dim=1)
    torch.testing.assert_close(flow.routings[0].logits, moe.router(known), rtol=1e-4, atol=1e-4)


def test_the_router_tells_noise_and_blur_from_the_same_picture_without_them(image):
    moe, x = mixture(), image(1, CHANNELS, 32, 32)
    wave = torch.sin(torch.arange(32) / 4).expand_as(x)
    noise = x - x.mean(dim=(2, 3), keepdim=True)
    still, some, much = (moe.route(roughness(wave + level * noise))[1].logits for level in (0, 0.3, 1))
    assert (still - some).abs().max() > 0.1
    assert (some - much).abs().max() > 0.1


def test_a_flat_image_of_one_pixel_has_no_roughness_and_a_finite_gradient():
    moe, x = mixture(), torch.ones(1, CHANNELS, 1, 1, requires_grad=True)
    flow = Flow()
    moe(x, flow)
    assert torch.equal(flow.routings[0].logits[0], moe.router.bias)
    flow.routings[0].logits.sum().backward()
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
        inside = moe.route(means(features))[1].logits
    assert flow.routings[0].logits.dtype == torch.float32
    with torch.no_grad():  # and not only in name: autocast changes nothing
        assert torch.equal(inside, moe.route(means(features))[1].logits)


def test_router_logits_are_fp32_in_a_half_precision_network(image):
    moe = mixture().to(torch.bfloat16)
    flow = Flow()
    y = moe(image(2, CHANNELS, 3, 3).to(torch.bfloat16), flow)
    assert (y.dtype, flow.routings[0].logits.dtype) == (torch.bfloat16, torch.float32)


@given(st.integers(1, 5), st.sampled_from([(1, 1), (5, 7), (18, 18)]), st.booleans(), seeds)
def test_both_ways_of_choosing_experts_give_the_same(image, n: int, side: tuple[int, int], windows: bool, seed: int):
    # By rows where a user runs it, by gathered weights where it is exported, compiled or counted.
    bank, x = mixture(seed=seed).experts, image(n, CHANNELS, *side, seed=seed)
    windows = windows and min(side) > 2
    inside = (image(n, 1, *side, seed=1) > 0.3).float() if windows else None
    expert = torch.randint(0, 4, (n,), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        by_rows, by_weights = bank._by_rows(x, expert, inside), bank._by_weights(x, expert, inside)
    assert by_rows.shape[-2:] == (tuple(s - 2 for s in side) if windows else side)
    torch.testing.assert_close(by_rows, by_weights, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("h", "w"), [(16, 16), (33, 20), (5, 40), (1, 1), (48, 32)])
def test_windows_that_agree_leave_no_seam(image, h: int, w: int):
    # With one expert everywhere, routing per window is routing per image: also at the borders of the image.
    per_window, per_image = (mixture(routing=routing, seed=4) for routing in ("window", "image"))
    per_image.load_state_dict(per_window.state_dict())
    for moe in (per_window, per_image):
        nn.init.zeros_(moe.router.weight)
        with torch.no_grad():
            moe.router.bias.copy_(torch.tensor([0.0, 0.0, 3.0, 0.0]))
    with torch.no_grad():
        x = image(2, CHANNELS, h, w)
        torch.testing.assert_close(per_window(x, Flow()), per_image(x, Flow()), rtol=1e-5, atol=1e-5)


def test_each_window_goes_where_its_own_pixels_say(image):
    moe, flow = mixture(routing="window"), Flow()
    x = image(2, CHANNELS, 20, 33)
    with torch.no_grad():
        moe(x, flow)
        routing, rough = flow.routings[0], distances(moe.norm(x))
        assert (routing.windows, len(routing.logits)) == (6, 12)
        for row, (b, i, j) in enumerate((b, i, j) for b in range(2) for i in range(2) for j in range(3)):
            window = rough[b : b + 1, :, 8 * i : 8 * i + 8, 8 * j : 8 * j + 8]
            torch.testing.assert_close(routing.logits[row], moe.router(means(window))[0], rtol=1e-4, atol=1e-4)


def test_noise_moves_decisions_in_training_only(image):
    moe, x = mixture(noise=10.0), means(image(8, CHANNELS, 4, 4))
    moe.eval()
    assert torch.equal(moe.route(x)[1].logits, moe.route(x)[1].logits)
    moe.train()
    assert not torch.equal(moe.route(x)[1].logits, moe.route(x)[1].logits)


def test_a_higher_temperature_is_more_even(image):
    x = means(image(5, CHANNELS, 4, 4))
    cool, hot = (mixture(temperature=t).route(x) for t in (1.0, 8.0))
    torch.testing.assert_close(cool[1].logits, 8 * hot[1].logits)
    assert torch.equal(cool[1].chosen, hot[1].chosen)
    assert (hot[0] < cool[0]).all()


def test_a_condition_starts_without_say_and_then_decides(image):
    moe, x = mixture(condition_channels=2), means(image(2, CHANNELS, 4, 4))
    told = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert torch.equal(moe.route(x, told)[1].logits, moe.route(x)[1].logits)
    with torch.no_grad():
        moe.conditioned.weight[2, 0] = 100.0
        moe.conditioned.weight[1, 1] = 100.0
    assert moe.route(x, told)[1].chosen.flatten().tolist() == [2, 1]


def test_a_condition_of_an_image_counts_for_all_its_windows(image):
    moe, flow = mixture(condition_channels=2, routing="window"), Flow(condition=torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    with torch.no_grad():
        moe.conditioned.weight[2, 0] = 100.0
        moe.conditioned.weight[1, 1] = 100.0
        moe(image(2, CHANNELS, 20, 20), flow)
    assert flow.routings[0].chosen.flatten().tolist() == [2] * 4 + [1] * 4
