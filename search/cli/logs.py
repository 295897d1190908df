"""Where log lines go while a command works."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.console import Console
from rich.logging import RichHandler

from search.evaluation import made_up

_PACKAGES = ("search", "hfir")


@contextmanager
def logging_to(*handlers: logging.Handler) -> Iterator[None]:
    """Send what both packages log to some handlers; they are closed in the end."""
    loggers = [logging.getLogger(name) for name in _PACKAGES]
    for logger in loggers:
        logger.setLevel(logging.INFO)
        for handler in handlers:
            logger.addHandler(handler)
    made_up.warn()
    try:
        yield
    finally:
        for handler in handlers:
            for logger in loggers:
                logger.removeHandler(handler)
            handler.close()


class _FileLog(logging.FileHandler):
    """A log that nobody waits for: where it cannot be written, the store cannot either, and says so."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass

    def close(self) -> None:
        with suppress(OSError):
            super().close()


def file_log(path: Path) -> logging.Handler:
    """Return a handler that appends dated lines to a file."""
    handler = _FileLog(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    return handler


def shown_log(errors: Console) -> logging.Handler:
    """Return a handler for standard error: everything where it is no terminal, else warnings.

    On a terminal a live display tells the rest, and must not be torn apart by plain lines.
    """
    if not errors.is_terminal:
        return logging.StreamHandler()
    handler = RichHandler(console=errors, show_path=False, show_time=False)
    handler.setLevel(logging.WARNING)
    return handler
