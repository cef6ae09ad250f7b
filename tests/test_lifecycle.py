"""
A client in other event loops, in forked children, under cancellation, and at the end of the process.
"""

import asyncio
import gc
import logging
import re
import socket
import threading
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import anyio
import pytest
from helpers.clients import SOMEONE, Configure, Connect, numbered_events
from helpers.internals import feature_of
from helpers.programs import run_program
from helpers.queue_file import locked
from helpers.waiting import running, until

from exponea_async import ClosedError, Customer, Event, Exponea, FlushMode, FlushResult, LifecycleError, NotStartedError
from exponea_async._pipeline.resolver import DaemonResolver
from exponea_async.features.inbox.service import Inbox
from exponea_async.sandbox import Fault, Sandbox
from exponea_async.testing import pending_records

CALLS: dict[str, Callable[[Exponea], Awaitable[Any]]] = {
    "track": lambda client: client.track_event(Event("ping")),
    "track_many": lambda client: client.track_many(numbered_events(3)),
    "customer": lambda client: client.for_customer(SOMEONE).track_event(Event("ping")),
    "identify": lambda client: client.identify_customer(Customer(SOMEONE)),
    "anonymize": lambda client: client.anonymize(),
    "cookie": lambda client: client.get_customer_cookie(),
    "flush": lambda client: client.flush_data(),
    "mode": lambda client: client.set_flush_mode("PERIOD"),
    "period": lambda client: client.set_flush_period(5),
    "inbox": lambda client: client.fetch_app_inbox(),
    "segments": lambda client: client.get_segments("discovery"),
    "start": lambda client: client.start(),
    "close": lambda client: client.aclose(),
    "stop": lambda client: client.stop_integration(everyone=True),
}


