"""Read YAML and remember where each value stood, so that every fault can be shown with its line."""

from __future__ import annotations

import datetime
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.scalarbool import ScalarBoolean

from search.types import InputError, SpecError

KeyPath = tuple[str | int, ...]
Origin = tuple[str, int | None]
"""The file, or the option, that a value came from, and its 1-based line in a file."""


@dataclass(frozen=True, slots=True)
class Document:
    """Plain data and the origin of each of its values.

    Args:
        data: Dicts, lists and scalars; every key is text, nothing is None.
        source: The file as the user named it.
        origins: Where each key path came from; () is the file itself.
    """

    data: dict[str, Any]
    source: str
    origins: dict[KeyPath, Origin]

    def origin(self, path: KeyPath) -> Origin:
        """Return where a value stands, or else the nearest of what it stands in."""
        while path and path not in self.origins:
            path = path[:-1]
        return self.origins.get(path, (self.source, 1))

    def is_override(self, path: KeyPath) -> bool:
        """Say whether a value came from the command line."""
        return self.origin(path)[1] is None

    def fault(self, path: KeyPath, problem: str, remedy: str) -> SpecError:
        """Return the error for a value, placed where it stands and led by its name."""
        source, line = self.origin(path)
        name = dotted(path)
        return SpecError(f"{name}: {problem}" if name else problem, remedy=remedy, source=source, line=line)


def dotted(path: KeyPath) -> str:
    """Write a path as users do, `proxy.rungs`; positions in lists are left to the line and the value."""
    return ".".join(part for part in path if isinstance(part, str))


def shown(value: Any) -> str:
    """Write a value as it would stand in a file, on one line and not too long."""
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}…"


def decimal_point(value: Any) -> str:
    """Return what to write in place of a number with a decimal comma; empty for anything else."""
    is_comma = isinstance(value, str) and re.fullmatch(r"[+-]?\d+,\d+", value)
    return f"Write a decimal point: {value.replace(',', '.')}. " if is_comma else ""


def read_document(path: Path) -> Document:
    """Read an experiment file.

    Raises:
        InputError: If the file cannot be opened.
        SpecError: If it is not YAML, not a mapping at its top, or has a key twice or without a value.
    """
    source = str(path)
    tree = _parse(_text(path), source, line_offset=1)
    if not isinstance(tree, CommentedMap):
        kind = "nothing" if tree is None else "a list" if isinstance(tree, list) else "no keys"
        raise SpecError(
            f"the file holds {kind} where sections are expected.",
            remedy="An experiment file has sections: name, task, space, budget, objectives, proxy, search, execution.",
            source=source,
            line=1,
        )
    origins: dict[KeyPath, Origin] = {(): (source, 1)}
    return Document(data=_plain(tree, (), source, origins), source=source, origins=origins)


def parse_value(text: str, source: str) -> Any:
    """Read one YAML value that stands in no file.

    Raises:
        SpecError: If it is not YAML, or holds a key twice or without a value.
    """
    tree = _parse(text, source, line_offset=None)
    return None if tree is None else _plain(tree, (), source, {(): (source, None)})


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read: {error.strerror}.\n  Give a file that is there and that you may read."
        ) from error
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SpecError(
            f"not text in UTF-8 (byte {error.start} is 0x{raw[error.start]:02x}).",
            remedy="Give a YAML file, saved as UTF-8.",
            source=str(path),
            line=raw.count(b"\n", 0, error.start) + 1,
        ) from error


def _parse(text: str, source: str, *, line_offset: int | None) -> Any:
    """Return ruamel's tree; `line_offset` is None where lines mean nothing."""
    try:
        return YAML(typ="rt").load(text)
    except (YAMLError, ValueError, RecursionError) as error:
        mark = None
        if isinstance(error, MarkedYAMLError):
            mark = error.problem_mark or error.context_mark
        line = None if line_offset is None else line_offset + (0 if mark is None else mark.line)
        problem, remedy = _explained(error)
        raise SpecError(problem, remedy=remedy, source=source, line=line) from error


