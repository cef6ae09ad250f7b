"""
Features whose modules are imported when they are used first, and what stands in for them until then.
"""

import asyncio
import sys
import threading
from pathlib import Path
from types import ModuleType

import pytest
from helpers.app import App
from helpers.internals import device_context, features_of

from exponea_async._internal.lazy import LazyModule, import_in_thread, imports, is_imported
from exponea_async.features.in_app import stored as stored_messages
from exponea_async.features.segments import stored as stored_segments
from exponea_async.testing import idle

FEATURES = ("in-app messages", "content blocks", "app inbox", "segments")


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a module that was not imported yet, and that knows its thread."""
    name = f"imported_late_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text("import threading\nTHREAD = threading.get_ident()\n")
    monkeypatch.syspath_prepend(tmp_path)
    return name


class TestLazyModule:
    def test_it_is_imported_when_a_name_is_read(self, module: str) -> None:
        """The first name that is read imports the module; the annotations of a function can be evaluated."""
        late = LazyModule(module)
        assert not is_imported(module)
        assert threading.get_ident() == late.THREAD
        assert is_imported(module)

    def test_no_such_name(self, module: str) -> None:
        """A name that the module does not have is an ``AttributeError``."""
        late = LazyModule(module)
        with pytest.raises(AttributeError, match="NOTHING"):
            late.NOTHING  # noqa: B018 - it is the test

    async def test_in_a_thread(self, module: str) -> None:
        """A coroutine function imports what it needs in another thread, and is called afterwards."""
        late: ModuleType = LazyModule(module)

        @imports(late)
        async def function(argument: int) -> tuple[int, bool]:
            """Return whether the module is imported."""
            return argument, is_imported(module)

        assert not is_imported(module)
        assert await function(argument=1) == (1, True)
        assert threading.get_ident() != late.THREAD
        assert function.__doc__ == "Return whether the module is imported."

    async def test_at_once(self, module: str) -> None:
        """What is imported already needs no thread: no other task runs in the meantime."""
        await import_in_thread(module)
        calls: list[str] = []
        asyncio.get_running_loop().call_soon(calls.append, "other")
        await import_in_thread(module)
        assert calls == []

    async def test_two_callers(self, module: str) -> None:
        """Concurrent callers import a module once."""
        await asyncio.gather(*(import_in_thread(module) for _ in range(3)))
        assert is_imported(module)
        assert module in sys.modules


class TestUnusedFeatures:
    async def test_none_is_used(self, app: App) -> None:
        """A client that tracks and identifies uses no feature."""
        client = await app.start()
        await client.identify_customer({"registered": "jane@example.com"})
        await client.identify_customer({"registered": "john@example.com"})
        await idle(client)
        assert not any(map(features_of(client).is_used, FEATURES))

    async def test_a_setting(self, app: App) -> None:
        """A client whose settings name placeholders uses content blocks from the beginning."""
        client = await app.start(in_app_content_block_placeholders_auto_load=("top",))
        assert features_of(client).is_used("content blocks")

    @pytest.mark.parametrize("preloads", [False, True])
    async def test_sign_out(self, app: App, *, preloads: bool) -> None:
        """A sign-out deletes what an earlier process has stored, and uses features if they are to load ahead."""
        client = await app.start(preload_messages=preloads)
        context = device_context(client)
        for name in (stored_messages.NAME, stored_segments.NAME):
            await context.save_data(name, b"damaged")
        await client.anonymize()
        await idle(client)
        # With the setting, what is stored by now is the new customer's.
        for name in (stored_messages.NAME, stored_segments.NAME):
            assert await context.load_data(name) != b"damaged"
        used = [each for each in FEATURES if features_of(client).is_used(each)]
        assert used == (["in-app messages", "content blocks", "app inbox"] if preloads else [])

    async def test_a_feature_that_is_used_after_the_end(self, app: App) -> None:
        """The streams of a feature that is used first when the client is closed have ended."""
        client = await app.start()
        await client.aclose(timeout=0)
        assert [each async for each in client.in_app_messages()] == []
        assert [each async for each in client.in_app_message_action_stream()] == []
