"""
``exponea-async worker``: upload what other processes have recorded, until a signal stops it.
"""

import argparse
import asyncio
import logging
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from exponea_async._internal.validation import renamed
from exponea_async.cli.options import (
    SETTINGS_HELP,
    Commands,
    add_parser,
    add_settings_options,
    port_number,
    read_configuration,
    seconds,
)
from exponea_async.cli.terminal import Exit, UsageError, print_line
from exponea_async.cli.worker.monitoring import MonitoringServer
from exponea_async.cli.worker.queues import queue_source, worker_settings
from exponea_async.cli.worker.service import Worker
from exponea_async.config import Configuration

#: Where health and metrics are served by default.
HOST = "127.0.0.1"
#: How long the requests under way are waited for at the end, in seconds.
DRAIN = 10.0

DESCRIPTION = f"""\
The worker sends the events of all queues of the configured projects, whichever app groups they have, and ends the
sessions of devices whose processes are gone. Several workers may serve the same queues. It runs until SIGTERM or
Ctrl-C; what it is sending then, it finishes.

{SETTINGS_HELP}"""


def register(commands: Commands) -> None:
    """Add the command."""
    parser = add_parser(
        commands, "worker", "upload what other processes have recorded, until a signal stops it", DESCRIPTION
    )
    parser.add_argument(
        "--port",
        type=port_number,
        help="serve /healthz, /readyz and /metrics (for Prometheus) at this port; 0 chooses a free one",
    )
    parser.add_argument("--host", help=f"the address for --port, {HOST} by default; 0.0.0.0 in a container")
    parser.add_argument(
        "--drain",
        type=seconds,
        default=DRAIN,
        metavar="SECONDS",
        help=f"how long to wait at the end for the requests under way, {DRAIN:g} by default",
    )
    parser.add_argument(
        "--limit-name",
        metavar="NAME",
        help="the name of the rate limit that the workers behind one IP address share: together they make at most "
        "EXPONEA_UPLOAD_REQUESTS_PER_SECOND requests (EXPONEA_UPLOAD_SHARED_RATE_LIMIT), 'default' by default",
    )
    add_settings_options(parser)
    parser.set_defaults(run=run, log_level=logging.INFO)


async def run(args: argparse.Namespace) -> int:
    """Serve the queues until SIGINT or SIGTERM; a second signal interrupts the end, too."""
    if args.host is not None and args.port is None:
        raise UsageError("--host", "has no effect without --port", "Give a --port, too.")
    stop = _stop_event()
    worker = Worker(queue_source(_configuration(args)))
    async with _monitoring(worker, args.host or HOST, args.port):
        try:
            await _serve(worker, stop)
        finally:
            await worker.aclose(args.drain)
    return Exit.DONE


def _configuration(args: argparse.Namespace) -> Configuration:
    configuration = read_configuration(args)
    with renamed(lambda _: "--limit-name"):
        return worker_settings(configuration, args.limit_name)


async def _serve(worker: Worker, stop: asyncio.Event) -> None:
    """Serve the queues until the event is set; an error of the worker ends it."""
    serving, stopping = asyncio.create_task(worker.run()), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
    finally:
        for task in (serving, stopping):
            task.cancel()
        await asyncio.wait([serving, stopping])


@asynccontextmanager
async def _monitoring(worker: Worker, host: str, port: int | None) -> AsyncIterator[None]:
    """Serve health and metrics within the block, where a port is given."""
    if port is None:
        yield
        return
    server = MonitoringServer(worker, host, port)
    try:
        try:
            await server.start()
        except OSError as error:
            trouble = f"port {port} of {host} can't be used: {error.strerror or error}"
            raise UsageError("--port", trouble, "Choose another one; 0 finds a free one.") from None
        # The address stands alone on the first line, for scripts.
        print_line(server.url)
        yield
    finally:
        await server.aclose()


def _stop_event() -> asyncio.Event:
    """Return an event that the first SIGINT or SIGTERM sets; the second one cancels this task."""
    stop, task, loop = asyncio.Event(), asyncio.current_task(), asyncio.get_running_loop()

    def handle() -> None:
        if not stop.is_set():
            stop.set()
        elif task is not None:
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        # Not supported on every platform; there the signal interrupts the command.
        with suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(number, handle)
    return stop
