"""
``exponea-async demo``: a shop's hour, through a real queue and an outage, into the local sandbox.
"""

import argparse
import asyncio
import logging
import tempfile
import time
from pathlib import Path

from attrs import asdict, frozen

from exponea_async.cli.demo.ledger import Balance, Books
from exponea_async.cli.demo.shop import HOUR, Visit, What, visits
from exponea_async.cli.exits import Exit
from exponea_async.cli.options import Commands, add_json, command, opened, whole
from exponea_async.cli.options import seconds as duration
from exponea_async.cli.terminal import Progress, number, print_facts, print_json
from exponea_async.client import Exponea
from exponea_async.config import Configuration, UploadSettings
from exponea_async.errors import DamagedFileError
from exponea_async.hooks import DeliveryEvent, Hooks
from exponea_async.models import Event, PurchasedItem, Stats
from exponea_async.sandbox import Fault, Faults, Sandbox
from exponea_async.storage import create_storage
from exponea_async.storage.base import DeadLetter
from exponea_async.subjects import CustomerTracker, Device

CUSTOMERS = 400
SECONDS = 12.0
PROJECT = "demo-shop"
#: What goes wrong, and when, in seconds of the hour.
REJECTIONS, OUTAGE, RECOVERY = 8 * 60.0, 24 * 60.0, 34 * 60.0
REJECTED = 5
#: How long the last events may take to arrive, in seconds.
PATIENCE = 60.0


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = command(
        commands,
        "demo",
        "track a shop's busy hour into the local sandbox, through an outage",
        "Everything is real but the visitors: the client, the queue's file (in a temporary folder), HTTP, and a\n"
        "sandbox on a free port that goes down for ten of the sixty minutes and rejects a few commands. In the end\n"
        "the sandbox's books are held against what was tracked; exit code 1 if anything was lost.",
    )
    parser.add_argument("--customers", type=whole, default=CUSTOMERS, help=f"visitors, {CUSTOMERS} by default")
    parser.add_argument("--seed", type=int, default=1, help="of the visitors; the same seed makes the same hour")
    parser.add_argument(
        "--seconds", type=_duration, default=SECONDS, help=f"how long the hour takes, {SECONDS:g} by default"
    )
    add_json(parser)
    # The outage is announced, so what the SDK logs about it would only repeat it.
    parser.set_defaults(run=run, log_level=logging.ERROR)


def _duration(text: str) -> float:
    value = duration(text)
    if not 0 < value <= HOUR:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from above 0 to {HOUR:g}")
    return value


class ShopClock:
    """
    The shop's clock: an hour, ending now, in fast motion.

    Args:
        seconds: How long the hour really takes.
    """

    def __init__(self, seconds: float) -> None:
        self._speed = HOUR / seconds
        self._opened = time.time() - HOUR
        self._started = time.monotonic()

    def __call__(self) -> float:
        """Tell the time in the shop, UNIX seconds."""
        return self._opened + self.second

    @property
    def second(self) -> float:
        """The second of the hour."""
        return (time.monotonic() - self._started) * self._speed

    async def until(self, second: float) -> None:
        """Wait for a second of the hour."""
        await asyncio.sleep(max(0.0, second - self.second) / self._speed)

    def __str__(self) -> str:
        minutes, seconds = divmod(int(min(self.second, HOUR)), 60)
        return f"{minutes:02}:{seconds:02}"


@frozen
class Outcome:
    """
    How the hour went.

    Attributes:
        balance: What became of what was tracked.
        stats: The client's own numbers.
        seconds: How long it took, deliveries included.
    """

    balance: Balance
    stats: Stats
    seconds: float

    def facts(self) -> dict[str, int | float]:
        """Tell what the table shows."""
        whole = asdict(self.balance)
        lost = whole.pop("lost")
        return {**whole, "retried": self.stats.retried, "lost": lost, "events/s": round(self._rate(), 1)}

    def _rate(self) -> float:
        return self.balance.tracked / self.seconds


async def run(args: argparse.Namespace) -> int:
    """Play the hour."""
    progress = Progress()
    progress.say(f"A shop's hour with {number(args.customers)} customers, in about {args.seconds:g} seconds.")
    outcome = await play(args.customers, args.seed, args.seconds, progress)
    facts = outcome.facts()
    if args.json:
        print_json({**facts, "seconds": round(outcome.seconds, 2)})
    else:
        print_facts(facts)
    return Exit.FAILED if outcome.balance.lost else Exit.DONE


