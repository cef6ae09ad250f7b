"""
Clocks and meters of a process. Nothing of the package is imported, so that they can measure other libraries, too.
"""

import asyncio
import os
import resource
from collections.abc import Sequence
from pathlib import Path

#: How long the task sleeps that measures how late the event loop is, in seconds.
TICK = 0.001


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that the given share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def cpu() -> float:
    """Return the CPU time of this process in seconds, all threads together."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def resident() -> float:
    """Return the resident memory of this process in megabytes."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def peak() -> float:
    """Return the largest resident memory of this process so far in megabytes."""
    # Unlike ru_maxrss, it does not begin with the memory of the process that started this one.
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e6


async def measure_lags(lags: list[float]) -> None:
    """Sleep for a tick again and again, and append how late each wake-up is."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + TICK
        await asyncio.sleep(TICK)
        lags.append(loop.time() - due)
