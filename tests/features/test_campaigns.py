"""
Campaign links: the session that they become part of, and the click that is tracked.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.app import DEVICE, STAMPS, App
from helpers.queue_file import stored_state

from exponea_async import Customer, Event, InvalidEventError
from exponea_async.sandbox import Sandbox

LINK = "https://shop.example/p/1?utm_source=mail&utm_medium=email&utm_campaign=Sale%20%26%20more&xnpe_cmp=AbC123"
LED = {"utm_source": "mail", "utm_medium": "email", "utm_campaign": "Sale & more", "xnpe_cmp": "AbC123"}
PUSH = {"title": "Sale", "url_params": {"utm_source": "push", "other": "x"}}


async def starts(app: App) -> list[dict[str, Any]]:
    """Return the campaign properties of each session start."""
    return [each.own for each in await app.pending("session_start")]


class TestClick:
    async def test_the_properties(self, app: App) -> None:
        """A click carries ids, link, timestamp and platform on its own route, without other properties."""
        client = await app.start(default_properties={"a": 1})
        await client.identify_customer(Customer({"registered": "R"}))
        app.now = 1005
        assert await client.handle_campaign_click(LINK)
        (click,) = await app.pending("click")

        assert click.route == "shop/campaigns/clicks"
        assert {**click.data, "timestamp": click.at} == {
            "customer_ids": {"cookie": await client.get_customer_cookie(), "registered": "R"},
            "url": LINK,
            "timestamp": 1005,
            "properties": {"platform": "server"},
        }

    async def test_the_platform_accepts_it(self, app: App, sandbox: Sandbox) -> None:
        """It is sent alone, and the platform counts it for the customer with the cookie."""
        client = await app.start()
        await client.handle_campaign_click(LINK)
        result = await client.flush_data(60)

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
    async def test_what_is_a_click(self, app: App, url: str, clicked: bool, led: dict[str, str]) -> None:  # noqa: FBT001
        """Only a link with an ``xnpe_cmp`` is a click; any link is a visit, and is tracked as it was given."""
        client = await app.start()

        assert await client.handle_campaign_click(url) is clicked
        assert len(await app.pending("click")) == clicked
        assert await starts(app) == [{"url": url, **led}]

    @pytest.mark.parametrize("url", ["shop.example/?utm_source=a&xnpe_cmp=1", "", "http://[", None, 5])
    async def test_invalid_links(self, app: App, url: Any) -> None:
        """A value that is not a link is ignored, and nothing is recorded."""
        client = await app.start()
        assert await client.handle_campaign_click(url) is False
        await client.track_event(Event("ping"))

        assert await starts(app) == [{}]

    async def test_a_timestamp_of_the_caller(self, app: App) -> None:
        """A click may have a timestamp; an invalid one is refused."""
        client = await app.start()
        await client.handle_campaign_click(LINK, 500.25)
        with pytest.raises(InvalidEventError, match="timestamp"):
            await client.handle_campaign_click(LINK, float("inf"))

        assert [click.at for click in await app.pending("click")] == [500.25]


class TestSession:
    async def test_a_cold_start(self, app: App) -> None:
        """The session that starts with the link carries its campaign."""
        client = await app.start()
        await client.handle_campaign_click(LINK)
        start, click = (await app.pending())[1:]

        assert (start.name, click.name) == ("session_start", "click")
        assert start.own == {"url": LINK, **LED}
        assert set(start.properties) == DEVICE | STAMPS | {"url", *LED}

    async def test_an_open_session(self, app: App) -> None:
        """A link within a session is a click; it neither starts a session nor becomes part of the next one."""
        client = await app.start()
        await client.track_event(Event("ping"))
        app.now = 1030
        assert await client.handle_campaign_click(LINK)
        app.now = 1090
        await client.track_event(Event("ping"))

        assert await starts(app) == [{}, {}]

    async def test_after_a_session(self, app: App) -> None:
        """A link after the end of a session becomes part of the new session, not of the old one's end."""
        client = await app.start()
        await client.track_event(Event("ping"))
        app.now = 1100
        await client.handle_campaign_click(LINK)

        (end,) = await app.pending("session_end")
        assert end.own == {"duration": 0.0}
        assert await starts(app) == [{}, {"url": LINK, **LED}]

    @pytest.mark.parametrize(("later", "led"), [(0, True), (10, True), (10.01, False), (3600, False), (-9.9, True)])
    @pytest.mark.parametrize("restarted", [True, False])
    async def test_ten_seconds(self, app: App, restarted: bool, later: float, led: bool) -> None:  # noqa: FBT001
        """An explicit session carries the campaign of the last ten seconds, also in another process."""
        client = await app.start(automatic_session_tracking=False)
        await client.handle_campaign_click(LINK)
        app.now = 1000 + later
        if restarted:
            client = await app.restart(automatic_session_tracking=False)
        # Others were faster, by a little.
        await client.device("tg:1").track_event(Event("ping"))
        await client.track_session_start()

        assert bool((await starts(app))[0]) is led

    async def test_the_latest_link_counts_once(self, app: App) -> None:
        """Of two links the later one becomes part of the session, and of no later session."""
        client = await app.start(automatic_session_tracking=False)
        await client.handle_campaign_click("https://shop.example/?utm_source=first&utm_term=x")
        await client.handle_campaign_click("https://shop.example/?utm_source=second")
        await client.track_session_start()
        await client.track_session_start()

        assert await starts(app) == [{"url": "https://shop.example/?utm_source=second", "utm_source": "second"}, {}]

    @pytest.mark.parametrize("consent", [True, False])
    async def test_a_clicked_notification(self, app: App, consent: bool) -> None:  # noqa: FBT001
        """The session that starts with a clicked notification carries its campaign, even without consent."""
        client = await app.start()
        await client.track_clicked_push({**PUSH, "has_tracking_consent": consent})

        assert await starts(app) == [{"utm_source": "push"}]
        assert len(await app.pending("campaign")) == consent

    async def test_a_delivered_notification(self, app: App) -> None:
        """A delivered notification does not become part of a session."""
        client = await app.start()
        await client.track_delivered_push(PUSH)

        assert await starts(app) == [{}]

    async def test_another_customer(self, app: App) -> None:
        """The old customer's campaign does not become part of the new customer's session."""
        client = await app.start()
        await client.track_event(Event("ping"))
        await client.handle_campaign_click(LINK)
        await client.anonymize()

        assert await starts(app) == [{}, {}]

    @pytest.mark.file_only
    async def test_it_is_forgotten(self, app: App, tmp_path: Path) -> None:
        """The campaign is forgotten once it is part of a session."""
        client = await app.start()
        await client.handle_campaign_click(LINK)
        stored = stored_state(tmp_path / "queue.sqlite", "device:@default")

        assert stored is not None
        assert "campaign" not in json.loads(stored)


