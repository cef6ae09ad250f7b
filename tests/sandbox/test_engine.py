"""
The books: what is stored, whose it is, and what is refused.
"""

from typing import Any

import pytest

from exponea_async.sandbox import Engine
from exponea_async.sandbox.engine import INJECTED_ERRORS

NOW = 1_767_225_600.0


@pytest.fixture
def engine() -> Engine:
    return Engine(clock=lambda: NOW)


def event(ids: dict[str, str], event_type: str = "ping", **fields: Any) -> dict[str, Any]:
    return {"customer_ids": ids, "event_type": event_type, "timestamp": 1.0, "properties": {}, **fields}


def track(engine: Engine, ids: dict[str, str], event_type: str = "ping", **fields: Any) -> tuple[str, ...]:
    return engine.execute("shop", "customers/events", event(ids, event_type, **fields))


def identify(engine: Engine, ids: dict[str, str], **fields: Any) -> tuple[str, ...]:
    return engine.execute("shop", "customers", {"customer_ids": ids, **fields})


def owned(engine: Engine, **ids: str) -> list[str]:
    """Tells the types of the events of a customer."""
    view = engine.customer("shop", ids)
    assert view is not None
    return [each.event_type for each in engine.events("shop") if each.customer == view.key]


class TestEvents:
    def test_an_event_is_stored_as_sent(self, engine: Engine) -> None:
        """Every field of an event arrives in the books."""
        assert track(engine, {"cookie": "c"}, "buy", timestamp=5, properties={"price": 7.5}) == ()

        (stored,) = engine.events()
        assert (stored.project, stored.event_type, stored.timestamp) == ("shop", "buy", 5.0)
        assert (stored.customer_ids, stored.properties) == ({"cookie": "c"}, {"price": 7.5})
        assert stored.received_at == NOW

    @pytest.mark.parametrize("fields", [{"timestamp": None, "properties": None}, {}])
    def test_without_a_timestamp_it_happened_on_arrival(self, engine: Engine, fields: dict[str, Any]) -> None:
        """An event without timestamp gets the time of its arrival; null counts as absent."""
        data = {"customer_ids": {"cookie": "c"}, "event_type": "ping", **fields}

        assert engine.execute("shop", "customers/events", data) == ()
        assert engine.events()[0].timestamp == NOW

    def test_events_are_told_by_project_and_type(self, engine: Engine) -> None:
        """Events keep their order of arrival across projects and can be picked."""
        for project, event_type in [("b", "x"), ("a", "y"), ("b", "y")]:
            engine.execute(project, "customers/events", event({"cookie": "c"}, event_type))

        assert [each.project for each in engine.events()] == ["b", "a", "b"]
        assert [each.event_type for each in engine.events("b")] == ["x", "y"]
        assert [each.project for each in engine.events(event_type="y")] == ["a", "b"]
        assert engine.events("none") == []
        assert engine.projects() == ["a", "b"]

    def test_a_click_needs_no_customer(self, engine: Engine) -> None:
        """A campaign click without ids is kept under customer 0, with its url among its properties."""
        click = {"url": "https://shop.example/?utm_source=mail", "properties": {"platform": "server"}}

        assert engine.execute("shop", "campaigns/clicks", click) == ()
        (stored,) = engine.events(event_type="campaign_click")
        assert stored.customer == 0
        assert stored.properties == {"url": click["url"], "platform": "server"}
        assert engine.customers() == []

    def test_a_click_with_ids_belongs_to_their_customer(self, engine: Engine) -> None:
        """A campaign click with ids is that customer's event, at the moment it tells."""
        click = {"url": "https://x.example", "timestamp": 5.5, "properties": {"platform": "server"}}

        assert engine.execute("shop", "campaigns/clicks", {"customer_ids": {"cookie": "c"}, **click}) == ()
        assert owned(engine, cookie="c") == ["campaign_click"]
        assert engine.events()[0].timestamp == 5.5


