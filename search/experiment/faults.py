"""Say pydantic's findings in our words: the line, the value, the rule, what to do."""

from __future__ import annotations

import difflib
import sys
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from search.experiment.sections import FAULT, ExperimentFile
from search.experiment.yaml_lines import Document, KeyPath, decimal_point, dotted, shown
from search.types import SpecError


def first_fault(document: Document, error: ValidationError) -> SpecError:
    """Return the finding that stands highest in the file; those of the command line come last."""
    faults = [_fault(document, dict(detail)) for detail in error.errors()]
    return min(faults, key=lambda fault: sys.maxsize if fault.line is None else fault.line)


def _fault(document: Document, detail: dict[str, Any]) -> SpecError:
    path: KeyPath = tuple(detail["loc"])
    kind, context, value = detail["type"], detail.get("ctx", {}), detail["input"]
    if kind == FAULT:
        key = tuple(context["key"].split(".")) if context["key"] else ()
        return document.fault((*path, *key), context["problem"], context["remedy"])
    owner = _section_at(path)
    if kind == "extra_forbidden":
        return document.fault(path, "unknown key.", _nearest(str(path[-1]), list(owner.model_fields)))
    if kind == "missing" and isinstance(path[-1], str):
        return _missing(document, path, _rule(owner, path))
    if kind == "missing":
        path, value = path[:-1], _found(document, path[:-1])[1]
    written, _ = _found(document, path)
    return document.fault(written, f"{shown(value)} {_complaint(kind)}.", _remedy(owner, path, kind, value))


def _missing(document: Document, path: KeyPath, rule: str) -> SpecError:
    """Return the error for a key that is not there, placed where its section stands."""
    source, line = document.origin(path[:-1])
    return SpecError(f"{dotted(path)} is missing.", remedy=f"Add it. {rule}", source=source, line=line)


def _found(document: Document, path: KeyPath) -> tuple[KeyPath, Any]:
    """Follow a path as far as the file goes (a short form has no inside); return how far, and the value there."""
    value: Any = document.data
    for depth, part in enumerate(path):
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return path[:depth], value
    return path, value


def _section_at(path: KeyPath) -> type[BaseModel]:
    """Return the section that the last key of a path belongs to."""
    section: type[BaseModel] = ExperimentFile
    for key in [part for part in path if isinstance(part, str)][:-1]:
        field = section.model_fields.get(key)
        inner = None if field is None else _section_in(field.annotation)
        section = inner or section
    return section


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """Return the section that a type is, or is a list of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _section_in(part)) is not None), None)


def _name(path: KeyPath) -> str:
    return next(part for part in reversed(path) if isinstance(part, str))


def _rule(owner: type[BaseModel], path: KeyPath) -> str:
    """Return the rule of a field, which is its description."""
    return owner.model_fields[_name(path)].description or ""


def _remedy(owner: type[BaseModel], path: KeyPath, kind: str, value: Any) -> str:
    """Return the rule of a field, with what helps against this mistake."""
    annotation, rule = owner.model_fields[_name(path)].annotation, _rule(owner, path)
    if kind.startswith("model_"):
        section = _section_in(annotation)
        return f"Write its keys below it: {', '.join(() if section is None else section.model_fields)}."
    if kind == "string_type" and isinstance(value, int | float):
        return f'{rule} Put it in quotes: "{shown(value)}".'
    if kind == "float_type":
        return decimal_point(value) + rule
    if kind == "string_unicode":
        return f"{rule} An experiment file holds text: rename it, or name it through a link."
    near = difflib.get_close_matches(str(value), _words(annotation), n=1) if kind == "literal_error" else []
    return f"Did you mean {near[0]}? {rule}" if near else rule


def _words(annotation: Any) -> list[str]:
    """Return the words in all literals within a type."""
    parts = get_args(annotation)
    return [word for part in parts for word in ([part] if isinstance(part, str) else _words(part))]


def _nearest(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"Did you mean {near[0]}?" if near else f"Known keys are {', '.join(known)}."


_COMPLAINTS = {
    "int_type": "is not a whole number",
    "int_from_float": "is not a whole number",
    "float_type": "is not a number",
    "finite_number": "is not a number",
    "string_type": "is not text",
    "string_unicode": "is not UTF-8",
    "string_too_short": "is empty",
    "string_too_long": "is too long",
    "string_pattern_mismatch": "is not a legal name",
    "tuple_type": "is not a list",
    "dict_type": "has no keys",
    "model_type": "has no keys",
    "model_attributes_type": "has no keys",
    "greater_than": "is too small",
    "greater_than_equal": "is too small",
    "less_than": "is too large",
    "less_than_equal": "is too large",
    "literal_error": "is not possible",
    "too_short": "has too few entries",
    "missing": "has too few entries",
    "too_long": "has too many entries",
}


def _complaint(kind: str) -> str:
    return _COMPLAINTS.get(kind, f"is not valid ({kind})")
