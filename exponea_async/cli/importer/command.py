"""
``exponea-async import``: track the lines of a file as events; an interrupted import can be continued.
"""

import argparse
import asyncio
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from exponea_async.cli.importer.checkpoint import Checkpoint
from exponea_async.cli.importer.job import Importer, Job
from exponea_async.cli.importer.mapping import TYPES, ColumnMapping, PropertySource
from exponea_async.cli.importer.reader import FORMATS, Layout, guess_format
from exponea_async.cli.importer.timestamps import AUTO, TimestampFormat, time_zone, timestamp_pattern
from exponea_async.cli.options import (
    SETTINGS_HELP,
    Commands,
    add_json_option,
    add_parser,
    add_settings_options,
    first_completed,
    name_and_value,
    open_client,
    read_configuration,
    unique_names,
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

Each line becomes an event. The import can be interrupted at any time: the same command continues it, because a journal
beside the file stores how far it has come. Timestamps come from the file, so a line that is sent twice makes two equal
events, and the platform removes the second one as a duplicate. It would also remove an event that equals that of
another line; --line-number keeps such lines apart. EXPONEA_DEFAULT_PROPERTIES adds the same properties to all events.

"""


def register(commands: Commands) -> None:
    """Add the command."""
    parser = add_parser(commands, "import", "track the lines of a file as events", DESCRIPTION + SETTINGS_HELP)
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="JSON Lines, CSV or whitespace-separated columns, in UTF-8"
    )
    _add_layout_options(parser.add_argument_group("layout of the file"))
    _add_mapping_options(parser.add_argument_group("meaning of the columns"))
    group = parser.add_argument_group("the import")
    group.add_argument(
        "--journal", type=Path, metavar="FILE", help="the file for the progress; FILE.journal by default"
    )
    group.add_argument("--bad", type=Path, metavar="FILE", help="the file for invalid lines; FILE.bad.jsonl by default")
    group.add_argument("--again", action="store_true", help="start over, even if the journal contains a checkpoint")
    add_json_option(parser)
    add_settings_options(parser)
    parser.set_defaults(run=run)


def _add_layout_options(group: Any) -> None:
    group.add_argument(
        "--format", choices=FORMATS, help="by default it depends on the suffix; columns are separated by whitespace"
    )
    group.add_argument(
        "--columns",
        type=_column_names,
        default=(),
        metavar="A,B,...",
        help="the names of the columns; by default the first line contains them",
    )
    group.add_argument(
        "--delimiter", type=_delimiter, metavar="CHARACTER", help="of CSV; a comma by default, 'tab' for .tsv"
    )
    group.add_argument(
        "--skip-lines", type=_line_count, default=0, metavar="N", help="how many lines at the beginning to skip"
    )


def _add_mapping_options(group: Any) -> None:
    event = group.add_mutually_exclusive_group(required=True)
    event.add_argument("--event", metavar="NAME", help="the type of all events")
    event.add_argument("--event-column", metavar="COLUMN", help="the column with the event type")
    group.add_argument(
        "--id",
        dest="ids",
        action="append",
        type=name_and_value,
        required=True,
        metavar="KIND=COLUMN",
        help="an id of the customer and its column, for example registered=email; repeatable",
    )
    group.add_argument("--timestamp", required=True, metavar="COLUMN", help="the column that contains when it happened")
    group.add_argument(
        "--timestamp-format",
        type=timestamp_pattern,
        default=AUTO,
        metavar="FORMAT",
        help="seconds, milliseconds, iso, or a pattern of strptime such as %%Y%%m%%d; by default seconds or ISO 8601",
    )
    group.add_argument(
        "--timezone",
        type=time_zone,
        default="UTC",
        metavar="ZONE",
        help="the time zone of timestamps without an offset; UTC by default",
    )
    group.add_argument(
        "--property",
        dest="properties",
        action="append",
        type=_property_source,
        default=[],
        metavar="NAME=COLUMN[:TYPE]",
        help=f"a property and its column; the type is {', '.join(TYPES)}, or by default that of the file; repeatable",
    )
    group.add_argument("--line-number", metavar="PROPERTY", help="a property for the number of the line in the file")


def _column_names(string: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in string.split(","))
    if not all(names) or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"must name each column once, got {string!r}")
    return names


def _delimiter(string: str) -> str:
    character = "\t" if string in ("tab", r"\t") else string
    if len(character) != 1 or character in '"\r\n':
        raise argparse.ArgumentTypeError(
            f"must be one character, neither a double quote nor a line break, got {string!r}"
        )
    return character


def _line_count(string: str) -> int:
    if not (string.isascii() and string.isdecimal()):
        raise argparse.ArgumentTypeError(f"must be a number of lines, got {string!r}")
    return int(string[:18])


def _property_source(string: str) -> PropertySource:
    name, column = name_and_value(string)
    # The name of a column may itself contain a colon.
    start, separator, type_name = column.rpartition(":")
    if separator and type_name in TYPES:
        return PropertySource(name, start, type_name)
    return PropertySource(name, column)


def _job(args: argparse.Namespace) -> Job:
    path: Path = args.file
    file_format = args.format or guess_format(path)
    if file_format == "jsonl" and args.columns:
        raise UsageError("--columns", "can't be used with JSON Lines, where each line names its columns", "Remove it.")
    delimiter = args.delimiter or ("\t" if path.suffix.lower() == ".tsv" else ",")
    return Job(
        path=path,
        layout=Layout(file_format, args.columns, delimiter, args.skip_lines),
        mapping=_mapping(args),
        journal=args.journal or path.with_name(f"{path.name}.journal"),
        rejects=args.bad or path.with_name(f"{path.name}.bad.jsonl"),
        configuration=read_configuration(args),
        again=args.again,
    )


def _mapping(args: argparse.Namespace) -> ColumnMapping:
    names = [(each.name, each) for each in args.properties]
    if args.line_number:
        names.append((args.line_number, None))
    unique_names("--property", names)
    return ColumnMapping(
        event=args.event,
        event_column=args.event_column,
        ids=unique_names("--id", args.ids),
        timestamp=args.timestamp,
        timestamp_format=TimestampFormat(args.timestamp_format, args.timezone),
        properties=args.properties,
        line_number=args.line_number,
    )


async def run(args: argparse.Namespace) -> int:
    """Import a file, or continue its import."""
    job = _job(args)
    _check_paths(job)
    with await asyncio.to_thread(_open_file, job.path) as file:
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


def _check_paths(job: Job) -> None:
    if len({path.resolve() for path in (job.path, job.journal, job.rejects)}) < 3:
        raise UsageError("FILE", "must differ from --journal and --bad", "Choose three different files.")


def _open_file(path: Path) -> BinaryIO:
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
    print_json({**summary, **state})


def _exit_code(job: Job, importer: Importer) -> int:
    rejected = importer.deliveries.rejected
    if importer.invalid:
        print_diagnostic(f"{number(importer.invalid)} lines are invalid; {job.rejects} lists them with the reasons")
    if rejected:
        print_diagnostic(f"Engagement rejected {number(rejected)} events; 'exponea-async queue dead' shows the reasons")
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
