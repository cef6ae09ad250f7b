"""
``exponea-async demo``: simulate one hour of a shop that tracks through an outage to the local sandbox.
"""

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from pathlib import Path

from attrs import asdict, frozen

from exponea_async.cli.commands.sandbox import page_url, stop_event
from exponea_async.cli.demo.ledger import Balance, Ledger
from exponea_async.cli.demo.shop import HOUR, Tracked, Visit, visits
from exponea_async.cli.options import Commands, add_json_option, add_parser, open_client, positive_integer, seconds
from exponea_async.cli.terminal import Exit, Progress, ProgressLine, number, print_json, print_summary
from exponea_async.client import Exponea
from exponea_async.config import Configuration, UploadSettings
from exponea_async.errors import StorageError
from exponea_async.hooks import DeliveryEvent, Hooks
from exponea_async.models import Event, PurchasedItem
from exponea_async.observability import Stats
from exponea_async.sandbox import Fault, Faults, Sandbox
from exponea_async.storage import create_storage
from exponea_async.storage.base import DeadLetter
from exponea_async.subjects import CustomerTracker, Device

CUSTOMERS = 400
SECONDS = 12.0
PROJECT = "demo-shop"
#: When the faults start and end, in seconds of the hour.
REJECTIONS, OUTAGE, RECOVERY = 8 * 60.0, 24 * 60.0, 34 * 60.0
REJECTED = 5
#: How long to wait at the end until everything is delivered, in seconds.
DELIVERY_TIMEOUT = 60.0


def register(commands: Commands) -> None:
    """Add the command."""
    parser = add_parser(
        commands,
        "demo",
        "simulate one hour of a shop that tracks to the local sandbox, through an outage",
        "Everything is real except the visitors: the client, the file of the queue (in a temporary folder), HTTP, and\n"
        "a sandbox on a free port, which is down for ten of the sixty minutes and rejects a few commands. At the end\n"
        "the events in the sandbox are compared with those that were tracked; the exit code is 1 if any were lost.",
    )
    parser.add_argument(
        "--customers", type=positive_integer, default=CUSTOMERS, help=f"number of visitors, {CUSTOMERS} by default"
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="the seed of the visits; the same seed makes the same visits"
    )
    parser.add_argument(
        "--seconds", type=_duration, default=SECONDS, help=f"how long the simulation takes, {SECONDS:g} by default"
    )
    parser.add_argument(
        "--page", action="store_true", help="leave the sandbox open, with its page of what arrived, until Ctrl-C"
    )
    add_json_option(parser)
    # The demo prints what happens in the outage, so log lines of the SDK would only repeat it.
    parser.set_defaults(run=run, log_level=logging.ERROR)


def _duration(string: str) -> float:
    value = seconds(string)
    if not 0 < value <= HOUR:
        raise argparse.ArgumentTypeError(f"must be a number of seconds above 0 and at most {HOUR:g}, got {string!r}")
    return value


class ShopClock:
    """
    The clock of the shop: one hour that ends now, in fast motion.

    Args:
        seconds: How long the hour takes in reality.
    """

    def __init__(self, seconds: float) -> None:
        self._speed = HOUR / seconds
        self._opened_at = time.time() - HOUR
        self._started_at = time.monotonic()

    def __call__(self) -> float:
        """Return the time in the shop in UNIX seconds."""
        return self._opened_at + self.second

    @property
    def second(self) -> float:
        """The second of the hour."""
        return (time.monotonic() - self._started_at) * self._speed

    async def wait_until(self, second: float) -> None:
        """Wait until a second of the hour."""
        await asyncio.sleep(max(0.0, second - self.second) / self._speed)

    def __str__(self) -> str:
        minutes, seconds = divmod(int(min(self.second, HOUR)), 60)
        return f"{minutes:02}:{seconds:02}"


@frozen
class Result:
    """
    The result of the demo.

    Attributes:
        balance: What became of everything that was tracked.
        stats: The counters of the client.
        seconds: How long it took, including the last delivery.
    """

    balance: Balance
    stats: Stats
    seconds: float

    def summary(self) -> dict[str, int | float]:
        """Return what is printed."""
        counts = asdict(self.balance)
        lost = counts.pop("lost")
        rate = round(self.balance.tracked / self.seconds, 1)
        return {**counts, "retried": self.stats.retried, "lost": lost, "events/s": rate}


async def run(args: argparse.Namespace) -> int:
    """Run the demo."""
    progress = Progress()
    progress.print(f"One hour of a shop with {number(args.customers)} customers, in about {args.seconds:g} seconds.")
    async with Sandbox(seed=args.seed) as sandbox:
        if args.page:
            progress.print(f"Page: {page_url(sandbox)}")
        result = await simulate(sandbox, visits(args.customers, args.seed), args.seconds, progress)
        if args.json:
            print_json({**result.summary(), "seconds": round(result.seconds, 2)})
        else:
            print_summary(result.summary())
        if args.page:
            await _leave_open(sandbox, progress)
    return Exit.FAILED if result.balance.lost else Exit.DONE


