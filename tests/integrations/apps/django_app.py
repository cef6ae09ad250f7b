"""
A site in Django that tracks an event in each request, for WSGI and ASGI servers. It is configured by the environment.
"""

import os

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path

from exponea_async import Event
from exponea_async.integrations.django import ClientLifespan, atrack, track

settings.configure(
    SECRET_KEY="not a secret",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=["exponea_async.integrations.django.ExponeaMiddleware"],
    EXPONEA={"CUSTOMER": "django_app.customer"},
    LOGGING_CONFIG=None,
)


def customer(request: HttpRequest) -> str:
    """Return the customer that a header names."""
    return str(request.headers["X-Customer"])


def page(request: HttpRequest, number: int) -> HttpResponse:
    """Track an event, and return the id of the process."""
    track(Event("visit", {"number": number}))
    return HttpResponse(str(os.getpid()))


async def async_page(request: HttpRequest, number: int) -> HttpResponse:
    """Do so in an asynchronous view."""
    await atrack(Event("visit", {"number": number}))
    return HttpResponse(str(os.getpid()))


urlpatterns = [path("visit/<int:number>", page), path("async/visit/<int:number>", async_page)]
django.setup()
wsgi = get_wsgi_application()
asgi = ClientLifespan(get_asgi_application())
