"""From a point of the space to a network's configuration."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from hfir.config import (
    EXPERT_NAMES,
    AttentionConfig,
    ChannelAttentionConfig,
    DeformableRefinerConfig,
    DenseConfig,
    DFTRefinerConfig,
    FrequencySplitConfig,
    HFIRConfig,
    LargeKernelConfig,
    MixerConfig,
    MoEConfig,
    NAFConfig,
    RefinerConfig,
    WindowAttentionConfig,
)
from search.experiment.table import DIMENSIONS
from search.types import Genotype


def decode(genotype: Genotype, *, upscale: int, in_channels: int) -> HFIRConfig:
    """Return the network that a genotype stands for, in its training form.

    Args:
        genotype: A point of a space built from `DIMENSIONS`.
        upscale: The task's scale.
        in_channels: The task's channels.

    Raises:
        hfir.ConfigError: If the combination breaks a rule of the network.
    """
    levels = int(genotype["levels"])
    config = HFIRConfig(
        upscale=upscale,
        in_channels=in_channels,
        width=_int(genotype, "width"),
        encoder_blocks=tuple(_int(genotype, f"encoder_blocks.{i}") for i in range(1, levels + 1)),
        bottleneck_blocks=_int(genotype, "bottleneck_blocks"),
        decoder_blocks=tuple(_int(genotype, f"decoder_blocks.{i}") for i in range(levels, 0, -1)),
        mixer=_mixer(genotype),
        channel_attention=bool(_value(genotype, "channel_attention")),
        expansion=float(_value(genotype, "expansion")),
        experts=_experts(genotype, levels),
        downsampler=str(_value(genotype, "downsampler")),
        upsampler=str(_value(genotype, "upsampler")),
        skip=str(_value(genotype, "skip")),
        frequency_split=_frequency_split(genotype),
        refiner=_refiner(genotype),
    )
    return replace(config, attention=where_it_works(_attention(genotype, levels), config))


def where_it_works(attention: AttentionConfig | None, config: HFIRConfig) -> AttentionConfig | None:
    """Return attention without the stages of a network that have no blocks, after which it would stand; None for none.

    So what computes the same is the same network, and no description tells of attention that is not there.
    """
    if attention is None:
        return None
    stages = with_blocks(attention.stages, config)
    return replace(attention, stages=stages) if stages else None


def with_blocks(stages: Iterable[str], config: HFIRConfig) -> tuple[str, ...]:
    """Return stages without those of a network that have no blocks; what is no stage of it stays, to be refused."""
    return tuple(s for s in stages if s not in config.stages or config.blocks_at(s) > 0)


def _value(genotype: Genotype, name: str) -> Any:
    """Return a dimension's value; where a condition switched it off, the value that means off."""
    dimension = DIMENSIONS[name]
    off = dimension.default if dimension.off is None else dimension.off
    return genotype.values.get(name, off)


def _int(genotype: Genotype, name: str) -> int:
    return int(genotype[name])


def _mixer(genotype: Genotype) -> MixerConfig:
    if genotype["mixer"] == NAFConfig.kind:
        return NAFConfig()
    if genotype["mixer"] == DenseConfig.kind:
        return DenseConfig()
    return LargeKernelConfig(kernel_size=_int(genotype, "kernel_size"), reparam=bool(genotype["reparam"]))


def _attention(genotype: Genotype, levels: int) -> AttentionConfig | None:
    kind = _value(genotype, "attention")
    if kind == "none":
        return None
    num_heads, stages = _int(genotype, "num_heads"), stages_of(str(genotype["attention_stages"]), levels)
    if kind == ChannelAttentionConfig.kind:
        return ChannelAttentionConfig(num_heads=num_heads, stages=stages)
    return WindowAttentionConfig(
        window_size=_int(genotype, "window_size"),
        num_heads=num_heads,
        overlap=float(_value(genotype, "window_overlap")),
        num_tokens=int(_value(genotype, "global_tokens")),
        stages=stages,
    )


def _experts(genotype: Genotype, levels: int) -> MoEConfig | None:
    if _value(genotype, "num_experts") == 1:
        return None
    return MoEConfig(
        num_experts=_int(genotype, "num_experts"),
        top_k=_int(genotype, "top_k"),
        routing=str(_value(genotype, "expert_routing")),
        condition_channels=len(EXPERT_NAMES) if _value(genotype, "expert_condition") else 0,
        temperature=float(_value(genotype, "expert_temperature")),
        noise=float(_value(genotype, "expert_noise")),
        stages=stages_of(str(genotype["expert_stages"]), levels),
    )


def _frequency_split(genotype: Genotype) -> FrequencySplitConfig | None:
    if not _value(genotype, "frequency_split"):
        return None
    return FrequencySplitConfig(kernel_size=int(_value(genotype, "split_kernel_size")))


def _refiner(genotype: Genotype) -> RefinerConfig | None:
    kind = _value(genotype, "refiner")
    if kind == "none":
        return None
    make = DFTRefinerConfig if kind == DFTRefinerConfig.kind else DeformableRefinerConfig
    return make(depth=_int(genotype, "refiner_depth"), noise=bool(_value(genotype, "refiner_noise")))


def stages_of(text: str, levels: int) -> tuple[str, ...]:
    """Return stage names; `deepest` stands for encoder, bottleneck and decoder at the deepest level."""
    names: list[str] = []
    for word in text.split("+"):
        names += (f"enc{levels}", "mid", f"dec{levels}") if word == "deepest" else (word,)
    return tuple(dict.fromkeys(names))
