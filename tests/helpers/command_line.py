"""
Commands that run against a sandbox, which is served from a thread because a command runs an event loop of its own.
"""

import asyncio
import io
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from attrs import frozen

from exponea_async.cli import main
from exponea_async.sandbox import Fault, Sandbox
from helpers.environment import Environment

PROJECT = "shop"
SECRET = "s3cr3t-key-of-the-shop"
TIMEOUT = 60.0


@frozen
class Result:
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@frozen
class CommandLine:
    """A sandbox, an environment with its address and a key, and a folder for files."""

    sandbox: Sandbox
    folder: Path

    def run(self, *args: str | Path) -> Result:
        """Run a command in this process, and check that it does not print the key."""
        result = run(*args)
        assert SECRET not in result.out + result.err
        return result

    def start(self, *args: str | Path) -> "subprocess.Popen[str]":
        """Start a command in a process of its own."""
        return start(*args)

    def fault(self, kind: Any, **options: Any) -> None:
        """Add a fault to the sandbox."""
        self.sandbox.faults.add(Fault(kind, **options))

    def write(self, name: str, content: str) -> Path:
        """Write a file."""
        path = self.folder / name
        path.write_bytes(content.encode())
        return path

    @property
    def events(self) -> list[Any]:
        """The events in the sandbox."""
        return self.sandbox.engine.events(PROJECT)

    def properties(self, name: str) -> list[Any]:
        """Return one property of all events, sorted."""
        return sorted(event.properties[name] for event in self.events)


def run(*args: str | Path) -> Result:
    """Run a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = main([*map(str, args)])
        except SystemExit as end:
            code = int(end.code or 0)
    return Result(code, out.getvalue(), err.getvalue())


def start(*args: str | Path) -> "subprocess.Popen[str]":
    """Start a command in a process of its own."""
    command = [sys.executable, "-m", "exponea_async", *map(str, args)]
    # A shell lets its background jobs ignore Ctrl-C, and a new process would inherit that.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, handler)


def finish(process: "subprocess.Popen[str]") -> tuple[str, str]:
    """Wait for the end of a command, and return what it printed; a command that does not end is killed."""
    try:
        return process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        raise


def wait_until(condition: Callable[[], Any]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true in time"
        time.sleep(0.01)


@contextmanager
def command_line(folder: Path, environment: Environment, **settings: Any) -> Iterator[CommandLine]:
    """Serve a sandbox with these settings and set the environment for it."""
    with serve_sandbox(**settings) as sandbox, chdir(folder):
        environment(
            EXPONEA_PROJECT_TOKEN=PROJECT,
            EXPONEA_AUTHORIZATION_TOKEN=SECRET,
            EXPONEA_BASE_URL=sandbox.url,
            EXPONEA_STORAGE=folder / "queue.sqlite",
            EXPONEA_QUEUE_LOCK_TIMEOUT="60",
            EXPONEA_UPLOAD_BACKOFF_INITIAL="0.01",
            EXPONEA_UPLOAD_BACKOFF_MAX="0.05",
            EXPONEA_UPLOAD_LINGER_MAX="0",
            EXPONEA_UPLOAD_REQUESTS_PER_SECOND="10000",
        )
        yield CommandLine(sandbox, folder)


@contextmanager
def serve_sandbox(**settings: Any) -> Iterator[Sandbox]:
    """Serve a sandbox from a thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start_sandbox() -> Sandbox:
        sandbox = Sandbox(**settings)
        await sandbox.start()
        return sandbox

    sandbox = asyncio.run_coroutine_threadsafe(start_sandbox(), loop).result()
    try:
        yield sandbox
    finally:
        asyncio.run_coroutine_threadsafe(sandbox.aclose(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
