"""
The routes of messages to customers: in-app messages, content blocks, the inbox, segments and attributes.
"""

from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web
from attrs import frozen

from exponea_async.sandbox.access import Access, AccessError
from exponea_async.sandbox.commands import id_errors
from exponea_async.sandbox.engine import Engine
from exponea_async.sandbox.http import Answer, BodyError, failure, read_object
from exponea_async.sandbox.identity import COOKIE
from exponea_async.sandbox.messages.attributes import Attributes
from exponea_async.sandbox.messages.definitions import Definitions, FixedResponse, RouteName
from exponea_async.sandbox.messages.inbox import GoneError, InboxSync, with_read_mark
from exponea_async.sandbox.messages.personalisation import CONDITION, applies, delivered
from exponea_async.sandbox.messages.sections import Entry
from exponea_async.sandbox.models import CustomerView
from exponea_async.sandbox.tracking import Handler, denial

CATEGORIES = ("content", "discovery", "merchandising")
DEVICES = ("android", "ios")
PUSH_PLATFORMS = ("android", "huawei", "ios")
PERSONAL = "personal"


@frozen
class Call:
    """
    A request that may come in.

    Attributes:
        request: The request.
        project: The token of its project.
        body: Its body; empty for a GET.
    """

    request: web.Request
    project: str
    body: dict[str, Any]

    @property
    def ids(self) -> dict[str, str]:
        """The ids of the customer that it is about."""
        ids: dict[str, str] = self.body["customer_ids"]
        return ids

    def text(self, name: str) -> str:
        """
        Tells a text of the body.

        Raises:
            BodyError: It is none.
        """
        return _text(self.body.get(name), name)

    def texts(self, name: str) -> list[str]:
        """
        Tells a list of texts of the body.

        Raises:
            BodyError: It is none.
        """
        values = self.body.get(name)
        if not isinstance(values, list):
            raise BodyError(400, f"{name} should be a list.")
        return [_text(value, f"Each of {name}") for value in values]

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        """
        Tells a text of the body that is one of a few.

        Raises:
            BodyError: It is none of them.
        """
        value = self.text(name)
        if value not in choices:
            raise BodyError(400, f"{name} should be one of {', '.join(choices)}.")
        return value

    def version(self, name: str, wanted: str) -> None:
        """
        Makes sure of the version that the URL asks for.

        Raises:
            BodyError: It is another one.
        """
        if self.request.query.get(name) != wanted:
            raise BodyError(400, f"The query should say {name}={wanted}.")


Reply = Callable[[Call], Answer]


