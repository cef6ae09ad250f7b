"""
Random histories of clients: wrong configurations, corrections, stops, restarts, crashes and outages.

Whatever happens, the model matches: each acknowledged event is delivered once, is a dead letter with a reason, or was
deleted by a stop.
"""

import asyncio
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
from attrs import define, evolve, field, frozen
from helpers.environment import SetConstants
from helpers.history_model import MISTYPED, HistoryModel, Ledger, Tracked
from helpers.history_queues import FileQueue, HistoryQueue, PostgresQueue
from helpers.programs import ROOT
from helpers.waiting import until

from exponea_async import (
    Configuration,
    ConfigurationChange,
    ConfigurationError,
    CustomerTracker,
    DeliveryError,
    DeliveryTimeoutError,
    Device,
    Event,
    Exponea,
    ExponeaProject,
    LifecycleError,
    QueueSettings,
    Receipt,
    UploadSettings,
    WipedFileError,
)
from exponea_async._pipeline import acknowledger, uploader
from exponea_async.sandbox import Fault, Project, Sandbox
from exponea_async.testing import dead_letters

#: The number of histories, and the seed of the first one.
HISTORIES = int(os.environ.get("EXPONEA_TEST_HISTORIES", "50"))
#: Those in PostgreSQL, which take longer.
POSTGRES_HISTORIES = int(os.environ.get("EXPONEA_TEST_POSTGRES_HISTORIES", "5"))
FIRST_SEED = int(os.environ.get("EXPONEA_TEST_SEED", "0"))
STEPS = 30
#: Seconds after which the records of a crashed process can be sent by others.
LEASE = 2.0
QUICK = UploadSettings(
    backoff_initial=0.01,
    backoff_max=0.05,
    linger=0.002,
    linger_max=0.0,
    requests_per_second=100_000,
    request_timeout=60.0,
)
#: The name of the task that closes a storage.
CLOSING = "exponea_async: closing the storage"
DEVICES, CUSTOMERS = ("a", "b"), ("x", "y")
PROJECTS = (Project("shop", ["key"]), Project("copy", ["copy-key"]), Project("other", ["other-key"]))
COPY, OTHER = ExponeaProject("copy", "copy-key"), ExponeaProject("other", "other-key")

#: What the platform, or what is between it and a client, may do to all requests.
OUTAGES = {
    "unavailable": Fault("status", status=503),
    "throttled": Fault("status", status=429, retry_after=0.3),
    "dropped": Fault("drop"),
    "dropped after it was processed": Fault("drop_after"),
    "slow": Fault("latency", seconds=0.05),
    "refusing everything": Fault("status", status=400),
    "refusing with a page": Fault("status", status=400, body="<html>Blocked</html>"),
    "a portal": Fault("status", status=200, body="<html>Welcome</html>"),
    "no verdict": Fault("status", status=200, body='{"success": true, "results": []}'),
    "no permission": Fault("status", status=200, body='{"success": false, "error": "No permission"}'),
    "unauthorized": Fault("status", status=401),
    "rejecting every second event": Fault("reject", every_command=2),
    "failing now and then": Fault("status", status=503, every=2),
}
#: Those in which the platform may refuse, or fail on, single events.
REFUSALS = {
    "refusing everything",
    "refusing with a page",
    "rejecting every second event",
    "failing now and then",
}

#: A process that tracks numbered events, writes the numbers of those that were acknowledged, and closes when told to.
PROCESS = """
import asyncio, json, os, sys
from exponea_async import *
from exponea_async._pipeline import acknowledger, uploader

async def main(storage, schema, base_url, key, device, is_device, first, count, lease):
    acknowledger.LEASE = uploader.LEASE = lease
    settings = QueueSettings(lock_timeout=60.0)
    queue = {"storage": storage, "postgres": PostgresSettings(schema=schema), "queue": settings}
    client = Exponea(Configuration(project_token="shop", authorization_token=key, base_url=base_url, **queue))
    await client.start()
    subject = client.device(device) if is_device else client.for_customer({"registered": "customer " + device})
    for number in range(first, first + count):
        await subject.track_event(Event("ping", {"number": number}))
        os.write(1, f"{number}\\n".encode())
    await asyncio.to_thread(sys.stdin.readline)
    await client.aclose()

asyncio.run(main(*json.loads(sys.argv[1])))
"""


