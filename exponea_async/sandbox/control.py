"""
The sandbox's own routes: look into the books, define messages, order faults, start afresh.
"""

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

from aiohttp import web
from attrs import asdict, has

from exponea_async.sandbox.engine import Engine
from exponea_async.sandbox.faults import Fault, Faults
from exponea_async.sandbox.http import Answer, BodyError, failure, read_json, read_object
from exponea_async.sandbox.messages.definitions import Definitions
from exponea_async.sandbox.messages.schemas import DefinitionError
from exponea_async.sandbox.models import CustomerView
from exponea_async.sandbox.traffic import Traffic

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000


class ControlApi:
    """Answers the requests of the sandbox's user."""

    def __init__(
        self, engine: Engine, faults: Faults, definitions: Definitions, traffic: Traffic, reset: Callable[[], None]
    ) -> None:
        self._engine = engine
        self._faults = faults
        self._definitions = definitions
        self._traffic = traffic
        self._reset = reset

    def routes(self) -> list[web.RouteDef]:
        """Tells all routes."""
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
        return Answer({"projects": self._engine.projects()})

    async def _get_events(self, request: web.Request) -> web.Response:
        project, wanted = request.match_info["token"], request.query.get("customer")
        events = self._engine.events(project, request.query.get("event_type"))
        if wanted is not None:
            keys = {view.key for view in self._engine.customers(project) if _is_called(view, wanted)}
            events = [event for event in events if event.customer in keys]
        return _page(request, "events", events)

    async def _get_customers(self, request: web.Request) -> web.Response:
        customers, wanted = self._engine.customers(request.match_info["token"]), request.query.get("id")
        if wanted is not None:
            customers = [view for view in customers if _has_id(view, wanted)]
        return _page(request, "customers", customers)

    async def _get_summary(self, _request: web.Request) -> web.Response:
        projects = {project: asdict(counts) for project, counts in self._engine.summary().items()}
        statuses = {str(status): times for status, times in self._traffic.statuses.items()}
        return Answer({"projects": projects, "requests": {"total": self._traffic.request_count, **statuses}})

    async def _get_requests(self, request: web.Request) -> web.Response:
        return _page(request, "requests", list(reversed(self._traffic.requests)))

    async def _get_faults(self, _request: web.Request) -> web.Response:
        return Answer({"faults": [asdict(fault) for fault in self._faults.active]})

    async def _post_faults(self, request: web.Request) -> web.Response:
        if (refusal := _foreign(request)) is not None:
            return refusal
        try:
            self._faults.add(*_faults(await read_json(request)))
        except BodyError as error:
            return failure(error.status, error.reason)
        return await self._get_faults(request)

    async def _delete_faults(self, request: web.Request) -> web.Response:
        self._faults.clear()
        return await self._get_faults(request)

    async def _get_messages(self, _request: web.Request) -> web.Response:
        return Answer(_shown(self._definitions.told()))

    async def _post_messages(self, request: web.Request) -> web.Response:
        if (refusal := _foreign(request)) is not None:
            return refusal
        try:
            self._definitions.load(await read_object(request))
        except BodyError as error:
            return failure(error.status, error.reason)
        except DefinitionError as error:
            return failure(400, str(error))
        return await self._get_messages(request)

    async def _delete_messages(self, request: web.Request) -> web.Response:
        self._definitions.clear()
        return await self._get_messages(request)

    async def _post_reset(self, request: web.Request) -> web.Response:
        if (refusal := _foreign(request)) is not None:
            return refusal
        self._reset()
        return Answer({"success": True})


def _foreign(request: web.Request) -> web.Response | None:
    # A foreign page can post a form here, but JSON only after a preflight, which is never granted.
    if request.content_type == "application/json":
        return None
    return failure(415, "The Content-Type should be application/json.")


def _faults(body: Any) -> list[Fault]:
    try:
        return [Fault(**each) for each in (body if isinstance(body, list) else [body])]
    except (TypeError, ValueError) as error:
        raise BodyError(400, f"That is no fault: {error.args[0]}") from None


def _shown(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _shown(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_shown(inner) for inner in value]
    return "(a callable)" if callable(value) else value


def _is_called(view: CustomerView, wanted: str) -> bool:
    return str(view.key) == wanted or _has_id(view, wanted)


def _has_id(view: CustomerView, wanted: str) -> bool:
    return any(wanted in values for values in view.ids.values())


def _page(request: web.Request, name: str, items: list[Any]) -> web.Response:
    try:
        limit = min(_whole(request, "limit", DEFAULT_LIMIT), MAX_LIMIT)
        offset = _whole(request, "offset", 0)
    except ValueError:
        return failure(400, "limit and offset should be whole numbers of at least 0.")
    chosen: Iterable[Any] = islice(items, offset, offset + limit)
    return Answer({name: [_told(item) for item in chosen], "total": len(items)})


def _told(item: Any) -> dict[str, Any]:
    # Not recursive, for attrs would copy properties of any size.
    return asdict(item, recurse=False, value_serializer=_plain)


def _plain(_item: Any, _field: Any, value: Any) -> Any:
    if isinstance(value, tuple):
        return [_told(each) if has(type(each)) else each for each in value]
    return value


def _whole(request: web.Request, name: str, default: int) -> int:
    number = int(request.query.get(name, default))
    if number < 0:
        raise ValueError(name)
    return number
