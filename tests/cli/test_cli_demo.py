"""
The command ``demo``.
"""

import json
import signal
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from helpers.command_line import finish, run, start
from helpers.environment import SetConstants

from exponea_async import Customer, Event
from exponea_async._internal.encoding import encode_object
from exponea_async.cli.demo import command
from exponea_async.cli.demo.ledger import LIFECYCLE_EVENTS, NUMBER, Ledger
from exponea_async.cli.demo.shop import HOUR, visits
from exponea_async.sandbox import Engine, Sandbox, StoredEvent
from exponea_async.storage.base import DeadLetter

SMALL = ("demo", "--customers", "25", "--seconds", "1.5", "--json")


class LossyEngine(Engine):
    """An engine that loses every tenth event."""

    def events(self, project: str | None = None, event_type: str | None = None) -> list[StoredEvent]:
        return [event for index, event in enumerate(super().events(project, event_type)) if index % 10]


class LossySandbox(Sandbox):
    """A platform that loses events it has accepted."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.engine.__class__ = LossyEngine


class TestDemo:
    def test_nothing_is_lost(self, tmp_path: Path, set_constants: SetConstants) -> None:
        """Through rejections and an outage, every event is either stored by the sandbox or a dead letter."""
        set_constants(tempfile, tempdir=str(tmp_path))
        result = run(*SMALL)
        facts = result.json
        assert result.code == 0
        assert facts["lost"] == 0
        assert facts["tracked"] == facts["delivered"] + facts["rejected"] > 100
        # A command that is rejected in a request whose response is lost is sent again, and accepted then.
        assert facts["rejected"] <= 5
        assert facts["retried"] > 0
        assert "the platform goes down" in result.err
        assert list(tmp_path.iterdir()) == []

    def test_losses_are_found(self, set_constants: SetConstants) -> None:
        """An event that the sandbox has not stored is lost, and the demo fails."""
        set_constants(command, Sandbox=LossySandbox)
        result = run(*SMALL)
        assert result.code == 1
        assert result.json["lost"] > 10

    def test_the_page_stays_open(self) -> None:
        """With --page the sandbox and its page are there after the result, until Ctrl-C, which is not an error."""
        with start(*SMALL, "--page") as process:
            assert process.stdout is not None
            assert process.stderr is not None
            result = json.loads(process.stdout.readline())
            line = next(line for line in process.stderr if "stays open" in line)
            url = line.partition(" at ")[2].split()[0]
            with urllib.request.urlopen(f"{url}sandbox/facets") as response:
                verdicts = json.load(response)["verdicts"]
            process.send_signal(signal.SIGINT)
            finish(process)
        # All of them are rejected once; some may be accepted later, after the response was lost.
        assert verdicts["rejected"] == 5
        assert result["rejected"] <= 5
        assert process.returncode == 0

    @pytest.mark.parametrize("wrong", ["0", "-1", "many"])
    def test_numbers_are_checked(self, wrong: str) -> None:
        """Zero customers or zero seconds are wrong usage."""
        assert run("demo", "--customers", wrong).code == 2
        assert run("demo", "--seconds", wrong).code == 2


class TestShop:
    def test_visits_depend_on_the_seed(self) -> None:
        """The same seed returns the same visits, another seed other visits."""
        assert visits(30, 7) == visits(30, 7) != visits(30, 8)

    def test_visits_are_within_the_hour(self) -> None:
        """The steps of each visit are in order and within the hour."""
        for visit in visits(200, 1):
            seconds = [step.second for step in visit.steps]
            assert seconds == sorted(seconds)
            assert 0 <= seconds[0] <= seconds[-1] < HOUR

    def test_there_are_all_kinds_of_visitors(self) -> None:
        """Some visitors are identified at the start, some later, and some never."""
        app = [visit for visit in visits(200, 1) if visit.kind == "app"]
        identified = [visit for visit in app if any(isinstance(step.tracked, Customer) for step in visit.steps)]
        assert 0 < len(identified) < len(app) < 200


class TestLedger:
    def test_everything_is_counted(self) -> None:
        """An event is delivered, rejected or lost; so is a customer update."""
        ledger, engine = Ledger(), Engine()
        events = [ledger.number_event(Event("ping", {"n": number})) for number in range(4)]
        customer = ledger.number_customer(Customer({"registered": "jane@example.com"}))
        for event in events[:2]:
            data = {"customer_ids": {"cookie": "c"}, "event_type": event.name, "properties": dict(event.properties)}
            engine.execute("shop", "customers/events", data)
        engine.execute("shop", "customers", {"customer_ids": customer.ids, "properties": dict(customer.properties)})
        dead = b'"name":"customers/events","data":{"properties":%b}}' % encode_object(events[2].properties, "")
        balance = ledger.balance(engine, [DeadLetter("1", "route", dead, 0.0, 0.0, "no")], tracked=5)
        assert (balance.tracked, balance.delivered, balance.rejected, balance.lost) == (5, 3, 1, 1)

    def test_foreign_events_do_not_count(self) -> None:
        """An event that was never tracked does not replace a lost one."""
        ledger, engine = Ledger(), Engine()
        event = ledger.number_event(Event("ping"))
        foreign = evolve(event, properties={NUMBER: 99})
        data = {"customer_ids": {"cookie": "c"}, "event_type": "ping", "properties": foreign.properties}
        engine.execute("shop", "customers/events", data)
        assert ledger.balance(engine, [], tracked=1).lost == 1

    @pytest.mark.parametrize("name", sorted(LIFECYCLE_EVENTS))
    @pytest.mark.parametrize(("tracked", "lost"), [(1, 0), (2, 1)])
    def test_events_that_devices_track_by_themselves(self, name: str, tracked: int, lost: int) -> None:
        """An event built twice and tracked once is not lost; of one tracked twice and delivered once, one is lost."""
        ledger, engine = Ledger(), Engine()
        ledger.number_event(Event(name))
        last = ledger.number_event(Event(name))
        data = {"customer_ids": {"cookie": "c"}, "event_type": name, "properties": dict(last.properties)}
        engine.execute("shop", "customers/events", data)
        balance = ledger.balance(engine, [], tracked=tracked)
        assert (balance.tracked, balance.delivered, balance.lost) == (tracked, 1, lost)
