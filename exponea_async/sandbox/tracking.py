"""
The routes of the tracking API.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from exponea_async.sandbox.access import Access, AccessError
from exponea_async.sandbox.engine import INJECTED, Engine
from exponea_async.sandbox.faults import Faults
from exponea_async.sandbox.http import Answer, BodyError, failure, read_object

MAX_COMMANDS = 50
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class TrackingApi:
    """Answers the requests of SDKs."""

    def __init__(self, engine: Engine, access: Access, faults: Faults) -> None:
        self._engine = engine
        self._faults = faults
        self._access = access

    def routes(self) -> list[web.RouteDef]:
        """Tells all routes."""
        project = "/track/v2/projects/{token}"
        singles = ("customers", "customers/events", "campaigns/clicks")
        return [
            *(web.post(f"{project}/{name}", self._single(name)) for name in singles),
            web.post(f"{project}/batch", self._batch),
            web.get(f"{project}/system/time", self._time, allow_head=False),
        ]

    def _single(self, name: str) -> Handler:
        async def answer(request: web.Request) -> web.StreamResponse:
            try:
                project = self._admit(request)
                data = await read_object(request)
            except AccessError as error:
                return denial(error)
            except BodyError as error:
                return failure(error.status, error.reason)
            refused = self._faults.refuser(request.path, project)()
            errors = self._execute(project, name, data, refused=refused)
            if errors:
                return failure(400, *errors, commands=1)
            return Answer({"success": True, "errors": []}, commands=1)

        return answer

    async def _batch(self, request: web.Request) -> web.StreamResponse:
        try:
            project = self._admit(request)
            commands = _commands(await read_object(request))
        except AccessError as error:
            return denial(error)
        except BodyError as error:
            return Answer({"success": False, "message": error.reason}, error.status)
        start = self._engine.now()
        results = self._engine.execute_batch(project, commands, self._faults.refuser(request.path, project))
        end = self._engine.now()
        payload = {"success": True, "start_time": start, "end_time": end, "results": results}
        return Answer(payload, commands=len(commands))

    async def _time(self, request: web.Request) -> web.StreamResponse:
        try:
            self._admit(request)
        except AccessError as error:
            return denial(error)
        return Answer({"success": True, "time": self._engine.now()})

    def _admit(self, request: web.Request) -> str:
        project = request.match_info["token"]
        self._access.check(project, request.headers.get("Authorization", ""))
        return project

    def _execute(self, project: str, name: str, data: object, *, refused: bool) -> tuple[str, ...]:
        if not refused:
            return self._engine.execute(project, name, data)
        self._engine.reject(project, name, data, INJECTED)
        return INJECTED


def _commands(body: dict[str, Any]) -> list[object]:
    commands = body.get("commands")
    if not isinstance(commands, list) or not commands:
        raise BodyError(400, "commands should be a list of at least one command.")
    if len(commands) > MAX_COMMANDS:
        raise BodyError(400, f"A batch should have at most {MAX_COMMANDS} commands.")
    return commands


def denial(error: AccessError) -> Answer:
    """Makes the answer to a request that may not come in."""
    if error.status == 404:
        return failure(404, error.reason)
    return Answer({"errors": {"_global": [error.reason]}}, error.status)
