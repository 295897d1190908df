"""Which machine a figure was taken on, and with which code: figures of two machines never share an axis."""

from __future__ import annotations

import hashlib
import os
import platform
from functools import cache
from importlib import metadata
from pathlib import Path

from platformdirs import user_cache_path

import hfir


@cache
def host_name() -> str:
    """Return a short name of this machine: processor, cores, node."""
    return f"{_processor()} x{os.cpu_count()} ({platform.node()})"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@cache
def versions() -> dict[str, str]:
    """Return the versions that figures depend on."""
    packages = ("torch", "optuna", "numpy", "hfir-search")
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed as a package"
    return found


@cache
def network_code() -> str:
    """Return a hash of the network's source: a latency holds for the code that it was measured with."""
    digest = hashlib.blake2b(digest_size=8)
    folder = Path(str(hfir.__file__)).parent
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def cache_folder(what: str) -> Path:
    """Return the folder of what this user's programs remember, e.g. `latency`; deleting it is safe."""
    return user_cache_path("hfir-search") / what
