"""
Links of campaigns: which session they led to, and the click that is told.
"""

import json
from typing import Any

import pytest
from phones import DEVICE, STAMPS, Phone

from exponea_async import Customer, Event, InvalidEventError
from exponea_async.sandbox import Sandbox

LINK = "https://shop.example/p/1?utm_source=mail&utm_medium=email&utm_campaign=Sale%20%26%20more&xnpe_cmp=AbC123"
LED = {"utm_source": "mail", "utm_medium": "email", "utm_campaign": "Sale & more", "xnpe_cmp": "AbC123"}
PUSH = {"title": "Sale", "url_params": {"utm_source": "push", "other": "x"}}


async def starts(phone: Phone) -> list[dict[str, Any]]:
    """Tell what led to each session."""
    return [each.own for each in await phone.kept("session_start")]


class TestTheClick:
    async def test_what_is_told(self, phone: Phone) -> None:
        """A click tells ids, link, moment and platform on a route of its own; no defaults, no stamps."""
        client = await phone.start(default_properties={"a": 1})
        await client.identify_customer(Customer({"registered": "R"}))
        phone.now = 1005
        assert await client.handle_campaign_click(LINK)
        (click,) = await phone.kept("click")

        assert click.route.endswith("/track/v2/projects/shop/campaigns/clicks")
        assert {**click.data, "timestamp": click.at} == {
            "customer_ids": {"cookie": await client.get_customer_cookie(), "registered": "R"},
            "url": LINK,
            "timestamp": 1005,
            "properties": {"platform": "server"},
        }

    async def test_the_platform_takes_it(self, phone: Phone, sandbox: Sandbox) -> None:
        """It goes alone to its route, and the platform counts it for the customer who is known by the cookie."""
        client = await phone.start()
        await client.handle_campaign_click(LINK)
        result = await client.flush_data(10)

        (click,) = sandbox.engine.events(event_type="campaign_click")
        assert result.rejected == result.remaining == 0
        assert click.customer_ids == {"cookie": await client.get_customer_cookie()}
        paths = sorted((request.path, request.commands) for request in sandbox.requests)
        assert paths == [("/track/v2/projects/shop/batch", 2), ("/track/v2/projects/shop/campaigns/clicks", 1)]

    @pytest.mark.parametrize(
        ("url", "clicked", "led"),
        [
            ("https://shop.example/?utm_source=a", False, {"utm_source": "a"}),
            ("https://shop.example/?utm_source=a&xnpe_cmp=", False, {"utm_source": "a", "xnpe_cmp": ""}),
            ("https://shop.example/?utm_source=a&utm_source=b&xnpe_cmp=1", True, {"utm_source": "a", "xnpe_cmp": "1"}),
            ("https://shop.example/p", False, {}),
            ("shop://p?xnpe_cmp=1", True, {"xnpe_cmp": "1"}),
            ("https://shop.example/?xnpe_cmp=1&UTM_SOURCE=a&other=b", True, {"xnpe_cmp": "1"}),
        ],
    )
    async def test_what_is_a_click(self, phone: Phone, url: str, clicked: bool, led: dict[str, str]) -> None:  # noqa: FBT001
        """Only a link with an ``xnpe_cmp`` is a click; any link is a visit, and is told as it was given."""
        client = await phone.start()

        assert await client.handle_campaign_click(url) is clicked
        assert len(await phone.kept("click")) == clicked
        assert await starts(phone) == [{"url": url, **led}]

    @pytest.mark.parametrize("url", ["shop.example/?utm_source=a&xnpe_cmp=1", "", "http://[", None, 5])
    async def test_no_link(self, phone: Phone, url: Any) -> None:
        """What is no link is none, and leaves no trace."""
        client = await phone.start()
        assert await client.handle_campaign_click(url) is False
        await client.track_event(Event("ping"))

        assert await starts(phone) == [{}]

    async def test_a_moment_of_the_callers_own(self, phone: Phone) -> None:
        """A click may be told with its moment; a wrong one is refused."""
        client = await phone.start()
        await client.handle_campaign_click(LINK, 500.25)
        with pytest.raises(InvalidEventError, match="timestamp"):
            await client.handle_campaign_click(LINK, float("inf"))

        assert [click.at for click in await phone.kept("click")] == [500.25]


