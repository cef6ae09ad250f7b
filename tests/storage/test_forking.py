"""
Processes that are forked while a file is being opened.
"""

import asyncio
import subprocess
import sys
from pathlib import Path

#: Forks when the file is open, and the event loop does not know it yet; prints the logs that the child has open.
FORK_DURING_OPEN = """
import asyncio, os, sys, time
from exponea_async.storage.sqlite.storage import SQLiteStorage

async def main(path):
    opening = asyncio.create_task(SQLiteStorage(path).open())
    await asyncio.sleep(0)
    while not os.path.exists(path + "-shm"):
        time.sleep(0.01)
    # The thread goes on while the event loop stands still.
    time.sleep(0.2)
    if os.fork() == 0:
        links = [os.readlink(each.path) for each in os.scandir("/proc/self/fd") if os.path.exists(each.path)]
        print([each for each in links if each.endswith("-wal")], flush=True)
        os._exit(0)
    os.wait()
    await opening

asyncio.run(main(sys.argv[1]))
"""

#: Forks while one thread keeps its connection busy and others open the file, and lets each child open it.
FORK_AMONG_OPENINGS = """
import asyncio, os, sys, threading, time
from exponea_async.storage.base import Record
from exponea_async.storage.sqlite.storage import SQLiteStorage

async def use(path):
    storage = SQLiteStorage(path, lock_timeout=60.0)
    await storage.open()
    await storage.write([Record("shop", b"x", 1.0)])
    await storage.aclose()

async def use_forever(path):
    while True:
        await use(path)

async def be_busy(path):
    storage = SQLiteStorage(path, lock_timeout=60.0)
    await storage.open()
    while True:
        await storage.run(lambda connection: time.sleep(0.05))
        await asyncio.sleep(0.001)

def run(work):
    asyncio.run(work(sys.argv[1]))

for work in (be_busy, use_forever, use_forever):
    threading.Thread(target=run, args=(work,), daemon=True).start()
time.sleep(0.3)
for _ in range(20):
    child = os.fork()
    if child == 0:
        thread = threading.Thread(target=run, args=(use,))
        thread.start()
        thread.join()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
print("done")
os._exit(0)
"""


async def run_script(script: str, path: Path) -> str:
    command = [sys.executable, "-c", script, str(path)]
    done = await asyncio.to_thread(subprocess.run, command, check=True, stdout=subprocess.PIPE, text=True, timeout=60)
    return done.stdout


async def test_before_the_event_loop_knows(tmp_path: Path) -> None:
    """A child closes its copy of a file that the parent has just opened."""
    assert await run_script(FORK_DURING_OPEN, tmp_path / "queue.sqlite") == "[]\n"


async def test_while_others_open_it(tmp_path: Path) -> None:
    """A child can open the file although threads of its parent were opening it."""
    assert await run_script(FORK_AMONG_OPENINGS, tmp_path / "queue.sqlite") == "done\n"
