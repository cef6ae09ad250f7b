"""
The values that users meet.
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
    Stats,
    TokenFrequency,
)

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
    """No field of a value can be set, and none added."""
    for name in [*attrs.fields_dict(type(value)), "unheard_of"]:
        with pytest.raises((attrs.exceptions.FrozenInstanceError, AttributeError)):
            setattr(value, name, 1)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_are_equal_by_content(value: Any) -> None:
    """A copy is equal, and each value tells its fields in its repr."""
    assert copy.copy(value) == value
    assert all(f"{name}=" in repr(value) for name in attrs.fields_dict(type(value)))


def test_what_may_be_left_out() -> None:
    """An event needs a name, a customer ids, and nobody shares default properties with another."""
    first, second = Event("a"), Event("b")

    assert (first.properties, first.timestamp) == ({}, None)
    assert first.properties is not second.properties
    assert Customer({"registered": "r"}).properties == {}
    assert PurchasedItem(1, "EUR", "card", "p-1", "Shoes").receipt is None


def test_arguments_come_in_the_documented_order() -> None:
    """The names and the order of the fields are a promise."""
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
    assert [*attrs.fields_dict(FlushResult)] == ["delivered", "rejected", "remaining"]


def test_the_vendors_spellings() -> None:
    """Names equal values, as they stand in configuration files of the vendor's SDKs."""
    for kind in (EventType, FlushMode, TokenFrequency):
        assert all(member.name == member.value for member in kind)
    assert [each.name for each in FlushMode] == ["IMMEDIATE", "PERIOD", "APP_CLOSE", "MANUAL"]
    assert [each.name for each in TokenFrequency] == ["ON_TOKEN_CHANGE", "EVERY_LAUNCH", "DAILY"]
    assert len(EventType) == 13


def test_a_push_tokens_other_name() -> None:
    """The older SDKs' word and the newer ones' mean the same."""
    assert EventType["NOTIFICATION_STATE"] is EventType.PUSH_TOKEN
