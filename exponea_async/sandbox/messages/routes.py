"""
The routes of messages to customers: in-app messages, content blocks, the inbox, segments and attributes.
"""

from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web
from attrs import frozen

from exponea_async.sandbox.access import AccessControl
from exponea_async.sandbox.commands import id_errors, trimmed_ids
from exponea_async.sandbox.engine import Engine
from exponea_async.sandbox.errors import AccessError, RequestError
from exponea_async.sandbox.http import Handler, JsonResponse, read_object, request_number
from exponea_async.sandbox.identity import COOKIE
from exponea_async.sandbox.messages.attributes import Attributes
from exponea_async.sandbox.messages.definitions import Definitions, FixedResponse, RouteName
from exponea_async.sandbox.messages.inbox import InboxSync, with_read_state
from exponea_async.sandbox.messages.personalisation import CONDITION, is_met, personalise
from exponea_async.sandbox.messages.sections import Entry
from exponea_async.sandbox.models import CustomerView

CATEGORIES = ("content", "discovery", "merchandising")
DEVICES = ("android", "ios")
PUSH_PLATFORMS = ("android", "huawei", "ios")
PERSONAL = "personal"


@frozen
class ApiRequest:
    """
    An authorized request.

    Attributes:
        http: The HTTP request.
        project: The token of the project.
        body: The body; empty for a GET.
    """

    http: web.Request
    project: str
    body: dict[str, Any]

    @property
    def ids(self) -> dict[str, str]:
        """The ids of the customer that the request is about."""
        return trimmed_ids(self.body["customer_ids"])

    def string(self, name: str) -> str:
        """
        Return a string of the body.

        Raises:
            RequestError: The field is not a non-empty string.
        """
        return _non_empty_string(self.body.get(name), name)

    def strings(self, name: str) -> list[str]:
        """
        Return a list of strings of the body.

        Raises:
            RequestError: The field is not a list of non-empty strings.
        """
        values = self.body.get(name)
        if not isinstance(values, list):
            raise RequestError(400, f"{name} should be a list.")
        return [_non_empty_string(value, f"Each of {name}") for value in values]

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        """
        Return a string of the body that is one of a few.

        Raises:
            RequestError: The field is not one of them.
        """
        value = self.string(name)
        if value not in choices:
            raise RequestError(400, f"{name} should be one of {', '.join(choices)}.")
        return value

    def require_version(self, name: str, version: str) -> None:
        """
        Check the version in the query.

        Raises:
            RequestError: It is missing or another one.
        """
        if self.http.query.get(name) != version:
            raise RequestError(400, f"The query should contain {name}={version}.")


Endpoint = Callable[[ApiRequest], JsonResponse]


