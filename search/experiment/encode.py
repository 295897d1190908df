"""From a network's configuration back to the point of a space that stands for it: `decode` the other way round."""

from __future__ import annotations

import dataclasses

from hfir.config import HFIRConfig, LargeKernelConfig, WindowAttentionConfig
from search.experiment.decode import decode, stages_of, where_it_works, with_blocks
from search.experiment.table import DIMENSIONS
from search.space import Parameter, SearchSpace, SpaceError
from search.types import Genotype, Scalar


def encode(config: HFIRConfig, space: SearchSpace) -> Genotype:
    """Return the point of a space that decodes to a configuration; fused or not makes no difference.

    Raises:
        SpaceError: If no point does: the first parameter whose choices lack its value, or what the space cannot say.
    """
    config = dataclasses.replace(config, fused=False, attention=where_it_works(config.attention, config))
    values = _values(config)
    genotype = space.grow(lambda parameter: _chosen(parameter, values, config))
    made = decode(genotype, upscale=config.upscale, in_channels=config.in_channels)
    wanted, found = config.to_dict(), made.to_dict()
    if wanted != found:
        differ = ", ".join(key for key in wanted if wanted[key] != found.get(key))
        raise SpaceError(
            f"the configuration is not of this space: {differ} cannot be said in it.",
            remedy="Allow it in the space, or leave this configuration out.",
        )
    return genotype


def _chosen(parameter: Parameter, values: dict[str, Scalar | tuple[str, ...]], config: HFIRConfig) -> Scalar:
    """Return the choice that says what the configuration has; its value where none does, for the space to refuse."""
    name = parameter.name.partition(".")[0]
    value = values.get(parameter.name, DIMENSIONS[name].default)
    if isinstance(value, tuple):
        same = [c for c in parameter.choices if _places(name, str(c), config) == set(value)]
        return same[0] if same else "+".join(value) or "none"
    same = [c for c in parameter.choices if c == value and isinstance(c, bool) == isinstance(value, bool)]
    if (
        not same
        and config.attention is None
        and _tells_attention(name)
        and not all(map(config.blocks_at, config.stages))
    ):
        return parameter.choices[0]  # a space that always attends says so by stages without blocks, however it attends
    return same[0] if same else value


def _tells_attention(name: str) -> bool:
    needs = DIMENSIONS[name].needs
    return name == "attention" or (needs is not None and needs.parent == "attention")


def _places(name: str, text: str, config: HFIRConfig) -> set[str]:
    """Return the stages that a choice stands for in a network; of attention those that have blocks."""
    stages = stages_of(text, config.levels)
    return set(stages if name != "attention_stages" else with_blocks(stages, config))


def _values(config: HFIRConfig) -> dict[str, Scalar | tuple[str, ...]]:
    """Return a configuration as values of parameters; stages as their names. What is off is left out, or says so."""
    levels = len(config.encoder_blocks)
    values: dict[str, Scalar | tuple[str, ...]] = {
        "width": config.width,
        "levels": levels,
        **{f"encoder_blocks.{i}": blocks for i, blocks in enumerate(config.encoder_blocks, start=1)},
        "bottleneck_blocks": config.bottleneck_blocks,
        **{f"decoder_blocks.{levels - i}": blocks for i, blocks in enumerate(config.decoder_blocks)},
        "mixer": config.mixer.kind,
        "channel_attention": config.channel_attention,
        "expansion": config.expansion,
        "downsampler": config.downsampler,
        "upsampler": config.upsampler,
        "skip": config.skip,
        "frequency_split": config.frequency_split is not None,
        "attention": "none" if config.attention is None else config.attention.kind,
        "num_experts": 1 if config.experts is None else config.experts.num_experts,
        "refiner": "none" if config.refiner is None else config.refiner.kind,
    }
    if isinstance(config.mixer, LargeKernelConfig):
        values |= {"kernel_size": config.mixer.kernel_size, "reparam": config.mixer.reparam}
    return values | _attention(config) | _experts(config) | _detail(config)


def _attention(config: HFIRConfig) -> dict[str, Scalar | tuple[str, ...]]:
    attention = config.attention
    if attention is None:
        return {"attention_stages": ()}
    values: dict[str, Scalar | tuple[str, ...]] = {
        "num_heads": attention.num_heads,
        "attention_stages": tuple(attention.stages),
    }
    if isinstance(attention, WindowAttentionConfig):
        values |= {
            "window_size": attention.window_size,
            "window_overlap": attention.overlap,
            "global_tokens": attention.num_tokens,
        }
    return values


def _experts(config: HFIRConfig) -> dict[str, Scalar | tuple[str, ...]]:
    experts = config.experts
    if experts is None:
        return {}
    return {
        "top_k": experts.top_k,
        "expert_routing": experts.routing,
        "expert_temperature": experts.temperature,
        "expert_noise": experts.noise,
        "expert_condition": experts.condition_channels > 0,
        "expert_stages": tuple(experts.stages),
    }


def _detail(config: HFIRConfig) -> dict[str, Scalar | tuple[str, ...]]:
    values: dict[str, Scalar | tuple[str, ...]] = {}
    if config.frequency_split is not None:
        values["split_kernel_size"] = config.frequency_split.kernel_size
    if config.refiner is not None:
        values |= {"refiner_depth": config.refiner.depth, "refiner_noise": config.refiner.noise}
    return values
