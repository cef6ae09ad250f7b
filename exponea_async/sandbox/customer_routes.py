"""
The control routes of customers.
"""

import asyncio
from heapq import nlargest
from typing import Any

from aiohttp import web
from attrs import asdict

from exponea_async.sandbox.activity import messages, sessions
from exponea_async.sandbox.engine import Engine
from exponea_async.sandbox.errors import RequestError
from exponea_async.sandbox.http import JsonResponse
from exponea_async.sandbox.identity import Customer
from exponea_async.sandbox.identity_graph import IdentityGraph
from exponea_async.sandbox.journal import Entry
from exponea_async.sandbox.projects import ProjectData
from exponea_async.sandbox.property_history import property_history
from exponea_async.sandbox.queries import check_names, limit, optional_number, parse_number
from exponea_async.sandbox.search import PAUSE_BYTES

#: The entries of a customer that are read, the newest ones, and their size.
MAX_ENTRIES = 5_000
MAX_BYTES = 16_000_000
#: The customers after which a search lets other tasks run.
PAUSE_CUSTOMERS = 5_000
#: The ids of one kind in a list.
MAX_IDS = 20
MAX_NAME_LENGTH = 200
#: The properties that name a customer, in this order.
NAMES = (("first_name", "last_name"), ("name",), ("email",))

#: A customer with the number of its latest entry and its project.
Found = tuple[int, ProjectData, Customer]


class CustomerApi:
    """The handlers of the control routes of customers."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[web.RouteDef]:
        """Return all routes."""
        return [
            web.get("/sandbox/customers", self._get_customers, allow_head=False),
            web.get("/sandbox/customers/{project}/{key}", self._get_customer, allow_head=False),
        ]

    async def _get_customers(self, request: web.Request) -> web.Response:
        check_names(request, "project", "text", "limit", "before")
        text, before, count = request.query.get("text", ""), optional_number(request, "before"), limit(request)
        # A list, since other tasks run during the search.
        customers = [
            (customer.latest, data, customer)
            for data in self._engine.selected(request.query.get("project"))
            for customer in data.customers
            if before is None or customer.latest < before
        ]
        if text:
            customers = await _with_text(customers, text.casefold())
        # The number of the latest entry is another one for each customer, and so is the order.
        newest = nlargest(count + 1, customers, key=lambda found: found[0])
        following = newest[count - 1][0] if len(newest) > count > 0 else None
        listed = [_listed(data, customer) for _, data, customer in newest[:count]]
        return JsonResponse({"customers": listed, "next": following})

    async def _get_customer(self, request: web.Request) -> web.Response:
        check_names(request)
        data = self._engine.data_of(request.match_info["project"])
        key = parse_number(request.match_info["key"])
        current = None if data is None or key is None else data.customers.current_key(key)
        customer = None if data is None or current is None else data.customers.by_key(current)
        if data is None or customer is None:
            raise RequestError(404, "The customer does not exist.")
        entries, is_cut = await self._entries(data, customer)
        details = _details(data, customer, entries)
        redirected = {} if current == key else {"redirected_from": key}
        return JsonResponse({**details, "truncated": is_cut, **redirected})

    async def _entries(self, data: ProjectData, customer: Customer) -> tuple[list[Entry], bool]:
        """Return the newest accepted entries of a customer, oldest first, and whether there are more."""
        found: list[Entry] = []
        size = read = 0
        for _, entry in self._engine.journal.log.newest_first():
            read += entry.size
            if read > PAUSE_BYTES:
                read = 0
                await asyncio.sleep(0)
            if not _belongs(entry, data, customer):
                continue
            size += entry.size
            if len(found) == MAX_ENTRIES or (found and size > MAX_BYTES):
                return found[::-1], True
            found.append(entry)
        return found[::-1], False


def _belongs(entry: Entry, data: ProjectData, customer: Customer) -> bool:
    return (
        entry.project == data.project
        and entry.customer != 0
        and entry.verdict != "rejected"
        and data.customers.current_key(entry.customer) == customer.key
    )


def _listed(data: ProjectData, customer: Customer) -> dict[str, Any]:
    ids = {kind: values[:MAX_IDS] for kind, values in data.view(customer).ids.items()}
    return {
        "project": data.project,
        "key": customer.key,
        "ids": ids,
        "events": customer.event_count,
        "name": _name(customer),
        "last_seen": customer.seen_at,
    }


def _details(data: ProjectData, customer: Customer, entries: list[Entry]) -> dict[str, Any]:
    view = data.view(customer)
    graph = IdentityGraph(entries, view.ids)
    return {
        **_listed(data, customer),
        "ids": view.ids,
        "properties": view.properties,
        "created": customer.created_at,
        "identities": {
            "nodes": [asdict(node) for node in graph.nodes.values()],
            "edges": [edge.as_dict() for edge in graph.edges],
        },
        "history": [asdict(change, recurse=False) for change in property_history(entries)],
        "sessions": [session.as_dict() for session in sessions(entries)],
        "push_tokens": [asdict(token) for token in view.push_tokens],
        "messages": [asdict(shown) for shown in messages(entries)],
        "read_messages": view.read_messages,
    }


def _name(customer: Customer) -> str:
    for names in NAMES:
        values = [customer.properties.get(name, ("", 0.0))[0] for name in names]
        if name := " ".join(value.strip() for value in values if isinstance(value, str) and value.strip()):
            return name[:MAX_NAME_LENGTH]
    ids = dict(customer.ids())
    return next(iter([ids[kind] for kind in ("registered", *ids) if kind in ids]), "")[:MAX_NAME_LENGTH]


async def _with_text(customers: list[Found], text: str) -> list[Found]:
    found = []
    for number, each in enumerate(customers):
        if number % PAUSE_CUSTOMERS == 0:
            await asyncio.sleep(0)
        if _has_text(each[2], text):
            found.append(each)
    return found


def _has_text(customer: Customer, text: str) -> bool:
    return text in _name(customer).casefold() or any(text in value.casefold() for _, value in customer.ids())
