"""
The arguments of an import, and the job that they describe.
"""

import argparse
from pathlib import Path
from typing import Any

from exponea_async.cli.importer.job import Job
from exponea_async.cli.importer.mapping import TYPES, ColumnMapping, PropertySource
from exponea_async.cli.importer.reader import FORMATS, Layout, guess_format
from exponea_async.cli.importer.rejects import REJECTS, is_rejects
from exponea_async.cli.importer.timestamps import AUTO, TimestampFormat, time_zone, timestamp_pattern
from exponea_async.cli.options import name_and_value, read_configuration, read_storage_settings, unique_names
from exponea_async.cli.terminal import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the file and all options of an import."""
    parser.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help="JSON Lines, CSV or whitespace-separated columns, in UTF-8; or a corrected FILE.bad.jsonl of an import",
    )
    _add_layout_options(parser.add_argument_group("layout of the file"))
    _add_mapping_options(parser.add_argument_group("meaning of the columns"))
    group = parser.add_argument_group("the import")
    group.add_argument(
        "--dry-run", action="store_true", help="check all lines and write nothing; no key is needed, nothing is sent"
    )
    group.add_argument(
        "--journal", type=Path, metavar="FILE", help="the file for the progress; FILE.journal by default"
    )
    group.add_argument(
        "--bad",
        type=Path,
        metavar="FILE",
        help="the file for invalid lines, with the reasons; FILE.bad.jsonl by default",
    )
    group.add_argument("--again", action="store_true", help="start over, even if the journal contains a checkpoint")


def _add_layout_options(group: Any) -> None:
    group.add_argument(
        "--format",
        choices=FORMATS,
        help="the format of the file, by default that of its suffix; 'columns' are separated by whitespace",
    )
    group.add_argument(
        "--columns",
        type=_column_names,
        default=(),
        metavar="A,B,...",
        help="the names of the columns; by default the first line contains them",
    )
    group.add_argument(
        "--delimiter",
        type=_delimiter,
        metavar="CHARACTER",
        help="the character between the columns of CSV; a comma by default; 'tab' for a tab, as for .tsv by default",
    )
    group.add_argument(
        "--skip-lines", type=_line_count, default=0, metavar="N", help="how many lines at the beginning to skip"
    )


def _add_mapping_options(group: Any) -> None:
    event = group.add_mutually_exclusive_group(required=True)
    event.add_argument("--event", metavar="NAME", help="the type of all events")
    event.add_argument("--event-column", metavar="COLUMN", help="the column with the event type")
    event.add_argument(
        "--customers", action="store_true", help="set the properties of customers instead of tracking events"
    )
    group.add_argument(
        "--id",
        dest="ids",
        action="append",
        type=name_and_value,
        required=True,
        metavar="KIND=COLUMN",
        help="an id of the customer and its column, for example registered=email; repeatable",
    )
    group.add_argument(
        "--timestamp", metavar="COLUMN", help="the column with the time of the event; required for events"
    )
    group.add_argument(
        "--timestamp-format",
        type=timestamp_pattern,
        default=AUTO,
        metavar="FORMAT",
        help="seconds, milliseconds, microseconds, iso, or a pattern of strptime such as %%Y%%m%%d; by default auto: a "
        "number, whose size tells which of the three units it has, or ISO 8601; a file may have all of them",
    )
    group.add_argument(
        "--timestamp-format-column",
        metavar="COLUMN",
        help="the column with the format of each timestamp; where it is empty, --timestamp-format counts",
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


def read_job(args: argparse.Namespace) -> Job:
    """
    Return what is to be imported, and how.

    Raises:
        ConfigurationError: A setting is wrong.
        UsageError: The options contradict each other.
    """
    path: Path = args.file
    return Job(
        path=path,
        layout=_layout(args),
        mapping=_mapping(args),
        journal=args.journal or path.parent / f"{path.name}.journal",
        rejects=args.bad or path.parent / f"{path.name}.bad.jsonl",
        configuration=read_storage_settings(args) if args.dry_run else read_configuration(args),
        again=args.again,
    )


def _layout(args: argparse.Namespace) -> Layout:
    path: Path = args.file
    if is_rejects(path):
        # The options are those of the first import, and each line has the layout that it had there.
        return Layout(REJECTS)
    file_format = args.format or guess_format(path)
    if file_format == "jsonl" and args.columns:
        raise UsageError("--columns", "can't be used with JSON Lines, where each line names its columns", "Remove it.")
    delimiter = args.delimiter or ("\t" if path.suffix.lower() == ".tsv" else ",")
    return Layout(file_format, args.columns, delimiter, args.skip_lines)


def _mapping(args: argparse.Namespace) -> ColumnMapping:
    names = [(each.name, each) for each in args.properties]
    if args.line_number:
        names.append((args.line_number, None))
    unique_names("--property", names)
    if args.customers and args.timestamp:
        trouble = "can't be used with --customers, whose properties are set at the time of the import"
        raise UsageError("--timestamp", trouble, "Remove it; --property keeps the column as a property.")
    if not args.customers and not args.timestamp:
        raise UsageError("--timestamp", "is missing", "Name the column that contains when the event happened.")
    return ColumnMapping(
        event=args.event,
        event_column=args.event_column,
        is_customers=args.customers,
        ids=unique_names("--id", args.ids),
        timestamp=args.timestamp,
        timestamp_format=TimestampFormat(args.timestamp_format, args.timezone),
        format_column=args.timestamp_format_column,
        properties=args.properties,
        line_number=args.line_number,
    )
