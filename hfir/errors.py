"""Errors of the network package.

::

    HFIRError
    ├── ConfigError     a configuration breaks a rule of the network; also a ValueError
    ├── WeightsError    a weight file does not fit, or is not ours
    ├── TilingError     tiles cannot be laid, or none is small enough for the memory
    └── ExportError     a network cannot be written in a format, or the file computes something else
"""


class HFIRError(Exception):
    """Base of every error that `hfir` raises on purpose."""


class ConfigError(HFIRError, ValueError):
    """A configuration breaks a rule of the network: says which value, the rule and what fits."""


class WeightsError(HFIRError):
    """A preset or weight file cannot be used: says which file, why, and what to do."""


class TilingError(HFIRError):
    """An image cannot be cut into tiles as asked: says which sizes, the rule and what fits."""


class ExportError(HFIRError):
    """A network cannot be exported: says what refused it or by how much the file differs, and what to do."""
