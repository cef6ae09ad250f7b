"""
Tokens that stand for messages in a page: redeemed by any process with the same secret, and by nobody who forges them.
"""

import re
from typing import Any

import pytest
from helpers.app import App
from helpers.clients import Configure
from helpers.content_blocks import FORCED, LINK, personal, static
from helpers.in_app import InAppFixture, html_message, message
from hypothesis import given
from hypothesis import strategies as st

from exponea_async import Configuration, ConfigurationError, Event, Exponea, InAppMessage, InvalidEventError
from exponea_async.features._shared.tokens import MAX_LENGTH, make_token, read_token
from exponea_async.messages import InAppContentBlock, InAppContentBlockAction, PersonalizedData
from exponea_async.sandbox import Sandbox

SECRET = "a secret of all processes"
JANE, JOE = {"registered": "jane@example.com"}, {"registered": "joe@example.com"}
BLOCK = InAppContentBlock(id="b", name="Block", actions=(InAppContentBlockAction("browser", "Sale", LINK),))


@pytest.fixture
async def other(configure: Configure, in_app: InAppFixture) -> Exponea:
    """Return a client of another process, which has the secret and nothing else in common."""
    return await App(configure).start(
        storage="memory:", message_token_secret=SECRET, base_url=in_app.gateway.url, automatic_session_tracking=False
    )


async def start(in_app: InAppFixture, *messages: Any, **settings: Any) -> Exponea:
    return await in_app.start(*messages, listen=False, message_token_secret=SECRET, **settings)


class TestContentBlocks:
    async def test_another_process(self, in_app: InAppFixture, sandbox: Sandbox, other: Exponea) -> None:
        """The event of a token is the same as that of the block."""
        sandbox.messages.content_blocks.put(personal(consent_category_tracking="ads"))
        client = await start(in_app)
        jane = client.for_customer(JANE)
        block = await jane.content_block("top")
        assert block is not None
        token = client.content_block_token(block)
        assert await jane.click_content_block("top", block, LINK) == LINK
        assert await other.for_customer(JANE).click_content_block("top", token, LINK) == LINK
        await client.flush_data()
        await other.flush_data()

        first, second = [
            each for each in sandbox.engine.events(event_type="banner") if each.properties["action"] == "click"
        ]
        assert first.customer_ids == second.customer_ids == JANE
        assert dict(first.properties) == dict(second.properties)
        await other.aclose(timeout=0)

    async def test_what_a_token_tells(self, in_app: InAppFixture, sandbox: Sandbox) -> None:
        """It is short and URL-safe, and the ids of the customer change nothing of it."""
        sandbox.messages.content_blocks.put(personal())
        client = await start(in_app)
        blocks = [await client.for_customer(ids).content_block("top") for ids in (JANE, JOE)]
        tokens = [client.content_block_token(block) for block in blocks if block is not None]
        assert len(set(tokens)) == 1 or all(len(each) == len(tokens[0]) for each in tokens)
        assert all(re.fullmatch(r"[\w-]{20,600}", each) for each in tokens)

    async def test_the_current_subject(self, in_app: InAppFixture, sandbox: Sandbox) -> None:
        """An event is about the subject that redeems the token, whoever the block was shown to."""
        sandbox.messages.content_blocks.put(static())
        client = await start(in_app)
        block = await client.for_customer(JANE).content_block("top")
        assert block is not None
        token = client.content_block_token(block)
        with client.bind(client.for_customer(JOE)):
            await client.close_content_block("top", token)
            await client.track_in_app_content_block_shown("top", token)
            await client.track_in_app_content_block_click("top", token, block.actions[0])
            await client.track_in_app_content_block_close("top", token)
            await client.track_in_app_content_block_error("top", token, "no room")
        tracked = [(each.properties["action"], each.customer_ids) for each in await in_app.banners()]
        assert tracked == [("show", JANE), *((each, JOE) for each in ("close", "show", "click", "close", "error"))]

    async def test_consent_and_forced_links(self, in_app: InAppFixture, sandbox: Sandbox) -> None:
        """The consent of the block decides, as without a token; a link may force the tracking."""
        sandbox.messages.content_blocks.put(personal(data={"has_tracking_consent": False}))
        client = await start(in_app)
        block = await client.for_customer(JANE).content_block("top")
        assert block is not None
        token = client.content_block_token(block)
        jane = client.for_customer(JANE)
        assert await jane.click_content_block("top", token, LINK) == LINK
        assert await jane.click_content_block("top", token, FORCED) == FORCED
        assert [each.properties.get("link") for each in await in_app.banners()] == [FORCED]

    async def test_an_address_that_the_block_does_not_have(self, in_app: InAppFixture) -> None:
        """It is not returned, so that nobody is led elsewhere by a link with a token."""
        client = await start(in_app)
        token = client.content_block_token(BLOCK)
        assert await client.for_customer(JANE).click_content_block("top", token, "https://evil.example") is None
        assert await in_app.actions() == ["error"]

    async def test_a_device_remembers_the_click(self, in_app: InAppFixture, sandbox: Sandbox) -> None:
        """A block that is shown until it is clicked is not shown again after the click of its token."""
        sandbox.messages.content_blocks.put(static(frequency="until_visitor_interacts"))
        client = await start(in_app)
        device = client.device("web:7")
        block = await device.content_block("top")
        assert block is not None
        await device.click_content_block("top", client.content_block_token(block), LINK)
        assert await device.content_block("top") is None


