"""Networks to test on: drawn from the efficient space, with weights that hide nothing."""

from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING

import pytest
import torch

from hfir import (
    ConfigError,
    DFTRefinerConfig,
    FrequencySplitConfig,
    HFIRConfig,
    HydraFusionIR,
    LargeKernelConfig,
    MoEConfig,
    WindowAttentionConfig,
    build_model,
)

if TYPE_CHECKING:
    from search.experiment import Experiment

Draw = Callable[[int], HFIRConfig]
Build = Callable[..., HydraFusionIR]


class DrawFrom:
    """Draws legal networks from a space: the same number, the same network."""

    def seed_of(self, experiment: "Experiment", number: int) -> int:
        """The first seed of a number whose point is a legal network."""
        for attempt in count():
            seed = number + 1_000_003 * attempt
            with suppress(ConfigError):
                experiment.decode(experiment.space.sample(seed))
                return seed
        raise AssertionError("count ends")

    def __call__(self, experiment: "Experiment") -> Draw:
        return lambda number: experiment.decode(experiment.space.sample(self.seed_of(experiment, number)))


@pytest.fixture(scope="session")
def draw_from() -> DrawFrom:
    """What draws networks from an experiment's space."""
    return DrawFrom()


@pytest.fixture(scope="session")
def drawn(draw_from: DrawFrom) -> Draw:
    """The legal configuration of the efficient space that a number stands for."""
    from search.experiment import load_experiment  # most tests here need the network alone

    return draw_from(load_experiment("efficient"))


@pytest.fixture(scope="session")
def built() -> Build:
    """A network in eval mode whose weights a seed decides; `stirred` moves every one off its start value."""

    def build(config: HFIRConfig, seed: int = 0, *, stirred: float = 0.0) -> HydraFusionIR:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = build_model(config).eval()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(torch.randn_like(parameter), alpha=stirred)
        return model

    return build


@pytest.fixture(scope="session")
def everything() -> HFIRConfig:
    """A small network that holds every kind of block."""
    return HFIRConfig(
        upscale=2,
        in_channels=3,
        width=8,
        encoder_blocks=(1, 1, 1),
        bottleneck_blocks=2,
        decoder_blocks=(1, 0, 1),
        mixer=LargeKernelConfig(kernel_size=7),
        attention=WindowAttentionConfig(window_size=4, num_heads=2, stages=("enc2", "mid", "dec3")),
        experts=MoEConfig(num_experts=4, top_k=2, stages=("enc2", "mid")),
        frequency_split=FrequencySplitConfig(),
        refiner=DFTRefinerConfig(depth=2),
    )


@pytest.fixture(scope="session")
def image() -> Callable[..., torch.Tensor]:
    """A random image in [0, 1] that a seed decides."""

    def make(*shape: int, seed: int = 0) -> torch.Tensor:
        return torch.rand(shape, generator=torch.Generator().manual_seed(seed))

    return make
