"""
Python programs in processes of their own, for what would change the process of the tests: forks, signals, and exits.
"""

import asyncio
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import gettempdir

from attrs import frozen

from exponea_async import Configuration, PostgresSettings

ROOT = Path(__file__).parent.parent.parent
TIMEOUT = 60.0

#: The beginning of each program: a client of the server at the address that is its first argument.
PRELUDE = """
import asyncio, logging, os, sys, threading, time
from exponea_async import *

def client(**settings):
    usual = {"project_token": "shop", "authorization_token": "key", "base_url": sys.argv[1], "storage": sys.argv[2]}
    usual |= {"postgres": PostgresSettings(schema=os.environ.get("SCHEMA", "exponea_async"))}
    usual |= {"queue": QueueSettings(lock_timeout=60.0)}
    return Exponea(Configuration(**(usual | settings)))
"""


@frozen
class Ended:
    """The exit code and the output of a program, and how long it ran in seconds."""

    code: int
    out: str
    err: str
    seconds: float


async def run_program(
    source: str, url: str, queue: Path | Configuration, *options: str, env: Mapping[str, str] | None = None
) -> Ended:
    """Run a program until it ends, with the address of a server and a queue, a path or settings, as its arguments."""
    storage, schema = queue, PostgresSettings().schema
    if isinstance(queue, Configuration):
        storage, schema = queue.storage, queue.postgres.schema  # type: ignore[assignment]
    folder = storage.parent if isinstance(storage, Path) else Path(gettempdir())

    def run() -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, *options, "-c", PRELUDE + source, url, str(storage)]
        environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "SCHEMA": schema, **(env or {})}
        return subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT, check=False, env=environment, cwd=folder
        )

    loop = asyncio.get_running_loop()
    started = loop.time()
    ended = await asyncio.to_thread(run)
    return Ended(ended.returncode, ended.stdout, ended.stderr, loop.time() - started)
