"""
The demo.
"""

import tempfile
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from cli_stage import run

from exponea_async import Customer, Event
from exponea_async._pipeline.encoding import encode_object
from exponea_async.cli.demo.ledger import LIFE, MARK, Books
from exponea_async.cli.demo.shop import HOUR, visits
from exponea_async.sandbox import Engine, Sandbox, StoredEvent
from exponea_async.storage.base import DeadLetter

SMALL = ("demo", "--customers", "25", "--seconds", "1.5", "--json")


class Forgetful(Engine):
    """Books that lose every tenth event."""

    def events(self, project: str | None = None, event_type: str | None = None) -> list[StoredEvent]:
        return [event for place, event in enumerate(super().events(project, event_type)) if place % 10]


class ForgetfulSandbox(Sandbox):
    """A platform that loses what it has accepted."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.engine.__class__ = Forgetful


class TestDemo:
    def test_nothing_is_lost(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Through rejections and an outage, each event ends in the platform's books or with the dead letters."""
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        outcome = run(*SMALL)
        facts = outcome.json
        assert outcome.code == 0
        assert facts["lost"] == 0
        assert facts["tracked"] == facts["delivered"] + facts["rejected"] > 100
        assert facts["rejected"] == 5
        assert facts["retried"] > 0
        assert "the platform goes down" in outcome.err
        assert list(tmp_path.iterdir()) == []

    def test_losses_are_found(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What the platform's books don't have is lost, and the demo fails."""
        monkeypatch.setattr("exponea_async.cli.demo.command.Sandbox", ForgetfulSandbox)
        outcome = run(*SMALL)
        assert outcome.code == 1
        assert outcome.json["lost"] > 10

    @pytest.mark.parametrize("wrong", ["0", "-1", "many"])
    def test_numbers_are_checked(self, wrong: str) -> None:
        """An hour for nobody, or in no time, is wrong usage."""
        assert run("demo", "--customers", wrong).code == 2
        assert run("demo", "--seconds", wrong).code == 2


class TestShop:
    def test_seed_makes_the_hour(self) -> None:
        """The same seed makes the same visits, another one others."""
        assert visits(30, 7) == visits(30, 7) != visits(30, 8)

    def test_visits_stay_in_the_hour(self) -> None:
        """Each visit has its steps in order, all within the hour."""
        for visit in visits(200, 1):
            moments = [step.at for step in visit.steps]
            assert moments == sorted(moments)
            assert 0 <= moments[0] <= moments[-1] < HOUR

    def test_it_has_all_kinds_of_visitors(self) -> None:
        """Some are known from the start; some are nobody, for a while or for good."""
        app = [visit for visit in visits(200, 1) if visit.kind == "app"]
        late = [visit for visit in app if any(isinstance(step.what, Customer) for step in visit.steps)]
        assert 0 < len(late) < len(app) < 200


class TestBooks:
    def test_each_thing_is_accounted_for(self) -> None:
        """An event is delivered, rejected or lost; a customer's update too."""
        books, engine = Books(), Engine()
        events = [books.mark_event(Event("ping", {"n": number})) for number in range(4)]
        customer = books.mark_customer(Customer({"registered": "jane@example.com"}))
        for event in events[:2]:
            data = {"customer_ids": {"cookie": "c"}, "event_type": event.name, "properties": dict(event.properties)}
            engine.execute("shop", "customers/events", data)
        engine.execute("shop", "customers", {"customer_ids": customer.ids, "properties": dict(customer.properties)})
        dead = b'"name":"customers/events","data":{"properties":%b}}' % encode_object(events[2].properties, "")
        balance = books.balance(engine, [DeadLetter("1", "route", dead, 0.0, 0.0, "no")], tracked=5)
        assert (balance.tracked, balance.delivered, balance.rejected, balance.lost) == (5, 3, 1, 1)

    def test_strangers_do_not_count(self) -> None:
        """What was never tracked makes up for nothing."""
        books, engine = Books(), Engine()
        event = books.mark_event(Event("ping"))
        stranger = evolve(event, properties={MARK: 99})
        data = {"customer_ids": {"cookie": "c"}, "event_type": "ping", "properties": stranger.properties}
        engine.execute("shop", "customers/events", data)
        assert books.balance(engine, [], tracked=1).lost == 1

    @pytest.mark.parametrize("name", sorted(LIFE))
    @pytest.mark.parametrize(("kept", "lost"), [(1, 0), (2, 1)])
    def test_what_devices_track_by_themselves(self, name: str, kept: int, lost: int) -> None:
        """Of what was made twice and kept once nothing is lost; of what was kept twice and arrived once, one is."""
        books, engine = Books(), Engine()
        books.mark_event(Event(name))
        last = books.mark_event(Event(name))
        data = {"customer_ids": {"cookie": "c"}, "event_type": name, "properties": dict(last.properties)}
        engine.execute("shop", "customers/events", data)
        balance = books.balance(engine, [], tracked=kept)
        assert (balance.tracked, balance.delivered, balance.lost) == (kept, 1, lost)
