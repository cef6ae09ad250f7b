"""
The clock of leases and delays: seconds since the machine was started, which no correction of the system's time changes.

All processes of a machine share it, so it is what is stored. Callers use UNIX time, and the storage converts.
"""

import time
from pathlib import Path

#: By how much UNIX time may differ from the known one, in seconds, before it counts as set. Below, it does not, so that
#: times that were converted at different moments stay exact.
TOLERANCE = 0.5
#: Linux gives each start of the machine an id.
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

_known_offset = 0.0


def to_uptime(unix: float) -> float:
    """Convert UNIX seconds to seconds since the start of the machine."""
    return unix - _offset()


def to_unix(uptime: float) -> float:
    """Convert seconds since the start of the machine to UNIX seconds, by the system's present time."""
    return uptime + _offset()


def boot_number() -> int:
    """Return a number that is another one after each start of the machine, or 0 where there is none."""
    try:
        return int(BOOT_ID.read_text().replace("-", "")[:15], 16)
    except (OSError, ValueError):
        return 0


def _offset() -> float:
    global _known_offset  # noqa: PLW0603 - the same for the whole process, as the clocks are
    offset = time.time() - uptime()
    if abs(offset - _known_offset) > TOLERANCE:
        _known_offset = offset
    return _known_offset


def uptime() -> float:
    """Return the seconds since the start of the machine."""
    # Goes on while the machine is suspended, unlike the monotonic clock of Linux.
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
