"""One network, measured as it would be in a search: parameters, MACs, activations, memory, latency."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from hfir.errors import ConfigError, WeightsError
from hfir.fusion import fuse
from hfir.model import HydraFusionIR
from hfir.presets import load_preset
from search.evaluation.cost import (
    WRITTEN_OUT,
    as_deployed,
    count_network,
    count_parameters,
    random_image,
)
from search.evaluation.counting import Count, count
from search.evaluation.meter import measure_latency, peak_memory_mib
from search.evaluation.plan import CostPlan
from search.references.loading import deploy_form, load_module
from search.types import Cost, InputError


@dataclass(frozen=True, slots=True)
class Subject:
    """A network that is to be measured, in deploy form.

    Args:
        name: As the user named it.
        model: On the CPU, eval mode.
        in_channels: Of its input.
        params_train_m: Parameters of its training form, in millions.
        params_active_m: Parameters that one image uses, in millions.
    """

    name: str
    model: nn.Module
    in_channels: int
    params_train_m: float
    params_active_m: float


def preset_subject(name: str) -> Subject:
    """Return the deploy form of a preset.

    Args:
        name: A preset's folder, a .safetensors file, or a name from `hfir.list_presets()`.

    Raises:
        InputError: If it cannot be read.
    """
    try:
        model = load_preset(name)
    except (ConfigError, WeightsError) as error:
        raise InputError(str(error)) from error
    counts = count_parameters(model.config)
    deployed = as_deployed(fuse(model))
    return Subject(name, deployed, model.config.in_channels, counts.train_m, counts.active_m)


def module_subject(path: str, args: Mapping[str, Any], *, in_channels: int, upscale: int) -> Subject:
    """Return any torch.nn.Module by its import path, tried on a small image.

    Args:
        path: `package.module:Factory`; modules in the current folder are found.
        args: Keyword arguments of the factory.
        in_channels: Of the image.
        upscale: Factor between input and output side.

    Raises:
        InputError: If it cannot be imported or built, or does not restore an image.
    """
    model = load_module(path, args, in_channels=in_channels, upscale=upscale, folder=str(Path.cwd()))
    deployed = as_deployed(deploy_form(model))
    params, trained = (sum(p.numel() for p in form.parameters()) / 1e6 for form in (deployed, model))
    return Subject(path, deployed, in_channels, trained, params)


def measure_subject(subject: Subject, plan: CostPlan) -> Cost:
    """Measure a network freshly, at the sizes and in the way that a plan says; its limits are not looked at.

    Raises:
        InputError: If the runtime or the device is not there.
        EvaluationError: If the runtime cannot run the network, or an operation cannot be counted.
    """
    counted = count_subject(subject, plan)
    latency = measure_latency(
        subject.model,
        plan.latency_at,
        plan.threads,
        runtime=plan.runtime,
        device=plan.device,
        in_channels=subject.in_channels,
    )
    return Cost(
        params_m=sum(p.numel() for p in subject.model.parameters()) / 1e6,
        params_train_m=subject.params_train_m,
        params_active_m=subject.params_active_m,
        macs_g=counted.macs / 1e9,
        macs_at=str(plan.macs_at),
        activations_m=counted.activations / 1e6,
        peak_mem_mib=peak_memory_mib(
            subject.model, plan.latency_at, in_channels=subject.in_channels, device=plan.device
        ),
        peak_mem_at=str(plan.latency_at),
        latency=latency,
    )


def count_subject(subject: Subject, plan: CostPlan) -> Count:
    """Count one forward pass module by module: ours on the meta device, others by a pass that is run.

    Raises:
        EvaluationError: If an operation is neither counted nor known to be free.
    """
    if isinstance(subject.model, HydraFusionIR):
        return count_network(subject.model.config, plan.macs_at)
    image = random_image(subject.in_channels, plan.macs_at)
    return count(subject.model, image, written_out=WRITTEN_OUT, by_module=True)
