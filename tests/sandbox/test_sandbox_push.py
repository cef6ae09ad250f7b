"""
The push tokens of customers.
"""

from typing import Any

import aiohttp
import pytest
from helpers.sandbox_engine import NOW, engine_at_now
from hypothesis import given
from hypothesis import strategies as st

from exponea_async.sandbox import Engine, PushToken, Sandbox

STATES = {"valid": (True, "Permission granted"), "denied": (False, "Permission denied"), "gone": (False, "Invalidated")}


@pytest.fixture
def engine() -> Engine:
    return engine_at_now()


def state(token: Any, at: float, what: str = "valid", **properties: Any) -> dict[str, Any]:
    valid, description = STATES[what]
    common = {"push_notification_token": token, "platform": "android", "valid": valid, "description": description}
    return {
        "event_type": "notification_state",
        "timestamp": at,
        "properties": {**common, "application_id": "shop.app", **properties},
    }


def track_states(engine: Engine, cookie: str, *states: dict[str, Any]) -> None:
    for each in states:
        assert engine.execute("shop", "customers/events", {"customer_ids": {"cookie": cookie}, **each}) == ()


def identify(engine: Engine, ids: dict[str, str], at: float = NOW, **properties: Any) -> None:
    data = {"customer_ids": ids, "properties": properties, "update_timestamp": at}
    assert engine.execute("shop", "customers", data) == ()


def push_tokens(engine: Engine, **ids: str) -> tuple[PushToken, ...]:
    view = engine.customer("shop", ids)
    assert view is not None
    return view.push_tokens


def valid_tokens(engine: Engine, **ids: str) -> list[str]:
    return [each.token for each in push_tokens(engine, **ids) if each.valid]


class TestEvents:
    def test_a_token_is_stored(self, engine: Engine) -> None:
        """Token, platform, application and timestamp are those of the event."""
        track_states(engine, "c", state("t", 5.0))

        assert push_tokens(engine, cookie="c") == (PushToken("t", "android", "shop.app", valid=True, at=5.0),)

    @pytest.mark.parametrize("what", ["denied", "gone"])
    def test_an_invalidated_token(self, engine: Engine, what: str) -> None:
        """After an invalidation or a denied permission the token is not valid."""
        track_states(engine, "c", state("t", 5.0), state("t", 6.0, what))

        assert push_tokens(engine, cookie="c") == (PushToken("t", "android", "shop.app", valid=False, at=6.0),)

    def test_a_new_token_replaces_the_old_one(self, engine: Engine) -> None:
        """A customer has one token for each platform and application."""
        track_states(engine, "c", state("old", 5.0), state("old", 6.0, "gone"), state("new", 7.0))
        track_states(engine, "c", state("other", 1.0, application_id="other.app"), state("ios", 1.0, platform="ios"))

        assert valid_tokens(engine, cookie="c") == ["new", "other", "ios"]

    @given(st.permutations([state("old", 5.0), state("old", 6.0, "gone"), state("new", 7.0)]))
    def test_events_out_of_order(self, states: list[dict[str, Any]]) -> None:
        """Whatever the order of arrival, the event with the latest timestamp counts."""
        engine = engine_at_now()
        track_states(engine, "c", *states)

        assert push_tokens(engine, cookie="c") == (PushToken("new", "android", "shop.app", valid=True, at=7.0),)

    def test_the_default_application(self, engine: Engine) -> None:
        """A token without an application id belongs to the default application."""
        event = state("t", 5.0)
        del event["properties"]["application_id"]
        track_states(engine, "c", event)

        assert push_tokens(engine, cookie="c")[0].application_id == "default-application"

    @pytest.mark.parametrize("token", [None, "", 7, ["t"]])
    def test_events_without_a_token(self, engine: Engine, token: Any) -> None:
        """An event without a valid token is stored like any other, and changes no token."""
        track_states(engine, "c", state("t", 5.0), state(token, 6.0))

        assert valid_tokens(engine, cookie="c") == ["t"]
        assert len(engine.events()) == 2


class TestOwners:
    @given(st.permutations([("a", state("t", 5.0)), ("b", state("t", 6.0))]))
    def test_the_latest_owner(self, events: list[tuple[str, dict[str, Any]]]) -> None:
        """A token belongs only to the customer with its latest event."""
        engine = engine_at_now()
        for cookie, each in events:
            track_states(engine, cookie, each)

        assert (push_tokens(engine, cookie="a"), valid_tokens(engine, cookie="b")) == ((), ["t"])

    def test_anonymize(self, engine: Engine) -> None:
        """After an anonymize, the token is invalid for the old customer and valid for the new one."""
        track_states(engine, "old", state("t", 5.0), state("t", 6.0, "gone"))
        track_states(engine, "new", state("t", 6.1))

        assert [each.valid for each in push_tokens(engine, cookie="old")] == [False]
        assert valid_tokens(engine, cookie="new") == ["t"]

    def test_an_invalidation_by_a_former_owner(self, engine: Engine) -> None:
        """An invalidation by a former owner doesn't affect the current owner."""
        track_states(engine, "a", state("t", 5.0))
        track_states(engine, "b", state("t", 6.0))
        track_states(engine, "a", state("t", 7.0, "gone"))

        assert (valid_tokens(engine, cookie="a"), valid_tokens(engine, cookie="b")) == ([], ["t"])

    def test_merged_customers_share_their_tokens(self, engine: Engine) -> None:
        """A merge keeps the latest token of each platform."""
        track_states(engine, "a", state("first", 5.0), state("ios", 1.0, platform="ios"))
        track_states(engine, "b", state("second", 6.0))
        identify(engine, {"cookie": "b", "registered": "r"})
        identify(engine, {"cookie": "a", "registered": "r"})

        assert sorted(valid_tokens(engine, registered="r")) == ["ios", "second"]


class TestProperties:
    @pytest.mark.parametrize(("name", "platform"), [("google", "android"), ("huawei", "huawei"), ("apple", "ios")])
    def test_properties_of_older_sdks(self, engine: Engine, name: str, platform: str) -> None:
        """The property of an older SDK is a token of the default application; an empty one removes it."""
        identify(engine, {"cookie": "c"}, 5.0, **{f"{name}_push_notification_id": "t"})
        assert push_tokens(engine, cookie="c") == (PushToken("t", platform, "default-application", valid=True, at=5.0),)

        identify(engine, {"cookie": "c"}, 6.0, **{f"{name}_push_notification_id": ""})
        assert push_tokens(engine, cookie="c") == ()

    def test_properties_and_events(self, engine: Engine) -> None:
        """Of the properties and events with a token, the latest counts."""
        identify(engine, {"cookie": "c"}, 5.0, google_push_notification_id="old")
        track_states(engine, "c", state("new", 6.0, application_id="default-application"))
        identify(engine, {"cookie": "c"}, 5.5, google_push_notification_id="between")

        assert valid_tokens(engine, cookie="c") == ["new"]


async def test_the_control_route() -> None:
    """The control route of customers returns their push tokens."""
    async with Sandbox() as sandbox, aiohttp.ClientSession(sandbox.url) as session:
        track_states(sandbox.engine, "c", state("t", 5.0))
        async with session.get("/sandbox/projects/shop/customers") as response:
            (customer,) = (await response.json())["customers"]

    expected = {"token": "t", "platform": "android", "application_id": "shop.app", "valid": True, "at": 5.0}
    assert customer["push_tokens"] == [expected]