class MessagesApi:
    """The handlers of the routes that return messages to customers."""

    def __init__(self, engine: Engine, access: AccessControl, definitions: Definitions, sync: InboxSync) -> None:
        self._engine = engine
        self._access = access
        self._definitions = definitions
        self._attributes = Attributes(definitions)
        self._sync = sync

    def routes(self) -> list[web.RouteDef]:
        """Return all routes."""
        webxp, data = "/webxp/projects/{token}", "/data/v2/projects/{token}"
        bundle = "/wxstatic/projects/{token}/bundle-{platform:android|ios}.json"
        customer, handler = self._customer_handler, self._handler
        return [
            web.post("/webxp/s/{token}/inappmessages", customer("inappmessages", self._in_app_messages)),
            web.get(bundle, handler("bundle", self._bundle, jwt=True), allow_head=False),
            web.post("/webxp/s/{token}/inappcontentblocks", customer("inappcontentblocks", self._blocks, jwt=True)),
            web.post(f"{webxp}/appinbox/fetch", customer("appinbox/fetch", self._inbox, jwt=True)),
            web.post(f"{webxp}/appinbox/markasread", customer("appinbox/markasread", self._mark_read, jwt=True)),
            web.get(f"{webxp}/segments", handler("segments", self._segments), allow_head=False),
            web.post(f"{webxp}/cookies/{{cookie}}/link-ids", handler("link-ids", self._link)),
            web.get(f"{data}/consent/categories", handler("consents", self._consents), allow_head=False),
            web.post(f"{data}/customers/attributes", customer("attributes", self._customer_attributes)),
            web.post("/campaigns/send-self-check-notification", customer("self-check", self._self_check)),
        ]

    def _customer_handler(self, route: RouteName, endpoint: Endpoint, *, jwt: bool = False) -> Handler:
        def checked(request: ApiRequest) -> JsonResponse:
            _raise_for(id_errors(request.body.get("customer_ids"), required=True))
            return endpoint(request)

        return self._handler(route, checked, jwt=jwt)

    def _handler(self, route: RouteName, endpoint: Endpoint, *, jwt: bool = False) -> Handler:
        async def handle(http: web.Request) -> web.StreamResponse:
            request = await self._authorize(http, jwt=jwt)
            fixed = self._definitions.take_response(route)
            return endpoint(request) if fixed is None else _fixed_response(fixed)

        return handle

    async def _authorize(self, http: web.Request, *, jwt: bool) -> ApiRequest:
        project = http.match_info.get("token") or http.query.get("project_id", "")
        header = http.headers.get("Authorization", "")
        verified_ids = None
        if jwt:
            verified_ids = self._access.check_customer(project, header, self._engine.now())
        else:
            self._access.check(project, header)
        body = await read_object(http) if http.method == "POST" else {}
        if verified_ids is not None and http.method == "POST":
            _raise_for(id_errors(body.get("customer_ids"), required=True))
            _check_ids(verified_ids, trimmed_ids(body["customer_ids"]))
        return ApiRequest(http, project, body)

    def _in_app_messages(self, request: ApiRequest) -> JsonResponse:
        request.require_version("compatibility", "3")
        request.choice("device", DEVICES)
        customer = self._engine.resolve(request.project, request.ids)
        return _success(results=self._definitions.in_app_messages.for_customer(request.project, customer))

    def _bundle(self, request: ApiRequest) -> JsonResponse:
        request.require_version("v", "2")
        section = self._definitions.content_blocks
        return _success(in_app_content_blocks=[_static_block(each) for each in section.elements(request.project)])

    def _blocks(self, request: ApiRequest) -> JsonResponse:
        request.require_version("v", "2")
        block_ids = request.strings("content_block_ids")
        customer = self._engine.resolve(request.project, request.ids)
        entries = self._definitions.content_blocks.entries(request.project)
        return _success(data=[each for id_ in block_ids for each in _personal_block(id_, entries, customer)])

    def _inbox(self, request: ApiRequest) -> JsonResponse:
        request.string("application_id")
        token = request.string("sync_token") if "sync_token" in request.body else None
        messages = self._inbox_messages(request)
        changed = self._sync.changed(messages, token, request.project, request.ids)
        if not self._sync.issues_tokens:
            return _success(messages=changed)
        return _success(messages=changed, sync_token=self._sync.create_token(messages, request.project, request.ids))

    def _mark_read(self, request: ApiRequest) -> JsonResponse:
        message_ids, token = request.strings("message_ids"), request.string("sync_token")
        self._sync.snapshot(token, request.project, request.ids)
        known = [message.get("id") for message in self._inbox_messages(request) if isinstance(message, dict)]
        _raise_for([f"The message {id_!r} does not exist." for id_ in message_ids if id_ not in known])
        self._engine.mark_read(request.project, request.ids, message_ids, request=request_number(request.http))
        return _success()

    def _inbox_messages(self, request: ApiRequest) -> list[Any]:
        customer = self._engine.resolve(request.project, request.ids)
        if not self._sync.has_inbox(customer):
            return []
        messages = self._definitions.inbox.for_customer(request.project, customer)
        return [with_read_state(message, customer) for message in messages]

    def _segments(self, request: ApiRequest) -> JsonResponse:
        cookie = _non_empty_string(request.http.query.get(COOKIE), COOKIE)
        customer = self._engine.resolve(request.project, {COOKIE: cookie})
        segments = self._definitions.segments
        names = dict.fromkeys([*CATEGORIES, *segments.names(request.project)])
        if not customer.key:
            return JsonResponse({name: [] for name in names})
        return JsonResponse({name: segments.for_customer(name, request.project, customer) for name in names})

    def _link(self, request: ApiRequest) -> JsonResponse:
        external_ids = request.body.get("external_ids")
        if not isinstance(external_ids, dict) or not external_ids:
            raise RequestError(400, "external_ids should be an object of at least one id.")
        _raise_for(id_errors(external_ids, required=True))
        if COOKIE in external_ids:
            raise RequestError(400, "external_ids should be without the cookie.")
        cookie = request.http.match_info["cookie"]
        ids = {COOKIE: cookie, **trimmed_ids(external_ids)}
        _raise_for(self._engine.link(request.project, ids, request=request_number(request.http)))
        # As for segments there is no "success" field: any 2xx is a success.
        return JsonResponse({})

    def _consents(self, request: ApiRequest) -> JsonResponse:
        return _success(results=self._definitions.consents.elements(request.project))

    def _customer_attributes(self, request: ApiRequest) -> JsonResponse:
        queries = request.body.get("attributes")
        if not isinstance(queries, list) or not queries:
            raise RequestError(400, "attributes should be a list of at least one attribute.")
        customer = self._engine.resolve(request.project, request.ids)
        return _success(results=[self._attributes.result(request.project, customer, each) for each in queries])

    def _self_check(self, request: ApiRequest) -> JsonResponse:
        if not request.project:
            raise RequestError(400, "The query should contain the project_id.")
        request.choice("platform", PUSH_PLATFORMS)
        request.string("push_notification_id")
        return _success()


