"""
How far an import has come, kept beside its file.
"""

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

from attrs import asdict, evolve, field, frozen

from exponea_async.cli.exits import UsageError

#: How much of a file tells it from another, in bytes.
HEAD = 65_536
VERSION = 1


@frozen
class Place:
    """
    How far an import has come.

    Attributes:
        offset: Up to which byte the file was read.
        number: How many lines of the file that makes.
        lines: How many of them were data.
        tracked: How many were tracked.
        bad: How many were not.
        bad_size: The size of the file of bad lines, in bytes.
        finished_at: When all of it was delivered or refused, UNIX seconds; None before.
    """

    offset: int = field(default=0, kw_only=True)
    number: int = field(default=0, kw_only=True)
    lines: int = field(default=0, kw_only=True)
    tracked: int = field(default=0, kw_only=True)
    bad: int = field(default=0, kw_only=True)
    bad_size: int = field(default=0, kw_only=True)
    finished_at: float | None = field(default=None, kw_only=True)

    def finished(self) -> "Place":
        """Tell the same place as the end."""
        return evolve(self, finished_at=time.time())


class Journal:
    """
    The file that keeps the place.

    Args:
        path: The journal.
        about: What is imported, from where and to where; a place in another import is of no use.
    """

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self.path = path
        self._about = json.loads(json.dumps(about))

    def load(self) -> Place | None:
        """
        Read the place; None where there is no journal.

        Raises:
            UsageError: The journal is about another import, or no journal.
        """
        try:
            kept = json.loads(self.path.read_bytes())
            about, place = kept["about"], Place(**kept["place"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            raise UsageError(f"{self.path} is no journal of an import; --journal names another file") from None
        if kept.get("version") != VERSION or about != self._about:
            differs = ", ".join(name for name in self._about if about.get(name) != self._about[name]) or "version"
            raise UsageError(
                f"{self.path} is the journal of another import ({differs} differs); --again begins anew, --journal "
                "names another file"
            )
        return place

    def save(self, place: Place) -> None:
        """Keep a place, so that it is there after a loss of power too."""
        text = json.dumps({"version": VERSION, "about": self._about, "place": asdict(place)}, indent=1)
        fresh = self.path.with_name(f"{self.path.name}.new")
        with fresh.open("w", encoding="utf-8") as file:
            file.write(f"{text}\n")
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.path)
        # Where folders can't be synced, renaming them is durable by itself or not at all.
        with suppress(OSError):
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def fingerprint(file: BinaryIO) -> dict[str, Any]:
    """Tell a file from others, and from itself once it has changed; moves the place that is read next."""
    status = os.fstat(file.fileno())
    file.seek(0)
    head = sha256(file.read(HEAD)).hexdigest()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "head": head}
