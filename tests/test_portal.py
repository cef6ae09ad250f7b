"""
A client in code that is not asynchronous.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest
from helpers.clients import SOMEONE, Configure, Connect
from helpers.environment import SetConstants
from helpers.programs import run_program
from helpers.waiting import until

from exponea_async import ClosedError, Event, Exponea, InvalidEventError, LifecycleError, StorageError
from exponea_async import portal as portal_module
from exponea_async.portal import Portal, call_in
from exponea_async.sandbox import Fault, Sandbox
from exponea_async.testing import pending_records

T = TypeVar("T")


async def in_thread(work: Callable[[], T]) -> T:
    """Run a function in a thread, while the event loop of the test serves the sandbox."""
    return await asyncio.wait_for(asyncio.to_thread(work), 60)


@pytest.fixture
async def portal(configure: Configure) -> AsyncIterator[Portal]:
    portal = Portal(Exponea(configure()))
    yield portal
    await in_thread(lambda: portal.close(0))


class TestCalls:
    async def test_a_script(self, configure: Configure, sandbox: Sandbox) -> None:
        """What is tracked within the block is delivered at its end, and the thread ends."""

        def use() -> str:
            with Portal(Exponea(configure())) as portal:
                receipt = portal.call(portal.exponea.track_event, Event("ping"))
                portal.call(receipt.delivered, timeout=60)
                return receipt.status

        assert await in_thread(use) == "delivered"
        assert len(sandbox.engine.events(event_type="ping")) == 1
        assert not [each for each in threading.enumerate() if each.name == "exponea_async"]

    async def test_many_threads(self, portal: Portal, sandbox: Sandbox) -> None:
        """Threads share one client and one thread of its event loop, which the first call starts."""
        tracker = portal.exponea.for_customer(SOMEONE)

        def use() -> int:
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(lambda number: portal.call(tracker.track_event, Event("ping", {"n": number})), range(80)))
            return portal.call(portal.exponea.flush_data, timeout=60).remaining

        assert await in_thread(use) == 0
        assert len(sandbox.engine.events(event_type="ping")) == 80
        assert [each.name for each in threading.enumerate()].count("exponea_async") == 1

    async def test_the_bound_subject(self, portal: Portal, sandbox: Sandbox) -> None:
        """A call is about the subject that the caller has bound."""
        exponea = portal.exponea

        def use() -> None:
            with exponea.bind(exponea.for_customer(SOMEONE)):
                portal.call(exponea.track_event, Event("bound"))
            portal.call(exponea.flush_data, timeout=60)

        await in_thread(use)
        (event,) = sandbox.engine.events()
        assert event.customer_ids == SOMEONE

    async def test_errors(self, portal: Portal) -> None:
        """What a call raises is raised to its caller, and the next call works."""
        with pytest.raises(InvalidEventError, match="name"):
            await in_thread(lambda: portal.call(portal.exponea.track_event, Event("")))
        await in_thread(lambda: portal.call(portal.exponea.track_event, Event("ping")))

    async def test_a_call_from_the_portal_itself(self, portal: Portal) -> None:
        """A call from within the event loop raises instead of waiting for itself."""

        async def nested() -> None:
            portal.call(portal.exponea.get_customer_cookie)

        with pytest.raises(LifecycleError, match="own event loop"):
            await in_thread(lambda: portal.call(nested))

    async def test_a_start_that_fails(self, configure: Configure, tmp_path: Path) -> None:
        """The error of the start is raised to the caller; the next call starts again."""
        (tmp_path / "in the way").touch()
        portal = Portal(Exponea(configure(storage=tmp_path / "in the way" / "queue.sqlite")))
        with pytest.raises(StorageError):
            await in_thread(lambda: portal.call(portal.exponea.get_customer_cookie))
        (tmp_path / "in the way").unlink()

        assert await in_thread(lambda: portal.call(portal.exponea.get_customer_cookie))
        await in_thread(portal.close)


@pytest.mark.both_storages
class TestEnd:
    async def test_a_closed_portal(self, portal: Portal) -> None:
        """Calls raise after the end, and closing again does nothing."""

        def use() -> None:
            portal.start()
            portal.close()
            portal.close()

        await in_thread(use)
        with pytest.raises(ClosedError, match="portal"):
            portal.call(portal.exponea.get_customer_cookie)

    async def test_whether_it_runs(self, portal: Portal) -> None:
        """A portal runs from its first call until it is closed."""
        states = [portal.is_running]
        await in_thread(portal.start)
        states.append(portal.is_running)
        await in_thread(lambda: portal.close(0))

        assert [*states, portal.is_running] == [False, True, False]

    async def test_a_server_that_hangs(self, configure: Configure, sandbox: Sandbox) -> None:
        """Closing ends after its timeout."""
        sandbox.faults.add(Fault("timeout", seconds=60))
        portal = Portal(Exponea(configure(upload={"request_timeout": 600})))

        def use() -> None:
            portal.call(portal.exponea.track_event, Event("ping"))
            portal.close(0.2)

        await in_thread(use)
        assert repr(portal.exponea) == "<Exponea shop closed>"

    @pytest.mark.parametrize("end", ["", "sys.exit(3)", "raise KeyError('mine')"])
    async def test_the_exit_of_the_process(self, sandbox: Sandbox, configure: Configure, end: str) -> None:
        """A program that closes nothing uploads at its exit, says nothing, and keeps its exit code."""
        source = f"""
