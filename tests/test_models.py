"""
Values that are passed to the client and returned by it.
"""

import copy
from typing import Any

import attrs
import pytest

from exponea_async.models import (
    Customer,
    Event,
    EventType,
    FlushMode,
    FlushResult,
    Identity,
    PurchasedItem,
    TokenFrequency,
)
from exponea_async.observability import Stats

VALUES: list[Any] = [
    Event("purchase", {"total_price": 7.99}, 5.5),
    Customer({"registered": "jane@example.com"}, {"vip": True}),
    PurchasedItem(7.99, "EUR", "card", "p-1", "Shoes"),
    FlushResult(delivered=1, rejected=2, remaining=3),
    Identity(b'{"cookie":"c"}', b"", is_device=False),
    Stats(
        tracked=1,
        delivered=1,
        rejected=0,
        dropped={},
        retried=0,
        requests=1,
        failed_requests=0,
        bytes_sent=10,
        commits=1,
        in_flight=0,
        paused={},
    ),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_are_frozen(value: Any) -> None:
    """No attribute of a value can be set, and none can be added."""
    for name in [*attrs.fields_dict(type(value)), "unknown"]:
        with pytest.raises((attrs.exceptions.FrozenInstanceError, AttributeError)):
            setattr(value, name, 1)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_are_equal_by_content(value: Any) -> None:
    """A copy is equal, and the repr of a value shows all fields."""
    assert copy.copy(value) == value
    assert all(f"{name}=" in repr(value) for name in attrs.fields_dict(type(value)))


def test_optional_fields_have_defaults() -> None:
    """Only the name of an event and the ids of a customer are required, and default properties are not shared."""
    first, second = Event("a"), Event("b")

    assert (first.properties, first.timestamp) == ({}, None)
    assert first.properties is not second.properties
    assert Customer({"registered": "r"}).properties == {}
    assert PurchasedItem(1, "EUR", "card", "p-1", "Shoes").receipt is None


def test_the_order_of_arguments() -> None:
    """The names and the order of the fields are part of the public API."""
    assert [*attrs.fields_dict(Event)] == ["name", "properties", "timestamp"]
    assert [*attrs.fields_dict(Customer)] == ["ids", "properties"]
    assert [*attrs.fields_dict(PurchasedItem)] == [
        "value",
        "currency",
        "payment_system",
        "product_id",
        "product_title",
        "receipt",
    ]
    assert [*attrs.fields_dict(FlushResult)] == ["delivered", "rejected", "remaining", "lost", "reasons"]


def test_enum_members_are_named_as_in_the_vendors_sdks() -> None:
    """Names and values are those of configuration files of these SDKs."""
    for kind in (EventType, FlushMode, TokenFrequency):
        assert all(member.name == member.value for member in kind)
    assert [each.name for each in FlushMode] == ["IMMEDIATE", "PERIOD", "APP_CLOSE", "MANUAL"]
    assert [each.name for each in TokenFrequency] == ["ON_TOKEN_CHANGE", "EVERY_LAUNCH", "DAILY"]
    assert len(EventType) == 13


def test_notification_state_is_an_alias() -> None:
    """Older SDKs name the event type after the push token, newer ones after the notification state."""
    assert EventType["NOTIFICATION_STATE"] is EventType.PUSH_TOKEN
