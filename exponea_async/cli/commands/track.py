"""
``exponea-async track`` and ``exponea-async identify``: one event, one customer.
"""

import argparse
import asyncio
import json
import sys
from contextlib import suppress
from typing import Any

from exponea_async.cli.exits import Exit, UsageError
from exponea_async.cli.importer.timestamps import moment
from exponea_async.cli.options import (
    SETTINGS,
    Commands,
    add_json,
    add_settings,
    command,
    configuration,
    mapping,
    opened,
    pair,
    read_value,
    seconds,
)
from exponea_async.cli.tasks import first_of
from exponea_async.cli.terminal import print_json, printable
from exponea_async.client import Exponea
from exponea_async.errors import DeliveryError, DeliveryTimeoutError
from exponea_async.models import Customer, Event, Receipt
from exponea_async.subjects import CustomerTracker, Device

KEPT = """\
What is tracked is kept in the queue first, then uploaded as far as it goes. Without --wait it is enough that it is
kept; 'exponea-async flush' uploads what remains.

"""


def add_to(commands: Commands) -> None:
    """Add both commands."""
    parser = command(commands, "track", "track an event", KEPT + SETTINGS)
    parser.add_argument("name", metavar="NAME", help="the event type, such as purchase")
    _add_subject(parser, "the customer; without any, the event is about the device")
    _add_properties(parser)
    parser.add_argument(
        "--timestamp",
        type=moment,
        metavar="MOMENT",
        help="when it happened, in UNIX seconds or ISO, UTC where no offset is told; now by default",
    )
    _add_rest(parser)
    parser.set_defaults(run=track)
    parser = command(commands, "identify", "tell who a customer is, and set customer properties", KEPT + SETTINGS)
    _add_subject(parser, "the customer's ids; at least one")
    _add_properties(parser)
    _add_rest(parser)
    parser.set_defaults(run=identify)


def _add_subject(parser: argparse.ArgumentParser, ids: str) -> None:
    parser.add_argument(
        "--id",
        dest="ids",
        action="append",
        type=pair,
        default=[],
        metavar="KIND=VALUE",
        help=f"{ids}, such as registered=jane@example.com; repeatable",
    )
    parser.add_argument(
        "--device",
        metavar="KEY",
        help="a device that the queue remembers by this key, with its cookie and ids; 'default' by default",
    )


def _add_properties(parser: argparse.ArgumentParser) -> None:
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--property",
        dest="pairs",
        action="append",
        type=pair,
        default=[],
        metavar="NAME=VALUE",
        help='a property; the value is read as JSON where it is some (1.5, true, ["a"]), else as text; repeatable',
    )
    group.add_argument("--properties", metavar="JSON", help="all properties as an object; '-' reads standard input")


def _add_rest(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--wait", type=seconds, metavar="SECONDS", help="wait for Engagement's verdict, that long at the most"
    )
    add_json(parser)
    add_settings(parser)


async def track(args: argparse.Namespace) -> int:
    """Track an event."""
    if args.ids and args.device:
        raise UsageError("--id and --device exclude each other: a device knows its ids from 'identify --device'")
    event = Event(args.name, await _properties(args), args.timestamp)
    async with opened(configuration(args)) as exponea:
        receipt = await _subject(exponea, args).track_event(event)
        await _conclude(exponea, receipt, args.wait)
    return await _report(args.name, receipt, args)


async def identify(args: argparse.Namespace) -> int:
    """Tell who a customer is."""
    if not args.ids:
        raise UsageError("give at least one --id, such as --id registered=jane@example.com")
    ids = mapping("--id", args.ids)
    customer = Customer(ids, await _properties(args))
    async with opened(configuration(args)) as exponea:
        # Without a device nothing is to be remembered.
        subject = exponea.device(args.device) if args.device else exponea.for_customer(ids)
        receipt = await subject.identify_customer(customer)
        await _conclude(exponea, receipt, args.wait)
    return await _report(" ".join(ids.values()), receipt, args)


def _subject(exponea: Exponea, args: argparse.Namespace) -> Device | CustomerTracker:
    if args.ids:
        return exponea.for_customer(mapping("--id", args.ids))
    return exponea.device(args.device or "default")


async def _properties(args: argparse.Namespace) -> dict[str, Any]:
    if args.properties is None:
        given = mapping("--property", args.pairs)
        return {name: read_value(text) for name, text in given.items()}
    text = await asyncio.to_thread(sys.stdin.read) if args.properties == "-" else args.properties
    try:
        properties = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--properties: that is no JSON: {error}") from None
    if not isinstance(properties, dict):
        raise UsageError("--properties: that is no JSON object")
    return properties


async def _conclude(exponea: Exponea, receipt: Receipt, wait: float | None) -> None:
    """Wait for the verdict, or else upload as far as it goes."""
    if wait is None:
        await exponea.aclose()
        return
    # The flush works in any mode, and ends early where the project is paused; the receipt does not wait for others.
    with suppress(DeliveryError, DeliveryTimeoutError):
        await first_of(exponea.flush_data(wait), receipt.delivered(wait))
    await exponea.aclose(0)


async def _report(what: str, receipt: Receipt, args: argparse.Namespace) -> int:
    reason = ""
    if receipt.status in ("rejected", "dropped"):
        try:
            await receipt.delivered()
        except DeliveryError as error:
            reason = str(error)
    if args.json:
        print_json({"ids": receipt.ids, "status": receipt.status, "reason": reason})
    else:
        print(printable(f"{what}: {receipt.status}" + (f" ({reason})" if reason else "")))
    if receipt.status == "queued":
        return Exit.DONE if args.wait is None else Exit.UNSENT
    return Exit.DONE if receipt.status == "delivered" else Exit.BAD_INPUT
