"""`dashboard`: optuna-dashboard on a run, which looks and does not touch. Loads no torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from optuna.storages import BaseStorage

from search.cli.consoles import output_console
from search.store import opened_storage
from search.types import InputError

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
READS = ("GET", "HEAD")


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of each request."""


def serve_dashboard(folder: Path, *, host: str, port: int) -> None:
    """Serve optuna-dashboard on a run until it is interrupted.

    Raises:
        InputError: If the folder holds no run, optuna-dashboard is not installed, or the port cannot be had.
        StoreError: If the run's records cannot be read.
    """
    with opened_storage(folder) as storage:
        app = dashboard_app(storage)
        try:
            server = make_server(host, port, app, server_class=_Server, handler_class=_Handler)
        except (OSError, OverflowError) as error:
            raise InputError(
                f"--host {host} --port {port}: this address cannot be had ({error}).\n  Give another --port."
            ) from error
        with server:
            console = output_console()
            console.print(f"http://{host}:{server.server_port}/dashboard", highlight=False, soft_wrap=True)
            console.print(
                "Read-only: it shows the run, also while it goes on; what changes it is refused. Ctrl-C ends it."
            )
            server.serve_forever()


def dashboard_app(storage: BaseStorage) -> Application:
    """Return optuna-dashboard as a WSGI application that refuses whatever would change a record.

    Raises:
        InputError: If optuna-dashboard is not installed.
    """
    try:
        from optuna_dashboard import wsgi  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise InputError(
            f"optuna-dashboard cannot be imported ({error}).\n  Install it: pip install 'hfir-search[dashboard]'."
        ) from error
    return read_only(wsgi(storage))


def read_only(app: Application) -> Application:
    """Return an application that answers questions and refuses changes."""

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in READS:
            return app(environ, start)
        start("403 Forbidden", [("Content-Type", "application/json")])
        return [json.dumps({"reason": "hfir-search shows this run read-only; the search alone writes."}).encode()]

    return answer
