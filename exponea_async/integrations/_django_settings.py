"""
The setting ``EXPONEA`` of a Django project.
"""

from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any, TypeVar

import attrs
from attrs import frozen
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from exponea_async._internal import validation as checks
from exponea_async._internal.validation import short_repr
from exponea_async.client import Exponea
from exponea_async.config import Configuration
from exponea_async.errors import ConfigurationError
from exponea_async.hooks import Hooks
from exponea_async.integrations._headers import RequestProperties
from exponea_async.integrations._request import ConsentFunction, CustomerFunction, RequestRules

T = TypeVar("T")

#: The name of the setting.
SETTING = "EXPONEA"
#: What it may contain.
KEYS = ("CONFIGURATION", "HOOKS", "CUSTOMER", "VISITOR", "CONSENT", "PROPERTIES")
AUTHENTICATION = "django.contrib.auth.middleware.AuthenticationMiddleware"


@frozen
class DjangoSettings:
    """
    The setting, in which dotted paths are replaced by what they lead to.

    Attributes:
        configuration: The settings of the client.
        hooks: Its hooks.
        customer: Returns the ids of the customer who makes a request.
        visitor: Whether a request without a customer is about the visitor of the web SDK.
        consent: Returns whether the visitor may be tracked.
        properties: What the events of a request carry.
    """

    configuration: Configuration
    hooks: Hooks | None
    customer: CustomerFunction | None
    visitor: bool
    consent: ConsentFunction | None
    properties: RequestProperties

    def rules(self, exponea: Exponea) -> RequestRules:
        """Return how the subject of a request is found."""
        return RequestRules(
            exponea,
            customer=self.customer,
            visitor=self.visitor,
            consent=self.consent,
            properties=self.properties,
        )


def read_settings() -> DjangoSettings:
    """
    Read the setting.

    Raises:
        ImproperlyConfigured: Something in it is invalid.
    """
    given = getattr(settings, SETTING, {})
    if isinstance(given, str | Configuration):
        given = {"CONFIGURATION": given}
    if not isinstance(given, Mapping):
        raise _wrong(SETTING, f"expected a dict, got {short_repr(given)}", f"Use some of the keys {', '.join(KEYS)}.")
    _check_keys(SETTING, given, KEYS)
    read = DjangoSettings(
        configuration=_configuration(given.get("CONFIGURATION")),
        hooks=_object("HOOKS", given.get("HOOKS"), Hooks),
        customer=_function("CUSTOMER", given.get("CUSTOMER")),
        visitor=given.get("VISITOR", True),
        consent=_function("CONSENT", given.get("CONSENT")),
        properties=_properties(given.get("PROPERTIES", {})),
    )
    if not isinstance(read.visitor, bool):
        raise _wrong(_place("VISITOR"), f"expected a bool, got {short_repr(read.visitor)}", "Use True or False.")
    return read


def check_order(middleware: str, read: DjangoSettings) -> None:
    """
    Make sure that Django authenticates before a middleware that asks for the customer.

    Raises:
        ImproperlyConfigured: It is the other way round.
    """
    order = list(settings.MIDDLEWARE)
    if read.customer is None or AUTHENTICATION not in order or middleware not in order:
        return
    if order.index(middleware) < order.index(AUTHENTICATION):
        trouble = f"{middleware!r} is before {AUTHENTICATION!r}, so that requests have no user for CUSTOMER yet"
        raise _wrong("MIDDLEWARE", trouble, "Move it behind.")


def _configuration(given: Any) -> Configuration:
    place = _place("CONFIGURATION")
    if isinstance(given, Mapping):
        fields = [each.alias for each in attrs.fields(Configuration) if each.init and each.alias is not None]
        _check_keys(place, given, fields)
        with _improper(place):
            return Configuration(**{"project_token": None, "authorization_token": None, **given})
    if given is None:
        with _improper(place):
            return Configuration.from_env()
    found = _object("CONFIGURATION", given, Configuration)
    assert isinstance(found, Configuration)  # noqa: S101 - only None is returned as None
    return found


def _properties(given: Any) -> RequestProperties:
    place = _place("PROPERTIES")
    if isinstance(given, RequestProperties):
        return given
    if not isinstance(given, Mapping):
        trouble = f"expected a dict, got {short_repr(given)}"
        raise _wrong(place, trouble, "Use a dict such as {'user_agent': True}.")
    _check_keys(place, given, [each.name for each in attrs.fields(RequestProperties)])
    with _improper(place):
        return RequestProperties(**given)


def _function(key: str, given: Any) -> Any:
    function = _imported(key, given)
    hint = "Use a plain function, or its dotted path. It is called in a thread that may use the database."
    if function is not None and not callable(function):
        raise _wrong(_place(key), f"expected a function, got {short_repr(function)}", hint)
    if function is not None and checks.is_async(function):
        raise _wrong(_place(key), f"expected a plain function, got the async function {short_repr(function)}", hint)
    return function


def _object(key: str, given: Any, kind: type[T]) -> T | None:
    found = _imported(key, given)
    if found is not None and not isinstance(found, kind):
        trouble = f"expected {kind.__name__}, got {short_repr(found)}"
        raise _wrong(_place(key), trouble, f"Use {kind.__name__}(...), or the dotted path of one.")
    return found


def _imported(key: str, given: Any) -> Any:
    """Return what a dotted path leads to; everything else as it is."""
    if not isinstance(given, str):
        return given
    try:
        return import_string(given)
    except ImportError as error:
        hint = "Use a dotted path, such as 'shop.analytics.customer'."
        raise _wrong(_place(key), f"can't import {short_repr(given)}: {error}", hint) from error


def _check_keys(place: str, given: Mapping[Any, Any], known: Iterable[str]) -> None:
    known = list(known)
    for key in given:
        if key not in known:
            near = get_close_matches(str(key), known, 1)
            hint = f"Did you mean {near[0]!r}?" if near else f"Use some of {', '.join(known)}."
            raise _wrong(place, f"unknown key {short_repr(key)}", hint)


def _place(key: str) -> str:
    return f"{SETTING}[{key!r}]"


@contextmanager
def _improper(place: str) -> Any:
    try:
        yield
    except ConfigurationError as error:
        raise ImproperlyConfigured(f"{place}: {error}") from error


def _wrong(place: str, trouble: str, hint: str) -> ImproperlyConfigured:
    return ImproperlyConfigured(f"{place}: {trouble}. {hint}")
