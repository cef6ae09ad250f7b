"""
Counts of commands and requests by second. No I/O.
"""

from typing import Literal, get_args

#: The seconds that are kept.
MAX_SECONDS = 3600

Count = Literal["accepted", "rejected", "limited", "failed"]
COUNTS: tuple[Count, ...] = get_args(Count)
_POSITIONS = {name: position for position, name in enumerate(COUNTS)}


class Timeline:
    """The number of accepted and rejected commands, and of limited and failed requests, in each second of an hour."""

    def __init__(self) -> None:
        self._seconds: dict[int, dict[str, list[int]]] = {}

    def count(self, at: float, project: str, name: Count) -> None:
        """Count a command or a request."""
        projects = self._seconds.get(int(at))
        if projects is None:
            projects = self._add_second(int(at))
        counts = projects.get(project)
        if counts is None:
            counts = projects[project] = [0] * len(COUNTS)
        counts[_POSITIONS[name]] += 1

    def series(self, end: float, seconds: int, project: str | None) -> dict[str, list[int]]:
        """Return each count for each of the seconds until `end`, oldest first; of one project or of all."""
        result: dict[str, list[int]] = {name: [0] * seconds for name in COUNTS}
        first = int(end) - seconds + 1
        for offset in range(seconds):
            projects = self._seconds.get(first + offset)
            if not projects:
                continue
            selected = projects.values() if project is None else [projects.get(project, [0] * len(COUNTS))]
            for name, position in _POSITIONS.items():
                result[name][offset] = sum(counts[position] for counts in selected)
        return result

    def _add_second(self, second: int) -> dict[str, list[int]]:
        projects = self._seconds[second] = {}
        if len(self._seconds) > MAX_SECONDS:
            # The clock may have been set back, so the oldest second is not always the first one.
            del self._seconds[min(self._seconds)]
        return projects