class TestInAppMessages:
    async def test_another_process(self, in_app: InAppFixture, sandbox: Sandbox, other: Exponea) -> None:
        """The event of a token is the same as that of the message."""
        client = await start(in_app, html_message(source=f"<a href='{LINK}'>All</a>"))
        jane = client.for_customer(JANE)
        shown = await jane.in_app_message_for(_event())
        assert shown is not None
        token = client.in_app_message_token(shown)
        assert await jane.click_in_app_message(shown, LINK) == LINK
        assert await other.for_customer(JANE).click_in_app_message(token, LINK) == LINK
        await client.flush_data()
        await other.flush_data()
        events = [each for each in sandbox.engine.events(event_type="banner") if each.properties["action"] == "click"]
        assert [each.customer_ids for each in events] == [JANE, JANE]
        assert dict(events[0].properties) == dict(events[1].properties)
        await other.aclose(timeout=0)

    async def test_all_reports(self, in_app: InAppFixture) -> None:
        """Each report takes a token, for the current subject, and frees the device for the next message."""
        client = await start(in_app, message())
        device = client.device("d")
        shown = await device.in_app_message_for(_event())
        assert shown is not None
        token = client.in_app_message_token(shown)
        assert await device.in_app_message_for(_event()) is None
        await device.close_in_app_message(token)
        assert await device.in_app_message_for(_event()) is not None
        await device.fail_in_app_message(token, "no room")
        await device.track_in_app_message_click(token, shown.buttons[0])
        await device.track_in_app_message_close(token)
        assert await in_app.actions() == ["show", "close", "show", "error", "click", "close"]


class TestForgedTokens:
    async def test_what_is_refused(self, in_app: InAppFixture, configure: Configure) -> None:
        """A token that was changed, cut, or made for something else is refused, and nothing is tracked."""
        client = await start(in_app)
        token = client.content_block_token(BLOCK)
        settings = client.configuration
        foreign = [
            make_token(configure(message_token_secret="another secret, long enough"), "content_block", {"id": "b"}),
            make_token(configure(message_token_secret=SECRET, project_token="other"), "content_block", {"id": "b"}),
            client.in_app_message_token(InAppMessage(id="m", name="M")),
            token[:-1],
            token[1:],
            token + "A",
            token + "=",
            token + "\n",
            f" {token}",
            token.swapcase(),
            "",
            "A" * 3 * MAX_LENGTH,
            "\u00e9" * 40,
        ]
        for each in foreign:
            with pytest.raises(InvalidEventError, match="message_token_secret"):
                await client.for_customer(JANE).click_content_block("top", each, LINK)
        with pytest.raises(InvalidEventError):
            await client.click_in_app_message(token, LINK)
        assert await in_app.banners() == []
        assert read_token(settings, "content_block", token)["id"] == "b"

    @given(st.text(max_size=200) | st.text("abcXYZ019-_", max_size=200))
    def test_any_text(self, text: str) -> None:
        """Any other text is refused with the same error."""
        settings = _settings()
        with pytest.raises(InvalidEventError):
            read_token(settings, "content_block", text)

    async def test_without_a_secret(self, in_app: InAppFixture) -> None:
        """Tokens are neither made nor redeemed, and the error names the setting."""
        client = await in_app.start(listen=False)
        with pytest.raises(ConfigurationError, match="message_token_secret"):
            client.content_block_token(BLOCK)
        with pytest.raises(InvalidEventError, match="message_token_secret"):
            await client.click_in_app_message("token", LINK)

    async def test_what_is_too_large(self, in_app: InAppFixture) -> None:
        """A block with too many links has no token."""
        client = await start(in_app)
        links = tuple(InAppContentBlockAction("browser", None, f"https://e/{hash(str(n)):x}") for n in range(5_000))
        data = PersonalizedData(id="b")
        with pytest.raises(InvalidEventError, match="too large"):
            client.content_block_token(InAppContentBlock(id="b", name="B", actions=links, personalized_data=data))

    def test_the_secret_is_not_shown(self) -> None:
        """No representation of the configuration has the secret, and a short one is refused without being shown."""
        assert SECRET not in repr(_settings())
        with pytest.raises(ConfigurationError, match="at least 16") as caught:
            _settings(message_token_secret="short-secret")
        assert "short-secret" not in str(caught.value)


def _settings(**settings: Any) -> Configuration:
    usual = {"project_token": "shop", "authorization_token": "key", "message_token_secret": SECRET}
    return Configuration(**(usual | settings))


def _event() -> Event:
    return Event("x")