from exponea_async.portal import Portal
from exponea_async import portal as portal_module
portal_module.EXIT_TIMEOUT = 60.0
portal = Portal(client())
portal.call(portal.exponea.track_event, Event("ping"))
{end}
"""
        ended = await run_program(source, sandbox.url, configure(), "-W", "error")

        assert len(sandbox.engine.events(event_type="ping")) == 1
        assert ended.code == {"": 0, "sys.exit(3)": 3}.get(end, 1)
        assert ("KeyError: 'mine'" in ended.err) if "mine" in end else (ended.err == "")
        assert ended.err.count("Traceback") == ("mine" in end)

    async def test_large_uploads_at_the_exit(self, sandbox: Sandbox, configure: Configure) -> None:
        """Bodies that are compressed in a thread arrive also at the exit, when no thread pool accepts work any more."""
        source = """
from exponea_async.portal import Portal
from exponea_async import portal as portal_module
portal_module.EXIT_TIMEOUT = 60.0
portal = Portal(client(upload=UploadSettings(gzip=True, linger=5.0)))
events = [Event("ping", {"text": "x" * 10_000, "number": number}) for number in range(50)]
tracker = portal.exponea.for_customer({"registered": "r"})
portal.call(portal.exponea.track_many, [(tracker.ids, event) for event in events])
"""
        ended = await run_program(source, sandbox.url, configure())

        assert (ended.code, ended.err) == (0, "")
        assert len(sandbox.engine.events(event_type="ping")) == 50

    async def test_an_exit_while_the_platform_hangs(
        self, sandbox: Sandbox, configure: Configure, connect: Connect
    ) -> None:
        """The exit takes a bounded time, and what was not sent is still in the queue."""
        sandbox.faults.add(Fault("timeout", seconds=60))
        source = """
from exponea_async.portal import Portal
import exponea_async.portal
exponea_async.portal.EXIT_TIMEOUT = 0.5
portal = Portal(client())
portal.call(portal.exponea.track_event, Event("ping"))
"""
        ended = await run_program(source, sandbox.url, configure())

        assert (ended.code, ended.err) == (0, "")
        sandbox.faults.clear()
        assert [each.name for each in await pending_records(await connect(flush_mode="MANUAL"), "ping")] == ["ping"]


@pytest.mark.both_storages
class TestForks:
    async def test_a_portal_of_a_module(self, sandbox: Sandbox, configure: Configure) -> None:
        """
        A portal that was used before a fork, as with preloaded workers, works in all children and in the parent, and
        each of them delivers at its exit.
        """
        source = """
from exponea_async.portal import Portal
from exponea_async import portal as portal_module
portal_module.EXIT_TIMEOUT = 60.0
portal = Portal(client())

def use(name):
    tracker = portal.exponea.for_customer({"registered": name})
    for number in range(5):
        portal.call(tracker.track_event, Event(name, {"number": number}))

use("parent")
for number in range(3):
    if os.fork() == 0:
        use(f"child {number}")
        sys.exit(0)
use("parent")
print([os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(3)])
"""
        ended = await run_program(source, sandbox.url, configure(), "-W", "ignore::DeprecationWarning")

        assert (ended.out, ended.err) == ("[0, 0, 0]\n", "")
        counts: dict[Any, int] = {}
        for event in sandbox.engine.events():
            counts[event.event_type] = counts.get(event.event_type, 0) + 1
        assert counts == {"parent": 10, "child 0": 5, "child 1": 5, "child 2": 5}


class TestCallsInAnotherLoop:
    async def test_a_loop_that_ends(self, set_constants: SetConstants) -> None:
        """A call that an ending event loop does not begin any more raises, instead of waiting for ever."""
        set_constants(portal_module, LOOP_CHECK=0.01)
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        called = asyncio.create_task(in_thread(lambda: call_in(loop, asyncio.sleep, 60)))
        await until(lambda: bool(asyncio.all_tasks(loop)))
        loop.call_soon_threadsafe(loop.stop)

        with pytest.raises(LifecycleError, match="event loop has ended"):
            await called
        thread.join()
        await in_thread(lambda: loop.run_until_complete(asyncio.wait(asyncio.all_tasks(loop))))
        loop.close()
        with pytest.raises(LifecycleError, match="event loop has ended"):
            await in_thread(lambda: call_in(loop, asyncio.sleep, 60))

    async def test_a_timeout_of_its_own(self, portal: Portal, set_constants: SetConstants) -> None:
        """A TimeoutError that the call raises is raised to the caller."""
        set_constants(portal_module, LOOP_CHECK=0.01)

        async def fail() -> None:
            await asyncio.sleep(0.05)
            raise TimeoutError("mine")

        with pytest.raises(TimeoutError, match="mine"):
            await in_thread(lambda: portal.call(fail))
