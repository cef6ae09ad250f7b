"""
A Redis of the tests' own, and worker processes that take their jobs from it.
"""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import pytest
import redis
from attrs import frozen

from exponea_async.sandbox import Sandbox

ROOT = Path(__file__).parent.parent.parent
#: How often a server is started, since another program may take the port that was free.
ATTEMPTS = 5
PATIENCE = 60.0


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Redis that keeps nothing on disk."""
    program = shutil.which("redis-server")
    if program is None:
        missing = "redis-server is not installed; 'make programs' installs it."
        # Where everything must be tested, a skipped test would go unnoticed.
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    folder = tmp_path_factory.mktemp("redis")
    process, url = _started(program, folder)
    yield url
    process.terminate()
    process.wait(PATIENCE)


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """The address of an empty Redis."""
    with redis.Redis.from_url(redis_server) as client:
        client.flushall()
    return redis_server


def _started(program: str, folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    for _ in range(ATTEMPTS):
        port = _free_port()
        options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(folder)]
        process = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        url = f"redis://127.0.0.1:{port}"
        if _answers(url, process):
            return process, url
    pytest.fail("redis-server does not start.")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _answers(url: str, process: subprocess.Popen[bytes]) -> bool:
    end = time.monotonic() + PATIENCE
    with redis.Redis.from_url(url) as client:
        while process.poll() is None and time.monotonic() < end:
            try:
                return bool(client.ping())
            except redis.exceptions.ConnectionError:
                time.sleep(0.01)
    return False


@frozen
class WorkerProcess:
    """
    A worker in a process of its own.

    Attributes:
        process: The process.
        log: The file with its output.
    """

    process: "subprocess.Popen[bytes]"
    log: Path

    @property
    def output(self) -> str:
        """What it has written so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    async def stop(self) -> int:
        """End it as a supervisor does, and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        # The sandbox, to which it still sends, is in this process.
        return await asyncio.to_thread(self.process.wait, PATIENCE)

    def kill(self) -> None:
        """Kill it, and the processes that it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)


def worker_environment(sandbox: Sandbox, storage: Path, redis_url: str = "", **variables: str) -> dict[str, str]:
    """Return the environment of a worker whose client sends to the sandbox."""
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "integrations")]),
        "REDIS_URL": redis_url,
        "EXPONEA_PROJECT_TOKEN": "shop",
        "EXPONEA_AUTHORIZATION_TOKEN": "key",
        "EXPONEA_BASE_URL": sandbox.url,
        "EXPONEA_STORAGE": str(storage),
        "EXPONEA_PRELOAD_MESSAGES": "false",
        "EXPONEA_UPLOAD_REQUESTS_PER_SECOND": "100000",
        "EXPONEA_UPLOAD_LINGER_MAX": "0",
        **variables,
    }


@contextmanager
def worker_process(arguments: Sequence[str], environment: Mapping[str, str], folder: Path) -> Iterator[WorkerProcess]:
    """Run ``python -m`` with these arguments in the block; kill what is left of it at the end."""
    log = folder / f"{arguments[0]}-{time.monotonic_ns()}.log"
    with log.open("wb") as file:
        worker = WorkerProcess(_process(arguments, environment, folder, file), log)
        try:
            yield worker
        finally:
            worker.kill()
            print(worker.output[-5000:])  # noqa: T201 - shown if the test fails


def _process(
    arguments: Sequence[str], environment: Mapping[str, str], folder: Path, log: IO[bytes]
) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", *arguments],
        env=dict(environment),
        cwd=folder,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
