"""
What the platform accepts: one command's data in, a checked command or its errors out. Pure.
"""

import math
from collections.abc import Iterable
from typing import Any

from attrs import frozen

from exponea_async.sandbox.encoding import dumps

CLICK = "campaign_click"
MAX_VALUE_BYTES = 16_384
MAX_MESSAGE_BYTES = 819_200
# The year 5138 in seconds, March 1973 in milliseconds: no real moment is ambiguous.
LATEST_SECOND = 1e11


class CommandError(ValueError):
    """
    A command is refused.

    Attributes:
        errors: Why, in the platform's words; at least one.
    """

    def __init__(self, errors: Iterable[str]) -> None:
        self.errors = tuple(errors)
        super().__init__("; ".join(self.errors))


@frozen
class Command:
    """
    A command that is right in itself.

    Attributes:
        ids: The customer's ids; empty only for a click.
        properties: The properties; for a click its ``url`` too.
        canonical: The properties as canonical JSON.
        at: ``timestamp`` or ``update_timestamp``, UNIX seconds, or None.
        event_type: The type of the event; empty for a customer.
    """

    ids: dict[str, str]
    properties: dict[str, Any]
    canonical: bytes
    at: float | None
    event_type: str = ""


def read_customer(data: object) -> Command:
    """
    Checks the data of an update of a customer.

    Raises:
        CommandError: Something is wrong with it.
    """
    fields = _object(data)
    errors = id_errors(fields.get("customer_ids"), required=True)
    errors += _time_errors(fields, "update_timestamp")
    properties, canonical = _properties(fields, errors)
    if errors:
        raise CommandError(errors)
    return Command(fields["customer_ids"], properties, canonical, fields.get("update_timestamp"))


def read_event(data: object) -> Command:
    """
    Checks the data of an event.

    Raises:
        CommandError: Something is wrong with it.
    """
    fields = _object(data)
    errors = id_errors(fields.get("customer_ids"), required=True)
    event_type = fields.get("event_type")
    errors += _text_errors(event_type, "event_type")
    errors += _time_errors(fields, "timestamp")
    properties, canonical = _properties(fields, errors)
    if errors:
        raise CommandError(errors)
    return Command(fields["customer_ids"], properties, canonical, fields.get("timestamp"), str(event_type))


def read_click(data: object) -> Command:
    """
    Checks the data of a campaign click, which may name no customer at all.

    Raises:
        CommandError: Something is wrong with it.
    """
    fields = _object(data)
    errors = id_errors(fields.get("customer_ids"), required=False)
    errors += _text_errors(fields.get("url"), "url")
    errors += _time_errors(fields, "timestamp")
    properties, _ = _properties(fields, errors)
    if errors:
        raise CommandError(errors)
    clicked = {**properties, "url": fields["url"]}
    return Command(fields.get("customer_ids") or {}, clicked, dumps(clicked), fields.get("timestamp"), CLICK)


def id_errors(ids: object, *, required: bool) -> list[str]:
    """Tells what is wrong with a customer's ids, in the platform's words."""
    if not ids and (ids is None or ids == {}):
        return ["At least one id should be specified."] if required else []
    if not isinstance(ids, dict):
        return ["customer_ids should be an object."]
    return [
        f"The id {kind!r} should be a non-empty string."
        for kind, value in ids.items()
        if not kind or not value or not isinstance(value, str)
    ]


def _object(data: object) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise CommandError(["The data should be an object."])
    try:
        # Wrapped as deep as any answer wraps it: what is stored can be shown.
        size = len(dumps([[[[data]]]])) - 8
    except ValueError as error:
        raise CommandError([f"The data is no JSON: {error}."]) from None
    if size >= MAX_MESSAGE_BYTES:
        raise CommandError([f"The message has {size} bytes; it should be smaller than 800 KB."])
    return data


def _text_errors(value: object, name: str) -> list[str]:
    return [] if value and isinstance(value, str) else [f"{name} should be a non-empty string."]


def _time_errors(fields: dict[str, Any], name: str) -> list[str]:
    moment = fields.get(name)
    # The platform's own Python client sends null for "now".
    if moment is None:
        return []
    if isinstance(moment, bool) or not isinstance(moment, int | float) or not math.isfinite(moment):
        return [f"{name} should be a number of seconds."]
    if moment > LATEST_SECOND:
        return [f"{name} should be in seconds; {moment} looks like milliseconds."]
    return [] if moment >= 0 else [f"{name} should not be negative."]


def _properties(fields: dict[str, Any], errors: list[str]) -> tuple[dict[str, Any], bytes]:
    properties = fields.get("properties")
    if properties is None:
        return {}, b"{}"
    if not isinstance(properties, dict):
        errors.append("properties should be an object.")
        return {}, b"{}"
    canonical = dumps(properties)
    # The whole is longer than any part, so that a small one needs no second look.
    if len(canonical) >= MAX_VALUE_BYTES:
        errors += [
            f"The property {name!r} should be smaller than 16 KB."
            for name, value in properties.items()
            if len(dumps(value)) >= MAX_VALUE_BYTES
        ]
    return properties, canonical
