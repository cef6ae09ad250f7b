"""
A shop in Django, in one file, with a page for visitors, a sign-in, a search in an asynchronous view, and a purchase.

Run it with ``python examples/django_shop.py``. It starts a sandbox instead of Engagement, visits its own pages, and
prints what arrives.
"""

from functools import partial
from typing import Any

import django
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import path

from exponea_async import Event
from exponea_async.integrations.django import atrack, call, get_client, identify_visitor, track
from exponea_async.testing import SandboxThread


def customer(request: HttpRequest) -> str | None:
    """Return the id of the user who is logged in."""
    return str(request.user.email) if request.user.is_authenticated else None


def has_consented(request: HttpRequest) -> bool:
    """Return whether the visitor has agreed to be tracked."""
    return bool(request.COOKIES.get("consent") == "yes")


MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "exponea_async.integrations.django.ExponeaMiddleware",
]

EXPONEA: dict[str, Any] = {
    "CONFIGURATION": {"project_token": "shop", "authorization_token": "key", "default_device": False},
    "CUSTOMER": customer,
    "CONSENT": has_consented,
    "PROPERTIES": {"utm": True},
}


def configure(url: str) -> None:
    """Configure Django; in a project, this is in its module ``settings``."""
    settings.configure(
        ALLOWED_HOSTS=["testserver"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        EXPONEA={**EXPONEA, "CONFIGURATION": {**EXPONEA["CONFIGURATION"], "base_url": url, "storage": "memory:"}},
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"],
        MIDDLEWARE=MIDDLEWARE,
        ROOT_URLCONF=__name__,
        SECRET_KEY="not a secret",
    )
    django.setup()


def home(request: HttpRequest) -> HttpResponse:
    """Show the first page."""
    track(Event("page_visit", {"path": request.path}))
    return HttpResponse("Mugs, plates, bowls.")


async def search(request: HttpRequest) -> HttpResponse:
    """Show what was found, in an asynchronous view."""
    await atrack(Event("search", {"text": request.GET.get("q", "")}))
    return HttpResponse("Nothing found.")


def sign_in(request: HttpRequest) -> HttpResponse:
    """Log a user in, who is the same person as the visitor from now on."""
    from django.contrib import auth  # noqa: PLC0415 - needs the settings

    user = auth.authenticate(request, username=request.POST["name"], password=request.POST["password"])
    auth.login(request, user)
    identify_visitor(request, {"first_name": user.first_name})
    return HttpResponse("Welcome.")


def check_out(request: HttpRequest) -> HttpResponse:
    """Sell something; the purchase is tracked when the database has committed it."""
    from django.db import transaction  # noqa: PLC0415 - needs the settings

    purchase = Event("purchase", {"product": request.POST["product"], "total_price": 7.99})
    with transaction.atomic():
        # ... the order is stored here
        transaction.on_commit(partial(track, purchase))
    return HttpResponse("Thank you.")


urlpatterns = [path("", home), path("search", search), path("sign-in", sign_in), path("check-out", check_out)]


def visit_pages() -> None:
    """Create a user, and visit the pages in a browser that has a cookie of the web SDK."""
    from django.contrib.auth.models import User  # noqa: PLC0415 - needs the settings
    from django.core.management import call_command  # noqa: PLC0415
    from django.test import Client  # noqa: PLC0415

    call_command("migrate", verbosity=0)
    User.objects.create_user("jane", "jane@example.com", "password", first_name="Jane")
    browser = Client()
    browser.cookies.load({"consent": "yes", "xnpe_shop": "a1b2c3"})
    browser.get("/?utm_source=newsletter")
    browser.get("/search?q=teapot")
    browser.post("/sign-in", {"name": "jane", "password": "password"})
    browser.post("/check-out", {"product": "teapot"})


def main() -> None:
    """Run the shop, and print what it has tracked."""
    with SandboxThread() as sandbox:
        configure(sandbox.url)
        visit_pages()
        call(get_client().flush_data, timeout=10)
        for event in sandbox.engine.events():
            print(event.event_type, dict(event.customer_ids), dict(event.properties))
        for each in sandbox.engine.customers():
            print("customer", dict(each.ids), dict(each.properties))


if __name__ == "__main__":
    main()
