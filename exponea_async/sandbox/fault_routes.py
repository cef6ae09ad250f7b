"""
The control routes of faults.
"""

from typing import Any

from aiohttp import web
from attrs import asdict, fields

from exponea_async.sandbox.errors import RequestError
from exponea_async.sandbox.faults import ActiveFault, Fault, Faults
from exponea_async.sandbox.http import JsonResponse, read_json, require_json
from exponea_async.sandbox.queries import parse_number

#: What each kind does, and the fields that belong to it.
KINDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "latency": ("The request is delayed by `seconds`.", ("seconds",)),
    "status": ("The response has `status`; the request is not processed.", ("status", "retry_after", "body")),
    "drop": ("The connection is closed without a response; the request is not processed.", ()),
    "drop_after": ("The connection is closed without a response; the request is processed.", ()),
    "timeout": ("The connection is closed after `seconds`; the request is not processed.", ("seconds",)),
    "reject": ("Every `every_command`-th command fails.", ("every_command",)),
}
#: The fields that select the requests, for every kind.
SELECTION = ("times", "every", "probability", "after", "path", "paths", "project")
FIELDS: dict[str, dict[str, Any]] = {
    "status": {"type": "integer", "minimum": 200, "maximum": 599, "description": "the HTTP status"},
    "retry_after": {"type": "number", "minimum": 0, "description": "the header Retry-After, in seconds"},
    "seconds": {"type": "number", "minimum": 0, "description": "the duration, in seconds"},
    "body": {"type": "string", "description": "the body of the response; an error of the platform if empty"},
    "every_command": {"type": "integer", "minimum": 1, "description": "rejects every n-th command"},
    "times": {"type": "integer", "minimum": 0, "description": "the number of requests that are affected"},
    "every": {"type": "integer", "minimum": 1, "description": "affects every n-th request"},
    "probability": {"type": "number", "minimum": 0, "maximum": 1, "description": "the share of requests"},
    "after": {"type": "integer", "minimum": 0, "description": "the number of requests that pass first"},
    "path": {"type": "string", "description": "the end of the path of the requests"},
    "paths": {"type": "string", "description": "a regular expression that is found in the path"},
    "project": {"type": "string", "description": "the token of the project"},
}


class FaultApi:
    """The handlers of the control routes of faults."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    def routes(self) -> list[web.RouteDef]:
        """Return all routes."""
        return [
            web.get("/sandbox/faults", self._get, allow_head=False),
            web.post("/sandbox/faults", self._post),
            web.delete("/sandbox/faults", self._delete_all),
            web.delete("/sandbox/faults/{index}", self._delete),
        ]

    async def _get(self, _request: web.Request) -> web.Response:
        return JsonResponse({"faults": self._active(), "schema": schema()})

    async def _post(self, request: web.Request) -> web.Response:
        require_json(request)
        self._faults.add(*_faults(await read_json(request)))
        return JsonResponse({"faults": self._active()})

    async def _delete_all(self, _request: web.Request) -> web.Response:
        self._faults.clear()
        return JsonResponse({"faults": self._active()})

    async def _delete(self, request: web.Request) -> web.Response:
        index = parse_number(request.match_info["index"])
        if index is None or not self._faults.remove(index):
            raise RequestError(404, "The fault does not exist; it was removed, or has never existed.")
        return JsonResponse({"faults": self._active()})

    def _active(self) -> list[dict[str, Any]]:
        return [_as_dict(each) for each in self._faults.counted]


def schema() -> dict[str, Any]:
    """Return the kinds of faults and their fields with types, limits and defaults, for a form."""
    defaults = {each.name: each.default for each in fields(Fault)}
    return {
        "kinds": {
            kind: {"description": description, "fields": [*names, *SELECTION]}
            for kind, (description, names) in KINDS.items()
        },
        "fields": {name: {**limits, "default": defaults[name]} for name, limits in FIELDS.items()},
        "selection": SELECTION,
    }


def _as_dict(active: ActiveFault) -> dict[str, Any]:
    counters = {"index": active.index, "fired": active.fired, "requests": active.requests}
    return {**asdict(active.remaining()), **counters}


def _faults(body: Any) -> list[Fault]:
    try:
        return [Fault(**each) for each in (body if isinstance(body, list) else [body])]
    except (TypeError, ValueError) as error:
        raise RequestError(400, f"The fault is invalid: {error.args[0]}") from None
