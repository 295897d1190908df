"""Assignments from the command line on top of a file: `--set section.key=value`, values in YAML.

A key is assigned as a whole, with two exceptions that people expect: a bare number for a limit of the budget
replaces its `max` and keeps its `at`, and an assignment of nothing (`--set space.refiner=`) removes the key.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from copy import deepcopy
from typing import Any, NamedTuple

from search.experiment.sections import LIMITS
from search.experiment.yaml_lines import Document, KeyPath, dotted, parse_value, shown
from search.types import SpecError

_LIMIT_PATHS = tuple(("budget", name) for name in LIMITS)
_DATA_PATH = ("task", "data")


class Assignment(NamedTuple):
    """One `--set`: where, what (None removes), and how the user wrote it."""

    keys: tuple[str, ...]
    value: Any
    source: str

    def fault(self, problem: str, remedy: str) -> SpecError:
        """Return the error for this assignment."""
        return SpecError(problem, remedy=remedy, source=self.source)


def override(document: Document, assignments: Sequence[str], option: str = "--set") -> Document:
    """Return the document with assignments applied, the later on top of the earlier.

    Raises:
        SpecError: If an assignment has no `=`, its value is not YAML, its path leads into a value that has no
            keys, or it removes what is not there.
    """
    result = Document(deepcopy(document.data), document.source, dict(document.origins))
    for text in assignments:
        assignment = _parsed(text, f"{option} {text}")
        if assignment.value is None:
            _remove(result, assignment)
        else:
            _assign(result, assignment)
    return result


def _parsed(text: str, source: str) -> Assignment:
    path, separator, raw = text.partition("=")
    keys = tuple(key.strip() for key in path.split("."))
    if not separator or not all(keys):
        raise SpecError(
            "an assignment is written section.key=value.",
            remedy="For instance: --set proxy.rungs=[100,400]",
            source=source,
        )
    return Assignment(keys, parse_value(raw, source), source)


def _assign(document: Document, assignment: Assignment) -> None:
    *parents, last = assignment.keys
    path, data = (), document.data
    for key in parents:
        path = (*path, key)
        data = _opened(document, data, path, assignment)
    path, value = (*path, last), assignment.value
    if path in _LIMIT_PATHS and isinstance(data.get(last), dict) and not isinstance(value, dict):
        path, data = (*path, "max"), data[last]
    data[path[-1]] = value
    _forget(document, path)
    document.origins[path] = (assignment.source, None)


def _opened(document: Document, data: dict[str, Any], path: KeyPath, assignment: Assignment) -> dict[str, Any]:
    """Return the mapping under the last key of a path; make one where there is none or a short form."""
    key = str(path[-1])
    if key not in data:
        document.origins[path] = (assignment.source, None)
    child = data.setdefault(key, {})
    if isinstance(child, dict):
        return child
    if path in _LIMIT_PATHS:
        document.origins[(*path, "max")] = document.origin(path)
        data[key] = {"max": child}
    elif path == _DATA_PATH:
        document.origins[path] = (assignment.source, None)
        data[key] = {}
    else:
        raise assignment.fault(
            f"{dotted(path)} is {shown(child)}, which has no keys.", f"Assign to {dotted(path)} as a whole."
        )
    return data[key]


def _remove(document: Document, assignment: Assignment) -> None:
    *parents, last = assignment.keys
    data: Any = document.data
    for key in parents:
        data = data.get(key) if isinstance(data, dict) else None
    if not isinstance(data, dict) or last not in data:
        near = difflib.get_close_matches(last, list(data) if isinstance(data, dict) else [], n=1)
        raise assignment.fault(
            f"{'.'.join(assignment.keys)} is not in the file, so it cannot be removed.",
            f"Did you mean {near[0]}?" if near else "Write a value after the '=', or leave this out.",
        )
    del data[last]
    _forget(document, assignment.keys)


def _forget(document: Document, path: KeyPath) -> None:
    """Drop the origins of a value and of all within it."""
    for known in [known for known in document.origins if known[: len(path)] == path]:
        del document.origins[known]
