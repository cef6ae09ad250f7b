"""
Which push tokens a customer has.
"""

from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exponea_async.sandbox import Engine, PushToken, Sandbox

NOW = 1_767_225_600.0
STATES = {"valid": (True, "Permission granted"), "denied": (False, "Permission denied"), "gone": (False, "Invalidated")}


@pytest.fixture
def engine() -> Engine:
    return Engine(clock=lambda: NOW)


def state(token: Any, at: float, what: str = "valid", **properties: Any) -> dict[str, Any]:
    valid, description = STATES[what]
    told = {"push_notification_token": token, "platform": "android", "valid": valid, "description": description}
    return {
        "event_type": "notification_state",
        "timestamp": at,
        "properties": {**told, "application_id": "shop.app", **properties},
    }


def tell(engine: Engine, cookie: str, *told: dict[str, Any]) -> None:
    for each in told:
        assert engine.execute("shop", "customers/events", {"customer_ids": {"cookie": cookie}, **each}) == ()


def identify(engine: Engine, ids: dict[str, str], at: float = NOW, **properties: Any) -> None:
    data = {"customer_ids": ids, "properties": properties, "update_timestamp": at}
    assert engine.execute("shop", "customers", data) == ()


def shown(engine: Engine, **ids: str) -> tuple[PushToken, ...]:
    view = engine.customer("shop", ids)
    assert view is not None
    return view.push_tokens


def valid(engine: Engine, **ids: str) -> list[str]:
    return [each.token for each in shown(engine, **ids) if each.valid]


class TestEvents:
    def test_a_token_is_shown_as_told(self, engine: Engine) -> None:
        """Token, platform, application and moment are those of the event."""
        tell(engine, "c", state("t", 5.0))

        assert shown(engine, cookie="c") == (PushToken("t", "android", "shop.app", valid=True, at=5.0),)

    @pytest.mark.parametrize("what", ["denied", "gone"])
    def test_a_token_that_is_taken_back_is_not_valid(self, engine: Engine, what: str) -> None:
        """After an invalidation or a denied permission the token can't be sent to."""
        tell(engine, "c", state("t", 5.0), state("t", 6.0, what))

        assert shown(engine, cookie="c") == (PushToken("t", "android", "shop.app", valid=False, at=6.0),)

    def test_a_new_token_replaces_the_old_one(self, engine: Engine) -> None:
        """A customer has one token for each platform and application."""
        tell(engine, "c", state("old", 5.0), state("old", 6.0, "gone"), state("new", 7.0))
        tell(engine, "c", state("other", 1.0, application_id="other.app"), state("ios", 1.0, platform="ios"))

        assert valid(engine, cookie="c") == ["new", "other", "ios"]

    @given(st.permutations([state("old", 5.0), state("old", 6.0, "gone"), state("new", 7.0)]))
    def test_the_timestamp_decides(self, told: list[dict[str, Any]]) -> None:
        """In whatever order the events arrive, the latest says what is true."""
        engine = Engine(clock=lambda: NOW)
        tell(engine, "c", *told)

        assert shown(engine, cookie="c") == (PushToken("new", "android", "shop.app", valid=True, at=7.0),)

    def test_without_an_application_it_is_the_default_one(self, engine: Engine) -> None:
        """An event without application id is about the default application."""
        told = state("t", 5.0)
        del told["properties"]["application_id"]
        tell(engine, "c", told)

        assert shown(engine, cookie="c")[0].application_id == "default-application"

    @pytest.mark.parametrize("token", [None, "", 7, ["t"]])
    def test_what_is_no_token_is_passed_over(self, engine: Engine, token: Any) -> None:
        """An event without a token is stored like any other and changes no token."""
        tell(engine, "c", state("t", 5.0), state(token, 6.0))

        assert valid(engine, cookie="c") == ["t"]
        assert len(engine.events()) == 2


class TestOwners:
    @given(st.permutations([("a", state("t", 5.0)), ("b", state("t", 6.0))]))
    def test_a_token_is_shown_where_it_was_told_last(self, told: list[tuple[str, dict[str, Any]]]) -> None:
        """A token that became another customer's is not the first one's any more."""
        engine = Engine(clock=lambda: NOW)
        for cookie, each in told:
            tell(engine, cookie, each)

        assert (shown(engine, cookie="a"), valid(engine, cookie="b")) == ((), ["t"])

    def test_an_anonymized_device_leaves_no_valid_token_behind(self, engine: Engine) -> None:
        """The old customer's token is invalidated, the new customer has it."""
        tell(engine, "old", state("t", 5.0), state("t", 6.0, "gone"))
        tell(engine, "new", state("t", 6.1))

        assert [each.valid for each in shown(engine, cookie="old")] == [False]
        assert valid(engine, cookie="new") == ["t"]

    def test_nobody_takes_back_what_is_another_customers(self, engine: Engine) -> None:
        """An invalidation by the former owner leaves the token with its owner."""
        tell(engine, "a", state("t", 5.0))
        tell(engine, "b", state("t", 6.0))
        tell(engine, "a", state("t", 7.0, "gone"))

        assert (valid(engine, cookie="a"), valid(engine, cookie="b")) == ([], ["t"])

    def test_merged_customers_share_their_tokens(self, engine: Engine) -> None:
        """Of two customers who become one, the later state of each platform stays."""
        tell(engine, "a", state("first", 5.0), state("ios", 1.0, platform="ios"))
        tell(engine, "b", state("second", 6.0))
        identify(engine, {"cookie": "b", "registered": "r"})
        identify(engine, {"cookie": "a", "registered": "r"})

        assert sorted(valid(engine, registered="r")) == ["ios", "second"]


class TestProperties:
    @pytest.mark.parametrize(("name", "platform"), [("google", "android"), ("huawei", "huawei"), ("apple", "ios")])
    def test_older_sdks_set_a_property(self, engine: Engine, name: str, platform: str) -> None:
        """The property of an older SDK is a token of the default application; emptied, it is gone."""
        identify(engine, {"cookie": "c"}, 5.0, **{f"{name}_push_notification_id": "t"})
        assert shown(engine, cookie="c") == (PushToken("t", platform, "default-application", valid=True, at=5.0),)

        identify(engine, {"cookie": "c"}, 6.0, **{f"{name}_push_notification_id": ""})
        assert shown(engine, cookie="c") == ()

    def test_the_later_of_property_and_event_counts(self, engine: Engine) -> None:
        """A device whose SDK was updated tells its token by events from then on."""
        identify(engine, {"cookie": "c"}, 5.0, google_push_notification_id="old")
        tell(engine, "c", state("new", 6.0, application_id="default-application"))
        identify(engine, {"cookie": "c"}, 5.5, google_push_notification_id="between")

        assert valid(engine, cookie="c") == ["new"]


async def test_tokens_by_http() -> None:
    """The customers' route tells their tokens."""
    async with Sandbox() as sandbox, aiohttp.ClientSession(sandbox.url) as session:
        tell(sandbox.engine, "c", state("t", 5.0))
        async with session.get("/sandbox/projects/shop/customers") as response:
            (customer,) = (await response.json())["customers"]

    told = {"token": "t", "platform": "android", "application_id": "shop.app", "valid": True, "at": 5.0}
    assert customer["push_tokens"] == [told]
