"""
``exponea-async flush``: upload what waits.
"""

import argparse

from attrs import evolve

from exponea_async.cli.exits import Exit
from exponea_async.cli.options import (
    SETTINGS,
    Commands,
    add_json,
    add_settings,
    command,
    configuration,
    opened,
    seconds,
)
from exponea_async.cli.terminal import Progress, number, print_facts, print_json
from exponea_async.models import FlushMode


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = command(commands, "flush", "upload what waits in the queue", SETTINGS)
    parser.add_argument(
        "--timeout",
        type=seconds,
        metavar="SECONDS",
        help="when to leave it at that; by default it waits through outages, but not for a project that is paused",
    )
    add_json(parser)
    add_settings(parser)
    parser.set_defaults(run=run)


async def run(args: argparse.Namespace) -> int:
    """Flush."""
    # By hand only: nothing is to be uploaded beyond the timeout.
    settings = evolve(configuration(args), flush_mode=FlushMode.MANUAL)
    async with opened(settings) as exponea:
        stats = exponea.stats
        async with Progress().telling(lambda: f"{number(stats().delivered)} delivered"):
            result = await exponea.flush_data(args.timeout)
    facts = {"delivered": result.delivered, "rejected": result.rejected, "remaining": result.remaining}
    if args.json:
        print_json(facts)
    else:
        print_facts(facts)
    if result.remaining:
        return Exit.UNSENT
    return Exit.BAD_INPUT if result.rejected else Exit.DONE
