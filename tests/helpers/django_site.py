"""
A site in Django, with users in a database. Importing it configures Django, which is possible once in a process.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import django
from django.conf import settings
from django.core.management import call_command
from django.db import connections
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path

AUTHENTICATION = "django.contrib.auth.middleware.AuthenticationMiddleware"
EXPONEA = "exponea_async.integrations.django.ExponeaMiddleware"

settings.configure(
    SECRET_KEY="not a secret",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"],
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware", AUTHENTICATION, EXPONEA],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ""}},
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    LOGGING_CONFIG=None,
    USE_TZ=True,
)
django.setup()

from django.contrib import auth  # noqa: E402 - needs the settings
from django.contrib.auth.models import User  # noqa: E402

from exponea_async import Configuration, Event  # noqa: E402
from exponea_async.integrations.django import (  # noqa: E402
    aidentify_visitor,
    atrack,
    bind_customer,
    identify_visitor,
    track,
)

CONFIGURATION = Configuration(project_token="site", authorization_token="key", storage="memory:")


def create_database(file: Path, *names: str) -> None:
    """Create a database with users of these names."""
    settings.DATABASES["default"]["NAME"] = connections.databases["default"]["NAME"] = str(file)
    connections.close_all()
    call_command("migrate", verbosity=0)
    for name in names:
        User.objects.create_user(name, f"{name}@example.com", "password")
    connections.close_all()


def customer(request: HttpRequest) -> str | None:
    """Return the address of the user who is logged in, which is in the database."""
    return str(request.user.email) if request.user.is_authenticated else None


def customer_of_table(request: HttpRequest) -> str | None:
    """Return the address of the first user, whom a query finds."""
    user = User.objects.order_by("email").first()
    return None if user is None else str(user.email)


def has_consented(request: HttpRequest) -> bool:
    """Return whether the browser sends a cookie that says so."""
    return bool(request.COOKIES.get("consent") == "yes")


def log_in(request: HttpRequest, name: str) -> HttpResponse:
    """Log a user in."""
    user = auth.authenticate(request, username=name, password="password")
    auth.login(request, user)
    track(Event("login"))
    return HttpResponse()


def log_out(request: HttpRequest) -> HttpResponse:
    """Log the user out."""
    track(Event("before"))
    auth.logout(request)
    track(Event("after"))
    return HttpResponse()


def nothing(request: HttpRequest) -> HttpResponse:
    """Track nothing."""
    return HttpResponse()


def visit(request: HttpRequest, name: str) -> HttpResponse:
    """Track an event, from a plain view."""
    track(Event(name))
    return HttpResponse()


async def visit_async(request: HttpRequest, name: str) -> HttpResponse:
    """Track an event, from an asynchronous view."""
    await atrack(Event(name))
    return HttpResponse()


def stream(request: HttpRequest, name: str) -> StreamingHttpResponse:
    """Track an event with each part of the content."""

    def content() -> Iterator[str]:
        for number in range(2):
            track(Event(name, {"number": number}))
            yield f"{number};"

    return StreamingHttpResponse(content())


async def stream_async(request: HttpRequest, name: str) -> StreamingHttpResponse:
    """Track an event with each part of the content, which is made asynchronously."""

    async def content() -> AsyncIterator[str]:
        for number in range(2):
            await atrack(Event(name, {"number": number}))
            yield f"{number};"

    return StreamingHttpResponse(content())


def fail(request: HttpRequest, name: str) -> HttpResponse:
    """Track an event, and fail."""
    track(Event(name))
    raise LookupError(name)


def bind(request: HttpRequest, name: str) -> HttpResponse:
    """Bind a customer in the middle of a request."""
    track(Event("before"))
    bind_customer(request, name)
    track(Event("after"))
    return HttpResponse()


def identify(request: HttpRequest) -> HttpResponse:
    """Join the customer and the visitor."""
    identify_visitor(request, {"plan": "free"})
    return HttpResponse()


async def identify_async(request: HttpRequest) -> HttpResponse:
    """Join the customer and the visitor, from an asynchronous view."""
    await aidentify_visitor(request, {"plan": "free"})
    return HttpResponse()


async def pause(request: HttpRequest, name: str) -> HttpResponse:
    """Track an event before and after other requests run."""
    await atrack(Event("first", {"of": name}))
    await asyncio.sleep(0.001)
    await atrack(Event("second", {"of": name}))
    return HttpResponse()


def in_thread(request: HttpRequest, name: str) -> HttpResponse:
    """Track an event in a thread of its own, and return the name of the error."""
    with ThreadPoolExecutor() as pool:
        error = pool.submit(track, Event(name)).exception()
    return HttpResponse(type(error).__name__)


async def blocked(request: HttpRequest) -> HttpResponse:
    """Call the function for synchronous code in an asynchronous view."""
    track(Event("never"))
    return HttpResponse()


async def authenticate(request: HttpRequest, name: str) -> HttpResponse:
    """Authenticate a user by other means than a session, as with a token, and return the user after an event."""
    request.user = await User.objects.aget(username=name)
    await atrack(Event("visit"))
    return HttpResponse(request.user.email)


def close_early(request: HttpRequest) -> StreamingHttpResponse:
    """Track an event when the content is closed."""

    def content() -> Iterator[str]:
        try:
            yield "0;"
            yield "1;"
        finally:
            track(Event("closed"))

    return StreamingHttpResponse(content())


urlpatterns = [
    path("login/<name>", log_in),
    path("logout", log_out),
    path("nothing", nothing),
    path("visit/<name>", visit),
    path("async/visit/<name>", visit_async),
    path("stream/<name>", stream),
    path("async/stream/<name>", stream_async),
    path("fail/<name>", fail),
    path("bind/<name>", bind),
    path("identify", identify),
    path("async/identify", identify_async),
    path("async/pause/<name>", pause),
    path("thread/<name>", in_thread),
    path("async/blocked", blocked),
    path("async/authenticate/<name>", authenticate),
    path("close", close_early),
]
