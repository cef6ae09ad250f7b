"""
``exponea-async import``: a file's lines as events, from where it was left off.
"""

import argparse
from pathlib import Path
from typing import Any

from exponea_async.cli.exits import UsageError
from exponea_async.cli.importer.job import Job, carry_out
from exponea_async.cli.importer.mapping import TYPES, Plan, Source
from exponea_async.cli.importer.reader import FORMATS, Layout, guess
from exponea_async.cli.importer.timestamps import AUTO, Format, pattern, zone
from exponea_async.cli.options import SETTINGS, Commands, add_json, add_settings, command, configuration, mapping, pair
from exponea_async.cli.terminal import Progress

ABOUT = """\
  exponea-async import orders.csv --event purchase --id registered=email --timestamp created_at \\
      --property total_price=amount:number

Each line becomes an event. The import can be broken off at any time: the same command goes on where it was, by a
journal beside the file. Timestamps come from the file, so lines that are sent twice are the same to the letter, and
the platform removes the second as a duplicate. It would also remove a second line that says the same as another one;
--line-number keeps such lines apart. EXPONEA_DEFAULT_PROPERTIES adds properties that are the same on all events.

"""


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = command(commands, "import", "track the lines of a file as events", ABOUT + SETTINGS)
    parser.add_argument("file", type=Path, metavar="FILE", help="JSON Lines, CSV or columns, in UTF-8")
    _add_layout(parser.add_argument_group("the file"))
    _add_plan(parser.add_argument_group("what its columns mean"))
    group = parser.add_argument_group("the import")
    group.add_argument("--journal", type=Path, metavar="FILE", help="where the place is kept; FILE.journal by default")
    group.add_argument("--bad", type=Path, metavar="FILE", help="where bad lines go; FILE.bad.jsonl by default")
    group.add_argument("--again", action="store_true", help="begin anew, whatever the journal says")
    add_json(parser)
    add_settings(parser)
    parser.set_defaults(run=run)


def _add_layout(group: Any) -> None:
    group.add_argument(
        "--format", choices=FORMATS, help="by default guessed from the ending; columns are separated by any white space"
    )
    group.add_argument(
        "--columns",
        type=_names,
        default=(),
        metavar="A,B,...",
        help="the columns' names; without them the first line tells them",
    )
    group.add_argument(
        "--delimiter", type=_delimiter, metavar="CHARACTER", help="of CSV; a comma by default, 'tab' in .tsv"
    )
    group.add_argument(
        "--skip-lines", type=_lines, default=0, metavar="N", help="lines at the beginning that mean nothing"
    )


def _add_plan(group: Any) -> None:
    event = group.add_mutually_exclusive_group(required=True)
    event.add_argument("--event", metavar="NAME", help="the type of all events")
    event.add_argument("--event-column", metavar="COLUMN", help="the column that tells the event type")
    group.add_argument(
        "--id",
        dest="ids",
        action="append",
        type=pair,
        required=True,
        metavar="KIND=COLUMN",
        help="an id of the customer, such as registered=email; repeatable",
    )
    group.add_argument("--timestamp", required=True, metavar="COLUMN", help="when it happened")
    group.add_argument(
        "--timestamp-format",
        type=pattern,
        default=AUTO,
        metavar="FORMAT",
        help="seconds, milliseconds, iso, or a pattern of strptime's such as %%Y%%m%%d; by default seconds or ISO",
    )
    group.add_argument(
        "--timezone", type=zone, default="UTC", metavar="ZONE", help="of times without an offset; UTC by default"
    )
    group.add_argument(
        "--property",
        dest="properties",
        action="append",
        type=_source,
        default=[],
        metavar="NAME=COLUMN[:TYPE]",
        help=f"a property; its type is {', '.join(TYPES)}, or what the file has; repeatable",
    )
    group.add_argument("--line-number", metavar="PROPERTY", help="a property with the line's number in the file")


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not all(names) or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"{text!r} does not name each column, once")
    return names


def _delimiter(text: str) -> str:
    character = "\t" if text in ("tab", r"\t") else text
    if len(character) != 1 or character in '"\r\n':
        raise argparse.ArgumentTypeError(f"{text!r} is no single character that can separate columns")
    return character


def _lines(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of lines")
    return int(text[:18])


def _source(text: str) -> Source:
    name, column = pair(text)
    # A column's own name may have a colon in it.
    start, mark, kind = column.rpartition(":")
    if mark and kind in TYPES:
        return Source(name, start, kind)
    return Source(name, column)


async def run(args: argparse.Namespace) -> int:
    """Import a file."""
    path: Path = args.file
    form = args.format or guess(path)
    if form == "jsonl" and args.columns:
        raise UsageError("--columns: in JSON Lines each line names its columns itself")
    delimiter = args.delimiter or ("\t" if path.suffix.lower() == ".tsv" else ",")
    job = Job(
        path=path,
        layout=Layout(form, args.columns, delimiter, args.skip_lines),
        plan=_plan(args),
        journal=args.journal or path.with_name(f"{path.name}.journal"),
        bad=args.bad or path.with_name(f"{path.name}.bad.jsonl"),
        settings=configuration(args),
        again=args.again,
    )
    return await carry_out(job, Progress(), as_json=args.json)


def _plan(args: argparse.Namespace) -> Plan:
    names = [(each.name, each) for each in args.properties]
    if args.line_number:
        names.append((args.line_number, None))
    mapping("--property", names)
    return Plan(
        event=args.event,
        event_column=args.event_column,
        ids=mapping("--id", args.ids),
        timestamp=args.timestamp,
        moments=Format(args.timestamp_format, args.timezone),
        properties=args.properties,
        line_number=args.line_number,
    )
