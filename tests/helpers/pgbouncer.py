"""
A PgBouncer in front of the PostgreSQL of the tests, which shares its connections by transactions.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from helpers.postgres_server import PostgresServer
from helpers.server_process import ATTEMPTS, PATIENCE, accepts, account, free_port, guard, skip_or_fail

#: The connections take turns, so that what a client leaves in one of them is not there in its next transaction.
CONFIGURATION = """
[databases]
tests = {database}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 4
server_round_robin = 1
max_client_conn = 500
"""

#: The end of a server, and of what it has written.
END = 'kill -INT "$1"; rm -rf "$2"'


@pytest.fixture(scope="session")
def pgbouncer_url(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of the tests' database through a PgBouncer with pooling by transactions, which all tests share."""
    # It is for administrators, so it may not be where a user's programs are looked for.
    program = shutil.which("pgbouncer", path=os.pathsep.join([os.environ["PATH"], "/usr/sbin"]))
    if program is None:
        skip_or_fail("pgbouncer is not installed; 'make programs' installs it.")
    folder = account().create_folder("exponea-pgbouncer-")
    process, url = _started(program, folder, postgres_server.url)
    end = guard(END, process.pid, folder)
    yield url
    end.communicate(timeout=PATIENCE)
    process.wait(PATIENCE)


def _started(program: str, folder: Path, database: str) -> tuple["subprocess.Popen[bytes]", str]:
    settings, log = folder / "pgbouncer.ini", folder / "log"
    for _ in range(ATTEMPTS):
        port = free_port()
        settings.write_text(CONFIGURATION.format(database=_connection_string(database), port=port), encoding="utf-8")
        process = account().start(program, settings, output=log)
        if _listens(process, port):
            return process, f"postgresql://client@127.0.0.1:{port}/tests"
    pytest.fail(f"PgBouncer does not start:\n{log.read_text(encoding='utf-8')}")


def _connection_string(url: str) -> str:
    parts = urlsplit(url)
    fields = {
        "host": parts.hostname,
        "port": parts.port or 5432,
        "dbname": parts.path[1:],
        "user": parts.username,
        "password": parts.password,
    }
    given = {name: unquote(str(value)) for name, value in fields.items() if value}
    return " ".join(f"{name}='{value}'" for name, value in given.items())


def _listens(process: "subprocess.Popen[bytes]", port: int) -> bool:
    end = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < end:
        if accepts(port):
            return True
        time.sleep(0.01)
    return False
