"""
How far an import has come, stored in a journal beside its file.
"""

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, Self

from attrs import evolve, field, frozen

from exponea_async.cli.importer.private_files import create_private
from exponea_async.cli.terminal import UsageError
from exponea_async.storage.sqlite.leftovers import is_journal

#: How many bytes at the beginning of a file are hashed to recognise it.
HEAD_BYTES = 65_536
VERSION = 1
#: The keys of a checkpoint in the journal and in JSON output, by attribute.
KEYS = {
    "offset": "offset",
    "line_number": "number",
    "lines": "lines",
    "tracked": "tracked",
    "invalid": "bad",
    "rejects_size": "bad_size",
    "finished_at": "finished_at",
}


@frozen(kw_only=True)
class Checkpoint:
    """
    How far an import has come.

    Attributes:
        offset: How many bytes of the file have been read.
        line_number: How many lines of the file that makes.
        lines: How many of them contained data.
        tracked: How many of these were tracked.
        invalid: How many of these were invalid.
        rejects_size: The size of the rejects file in bytes.
        finished_at: When the last event was delivered or rejected, in UNIX seconds; None before.
    """

    offset: int = field(default=0)
    line_number: int = field(default=0)
    lines: int = field(default=0)
    tracked: int = field(default=0)
    invalid: int = field(default=0)
    rejects_size: int = field(default=0)
    finished_at: float | None = field(default=None)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """
        Return the checkpoint of a journal.

        Raises:
            KeyError: A key is unknown.
        """
        attributes = {key: attribute for attribute, key in KEYS.items()}
        return cls(**{attributes[key]: value for key, value in data.items()})

    def as_json(self) -> dict[str, Any]:
        """Return the checkpoint as it is written to the journal."""
        return {key: getattr(self, attribute) for attribute, key in KEYS.items()}

    def finished(self) -> Self:
        """Return the same checkpoint, finished now."""
        return evolve(self, finished_at=time.time())


class Journal:
    """
    The file in which the checkpoint of an import is stored.

    Args:
        path: The journal.
        identity: What is imported, from where and to where; a checkpoint of any other import is not used.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self._path = path
        # As it is read from the journal: tuples become lists.
        self._identity = json.loads(json.dumps(identity))

    def load(self) -> Checkpoint | None:
        """
        Return the checkpoint, or None without a journal.

        Raises:
            UsageError: The file is not a journal, or the journal of another import.
        """
        try:
            content = json.loads(self._path.read_bytes())
            differences = self._differences(content)
            checkpoint = Checkpoint.from_json(content["place"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise self._not_a_journal() from None
        if differences:
            raise UsageError(
                self._path,
                f"is the journal of another import ({', '.join(differences)} differs)",
                "Pass --again to start over, or --journal to choose another file.",
            )
        return checkpoint

    def check_replaceable(self) -> None:
        """
        Make sure that nothing but a journal is replaced.

        Raises:
            UsageError: The file is not a journal.
        """
        if os.path.lexists(self._path) and not (self._path.is_file() and is_journal(self._path)):
            raise self._not_a_journal()

    def _not_a_journal(self) -> UsageError:
        return UsageError(self._path, "is not the journal of an import", "Pass --journal to choose another file.")

    def _differences(self, content: Mapping[str, Any]) -> list[str]:
        # The address of the project was a part of it in journals of the first version of this package.
        identity = {**content["about"], "project": content["about"]["project"].rpartition("/")[2]}
        different = [name for name, value in self._identity.items() if identity.get(name) != value]
        if not different and (content.get("version") != VERSION or identity != self._identity):
            return ["version"]
        return different

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint that survives a loss of power."""
        content = {"version": VERSION, "about": self._identity, "place": checkpoint.as_json()}
        new = self._path.with_name(f"{self._path.name}.new")
        with create_private(new) as file:
            file.write(f"{json.dumps(content, indent=1)}\n".encode())
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)
        # Where a folder can't be synced, a rename is either durable at once or can't be made so.
        with suppress(OSError):
            folder = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def fingerprint(file: BinaryIO) -> dict[str, Any]:
    """Return what identifies the content of a file; changes the file position."""
    status = os.fstat(file.fileno())
    file.seek(0)
    head = sha256(file.read(HEAD_BYTES)).hexdigest()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "head": head}
