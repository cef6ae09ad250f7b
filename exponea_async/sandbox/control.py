"""
The control routes of the sandbox: read the stored data, define messages, reset.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from aiohttp import web
from attrs import asdict, has

from exponea_async.sandbox.engine import Engine
from exponea_async.sandbox.errors import RequestError
from exponea_async.sandbox.http import JsonResponse, read_object, require_json
from exponea_async.sandbox.journal import encode_data
from exponea_async.sandbox.messages.definitions import Definitions
from exponea_async.sandbox.messages.schemas import DefinitionError
from exponea_async.sandbox.models import CustomerView
from exponea_async.sandbox.traffic import Traffic

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000

T = TypeVar("T")


class ControlApi:
    """The handlers of the control routes."""

    def __init__(self, engine: Engine, definitions: Definitions, traffic: Traffic, reset: Callable[[], None]) -> None:
        self._engine = engine
        self._definitions = definitions
        self._traffic = traffic
        self._reset = reset

    def routes(self) -> list[web.RouteDef]:
        """Return all routes."""
        return [
            web.get("/sandbox/projects", self._get_projects),
            web.get("/sandbox/projects/{token}/events", self._get_events),
            web.get("/sandbox/projects/{token}/customers", self._get_customers),
            web.get("/sandbox/summary", self._get_summary),
            web.get("/sandbox/messages", self._get_messages),
            web.post("/sandbox/messages", self._post_messages),
            web.put("/sandbox/messages", self._put_messages),
            web.delete("/sandbox/messages", self._delete_messages),
            web.post("/sandbox/reset", self._post_reset),
        ]

    async def _get_projects(self, _request: web.Request) -> web.Response:
        return JsonResponse({"projects": self._engine.projects()})

    async def _get_events(self, request: web.Request) -> web.Response:
        project, wanted = request.match_info["token"], request.query.get("customer")
        entries = list(self._engine.event_entries(project, request.query.get("event_type")))
        if wanted is not None:
            keys = {view.key for view in self._engine.customers(project) if _has_key_or_id(view, wanted)}
            entries = [entry for entry in entries if self._engine.current_customer(entry) in keys]
        return _page(request, "events", entries, self._engine.event)

    async def _get_customers(self, request: web.Request) -> web.Response:
        customers, wanted = self._engine.customers(request.match_info["token"]), request.query.get("id")
        if wanted is not None:
            customers = [view for view in customers if _has_id(view, wanted)]
        return _page(request, "customers", customers, lambda view: view)

    async def _get_summary(self, _request: web.Request) -> web.Response:
        projects = {project: asdict(counts) for project, counts in self._engine.summary().items()}
        statuses = {str(status): count for status, count in self._traffic.statuses.items()}
        log = self._engine.journal.log
        counts = {"entries": len(log), "bytes": log.bytes, "forgotten": log.forgotten}
        requests = {"total": self._traffic.request_count, **statuses}
        return JsonResponse({"projects": projects, "requests": requests, "log": counts})

    async def _get_messages(self, _request: web.Request) -> web.Response:
        return JsonResponse(_without_callables(self._definitions.as_dict()))

    async def _post_messages(self, request: web.Request) -> web.Response:
        return await self._define(request, self._definitions.load)

    async def _put_messages(self, request: web.Request) -> web.Response:
        return await self._define(request, self._definitions.replace)

    async def _define(self, request: web.Request, define: Callable[[dict[str, Any]], None]) -> web.Response:
        require_json(request)
        body = await read_object(request)
        if encode_data(body) is None:
            # Definitions that can't be encoded could not be returned.
            raise RequestError(400, "The definitions are nested too deeply.")
        try:
            define(body)
        except DefinitionError as error:
            raise RequestError(400, str(error)) from None
        return await self._get_messages(request)

    async def _delete_messages(self, request: web.Request) -> web.Response:
        self._definitions.clear()
        return await self._get_messages(request)

    async def _post_reset(self, request: web.Request) -> web.Response:
        require_json(request)
        self._reset()
        return JsonResponse({"success": True})


def _without_callables(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_callables(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_callables(inner) for inner in value]
    return "(a callable)" if callable(value) else value


def _has_key_or_id(view: CustomerView, wanted: str) -> bool:
    return str(view.key) == wanted or _has_id(view, wanted)


def _has_id(view: CustomerView, wanted: str) -> bool:
    return any(wanted in values for values in view.ids.values())


def _page(request: web.Request, name: str, items: Sequence[T], show: Callable[[T], Any]) -> web.Response:
    limit = min(_count(request, "limit", DEFAULT_LIMIT), MAX_LIMIT)
    offset = _count(request, "offset", 0)
    selected = items[offset : offset + limit]
    return JsonResponse({name: [_as_dict(show(item)) for item in selected], "total": len(items)})


def _count(request: web.Request, name: str, default: int) -> int:
    try:
        count = int(request.query.get(name, default))
    except ValueError:
        count = -1
    if count < 0:
        raise RequestError(400, "limit and offset should be whole numbers of at least 0.")
    return count


def _as_dict(item: Any) -> dict[str, Any]:
    # Not recursive: attrs would copy properties of any size.
    return asdict(item, recurse=False, value_serializer=_serialize)


def _serialize(_item: Any, _field: Any, value: Any) -> Any:
    if isinstance(value, tuple):
        return [_as_dict(each) if has(type(each)) else each for each in value]
    return value
