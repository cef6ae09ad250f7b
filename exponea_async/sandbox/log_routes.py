"""
The control routes of the log: commands, requests and counts.
"""

import asyncio
import math
from collections.abc import Iterable
from itertools import islice
from typing import Any

from aiohttp import web

from exponea_async.sandbox.engine import Engine
from exponea_async.sandbox.entry_views import entry_details, entry_summary
from exponea_async.sandbox.errors import RequestError
from exponea_async.sandbox.exchanges import Exchange, Exchanges
from exponea_async.sandbox.http import JsonResponse
from exponea_async.sandbox.journal import VERDICTS, Entry
from exponea_async.sandbox.queries import check_names, choices, limit, number, optional_number, parse_number
from exponea_async.sandbox.search import PAUSE_BYTES, Filter, search
from exponea_async.sandbox.timeline import MAX_SECONDS

DEFAULT_SECONDS = 300
#: The counts in a timeline, at most; those of longer times are added.
MAX_POINTS = 300
#: The types in the facets, the most frequent ones.
MAX_TYPES = 1000
LOG_NAMES = ("limit", "before", "after", "project", "type", "customer", "verdict", "text", "since", "until")


class LogApi:
    """The handlers of the control routes of the log."""

    def __init__(self, engine: Engine, exchanges: Exchanges) -> None:
        self._engine = engine
        self._exchanges = exchanges

    def routes(self) -> list[web.RouteDef]:
        """Return all routes."""
        return [
            web.get("/sandbox/log", self._get_log, allow_head=False),
            web.get("/sandbox/log/{id}", self._get_entry, allow_head=False),
            web.get("/sandbox/timeline", self._get_timeline, allow_head=False),
            web.get("/sandbox/facets", self._get_facets, allow_head=False),
            web.get("/sandbox/requests", self._get_requests, allow_head=False),
            web.get("/sandbox/requests/{id}", self._get_request, allow_head=False),
        ]

    async def _get_log(self, request: web.Request) -> web.Response:
        check_names(request, *LOG_NAMES)
        query = request.query
        wanted = Filter(
            projects=frozenset(query.getall("project", [])),
            types=frozenset(query.getall("type", [])),
            verdicts=choices(request, "verdict", VERDICTS),
            customer=query.get("customer", ""),
            text=query.get("text", ""),
            since=optional_number(request, "since"),
            until=optional_number(request, "until"),
        )
        before, after = optional_number(request, "before"), number(request, "after", 0, 0)
        found, following = await search(self._engine, wanted, limit(request), before=before, after=after)
        entries = await summaries(self._engine, found)
        return JsonResponse({"entries": entries, "next": following, **self._state()})

    async def _get_entry(self, request: web.Request) -> web.Response:
        check_names(request)
        entry = self._engine.journal.log.get(_id(request))
        if entry is None:
            raise RequestError(404, "The entry does not exist, or is no longer kept.")
        return JsonResponse(entry_details(self._engine, entry))

    async def _get_timeline(self, request: web.Request) -> web.Response:
        check_names(request, "seconds", "project")
        seconds = number(request, "seconds", DEFAULT_SECONDS, 1, MAX_SECONDS)
        step = math.ceil(seconds / MAX_POINTS)
        # A whole number of steps, each of which starts at a multiple of its length: the same seconds stay together.
        points, end = math.ceil(seconds / step), (int(self._engine.now()) // step + 1) * step
        series = self._engine.journal.timeline.series(end - 1, points * step, request.query.get("project"))
        sums = {
            name: [sum(counts[at : at + step]) for at in range(0, len(counts), step)] for name, counts in series.items()
        }
        return JsonResponse({"start": end - points * step, "step": step, **sums})

    async def _get_facets(self, request: web.Request) -> web.Response:
        check_names(request, "project")
        project, journal = request.query.get("project"), self._engine.journal
        types: dict[str, int] = {}
        for (owner, label), count in journal.names.items():
            if project in (None, owner):
                types[label] = types.get(label, 0) + count
        frequent = sorted(types.items(), key=lambda pair: (-pair[1], pair[0]))[:MAX_TYPES]
        verdicts = {verdict: journal.verdicts.get(verdict, 0) for verdict in VERDICTS}
        return JsonResponse({"projects": self._engine.projects(), "types": dict(frequent), "verdicts": verdicts})

    async def _get_requests(self, request: web.Request) -> web.Response:
        check_names(request, "limit", "before", "offset", "status", "project")
        statuses = frozenset(map(_status, request.query.getall("status", [])))
        project, count = request.query.get("project"), limit(request)
        matching = (
            exchange
            for exchange in self._exchanges.newest_first(optional_number(request, "before"))
            if (not statuses or _log_status(exchange) in statuses) and project in (None, exchange.project)
        )
        found, following = _page(matching, number(request, "offset", 0, 0), count)
        log = self._exchanges.log
        return JsonResponse(
            {
                "requests": [exchange.as_dict() for exchange in found],
                "next": following,
                "total": len(log),
                "forgotten": log.forgotten,
                "limit": {"requests": log.max_items, "bytes": log.max_bytes},
            }
        )

    async def _get_request(self, request: web.Request) -> web.Response:
        check_names(request)
        exchange = self._exchanges.get(_id(request))
        if exchange is None:
            raise RequestError(404, "The request does not exist, is still running, or is no longer kept.")
        return JsonResponse(exchange.details())

    def _state(self) -> dict[str, Any]:
        journal = self._engine.journal
        log = journal.log
        return {
            "oldest": log.oldest,
            "newest": log.next - 1,
            "forgotten": log.forgotten,
            "limit": {"entries": log.max_items, "bytes": log.max_bytes},
            "bytes": log.bytes,
            "run": journal.run,
        }


async def summaries(engine: Engine, entries: Iterable[Entry]) -> list[dict[str, Any]]:
    """Return the summaries of entries; other tasks run in between if the data is large."""
    result, read = [], 0
    for entry in entries:
        result.append(entry_summary(engine, entry))
        read += entry.size
        if read > PAUSE_BYTES:
            read = 0
            await asyncio.sleep(0)
    return result


def _page(matching: Iterable[Exchange], offset: int, count: int) -> tuple[list[Exchange], int | None]:
    found = list(islice(matching, offset, offset + count + 1))
    has_more = len(found) > count > 0
    return found[:count], found[count - 1].id if has_more else None


def _status(given: str) -> int:
    status = parse_number(given)
    if status is None or status > 599:
        raise RequestError(400, f"status: should be an HTTP status, or 0 for dropped connections, got {given!r:.100}.")
    return status


def _log_status(exchange: Exchange) -> int:
    return exchange.log.status if exchange.log is not None else 0


def _id(request: web.Request) -> int:
    given = request.match_info["id"]
    value = parse_number(given)
    if value is None:
        raise RequestError(400, f"id: should be a whole number, got {given!r:.100}.")
    return value
