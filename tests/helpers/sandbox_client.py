"""
A client that sends requests to a sandbox as an SDK does, and definitions of messages for the sandbox to return.
"""

import json
from collections.abc import Mapping
from typing import Any

import aiohttp
from attrs import frozen

JANE = {"cookie": "c1", "registered": "jane@x.com"}
BOB = {"cookie": "c2", "registered": "bob@x.com"}
MESSAGE = {
    "id": "m1",
    "name": "Hello",
    "message_type": "modal",
    "frequency": "always",
    "payload": {"title": "Hello {{ first_name }}"},
    "variant_id": 0,
    "variant_name": "A",
    "trigger": {"event_type": "session_start", "filter": []},
    "date_filter": {"enabled": False, "from_date": None, "to_date": None},
}
STATIC = {
    "id": "static",
    "name": "For every customer",
    "placeholders": ["top"],
    "content_type": "html",
    "content": {"html": "<p>hi</p>"},
}
PERSONAL = {
    "id": "personal",
    "name": "For you",
    "placeholders": ["top"],
    "personal": {
        "ttl_seconds": 120,
        "has_tracking_consent": True,
        "variant_id": 1,
        "variant_name": "B",
        "content_type": "html",
        "content": {"html": "<b>{{ first_name }}</b>"},
    },
}
ITEM = {"id": "i1", "type": "push", "create_time": 5.0, "content": {"title": "Hi {{first_name}}"}}
SEGMENT = {"id": "s1", "segmentation_id": "g1"}
CONSENT = {
    "id": "newsletter",
    "legitimate_interest": False,
    "sources": {"crm": True, "page": False},
    "translations": {"": {"name": "Newsletter", "description": None}},
}
PRODUCT = {"item_id": "sku-1", "engine_name": "pop", "recommendation_id": "r1", "title": "Mug", "price": 9.9}


@frozen
class Response:
    """
    An HTTP response that was read to its end.

    Attributes:
        status: The HTTP status.
        raw: The body.
        headers: The headers.
    """

    status: int
    raw: bytes
    headers: Mapping[str, str]

    @property
    def body(self) -> Any:
        """The decoded JSON of the body."""
        return json.loads(self.raw)


@frozen
class SandboxClient:
    """
    A client of one project.

    Attributes:
        session: The HTTP session.
        url: The base URL of the sandbox.
        authorization: The ``Authorization`` header.
        project: The token of the project.
    """

    session: aiohttp.ClientSession
    url: str
    authorization: str = "Token key"
    project: str = "shop"

    async def request(self, method: str, path: str, body: Any = None, **options: Any) -> Response:
        """
        Send a request to any route.

        Args:
            method: The HTTP method.
            path: The path and the query.
            body: The JSON body; none where None.
            options: Further options of `aiohttp.ClientSession.request`, such as ``data``.
        """
        headers = {"Authorization": self.authorization, **options.pop("headers", {})}
        if body is not None:
            options["json"] = body
        async with self.session.request(method, self.url + path, headers=headers, **options) as response:
            return Response(response.status, await response.read(), response.headers)

    async def track(self, path: str, body: Any = None, method: str = "POST", **options: Any) -> Response:
        """Send a request to a tracking route of the project; arguments as `request`."""
        return await self.request(method, f"/track/v2/projects/{self.project}{path}", body, **options)

    async def in_app(self, ids: Any, **fields: Any) -> Response:
        """Request the in-app messages."""
        body = {"customer_ids": ids, "device": "android", **fields}
        return await self.request("POST", f"/webxp/s/{self.project}/inappmessages?compatibility=3", body)

    async def bundle(self, platform: str = "android") -> Response:
        """Request all static content blocks."""
        return await self.request("GET", f"/wxstatic/projects/{self.project}/bundle-{platform}.json?v=2")

    async def blocks(self, ids: Any, *wanted: Any) -> Response:
        """Request personalised content blocks."""
        body = {"customer_ids": ids, "content_block_ids": list(wanted)}
        return await self.request("POST", f"/webxp/s/{self.project}/inappcontentblocks?v=2", body)

    async def inbox(self, ids: Any, token: str | None = None) -> Response:
        """Request the messages of the inbox, or what is new since a sync token."""
        body = {"customer_ids": ids, "application_id": "default-application"}
        if token is not None:
            body["sync_token"] = token
        return await self.request("POST", f"/webxp/projects/{self.project}/appinbox/fetch", body)

    async def mark_read(self, ids: Any, token: Any, *wanted: Any) -> Response:
        """Mark messages of the inbox as read."""
        body = {"customer_ids": ids, "message_ids": list(wanted), "sync_token": token}
        return await self.request("POST", f"/webxp/projects/{self.project}/appinbox/markasread", body)

    async def segments(self, query: str = "?cookie=c1") -> Response:
        """Request the segments."""
        return await self.request("GET", f"/webxp/projects/{self.project}/segments{query}")

    async def link(self, cookie: str, external_ids: Any) -> Response:
        """Link external ids to a cookie."""
        path = f"/webxp/projects/{self.project}/cookies/{cookie}/link-ids"
        return await self.request("POST", path, {"external_ids": external_ids})

    async def consents(self) -> Response:
        """Request the consent categories."""
        return await self.request("GET", f"/data/v2/projects/{self.project}/consent/categories")

    async def attributes(self, ids: Any, *wanted: Any) -> Response:
        """Request attributes."""
        body = {"customer_ids": ids, "attributes": list(wanted)}
        return await self.request("POST", f"/data/v2/projects/{self.project}/customers/attributes", body)

    async def self_check(self, query: str = "?project_id=shop", **fields: Any) -> Response:
        """Request a push notification to the same device."""
        body = {"customer_ids": {"cookie": "c1"}, "platform": "android", "push_notification_id": "t", **fields}
        return await self.request("POST", f"/campaigns/send-self-check-notification{query}", body)