def _success(**payload: Any) -> JsonResponse:
    return JsonResponse({"success": True, **payload})


def _fixed_response(fixed: FixedResponse) -> web.Response:
    return web.Response(body=fixed.body, status=fixed.status, headers={"Content-Type": fixed.content_type})


def _raise_for(errors: list[str] | tuple[str, ...]) -> None:
    if errors:
        raise RequestError(400, " ".join(errors))


def _non_empty_string(value: Any, name: str) -> str:
    if not value or not isinstance(value, str):
        raise RequestError(400, f"{name} should be a non-empty string.")
    return value


def _check_ids(verified_ids: Mapping[str, str], ids: Mapping[str, str]) -> None:
    # The token has to contain every hard id; the cookie may be missing in it, since a hard id has precedence.
    unverified = [kind for kind, value in ids.items() if kind != COOKIE and verified_ids.get(kind) != value]
    missing = [kind for kind, value in verified_ids.items() if ids.get(kind) != value]
    if unverified or missing:
        raise AccessError(403, "The token belongs to another customer.")


def _static_block(element: Any) -> Any:
    if not isinstance(element, Mapping):
        return element
    return {name: value for name, value in element.items() if name not in (PERSONAL, CONDITION)}


def _personal_block(id_: str, entries: list[Entry], customer: CustomerView) -> list[Any]:
    """Return the results for one content block; a callable may return several."""
    candidates = [entry.element for entry in entries if entry.id == id_]
    if not candidates:
        return [{"id": id_, "status": "does_not_exist"}]
    parts = [part for each in candidates if is_met(each.get(CONDITION), customer) for part in _personal_parts(each)]
    for part in parts:
        if personalised := personalise(part, customer):
            return [_with_id(id_, each) for each in personalised]
    return [{"id": id_, "status": "filter_not_matched"}]


def _personal_parts(element: Mapping[str, Any]) -> list[Any]:
    parts = element.get(PERSONAL)
    if parts is None:
        # For a static block the result is the content in the bundle.
        parts = {"content_type": element.get("content_type"), "content": element.get("content")}
    return parts if isinstance(parts, list) else [parts]


def _with_id(id_: str, part: Any) -> Any:
    return {"id": id_, "status": "OK", **part} if isinstance(part, dict) else part
