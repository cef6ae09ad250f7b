"""
How entries of the log are shown: short in lists, and whole. No I/O.
"""

import json
from collections.abc import Mapping
from itertools import islice
from typing import Any

from exponea_async.sandbox.commands import IDS
from exponea_async.sandbox.engine import Engine
from exponea_async.sandbox.journal import Entry

MAX_PREVIEW_LENGTH = 160
#: Properties that SDKs add to each event. In a preview they are the last ones, since they are the same everywhere.
ADDED = frozenset(
    {"sdk", "sdk_version", "os_name", "os_version", "device_type", "device_id", "app_version", "application_id"}
)
#: The ids, errors and paths in a list are cut to this number, and each of them to this length.
MAX_SHOWN = 20
MAX_SHOWN_LENGTH = 500
#: The data of larger entries is decoded once for all lists, in bytes.
LARGE = 16_384


def entry_summary(engine: Engine, entry: Entry) -> dict[str, Any]:
    """Return an entry as lists contain it: its size does not depend on that of the data."""
    ids, preview = _brief(entry)
    return {
        "id": entry.id,
        "received": entry.received,
        "project": entry.project,
        "kind": entry.kind,
        "name": entry.label,
        "timestamp": entry.timestamp,
        "customer": engine.current_customer(entry) or None,
        "ids": ids,
        "verdict": entry.verdict,
        "errors": [error[:MAX_SHOWN_LENGTH] for error in entry.errors[:MAX_SHOWN]],
        "paths": [dotted(path)[:MAX_SHOWN_LENGTH] for path in entry.paths[:MAX_SHOWN]],
        "request": entry.request,
        "merged": entry.merged,
        "size": len(entry.raw or b""),
        "preview": preview,
    }


def entry_details(engine: Engine, entry: Entry) -> dict[str, Any]:
    """Return a whole entry with its data; `path_keys` has the keys of each path, which may contain dots."""
    return {
        **entry_summary(engine, entry),
        "name": entry.name,
        "errors": entry.errors,
        "paths": [dotted(path) for path in entry.paths],
        "path_keys": entry.paths,
        "data": entry.data,
        "readable": entry.raw is not None,
    }


def ids_of(data: Any) -> dict[str, str]:
    """Return the ids in the data of a command, valid or not, without those that are not strings."""
    ids = data.get(IDS) if isinstance(data, Mapping) else None
    return {kind: value for kind, value in ids.items() if isinstance(value, str)} if isinstance(ids, Mapping) else {}


def dotted(path: tuple[str, ...]) -> str:
    """Return the keys of a path as one string."""
    return ".".join(path)


def _brief(entry: Entry) -> tuple[dict[str, str], str]:
    if entry.brief is not None:
        return entry.brief
    data = entry.data
    ids = {kind[:MAX_SHOWN_LENGTH]: value[:MAX_SHOWN_LENGTH] for kind, value in islice(ids_of(data).items(), MAX_SHOWN)}
    brief = (ids, _preview(data) if entry.raw is not None else "(nested too deeply)")
    if len(entry.raw or b"") > LARGE:
        entry.brief = brief
    return brief


def _preview(data: Any) -> str:
    shown = data
    if isinstance(data, dict) and "properties" in data:
        shown = data["properties"]
        if isinstance(shown, dict) and "url" in data:
            shown = {"url": data["url"], **shown}
    elif isinstance(data, dict) and IDS in data:
        # The ids and the type have places of their own.
        shown = {name: value for name, value in data.items() if name not in (IDS, "event_type", "timestamp")}
    if not isinstance(shown, dict):
        return _short(shown)
    parts: list[str] = []
    first = islice(shown.items(), MAX_PREVIEW_LENGTH)
    # sorted() keeps the order of all others.
    for name, value in sorted(first, key=lambda pair: pair[0] in ADDED):
        parts.append(f"{name[:MAX_PREVIEW_LENGTH]}: {_short(value)}")
        if sum(map(len, parts)) > MAX_PREVIEW_LENGTH:
            break
    return _cut(", ".join(parts))


def _short(value: Any) -> str:
    if isinstance(value, str):
        return _cut(value)
    if isinstance(value, dict):
        return "{…}" if value else "{}"
    if isinstance(value, list):
        return "[…]" if value else "[]"
    return json.dumps(value)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_PREVIEW_LENGTH else text[: MAX_PREVIEW_LENGTH - 1] + "…"
