"""
Servers in processes of their own, which end with the tests, and do not run as root.
"""

import os
import random
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from pwd import getpwnam
from typing import IO, Any, NoReturn
from urllib.parse import urlsplit

import pytest
from attrs import frozen

#: How often a server is started, since another program may take the port that was free.
ATTEMPTS = 5
PATIENCE = 60.0
#: Below the ports that systems give to outgoing connections. A client that connects again and again to a port among
#: those, while no server listens, may connect to itself, and the server could not start again.
PORTS = range(20_000, 32_000)

#: Variables such as PGDATA and PGPORT would change what the programs do.
ENVIRONMENT = {"PATH": os.environ["PATH"], "LC_ALL": "C"}


@frozen
class Account:
    """
    The user as whom servers run: PostgreSQL refuses to run as root.

    Attributes:
        options: The arguments of ``subprocess`` that start a program as this user.
        name: The name of the user, or nothing for the user of the tests.
    """

    options: dict[str, Any]
    name: str = ""

    def create_folder(self, prefix: str) -> Path:
        """Create a folder that this user owns; one of pytest's could not be entered by another user."""
        folder = Path(tempfile.mkdtemp(prefix=prefix))
        if self.name:
            shutil.chown(folder, self.name, getpwnam(self.name).pw_gid)
        return folder

    def run(self, *command: object, folder: str | Path = "/") -> "subprocess.CompletedProcess[str]":
        """Run a program as this user until it ends."""
        return subprocess.run(
            [str(each) for each in command],
            cwd=folder,
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
            **self.options,
        )

    def start(self, *command: object, output: Path, stdin: int = subprocess.DEVNULL) -> "subprocess.Popen[bytes]":
        """Start a program as this user; its output is appended to a file."""
        with output.open("ab") as file:
            return self._start(command, file, stdin)

    def _start(self, command: Sequence[object], output: IO[bytes], stdin: int) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [str(each) for each in command],
            cwd="/",
            env=ENVIRONMENT,
            stdin=stdin,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Ctrl-C in the terminal is for the tests, which end it in their own order.
            start_new_session=True,
            **self.options,
        )


def account() -> Account:
    """Return the user as whom servers run."""
    if os.geteuid() != 0:
        return Account({})
    return Account({"user": "nobody", "group": getpwnam("nobody").pw_gid, "extra_groups": []}, "nobody")


def guard(script: str, *arguments: object) -> "subprocess.Popen[bytes]":
    """
    Start a process that runs a script of the shell when its input is closed.

    It is closed when the process of the tests ends, however that ends.
    """
    command = ["/bin/sh", "-c", f"cat >/dev/null; {script}", "sh", *arguments]
    return account().start(*command, output=Path(os.devnull), stdin=subprocess.PIPE)


def free_port() -> int:
    """Return a port of 127.0.0.1 at which nothing listens, and which no outgoing connection gets."""
    for port in random.sample(PORTS, 100):
        with socket.socket() as listener, suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port
    pytest.fail("There is no free port.")


def port_of(url: str) -> int:
    """Return the port of a URL that names it."""
    port = urlsplit(url).port
    assert port is not None
    return port


def accepts(port: int) -> bool:
    """Return whether a server listens at a port of 127.0.0.1."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def skip_or_fail(missing: str) -> NoReturn:
    """Skip a test for which a program is missing; fail it where the variable ``CI`` is set."""
    # Where everything must be tested, a skipped test would go unnoticed.
    if os.environ.get("CI"):
        pytest.fail(missing)
    pytest.skip(missing)
