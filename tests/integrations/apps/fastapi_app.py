"""
A FastAPI application that tracks an event in each request, for ASGI servers. It is configured by the environment.
"""

import os
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Response

from exponea_async import Configuration, Event, Exponea
from exponea_async.integrations.asgi import ClientLifespan, ExponeaMiddleware

exponea = Exponea(Configuration.from_env(default_device=False))
api = FastAPI()


def customer(scope: Mapping[str, Any]) -> str:
    """Return the customer that a header names."""
    return str(dict(scope["headers"])[b"x-customer"], "ascii")


@api.post("/visit/{number}")
async def visit(number: int) -> Response:
    """Track an event, and return the id of the process."""
    await exponea.track_event(Event("visit", {"number": number}))
    return Response(str(os.getpid()))


app = ClientLifespan(ExponeaMiddleware(api, exponea, customer=customer), exponea)
