"""Configurations that a user wants to see trained: read from the experiment, from a file, or from presets.

An entry names the value of each parameter that the space leaves open, as in `space`: `encoder_blocks: 1` for every
level, `encoder_blocks: [1, 2]` level by level; or it is `preset: …`, a preset's folder or the name of a network.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from hfir.config import HFIRConfig
from hfir.errors import ConfigError
from search.counts import count
from search.experiment.decode import decode
from search.experiment.encode import encode
from search.experiment.table import DIMENSIONS
from search.experiment.yaml_lines import Document, KeyPath, read_document, shown
from search.space import Parameter, SearchSpace, SpaceError
from search.types import Genotype, InputError, Scalar

if TYPE_CHECKING:
    from search.experiment.loading import Experiment

PRESET_FILE = "preset.yaml"


def read_entries(
    document: Document, path: KeyPath, entries: Sequence[Any], space: SearchSpace, *, upscale: int, in_channels: int
) -> tuple[Genotype, ...]:
    """Return the points that entries stand for.

    Args:
        document: That they stand in; presets are found relative to it.
        path: Of the list within it.
        entries: As written.
        space: That they must be points of.
        upscale: The task's scale.
        in_channels: The task's channels.

    Raises:
        SpecError: On the first entry that is no point of the space or no legal network, with its line.
    """
    points = []
    for place, entry in enumerate(entries):
        where = (*path, place)
        if not isinstance(entry, dict) or not entry:
            raise document.fault(where, f"{shown(entry)} is no configuration.", "Write {width: 16, …} or {preset: …}.")
        points.append(
            _preset(document, where, entry, space, upscale=upscale, in_channels=in_channels)
            if "preset" in entry
            else _values(document, where, entry, space, upscale=upscale, in_channels=in_channels)
        )
    return tuple(points)


def with_enqueued(experiment: Experiment, sources: Sequence[str]) -> Experiment:
    """Return the experiment with more configurations enqueued.

    Args:
        experiment: As loaded.
        sources: Files with a key `enqueue`, folders of presets, or names of networks.

    Raises:
        InputError: If a source is none of these.
        SpecError: If a configuration is no point of the space.
    """
    task = {"upscale": experiment.task.scale, "in_channels": experiment.task.channels}
    points = list(experiment.enqueued)
    for source in sources:
        path = Path(source)
        if path.is_file() and path.name != PRESET_FILE:
            document = read_document(path)
            if not isinstance(document.data.get("enqueue"), list) or len(document.data) > 1:
                raise document.fault((), "holds no list of configurations.", "Write enqueue: [{width: 16, …}, …].")
            points += read_entries(document, ("enqueue",), document.data["enqueue"], experiment.space, **task)
        else:
            document = Document({"preset": source}, f"--enqueue {source}", {(): (f"--enqueue {source}", None)})
            points.append(_preset(document, (), document.data, experiment.space, **task))
    spec = {**experiment.spec, "search": {**experiment.spec["search"], "enqueue": [dict(p.values) for p in points]}}
    return replace(experiment, enqueued=tuple(points), spec=spec)


def _values(
    document: Document, where: KeyPath, entry: dict[str, Any], space: SearchSpace, *, upscale: int, in_channels: int
) -> Genotype:
    known = {parameter.name: parameter for parameter in space.parameters}
    given = _by_parameter(document, where, entry, known)
    try:
        point = space.grow(lambda parameter: _value(parameter, given))
        decode(point, upscale=upscale, in_channels=in_channels)
    except SpaceError as error:
        name = (error.parameter or "").partition(".")[0]
        raise document.fault((*where, name) if name in entry else where, error.problem, error.remedy) from error
    except ConfigError as error:
        problem = str(error).splitlines()[0]
        raise document.fault(where, problem, "Enqueue networks that are legal only.") from error
    idle = [key for key in entry if not _counts(key, entry[key], point)]
    if idle:
        raise document.fault((*where, idle[0]), "does not count in this configuration.", "Leave it out.")
    return point


def _counts(key: str, body: Any, point: Genotype) -> bool:
    """Say whether what an entry says of a parameter, or of each level, counts in its point."""
    if isinstance(body, list):
        return f"{key}.{len(body)}" in point.values
    return any(key in (name, name.partition(".")[0]) for name in point.values)


def _value(parameter: Parameter, given: dict[str, Scalar]) -> Scalar:
    """Return what an entry says of a parameter; its only choice where it has but one."""
    if parameter.name not in given and parameter.is_fixed:
        return parameter.choices[0]
    if parameter.name not in given:
        choices = ", ".join(shown(choice) for choice in parameter.choices)
        raise SpaceError(f"{parameter.name} has no value.", remedy=f"Choose from {choices}.", parameter=parameter.name)
    value = given[parameter.name]
    same = [c for c in parameter.choices if c == value and isinstance(c, bool) == isinstance(value, bool)]
    return same[0] if same else value


def _by_parameter(
    document: Document, where: KeyPath, entry: dict[str, Any], known: dict[str, Parameter]
) -> dict[str, Scalar]:
    """Return an entry's values by the parameters' names, those of each level spread out."""
    given: dict[str, Scalar] = {}
    for key, body in entry.items():
        if key not in known and key not in DIMENSIONS:
            near = difflib.get_close_matches(key, [*DIMENSIONS, *known], n=1)
            hint = f"Did you mean {near[0]}?" if near else "It takes the dimensions of the space."
            raise document.fault((*where, key), "unknown parameter.", hint)
        levels = isinstance(body, list) and key in DIMENSIONS and DIMENSIONS[key].per_level
        if levels:
            given |= {f"{key}.{level}": value for level, value in enumerate(body, start=1)}
        elif isinstance(body, list | dict):
            raise document.fault((*where, key), f"{shown(body)} is not one value.", "Write one of its choices.")
        else:
            given |= {name: body for name in known if name == key or _dimension(known[name]) == key}
    return given


def _dimension(parameter: Parameter) -> str:
    return parameter.name.partition(".")[0]


def _preset(
    document: Document, where: KeyPath, entry: dict[str, Any], space: SearchSpace, *, upscale: int, in_channels: int
) -> Genotype:
    """Return the point that a preset's network is."""
    here = (*where, "preset")
    if len(entry) > 1:
        raise document.fault(where, "a preset stands alone.", "Remove the other keys, or name every value instead.")
    config = _config_of(document, here, str(entry["preset"]), upscale=upscale, in_channels=in_channels)
    if (config.upscale, config.in_channels) != (upscale, in_channels):
        raise document.fault(
            here,
            f"{entry['preset']} is a network for scale {config.upscale} and {count(config.in_channels, 'channel')}, "
            f"the task has {upscale} and {in_channels}.",
            "Enqueue presets of the same task.",
        )
    try:
        return encode(config, space)
    except (SpaceError, ConfigError) as error:
        remedy = error.remedy if isinstance(error, SpaceError) else "Leave it out."
        problem = error.problem if isinstance(error, SpaceError) else str(error).splitlines()[0]
        raise document.fault(here, f"{entry['preset']} is no point of the space: {problem}", remedy) from error


def _config_of(document: Document, here: KeyPath, name: str, *, upscale: int, in_channels: int) -> HFIRConfig:
    """Return the network of a preset's folder, or a named one, which fits any task."""
    beside = Path(document.source).parent / name if Path(document.source).is_file() else Path(name)
    folder = beside if beside.exists() else Path(name)
    card = folder / PRESET_FILE if folder.is_dir() else folder
    if card.is_file():
        try:
            return HFIRConfig.from_dict(YAML(typ="safe").load(card)["config"])
        except (YAMLError, ConfigError, KeyError, TypeError) as error:
            raise InputError(f"{card}: holds no network ({error}).\n  Give the folder of a preset.") from error
    from hfir.presets import list_presets, preset_config  # here: it loads torch

    if name in list_presets():
        return preset_config(name, upscale=upscale, in_channels=in_channels)
    raise document.fault(
        here, f"there is no preset {name}.", f"Give a preset's folder, or one of {', '.join(list_presets())}."
    )
