"""
What is left beside a queue and holds data of customers: copies of damaged files, and what imports have written.
"""

import json
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

#: Between the name of a queue and the rest of the name of its damaged copy.
DAMAGED = ".damaged-"
#: The keys of an import's journal, and of each line of its file of invalid lines; the last ones are those of the first
#: version of this package.
JOURNAL_KEYS = {"version", "about", "place"}
REJECT_KEYS = (
    {"line", "reason", "values"},
    {"line", "reason", "text", "layout"},
    {"line", "reason", "text"},
)

_COPY = re.compile(r"\d{8}T\d{6}-\d+(-\d+)?(-wal|-shm|-journal)?")
_REJECT_START = b'{"line":'
#: The longest first line that is read of a file that may be an import's, in bytes.
_MAX_LINE = 10_000_000


def delete_leftovers(path: Path) -> None:
    """
    Delete what this package has written beside a queue; all other files stay.

    Raises:
        OSError: The system refused.
    """
    for leftover in list(_leftovers(path)):
        with suppress(FileNotFoundError):
            leftover.unlink()


def _leftovers(path: Path) -> Iterator[Path]:
    with os.scandir(path.parent) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                if _is_own(entry.stat(follow_symlinks=False)) and _is_leftover(Path(entry.path), path.name):
                    yield Path(entry.path)


def _is_own(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode) and (not hasattr(os, "geteuid") or status.st_uid == os.geteuid())


def _is_leftover(path: Path, queue: str) -> bool:
    if path.name.startswith(f"{queue}{DAMAGED}"):
        return bool(_COPY.fullmatch(path.name.removeprefix(f"{queue}{DAMAGED}")))
    if path.name.endswith((".journal", ".journal.new")):
        return is_journal(path)
    return path.name.endswith(".bad.jsonl") and is_rejects_file(path)


def is_journal(path: Path) -> bool:
    """Return whether a file is the journal of an import, of any file and to any project."""
    with path.open("rb") as file:
        return _has_keys(file.read(_MAX_LINE), [JOURNAL_KEYS])


def is_rejects_file(path: Path) -> bool:
    """Return whether a file has the invalid lines of an import, the first one possibly in part, or is empty."""
    with path.open("rb") as file:
        line = file.readline(_MAX_LINE)
    is_cut = not line.endswith(b"\n") and line.startswith(_REJECT_START)
    return not line or is_cut or _has_keys(line, REJECT_KEYS)


def _has_keys(text: bytes, possible: Sequence[set[str]]) -> bool:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.keys() in possible
