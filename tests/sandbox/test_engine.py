"""
The engine: what is stored for which customer, and what is rejected.
"""

from typing import Any

import pytest
from helpers.sandbox_engine import NOW, engine_at_now, event, event_types, identify, track

from exponea_async.sandbox import Engine
from exponea_async.sandbox.engine import INJECTED_ERRORS


@pytest.fixture
def engine() -> Engine:
    return engine_at_now()


class TestEvents:
    def test_an_event_is_stored_as_sent(self, engine: Engine) -> None:
        """Every field of an event is stored."""
        assert track(engine, {"cookie": "c"}, "buy", timestamp=5, properties={"price": 7.5}) == ()

        (stored,) = engine.events()
        assert (stored.project, stored.event_type, stored.timestamp) == ("shop", "buy", 5.0)
        assert (stored.customer_ids, stored.properties) == ({"cookie": "c"}, {"price": 7.5})
        assert stored.received_at == NOW

    @pytest.mark.parametrize("fields", [{"timestamp": None, "properties": None}, {}])
    def test_an_event_without_a_timestamp(self, engine: Engine, fields: dict[str, Any]) -> None:
        """An event without a timestamp gets the time of its arrival; null counts as absent."""
        data = {"customer_ids": {"cookie": "c"}, "event_type": "ping", **fields}

        assert engine.execute("shop", "customers/events", data) == ()
        assert engine.events()[0].timestamp == NOW

    def test_events_by_project_and_type(self, engine: Engine) -> None:
        """Events are returned in order of arrival, and can be selected by project and type."""
        for project, event_type in [("b", "x"), ("a", "y"), ("b", "y")]:
            engine.execute(project, "customers/events", event({"cookie": "c"}, event_type))

        assert [each.project for each in engine.events()] == ["b", "a", "b"]
        assert [each.event_type for each in engine.events("b")] == ["x", "y"]
        assert [each.project for each in engine.events(event_type="y")] == ["a", "b"]
        assert engine.events("none") == []
        assert engine.projects() == ["a", "b"]

    def test_a_click_needs_no_customer(self, engine: Engine) -> None:
        """A campaign click without ids is stored for customer 0, with its url in the properties."""
        click = {"url": "https://shop.example/?utm_source=mail", "properties": {"platform": "server"}}

        assert engine.execute("shop", "campaigns/clicks", click) == ()
        (stored,) = engine.events(event_type="campaign_click")
        assert stored.customer == 0
        assert stored.properties == {"url": click["url"], "platform": "server"}
        assert engine.customers() == []

    def test_a_click_with_ids(self, engine: Engine) -> None:
        """A campaign click with ids is an event of that customer, with its own timestamp."""
        click = {"url": "https://x.example", "timestamp": 5.5, "properties": {"platform": "server"}}

        assert engine.execute("shop", "campaigns/clicks", {"customer_ids": {"cookie": "c"}, **click}) == ()
        assert event_types(engine, cookie="c") == ["campaign_click"]
        assert engine.events()[0].timestamp == 5.5


class TestDuplicates:
    def test_the_same_event_is_stored_once(self, engine: Engine) -> None:
        """An event that is sent again succeeds, but is only counted as a duplicate."""
        for properties in ({"a": 1, "b": 2}, {"b": 2, "a": 1}):
            assert track(engine, {"cookie": "c"}, properties=properties) == ()

        assert len(engine.events()) == 1
        assert engine.duplicates == 1

    @pytest.mark.parametrize(
        "other",
        [{"event_type": "pong"}, {"timestamp": 2.0}, {"properties": {"a": 1}}, {"customer_ids": {"cookie": "d"}}],
    )
    def test_different_events(self, engine: Engine, other: dict[str, Any]) -> None:
        """An event of another type, time or customer, or with other properties, is not a duplicate."""
        for data in (event({"cookie": "c"}), {**event({"cookie": "c"}), **other}):
            engine.execute("shop", "customers/events", data)

        assert len(engine.events()) == 2
        assert engine.duplicates == 0

    def test_duplicates_after_a_merge(self, engine: Engine) -> None:
        """An event that is sent again after its customer was merged is still a duplicate."""
        track(engine, {"cookie": "c"})
        identify(engine, {"cookie": "c", "registered": "r"})
        track(engine, {"registered": "r"})

        assert len(engine.events()) == 1
        assert engine.duplicates == 1

    def test_merging_customers_with_the_same_event(self, engine: Engine) -> None:
        """Two customers with the same event have it once after they are merged."""
        track(engine, {"cookie": "c"})
        track(engine, {"registered": "r"})
        identify(engine, {"cookie": "c", "registered": "r"})

        assert event_types(engine, registered="r") == ["ping"]
        assert (len(engine.events()), engine.duplicates) == (1, 1)
        assert (engine.customers()[0].events, engine.summary()["shop"].events) == (1, 1)


