"""
The commands ``track``, ``identify`` and ``flush``.
"""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_stage import PROJECT, SECRET, Stage, staged

from exponea_async.sandbox import Project
from exponea_async.sandbox.access import AccessControl

JANE = ("--id", "registered=jane@example.com")


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    with staged(tmp_path, monkeypatch) as stage:
        yield stage


class TestTrack:
    def test_event_arrives(self, stage: Stage) -> None:
        """An event of a customer arrives with its properties and its time."""
        outcome = stage.run(
            "track", "purchase", *JANE, "--property", "price=7.99", "--timestamp", "2024-05-01T12:00:00+02:00"
        )
        assert (outcome.code, outcome.out) == (0, "purchase: delivered\n")
        event = stage.events[0]
        assert event.customer_ids == {"registered": "jane@example.com"}
        assert (event.event_type, event.timestamp, event.properties["price"]) == ("purchase", 1_714_557_600.0, 7.99)

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("1", 1),
            ("-1.5", -1.5),
            ("true", True),
            ('["a",1]', ["a", 1]),
            ('"1"', "1"),
            ("007", "007"),
            ("NaN", "NaN"),
            ("Infinity", "Infinity"),
            ("jane doe", "jane doe"),
            ("a=b", "a=b"),
            ("", ""),
            ("[" * 5000, "[" * 5000),
        ],
    )
    def test_values_are_json_where_they_are(self, stage: Stage, text: str, value: object) -> None:
        """What is JSON is read as such, all else is text."""
        assert stage.run("track", "ping", *JANE, "--property", f"x={text}").code == 0
        assert stage.events[0].properties["x"] == value

    def test_properties_at_once(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        """All properties can be given as an object, on standard input too."""
        stage.run("track", "ping", *JANE, "--properties", '{"a": 1}')
        monkeypatch.setattr("sys.stdin", io.StringIO('{"a": 2}'))
        stage.run("track", "ping", *JANE, "--properties", "-")
        assert stage.properties("a") == [1, 2]

    def test_devices_are_remembered(self, stage: Stage) -> None:
        """Without ids an event is about a device, which stays the same and learns who it is."""
        stage.run("track", "ping")
        stage.run("track", "ping")
        stage.run("track", "ping", "--device", "till")
        stage.run("identify", "--device", "till", *JANE)
        stage.run("track", "pong", "--device", "till")
        ids = [event.customer_ids for event in stage.events if event.event_type in ("ping", "pong")]
        assert ids[0] == ids[1] != ids[2]
        assert ids[3] == {**ids[2], "registered": "jane@example.com"}

    def test_devices_come_to_life(self, stage: Stage) -> None:
        """A device tells its installation and a session beside its first event; the command tells of the event."""
        outcome = stage.run("track", "ping", "--json")
        assert (outcome.code, outcome.json["status"], len(outcome.json["ids"])) == (0, "delivered", 1)
        stage.run("track", "pong")
        stage.run("identify", *JANE, "--device", "default")
        arrived = sorted(stage.events, key=lambda event: event.timestamp)
        assert [event.event_type for event in arrived] == ["installation", "session_start", "ping", "pong"]

    def test_the_verdict_is_that_of_the_event(self, stage: Stage) -> None:
        """What becomes of a device's own events does not change what is told of the one that was asked for."""
        stage.fault("reject", times=2)
        outcome = stage.run("track", "ping", "--wait", "20", "--json")
        assert (outcome.code, outcome.json["status"]) == (0, "delivered")
        assert stage.run("queue", "stats", "--json").json["dead"] == 2

    def test_wait_for_the_verdict(self, stage: Stage) -> None:
        """With --wait it tells what Engagement said, in any flush mode."""
        assert stage.run("track", "ping", "--wait", "20", "--json").json["status"] == "delivered"
        stage.fault("reject", times=1)
        outcome = stage.run("track", "ping", "--wait", "20", "--json")
        assert outcome.code == 3
        assert outcome.json["status"] == "rejected"
        assert "fault injection" in outcome.json["reason"]

    def test_manual_mode(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        """In manual mode it is only kept, unless the verdict is waited for."""
        monkeypatch.setenv("EXPONEA_FLUSH_MODE", "MANUAL")
        assert stage.run("track", "ping").out == "ping: queued\n"
        assert stage.run("track", "ping", "--wait", "20").out == "ping: delivered\n"

    def test_no_verdict_in_time(self, stage: Stage) -> None:
        """Without a verdict in time it remains queued, and the code tells so."""
        stage.fault("status", status=503)
        outcome = stage.run("track", "ping", "--wait", "0.2")
        assert (outcome.code, outcome.out) == (4, "ping: queued\n")

    def test_wrong_key_is_not_waited_for(self, stage: Stage) -> None:
        """A project that refuses the key pauses; the event is kept, and the reason told without the key."""
        stage.fault("status", status=401)
        outcome = stage.run("track", "ping", "--wait", "600")
        assert outcome.code == 4
        assert "is paused: HTTP 401" in outcome.err

    def test_kept_is_enough_without_wait(self, stage: Stage) -> None:
        """Without --wait an outage is no failure: the event is kept."""
        stage.fault("status", status=503)
        outcome = stage.run("track", "ping")
        assert (outcome.code, outcome.out) == (0, "ping: queued\n")

    @pytest.mark.parametrize(
        "args",
        [
            ("--property", "price"),
            ("--property", "a=1", "--property", "a=2"),
            ("--properties", "[1]"),
            ("--properties", "{"),
            ("--timestamp", "yesterday"),
            ("--timestamp", "20240501"),
            ("--wait", "-1"),
            ("--wait", "nan"),
            (*JANE, "--device", "till"),
            ("--base-url", "shop"),
        ],
    )
    def test_wrong_usage(self, stage: Stage, args: tuple[str, ...]) -> None:
        """What makes no sense is refused, and nothing is kept."""
        assert stage.run("track", "ping", *args).code == 2
        assert stage.run("queue", "stats", "--json").json["waiting"] == 0

    def test_bad_event(self, stage: Stage) -> None:
        """What the platform would never take is bad input."""
        outcome = stage.run("track", "ping", "--property", "x=" + "y" * 20_000)
        assert outcome.code == 3
        assert "properties.x" in outcome.err


class TestKeys:
    @pytest.mark.parametrize("option", ["--authorization-token", "--authorization", "--token", "--key"])
    def test_key_is_no_argument(self, stage: Stage, option: str) -> None:
        """A key as an argument is refused, and not repeated."""
        for given in ((option, SECRET), (f"{option}={SECRET}",)):
            outcome = stage.run("track", "ping", *given)
            assert outcome.code == 2
            assert "visible to other users" in outcome.err

    def test_key_from_a_file(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        """A file may hold the public key, or private access."""
        monkeypatch.delenv("EXPONEA_AUTHORIZATION_TOKEN")
        access = AccessControl([Project(PROJECT, tokens=(SECRET,), basic=(("id", SECRET),))])
        monkeypatch.setattr(stage.sandbox._tracking, "_access", access)
        for text in (f"{SECRET}\n", json.dumps({"key_id": "id", "secret": SECRET})):
            path = stage.write("key", text)
            assert stage.run("track", "ping", "--wait", "20", "--authorization-file", path).code == 0

    @pytest.mark.parametrize("content", [None, "{", '{"key_id": "a"}', '{"key_id": "a", "secret": 1}', "\n"])
    def test_files_without_a_key(self, stage: Stage, content: str | None) -> None:
        """A file that holds no key is wrong configuration; neither its name nor its content is shown."""
        path = stage.folder / SECRET
        if content is not None:
            path.write_text(content)
        assert stage.run("track", "ping", "--authorization-file", path).code == 2


class TestIdentify:
    def test_customer_is_known(self, stage: Stage) -> None:
        """The customer has the ids and the properties."""
        outcome = stage.run("identify", *JANE, "--id", "loyalty=7", "--property", "city=Brno", "--wait", "20")
        assert (outcome.code, outcome.out) == (0, "jane@example.com 7: delivered\n")
        customer = stage.sandbox.engine.customers(PROJECT)[0]
        assert customer.ids == {"registered": ("jane@example.com",), "loyalty": ("7",)}
        assert customer.properties["city"] == "Brno"

    @pytest.mark.parametrize("args", [(), ("--id", "registered"), (*JANE, *JANE)])
    def test_ids_are_needed(self, stage: Stage, args: tuple[str, ...]) -> None:
        """Nobody can't be identified, and nobody twice."""
        assert stage.run("identify", *args).code == 2


class TestFlush:
    @pytest.fixture
    def waiting(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Stage:
        monkeypatch.setenv("EXPONEA_FLUSH_MODE", "MANUAL")
        stage.run("track", "ping")
        stage.run("track", "pong")
        return stage

    def test_it_uploads_what_waits(self, waiting: Stage) -> None:
        """All that waits is delivered, the device's own events too."""
        outcome = waiting.run("flush", "--json")
        assert (outcome.code, outcome.json) == (0, {"delivered": 4, "rejected": 0, "remaining": 0})
        names = sorted(event.event_type for event in waiting.events)
        assert names == ["installation", "ping", "pong", "session_start"]

    def test_rejections_have_a_code(self, waiting: Stage) -> None:
        """What is rejected on the way is told."""
        waiting.fault("reject", times=1)
        outcome = waiting.run("flush")
        assert outcome.code == 3
        assert "rejected   1" in outcome.out

    def test_remains_have_a_code(self, waiting: Stage) -> None:
        """What can't be sent in time remains, and the code tells so."""
        waiting.fault("status", status=503)
        outcome = waiting.run("flush", "--timeout", "0.2", "--json")
        assert (outcome.code, outcome.json) == (4, {"delivered": 0, "rejected": 0, "remaining": 4})