async def play(customers: int, seed: int, seconds: float, progress: Progress) -> Outcome:
    """
    Play the hour.

    Args:
        customers: How many visit.
        seed: Of the visitors.
        seconds: How long the hour takes.
        progress: Where to tell of it.
    """
    books = Books()
    with tempfile.TemporaryDirectory(prefix="exponea-demo-") as folder:
        async with Sandbox(seed=seed) as sandbox:
            settings = Configuration(
                project_token=PROJECT,
                authorization_token="demo-key",  # noqa: S106 - the sandbox takes any
                base_url=sandbox.url,
                storage=Path(folder) / "queue.sqlite",
                upload=UploadSettings(backoff_initial=0.1, backoff_max=1.0),
            )
            started = time.monotonic()
            stats = await _Hour(settings, sandbox.faults, books, seconds, progress).play(visits(customers, seed))
            took = time.monotonic() - started
            balance = books.balance(sandbox.engine, await _dead_letters(settings), stats.tracked)
    return Outcome(balance, stats, took)


class _Hour:
    """Everything that takes part in the hour."""

    def __init__(
        self, settings: Configuration, faults: Faults, books: Books, seconds: float, progress: Progress
    ) -> None:
        self._settings = settings
        self._faults = faults
        self._books = books
        self._progress = progress
        self._clock = ShopClock(seconds)

    async def play(self, plans: list[Visit]) -> Stats:
        """Let everybody visit, and wait until all of it has arrived."""
        hooks = Hooks(before_track=self._books.mark_event, listeners=[self._hear])
        async with opened(self._settings, hooks, clock=self._clock) as exponea:
            async with self._progress.telling(lambda: self._told(exponea.stats())):
                await asyncio.gather(self._trouble(len(plans)), *(self._visit(exponea, plan) for plan in plans))
                await exponea.flush_data(PATIENCE)
                # The shop closes, and so do the visits that are still open.
                await exponea.aclose(PATIENCE, end_sessions=True)
            return exponea.stats()

    async def _visit(self, exponea: Exponea, plan: Visit) -> None:
        web = plan.kind == "web"
        subject = exponea.for_customer({"registered": plan.name}) if web else exponea.device(plan.name)
        for step in plan.steps:
            await self._clock.until(step.at)
            await self._track(subject, step.what)

    async def _track(self, subject: Device | CustomerTracker, what: What) -> None:
        if isinstance(what, Event):
            await subject.track_event(what)
        elif isinstance(what, PurchasedItem):
            await subject.track_payment_event(what)
        else:
            await subject.identify_customer(self._books.mark_customer(what))

    async def _trouble(self, customers: int) -> None:
        """Reject a few commands; later go down, and cut the connections of some whose work was done."""
        await self._clock.until(REJECTIONS)
        self._faults.add(Fault("reject", every_command=max(1, customers // 5), times=REJECTED))
        await self._clock.until(OUTAGE)
        self._say("the platform goes down; tracking goes on")
        self._faults.add(
            Fault("drop_after", times=2),
            Fault("status", status=503, retry_after=0.5, probability=0.6),
            Fault("drop"),
        )
        await self._clock.until(RECOVERY)
        # What was to happen a number of times, and has not yet, still will.
        left = [fault for fault in self._faults.active if fault.times is not None]
        self._faults.clear()
        self._faults.add(*left)
        self._say("the platform is back")

    def _hear(self, notice: DeliveryEvent) -> None:
        if notice.kind == "unavailable":
            self._say(f"{notice.reason}; events wait in the queue")
        elif notice.kind == "resumed":
            self._say("events arrive again")
        elif notice.kind == "rejected":
            self._say(f"a command goes to the dead letters: {notice.reason}")

    def _say(self, text: str) -> None:
        self._progress.say(f"{self._clock}  {text}")

    def _told(self, stats: Stats) -> str:
        waiting = stats.tracked - stats.delivered - stats.rejected
        return (
            f"{self._clock}  {number(stats.tracked)} tracked, {number(stats.delivered)} delivered, "
            f"{number(waiting)} wait"
        )


async def _dead_letters(settings: Configuration) -> list[DeadLetter]:
    storage = create_storage(settings, None, _raise)
    await storage.open()
    try:
        return await storage.dead(settings.queue.max_records)
    finally:
        await storage.aclose()


def _raise(error: DamagedFileError) -> None:
    raise error
