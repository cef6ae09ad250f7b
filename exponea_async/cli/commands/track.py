"""
``exponea-async track`` and ``exponea-async identify``: track one event, update one customer.
"""

import argparse
import asyncio
import json
import sys
from contextlib import suppress
from typing import Any

from exponea_async.cli.importer.timestamps import timestamp
from exponea_async.cli.options import (
    SETTINGS_HELP,
    Commands,
    add_json_option,
    add_parser,
    add_settings_options,
    first_completed,
    name_and_value,
    open_client,
    parse_value,
    read_configuration,
    seconds,
    unique_names,
    with_uploads,
)
from exponea_async.cli.terminal import Exit, UsageError, print_json, print_line
from exponea_async.client import Exponea
from exponea_async.config import Configuration
from exponea_async.errors import DeliveryError, DeliveryTimeoutError
from exponea_async.models import Customer, Event, Receipt
from exponea_async.subjects import CustomerTracker, Device

EVENT_EXAMPLE = """\
  exponea-async track purchase --id registered=jane@example.com --property total_price=7.99 --wait 10

"""
CUSTOMER_EXAMPLE = """\
  exponea-async identify --id registered=jane@example.com --property first_name=Jane

"""
DESCRIPTION = """\
The command stores what it tracks in the queue and then tries to upload it. Without --wait it succeeds as soon as the
queue has it; 'exponea-async flush' uploads what remains.

"""


def register(commands: Commands) -> None:
    """Add both commands."""
    parser = add_parser(commands, "track", "track an event", EVENT_EXAMPLE + DESCRIPTION + SETTINGS_HELP)
    parser.add_argument("name", metavar="NAME", help="the event type, for example purchase")
    _add_subject_options(parser, "an id of the customer whom the event is about; required unless there is a --device")
    _add_property_options(parser)
    parser.add_argument(
        "--timestamp",
        type=timestamp,
        metavar="TIMESTAMP",
        help="when it happened: UNIX seconds or ISO 8601, in UTC unless it has an offset; now by default",
    )
    _add_common_options(parser)
    parser.set_defaults(run=track)
    description = CUSTOMER_EXAMPLE + DESCRIPTION + SETTINGS_HELP
    parser = add_parser(commands, "identify", "set the ids and properties of a customer", description)
    _add_subject_options(parser, "an id of the customer; at least one is required")
    _add_property_options(parser)
    _add_common_options(parser)
    parser.set_defaults(run=identify)


def _add_subject_options(parser: argparse.ArgumentParser, ids_help: str) -> None:
    parser.add_argument(
        "--id",
        dest="ids",
        action="append",
        type=name_and_value,
        default=[],
        metavar="KIND=VALUE",
        help=f"{ids_help}; for example registered=jane@example.com; repeatable",
    )
    parser.add_argument(
        "--device",
        metavar="KEY",
        help="the key of a device, whose cookie and ids are stored in the file of the queue; a new device is a new "
        "customer, whose installation and session are tracked, too",
    )


def _add_property_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--property",
        dest="pairs",
        action="append",
        type=name_and_value,
        default=[],
        metavar="NAME=VALUE",
        help='a property; a value that is JSON (1.5, true, ["a"]) is parsed, any other is a string; repeatable',
    )
    group.add_argument(
        "--properties", metavar="JSON", help="all properties as a JSON object; '-' reads it from standard input"
    )


def _add_common_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--wait", type=seconds, metavar="SECONDS", help="wait for Engagement's response, at most this long"
    )
    add_json_option(parser)
    add_settings_options(parser)


def _configuration(args: argparse.Namespace) -> Configuration:
    # With --wait the command itself uploads, in any flush mode.
    configuration = read_configuration(args)
    return configuration if args.wait is None else with_uploads(configuration)


async def track(args: argparse.Namespace) -> int:
    """Track an event."""
    if args.ids and args.device:
        raise UsageError(
            "--id",
            "can't be combined with --device, which has ids of its own",
            "Remove one of them; 'identify --device' gives a device its ids.",
        )
    if not args.ids and args.device is None:
        raise UsageError(
            "--id or --device",
            "is missing",
            "Pass an id of the customer, for example --id registered=jane@example.com, or the key of a device.",
        )
    event = Event(args.name, await _properties(args), args.timestamp)
    async with open_client(_configuration(args)) as exponea:
        receipt = await _subject(exponea, args).track_event(event)
        await _upload(exponea, receipt, args.wait)
    return await _report(args.name, receipt, args)


async def identify(args: argparse.Namespace) -> int:
    """Set the ids and properties of a customer."""
    if not args.ids:
        raise UsageError("--id", "is missing", "Pass at least one, for example --id registered=jane@example.com.")
    ids = unique_names("--id", args.ids)
    customer = Customer(ids, await _properties(args))
    async with open_client(_configuration(args)) as exponea:
        # Without --device no state of a device is to be changed.
        subject = exponea.device(args.device) if args.device else exponea.for_customer(ids)
        receipt = await subject.identify_customer(customer)
        await _upload(exponea, receipt, args.wait)
    return await _report(" ".join(ids.values()), receipt, args)


def _subject(exponea: Exponea, args: argparse.Namespace) -> Device | CustomerTracker:
    if args.ids:
        return exponea.for_customer(unique_names("--id", args.ids))
    return exponea.device(args.device)


async def _properties(args: argparse.Namespace) -> dict[str, Any]:
    if args.properties is None:
        given = unique_names("--property", args.pairs)
        return {name: parse_value(string) for name, string in given.items()}
    string = await asyncio.to_thread(sys.stdin.read) if args.properties == "-" else args.properties
    hint = """Pass one such as '{"price": 7.99}'."""
    try:
        properties = json.loads(string)
    except (ValueError, RecursionError) as error:
        raise UsageError("--properties", f"must be a JSON object, got invalid JSON: {error}", hint) from None
    if not isinstance(properties, dict):
        raise UsageError("--properties", f"must be a JSON object, got {string!r:.60}", hint)
    return properties


async def _upload(exponea: Exponea, receipt: Receipt, wait: float | None) -> None:
    """Wait for Engagement's response, or without a wait, upload what can be uploaded on closing."""
    if wait is None:
        await exponea.aclose()
        return
    # A flush works in every mode and ends early when the project is paused; a receipt does not wait for other events.
    with suppress(DeliveryError, DeliveryTimeoutError):
        await first_completed(exponea.flush_data(wait), receipt.delivered(wait))
    await exponea.aclose(0)


async def _report(subject: str, receipt: Receipt, args: argparse.Namespace) -> int:
    reason = ""
    if receipt.status in ("rejected", "dropped"):
        try:
            await receipt.delivered()
        except DeliveryError as error:
            reason = str(error)
    if args.json:
        print_json({"ids": receipt.ids, "status": receipt.status, "reason": reason})
    else:
        print_line(f"{subject}: {receipt.status}" + (f" ({reason})" if reason else ""))
    if receipt.status == "queued":
        return Exit.DONE if args.wait is None else Exit.UNSENT
    return Exit.DONE if receipt.status == "delivered" else Exit.BAD_INPUT
