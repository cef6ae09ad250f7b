"""
Checks of the queue's database, its schema and the rights of the role. Nothing is created or changed.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from exponea_async.cli.doctor.disk import check_letters, check_projects, check_waiting
from exponea_async.cli.doctor.finding import Finding
from exponea_async.cli.terminal import duration, number
from exponea_async.config import Configuration
from exponea_async.errors import ConfigurationError
from exponea_async.storage import check_postgres_library, queue_name
from exponea_async.storage.sqlite.inspection import Inspection

if TYPE_CHECKING:
    from exponea_async.storage.postgres.inspection import SchemaInspection, ServerInspection

#: A difference of clocks above this is reported, in seconds.
INACCURATE = 5.0
#: The channel of the check whether notifications arrive.
CHANNEL = "exponea_async_doctor"


async def check_database(
    configuration: Configuration,
    timeout: float,  # noqa: ASYNC109 - it is that of each step
) -> AsyncIterator[Finding]:
    """
    Check the database of the queue.

    Args:
        configuration: The settings, whose queue is in PostgreSQL.
        timeout: The time limit of each step in seconds.
    """
    try:
        check_postgres_library()
    except ConfigurationError as error:
        yield Finding.of_error("database", error)
        return
    from exponea_async.storage.postgres import inspection  # noqa: PLC0415 - asyncpg is an extra

    try:
        connection = await inspection.connect(str(configuration.storage), timeout)
    except (OSError, TimeoutError) as error:
        advice = "Check that the server is running, its address, and the name and the password of the role."
        yield Finding("database", "failed", str(error) or "no answer in time", advice)
        return
    try:
        server = await inspection.inspect_server(connection)
        for finding in _check_server(server, configuration):
            yield finding
        schema = configuration.postgres.schema
        found = await inspection.inspect_schema(connection, schema, queue_name(configuration))
        for finding in _check_schema(found, configuration, server.role):
            yield finding
    finally:
        connection.terminate()
    yield await _check_listening(configuration, timeout)


# The server


def _check_server(server: "ServerInspection", configuration: Configuration) -> Iterator[Finding]:
    from exponea_async.storage.postgres.inspection import OLDEST_SERVER  # noqa: PLC0415 - asyncpg is an extra

    detail = f"PostgreSQL {server.version}, role {server.role}"
    if server.version < OLDEST_SERVER:
        advice = f"Use PostgreSQL {OLDEST_SERVER} or newer."
        yield Finding("database", "failed", f"{detail}: the version is too old", advice)
    elif server.is_standby:
        yield Finding("database", "failed", f"{detail}: the server is a standby", "Use the address of the primary.")
    else:
        yield Finding("database", "ok", detail)
    yield _check_encryption(server)
    yield _check_pooler(server, configuration)
    yield _check_clock(server)
    yield from _check_settings(server)
    yield _check_transactions(server)


def _check_encryption(server: "ServerInspection") -> Finding:
    if server.is_encrypted:
        return Finding("database TLS", "ok", "the connection is encrypted")
    if server.is_local:
        return Finding("database TLS", "ok", "the connection is not encrypted, and does not leave this machine")
    advice = "Add ?sslmode=verify-full to the URL; with a pooler, this is its own connection to the server."
    return Finding("database TLS", "warning", "events go to the database in clear text", advice)


def _check_pooler(server: "ServerInspection", configuration: Configuration) -> Finding:
    settings = configuration.postgres
    if server.is_pooled and not settings.transaction_pooling:
        advice = "If it pools by transaction, set EXPONEA_POSTGRES_TRANSACTION_POOLING=true: prepared statements fail."
        return Finding("pooler", "warning", "connections go through a pooler such as PgBouncer", advice)
    if server.is_pooled:
        return Finding("pooler", "ok", "connections go through a pooler, as postgres.transaction_pooling says")
    return Finding("pooler", "ok", "none; connections are made directly")


def _check_clock(server: "ServerInspection") -> Finding:
    if abs(server.ahead) - server.uncertainty <= INACCURATE:
        return Finding("database clock", "ok", f"it agrees with that of this machine within {INACCURATE:g} s")
    direction = "ahead of" if server.ahead > 0 else "behind"
    detail = f"the clock of this machine is {duration(abs(server.ahead))} {direction} that of the database"
    return Finding("database clock", "warning", detail, "Let both machines synchronize their clocks.")


def _check_settings(server: "ServerInspection") -> Iterator[Finding]:
    settings = server.settings
    for name, trouble in (
        ("fsync", "a crash of the server's machine can destroy the database"),
        ("full_page_writes", "a crash of the server's machine can destroy the database"),
        ("autovacuum", "the space of deleted rows is never reused, and leases become slow"),
    ):
        if settings.get(name) == "off":
            yield Finding("database settings", "warning", f"{name} is off: {trouble}", f"Switch {name} on.")
    if settings.get("synchronous_commit") == "off":
        detail = "synchronous_commit is off by default; queue.durability decides for the queue"
        yield Finding("database settings", "ok", detail)


def _check_transactions(server: "ServerInspection") -> Finding:
    if not server.long:
        return Finding("transactions", "ok", "none is known to be open for long")
    pid, role, age = server.long[0]
    detail = f"{len(server.long)} open for long, the oldest for {duration(age)} (process {pid}, role {role})"
    advice = "End it: meanwhile deleted rows can't be removed, which makes leases slow."
    return Finding("transactions", "warning", detail, advice)


async def _check_listening(
    configuration: Configuration,
    timeout: float,  # noqa: ASYNC109 - it is that of each step
) -> Finding:
    from exponea_async.storage.postgres import inspection  # noqa: PLC0415 - asyncpg is an extra

    settings = configuration.postgres
    if settings.transaction_pooling and settings.listen_url is None:
        return Finding("notifications", "ok", "not used: events of other processes are found by looking now and then")
    url = settings.listen_url or configuration.storage
    advice = (
        "Set EXPONEA_POSTGRES_LISTEN_URL to a direct address; until then, events are found by looking now and then."
    )
    try:
        connection = await inspection.connect(str(url), timeout)
    except (OSError, TimeoutError) as error:
        return Finding("notifications", "warning", str(error) or "no answer in time", advice)
    received = asyncio.Event()
    try:
        await connection.add_listener(CHANNEL, lambda *_: received.set())
        await connection.execute(f"NOTIFY {CHANNEL}")
        with suppress(TimeoutError):
            async with asyncio.timeout(min(timeout, 2.0)):
                await received.wait()
    finally:
        connection.terminate()
    if received.is_set():
        return Finding("notifications", "ok", "LISTEN and NOTIFY work")
    return Finding("notifications", "warning", "no notification arrives", advice)


# The schema and the queue


def _check_schema(found: "SchemaInspection", configuration: Configuration, role: str) -> Iterator[Finding]:
    schema = configuration.postgres.schema
    if not found.may_use:
        advice = f"Let the owner of the schema run 'exponea-async db init --grant {role}'."
        yield Finding("schema", "failed", f"the role {role} may not use the schema {schema}", advice)
        return
    status = found.status
    if status is None:
        advice = "Run 'exponea-async db init', or let the first client create it if postgres.migrate is on."
        yield Finding("schema", "warning", f"the schema {schema} does not exist yet", advice)
        return
    if status.version > status.known:
        detail = f"{schema} has version {status.version}, and this version supports at most {status.known}"
        yield Finding("schema", "failed", detail, "Update exponea-async.")
        return
    if not status.is_current:
        detail = f"{schema} has version {status.version}, and this version needs {status.known}"
        yield Finding("schema", "warning", detail, "Run 'exponea-async db migrate'.")
        return
    yield Finding("schema", "ok", f"{schema}, version {status.version}")
    yield _check_rights(found, configuration, role)
    if found.kind is not None:
        yield from _check_queue(found, configuration)


def _check_rights(found: "SchemaInspection", configuration: Configuration, role: str) -> Finding:
    if found.kind == "uploader":
        return Finding("rights", "ok", f"{role} may record, send and maintain the queue")
    if found.kind == "producer" and not configuration.upload.enabled:
        return Finding("rights", "ok", f"{role} may record, and not send")
    advice = f"Let the owner of the schema run 'exponea-async db init --grant {role}'."
    if found.kind == "producer":
        return Finding("rights", "failed", f"{role} may only record, and upload.enabled is on", advice)
    return Finding("rights", "failed", f"{role} lacks {', '.join(found.missing[:5])}", advice)


def _check_queue(found: "SchemaInspection", configuration: Configuration) -> Iterator[Finding]:
    content = Inspection(waiting=found.waiting, dead=found.dead, oldest=found.oldest, projects=found.projects)
    yield Finding("clients", "ok", f"{found.clients} have the queue {queue_name(configuration)} open")
    yield check_waiting(content, configuration)
    yield from check_projects(content, configuration)
    yield check_letters(found.dead)
    for table, count in found.dead_rows:
        advice = "Look for transactions that are open for long, and run VACUUM on the table."
        yield Finding("dead rows", "warning", f"{table} has {number(count)} that were not removed yet", advice)
