"""
What the tests of the command line have in common: a sandbox in a thread of its own, and commands that run against it.
"""

import asyncio
import io
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from exponea_async.cli import main
from exponea_async.sandbox import Fault, Sandbox

PROJECT = "shop"
SECRET = "s3cr3t-key-of-the-shop"
PATIENCE = 20.0


@frozen
class Outcome:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@frozen
class Stage:
    """A sandbox, an environment that leads to it, and a folder."""

    sandbox: Sandbox
    folder: Path

    def run(self, *args: str | Path) -> Outcome:
        """Run a command in this process; none ever shows the key."""
        outcome = run(*args)
        assert SECRET not in outcome.out + outcome.err
        return outcome

    def start(self, *args: str | Path) -> "subprocess.Popen[str]":
        """Start a command in a process of its own."""
        return start(*args)

    def fault(self, kind: Any, **more: Any) -> None:
        self.sandbox.faults.add(Fault(kind, **more))

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_bytes(text.encode())
        return path

    @property
    def events(self) -> list[Any]:
        return self.sandbox.engine.events(PROJECT)

    def properties(self, name: str) -> list[Any]:
        """Tell one property of all events, sorted."""
        return sorted(event.properties[name] for event in self.events)


def run(*args: str | Path) -> Outcome:
    """Run a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = main([*map(str, args)])
        except SystemExit as end:
            code = int(end.code or 0)
    return Outcome(code, out.getvalue(), err.getvalue())


def start(*args: str | Path) -> "subprocess.Popen[str]":
    """Start a command in a process of its own."""
    command = [sys.executable, "-m", "exponea_async", *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def until(condition: Callable[[], Any]) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


@contextmanager
def staged(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """Set the stage."""
    with served() as sandbox:
        monkeypatch.chdir(folder)
        monkeypatch.setenv("EXPONEA_PROJECT_TOKEN", PROJECT)
        monkeypatch.setenv("EXPONEA_AUTHORIZATION_TOKEN", SECRET)
        monkeypatch.setenv("EXPONEA_BASE_URL", sandbox.url)
        monkeypatch.setenv("EXPONEA_STORAGE", str(folder / "queue.sqlite"))
        monkeypatch.setenv("EXPONEA_UPLOAD_BACKOFF_INITIAL", "0.01")
        monkeypatch.setenv("EXPONEA_UPLOAD_BACKOFF_MAX", "0.05")
        monkeypatch.setenv("EXPONEA_UPLOAD_REQUESTS_PER_SECOND", "10000")
        yield Stage(sandbox, folder)


@contextmanager
def served() -> Iterator[Sandbox]:
    """Serve a sandbox from a thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def opened() -> Sandbox:
        sandbox = Sandbox()
        await sandbox.start()
        return sandbox

    sandbox = asyncio.run_coroutine_threadsafe(opened(), loop).result()
    try:
        yield sandbox
    finally:
        asyncio.run_coroutine_threadsafe(sandbox.aclose(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