async def in_other_loop(work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run a coroutine in the event loop of another thread, while that of the test runs."""
    return await asyncio.wait_for(asyncio.to_thread(lambda: asyncio.run(work())), 60)


#: A part of a program that waits until the threads of its queues have ended.
END_OF_THREADS = """
import gc
del exponea
gc.collect()
for each in threading.enumerate():
    if each is not threading.current_thread():
        each.join(60)
"""


async def run_and_leave(configure: Configure, **settings: Any) -> Exponea:
    """Return a client that was started in an event loop that has ended, with one event in its queue."""
    client = Exponea(configure(**({"flush_mode": "MANUAL"} | settings)))

    async def use() -> None:
        await client.start()
        await client.track_event(Event("left"))

    await in_other_loop(use)
    return client


class TestOtherLoops:
    @pytest.mark.parametrize("call", CALLS)
    async def test_a_call_from_another_thread(self, connect: Connect, call: str) -> None:
        """A call from the event loop of another thread raises one error with the remedy, and nothing is kept."""
        client = await connect(flush_mode="MANUAL", device=True)

        async def use() -> None:
            await CALLS[call](client)

        with pytest.raises(LifecycleError, match=r"event loop of another thread.*portal"):
            await in_other_loop(use)
        assert await pending_records(client) == []
        assert client.flush_mode is FlushMode.MANUAL

    @pytest.mark.both_storages
    async def test_a_receipt_in_another_thread(self, connect: Connect) -> None:
        """Waiting for a verdict in another event loop raises the error instead of waiting for ever."""
        client = await connect(flush_mode="MANUAL")
        receipt = await client.track_event(Event("ping"))

        async def use() -> None:
            await receipt.delivered()

        with pytest.raises(LifecycleError, match="another thread"):
            await in_other_loop(use)

    @pytest.mark.parametrize(
        "call", [name for name in CALLS if name not in ("start", "close", "stop", "mode", "period")]
    )
    @pytest.mark.parametrize("storage", ["file", "memory:"])
    async def test_a_call_after_the_loop_has_ended(self, configure: Configure, call: str, storage: str) -> None:
        """Without a start in the new event loop a call raises the error with the remedy, and nothing is kept."""
        client = await run_and_leave(configure, **({"storage": storage} if storage == "memory:" else {}))

        with pytest.raises(LifecycleError, match=r"another event loop.*Await its start\(\)"):
            await CALLS[call](client)
        await client.start()
        assert len(await pending_records(client, "ping")) == 0
        await client.aclose(timeout=0)

    @pytest.mark.parametrize("settings", [{}, {"storage": "memory:"}, {"storage": Path("memory:")}])
    async def test_a_start_in_a_new_loop(
        self, configure: Configure, sandbox: Sandbox, settings: dict[str, Any]
    ) -> None:
        """It opens the same queue, also one in memory; subjects, settings and receipts work."""
        client = await run_and_leave(configure, **settings)
        device = client.device("d")
        await client.start()
        await device.track_event(Event("new"))
        assert client.flush_mode is FlushMode.MANUAL

        result = await client.flush_data(60)
        assert (result.remaining, result.rejected) == (0, 0)
        names = [event.event_type for event in sandbox.engine.events()]
        assert (names.count("left"), names.count("new")) == (1, 1)
        await client.aclose()
        await until(lambda: running() == [])

    @pytest.mark.both_storages
    async def test_a_close_in_a_new_loop(self, configure: Configure, connect: Connect) -> None:
        """Closing a client whose event loop has ended returns at once, and its queue is free for the next client."""
        client = await run_and_leave(configure)
        await asyncio.wait_for(client.aclose(), 60)

        assert len(await pending_records(await connect(flush_mode="MANUAL"), "left")) == 1

    @pytest.mark.parametrize("is_started", [False, True])
    @pytest.mark.both_storages
    async def test_a_client_with_connections(self, sandbox: Sandbox, configure: Configure, is_started: bool) -> None:  # noqa: FBT001 - a parameter
        """A client that is left in an event loop after uploads is named in one line, and nothing else is printed."""
        source = f"""
exponea = client()
async def leave():
    await exponea.start()
    await (await exponea.track_event(Event("ping"))).delivered(60)
async def end():
    if {is_started}:
        await exponea.start()
    await exponea.aclose()
asyncio.run(leave())
asyncio.run(end())
{END_OF_THREADS}
"""
        ended = await run_program(source, sandbox.url, configure())

        assert re.fullmatch("A client was not closed before its event loop ended; its queue is .*\n", ended.err)

    @pytest.mark.both_storages
    async def test_tasks_that_take_long_to_end(self, sandbox: Sandbox, configure: Configure, connect: Connect) -> None:
        """While an event loop waits for the application's tasks and threads before it ends, the client starts none."""
        source = """
exponea = client()
customer = exponea.for_customer({"registered": "jane"})
async def work():
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(1.0)
        await customer.track_event(Event("late"))
        await asyncio.sleep(1.0)
async def leave():
    await exponea.start()
    await (await customer.track_event(Event("early"))).delivered(60)
    global working
    working = asyncio.create_task(work())
    asyncio.get_running_loop().run_in_executor(None, time.sleep, 4.0)
    await asyncio.sleep(0)
asyncio.run(leave())
asyncio.run(exponea.aclose())
"""
        ended = await run_program(source, sandbox.url, configure())

        assert re.fullmatch("A client was not closed before its event loop ended; its queue is .*\n", ended.err)
        assert len(await pending_records(await connect(flush_mode="MANUAL"), "late")) == 1

    @pytest.mark.both_storages
    async def test_a_pause_between_the_steps_of_the_end(self, sandbox: Sandbox, configure: Configure) -> None:
        """The client starts no tasks in an event loop whose tasks have ended, and that still accepts work."""
        source = """
exponea = client()
async def leave():
    await exponea.start()
    await (await exponea.track_event(Event("early"))).delivered(60)
loop = asyncio.new_event_loop()
loop.run_until_complete(leave())
tasks = asyncio.all_tasks(loop)
for task in tasks:
    task.cancel()
loop.run_until_complete(asyncio.wait(tasks))
# As where the machine stands still.
time.sleep(0.3)
loop.run_until_complete(loop.shutdown_asyncgens())
loop.run_until_complete(loop.shutdown_default_executor())
loop.close()
asyncio.run(exponea.aclose())
"""
        ended = await run_program(source, sandbox.url, configure())

        assert re.fullmatch("A client was not closed before its event loop ended; its queue is .*\n", ended.err)

    @pytest.mark.file_only
    async def test_a_write_whose_loop_ends(self, connect: Connect, sandbox: Sandbox, configure: Configure) -> None:
        """A write that waits for another program's lock while its event loop ends is committed, without a traceback."""
        source = f"""
import sqlite3
exponea = client(flush_mode="MANUAL")
loop = asyncio.new_event_loop()
loop.run_until_complete(exponea.start())
lock = sqlite3.connect(sys.argv[2], isolation_level=None)
lock.execute("BEGIN IMMEDIATE")
call = loop.create_task(exponea.for_customer({{"registered": "p"}}).track_event(Event("waits")))
loop.run_until_complete(asyncio.sleep(0.1))
loop.close()
lock.close()
asyncio.run(exponea.aclose())
{END_OF_THREADS}
os._exit(0)
"""
        ended = await run_program(source, sandbox.url, configure())

        assert [each for each in ended.err.splitlines() if "was not closed" not in each] == []
        assert len(await pending_records(await connect(flush_mode="MANUAL"), "waits")) == 1

    @pytest.mark.both_storages
    async def test_a_stop_in_a_new_loop(self, configure: Configure, connect: Connect) -> None:
        """A stop deletes what the client has stored in an event loop that has ended."""
        client = await run_and_leave(configure)
        result = await asyncio.wait_for(client.stop_integration(everyone=True), 60)

        assert result.remaining == 3
        assert await pending_records(await connect(flush_mode="MANUAL")) == []

    @pytest.mark.both_storages
    async def test_many_loops(self, configure: Configure, sandbox: Sandbox) -> None:
        """A client can be started and left in one event loop after the other, and no thread stays."""
        client = Exponea(configure(flush_mode="MANUAL"))

        async def use() -> None:
            await client.start()
            await client.for_customer(SOMEONE).track_event(Event("ping"))

        def threads() -> int:
            return sum(not each.name.startswith("asyncio") for each in threading.enumerate())

        before = threads()
        for _ in range(5):
            await in_other_loop(use)
        await client.start()
        assert await client.flush_data(60) == FlushResult(5, 0, 0)
        await client.aclose()
        await until(lambda: threads() <= before)


#: Newer versions of Python warn of each fork of a process with threads.
NO_WARNING = ("-W", "ignore::DeprecationWarning")
FORK = """
async def parent_starts():
    await exponea.start()
    await exponea.for_customer({"registered": "p"}).track_event(Event("parent"))

async def child():
    try:
        await exponea.track_event(Event("lost"))
    except LifecycleError as error:
        print(type(error).__name__, error, flush=True)
    await exponea.start()
    for _ in range(3):
        await exponea.for_customer({"registered": "c"}).track_event(Event("child"))

async def child_goes_on():
    await exponea.for_customer({"registered": "c"}).track_event(Event("child"))

exponea = client(flush_mode="MANUAL")
loop = asyncio.new_event_loop()
loop.run_until_complete(parent_starts())
ready, parent_closed = os.pipe(), os.pipe()
if os.fork() == 0:
    own = asyncio.new_event_loop()
    own.run_until_complete(child())
    os.write(ready[1], b"x")
    os.read(parent_closed[0], 1)
    own.run_until_complete(child_goes_on())
    HOW_THE_CHILD_ENDS
os.read(ready[0], 1)
loop.run_until_complete(parent_starts())
loop.run_until_complete(exponea.aclose(timeout=0))
os.write(parent_closed[1], b"x")
print(os.waitstatus_to_exitcode(os.wait()[1]))
"""


class TestForks:
    @pytest.mark.both_storages
    @pytest.mark.parametrize(
        "end", ["os._exit(0)", "own.run_until_complete(exponea.aclose(timeout=0)); sys.exit(0)", "sys.exit(0)"]
    )
    async def test_a_child_on_the_same_file(
        self, connect: Connect, configure: Configure, sandbox: Sandbox, end: str
    ) -> None:
        """
        A child must start the client anew; then parent and child share the file, and nothing is lost, although the
        parent closes first.
        """
        ended = await run_program(FORK.replace("HOW_THE_CHILD_ENDS", end), sandbox.url, configure())

        assert ended.out.startswith("NotStartedError The client was started before this process was forked.")
        assert ended.out.endswith("\n0\n"), ended.err
        names = [record.name for record in await pending_records(await connect(flush_mode="MANUAL"))]
        assert sorted(names) == ["child"] * 4 + ["parent"] * 2

    @pytest.mark.both_storages
    async def test_forks_during_transactions(self, connect: Connect, sandbox: Sandbox, configure: Configure) -> None:
        """Children that are forked while the client writes and uploads find a usable file, and the parent goes on."""
        source = """
async def write(name, count):
    tracker = exponea.for_customer({"registered": name})
    for number in range(count):
        await tracker.track_event(Event(name, {"number": number}))

async def child():
    await exponea.start()
    await write("child", 5)
    await exponea.aclose(timeout=0)

async def main():
    await exponea.start()
    events = [Event("parent", {"number": number}) for number in range(400)]
    tracker = exponea.for_customer({"registered": "p"})
    writing = [asyncio.create_task(exponea.track_many([(tracker.ids, each) for each in events])) for _ in range(40)]
    children = []
    for _ in range(5):
        await asyncio.sleep(0.01)
        pid = os.fork()
        if pid == 0:
            asyncio._set_running_loop(None)
            code = 1
            try:
                asyncio.new_event_loop().run_until_complete(asyncio.wait_for(child(), 60))
                code = 0
            finally:
                os._exit(code)
        children.append(pid)
    await asyncio.gather(*writing)
    codes = [os.waitstatus_to_exitcode((await asyncio.to_thread(os.waitpid, pid, 0))[1]) for pid in children]
    await exponea.aclose(timeout=0)
    print(codes)

exponea = client(flush_mode="MANUAL")
asyncio.run(main())
"""
        ended = await run_program(source, sandbox.url, configure())

        assert ended.out == "[0, 0, 0, 0, 0]\n", ended.err
        names = [record.name for record in await pending_records(await connect(flush_mode="MANUAL"))]
        assert (names.count("parent"), names.count("child")) == (16_000, 25)

    async def test_forks_of_several_threads(self, connect: Connect, sandbox: Sandbox, configure: Configure) -> None:
        """Threads may fork at the same time while the client writes."""
        source = """
def fork():
    for _ in range(20):
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)

async def main():
    async with client(flush_mode="MANUAL") as exponea:
        tracker = exponea.for_customer({"registered": "p"})
        forking = asyncio.gather(*[asyncio.to_thread(fork) for _ in range(4)])
        while not forking.done():
            await tracker.track_event(Event("ping"))
        await forking
        print(exponea.stats().tracked)

asyncio.run(main())
"""
        ended = await run_program(source, sandbox.url, configure(), *NO_WARNING)

        assert (ended.code, ended.err) == (0, "")
        assert len(await pending_records(await connect(flush_mode="MANUAL"))) == int(ended.out)


class TestCancellation:
    @pytest.mark.both_storages
    async def test_a_cancel_scope(self, configure: Configure, sandbox: Sandbox) -> None:
        """Under a cancel scope, which cancels each await again, the client is closed, and no task is left."""
        sandbox.faults.add(Fault("timeout", seconds=600))
        with anyio.CancelScope() as scope:
            async with Exponea(configure(upload={"request_timeout": 600})) as client:
                await client.track_event(Event("ping"))
                scope.deadline = anyio.current_time() + 0.2
                await anyio.sleep(30)

        assert scope.cancelled_caught
        assert repr(client) == "<Exponea shop closed>"
        # A database that is slow to let go of its connections is not waited for.
        await until(lambda: running() == [])
        with pytest.raises(ClosedError):
            await client.track_event(Event("ping"))

    async def test_a_task_group(self, configure: Configure) -> None:
        """The same holds where a failing task cancels the group of the client's task."""

        async def use() -> None:
            async with Exponea(configure()) as client:
                clients.append(client)
                started.set()
                await anyio.sleep(30)

        async def fail() -> None:
            async with anyio.create_task_group() as group:
                group.start_soon(use)
                await started.wait()
                raise ValueError

        clients: list[Exponea] = []
        started = anyio.Event()
        with pytest.raises(ExceptionGroup):
            await fail()
        assert repr(clients[0]) == "<Exponea shop closed>"
        await until(lambda: running() == [])

    @pytest.mark.parametrize("end", ["close", "stop", "stop and flush"])
    @pytest.mark.both_storages
    async def test_repeated_cancellation(self, connect: Connect, sandbox: Sandbox, end: str) -> None:
        """A close or a stop whose every await is cancelled ends, and the cancellation is raised."""
        sandbox.faults.add(Fault("timeout", seconds=600))
        client = await connect(upload={"request_timeout": 600})
        await client.track_event(Event("ping"))
        await until(lambda: sandbox.request_count >= 1)
        calls: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {
            "close": lambda: client.aclose(timeout=None),
            "stop": lambda: client.stop_integration(everyone=True),
            "stop and flush": lambda: client.stop_integration(flush=True, timeout=None, everyone=True),
        }
        ending = asyncio.create_task(calls[end]())
        await asyncio.sleep(0)
        async with asyncio.timeout(60):
            while not ending.done():
                ending.cancel()
                await asyncio.sleep(0)

        assert ending.cancelled()
        assert repr(client) == f"<Exponea shop {'closed' if end == 'close' else 'stopped'}>"
        await until(lambda: running() == [])

    @pytest.mark.parametrize("steps", range(40))
    async def test_a_cancelled_start(self, configure: Configure, sandbox: Sandbox, steps: int) -> None:
        """A start that is cancelled at any step leaves nothing open, and the client can be started afterwards."""
        client = Exponea(configure())
        await client.set_default_properties({"kept": True})
        starting = asyncio.create_task(client.start())
        for _ in range(steps):
            await asyncio.sleep(0 if steps % 2 else 0.0002)
        starting.cancel()
        await asyncio.wait([starting])

        if starting.cancelled():
            assert repr(client) == "<Exponea shop not started>"
            await until(lambda: running() == [])
            with pytest.raises(NotStartedError):
                await client.track_event(Event("ping"))
        await client.start()
        await client.track_event(Event("ping"))
        await client.aclose()
        (ping,) = sandbox.engine.events(event_type="ping")
        assert ping.properties["kept"] is True
        await until(lambda: running() == [])

    async def test_a_listener_that_stops_the_client(self, connect: Connect) -> None:
        """A task of the client's own may stop or close it: it is not waited for, or it would wait for itself."""
        client = await connect(device=True, preload_messages=True)
        tasks = feature_of(client, Inbox).tasks
        await asyncio.wait([tasks.start(client.stop_integration(everyone=True), name="stop")], timeout=60)
        assert repr(client) == "<Exponea shop stopped>"
        await until(lambda: running() == [])
        await client.start()
        tasks = feature_of(client, Inbox).tasks
        await asyncio.wait([tasks.start(client.aclose(), name="close")], timeout=60)
        assert repr(client) == "<Exponea shop closed>"
        await until(lambda: running() == [])


class TestDeadlines:
    @pytest.mark.parametrize("seconds", [0, 0.5])
    async def test_a_locked_file(self, connect: Connect, sandbox: Sandbox, tmp_path: Path, seconds: float) -> None:
        """While another program holds a lock, closing takes no longer than its timeout and one second."""
        client = await connect(device=True)
        await client.resume()
        await client.track_event(Event("ping"))
        loop = asyncio.get_running_loop()
        with locked(tmp_path / "queue.sqlite"):
            calls = [asyncio.create_task(client.track_event(Event("waits"))) for _ in range(3)]
            await asyncio.sleep(0.05)
            started = loop.time()
            await client.aclose(seconds, end_sessions=True)
            duration = loop.time() - started
        # The lock is waited for 60 seconds otherwise.
        assert duration < seconds + 30
        # What was in progress is committed after all, and the file is closed.
        await asyncio.gather(*calls)
        await until(lambda: running() == [])
        again = await connect(flush_mode="MANUAL")
        assert len(await pending_records(again, "waits")) + len(sandbox.engine.events(event_type="waits")) == 3


LEAVES = {
    "asyncio.run": "asyncio.run(main())",
    "garbage": "asyncio.run(main()); del exponea",
    "open loop": "asyncio.new_event_loop().run_until_complete(main())",
    "closed loop": "loop = asyncio.new_event_loop(); loop.run_until_complete(main()); loop.close()",
    "exit": "asyncio.run(main(code=3))",
}


class TestExit:
    @pytest.mark.parametrize("leave", LEAVES)
    @pytest.mark.both_storages
    async def test_an_unclosed_client(
        self, sandbox: Sandbox, configure: Configure, connect: Connect, leave: str
    ) -> None:
        """A program that does not close its client gets one line that says so, and no traceback."""
        source = f"""
exponea = client(flush_mode="MANUAL")
async def main(code=None):
    await exponea.start()
    await exponea.track_event(Event("ping"))
    if code is not None:
        sys.exit(code)
{LEAVES[leave]}
"""
        ended = await run_program(source, sandbox.url, configure())

        (line,) = ended.err.splitlines()
        assert line.startswith("The client of project shop was never closed; what was not sent stays in its queue ")
        assert ended.code == (3 if leave == "exit" else 0)
        assert len(await pending_records(await connect(flush_mode="MANUAL"), "ping")) == 1

    @pytest.mark.both_storages
    async def test_a_closed_client(self, sandbox: Sandbox, configure: Configure) -> None:
        """A program that closes its client gets no line."""
        source = """
async def main():
    async with client() as exponea:
        await exponea.track_event(Event("ping"))
asyncio.run(main())
"""
        ended = await run_program(source, sandbox.url, configure(), "-W", "error")

        assert (ended.code, ended.err) == (0, "")

    async def test_a_slow_name_look_up(self, sandbox: Sandbox, configure: Configure) -> None:
        """Neither the end of the event loop nor the exit waits for a name server that does not answer."""
        source = """
import socket
look_up, calls = socket.getaddrinfo, []

def slow(host, *args, **kwargs):
    if host == "slow.example":
        calls.append(host)
        time.sleep(600)
    return look_up(host, *args, **kwargs)

socket.getaddrinfo = slow

async def main():
    exponea = client(base_url="https://slow.example")
    await exponea.start()
    await exponea.track_event(Event("ping"))
    while not calls:
        await asyncio.sleep(0.01)
    await exponea.aclose(timeout=0.2)

from exponea_async._lifecycle import components
components.CLOSE_GRACE = 30.0
asyncio.run(main())
print(calls)
"""
        ended = await run_program(source, sandbox.url, configure())

        assert (ended.out, ended.err) == ("['slow.example']\n", "")
        assert ended.seconds < 40


class TestLog:
    async def test_start_and_close(
        self, connect: Connect, configure: Configure, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The start tells the project, the file and what waits; the close tells what stays."""
        client = await connect(flush_mode="MANUAL")
        await client.track_many(numbered_events(3))
        await client.aclose()
        with caplog.at_level(logging.INFO, "exponea_async"):
            async with Exponea(configure(flush_mode="MANUAL")):
                pass

        path = tmp_path / "queue.sqlite"
        assert [record.getMessage() for record in caplog.records] == [
            f"Started for project shop with the queue {path}: 3 records wait, 0 are dead letters.",
            f"Closed; 3 records stay in the queue {path}.",
        ]

    async def test_an_unclosed_client(self, configure: Configure, caplog: pytest.LogCaptureFixture) -> None:
        """A client that is garbage-collected before it is closed is named in the log, once."""
        clients = [await run_and_leave(configure, storage="memory:")]

        def is_named() -> bool:
            clients.clear()
            gc.collect()
            return "never closed" in caplog.text

        with pytest.warns(ResourceWarning, match="<Exponea shop open> was never closed"):
            # The thread of the other event loop lets go of it a moment later.
            await until(is_named)

        assert caplog.text.count("The client of project shop was never closed") == 1
        assert "lost with its queue in memory" in caplog.text


class TestNames:
    @pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNSPEC])
    async def test_a_name(self, family: socket.AddressFamily) -> None:
        """A name is resolved to its addresses, by concurrent callers too, of which one gives up."""
        resolver = DaemonResolver()
        calls = [asyncio.create_task(resolver.resolve("localhost", 80, family)) for _ in range(3)]
        await asyncio.sleep(0)
        calls[0].cancel()
        _, first, second = await asyncio.gather(*calls, return_exceptions=True)

        assert not isinstance(first, BaseException)
        assert first == second
        assert {each["host"] for each in first} <= {"127.0.0.1", "::1"}
        assert {each["port"] for each in first} == {80}

    @pytest.mark.parametrize("name", ["does-not-exist.invalid", "a" * 300, "\u00e4" * 80])
    async def test_an_unknown_name(self, name: str) -> None:
        """A name that does not exist, or can't exist, raises an OSError."""
        with pytest.raises(OSError, match=r"\w"):
            await DaemonResolver().resolve(name)

    async def test_an_unknown_name_is_an_outage(self, connect: Connect) -> None:
        """Events for a host that can't be found are kept."""
        client = await connect(base_url="http://does-not-exist.invalid")
        await client.track_event(Event("ping"))
        await until(lambda: client.stats().failed_requests > 0)

        assert (await client.flush_data(0.1)).remaining == 1


class TestStreams:
    async def test_in_another_thread(self, connect: Connect) -> None:
        """A subscription that is iterated in the event loop of another thread yields each value, and ends."""
        client = await connect(device=True)
        opened = client.opened_push_stream()

        async def iterate() -> list[str]:
            urls = []
            async for each in opened:
                urls.append(str(each.url))
                seen.release()
            return urls

        seen = threading.Semaphore(0)
        iterating = asyncio.create_task(in_other_loop(iterate))
        for number in range(20):
            await client.handle_push_notification_opened(
                {"source": "xnpe_platform", "action": "browser", "url": f"https://shop.example/{number}"}
            )
            await asyncio.to_thread(seen.acquire, timeout=60)
        await client.aclose(timeout=0)

        assert await iterating == [f"https://shop.example/{number}" for number in range(20)]