class TestTheSession:
    async def test_a_cold_start(self, phone: Phone) -> None:
        """The session that starts with the link is led by it."""
        client = await phone.start()
        await client.handle_campaign_click(LINK)
        start, click = (await phone.kept())[1:]

        assert (start.name, click.name) == ("session_start", "click")
        assert start.own == {"url": LINK, **LED}
        assert set(start.properties) == DEVICE | STAMPS | {"url", *LED}

    async def test_a_session_that_goes_on(self, phone: Phone) -> None:
        """A link within a session is a click, and neither starts a session nor leads to the next one."""
        client = await phone.start()
        await client.track_event(Event("ping"))
        phone.now = 1030
        assert await client.handle_campaign_click(LINK)
        phone.now = 1090
        await client.track_event(Event("ping"))

        assert await starts(phone) == [{}, {}]

    async def test_after_a_session(self, phone: Phone) -> None:
        """A link that comes after the session's end leads to the new one, not to the old one's end."""
        client = await phone.start()
        await client.track_event(Event("ping"))
        phone.now = 1100
        await client.handle_campaign_click(LINK)

        (end,) = await phone.kept("session_end")
        assert end.own == {"duration": 0.0}
        assert await starts(phone) == [{}, {"url": LINK, **LED}]

    @pytest.mark.parametrize(("later", "led"), [(0, True), (10, True), (10.01, False), (3600, False), (-9.9, True)])
    @pytest.mark.parametrize("restarted", [True, False])
    async def test_ten_seconds(self, phone: Phone, restarted: bool, later: float, led: bool) -> None:  # noqa: FBT001
        """By hand, a session is led by the link of the last ten seconds, also in another process."""
        client = await phone.start(automatic_session_tracking=False)
        await client.handle_campaign_click(LINK)
        phone.now = 1000 + later
        if restarted:
            client = await phone.restart(automatic_session_tracking=False)
        # Others were faster, by a little.
        await client.device("tg:1").track_event(Event("ping"))
        await client.track_session_start()

        assert bool((await starts(phone))[0]) is led

    async def test_the_latest_counts_once(self, phone: Phone) -> None:
        """Of two links the later one led to the session, and to none after it."""
        client = await phone.start(automatic_session_tracking=False)
        await client.handle_campaign_click("https://shop.example/?utm_source=first&utm_term=x")
        await client.handle_campaign_click("https://shop.example/?utm_source=second")
        await client.track_session_start()
        await client.track_session_start()

        assert await starts(phone) == [{"url": "https://shop.example/?utm_source=second", "utm_source": "second"}, {}]

    @pytest.mark.parametrize("consent", [True, False])
    async def test_a_press_on_a_notification(self, phone: Phone, consent: bool) -> None:  # noqa: FBT001
        """The session that starts with a press is led by the notification, even if that may not be tracked."""
        client = await phone.start()
        await client.track_clicked_push({**PUSH, "has_tracking_consent": consent})

        assert await starts(phone) == [{"utm_source": "push"}]
        assert len(await phone.kept("campaign")) == consent

    async def test_an_arrival_leads_nowhere(self, phone: Phone) -> None:
        """A notification that only came has led nobody here."""
        client = await phone.start()
        await client.track_delivered_push(PUSH)

        assert await starts(phone) == [{}]

    async def test_another_customer(self, phone: Phone) -> None:
        """What led the old customer here did not lead the new one."""
        client = await phone.start()
        await client.track_event(Event("ping"))
        await client.handle_campaign_click(LINK)
        await client.anonymize()

        assert await starts(phone) == [{}, {}]

    async def test_it_is_forgotten(self, phone: Phone) -> None:
        """What led to a session is not kept any longer."""
        client = await phone.start()
        await client.handle_campaign_click(LINK)
        stored = await client._storage.load_state("device:default")

        assert stored is not None
        assert "campaign" not in json.loads(stored.value)


async def test_a_customer_has_no_session_to_lead_to(phone: Phone) -> None:
    """Whoever speaks about a customer is told that links are a device's."""
    client = await phone.start()
    with (
        client.bind(client.for_customer({"registered": "R"})),
        pytest.raises(InvalidEventError, match="Use a device"),
    ):
        await client.handle_campaign_click(LINK)
    assert await phone.kept() == []
