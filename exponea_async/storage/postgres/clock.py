"""
The clock of leases in PostgreSQL: that of the server, which all machines share.
"""

import time

from exponea_async.storage.clock import to_uptime

#: By how much the clocks may differ, in seconds, before times are converted. Below, they count as equal, so that times
#: that were converted at different moments stay exact; machines that synchronize their clocks differ by less.
TOLERANCE = 0.5


class ServerClock:
    """
    Converts UNIX seconds of this machine to those of the server.

    Between two measurements the time that has passed since the start of this machine counts, which no correction of its
    clock changes.
    """

    def __init__(self) -> None:
        self._server_at_start: float | None = None
        self._offset = 0.0

    def measure(self, server: float, before: float) -> None:
        """
        Take over a time that was read from the server.

        Args:
            server: UNIX seconds by the clock of the server.
            before: UNIX seconds of this machine just before the request; the answer is assumed to be as far from its
                reading as the request was.
        """
        self._server_at_start = server - to_uptime((before + time.time()) / 2)

    def to_server(self, unix: float) -> float:
        """Convert UNIX seconds of this machine to those of the server."""
        return unix + self._current_offset()

    def to_unix(self, server: float) -> float:
        """Convert UNIX seconds of the server to those of this machine."""
        return server - self._current_offset()

    def _current_offset(self) -> float:
        if self._server_at_start is None:
            return 0.0
        now = time.time()
        offset = self._server_at_start + to_uptime(now) - now
        if abs(offset - self._offset) > TOLERANCE:
            self._offset = offset
        return self._offset