class TestProperties:
    def test_an_older_update_changes_nothing(self, engine: Engine) -> None:
        """A property is overwritten unless the stored update is newer."""
        for timestamp, value in [(10, "first"), (10, "equal"), (5, "older")]:
            identify(engine, {"registered": "r"}, properties={"name": value}, update_timestamp=timestamp)

        assert engine.customers()[0].properties == {"name": "equal"}

    def test_timestamps_are_compared_by_property(self, engine: Engine) -> None:
        """An older update still adds properties that are not stored yet."""
        identify(engine, {"registered": "r"}, properties={"a": 1}, update_timestamp=10)
        identify(engine, {"registered": "r"}, properties={"a": 0, "b": 2}, update_timestamp=5)

        assert engine.customers()[0].properties == {"a": 1, "b": 2}

    def test_an_update_without_a_timestamp(self, engine: Engine) -> None:
        """An update without a timestamp has the current time."""
        identify(engine, {"registered": "r"}, properties={"a": 1}, update_timestamp=NOW - 1)
        identify(engine, {"registered": "r"}, properties={"a": 2})
        identify(engine, {"registered": "r"}, properties={"a": 3}, update_timestamp=NOW - 1)

        assert engine.customers()[0].properties == {"a": 2}

    def test_merging_properties(self, engine: Engine) -> None:
        """A merge keeps the newest properties; at equal times, those of the customer with the hard id."""
        identify(engine, {"cookie": "c"}, properties={"a": "c", "b": "c", "e": "c"}, update_timestamp=10)
        identify(engine, {"registered": "r"}, properties={"a": "r"}, update_timestamp=20)
        identify(engine, {"registered": "r"}, properties={"b": "r"}, update_timestamp=5)
        identify(engine, {"registered": "r"}, properties={"e": "r"}, update_timestamp=10)
        identify(engine, {"cookie": "c", "registered": "r"})

        assert engine.customers()[0].properties == {"a": "r", "b": "c", "e": "r"}


LARGE = "x" * 16_384


class TestRejections:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"customer_ids": {}}, "At least one id should be specified."),
            ({"customer_ids": None}, "At least one id should be specified."),
            ({"customer_ids": {"registered": " "}}, "The id 'registered' should be a non-empty string."),
            ({"customer_ids": {"registered": "null"}}, "At least one valid id should be specified."),
            ({"customer_ids": {"registered": " undefined"}}, "At least one valid id should be specified."),
            ({"customer_ids": {"registered": "@-."}}, "At least one valid id should be specified."),
            ({"customer_ids": "c"}, "customer_ids should be an object"),
            ({"customer_ids": []}, "customer_ids should be an object"),
            ({"customer_ids": {"registered": 7}}, "'registered'"),
            ({"customer_ids": {"registered": ""}}, "'registered'"),
            ({"customer_ids": {"cookie": "c", "registered": None}}, "'registered'"),
            ({"event_type": ""}, "event_type"),
            ({"event_type": None}, "event_type"),
            ({"event_type": 5}, "event_type"),
            ({"timestamp": "1"}, "timestamp"),
            ({"timestamp": True}, "timestamp"),
            ({"timestamp": -1}, "negative"),
            ({"timestamp": 1_767_225_600_000}, "milliseconds"),
            ({"properties": []}, "properties should be an object"),
            ({"properties": {"big": LARGE}}, "'big'"),
            ({"properties": {str(n): "x" * 16_000 for n in range(60)}}, "800 KB"),
        ],
    )
    def test_invalid_events(self, engine: Engine, change: dict[str, Any], message: str) -> None:
        """Each rule of the platform has an error that describes the problem; nothing is stored."""
        (error,) = engine.execute("shop", "customers/events", {**event({"cookie": "c"}), **change})

        assert message in error
        assert (engine.events(), engine.customers()) == ([], [])

    def test_ids_are_trimmed(self, engine: Engine) -> None:
        """Blanks round the value of an id do not make another customer."""
        for value in ("r", " r", "r\n"):
            assert track(engine, {"registered": value}) == ()
            identify(engine, {"registered": value})

        assert [customer.ids for customer in engine.customers()] == [{"registered": ("r",)}]

    def test_all_errors_are_returned(self, engine: Engine) -> None:
        """A command with several problems has an error for each."""
        assert len(engine.execute("shop", "customers/events", {"timestamp": "x", "properties": 1})) == 4

    @pytest.mark.parametrize(
        ("name", "data"),
        [
            ("customers", {"customer_ids": {"cookie": "c"}, "update_timestamp": 1e12}),
            ("customers", {"customer_ids": {"cookie": "c"}, "properties": "x"}),
            ("customers", [1]),
            ("campaigns/clicks", {"properties": {}}),
            ("campaigns/clicks", {"url": "https://x.example", "customer_ids": {"cookie": 1}}),
            ("customers/delete", {}),
        ],
    )
    def test_other_invalid_commands(self, engine: Engine, name: str, data: object) -> None:
        """Updates of customers, campaign clicks and the name of the command are validated too."""
        assert engine.execute("shop", name, data)
        assert (engine.events(), engine.customers()) == ([], [])

    def test_the_size_limit_of_a_property(self, engine: Engine) -> None:
        """A property has to be smaller than 16,384 bytes of JSON."""
        assert track(engine, {"cookie": "c"}, properties={"big": "x" * (16_384 - 3)}) == ()
        assert track(engine, {"cookie": "c"}, properties={"big": "x" * (16_384 - 2)}) != ()

    def test_deeply_nested_values(self, engine: Engine) -> None:
        """A value that nests too deeply is rejected with an error."""
        deep: list[Any] = []
        for _ in range(300):
            deep = [deep]

        (error,) = track(engine, {"cookie": "c"}, properties={"deep": deep})

        assert error.startswith("The data is not valid JSON")
        assert engine.rejected[0].data == "(not JSON)"

    def test_rejected_commands_are_stored(self, engine: Engine) -> None:
        """The latest 1,000 rejected commands are stored with a summary of their data, and all are counted."""
        for number in range(1_005):
            track(engine, {}, properties={"number": number, "text": "x" * 1_000})

        latest = engine.rejected[-1]
        assert (latest.project, latest.name) == ("shop", "customers/events")
        assert latest.errors == ("At least one id should be specified.",)
        assert len(latest.data) < 400
        assert (len(engine.rejected), engine.rejected_count) == (1_000, 1_005)


