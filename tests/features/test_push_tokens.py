"""
Push tokens: when they are tracked, and with which properties.
"""

import sqlite3
from contextlib import closing
from typing import Any

import pytest
from helpers.app import STAMPS, App, PendingRecord
from helpers.clients import Configure

from exponea_async import Customer, Event, InvalidEventError, TokenFrequency

DAY = 86_400.0
GRANTED, DENIED, INVALIDATED = "Permission granted", "Permission denied", "Invalidated"

State = tuple[str, bool, str]


def states_of(events: list[PendingRecord]) -> list[State]:
    """Return token, validity and description of the events about tokens."""
    return [
        (each.own["push_notification_token"], each.own["valid"], each.own["description"])
        for each in events
        if each.name == "notification_state"
    ]


async def tokens(app: App) -> list[State]:
    """Return the states of tokens in the queue."""
    return states_of(await app.pending("notification_state"))


class TestEvents:
    @pytest.mark.parametrize(
        ("verb", "platform"),
        [
            ("track_push_token", "android"),
            ("track_hms_push_token", "huawei"),
            ("track_apns_push_token", "ios"),
            ("handle_push_token", "android"),
            ("handle_hms_push_token", "huawei"),
        ],
    )
    async def test_first_token(self, app: App, verb: str, platform: str) -> None:
        """The event has the token, its platform and state, and no default properties."""
        client = await app.start(application_id="com.example.shop", default_properties={"a": 1, "valid": "x"})
        await client.identify_customer(Customer({"registered": "R"}))
        await getattr(client, verb)("A")
        (event,) = await app.pending("notification_state")

        assert event.own == {
            "push_notification_token": "A",
            "platform": platform,
            "valid": True,
            "description": GRANTED,
        }
        assert set(event.properties) == set(event.own) | STAMPS
        assert event.properties["application_id"] == "com.example.shop"
        assert event.ids == {"cookie": await client.get_customer_cookie(), "registered": "R"}

    @pytest.mark.parametrize("allowed", [True, False])
    async def test_default_customer_properties(self, app: App, allowed: bool) -> None:  # noqa: FBT001
        """Token events have no default properties, whether or not customer updates have them."""
        client = await app.start(default_properties={"a": 1}, allow_default_customer_properties=allowed)
        await client.track_push_token("A")

        assert await tokens(app) == [("A", True, GRANTED)]
        assert "a" not in (await app.pending("notification_state"))[0].own

    @pytest.mark.parametrize(
        ("require", "authorized", "expected"),
        [
            (False, True, ("A", True, GRANTED)),
            (False, False, ("A", True, GRANTED)),
            (True, True, ("A", True, GRANTED)),
            (True, False, ("A", False, DENIED)),
        ],
    )
    async def test_permission(self, app: App, require: bool, authorized: bool, expected: State) -> None:  # noqa: FBT001
        """A token is invalid only if permission is required and denied."""
        client = await app.start(require_push_authorization=require)
        await client.track_push_token("A")
        await client.verify_push_status_and_track_push_token(authorized)
        await client.track_push_token("A")

        assert (await tokens(app))[-1] == expected

    async def test_denial_is_tracked_once(self, app: App) -> None:
        """A denied permission is tracked once, and so is one that is granted again."""
        client = await app.start(require_push_authorization=True)
        await client.track_push_token("A")
        for authorized in (False, False, None, True, True, None):
            await client.verify_push_status_and_track_push_token(authorized)

        assert await tokens(app) == [("A", True, GRANTED), ("A", False, DENIED), ("A", True, GRANTED)]

    @pytest.mark.parametrize("token", ["", "  ", None, 5])
    @pytest.mark.parametrize("verb", ["track_push_token", "handle_push_token"])
    async def test_wrong_token(self, app: App, verb: str, token: Any) -> None:
        """A token that is not a non-blank string raises an error, and is not remembered."""
        client = await app.start()
        with pytest.raises(InvalidEventError, match="token"):
            await getattr(client, verb)(token)
        await client.resume()

        assert await tokens(app) == []

    async def test_nothing_to_verify(self, app: App) -> None:
        """Without a token nothing is tracked."""
        client = await app.start(push_token_tracking_frequency="EVERY_LAUNCH")
        assert await client.verify_push_status_and_track_push_token(False) == []  # noqa: FBT003 - as an application does
        await client.resume()

        assert await tokens(app) == []


