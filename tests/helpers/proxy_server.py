"""
A real HTTP proxy, in a process of its own.
"""

import asyncio
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from helpers.waiting import until


class ProxyServer:
    """
    An HTTP proxy on a free port of 127.0.0.1 while it is entered.

    Args:
        directory: An empty directory for its files.
        credentials: The ``name:password`` that it asks for, if any.

    Attributes:
        address: Its host and port.
    """

    def __init__(self, directory: Path, credentials: str = "") -> None:
        self._port_file = directory / "port"
        self._credentials = credentials
        self.address = ""

    async def __aenter__(self) -> Self:
        options = ["--hostname", "127.0.0.1", "--port", "0", "--port-file", str(self._port_file)]
        options += ["--num-workers", "1", "--num-acceptors", "1", "--log-level", "CRITICAL"]
        if self._credentials:
            options += ["--basic-auth", self._credentials]
        self._process = await asyncio.create_subprocess_exec(sys.executable, "-m", "proxy", *options)
        await until(lambda: self._port_file.exists() and bool(self._port_file.read_text().strip()))
        self.address = f"127.0.0.1:{self._port_file.read_text().strip()}"
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.terminate()
        await self._process.wait()