@pytest.mark.parametrize("is_bound", [True, False])
async def test_a_customer_tracker(app: App, is_bound: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """The click of a customer tracker, bound or not, is tracked with exactly its ids, and creates no device."""
    client = await app.start()
    jane = client.for_customer({"registered": "jane"})
    if is_bound:
        with client.bind(jane):
            assert await client.handle_campaign_click(LINK, 500.25)
    else:
        assert await jane.handle_campaign_click(LINK, 500.25)
    (click,) = await app.pending()
    assert (click.name, click.data["url"], click.customer_ids, click.at) == (
        "click",
        LINK,
        {"registered": "jane"},
        500.25,
    )


async def test_a_customer_tracker_without_a_click(app: App) -> None:
    """A link that is not a click tracks nothing for a customer tracker, which has no session."""
    client = await app.start()
    jane = client.for_customer({"registered": "jane"})
    for url in ("https://shop.example/?utm_source=mail", "shop.example/?xnpe_cmp=1", ""):
        assert await jane.handle_campaign_click(url) is False
    assert await app.pending() == []


async def test_a_click_of_a_customer_arrives(app: App, sandbox: Sandbox) -> None:
    """The platform gets the click of a customer tracker with its ids."""
    client = await app.start()
    await client.for_customer({"registered": "jane"}).handle_campaign_click(LINK)
    await client.flush_data()
    (click,) = sandbox.engine.events(event_type="campaign_click")
    assert click.customer_ids == {"registered": "jane"}