class TestBatch:
    def test_results_have_the_order_of_the_commands(self, engine: Engine) -> None:
        """The results are in the order of the commands, although these were executed in another order."""
        commands = [
            {"name": "customers/events", "command_id": f"q-{number}", "data": event({"cookie": "c"}, f"e{number}")}
            for number in range(50)
        ]

        results = engine.execute_batch("shop", commands)

        assert results == [{"success": True, "command_id": f"q-{number}"} for number in range(50)]
        stored = [each.event_type for each in engine.events()]
        assert stored != sorted(stored, key=lambda name: int(name[1:]))
        assert len(stored) == 50

    def test_the_seed_determines_the_order(self) -> None:
        """With the same seed a batch is executed in the same order, also after a reset."""
        commands = [{"name": "customers/events", "data": event({"cookie": "c"}, f"e{n}")} for n in range(20)]
        engine = Engine(seed=5)
        engine.execute_batch("shop", commands)
        first = [each.event_type for each in engine.events()]

        engine.reset()
        assert engine.events() == []
        engine.execute_batch("shop", commands)
        assert [each.event_type for each in engine.events()] == first

    @pytest.mark.parametrize(
        "command",
        [
            5,
            {},
            {"name": ["customers"]},
            {"name": "campaigns/clicks", "data": {"url": "https://x.example"}},
            {"name": "customers/events"},
            {"name": "customers", "data": {"customer_ids": {"cookie": "c"}}, "command_id": {"a": 1}},
        ],
    )
    def test_an_invalid_command_fails_alone(self, engine: Engine, command: object) -> None:
        """An invalid command fails with errors; the other commands of the batch succeed."""
        valid = {"name": "customers/events", "data": event({"cookie": "c"})}

        first, second = engine.execute_batch("shop", [command, valid])

        assert first["success"] is False
        assert first["errors"]
        assert second == {"success": True}
        assert engine.rejected_count == 1

    def test_system_time_is_a_command(self, engine: Engine) -> None:
        """A batch can request the time; the result of a failed command contains its command_id too."""
        results = engine.execute_batch("shop", [{"name": "system/time"}, {"name": "no", "command_id": "x"}])

        assert results[0] == {"success": True, "time": NOW}
        assert results[1] == {"success": False, "errors": ("Unknown command.",), "command_id": "x"}

    def test_injected_rejections(self, engine: Engine) -> None:
        """An injected rejection affects the command at its position in the batch."""
        rejections = iter([False, True, False])
        commands = [{"name": "customers/events", "data": event({"cookie": "c"}, name)} for name in "abc"]

        results = engine.execute_batch("shop", commands, lambda: next(rejections))

        assert [result.get("errors") for result in results] == [None, INJECTED_ERRORS, None]
        assert {each.event_type for each in engine.events()} == {"a", "c"}


def test_the_summary_counts_each_project(engine: Engine) -> None:
    """Events, customers, duplicates and rejections are counted by project."""
    for ids in ({"cookie": "c"}, {"cookie": "c"}, {"cookie": "d"}, {}):
        track(engine, ids)

    counts = engine.summary()["shop"]
    assert (counts.events, counts.customers, counts.duplicates, counts.rejected) == (2, 2, 1, 1)
