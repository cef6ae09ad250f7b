"""
The log and the timeline of the sandbox by time, over real HTTP.
"""

import time

import aiohttp
import pytest
from helpers.sandbox_page import Page, event

from exponea_async.sandbox import Sandbox


@pytest.fixture
def page(sandbox: Sandbox, session: aiohttp.ClientSession) -> Page:
    return Page(session, sandbox.url)


async def test_entries_of_a_time(page: Page) -> None:
    """The log selects the entries that arrived in a time, which begins with `since` and ends before `until`."""
    before = int(time.time())
    await page.send_commands(event({"registered": "j"}))
    after = int(time.time()) + 1

    async def found(query: str) -> int:
        return len((await page.get(f"log?{query}"))["entries"])

    assert await found(f"since={before}&until={after}") == 1
    assert await found(f"since={before}") == await found(f"until={after}") == 1
    assert await found(f"since={after}") == await found(f"until={before}") == 0


@pytest.mark.parametrize(("seconds", "step", "points"), [(60, 1, 60), (300, 1, 300), (900, 3, 300), (3600, 12, 300)])
async def test_steps_of_the_timeline(page: Page, seconds: int, step: int, points: int) -> None:
    """A long timeline adds the counts of several seconds, and starts at a multiple of its steps."""
    await page.send_commands(event({"registered": "j"}), event({}))

    timeline = await page.get(f"timeline?seconds={seconds}")

    assert (timeline["step"], len(timeline["accepted"]), timeline["start"] % step) == (step, points, 0)
    assert (sum(timeline["accepted"]), sum(timeline["rejected"])) == (1, 1)
    assert timeline["start"] + points * step > time.time()
