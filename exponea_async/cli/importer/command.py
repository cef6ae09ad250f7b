"""
``exponea-async import``: track the lines of a file as events; an interrupted import can be continued.
"""

import argparse
import asyncio
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from exponea_async.cli.importer.arguments import add_arguments, read_job
from exponea_async.cli.importer.checkpoint import Checkpoint
from exponea_async.cli.importer.dry_run import DryRun
from exponea_async.cli.importer.job import Importer, Job
from exponea_async.cli.importer.observations import Observations
from exponea_async.cli.options import (
    SETTINGS_HELP,
    Commands,
    add_json_option,
    add_parser,
    add_settings_options,
    first_completed,
    open_client,
)
from exponea_async.cli.terminal import (
    Exit,
    Progress,
    UsageError,
    number,
    print_diagnostic,
    print_json,
    print_line,
    print_summary,
)
from exponea_async.hooks import DeliveryEvent, Hooks

DESCRIPTION = """\
  exponea-async import orders.csv --event purchase --id registered=email --timestamp created_at \\
      --property total_price=amount:number
  exponea-async import people.csv --customers --id registered=email --property first_name=name

Each line becomes an event, or with --customers an update of a customer's properties. --dry-run checks the whole file
first and writes nothing. The import can be interrupted at any time: the same command continues it, because a journal
beside the file stores how far it has come.

Timestamps come from the file, so a line that is sent twice makes two equal events, and the platform removes the second
one as a duplicate. It would also remove an event that equals that of another line; --line-number keeps such lines
apart. EXPONEA_DEFAULT_PROPERTIES adds the same properties to all events.

Invalid lines go to FILE.bad.jsonl with the reasons. Correct "values" (or "text") there, and import that file with the
same options.

"""


def register(commands: Commands) -> None:
    """Add the command."""
    summary = "track the lines of a file as events, or set the properties of customers"
    parser = add_parser(commands, "import", summary, DESCRIPTION + SETTINGS_HELP)
    add_arguments(parser)
    add_json_option(parser)
    add_settings_options(parser)
    parser.set_defaults(run=run)


async def run(args: argparse.Namespace) -> int:
    """Import a file, or continue its import."""
    job = read_job(args)
    _check_paths(job)
    with await asyncio.to_thread(_open_file, job.path) as file:
        if args.dry_run:
            return await _check(await asyncio.to_thread(DryRun, job, file), as_json=args.json)
        importer = await asyncio.to_thread(Importer, job, file)
        if importer.is_finished:
            _print_already_finished(job.path, importer.checkpoint, as_json=args.json)
            return Exit.DONE
        try:
            await _import(job, importer)
        finally:
            importer.close()
    _print_result(importer, as_json=args.json)
    return _exit_code(job, importer)


async def _check(dry_run: DryRun, *, as_json: bool) -> int:
    async with Progress().refreshing(dry_run.describe):
        await dry_run.run()
    if as_json:
        print_json(dry_run.as_json())
    else:
        print_summary(dry_run.summary())
        for line, reason in dry_run.shown:
            print_diagnostic(f"line {number(line)}: {reason}")
        if dry_run.invalid > len(dry_run.shown):
            print_diagnostic(f"{number(dry_run.invalid - len(dry_run.shown))} more lines are invalid")
    _print_warnings(dry_run.observations)
    return Exit.BAD_INPUT if dry_run.invalid else Exit.DONE


def _print_warnings(observations: Observations) -> None:
    for warning in observations.warnings():
        print_diagnostic(f"warning: {warning}")


def _check_paths(job: Job) -> None:
    if len({path.resolve() for path in (job.path, job.journal, job.rejects)}) < 3:
        raise UsageError("FILE", "must differ from --journal and --bad", "Choose three different files.")


def _open_file(path: Path) -> BinaryIO:
    if path.is_fifo() or path.is_char_device():
        # Opening a pipe may take forever, and it can't be read again after an interruption.
        raise UsageError(path, "expected a regular file, got a pipe or a device", "Write its content to a file first.")
    try:
        return path.open("rb")
    except OSError as error:
        raise UsageError(path, f"can't be read: {error.strerror}", "Choose another file.") from None


async def _import(job: Job, importer: Importer) -> None:
    progress = Progress()
    if importer.start.offset:
        progress.print(f"{job.path} continues after line {number(importer.start.line_number)}.")
    paused = asyncio.Event()

    def stop_when_paused(event: DeliveryEvent) -> None:
        if event.kind == "paused" and event.project in job.projects:
            paused.set()

    hooks = Hooks(listeners=[stop_when_paused])
    try:
        configuration = await job.client_configuration()
        async with open_client(configuration, hooks) as exponea, progress.refreshing(importer.describe):
            await first_completed(importer.run(exponea), paused.wait())
    except asyncio.CancelledError:
        line = number(importer.checkpoint.line_number)
        print_diagnostic(f"{job.path} was read up to line {line}; the same command continues there")
        raise


def _print_result(importer: Importer, *, as_json: bool) -> None:
    summary = {
        "lines": importer.lines,
        "tracked": importer.tracked,
        "delivered": importer.deliveries.delivered,
        "rejected": importer.deliveries.rejected,
        "bad": importer.invalid,
        "seconds": round(importer.seconds, 1),
        "events/s": round(importer.tracked / importer.seconds, 1),
    }
    if not as_json:
        print_summary(summary)
        return
    state = {
        "remaining": importer.remaining,
        "resumed_at": importer.start.line_number,
        "finished": importer.is_finished,
    }
    print_json({**summary, **state, "warnings": importer.observations.as_json()})


def _exit_code(job: Job, importer: Importer) -> int:
    rejected = importer.deliveries.rejected
    _print_warnings(importer.observations)
    if importer.invalid:
        found = "line is invalid. Correct it" if importer.invalid == 1 else "lines are invalid. Correct them"
        print_diagnostic(f"{number(importer.invalid)} {found} in {job.rejects} and import that file")
    if rejected:
        events = "1 event" if rejected == 1 else f"{number(rejected)} events"
        print_diagnostic(f"Engagement rejected {events}; 'exponea-async queue dead' shows the reasons")
    if not importer.is_finished:
        print_diagnostic(
            f"{number(importer.remaining)} events wait in the queue; the same command continues the import"
        )
        return Exit.UNSENT
    return Exit.BAD_INPUT if importer.invalid or rejected else Exit.DONE


def _print_already_finished(path: Path, checkpoint: Checkpoint, *, as_json: bool) -> None:
    if as_json:
        print_json({"already": True, **checkpoint.as_json()})
        return
    time = datetime.fromtimestamp(checkpoint.finished_at or 0.0).astimezone().isoformat(" ", "seconds")
    counts = f"{number(checkpoint.tracked)} events of {number(checkpoint.lines)} lines"
    print_line(f"{path} was imported on {time}: {counts}.")
    print_line("Nothing was done. Pass --again to import it once more.")
