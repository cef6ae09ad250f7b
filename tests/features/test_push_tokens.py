"""
Push tokens through the verbs: when Engagement is told of one, and what.
"""

from typing import Any

import pytest
from helpers.app import STAMPS, Kept, Phone

from exponea_async import Customer, InvalidEventError, TokenFrequency

DAY = 86_400.0
GRANTED, DENIED, INVALIDATED = "Permission granted", "Permission denied", "Invalidated"

Said = tuple[str, bool, str]


def said(states: list[Kept]) -> list[Said]:
    """Tell token, validity and description of what is told about tokens."""
    return [
        (each.own["push_notification_token"], each.own["valid"], each.own["description"])
        for each in states
        if each.name == "notification_state"
    ]


async def tokens(phone: Phone) -> list[Said]:
    """Tell what waits about tokens."""
    return said(await phone.kept("notification_state"))


class TestWhatIsTold:
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
    async def test_a_first_token(self, phone: Phone, verb: str, platform: str) -> None:
        """A token is told with its platform and the stamps, and nothing else: no default property gets in."""
        client = await phone.start(application_id="com.example.shop", default_properties={"a": 1, "valid": "x"})
        await client.identify_customer(Customer({"registered": "R"}))
        await getattr(client, verb)("A")
        (state,) = await phone.kept("notification_state")

        assert state.own == {
            "push_notification_token": "A",
            "platform": platform,
            "valid": True,
            "description": GRANTED,
        }
        assert set(state.properties) == set(state.own) | STAMPS
        assert state.properties["application_id"] == "com.example.shop"
        assert state.ids == {"cookie": await client.get_customer_cookie(), "registered": "R"}

    @pytest.mark.parametrize("allowed", [True, False])
    async def test_defaults_of_customers_have_no_say(self, phone: Phone, allowed: bool) -> None:  # noqa: FBT001
        """Whether defaults go under a customer's properties does not touch tokens."""
        client = await phone.start(default_properties={"a": 1}, allow_default_customer_properties=allowed)
        await client.track_push_token("A")

        assert await tokens(phone) == [("A", True, GRANTED)]
        assert "a" not in (await phone.kept("notification_state"))[0].own

    @pytest.mark.parametrize(
        ("require", "authorized", "expected"),
        [
            (False, True, ("A", True, GRANTED)),
            (False, False, ("A", True, GRANTED)),
            (True, True, ("A", True, GRANTED)),
            (True, False, ("A", False, DENIED)),
        ],
    )
    async def test_the_permission(self, phone: Phone, require: bool, authorized: bool, expected: Said) -> None:  # noqa: FBT001
        """A token only lacks validity where permission is required and denied; never is it valid and denied."""
        client = await phone.start(require_push_authorization=require)
        await client.track_push_token("A")
        await client.verify_push_status_and_track_push_token(authorized)
        await client.track_push_token("A")

        assert (await tokens(phone))[-1] == expected

    async def test_a_denial_is_told_once(self, phone: Phone) -> None:
        """That the permission is denied is told once, and so is that it is granted again."""
        client = await phone.start(require_push_authorization=True)
        await client.track_push_token("A")
        for authorized in (False, False, None, True, True, None):
            await client.verify_push_status_and_track_push_token(authorized)

        assert await tokens(phone) == [("A", True, GRANTED), ("A", False, DENIED), ("A", True, GRANTED)]

    @pytest.mark.parametrize("token", ["", "  ", None, 5])
    @pytest.mark.parametrize("verb", ["track_push_token", "handle_push_token"])
    async def test_no_token(self, phone: Phone, verb: str, token: Any) -> None:
        """What is no token is refused, and nothing is remembered."""
        client = await phone.start()
        with pytest.raises(InvalidEventError, match="token"):
            await getattr(client, verb)(token)
        await client.resume()

        assert await tokens(phone) == []

    async def test_nothing_to_verify(self, phone: Phone) -> None:
        """Without a token there is nothing to tell."""
        client = await phone.start(push_token_tracking_frequency="EVERY_LAUNCH")
        assert await client.verify_push_status_and_track_push_token(False) == []  # noqa: FBT003 - as an application does
        await client.resume()

        assert await tokens(phone) == []


