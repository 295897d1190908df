"""The four verifications of the architecture, over networks drawn from every option that there is.

Each number is one network. The default run takes a dozen networks that cover every choice of every option and most
pairs of choices, chosen anew when a space can name a new option; the slow run adds networks drawn at random.
"""

import dataclasses
from itertools import combinations
from pathlib import Path

import pytest
import torch

from hfir import EXPERT_NAMES, ConfigError, HFIRConfig, MoEConfig, fuse
from hfir.blocks.gating import Gate
from search.experiment import load_experiment
from search.experiment.table import DIMENSIONS

WIDE = load_experiment(str(Path(__file__).parents[1] / "assets" / "wide.yaml"))
SIDES = (1, 3, 8, 16, 19, 33)
CANDIDATES = 150
"""Draws among which a small covering set is looked for."""

Choice = tuple[str, object]


def legal_draws(count: int) -> dict[int, set[Choice]]:
    """Return the choices of each legal network among so many draws, by seed."""
    found: dict[int, set[Choice]] = {}
    for seed in range(count):
        genotype = WIDE.space.sample(seed)
        try:
            config = WIDE.decode(genotype)
        except ConfigError:
            continue
        facts = {(fact, getattr(config, fact)) for fact in ("supports_fp16", "has_global_path")}
        found[seed] = facts | {(name.split(".")[0], value) for name, value in genotype.values.items()}
    return found


def covering(draws: dict[int, set[Choice]], size: int) -> list[int]:
    """Choose seeds greedily: first by the choices that are new, then by the pairs of choices that are new."""
    pairs = {seed: set(combinations(sorted(choices, key=str), 2)) for seed, choices in draws.items()}
    chosen: list[int] = []
    choices_left, pairs_left = set().union(*draws.values()), set().union(*pairs.values())
    while choices_left or len(chosen) < size:
        best = max(draws, key=lambda seed: (len(draws[seed] & choices_left), len(pairs[seed] & pairs_left)))
        chosen.append(best)
        choices_left -= draws[best]
        pairs_left -= pairs[best]
    return chosen


DRAWS = legal_draws(CANDIDATES)
COVERING = covering(DRAWS, 12)
"""Twelve at least, so that each scale meets each number of channels."""
OTHERS = [seed for seed in DRAWS if seed not in COVERING][:36]
NUMBERS = [*COVERING, *OTHERS]

each_network = pytest.mark.parametrize(
    "number", [*COVERING, *(pytest.param(seed, marks=pytest.mark.slow) for seed in OTHERS)]
)


@pytest.fixture(scope="module")
def wide():
    """Return the network of a number, with scales and channels in turn."""
    places = {number: place for place, number in enumerate(NUMBERS)}
    return lambda number: dataclasses.replace(
        WIDE.decode(WIDE.space.sample(number)),
        upscale=(1, 2, 3, 4)[places[number] % 4],
        in_channels=(3, 1, 4)[places[number] % 3],
    )