class TestDuplicates:
    def test_the_same_event_is_stored_once(self, engine: Engine) -> None:
        """An event sent again succeeds, is not stored again and is counted."""
        for properties in ({"a": 1, "b": 2}, {"b": 2, "a": 1}):
            assert track(engine, {"cookie": "c"}, properties=properties) == ()

        assert len(engine.events()) == 1
        assert engine.duplicates == 1

    @pytest.mark.parametrize(
        "other",
        [{"event_type": "pong"}, {"timestamp": 2.0}, {"properties": {"a": 1}}, {"customer_ids": {"cookie": "d"}}],
    )
    def test_any_difference_makes_another_event(self, engine: Engine, other: dict[str, Any]) -> None:
        """Another type, time, property or customer makes another event."""
        for data in (event({"cookie": "c"}), {**event({"cookie": "c"}), **other}):
            engine.execute("shop", "customers/events", data)

        assert len(engine.events()) == 2
        assert engine.duplicates == 0

    def test_a_merged_customer_still_knows_its_events(self, engine: Engine) -> None:
        """An event sent again after its customer was merged is still a duplicate."""
        track(engine, {"cookie": "c"})
        identify(engine, {"cookie": "c", "registered": "r"})
        track(engine, {"registered": "r"})

        assert len(engine.events()) == 1
        assert engine.duplicates == 1

    def test_merging_two_equal_events_leaves_one(self, engine: Engine) -> None:
        """Two customers with the same event have it once when they become one."""
        track(engine, {"cookie": "c"})
        track(engine, {"registered": "r"})
        identify(engine, {"cookie": "c", "registered": "r"})

        assert owned(engine, registered="r") == ["ping"]
        assert (len(engine.events()), engine.duplicates) == (1, 1)


class TestProperties:
    def test_an_older_update_changes_nothing(self, engine: Engine) -> None:
        """A property is overwritten unless its kept update is newer."""
        for moment, value in [(10, "first"), (10, "equal"), (5, "older")]:
            identify(engine, {"registered": "r"}, properties={"name": value}, update_timestamp=moment)

        assert engine.customers()[0].properties == {"name": "equal"}

    def test_the_rule_holds_for_each_property(self, engine: Engine) -> None:
        """An old update still brings the properties that are not there yet."""
        identify(engine, {"registered": "r"}, properties={"a": 1}, update_timestamp=10)
        identify(engine, {"registered": "r"}, properties={"a": 0, "b": 2}, update_timestamp=5)

        assert engine.customers()[0].properties == {"a": 1, "b": 2}

    def test_without_update_timestamp_it_is_now(self, engine: Engine) -> None:
        """An update without a time beats everything earlier and nothing later."""
        identify(engine, {"registered": "r"}, properties={"a": 1}, update_timestamp=NOW - 1)
        identify(engine, {"registered": "r"}, properties={"a": 2})
        identify(engine, {"registered": "r"}, properties={"a": 3}, update_timestamp=NOW - 1)

        assert engine.customers()[0].properties == {"a": 2}

    def test_merging_keeps_the_newest(self, engine: Engine) -> None:
        """Of a merged customer's properties the newest stay; at equal times the hard id's own."""
        identify(engine, {"cookie": "c"}, properties={"a": "c", "b": "c", "e": "c"}, update_timestamp=10)
        identify(engine, {"registered": "r"}, properties={"a": "r"}, update_timestamp=20)
        identify(engine, {"registered": "r"}, properties={"b": "r"}, update_timestamp=5)
        identify(engine, {"registered": "r"}, properties={"e": "r"}, update_timestamp=10)
        identify(engine, {"cookie": "c", "registered": "r"})

        assert engine.customers()[0].properties == {"a": "r", "b": "c", "e": "r"}


