"""Which reference network is meant: plain, frozen, picklable. Standard library only: reading it loads no torch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from search.types import stable_hash


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferencePlan:
    """A network to compare with: a built-in one, or one by its import path.

    Args:
        name: What it is called in tables and figures; unique in a run.
        network: A name in `search.references.networks.BUILT_IN`; empty for a module.
        module: Import path of a factory, `package.module:Factory`; empty for a built-in network.
        args: Keyword arguments of the factory, JSON values.
        folder: Where a module is looked for first; empty for installed packages alone.
        source: The file or the option that names it, for messages.
        line: Its 1-based line there; None where there is none.
    """

    name: str
    network: str = ""
    module: str = ""
    args: dict[str, Any] = field(default_factory=dict)
    folder: str = ""
    source: str = ""
    line: int | None = None

    @property
    def made(self) -> dict[str, Any]:
        """How the network is made, as JSON values: another answer stands for another network.

        The text of a module that lies in the folder counts; what it imports, and installed packages, do not.
        """
        if self.network:
            return {"network": self.network, "args": self.args}
        file = module_file(self.module, self.folder)
        digest = "" if file is None else hashlib.blake2b(file.read_bytes(), digest_size=8).hexdigest()
        return {"module": self.module, "args": self.args, "code": digest}

    @property
    def key(self) -> str:
        """A stable 16-digit hexadecimal name of how it is made."""
        return stable_hash(self.made)


def module_file(module: str, folder: str) -> Path | None:
    """Return the file in the folder that an import path's module stands for; None where it lies elsewhere."""
    if not folder:
        return None
    stem = Path(folder).joinpath(*module.partition(":")[0].split("."))
    candidates = (stem.with_name(f"{stem.name}.py"), stem / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)