class MessagesApi:
    """Answers the requests of SDKs for what the platform has to say to customers."""

    def __init__(self, engine: Engine, access: Access, definitions: Definitions, sync: InboxSync) -> None:
        self._engine = engine
        self._access = access
        self._definitions = definitions
        self._attributes = Attributes(definitions)
        self._sync = sync

    def routes(self) -> list[web.RouteDef]:
        """Tells all routes."""
        webxp, data = "/webxp/projects/{token}", "/data/v2/projects/{token}"
        bundle = "/wxstatic/projects/{token}/bundle-{platform:android|ios}.json"
        about = self._about_customer
        return [
            web.post("/webxp/s/{token}/inappmessages", about("inappmessages", self._in_app_messages)),
            web.get(bundle, self._open("bundle", self._bundle, jwt=True), allow_head=False),
            web.post("/webxp/s/{token}/inappcontentblocks", about("inappcontentblocks", self._blocks, jwt=True)),
            web.post(f"{webxp}/appinbox/fetch", about("appinbox/fetch", self._inbox, jwt=True)),
            web.post(f"{webxp}/appinbox/markasread", about("appinbox/markasread", self._mark_read, jwt=True)),
            web.get(f"{webxp}/segments", self._open("segments", self._segments), allow_head=False),
            web.post(f"{webxp}/cookies/{{cookie}}/link-ids", self._open("link-ids", self._link)),
            web.get(f"{data}/consent/categories", self._open("consents", self._consents), allow_head=False),
            web.post(f"{data}/customers/attributes", about("attributes", self._told_attributes)),
            web.post("/campaigns/send-self-check-notification", about("self-check", self._self_check)),
        ]

    def _about_customer(self, route: RouteName, reply: Reply, *, jwt: bool = False) -> Handler:
        def checked(call: Call) -> Answer:
            _refuse(id_errors(call.body.get("customer_ids"), required=True))
            return reply(call)

        return self._open(route, checked, jwt=jwt)

    def _open(self, route: RouteName, reply: Reply, *, jwt: bool = False) -> Handler:
        async def answer(request: web.Request) -> web.StreamResponse:
            try:
                call = await self._admit(request, jwt=jwt)
                fixed = self._definitions.take_response(route)
                return reply(call) if fixed is None else _fixed(fixed)
            except AccessError as error:
                return denial(error)
            except BodyError as error:
                return failure(error.status, error.reason)
            except GoneError:
                return failure(410, "The sync token is unknown or has expired.")

        return answer

    async def _admit(self, request: web.Request, *, jwt: bool) -> Call:
        project = request.match_info.get("token") or request.query.get("project_id", "")
        header = request.headers.get("Authorization", "")
        vouched = None
        if jwt:
            vouched = self._access.check_customer(project, header, self._engine.now())
        else:
            self._access.check(project, header)
        body = await read_object(request) if request.method == "POST" else {}
        if vouched is not None and request.method == "POST":
            _refuse(id_errors(body.get("customer_ids"), required=True))
            _compare(vouched, body["customer_ids"])
        return Call(request, project, body)

    def _in_app_messages(self, call: Call) -> Answer:
        call.version("compatibility", "3")
        call.choice("device", DEVICES)
        customer = self._engine.recognize(call.project, call.ids)
        return _success(results=self._definitions.in_app_messages.delivered(call.project, customer))

    def _bundle(self, call: Call) -> Answer:
        call.version("v", "2")
        section = self._definitions.content_blocks
        return _success(in_app_content_blocks=[_static(each) for each in section.elements(call.project)])

    def _blocks(self, call: Call) -> Answer:
        call.version("v", "2")
        wanted = call.texts("content_block_ids")
        customer = self._engine.recognize(call.project, call.ids)
        entries = self._definitions.content_blocks.of(call.project)
        told = [each for id_ in wanted for each in _personal(id_, entries, customer)]
        return _success(data=told)

    def _inbox(self, call: Call) -> Answer:
        call.text("application_id")
        token = call.text("sync_token") if "sync_token" in call.body else None
        messages = self._delivered_inbox(call)
        news = self._sync.news(messages, token, call.project, call.ids)
        if not self._sync.issues_tokens:
            return _success(messages=news)
        return _success(messages=news, sync_token=self._sync.remember(messages, call.project, call.ids))

    def _mark_read(self, call: Call) -> Answer:
        wanted, token = call.texts("message_ids"), call.text("sync_token")
        self._sync.recall(token, call.project, call.ids)
        known = [message.get("id") for message in self._delivered_inbox(call) if isinstance(message, dict)]
        _refuse([f"The message {id_!r} does not exist." for id_ in wanted if id_ not in known])
        self._engine.mark_read(call.project, call.ids, wanted)
        return _success()

    def _delivered_inbox(self, call: Call) -> list[Any]:
        customer = self._engine.recognize(call.project, call.ids)
        if not self._sync.opens(customer):
            return []
        messages = self._definitions.inbox.delivered(call.project, customer)
        return [with_read_mark(message, customer) for message in messages]

    def _segments(self, call: Call) -> Answer:
        cookie = _text(call.request.query.get(COOKIE), COOKIE)
        customer = self._engine.recognize(call.project, {COOKIE: cookie})
        segments = self._definitions.segments
        names = dict.fromkeys([*CATEGORIES, *segments.names(call.project)])
        if not customer.key:
            return Answer({name: [] for name in names})
        return Answer({name: segments.delivered(name, call.project, customer) for name in names})

    def _link(self, call: Call) -> Answer:
        external = call.body.get("external_ids")
        if not isinstance(external, dict) or not external:
            raise BodyError(400, "external_ids should be an object of at least one id.")
        _refuse(id_errors(external, required=True))
        if COOKIE in external:
            raise BodyError(400, "external_ids should be without the cookie.")
        _refuse(self._engine.link(call.project, {COOKIE: call.request.match_info["cookie"], **external}))
        # No envelope, as with segments: any 2xx is success.
        return Answer({})

    def _consents(self, call: Call) -> Answer:
        return _success(results=self._definitions.consents.elements(call.project))

    def _told_attributes(self, call: Call) -> Answer:
        asked = call.body.get("attributes")
        if not isinstance(asked, list) or not asked:
            raise BodyError(400, "attributes should be a list of at least one attribute.")
        customer = self._engine.recognize(call.project, call.ids)
        return _success(results=[self._attributes.value(call.project, customer, each) for each in asked])

    def _self_check(self, call: Call) -> Answer:
        if not call.project:
            raise BodyError(400, "The query should name the project_id.")
        call.choice("platform", PUSH_PLATFORMS)
        call.text("push_notification_id")
        return _success()


def _success(**payload: Any) -> Answer:
    return Answer({"success": True, **payload})


def _fixed(response: FixedResponse) -> web.Response:
    return web.Response(body=response.body, status=response.status, headers={"Content-Type": response.content_type})


def _refuse(errors: list[str] | tuple[str, ...]) -> None:
    if errors:
        raise BodyError(400, " ".join(errors))


def _text(value: Any, name: str) -> str:
    if not value or not isinstance(value, str):
        raise BodyError(400, f"{name} should be a non-empty string.")
    return value


def _compare(vouched: Mapping[str, str], ids: Mapping[str, str]) -> None:
    # Every hard id has to be vouched for; the cookie alone may come along, for a hard id wins over it.
    others = [kind for kind, value in ids.items() if kind != COOKIE and vouched.get(kind) != value]
    missing = [kind for kind, value in vouched.items() if ids.get(kind) != value]
    if others or missing:
        raise AccessError(403, "The token belongs to another customer.")


def _static(element: Any) -> Any:
    if not isinstance(element, Mapping):
        return element
    return {name: value for name, value in element.items() if name not in (PERSONAL, CONDITION)}


def _personal(id_: str, entries: list[Entry], customer: CustomerView) -> list[Any]:
    """Makes the answer for one content block."""
    candidates = [entry.element for entry in entries if entry.id == id_]
    if not candidates:
        return [{"id": id_, "status": "does_not_exist"}]
    parts = [part for each in candidates if applies(each.get(CONDITION), customer) for part in _parts(each)]
    for part in parts:
        if made := delivered(part, customer):
            return [_named(id_, each) for each in made]
    return [{"id": id_, "status": "filter_not_matched"}]


def _parts(element: Mapping[str, Any]) -> list[Any]:
    parts = element.get(PERSONAL)
    if parts is None:
        # Whoever asks for a static block gets what the bundle says.
        parts = {"content_type": element.get("content_type"), "content": element.get("content")}
    return parts if isinstance(parts, list) else [parts]


def _named(id_: str, part: Any) -> Any:
    return {"id": id_, "status": "OK", **part} if isinstance(part, dict) else part
