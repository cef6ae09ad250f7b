"""
Workers in processes of their own, and clients that only record for them.
"""

import asyncio
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from prometheus_client.parser import text_string_to_metric_families

from exponea_async import Configuration, Exponea, PostgresSettings, QueueSettings, UploadSettings
from exponea_async.sandbox import Sandbox
from helpers.clients import PROJECT, SOMEONE, numbered_events
from helpers.waiting import until

#: Runs the command with a shorter lease, so that tests need not wait for the end of the usual one.
SHORT_LEASES = """
import sys
from exponea_async._pipeline import acknowledger, uploader
acknowledger.LEASE = uploader.LEASE = 1.0
from exponea_async.cli import main
sys.exit(main(sys.argv[1:]))
"""
TIMEOUT = 60.0

Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


@define
class WorkerProcess:
    """
    A worker that runs.

    Attributes:
        process: Its process.
        output: Where its standard output goes.
        log_file: Where its log goes.
    """

    process: "subprocess.Popen[bytes]"
    output: Path
    log_file: Path

    @property
    def log(self) -> str:
        """What it has logged so far."""
        return self.log_file.read_text(encoding="utf-8")

    @property
    def url(self) -> str:
        """The address of its health and metrics; empty until it listens."""
        return self.output.read_text(encoding="utf-8").partition("\n")[0]

    async def get(self, path: str) -> tuple[int, str]:
        """Return the status and the text of a response."""
        await until(lambda: bool(self.url))
        return await asyncio.to_thread(_get, f"{self.url}{path}")

    async def metrics(self) -> Samples:
        """Return its metrics, by name and labels, as the parser of Prometheus reads them."""
        status, text = await self.get("/metrics")
        assert status == 200
        return {
            (sample.name.removeprefix("exponea_async_"), frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    async def metric(self, name: str, **labels: str) -> float:
        """Return the value of a metric."""
        return (await self.metrics())[name, frozenset(labels.items())]

    async def wait_for(self, name: str, condition: Callable[[float], bool], **labels: str) -> float:
        """Wait until the value of a metric meets a condition, and return it."""
        for _ in range(int(TIMEOUT / 0.05)):
            value = (await self.metrics()).get((name, frozenset(labels.items())), 0.0)
            if condition(value):
                return value
            await asyncio.sleep(0.05)
        pytest.fail(f"The metric {name} of {labels} has not changed from {value}.")

    async def wait_ready(self, *, ready: bool = True) -> str:
        """Wait until it is ready, or until it is not; return the text of the response."""
        for _ in range(int(TIMEOUT / 0.05)):
            status, text = await self.get("/readyz")
            if (status == 200) is ready:
                return text
            assert self.process.poll() is None, self.log
            await asyncio.sleep(0.05)
        pytest.fail(f"The worker did not become {'ready' if ready else 'unready'}: {text}{self.log}")

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal to it."""
        self.process.send_signal(number)

    async def wait(self) -> int:
        """Wait for its end, and return its exit code."""
        return await asyncio.to_thread(self.process.wait, TIMEOUT)

    async def stop(self) -> int:
        """Stop it as a supervisor does, and return its exit code."""
        self.signal()
        return await self.wait()


@define
class Workers:
    """
    Starts workers and clients on one schema.

    Attributes:
        environment: The settings of the workers.
        folder: Where their output goes.
        processes: Those that were started.
        clients: The clients that were started.
    """

    environment: dict[str, str]
    folder: Path
    processes: list[WorkerProcess] = field(factory=list)
    clients: list[Exponea] = field(factory=list)

    async def start(self, *args: str, **variables: str) -> WorkerProcess:
        """Start a worker with some more variables, without their prefix; it need not be ready yet."""
        return self._run(("-m", "exponea_async"), ("--port", "0", *args), variables)

    async def start_without_port(self) -> WorkerProcess:
        """Start a worker that serves neither health nor metrics."""
        return self._run(("-m", "exponea_async"), (), {})

    async def start_with_short_leases(self) -> WorkerProcess:
        """Start a worker whose leases end after a second without renewal."""
        return self._run(("-c", SHORT_LEASES), ("--port", "0"), {})

    def _run(self, program: Sequence[str], args: Sequence[str], variables: Mapping[str, str]) -> WorkerProcess:
        output, log = (self.folder / f"worker{len(self.processes)}.{end}" for end in ("out", "log"))
        own = {f"EXPONEA_{name}": value for name, value in variables.items()}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("EXPONEA_")}
        command = [sys.executable, *program, "worker", *args]
        process = _start(command, inherited | self.environment | own, output, log)
        self.processes.append(WorkerProcess(process, output, log))
        return self.processes[-1]

    async def start_ready(self, *args: str, **variables: str) -> WorkerProcess:
        """Start a worker, and wait until it is ready."""
        worker = await self.start(*args, **variables)
        await worker.wait_ready()
        return worker

    async def producer(self, **settings: Any) -> Exponea:
        """Start a client that only records."""
        usual: dict[str, Any] = {"project_token": PROJECT, "authorization_token": "key", "preload_messages": False}
        configuration = Configuration(
            base_url=self.environment["EXPONEA_BASE_URL"],
            storage=self.environment["EXPONEA_STORAGE"],
            postgres=PostgresSettings(schema=self.environment["EXPONEA_POSTGRES_SCHEMA"]),
            upload=UploadSettings(enabled=False),
            queue=QueueSettings(**{"lock_timeout": TIMEOUT, **settings.pop("queue", {})}),
            **usual | settings,
        )
        client = Exponea(configuration)
        await client.start()
        self.clients.append(client)
        return client

    async def aclose(self) -> None:
        """Close the clients and kill the workers that still run."""
        for client in self.clients:
            await client.aclose(0)
        for worker in self.processes:
            worker.process.kill()
            await worker.wait()


def worker_environment(sandbox: Sandbox, url: str, schema: str) -> dict[str, str]:
    """Return the variables of a worker."""
    return {
        "EXPONEA_PROJECT_TOKEN": PROJECT,
        "EXPONEA_AUTHORIZATION_TOKEN": "key",
        "EXPONEA_BASE_URL": sandbox.url,
        "EXPONEA_STORAGE": url,
        "EXPONEA_POSTGRES_SCHEMA": schema,
        "EXPONEA_UPLOAD_BACKOFF_INITIAL": "0.01",
        "EXPONEA_UPLOAD_BACKOFF_MAX": "0.05",
        "EXPONEA_UPLOAD_LINGER_MAX": "0",
        "EXPONEA_UPLOAD_REQUESTS_PER_SECOND": "10000",
        # As that of the clients.
        "EXPONEA_UPLOAD_ENABLED": "false",
    }


async def record(client: Exponea, count: int, start: int = 0) -> None:
    """Record numbered events."""
    with client.bind(client.for_customer(SOMEONE)):
        await client.track_many(numbered_events(count, start))


def numbers(sandbox: Sandbox, project: str = PROJECT) -> list[int]:
    """Return the numbers of the events that have arrived, in order."""
    return sorted(event.properties["number"] for event in sandbox.engine.events(project))


@pytest.fixture
async def workers(sandbox: Sandbox, postgres_url: str, postgres_schema: str, tmp_path: Path) -> AsyncIterator[Workers]:
    """Starts workers and clients on a schema of their own, and ends them after the test."""
    started = Workers(worker_environment(sandbox, postgres_url, postgres_schema), tmp_path)
    yield started
    await started.aclose()


def _start(command: list[str], environment: Mapping[str, str], output: Path, log: Path) -> "subprocess.Popen[bytes]":
    with output.open("wb") as out, log.open("wb") as err:
        return subprocess.Popen(command, env=environment, stdout=out, stderr=err)


def _get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
