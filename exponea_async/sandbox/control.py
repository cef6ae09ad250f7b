"""
The control routes of the sandbox: read the stored data, define messages, inject faults, reset.
"""

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

from aiohttp import web
from attrs import asdict, has

from exponea_async.sandbox.engine import Engine
from exponea_async.sandbox.errors import RequestError
from exponea_async.sandbox.faults import Fault, Faults
from exponea_async.sandbox.http import JsonResponse, read_json, read_object
from exponea_async.sandbox.messages.definitions import Definitions
from exponea_async.sandbox.messages.schemas import DefinitionError
from exponea_async.sandbox.models import CustomerView
from exponea_async.sandbox.traffic import Traffic

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000


class ControlApi:
    """The handlers of the control routes."""

    def __init__(
        self, engine: Engine, faults: Faults, definitions: Definitions, traffic: Traffic, reset: Callable[[], None]
    ) -> None:
        self._engine = engine
        self._faults = faults
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
            web.get("/sandbox/requests", self._get_requests),
            web.get("/sandbox/faults", self._get_faults),
            web.post("/sandbox/faults", self._post_faults),
            web.delete("/sandbox/faults", self._delete_faults),
            web.get("/sandbox/messages", self._get_messages),
            web.post("/sandbox/messages", self._post_messages),
            web.delete("/sandbox/messages", self._delete_messages),
            web.post("/sandbox/reset", self._post_reset),
        ]

    async def _get_projects(self, _request: web.Request) -> web.Response:
        return JsonResponse({"projects": self._engine.projects()})

    async def _get_events(self, request: web.Request) -> web.Response:
        project, wanted = request.match_info["token"], request.query.get("customer")
        events = self._engine.events(project, request.query.get("event_type"))
        if wanted is not None:
            keys = {view.key for view in self._engine.customers(project) if _has_key_or_id(view, wanted)}
            events = [event for event in events if event.customer in keys]
        return _page(request, "events", events)

    async def _get_customers(self, request: web.Request) -> web.Response:
        customers, wanted = self._engine.customers(request.match_info["token"]), request.query.get("id")
        if wanted is not None:
            customers = [view for view in customers if _has_id(view, wanted)]
        return _page(request, "customers", customers)

    async def _get_summary(self, _request: web.Request) -> web.Response:
        projects = {project: asdict(counts) for project, counts in self._engine.summary().items()}
        statuses = {str(status): count for status, count in self._traffic.statuses.items()}
        return JsonResponse({"projects": projects, "requests": {"total": self._traffic.request_count, **statuses}})

    async def _get_requests(self, request: web.Request) -> web.Response:
        return _page(request, "requests", list(reversed(self._traffic.requests)))

    async def _get_faults(self, _request: web.Request) -> web.Response:
        return JsonResponse({"faults": [asdict(fault) for fault in self._faults.active]})

    async def _post_faults(self, request: web.Request) -> web.Response:
        _require_json(request)
        self._faults.add(*_faults(await read_json(request)))
        return await self._get_faults(request)

    async def _delete_faults(self, request: web.Request) -> web.Response:
        self._faults.clear()
        return await self._get_faults(request)

    async def _get_messages(self, _request: web.Request) -> web.Response:
        return JsonResponse(_without_callables(self._definitions.as_dict()))

    async def _post_messages(self, request: web.Request) -> web.Response:
        _require_json(request)
        try:
            self._definitions.load(await read_object(request))
        except DefinitionError as error:
            raise RequestError(400, str(error)) from None
        return await self._get_messages(request)

    async def _delete_messages(self, request: web.Request) -> web.Response:
        self._definitions.clear()
        return await self._get_messages(request)

    async def _post_reset(self, request: web.Request) -> web.Response:
        _require_json(request)
        self._reset()
        return JsonResponse({"success": True})


def _require_json(request: web.Request) -> None:
    # A web page of another origin can post a form, but JSON only after a preflight, which is never granted.
    if request.content_type != "application/json":
        raise RequestError(415, "The Content-Type should be application/json.")


def _faults(body: Any) -> list[Fault]:
    try:
        return [Fault(**each) for each in (body if isinstance(body, list) else [body])]
    except (TypeError, ValueError) as error:
        raise RequestError(400, f"The fault is invalid: {error.args[0]}") from None


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


def _page(request: web.Request, name: str, items: list[Any]) -> web.Response:
    limit = min(_count(request, "limit", DEFAULT_LIMIT), MAX_LIMIT)
    offset = _count(request, "offset", 0)
    selected: Iterable[Any] = islice(items, offset, offset + limit)
    return JsonResponse({name: [_as_dict(item) for item in selected], "total": len(items)})


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
