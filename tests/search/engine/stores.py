"""A PostgreSQL server of our own, for as long as the tests run."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

PASSWORD = f"not-to-be-seen-{secrets.token_hex(8)}"


def why_no_postgres() -> str | None:
    """Say what a test of PostgreSQL lacks here; None: nothing."""
    if find_spec("psycopg") is None:
        return "psycopg is not installed here (pip install 'hfir-search[postgres]')"
    return None if postgres_programs() else "PostgreSQL is not installed here (apt-get install postgresql)"


def postgres_programs() -> Path | None:
    """Return the folder of initdb and pg_ctl, the newest if there are several."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    initdb = found[-1] if found else shutil.which("initdb")
    return None if initdb is None else Path(initdb).parent


@contextmanager
def postgres_server(programs: Path) -> Iterator[str]:
    """Run a server on a socket in a temporary folder; yield the folder, its host. User and database: hfir."""
    home = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))  # a socket's path must be short
    who = {"user": "nobody", "group": "nogroup"} if os.geteuid() == 0 else {}  # PostgreSQL refuses to run as root
    secret = home / "secret"
    secret.write_text(PASSWORD)
    for path in (home, secret):
        shutil.chown(path, **who) if who else None
    data, options = home / "data", f"-k {home} -c listen_addresses='' -c fsync=off -c shared_buffers=4MB"

    def call(program: str, *arguments: object) -> None:
        command = [str(programs / program), *map(str, arguments)]
        done = subprocess.run(command, cwd=home, env={"LC_ALL": "C"}, text=True, stdout=subprocess.PIPE, **who)
        assert done.returncode == 0, done.stdout

    call("initdb", "-D", data, "-U", "hfir", "-A", "scram-sha-256", f"--pwfile={secret}", "--no-sync", "-E", "UTF8")
    call("pg_ctl", "-D", data, "-o", options, "-l", home / "log", "-w", "start")
    try:
        yield str(home)
    finally:
        call("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
        shutil.rmtree(home)


def new_database(host: str) -> str:
    """Make an empty database; return its URL."""
    import psycopg

    name = f"d{secrets.token_hex(6)}"
    with psycopg.connect(host=host, user="hfir", password=PASSWORD, dbname="postgres", autocommit=True) as server:
        server.execute(f"create database {name}".encode())
    return f"postgresql+psycopg://hfir@/{name}?host={host}"
