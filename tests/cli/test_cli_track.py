"""
The commands ``track``, ``identify`` and ``flush``.
"""

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.command_line import PROJECT, SECRET, CommandLine, command_line
from helpers.environment import Environment, SetConstants

from exponea_async.sandbox import Project

JANE = ("--id", "registered=jane@example.com")
DEVICE = ("--device", "default")


@pytest.fixture
def cli(tmp_path: Path, environment: Environment) -> Iterator[CommandLine]:
    with command_line(tmp_path, environment) as cli:
        yield cli


class TestTrack:
    def test_event_arrives(self, cli: CommandLine) -> None:
        """An event of a customer is stored with its properties and its timestamp."""
        result = cli.run(
            "track", "purchase", *JANE, "--property", "price=7.99", "--timestamp", "2024-05-01T12:00:00+02:00"
        )
        assert (result.code, result.out) == (0, "purchase: delivered\n")
        event = cli.events[0]
        assert event.customer_ids == {"registered": "jane@example.com"}
        assert (event.event_type, event.timestamp, event.properties["price"]) == ("purchase", 1_714_557_600.0, 7.99)

    @pytest.mark.parametrize(
        ("string", "value"),
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
    def test_values_may_be_json(self, cli: CommandLine, string: str, value: object) -> None:
        """A value that is JSON is parsed; any other value is a string."""
        assert cli.run("track", "ping", *JANE, "--property", f"x={string}").code == 0
        assert cli.events[0].properties["x"] == value

    def test_properties_as_an_object(self, cli: CommandLine, set_constants: SetConstants) -> None:
        """All properties can be given as one JSON object, also on standard input."""
        cli.run("track", "ping", *JANE, "--properties", '{"a": 1}')
        set_constants(sys, stdin=io.StringIO('{"a": 2}'))
        cli.run("track", "ping", *JANE, "--properties", "-")
        assert cli.properties("a") == [1, 2]

    def test_devices_keep_their_identity(self, cli: CommandLine) -> None:
        """An event can be about a device, whose cookie and ids are stored between commands."""
        cli.run("track", "ping", *DEVICE)
        cli.run("track", "ping", *DEVICE)
        cli.run("track", "ping", "--device", "till")
        cli.run("identify", "--device", "till", *JANE)
        cli.run("track", "pong", "--device", "till")
        ids = [event.customer_ids for event in cli.events if event.event_type in ("ping", "pong")]
        assert ids[0] == ids[1] != ids[2]
        assert ids[3] == {**ids[2], "registered": "jane@example.com"}

    def test_a_device_must_be_named(self, cli: CommandLine) -> None:
        """Without a customer or a device nothing is tracked: an event about a new device would create a customer."""
        result = cli.run("track", "ping")
        assert result.code == 2
        assert "--id or --device" in result.err
        assert cli.events == []
        assert not (cli.folder / "queue.sqlite").exists()

    def test_first_event_of_a_device(self, cli: CommandLine) -> None:
        """The first event of a device comes with its installation and a session; only the event is reported."""
        result = cli.run("track", "ping", *DEVICE, "--json")
        assert (result.code, result.json["status"], len(result.json["ids"])) == (0, "delivered", 1)
        cli.run("track", "pong", *DEVICE)
        cli.run("identify", *JANE, "--device", "default")
        arrived = sorted(cli.events, key=lambda event: event.timestamp)
        assert [event.event_type for event in arrived] == ["installation", "session_start", "ping", "pong"]

    def test_status_is_that_of_the_event(self, cli: CommandLine) -> None:
        """The reported status does not depend on the events that the device tracks by itself."""
        cli.fault("reject", times=2)
        result = cli.run("track", "ping", *DEVICE, "--wait", "20", "--json")
        assert (result.code, result.json["status"]) == (0, "delivered")
        assert cli.run("queue", "stats", "--json").json["dead"] == 2

    def test_wait_for_the_response(self, cli: CommandLine) -> None:
        """With --wait the command reports Engagement's response."""
        assert cli.run("track", "ping", *DEVICE, "--wait", "20", "--json").json["status"] == "delivered"
        cli.fault("reject", times=1)
        result = cli.run("track", "ping", *DEVICE, "--wait", "20", "--json")
        assert result.code == 3
        assert result.json["status"] == "rejected"
        assert "fault injection" in result.json["reason"]

    def test_manual_mode(self, cli: CommandLine, environment: Environment) -> None:
        """In manual mode the event stays in the queue, unless --wait is given."""
        environment(EXPONEA_FLUSH_MODE="MANUAL")
        assert cli.run("track", "ping", *DEVICE).out == "ping: queued\n"
        assert cli.run("track", "ping", *DEVICE, "--wait", "20").out == "ping: delivered\n"

    def test_a_client_that_only_records(self, cli: CommandLine, environment: Environment) -> None:
        """Where another process uploads, the event stays in the queue, unless --wait is given."""
        environment(EXPONEA_UPLOAD_ENABLED="false")
        assert cli.run("track", "ping", *DEVICE).out == "ping: queued\n"
        assert cli.run("track", "ping", *DEVICE, "--wait", "20").out == "ping: delivered\n"

    def test_flushing_what_clients_only_record(self, cli: CommandLine, environment: Environment) -> None:
        """The command ``flush`` uploads, also where the application's clients only record."""
        environment(EXPONEA_UPLOAD_ENABLED="false")
        cli.run("track", "ping", *DEVICE)
        delivered = cli.run("flush", "--json").json["delivered"]
        assert delivered > 0
        assert cli.run("queue", "stats", "--json").json["waiting"] == 0

    def test_no_response_in_time(self, cli: CommandLine) -> None:
        """Without a response in time the event stays queued, and the exit code says so."""
        cli.fault("status", status=503)
        result = cli.run("track", "ping", *DEVICE, "--wait", "0.2")
        assert (result.code, result.out) == (4, "ping: queued\n")

    def test_wait_ends_with_a_wrong_key(self, cli: CommandLine) -> None:
        """A project that refuses the key is paused: the event is kept, and the reason is reported without the key."""
        cli.fault("status", status=401)
        result = cli.run("track", "ping", *DEVICE, "--wait", "600")
        assert result.code == 4
        assert "is paused: HTTP 401" in result.err

    def test_outage_without_wait(self, cli: CommandLine) -> None:
        """Without --wait an outage is not a failure, because the event is in the queue."""
        cli.fault("status", status=503)
        result = cli.run("track", "ping", *DEVICE)
        assert (result.code, result.out) == (0, "ping: queued\n")

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
    def test_wrong_usage(self, cli: CommandLine, args: tuple[str, ...]) -> None:
        """Wrong arguments are refused, and nothing is stored."""
        assert cli.run("track", "ping", *args).code == 2
        assert cli.run("queue", "stats", "--json").json["waiting"] == 0

    def test_invalid_event(self, cli: CommandLine) -> None:
        """An event that the platform would never accept is invalid input."""
        result = cli.run("track", "ping", *DEVICE, "--property", "x=" + "y" * 20_000)
        assert result.code == 3
        assert "properties.x" in result.err


class TestKeys:
    @pytest.mark.parametrize("option", ["--authorization-token", "--authorization", "--token", "--key"])
    def test_key_as_an_argument_is_refused(self, cli: CommandLine, option: str) -> None:
        """A key on the command line is refused and not printed."""
        for given in ((option, SECRET), (f"{option}={SECRET}",)):
            result = cli.run("track", "ping", *given)
            assert result.code == 2
            assert "visible to other users" in result.err

    @pytest.mark.parametrize("content", [f"{SECRET}\n", json.dumps({"key_id": "id", "secret": SECRET})])
    def test_key_from_a_file(self, tmp_path: Path, environment: Environment, content: str) -> None:
        """The file may contain a public key or private access."""
        project = Project(PROJECT, tokens=(SECRET,), basic=(("id", SECRET),))
        with command_line(tmp_path, environment, projects=[project]) as cli:
            environment(EXPONEA_AUTHORIZATION_TOKEN=None)
            path = cli.write("key", content)
            assert cli.run("track", "ping", *DEVICE, "--wait", "20", "--authorization-file", path).code == 0

    @pytest.mark.parametrize("content", [None, "{", '{"key_id": "a"}', '{"key_id": "a", "secret": 1}', "\n"])
    def test_files_without_a_key(self, cli: CommandLine, content: str | None) -> None:
        """A file without a key is wrong configuration; neither its name nor its content is printed."""
        path = cli.folder / SECRET
        if content is not None:
            path.write_text(content)
        assert cli.run("track", "ping", *DEVICE, "--authorization-file", path).code == 2


class TestIdentify:
    def test_customer_is_updated(self, cli: CommandLine) -> None:
        """The customer has the ids and the properties."""
        result = cli.run("identify", *JANE, "--id", "loyalty=7", "--property", "city=Brno", "--wait", "20")
        assert (result.code, result.out) == (0, "jane@example.com 7: delivered\n")
        customer = cli.sandbox.engine.customers(PROJECT)[0]
        assert customer.ids == {"registered": ("jane@example.com",), "loyalty": ("7",)}
        assert customer.properties["city"] == "Brno"

    @pytest.mark.parametrize("args", [(), ("--id", "registered"), (*JANE, *JANE)])
    def test_ids_are_required(self, cli: CommandLine, args: tuple[str, ...]) -> None:
        """At least one id is required, and each kind of id only once."""
        assert cli.run("identify", *args).code == 2


class TestFlush:
    @pytest.fixture
    def waiting(self, cli: CommandLine, environment: Environment) -> CommandLine:
        environment(EXPONEA_FLUSH_MODE="MANUAL")
        cli.run("track", "ping", *DEVICE)
        cli.run("track", "pong", *DEVICE)
        return cli

    def test_it_uploads_the_queue(self, waiting: CommandLine) -> None:
        """All events that wait are delivered, including those that the device tracked by itself."""
        result = waiting.run("flush", "--json")
        assert (result.code, result.json) == (0, {"delivered": 4, "rejected": 0, "remaining": 0, "reasons": {}})
        names = sorted(event.event_type for event in waiting.events)
        assert names == ["installation", "ping", "pong", "session_start"]

    def test_rejections_have_an_exit_code(self, waiting: CommandLine) -> None:
        """Rejected events are counted, and the exit code says so."""
        waiting.fault("reject", times=1)
        result = waiting.run("flush")
        assert result.code == 3
        assert "rejected   1" in result.out

    def test_unsent_events_have_an_exit_code(self, waiting: CommandLine) -> None:
        """Events that can't be sent in time stay in the queue, and the exit code says so."""
        waiting.fault("status", status=503)
        # Once more where the machine stops until the time is over.
        for _ in range(20):
            result = waiting.run("flush", "--timeout", "0.5", "--json")
            if result.json["reasons"]:
                break
        reason = "Engagement is unavailable: HTTP 503: 503 by fault injection"
        assert (result.code, result.json) == (
            4,
            {"delivered": 0, "rejected": 0, "remaining": 4, "reasons": {"shop": reason}},
        )