LARGE = "x" * 16_384


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "word"),
        [
            ({"customer_ids": {}}, "At least one id should be specified."),
            ({"customer_ids": None}, "At least one id should be specified."),
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
    def test_a_wrong_event_is_refused(self, engine: Engine, change: dict[str, Any], word: str) -> None:
        """Each rule of the platform has an error that names what is wrong; nothing is stored."""
        (error,) = engine.execute("shop", "customers/events", {**event({"cookie": "c"}), **change})

        assert word in error
        assert (engine.events(), engine.customers()) == ([], [])

    def test_all_errors_are_told_at_once(self, engine: Engine) -> None:
        """A command with several mistakes gets an error for each."""
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
    def test_other_commands_are_checked_too(self, engine: Engine, name: str, data: object) -> None:
        """Customers, clicks and the command's name have rules as well."""
        assert engine.execute("shop", name, data)
        assert (engine.events(), engine.customers()) == ([], [])

    def test_a_value_just_below_the_limit_passes(self, engine: Engine) -> None:
        """The limit of a property is 16,384 bytes of JSON; one less is right."""
        assert track(engine, {"cookie": "c"}, properties={"big": "x" * (16_384 - 3)}) == ()
        assert track(engine, {"cookie": "c"}, properties={"big": "x" * (16_384 - 2)}) != ()

    def test_what_nests_too_deeply_is_refused(self, engine: Engine) -> None:
        """A deep value is an error, not a crash."""
        deep: list[Any] = []
        for _ in range(300):
            deep = [deep]

        (error,) = track(engine, {"cookie": "c"}, properties={"deep": deep})

        assert error.startswith("The data is not valid JSON")
        assert engine.rejected[0].data == "(not JSON)"

    def test_refused_commands_are_kept_with_a_bound(self, engine: Engine) -> None:
        """A refused command is summarised; all are counted, the latest thousand kept."""
        for number in range(1_005):
            track(engine, {}, properties={"number": number, "text": "x" * 1_000})

        latest = engine.rejected[-1]
        assert (latest.project, latest.name) == ("shop", "customers/events")
        assert latest.errors == ("At least one id should be specified.",)
        assert len(latest.data) < 400
        assert (len(engine.rejected), engine.rejected_count) == (1_000, 1_005)


class TestBatch:
    def test_results_stand_in_the_order_given(self, engine: Engine) -> None:
        """Results match their commands, though the commands were carried out in another order."""
        commands = [
            {"name": "customers/events", "command_id": f"q-{number}", "data": event({"cookie": "c"}, f"e{number}")}
            for number in range(50)
        ]

        results = engine.execute_batch("shop", commands)

        assert results == [{"success": True, "command_id": f"q-{number}"} for number in range(50)]
        stored = [each.event_type for each in engine.events()]
        assert stored != sorted(stored, key=lambda name: int(name[1:]))
        assert len(stored) == 50

    def test_the_order_comes_from_the_seed(self) -> None:
        """The same seed carries a batch out in the same order, again after a reset."""
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
    def test_a_wrong_command_fails_alone(self, engine: Engine, command: object) -> None:
        """A wrong command fails with errors and without its neighbours."""
        good = {"name": "customers/events", "data": event({"cookie": "c"})}

        first, second = engine.execute_batch("shop", [command, good])

        assert first["success"] is False
        assert first["errors"]
        assert second == {"success": True}
        assert engine.rejected_count == 1

    def test_system_time_is_a_command(self, engine: Engine) -> None:
        """A batch may ask for the time; a failure echoes its command_id too."""
        results = engine.execute_batch("shop", [{"name": "system/time"}, {"name": "no", "command_id": "x"}])

        assert results[0] == {"success": True, "time": NOW}
        assert results[1] == {"success": False, "errors": ("Unknown command.",), "command_id": "x"}

    def test_refusals_follow_the_order_given(self, engine: Engine) -> None:
        """An injected refusal hits the command at its place in the batch."""
        answers = iter([False, True, False])
        commands = [{"name": "customers/events", "data": event({"cookie": "c"}, name)} for name in "abc"]

        results = engine.execute_batch("shop", commands, lambda: next(answers))

        assert [result.get("errors") for result in results] == [None, INJECTED_ERRORS, None]
        assert {each.event_type for each in engine.events()} == {"a", "c"}


def test_the_summary_counts_each_project(engine: Engine) -> None:
    """Events, customers, duplicates and refusals are counted by project."""
    for ids in ({"cookie": "c"}, {"cookie": "c"}, {"cookie": "d"}, {}):
        track(engine, ids)

    counts = engine.summary()["shop"]
    assert (counts.events, counts.customers, counts.duplicates, counts.rejected) == (2, 2, 1, 1)
