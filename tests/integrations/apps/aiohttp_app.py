"""
An application of aiohttp.web that tracks an event in each request. It is configured by the environment.
"""

import os

from aiohttp import web

from exponea_async import Configuration, Event, Exponea
from exponea_async.integrations.aiohttp import CLIENT, setup


async def visit(request: web.Request) -> web.Response:
    """Track an event, and return the id of the process."""
    await request.app[CLIENT].track_event(Event("visit", {"number": int(request.match_info["number"])}))
    return web.Response(text=str(os.getpid()))


app = web.Application()
app.add_routes([web.post("/visit/{number}", visit)])
setup(app, Exponea(Configuration.from_env()), customer=lambda request: request.headers["X-Customer"])
