"""
What the actions of messages do: one name, whichever spelling is given, and clicks by address.
"""

import logging
import pickle

import pytest
from helpers.environment import SetConstants
from helpers.in_app import InAppFixture, html_message, message, types_of
from helpers.waiting import until

from exponea_async import ActionType, Event
from exponea_async.features.in_app import presenter
from exponea_async.messages import AppInboxAction, InAppContentBlockAction, InAppMessageButton
from exponea_async.models import OpenedPush

SPELLINGS = {
    ActionType.BROWSER: ["browser", "BROWSER", "Browser", "web"],
    ActionType.DEEP_LINK: ["deep-link", "DEEPLINK", "deeplink", "deep_link", "DEEP_LINK"],
    ActionType.CLOSE: ["close", "CLOSE", "cancel"],
    ActionType.APP: ["app", "APP"],
    ActionType.NO_ACTION: ["no_action", "no-action", "NO_ACTION"],
}


@pytest.mark.parametrize(
    ("expected", "spelling"), [(each, name) for each, names in SPELLINGS.items() for name in names]
)
def test_spellings(expected: ActionType, spelling: str) -> None:
    """Each spelling of the vendor's SDKs is accepted everywhere, and equal to the member and to no other one."""
    found = [
        ActionType(spelling),
        InAppMessageButton("a", "b", spelling).kind,
        InAppContentBlockAction(spelling).type,
        AppInboxAction(spelling).action,
        OpenedPush(spelling, None, {}).action,
    ]
    assert all(each is expected for each in found)
    assert [each for each in ActionType if each == spelling] == [expected]
    assert [each for each in ActionType if each != spelling] == [each for each in ActionType if each is not expected]


def test_values() -> None:
    """A member is a string, with a hash, and survives a pickle; what is no spelling is not equal."""
    assert str(ActionType.DEEP_LINK) == "deep-link"
    assert {ActionType.CLOSE: 1}[ActionType("cancel")] == 1
    assert pickle.loads(pickle.dumps(ActionType.CLOSE)) is ActionType.CLOSE
    assert ActionType.CLOSE != "zoom"
    assert ActionType.CLOSE != 1
    assert AppInboxAction().action is None
    with pytest.raises(ValueError, match="zoom"):
        ActionType("zoom")


class TestAddresses:
    @pytest.mark.parametrize("url", ["app://cart", "app://cart/", "app://cart#top"])
    async def test_a_button(self, in_app: InAppFixture, url: str) -> None:
        """An address that was opened is the click of the button that has it."""
        client = await in_app.start(message())
        shown = await in_app.first()
        assert await client.click_in_app_message(shown, url) == "app://cart"
        (click,) = await in_app.banners("click")
        assert (click.properties["text"], click.properties["link"]) == ("Open", "app://cart")

    async def test_a_close_link(self, in_app: InAppFixture) -> None:
        """The address of a link that closes the message closes it with interaction."""
        client = await in_app.start(html_message(source="<p>Sale</p><a href='https://s.example'>All</a>"))
        shown = await in_app.first()
        (close,) = [each for each in shown.buttons if each.kind is ActionType.CLOSE]
        assert close.url is not None
        assert await client.click_in_app_message(shown, close.url) is None
        (closed,) = await in_app.banners("close")
        assert closed.properties["interaction"] is True

    async def test_an_unknown_address(self, in_app: InAppFixture) -> None:
        """It closes the message without interaction; a blank page is no click."""
        client = await in_app.start(message())
        shown = await in_app.first()
        assert await client.click_in_app_message(shown, "about:blank") is None
        assert await in_app.actions() == ["show"]
        assert await client.click_in_app_message(shown, "https://elsewhere.example") is None
        (closed,) = await in_app.banners("close")
        assert closed.properties["interaction"] is False
        assert await in_app.track() == ["m"]


class TestUnreportedMessages:
    async def test_a_message_without_a_timeout(
        self, in_app: InAppFixture, set_constants: SetConstants, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A message that was never reported is logged, and stays."""
        set_constants(presenter, UNREPORTED=0.05)
        client = await in_app.start(message())
        shown = await in_app.first()
        await until(lambda: "was not reported" in caplog.text)
        assert "'Message m'" in caplog.text
        assert await in_app.track() == []
        await client.close_in_app_message(shown)

    async def test_a_message_with_a_timeout(self, in_app: InAppFixture, caplog: pytest.LogCaptureFixture) -> None:
        """A message that closes by itself is logged then."""
        caplog.set_level(logging.INFO, logger="exponea_async")
        client = await in_app.start(message(close_timeout=20))
        actions = client.in_app_message_action_stream()
        await client.track_event(Event("x"))
        await until(lambda: "closes by itself" in caplog.text)
        await in_app.idle()
        assert types_of(actions) == ["show", "close"]

    async def test_a_message_that_was_reported(
        self, in_app: InAppFixture, set_constants: SetConstants, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Nothing is logged about a message that was reported."""
        set_constants(presenter, UNREPORTED=0.05)
        client = await in_app.start(message("m"), message("n", "y"))
        await client.close_in_app_message(await in_app.first())
        await in_app.first("y")
        await until(lambda: "was not reported" in caplog.text)
        assert "'Message m'" not in caplog.text