class TestFrequency:
    @pytest.mark.parametrize(
        ("frequency", "again", "next_day"),
        [("ON_TOKEN_CHANGE", 0, 0), ("EVERY_LAUNCH", 1, 1), ("DAILY", 0, 1)],
    )
    @pytest.mark.parametrize("trigger", ["handle", "resume", "verify", "restart"])
    async def test_same_token(self, app: App, trigger: str, frequency: str, again: int, next_day: int) -> None:
        """The same token is tracked again as the frequency says: when handled, by resume(), or after a restart."""
        client = await app.start(at=10 * DAY, push_token_tracking_frequency=frequency)
        await client.handle_push_token("A")

        async def repeat() -> None:
            if trigger == "handle":
                await client.handle_push_token("A")
            elif trigger == "resume":
                await client.resume()
            elif trigger == "verify":
                await client.verify_push_status_and_track_push_token()
            else:
                await (await app.restart(push_token_tracking_frequency=frequency)).get_customer_cookie()

        app.now = 11 * DAY - 1
        assert len(await app.new(repeat, "notification_state")) == again
        app.now = 11 * DAY + 1
        assert len(await app.new(repeat, "notification_state")) == next_day
        assert set(await tokens(app)) == {("A", True, GRANTED)}

    @pytest.mark.parametrize("frequency", TokenFrequency)
    async def test_another_token(self, app: App, frequency: TokenFrequency) -> None:
        """A new token is tracked with every frequency, after the old one is invalidated, and is remembered."""
        client = await app.start(push_token_tracking_frequency=frequency)
        await client.handle_push_token("A")
        receipts = await client.handle_push_token("B")
        await client.anonymize()

        assert len(receipts) == 2
        assert await tokens(app) == [
            ("A", True, GRANTED),
            ("A", False, INVALIDATED),
            ("B", True, GRANTED),
            ("B", False, INVALIDATED),
            ("B", True, GRANTED),
        ]

    async def test_same_token_of_another_platform(self, app: App) -> None:
        """The same string for another platform is another token."""
        client = await app.start()
        await client.handle_push_token("A")
        await client.handle_hms_push_token("A")

        assert await tokens(app) == [("A", True, GRANTED), ("A", False, INVALIDATED), ("A", True, GRANTED)]
        platforms = [each.own["platform"] for each in await app.pending("notification_state")]
        assert platforms == ["android", "android", "huawei"]

    @pytest.mark.parametrize("frequency", TokenFrequency)
    async def test_explicit_tracking(self, app: App, frequency: TokenFrequency) -> None:
        """A token that is tracked explicitly is tracked each time, and invalidates no other token."""
        client = await app.start(push_token_tracking_frequency=frequency)
        for token in ("A", "A", "B"):
            await client.track_push_token(token)

        assert await tokens(app) == [("A", True, GRANTED), ("A", True, GRANTED), ("B", True, GRANTED)]

    @pytest.mark.parametrize("change", [{"app_version": "2"}, {"application_id": "com.example.two"}])
    @pytest.mark.parametrize("frequency", TokenFrequency)
    async def test_another_application(self, app: App, frequency: TokenFrequency, change: dict[str, str]) -> None:
        """After an update of the application the token is tracked once, by the device's first activity."""
        before: dict[str, Any] = {
            "app_version": "1",
            "application_id": "com.example.one",
            "push_token_tracking_frequency": frequency,
        }
        await (await app.start(**before)).handle_push_token("A")
        client = await app.restart(**before | change)
        await client.get_customer_cookie()
        await client.get_customer_cookie()
        first, second = await app.pending("notification_state")

        assert first.properties["application_id"] == "com.example.one"
        assert second.properties["application_id"] == change.get("application_id", "com.example.one")
        assert second.own == first.own

    async def test_without_automatic_tracking(self, app: App) -> None:
        """Without automatic tracking only explicit calls track tokens."""
        settings: dict[str, Any] = {
            "automatic_push_notification": False,
            "push_token_tracking_frequency": "EVERY_LAUNCH",
        }
        await (await app.start(**settings)).track_push_token("A")
        client = await app.restart(**settings)
        await client.resume()
        assert len(await tokens(app)) == 1

        await client.verify_push_status_and_track_push_token()
        assert len(await tokens(app)) == 2

    async def test_each_device_has_its_own(self, app: App) -> None:
        """The token of one device does not replace that of another."""
        client = await app.start()
        await client.device("tg:1").handle_push_token("A")
        await client.device("tg:2").handle_push_token("B")

        assert await tokens(app) == [("A", True, GRANTED), ("B", True, GRANTED)]


