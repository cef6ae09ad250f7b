"""
``exponea-async doctor``: check everything that tracking needs, and say what to do about what is wrong.
"""

import argparse
import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable

from attrs import asdict

from exponea_async.cli.doctor.database import check_database
from exponea_async.cli.doctor.disk import check_storage
from exponea_async.cli.doctor.finding import Finding
from exponea_async.cli.doctor.network import check_network
from exponea_async.cli.doctor.settings import check_proxies, check_settings, check_versions
from exponea_async.cli.options import (
    SETTINGS_HELP,
    Commands,
    add_json_option,
    add_parser,
    add_settings_options,
    read_settings,
    read_storage_settings,
    seconds,
)
from exponea_async.cli.terminal import Exit, UsageError, print_finding, print_json, print_line
from exponea_async.config import Configuration
from exponea_async.errors import ConfigurationError
from exponea_async.storage import is_in_postgres

TIMEOUT = 10.0

DESCRIPTION = """\
The command checks the versions, the settings, the way to the platform, the key of each project, the clock, and the
file of the queue. Each line says what was found, and what to do if something is wrong.

No event is tracked and nothing is changed: the only request returns the platform's time, and the file is only read.
The exit code is 1 if a check has failed.

"""


def register(commands: Commands) -> None:
    """Add the command."""
    summary = "check the settings, the connection, the key and the queue"
    parser = add_parser(commands, "doctor", summary, DESCRIPTION + SETTINGS_HELP)
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=TIMEOUT,
        metavar="SECONDS",
        help=f"the time limit of each connection and each request, {TIMEOUT:g} by default",
    )
    add_json_option(parser)
    add_settings_options(parser)
    parser.set_defaults(run=run)


async def run(args: argparse.Namespace) -> int:
    """Run all checks."""
    findings: list[Finding] = []
    async for finding in _findings(args):
        findings.append(finding)
        if not args.json:
            print_finding(finding.status, finding.name, finding.detail, finding.advice)
    counts = Counter(finding.status for finding in findings)
    if args.json:
        print_json({"ok": not counts["failed"], "checks": [asdict(finding) for finding in findings]})
    else:
        print_line(f"failed: {counts['failed']}, warnings: {counts['warning']}, ok: {counts['ok']}")
    return Exit.FAILED if counts["failed"] else Exit.DONE


async def _findings(args: argparse.Namespace) -> AsyncIterator[Finding]:
    for finding in check_versions():
        yield finding
    configuration: Configuration | None = None
    try:
        configuration = read_settings(args)
    except (ConfigurationError, UsageError) as error:
        yield _invalid(error)
        storage_settings = _storage_settings(args)
        if storage_settings is None:
            return
    else:
        storage_settings = configuration
        for finding in (*check_settings(configuration), *check_proxies(configuration)):
            yield finding
        async for finding in check_network(configuration, args.timeout):
            yield finding
    for finding in await asyncio.to_thread(_all, check_storage(storage_settings)):
        yield finding
    if is_in_postgres(storage_settings):
        async for finding in check_database(storage_settings, args.timeout):
            yield finding


def _all(findings: Iterable[Finding]) -> list[Finding]:
    return list(findings)


def _invalid(error: ConfigurationError | UsageError) -> Finding:
    if isinstance(error, UsageError):
        return Finding("settings", "failed", f"{error.subject}: {error.trouble}", error.hint)
    return Finding.of_error("settings", error)


def _storage_settings(args: argparse.Namespace) -> Configuration | None:
    """Return settings for the checks of the storage, or None if not even these are valid."""
    try:
        return read_storage_settings(args)
    except ConfigurationError:
        return None
