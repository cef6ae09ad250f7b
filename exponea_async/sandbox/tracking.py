"""
The routes of the tracking API.
"""

from typing import Any

from aiohttp import web

from exponea_async.sandbox.access import AccessControl
from exponea_async.sandbox.engine import INJECTED_ERRORS, Engine
from exponea_async.sandbox.errors import RequestError
from exponea_async.sandbox.faults import Faults
from exponea_async.sandbox.http import Handler, JsonResponse, failure, read_object, request_number

MAX_COMMANDS = 50


class TrackingApi:
    """The handlers of the tracking API."""

    def __init__(self, engine: Engine, access: AccessControl, faults: Faults) -> None:
        self._engine = engine
        self._access = access
        self._faults = faults

    def routes(self) -> list[web.RouteDef]:
        """Return all routes."""
        project = "/track/v2/projects/{token}"
        commands = ("customers", "customers/events", "campaigns/clicks")
        return [
            *(web.post(f"{project}/{name}", self._command(name)) for name in commands),
            web.post(f"{project}/batch", self._batch),
            web.get(f"{project}/system/time", self._time, allow_head=False),
        ]

    def _command(self, name: str) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            project = self._authorize(request)
            data = await read_object(request)
            rejected = self._faults.command_rejecter(request.path, project)()
            errors = self._execute(project, name, data, request_number(request), rejected=rejected)
            if errors:
                return failure(400, *errors, commands=1)
            return JsonResponse({"success": True, "errors": []}, commands=1)

        return handle

    async def _batch(self, request: web.Request) -> web.StreamResponse:
        project = self._authorize(request)
        try:
            commands = _commands(await read_object(request))
        except RequestError as error:
            # The platform reports a batch that fails as a whole in a format of its own.
            return JsonResponse({"success": False, "message": error.reason}, error.status)
        start = self._engine.now()
        is_rejected = self._faults.command_rejecter(request.path, project)
        results = self._engine.execute_batch(project, commands, is_rejected, request=request_number(request))
        end = self._engine.now()
        payload = {"success": True, "start_time": start, "end_time": end, "results": results}
        return JsonResponse(payload, commands=len(commands))

    async def _time(self, request: web.Request) -> web.StreamResponse:
        self._authorize(request)
        return JsonResponse({"success": True, "time": self._engine.now()})

    def _authorize(self, request: web.Request) -> str:
        project = request.match_info["token"]
        self._access.check(project, request.headers.get("Authorization", ""))
        return project

    def _execute(
        self, project: str, name: str, data: object, request: int | None, *, rejected: bool
    ) -> tuple[str, ...]:
        if not rejected:
            return self._engine.execute(project, name, data, request=request)
        self._engine.reject(project, name, data, INJECTED_ERRORS, request=request)
        return INJECTED_ERRORS


def _commands(body: dict[str, Any]) -> list[object]:
    commands = body.get("commands")
    if not isinstance(commands, list) or not commands:
        raise RequestError(400, "commands should be a list of at least one command.")
    if len(commands) > MAX_COMMANDS:
        raise RequestError(400, f"A batch should have at most {MAX_COMMANDS} commands.")
    return commands