def _explained(error: Exception) -> tuple[str, str]:
    """Say in our words what the parser found, and what to do."""
    problem = str((isinstance(error, MarkedYAMLError) and (error.problem or error.context)) or "")
    if isinstance(error, DuplicateKeyError):
        name = re.search(r'key "([^"]*)"', problem)
        return f"{name[1] if name else 'a key'} stands twice.", "Keep one of the two."
    if "'\\t'" in problem:
        return "not valid YAML: a tab.", "Indent by spaces."
    if "<block" in problem:
        return "not valid YAML: the indentation does not fit.", "Keys of one section stand below each other."
    if isinstance(error, MarkedYAMLError):
        problem = problem.removeprefix("but ")
        where = "Check indentation, brackets, quotes and colons on this line and those before."
        return f"not valid YAML: {problem}.", where
    if isinstance(error, RecursionError):
        return "too many brackets within brackets.", "Close each of them; an experiment needs three at most."
    return "not valid YAML: a character or a number cannot be read.", "Save the file as plain text."


def _plain(node: Any, path: KeyPath, source: str, origins: dict[KeyPath, Origin]) -> Any:
    """Turn ruamel's nodes into plain values, noting the line of each."""
    if isinstance(node, CommentedMap):
        return _plain_mapping(node, path, source, origins)
    if isinstance(node, CommentedSeq):
        for i in range(len(node)):
            origins[(*path, i)] = _line(origins[path], node.lc.item(i)[0])
        return [_plain(value, (*path, i), source, origins) for i, value in enumerate(node)]
    return _plain_scalar(node, path, origins[path])


def _plain_mapping(node: CommentedMap, path: KeyPath, source: str, origins: dict[KeyPath, Origin]) -> dict[str, Any]:
    """Make every key text, as it is in JSON: `1:` and `"1":` are one key."""
    data: dict[str, Any] = {}
    places = node.lc.data or {}
    before: tuple[str, Any] = ("", None)
    for key, value in node.items():
        name = key if isinstance(key, str) else shown(key)
        where = (*path, str(name))
        origins[where] = _line(origins[path], places[key][0]) if key in places else origins[path]
        if name in data:
            raise SpecError(
                f"{dotted(where)} stands twice.",
                remedy="Keep one of the two.",
                source=source,
                line=origins[where][1],
            )
        if value is None and _is_number(key) and _is_number(before[1]):
            raise _decimal_comma((*path, before[0]), f"{before[1]}", _digits(key), origins[where])
        data[str(name)] = _plain(value, where, source, origins)
        before = (str(name), value)
    return data


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool | ScalarBoolean)


def _digits(key: Any) -> str:
    """Return a number as it stands in the file, with its leading zeros."""
    return str(key).rjust(getattr(key, "_width", None) or 0, "0")


def _decimal_comma(path: KeyPath, whole: str, part: str, origin: Origin) -> SpecError:
    """Return the error for `{key: 0,004}`, which YAML takes for `{key: 0, 4: }`."""
    return SpecError(
        f"{dotted(path)}: {whole},{part} is not one number: within braces a comma separates entries.",
        remedy=f"Write a decimal point: {path[-1]}: {whole}.{part}.",
        source=origin[0],
        line=origin[1],
    )


def _line(parent: Origin, line: int) -> Origin:
    return parent[0], None if parent[1] is None else line + 1


def _plain_scalar(node: Any, path: KeyPath, origin: Origin) -> Any:
    """Strip ruamel's round-trip subclasses: what stays is exactly bool, int, float or str."""
    if isinstance(node, ScalarBoolean):
        return bool(node)
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return kind(node)
    if isinstance(node, datetime.date):
        return str(node)
    what = "has no value" if node is None else "holds something else than text, numbers, lists and keys"
    raise SpecError(
        f"{dotted(path)}: {what}.",
        remedy="Write a value, or remove the key so that its default counts.",
        source=origin[0],
        line=origin[1],
    )