class TestAsCustomerProperties:
    @pytest.mark.parametrize(
        ("verb", "name"),
        [
            ("track_push_token", "google_push_notification_id"),
            ("track_hms_push_token", "huawei_push_notification_id"),
            ("track_apns_push_token", "apple_push_notification_id"),
        ],
    )
    async def test_property_names(self, app: App, verb: str, name: str) -> None:
        """The token is a customer property, as in older SDKs, without default properties."""
        client = await app.start(push_token_storage="property", default_properties={"a": 1})
        receipt = await getattr(client, verb)("A")

        (update,) = await app.pending("customer")
        assert update.properties == {name: "A"}
        assert receipt.status == "queued"
        assert await tokens(app) == []

    async def test_invalidation(self, app: App) -> None:
        """An invalid token is tracked as an empty string, for the old customer first."""
        client = await app.start(push_token_storage="property", require_push_authorization=True)
        await client.handle_push_token("A")
        await client.handle_push_token("B")
        old = await client.get_customer_cookie()
        await client.anonymize()
        new = await client.get_customer_cookie()
        await client.verify_push_status_and_track_push_token(authorized=False)

        updates = [
            (each.ids["cookie"], each.properties["google_push_notification_id"])
            for each in await app.pending("customer")
        ]
        assert updates == [(old, "A"), (old, ""), (old, "B"), (old, ""), (new, "B"), (new, "")]
        timestamps = [each.data["update_timestamp"] for each in await app.pending("customer")]
        assert timestamps == sorted(set(timestamps))


class TestChangeOfTheForm:
    """What a device has told of its token in one form is taken back in that form, whatever the setting is now."""

    async def told(self, app: App) -> list[Any]:
        """Return what was told of the token, in order: the property, or whether the event says valid."""
        records = [each for each in await app.pending() if each.name in ("customer", "notification_state")]
        return [each.own.get("valid", each.own.get("google_push_notification_id")) for each in records]

    @pytest.mark.parametrize(
        ("old", "new", "expected"),
        [("property", "event", ["A", "", True]), ("event", "property", [True, False, "A"])],
    )
    async def test_at_the_next_start(self, app: App, old: str, new: str, expected: list[Any]) -> None:
        """The first activity takes the old form back and tells the token in the new one, once."""
        client = await app.start(push_token_storage=old)
        await client.track_push_token("A")
        for _ in range(2):
            client = await app.restart(push_token_storage=new)
            await client.track_event(Event("ping"))

        assert await self.told(app) == expected
        await client.anonymize()
        back, told = (False, True) if new == "event" else ("", "A")
        assert await self.told(app) == [*expected, back, told]

    @pytest.mark.parametrize(
        ("old", "new", "expected"),
        [("property", "event", ["A", "", True]), ("event", "property", [True, False, "A"])],
    )
    async def test_at_sign_out(self, app: App, old: str, new: str, expected: list[Any]) -> None:
        """A sign-out takes the old form back from the old customer, and tells the new one in the new form only."""
        client = await app.start(push_token_storage=old)
        await client.track_push_token("A")
        before = await client.get_customer_cookie()
        client = await app.restart(push_token_storage=new)
        await client.anonymize()

        assert await self.told(app) == expected
        records = [each for each in await app.pending() if each.name in ("customer", "notification_state")]
        assert [each.ids["cookie"] == before for each in records] == [True, True, False]

    @pytest.mark.parametrize("verb", ["track_push_token", "handle_push_token"])
    async def test_with_another_token(self, app: App, verb: str) -> None:
        """A new token that is told in the new form takes the old token back in the old form, once."""
        client = await app.start(push_token_storage="property")
        await client.track_push_token("A")
        client = await app.restart(push_token_storage="event", automatic_push_notification=False)
        await getattr(client, verb)("B")

        assert (await self.told(app))[-2:] == ["", True]
        assert (await self.told(app)).count("") == 1

    @pytest.mark.file_only
    async def test_a_state_without_the_form(self, app: App, configure: Configure) -> None:
        """A token that an earlier version has tracked is assumed to be in the form of the setting."""
        client = await app.start(push_token_storage="property")
        await client.track_push_token("A")
        await client.aclose(0)
        path = configure().storage
        with closing(sqlite3.connect(path)) as database, database:  # type: ignore[arg-type]
            (value,) = database.execute("SELECT value FROM state WHERE key LIKE 'device:%'").fetchone()
            assert b',"form": "property"' in value or b',"form":"property"' in value
            old = value.replace(b',"form":"property"', b"")
            database.execute("UPDATE state SET value = ? WHERE key LIKE 'device:%'", (old,))
        client = await app.start(push_token_storage="property")
        await client.anonymize()

        assert await self.told(app) == ["A", "", "A"]


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("track_push_token", ("A",)),
        ("track_hms_push_token", ("A",)),
        ("track_apns_push_token", ("A",)),
        ("handle_push_token", ("A",)),
        ("handle_hms_push_token", ("A",)),
        ("verify_push_status_and_track_push_token", ()),
    ],
)
async def test_customer_tracker(app: App, verb: str, arguments: tuple[str, ...]) -> None:
    """A customer tracker raises an error."""
    client = await app.start()
    with (
        client.bind(client.for_customer({"registered": "R"})),
        pytest.raises(InvalidEventError, match="Use a device"),
    ):
        await getattr(client, verb)(*arguments)
    assert await app.pending() == []