class TestHowOften:
    @pytest.mark.parametrize(
        ("frequency", "again", "next_day"),
        [("ON_TOKEN_CHANGE", 0, 0), ("EVERY_LAUNCH", 1, 1), ("DAILY", 0, 1)],
    )
    @pytest.mark.parametrize("act", ["handle", "resume", "verify", "restart"])
    async def test_the_same_token(self, phone: Phone, act: str, frequency: str, again: int, next_day: int) -> None:
        """The same token is told again as the frequency has it: at a start, in front of somebody, or handed out."""
        client = await phone.start(at=10 * DAY, push_token_tracking_frequency=frequency)
        await client.handle_push_token("A")

        async def repeat() -> None:
            if act == "handle":
                await client.handle_push_token("A")
            elif act == "resume":
                await client.resume()
            elif act == "verify":
                await client.verify_push_status_and_track_push_token()
            else:
                await (await phone.restart(push_token_tracking_frequency=frequency)).get_customer_cookie()

        phone.now = 11 * DAY - 1
        assert len(await phone.new(repeat, "notification_state")) == again
        phone.now = 11 * DAY + 1
        assert len(await phone.new(repeat, "notification_state")) == next_day
        assert set(await tokens(phone)) == {("A", True, GRANTED)}

    @pytest.mark.parametrize("frequency", TokenFrequency)
    async def test_another_token(self, phone: Phone, frequency: TokenFrequency) -> None:
        """A new token is told whatever the frequency, after the old one was invalidated, and is remembered."""
        client = await phone.start(push_token_tracking_frequency=frequency)
        await client.handle_push_token("A")
        receipts = await client.handle_push_token("B")
        await client.anonymize()

        assert len(receipts) == 2
        assert await tokens(phone) == [
            ("A", True, GRANTED),
            ("A", False, INVALIDATED),
            ("B", True, GRANTED),
            ("B", False, INVALIDATED),
            ("B", True, GRANTED),
        ]

    async def test_the_same_letters_elsewhere(self, phone: Phone) -> None:
        """A token of another platform is another one, whatever it looks like."""
        client = await phone.start()
        await client.handle_push_token("A")
        await client.handle_hms_push_token("A")

        assert await tokens(phone) == [("A", True, GRANTED), ("A", False, INVALIDATED), ("A", True, GRANTED)]
        platforms = [each.own["platform"] for each in await phone.kept("notification_state")]
        assert platforms == ["android", "android", "huawei"]

    @pytest.mark.parametrize("frequency", TokenFrequency)
    async def test_by_hand(self, phone: Phone, frequency: TokenFrequency) -> None:
        """A token that is tracked by hand is told at once and each time, and no other one is invalidated."""
        client = await phone.start(push_token_tracking_frequency=frequency)
        for token in ("A", "A", "B"):
            await client.track_push_token(token)

        assert await tokens(phone) == [("A", True, GRANTED), ("A", True, GRANTED), ("B", True, GRANTED)]

    @pytest.mark.parametrize("change", [{"app_version": "2"}, {"application_id": "com.example.two"}])
    @pytest.mark.parametrize("frequency", TokenFrequency)
    async def test_another_application(self, phone: Phone, frequency: TokenFrequency, change: dict[str, str]) -> None:
        """After an update of the application the token is told once, at the device's first verb."""
        before: dict[str, Any] = {
            "app_version": "1",
            "application_id": "com.example.one",
            "push_token_tracking_frequency": frequency,
        }
        await (await phone.start(**before)).handle_push_token("A")
        client = await phone.restart(**before | change)
        await client.get_customer_cookie()
        await client.get_customer_cookie()
        first, second = await phone.kept("notification_state")

        assert first.properties["application_id"] == "com.example.one"
        assert second.properties["application_id"] == change.get("application_id", "com.example.one")
        assert second.own == first.own

    async def test_not_without_being_asked(self, phone: Phone) -> None:
        """Where push notifications are the application's own business, only its calls tell tokens."""
        settings: dict[str, Any] = {
            "automatic_push_notification": False,
            "push_token_tracking_frequency": "EVERY_LAUNCH",
        }
        await (await phone.start(**settings)).track_push_token("A")
        client = await phone.restart(**settings)
        await client.resume()
        assert len(await tokens(phone)) == 1

        await client.verify_push_status_and_track_push_token()
        assert len(await tokens(phone)) == 2

    async def test_each_device_has_its_own(self, phone: Phone) -> None:
        """The token of one device is none of another's."""
        client = await phone.start()
        await client.device("tg:1").handle_push_token("A")
        await client.device("tg:2").handle_push_token("B")

        assert await tokens(phone) == [("A", True, GRANTED), ("B", True, GRANTED)]


class TestAsCustomerProperties:
    @pytest.mark.parametrize(
        ("verb", "name"),
        [
            ("track_push_token", "google_push_notification_id"),
            ("track_hms_push_token", "huawei_push_notification_id"),
            ("track_apns_push_token", "apple_push_notification_id"),
        ],
    )
    async def test_the_names(self, phone: Phone, verb: str, name: str) -> None:
        """As older SDKs did, the token is a property of the customer, without defaults beside it."""
        client = await phone.start(push_token_storage="property", default_properties={"a": 1})
        receipt = await getattr(client, verb)("A")

        (update,) = await phone.kept("customer")
        assert update.properties == {name: "A"}
        assert receipt.status == "queued"
        assert await tokens(phone) == []

    async def test_an_empty_text_takes_it_away(self, phone: Phone) -> None:
        """What is no longer valid is told as an empty text, to the old customer first."""
        client = await phone.start(push_token_storage="property", require_push_authorization=True)
        await client.handle_push_token("A")
        await client.handle_push_token("B")
        old = await client.get_customer_cookie()
        await client.anonymize()
        new = await client.get_customer_cookie()
        await client.verify_push_status_and_track_push_token(authorized=False)

        told = [
            (each.ids["cookie"], each.properties["google_push_notification_id"])
            for each in await phone.kept("customer")
        ]
        assert told == [(old, "A"), (old, ""), (old, "B"), (old, ""), (new, "B"), (new, "")]
        moments = [each.data["update_timestamp"] for each in await phone.kept("customer")]
        assert moments == sorted(set(moments))


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
async def test_a_customer_has_no_token(phone: Phone, verb: str, arguments: tuple[str, ...]) -> None:
    """Whoever speaks about a customer is told that tokens are a device's."""
    client = await phone.start()
    with (
        client.bind(client.for_customer({"registered": "R"})),
        pytest.raises(InvalidEventError, match="Use a device"),
    ):
        await getattr(client, verb)(*arguments)
    assert await phone.kept() == []
