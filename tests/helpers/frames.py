"""
What a tool that reports errors sees: the local variables of all frames of an error, or of a task that waits.
"""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import aiohttp

#: The modules of the tests' own server.
SERVER = "/aiohttp/web_"
TESTS = str(Path(__file__).parent.parent)


def locals_of_error(error: BaseException | None) -> Iterator[str]:
    """Show the local variables in the frames of an error and of its causes, without those of the tests."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        traceback = error.__traceback__
        while traceback is not None:
            yield from _shown(traceback.tb_frame)
            traceback = traceback.tb_next
        error = error.__cause__ or error.__context__


def locals_of_tasks() -> Iterator[str]:
    """Show the local variables in the frames in which the other tasks of the running loop wait, as above."""
    # Python 3.11 crashes when it is asked what a running coroutine awaits.
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        awaited: Any = task.get_coro()
        while awaited is not None:
            frame = next((found for name in _FRAMES if (found := getattr(awaited, name, None))), None)
            if frame is not None:
                yield from _shown(frame)
            awaited = next((found for name in _AWAITED if (found := getattr(awaited, name, None))), None)


#: The attributes of coroutines, generators and asynchronous generators.
_FRAMES = ("cr_frame", "gi_frame", "ag_frame")
_AWAITED = ("cr_await", "gi_yieldfrom", "ag_await")


def _shown(frame: FrameType) -> Iterator[str]:
    code = frame.f_code
    if code.co_filename.startswith(TESTS) or SERVER in code.co_filename:
        return
    for name, value in frame.f_locals.items():
        # The repr of a response that has not arrived yet would break it, and that of a half-made object fails.
        if not isinstance(value, aiohttp.ClientResponse):
            with suppress(AttributeError):
                yield f"{code.co_filename}:{code.co_qualname}: {name} = {value!r}"
