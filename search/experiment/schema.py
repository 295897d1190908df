"""The experiment file as JSON Schema, for editors: completion, descriptions and red lines while writing.

It is made from what the loader checks with, so it cannot disagree; it is weaker, for some rules look across keys.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from search.experiment.sections import ExperimentFile
from search.experiment.table import DIMENSIONS, MAX_LEVELS, Dimension

Schema = dict[str, Any]


def json_schema() -> Schema:
    """Return the schema of a whole experiment file (draft 2020-12)."""
    made = _tidy(ExperimentFile.model_json_schema())
    made["properties"]["space"] = _space()
    for dimension in DIMENSIONS.values():
        made["$defs"][dimension.name] = dimension.values.schema
        made["$defs"][_choices(dimension)] = {"anyOf": _short_forms(dimension)}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "hfir-search experiment",
        **made,
    }


def write_schema(path: Path) -> None:
    """Write the schema to a file; `spaces/schema.json` is where editors look for it."""
    path.write_text(json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _tidy(node: Any) -> Any:
    """Drop pydantic's titles, and null: a file leaves a key out rather than write nothing."""
    if isinstance(node, list):
        return [_tidy(item) for item in node if item != {"type": "null"}]
    if not isinstance(node, dict):
        return node
    tidy = {key: _tidy(value) for key, value in node.items() if not _is_noise(key, value)}
    if len(tidy.get("anyOf", ())) == 1:
        tidy |= tidy.pop("anyOf")[0]
    return tidy


def _is_noise(key: str, value: Any) -> bool:
    """Say whether a key tells nobody anything: a default of null, or of a whole section."""
    return (key == "title" and isinstance(value, str)) or (
        key == "default" and (value is None or isinstance(value, dict))
    )


def _space() -> Schema:
    return {
        "type": "object",
        "description": "The dimensions of the network that are searched; what is not named stays at its default.",
        "properties": {name: _dimension(dimension) for name, dimension in DIMENSIONS.items()},
        "additionalProperties": False,
    }


def _dimension(dimension: Dimension) -> Schema:
    forms = _forms(dimension)
    if dimension.per_level:
        forms.append(_each_level(dimension))
    needs = dimension.needs
    only = f" Counts only where {needs.parent} is {needs.text}." if needs else ""
    return {
        "description": f"{dimension.about} {dimension.rule[0].upper()}{dimension.rule[1:]}.{only}",
        "default": dimension.default,
        "anyOf": forms,
    }


def _forms(dimension: Dimension) -> list[Schema]:
    """Return the forms that a dimension can be written in: its choices, and the same with a condition."""
    long: Schema = {
        "type": "object",
        "properties": {"choices": _ref(_choices(dimension))},
        "required": ["choices"],
        "additionalProperties": False,
    }
    forms = [_ref(_choices(dimension)), long]
    if dimension.off is None:
        return forms
    ranges = [_range(dimension)] if _is_number(dimension) else []
    return [forms[0], *(_with_when(form, dimension) for form in (long, *ranges))]


def _short_forms(dimension: Dimension) -> list[Schema]:
    """Return the forms of choices: one value, a list, and for numbers a range."""
    value = _ref(dimension.name)
    forms: list[Schema] = [value, {"type": "array", "items": value, "minItems": 1, "uniqueItems": True}]
    return [*forms, _range(dimension)] if _is_number(dimension) else forms


def _is_number(dimension: Dimension) -> bool:
    return dimension.values.kind in (int, float)


def _choices(dimension: Dimension) -> str:
    return f"{dimension.name}.choices"


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _range(dimension: Dimension) -> Schema:
    kind = "integer" if dimension.values.kind is int else "number"
    return {
        "type": "object",
        "properties": {
            "min": {"type": kind},
            "max": {"type": kind},
            "step": {"type": kind, "exclusiveMinimum": 0},
        },
        "required": ["min", "max"] if kind == "integer" else ["min", "max", "step"],
        "additionalProperties": False,
    }


def _with_when(form: Schema, dimension: Dimension) -> Schema:
    return {**form, "properties": {**form["properties"], "when": _when(dimension)}}


def _when(dimension: Dimension) -> Schema:
    """Return the schema of a condition: values of the dimensions that are decided before."""
    names = list(DIMENSIONS)
    earlier = [DIMENSIONS[name] for name in names[: names.index(dimension.name)]]
    return {
        "type": "object",
        "description": f"{dimension.name} counts only while all of this holds; it is {_text(dimension.off)} otherwise.",
        "properties": {d.name: {"anyOf": _short_forms(d)[:2]} for d in earlier if not d.per_level},
        "minProperties": 1,
        "additionalProperties": False,
    }


def _each_level(dimension: Dimension) -> Schema:
    return {
        "type": "object",
        "description": "One entry for each level.",
        "properties": {str(level): {"anyOf": _forms(dimension)} for level in range(1, MAX_LEVELS + 1)},
        "required": ["1"],
        "additionalProperties": False,
    }


def _text(value: Any) -> str:
    return json.dumps(value).strip('"')