@each_network
def test_shapes_keep_their_contract(wide, built, image, number: int):
    config = wide(number)
    place = NUMBERS.index(number)
    h, w = SIDES[place % len(SIDES)], SIDES[(place // 2 + 3) % len(SIDES)]
    model = built(config, number)
    with torch.no_grad():
        y = model(image(2, config.in_channels, h, w, seed=number))
    assert y.shape == (2, config.in_channels, h * config.upscale, w * config.upscale)
    assert y.isfinite().all()


@each_network
def test_gates_are_bounded_and_bfloat16_is_finite(wide, built, image, number: int):
    config = wide(number)
    model, gates = built(config, number, stirred=0.1), []
    for module in model.modules():
        if isinstance(module, Gate):
            module.register_forward_hook(lambda _module, _inputs, gate: gates.append(gate))
    x = image(1, config.in_channels, 17, 20, seed=number)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(x).isfinite().all()
        assert model(8 * x - 4).isfinite().all()
    assert all(bool((gate >= 0).all() and (gate <= 1).all()) for gate in gates)
    assert gates or config.skip != "gated"


@each_network
def test_float16_is_finite_where_it_is_said_to_be(wide, built, image, number: int):
    config = wide(number)
    if not config.supports_fp16:
        pytest.skip("this network says that it does not support fp16")
    model = built(config, number, stirred=0.05).half()
    with torch.no_grad():
        y = model(image(1, config.in_channels, 17, 20, seed=number).half())
    assert y.dtype == torch.float16
    assert y.isfinite().all()


@each_network
def test_routing_is_deterministic_and_alone_as_in_any_batch(wide, built, image, number: int):
    config = wide(number)
    model = built(config, number, stirred=0.1)
    x = image(3, config.in_channels, 17, 33, seed=number)
    with torch.no_grad():
        together, decided = model.forward_with_routing(x)
        again, _ = model.forward_with_routing(x)
        assert torch.equal(together, again)
        for i in range(3):
            own, alone = model.forward_with_routing(x[i : i + 1])
            torch.testing.assert_close(own[0], together[i], rtol=1e-4, atol=1e-4)
            for one, batch in zip(alone, decided, strict=True):
                rows = slice(i * batch.windows, (i + 1) * batch.windows)
                assert one.chosen.tolist() == batch.chosen[rows].tolist()


@each_network
def test_the_deploy_form_gives_the_same_image(wide, built, image, number: int):
    config = wide(number)
    model = built(config, number, stirred=0.05)
    x = image(1, config.in_channels, 17, 20, seed=number)
    with torch.no_grad():
        assert float((model(x) - fuse(model)(x)).abs().max()) < 1e-4


@each_network
def test_every_parameter_learns(wide, built, image, number: int):
    config = wide(number)
    model = built(config, number, stirred=0.02).train()
    model.gan_mode(True)
    asked = 0 if config.experts is None else config.experts.condition_channels
    condition = image(4, asked, seed=1) if asked else None
    y, _ = model.forward_with_routing(image(4, config.in_channels, 33, 33, seed=number), condition)
    y.square().sum().backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None]
    assert not idle


def test_the_default_networks_cover_every_choice_of_every_option():
    seen = set().union(*(DRAWS[number] for number in COVERING))
    named = {p.name.split(".")[0]: p.choices for p in WIDE.space.parameters}
    assert set(DIMENSIONS) - set(named) == set()
    assert all(len(choices) > 1 for choices in named.values())
    assert [(name, value) for name, choices in named.items() for value in choices if (name, value) not in seen] == []
    assert {(fact, is_so) for fact in ("supports_fp16", "has_global_path") for is_so in (True, False)} <= seen


def test_the_default_networks_cover_most_pairs_of_choices():
    def pairs(numbers):
        return {pair for number in numbers for pair in combinations(sorted(DRAWS[number], key=str), 2)}

    assert len(pairs(COVERING)) > 0.6 * len(pairs(DRAWS))
    assert len(COVERING) <= 16


def test_experts_have_names():
    assert MoEConfig(num_experts=4).names == EXPERT_NAMES == ("texture", "denoise", "deblur", "artifact")
    assert MoEConfig(num_experts=6).names[4:] == ("texture 2", "denoise 2")


LOCAL = HFIRConfig(
    width=8, encoder_blocks=(1, 1), decoder_blocks=(1, 1), channel_attention=False, upscale=2, bottleneck_blocks=1
)


@pytest.mark.parametrize("experts", [None, MoEConfig(num_experts=4, routing="window", stages=("enc1", "mid"))])
def test_without_a_global_path_far_pixels_do_not_matter(built, image, experts: MoEConfig | None):
    config = dataclasses.replace(LOCAL, experts=experts)
    model, x = built(config, stirred=0.1), image(1, 3, 96, 96)
    other = x.clone()
    other[..., 64:] = 0.5
    with torch.no_grad():
        # Not bit by bit: how many windows an expert works on at once decides how its sums are rounded.
        same = ((model(x) - model(other)).abs() < 1e-5).all(dim=1)[0]
    assert not config.has_global_path
    assert same[:, :32].all()
    assert not same[:, 150:].all()
