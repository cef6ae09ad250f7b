"""
``exponea-async flush``: upload the queue.
"""

import argparse
import time
from collections.abc import Callable

from attrs import evolve

from exponea_async.cli.options import (
    SETTINGS_HELP,
    Commands,
    add_json_option,
    add_parser,
    add_settings_options,
    open_client,
    read_configuration,
    seconds,
    waiting_by_project,
    with_uploads,
)
from exponea_async.cli.terminal import (
    Exit,
    Progress,
    ProgressLine,
    duration,
    number,
    print_diagnostic,
    print_json,
    print_summary,
)
from exponea_async.client import Exponea
from exponea_async.models import FlushMode


def register(commands: Commands) -> None:
    """Add the command."""
    parser = add_parser(commands, "flush", "upload the events that wait in the queue", SETTINGS_HELP)
    parser.add_argument(
        "--timeout",
        type=seconds,
        metavar="SECONDS",
        help="when to stop; by default the command waits through outages, but not for a project that is paused",
    )
    add_json_option(parser)
    add_settings_options(parser)
    parser.set_defaults(run=run)


def _describer(exponea: Exponea, total: int) -> Callable[[], ProgressLine]:
    """Return a function that returns how much of the queue is uploaded."""
    started_at = time.monotonic()

    def describe() -> ProgressLine:
        stats = exponea.stats()
        done = stats.delivered + stats.rejected
        rate = done / max(time.monotonic() - started_at, 1e-3)
        left = f"{duration((total - done) / rate)} left" if 0 < done < total else ""
        text = f"{number(done)} of {number(max(done, total))} events  {rate:,.0f}/s  {left}"
        return ProgressLine(text.rstrip(), min(1.0, done / total) if total else None)

    return describe


async def run(args: argparse.Namespace) -> int:
    """Upload the queue."""
    # In manual mode nothing is uploaded beyond the timeout.
    configuration = evolve(with_uploads(read_configuration(args)), flush_mode=FlushMode.MANUAL)
    # A record of another project, which these settings may not even know, is not the fault of this command.
    own = {each.project_token for each in configuration.projects}
    waiting = await waiting_by_project(configuration)
    async with open_client(configuration) as exponea:
        describe = _describer(exponea, sum(waiting[project] for project in own))
        async with Progress().refreshing(describe):
            result = await exponea.flush_data(args.timeout, projects=own)
    summary = {"delivered": result.delivered, "rejected": result.rejected, "remaining": result.remaining}
    if args.json:
        print_json({**summary, "reasons": dict(result.reasons)})
    else:
        print_summary(summary)
    for project in result.reasons.keys() - own:
        print_diagnostic(f"events for another project wait in the queue: {result.reasons[project]}")
    if result.remaining:
        return Exit.UNSENT
    return Exit.BAD_INPUT if result.rejected else Exit.DONE