async def simulate(sandbox: Sandbox, hour: list[Visit], seconds: float, progress: Progress) -> Result:
    """
    Simulate the hour and return its result.

    Args:
        sandbox: The platform, which has to be running.
        hour: The visits.
        seconds: How long the hour takes.
        progress: Where progress is printed.
    """
    ledger = Ledger()
    with tempfile.TemporaryDirectory(prefix="exponea-demo-") as folder:
        configuration = Configuration(
            project_token=PROJECT,
            authorization_token="demo-key",  # noqa: S106 - the sandbox accepts any key
            base_url=sandbox.url,
            storage=Path(folder) / "queue.sqlite",
            upload=UploadSettings(backoff_initial=0.1, backoff_max=1.0, linger_max=0.0),
        )
        started_at = time.monotonic()
        simulation = _Simulation(configuration, sandbox.faults, ledger, seconds, progress)
        stats = await simulation.run(hour)
        took = time.monotonic() - started_at
        balance = ledger.balance(sandbox.engine, await _dead_letters(configuration), stats.tracked)
    return Result(balance, stats, took)


async def _leave_open(sandbox: Sandbox, progress: Progress) -> None:
    # Only from here on Ctrl-C is not an interruption, and the exit code is that of the result.
    stop = stop_event()
    # The result may be read through a pipe, which is not flushed before the end otherwise.
    sys.stdout.flush()
    progress.print(f"The page stays open at {page_url(sandbox)} until Ctrl-C.")
    await stop.wait()


class _Simulation:
    """The visitors, the client and the faults of the hour."""

    def __init__(
        self, configuration: Configuration, faults: Faults, ledger: Ledger, seconds: float, progress: Progress
    ) -> None:
        self._configuration = configuration
        self._faults = faults
        self._ledger = ledger
        self._progress = progress
        self._clock = ShopClock(seconds)

    async def run(self, hour: list[Visit]) -> Stats:
        """Run all visits and wait until everything is delivered."""
        hooks = Hooks(before_track=self._ledger.number_event, listeners=[self._on_delivery_event])
        async with open_client(self._configuration, hooks, clock=self._clock) as exponea:
            async with self._progress.refreshing(lambda: self._describe(exponea.stats())):
                await asyncio.gather(self._inject_faults(len(hour)), *(self._visit(exponea, visit) for visit in hour))
                await exponea.flush_data(DELIVERY_TIMEOUT)
                # The shop closes, which ends the sessions that are still open.
                await exponea.aclose(DELIVERY_TIMEOUT, end_sessions=True)
            return exponea.stats()

    async def _visit(self, exponea: Exponea, visit: Visit) -> None:
        is_web = visit.kind == "web"
        subject = exponea.for_customer({"registered": visit.name}) if is_web else exponea.device(visit.name)
        for step in visit.steps:
            await self._clock.wait_until(step.second)
            await self._track(subject, step.tracked)

    async def _track(self, subject: Device | CustomerTracker, tracked: Tracked) -> None:
        if isinstance(tracked, Event):
            await subject.track_event(tracked)
        elif isinstance(tracked, PurchasedItem):
            await subject.track_payment_event(tracked)
        else:
            await subject.identify_customer(self._ledger.number_customer(tracked))

    async def _inject_faults(self, customers: int) -> None:
        """Reject a few commands; later fail for ten minutes, also after some requests were already processed."""
        await self._clock.wait_until(REJECTIONS)
        self._faults.add(Fault("reject", every_command=max(1, customers // 5), times=REJECTED))
        await self._clock.wait_until(OUTAGE)
        self._print("the platform goes down; tracking continues")
        self._faults.add(
            Fault("drop_after", times=2),
            Fault("status", status=503, retry_after=0.5, probability=0.6),
            Fault("drop"),
        )
        await self._clock.wait_until(RECOVERY)
        # Faults with a number of times stay active until they have happened that often.
        remaining = [fault for fault in self._faults.active if fault.times is not None]
        self._faults.clear()
        self._faults.add(*remaining)
        self._print("the platform is up again")

    def _on_delivery_event(self, event: DeliveryEvent) -> None:
        if event.kind == "unavailable":
            self._print(f"{event.reason}; events wait in the queue")
        elif event.kind == "resumed":
            self._print("events are delivered again")
        elif event.kind == "rejected":
            self._print(f"a command becomes a dead letter: {event.reason}")

    def _print(self, message: str) -> None:
        self._progress.print(f"{self._clock}  {message}")

    def _describe(self, stats: Stats) -> ProgressLine:
        waiting = stats.tracked - stats.delivered - stats.rejected
        text = (
            f"{self._clock}  {number(stats.tracked)} tracked, {number(stats.delivered)} delivered, "
            f"{number(waiting)} waiting"
        )
        return ProgressLine(text, min(1.0, self._clock.second / HOUR))


async def _dead_letters(configuration: Configuration) -> list[DeadLetter]:
    storage = create_storage(configuration, _raise)
    await storage.open()
    try:
        return await storage.dead(configuration.queue.max_records)
    finally:
        await storage.aclose()


def _raise(error: StorageError) -> None:
    raise error