@frozen
class Setup:
    """A configuration, right or wrong."""

    address: str = "right"
    key: str = "key"
    is_mapped: bool = True
    has_others: bool = True
    flush_mode: str = "IMMEDIATE"
    gzip: bool = False

    @property
    def is_right(self) -> bool:
        """Whether everything that waits can be sent with it."""
        return self.address in ("right", "spelled") and self.key == "key" and self.is_mapped and self.has_others


@define(eq=False)
class RunningClient:
    """
    A client.

    Attributes:
        name: Its name.
        setup: Its configuration.
        client: The client.
        marker: Its default property.
        is_stopped: Whether it drops everything, because it was stopped or another client has wiped the file.
    """

    name: str
    setup: Setup
    client: Exponea
    marker: str | None = None
    is_stopped: bool = False


@define
class Person:
    """What the stored state of a device must be."""

    ids: dict[str, str] = field(factory=dict)
    is_switched: bool = False
    signed_out: int = 0
    is_forgotten: bool = False


class History:
    """One random history, and its model."""

    def __init__(self, seed: int, queue: HistoryQueue, sandbox: Sandbox, set_constants: SetConstants) -> None:
        self.chance, self.queue, self.sandbox = Random(seed), queue, sandbox
        self.model = HistoryModel()
        self.running: list[RunningClient] = []
        self.people = {key: Person() for key in DEVICES}
        self.forgotten: set[str] = set()
        self.log: list[str] = []
        self.numbers, self.names = 0, 0
        self.outage = ""
        # Only where one client after the other has used the queue since it was counted.
        self.is_countable = True
        self.counted: tuple[int, list[Exponea], int] = (0, [], 0)
        self.now = self.real_time = time.time()
        self.ahead = 0.0
        real = time.time
        set_constants(time, time=lambda: real() + self.ahead)

    # What there is

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.sandbox.engine.events())

    def note(self, text: str) -> None:
        self.log.append(text)

    def pick(self) -> RunningClient:
        return self.chance.choice(self.running)

    def owner(self, key: str) -> str:
        return f"device {key} {self.people[key].signed_out}/{self.model.wipes}"

    def is_dropped(self, running_client: RunningClient, about: str) -> bool:
        """Return whether nothing is tracked about somebody."""
        forgotten = self.people[about].is_forgotten if about in DEVICES else about in self.forgotten
        return running_client.is_stopped or forgotten

    def begin_anew(self) -> None:
        """Nothing of what was stored is left."""
        self.people, self.forgotten = {key: Person() for key in DEVICES}, set()

    # Clients

    def random_setup(self) -> Setup:
        if self.chance.random() < 0.4:
            return Setup()
        return Setup(
            address=self.chance.choice(["right", "right", "spelled", "closed", "missing"]),
            key=self.chance.choice(["key", "key", "wrong", "copy-key"]),
            is_mapped=self.chance.random() < 0.5,
            has_others=self.chance.random() < 0.5,
            flush_mode=self.chance.choice(["IMMEDIATE", "IMMEDIATE", "MANUAL", "PERIOD"]),
            gzip=self.chance.random() < 0.2,
        )

    def address(self, name: str) -> str:
        port = self.sandbox.url.rpartition(":")[2]
        return {
            "right": self.sandbox.url,
            "spelled": f"HTTP://LOCALHOST:{port}/",
            "closed": "http://127.0.0.1:9",
            "missing": f"{self.sandbox.url}/nowhere",
        }[name]

    def configuration(self, setup: Setup) -> Configuration:
        return Configuration(
            project_token="shop",
            authorization_token=setup.key,
            base_url=self.address(setup.address),
            project_mapping={"TRACK_EVENT": [COPY]} if setup.is_mapped and setup.key != "copy-key" else {},
            other_projects=[OTHER, *([COPY] if setup.is_mapped else [])] if setup.has_others else [],
            flush_mode=setup.flush_mode,
            flush_period=0.05,
            **self.queue.settings,
            upload=evolve(QUICK, gzip=setup.gzip),
            queue=QueueSettings(lock_timeout=60.0),
            preload_messages=False,
        )

    async def open(self, setup: Setup) -> RunningClient:
        if not self.running:
            self.begin_counting()
        self.names += 1
        client = Exponea(self.configuration(setup), clock=lambda: self.now)
        running_client = RunningClient(f"client {self.names}", setup, client)
        self.note(f"{running_client.name} opens with {setup}")
        await client.start()
        self.counted[1].append(client)
        self.running.append(running_client)
        return running_client

    async def close(self, running_client: RunningClient) -> None:
        self.running.remove(running_client)
        seconds = self.chance.choice([0, 0.05, 0.5])
        self.note(f"{running_client.name} closes within {seconds} s")
        await running_client.client.aclose(seconds)
        # Where there was no time to close the storage, what was written last is committed in the background.
        await until(lambda: not any(task.get_name() == CLOSING for task in asyncio.all_tasks()))
        self.model.check(self.ledger)
        if not self.running:
            self.check_counts()

    # Statistics

    def begin_counting(self) -> None:
        self.counted, self.is_countable = (self.queue.count(), [], 0), True

    def check_counts(self) -> None:
        """Check that the statistics explain what waits in the queue."""
        before, clients, wiped = self.counted
        stats = [client.stats() for client in clients]
        lines = [(each.tracked, each.delivered, each.rejected, each.revived, each.lost) for each in stats]
        expected = before - wiped + sum(each.tracked - each.delivered - each.rejected + each.revived for each in stats)
        if self.is_countable:
            # Where the machine stops for longer than a lease, two clients may send and count a record.
            twice = self.queue.count() - expected
            assert 0 <= twice <= self.sandbox.engine.duplicates, f"{lines}, {before} at first, {wiped} wiped"

    # Steps

    async def run(self) -> None:
        steps: dict[Callable[[], Awaitable[None]], int] = {
            self.track: 12,
            self.track_many: 3,
            self.identify: 3,
            self.mistype: 1,
            self.take_back: 2,
            self.sign_out: 2,
            self.set_defaults: 1,
            self.begin_outage: 3,
            self.end_outage: 3,
            self.restart: 3,
            self.crash: 1,
            self.stop: 1,
            self.stop_while_tracking: 1,
            self.start_again: 3,
            self.second_client: 2,
            self.close_second: 2,
            self.clear: 1,
            self.turn_clock: 1,
            self.turn_system_clock: 1,
            self.flush: 3,
            self.wait_for_verdict: 3,
            self.let_time_pass: 4,
            self.forget: 1,
            self.track_again: 2,
            self.use_process: 0.15,  # type: ignore[dict-item]
        }
        await self.open(self.random_setup())
        for step in self.chance.choices([*steps], [*steps.values()], k=STEPS):
            await step()
            self.model.check(self.ledger)
        await self.finish()

    def expect(self, running_client: RunningClient, about: str, *, fate: str = "due") -> Tracked:
        """Return the entry of an event that is about to be tracked."""
        self.numbers += 1
        main, ids, owner = "shop", {"registered": f"customer {about}"}, f"customer {about}"
        if about in DEVICES:
            person = self.people[about]
            main, ids, owner = ("other" if person.is_switched else "shop"), dict(person.ids), self.owner(about)
        projects = (main, "copy") if self.configuration(running_client.setup).project_mapping else (main,)
        event = Tracked(self.numbers, owner, ids, projects, running_client.marker, running_client.name, fate=fate)  # type: ignore[arg-type]
        event.may_die = self.outage in REFUSALS
        self.model.events[event.number] = event
        return event

    def subject(self, running_client: RunningClient, about: str) -> Device | CustomerTracker:
        if about in DEVICES:
            return running_client.client.device(about)
        return running_client.client.for_customer({"registered": f"customer {about}"})

    def record(self, event: Tracked, running_client: RunningClient, receipt: Receipt) -> None:
        event.receipt = receipt
        is_dropped = self.is_dropped(running_client, event.owner.split()[1])
        event.fate = "dropped" if is_dropped else "due"
        assert (receipt.status == "dropped") is is_dropped, f"{receipt} of {running_client.name}"

    async def track_one(self, running_client: RunningClient, about: str) -> None:
        event = self.expect(running_client, about, fate="open")
        self.note(f"{running_client.name} tracks {event.number} about {event.owner}")
        try:
            receipt = await self.subject(running_client, about).track_event(Event("ping", {"number": event.number}))
        except WipedFileError:
            assert running_client.is_stopped
            event.fate = "dropped"
        else:
            self.record(event, running_client, receipt)

    async def track(self) -> None:
        running_client = self.pick()
        about = self.chance.choices([*DEVICES, *CUSTOMERS], k=self.chance.choice([1, 1, 3, 10]))
        await asyncio.gather(*(self.track_one(running_client, each) for each in about))

    async def track_many(self) -> None:
        running_client, about = self.pick(), self.chance.choice([*DEVICES, "y"])
        own = [self.expect(running_client, about, fate="open") for _ in range(self.chance.choice([1, 5, 150]))]
        others = [self.expect(running_client, "x", fate="open") for _ in range(self.chance.choice([0, 3]))]
        self.note(
            f"{running_client.name} tracks {own[0].number} to {[*own, *others][-1].number} about {own[0].owner} and x"
        )
        events: list[Any] = [Event("ping", {"number": each.number}) for each in own]
        events += [({"registered": "customer x"}, Event("ping", {"number": each.number})) for each in others]
        try:
            with running_client.client.bind(self.subject(running_client, about)):
                receipts = await running_client.client.track_many(events)
        except WipedFileError:
            assert running_client.is_stopped
            for event in (*own, *others):
                event.fate = "dropped"
            return
        for event, receipt in zip([*own, *others], receipts, strict=True):
            self.record(event, running_client, receipt)

    async def identify_as(self, key: str, ids: dict[str, str | None]) -> None:
        running_client, person = self.pick(), self.people[key]
        self.note(f"{running_client.name} identifies {self.owner(key)} as {ids}")
        with suppress(WipedFileError):
            await running_client.client.device(key).identify_customer(ids)
        if not self.is_dropped(running_client, key):
            merged = {**person.ids, **ids}
            person.ids = {kind: value for kind, value in merged.items() if value is not None}

    async def identify(self) -> None:
        key = self.chance.choice(DEVICES)
        await self.identify_as(key, {"registered": self.owner(key)})

    async def mistype(self) -> None:
        await self.identify_as(self.chance.choice(DEVICES), {MISTYPED: "jane"})

    async def take_back(self) -> None:
        for key, person in self.people.items():
            if MISTYPED in person.ids:
                await self.identify_as(key, {MISTYPED: None})

    async def sign_out(self) -> None:
        running_client, key = self.pick(), self.chance.choice(DEVICES)
        change = None
        if self.chance.random() < 0.6:
            token = self.chance.choice(["other-key", "other-key", "wrong"])
            change = ConfigurationChange(ExponeaProject("other", token))
        self.note(f"{running_client.name} signs out {self.owner(key)}, {change}")
        is_refused = bool(change and change.project != OTHER and running_client.setup.has_others)
        try:
            await running_client.client.device(key).anonymize(change)
        except ConfigurationError:
            assert is_refused
            return
        except WipedFileError:
            assert running_client.is_stopped
        if not self.is_dropped(running_client, key):
            assert not is_refused
            person = self.people[key]
            is_switched = person.is_switched or change is not None
            self.people[key] = Person(is_switched=is_switched, signed_out=person.signed_out + 1)

    async def forget(self) -> None:
        running_client, about = self.pick(), self.chance.choice([*DEVICES, "y"])
        # Another client notices within seconds, but not at once, which customers are forgotten.
        if running_client.is_stopped or (about == "y" and len(self.running) > 1):
            return
        self.note(f"{running_client.name} forgets {about}")
        erased = await self.subject(running_client, about).forget()
        self.note(f"{erased} records are erased")
        # What is in flight may still be delivered, and is counted by both.
        self.is_countable = False
        is_exact = len(self.running) == 1 and running_client.setup.flush_mode == "MANUAL" and not self.outage
        whose = f"device {about}" if about in DEVICES else f"customer {about}"
        self.model.forget(whose, running_client.name, self.ledger, is_exact=is_exact)
        if about in DEVICES:
            self.people[about] = Person(signed_out=self.people[about].signed_out + 1, is_forgotten=True)
        else:
            self.forgotten.add(about)

    async def track_again(self) -> None:
        running_client = self.pick()
        # Another client notices within seconds, but not at once.
        if running_client.is_stopped or len(self.running) > 1:
            return
        for about in [*DEVICES, *self.forgotten]:
            if self.is_dropped(running_client, about):
                self.note(f"{running_client.name} tracks {about} again")
                await self.subject(running_client, about).start()
                if about in DEVICES:
                    self.people[about].is_forgotten = False
                else:
                    self.forgotten.discard(about)

    async def set_defaults(self) -> None:
        running_client = self.pick()
        if not running_client.is_stopped:
            self.names += 1
            running_client.marker = f"marker {self.names}"
            self.model.markers[running_client.marker] = self.model.wipes
            self.note(f"{running_client.name} sets {running_client.marker}")
            await running_client.client.set_default_properties({"marker": running_client.marker})

    # Outages and clocks

    async def begin_outage(self) -> None:
        self.outage = self.chance.choice(list(OUTAGES))
        self.note(f"the platform is {self.outage}")
        self.sandbox.faults.clear()
        self.sandbox.faults.add(OUTAGES[self.outage])
        if self.outage in REFUSALS:
            self.model.expect_refusals()

    async def end_outage(self) -> None:
        self.note("the platform works")
        self.outage = ""
        self.sandbox.faults.clear()

    async def turn_clock(self) -> None:
        self.now += self.chance.choice([-3600.0, 3600.0, -40 * 86_400.0, 40 * 86_400.0])
        self.note(f"the clock of events is {self.now - self.real_time:g} s ahead")

    async def turn_system_clock(self) -> None:
        self.ahead = self.chance.choice([0.0, -1800.0, 1800.0, -40 * 86_400.0, 40 * 86_400.0])
        self.note(f"the clock of the system is {self.ahead:g} s ahead")

    async def let_time_pass(self) -> None:
        seconds = self.chance.choice([0.0, 0.01, 0.05, 0.1])
        self.note(f"{seconds} s pass")
        await asyncio.sleep(seconds)

    # RunningClient cycle

    async def restart(self) -> None:
        running_client = self.pick()
        await self.close(running_client)
        await self.open(self.random_setup())

    async def second_client(self) -> None:
        if len(self.running) == 1:
            await self.open(self.random_setup())

    async def close_second(self) -> None:
        if len(self.running) == 2:
            await self.close(self.pick())

    async def crash(self) -> None:
        """Go on with a copy of the queue, as it is when all clients are killed."""
        self.note("all clients are killed")
        # In a thread: a lock may be waited for that a client has.
        await asyncio.to_thread(self.queue.go_on_with_copy)
        killed, self.running = self.running, []
        for running_client in killed:
            for event in self.model.events.values():
                if event.author == running_client.name:
                    event.receipt = None
            await running_client.client.aclose(0)
        await self.open(self.random_setup())
        self.is_countable = False

    async def stop(self) -> None:
        running_client = self.pick()
        if running_client.is_stopped:
            return
        flush, is_alone = self.chance.random() < 0.5, len(self.running) == 1
        must_deliver = flush and is_alone and not self.outage and running_client.setup.is_right
        self.note(f"{running_client.name} stops, {flush=}")
        result = await running_client.client.stop_integration(flush, timeout=60 if must_deliver else 0.2)
        if must_deliver:
            assert result.remaining == 0, f"{result}"
        await self.note_wipe(running_client, result.remaining)

    async def stop_while_tracking(self) -> None:
        running_client, other = self.pick(), self.pick()
        if running_client.is_stopped or other.is_stopped:
            return
        numbers = [self.expect(other, about, fate="open") for about in (*DEVICES, *CUSTOMERS) * 2]
        self.note(f"{running_client.name} stops while {other.name} tracks {numbers[0].number} to {numbers[-1].number}")

        async def track_one(event: Tracked, about: str) -> None:
            with suppress(WipedFileError):
                event.receipt = await self.subject(other, about).track_event(Event("ping", {"number": event.number}))

        calls = [track_one(event, about) for event, about in zip(numbers, (*DEVICES, *CUSTOMERS) * 2, strict=True)]
        stopping = asyncio.create_task(running_client.client.stop_integration())
        await asyncio.gather(*calls)
        result = await stopping
        await self.note_wipe(running_client, result.remaining)
        for event in numbers:
            event.wiped_by = "somebody"

    async def note_wipe(self, running_client: RunningClient, remaining: int) -> None:
        """All data is gone, and all clients of the file are stopped."""
        count, clients, wiped = self.counted
        self.counted = count, clients, wiped + remaining
        # What another client has in flight may be delivered, and is counted by both.
        self.is_countable &= len(self.running) == 1
        requests = self.sandbox.requests
        await until(lambda: len(requests) >= min(self.sandbox.request_count, 1000))
        self.model.wipe(running_client.name, self.ledger, is_exact=len(self.running) == 1)
        self.begin_anew()
        for each in self.running:
            each.is_stopped, each.marker = True, None

    async def start_again(self) -> None:
        for running_client in self.running:
            if running_client.is_stopped:
                self.note(f"{running_client.name} starts again")
                # Another client of the file notices the wipe by itself.
                await until(lambda running_client=running_client: running_client.client.is_stopped)  # type: ignore[misc]
                await running_client.client.start()
                running_client.is_stopped = False

    async def clear(self) -> None:
        if self.chance.random() < 0.5:
            running_client = self.pick()
            if not running_client.is_stopped:
                self.note("clearing is refused while a client runs")
                with pytest.raises(LifecycleError):
                    await Exponea.clear_local_customer_data(running_client.client.configuration)
            return
        for running_client in [*self.running]:
            await self.close(running_client)
        self.note("all data is cleared")
        self.queue.forget_killed()
        await Exponea.clear_local_customer_data(self.configuration(Setup()))
        self.model.wipe("nobody", self.ledger, is_exact=not self.outage)
        self.begin_anew()
        await self.open(self.random_setup())

    async def use_process(self) -> None:
        """Another process tracks events on the same file; it is killed, or closes."""
        setup, about = self.random_setup(), self.chance.choice([*DEVICES, *CUSTOMERS])
        if self.is_dropped(RunningClient("", setup, self.running[0].client), about):
            return
        running_client = RunningClient("process", evolve(setup, is_mapped=False), self.running[0].client)
        events = [self.expect(running_client, about, fate="open") for _ in range(20)]
        first, is_killed, is_device = events[0].number, self.chance.random() < 0.7, about in DEVICES
        self.note(f"a process tracks {first} to {first + 19} about {events[0].owner}, {setup}, {is_killed=}")
        self.is_countable = False
        used = self.configuration(setup)
        options = [
            str(used.storage),
            used.postgres.schema,
            self.address(setup.address),
            setup.key,
            about,
            is_device,
            first,
            20,
            LEASE,
        ]
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            PROCESS,
            json.dumps(options),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        )
        assert child.stdout
        lines = [await child.stdout.readline() for _ in range(10 if is_killed else 20)]
        if is_killed:
            child.kill()
        rest, _ = await child.communicate(b"\n")
        for number in map(int, [*lines, *rest.split()]):
            self.model.events[number].fate = "due"

    # Uploads

    async def flush(self) -> None:
        running_client = self.pick()
        try:
            result = await running_client.client.flush_data(self.chance.choice([0.02, 0.2]))
        except WipedFileError:
            assert running_client.is_stopped
            return
        self.note(f"{running_client.name} has flushed: {result}")

    async def wait_for_verdict(self) -> None:
        queued = [each for each in self.model.of("due") if each.receipt and each.receipt.status == "queued"]
        if queued:
            event = self.chance.choice(queued)
            assert event.receipt
            with suppress(DeliveryError, DeliveryTimeoutError, LifecycleError):
                await event.receipt.delivered(0.1)
            self.note(f"the receipt of {event.number} is {event.receipt.status}")

    # The end

    async def finish(self) -> None:
        """Correct everything, and compare what there is with the model."""
        await self.end_outage()
        self.ahead = 0.0
        await self.start_again()
        for running_client in [*self.running]:
            if running_client.setup != Setup() or self.chance.random() < 0.5:
                await self.close(running_client)
        running_client = self.running[0] if self.running else await self.open(Setup())
        await self.track_one(running_client, "a")
        await self.track_one(running_client, "x")
        result = await running_client.client.flush_data(60)
        self.note(f"at the end: {result}")
        assert result.remaining == 0, f"{result}, {self.queue.waiting()}"
        # At the same time: verdicts of other clients are looked up once a second.
        receipts = [
            each.receipt for each in self.model.events.values() if each.author == running_client.name and each.receipt
        ]
        await asyncio.gather(*(receipt.decided(60) for receipt in receipts))
        dead = await dead_letters(running_client.client)
        self.model.check(self.ledger)
        self.model.check_end(self.ledger, dead, running_client.name)
        for each in [*self.running]:
            await self.close(each)

    async def abandon(self) -> None:
        for running_client in self.running:
            await running_client.client.aclose(0)


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    """A sandbox that refuses a mistyped kind of id, as the platform does."""
    async with Sandbox(projects=PROJECTS) as running:
        execute = running.engine.execute

        def strict(project: str, name: str, data: Any, *, request: int | None = None) -> tuple[str, ...]:
            if MISTYPED in data["customer_ids"]:
                errors = (f"The id {MISTYPED!r} is not defined.",)
                running.engine.reject(project, name, data, errors, request=request)
                return errors
            return execute(project, name, data, request=request)

        running.engine.execute = strict  # type: ignore[method-assign]
        yield running


@pytest.fixture
def queue(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[HistoryQueue]:
    """A queue of each kind."""
    if request.param == "file":
        yield FileQueue(tmp_path)
        return
    opened = PostgresQueue(request.getfixturevalue("postgres_url"), f"test_{secrets.token_hex(8)}")
    yield opened
    opened.drop()


@pytest.mark.parametrize(
    ("queue", "seed"),
    [
        *(("file", seed) for seed in range(FIRST_SEED, FIRST_SEED + HISTORIES)),
        *(("postgresql", seed) for seed in range(FIRST_SEED, FIRST_SEED + POSTGRES_HISTORIES)),
    ],
    indirect=["queue"],
)
async def test_the_books_match(seed: int, queue: HistoryQueue, sandbox: Sandbox, set_constants: SetConstants) -> None:
    """Nothing is lost, sent twice, told wrongly or given to somebody else, whatever happens in between."""
    set_constants(acknowledger, LEASE=LEASE)
    set_constants(uploader, LEASE=LEASE)
    history = History(seed, queue, sandbox, set_constants)
    try:
        async with asyncio.timeout(600):
            await history.run()
    except BaseException as error:
        error.add_note("\n".join([f"The history of seed {seed}:", *history.log]))
        raise
    finally:
        await history.abandon()
