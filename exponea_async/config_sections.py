"""
The settings of a client's queue, of the database that it may be in, and of its upload.
"""

import os
import re
from collections.abc import Callable
from ssl import SSLContext
from typing import Any, Literal, Protocol

from attrs import Attribute, field, frozen

from exponea_async._internal import validation as checks
from exponea_async._internal.postgres_url import postgres_url
from exponea_async._internal.secrets import to_secret
from exponea_async.errors import ConfigurationError

#: The largest command, 800 KB (819,200 bytes), must fit into a batch.
MIN_BATCH_BYTES = 820_000 + 1_000


#: The smallest limit of the queue's size, which the largest command fits into.
MIN_QUEUE_BYTES = 2_000_000


@frozen(kw_only=True)
class QueueSettings:
    """
    The settings of the queue.

    Args:
        max_records: Maximum number of records in the queue.
        max_bytes: Maximum size of the content of the queue in bytes, dead letters and devices included; None for no
            limit. The write-ahead log of a file is limited separately, to the same size, but at least 8 MB.
        when_full: What a call does when the queue is full: ``"raise"`` a `QueueFullError`, ``"wait"`` for room, or
            ``"drop_oldest"``.
        max_age: After this time in seconds, an undelivered record becomes a dead letter; 30 days by default.
        max_dead_letters: Maximum number of dead letters; the oldest ones beyond it are deleted.
        dead_letter_max_age: After this time in seconds, a dead letter is deleted; 90 days by default.
        durability: What a recorded event survives: a crash of the ``"process"``, or also a loss of ``"power"``; in
            PostgreSQL, a crash of the client, or also one of the database's server.
        follow_links: Whether `Configuration.storage` may be a symbolic link to the file. By default it is refused,
            since whoever can create a link there could choose the file that is written.
        lock_timeout: How long a call waits while another program holds the lock of the file, or while the database
            does not answer, in seconds, before it raises a `StorageError`.
    """

    max_records: int = field(default=1_000_000, validator=checks.integer(1))
    max_bytes: int | None = field(default=None, validator=checks.optional(checks.integer(MIN_QUEUE_BYTES)))
    when_full: Literal["raise", "wait", "drop_oldest"] = field(
        default="raise", validator=checks.one_of(("raise", "wait", "drop_oldest"))
    )
    max_age: float = field(default=30 * 86_400.0, converter=checks.to_seconds, validator=checks.positive("seconds"))
    max_dead_letters: int = field(default=100_000, validator=checks.integer(0))
    dead_letter_max_age: float = field(
        default=90 * 86_400.0, converter=checks.to_seconds, validator=checks.positive("seconds")
    )
    durability: Literal["process", "power"] = field(default="process", validator=checks.one_of(("process", "power")))
    follow_links: bool = field(default=False, validator=checks.boolean)
    lock_timeout: float = field(default=5.0, converter=checks.to_seconds, validator=checks.positive("seconds"))


#: A name that PostgreSQL accepts without quotes and without cutting it.
_SCHEMA = r"[a-z_][a-z0-9_]{0,62}"
_check_schema = checks.check(
    (lambda value: not isinstance(value, str), "expected a string, got {type}"),
    (
        lambda value: not re.fullmatch(_SCHEMA, value),
        "must consist of at most 63 lower-case ASCII letters, digits and '_', and not begin with a digit, got {value}",
    ),
    (lambda value: value.startswith("pg_"), "must not begin with 'pg_', which PostgreSQL reserves, got {value}"),
    hint="Use a name such as 'exponea_async'.",
)


class ConnectionPool(Protocol):
    """An ``asyncpg.Pool``; asyncpg need not be installed."""

    def acquire(self, *, timeout: Any = ...) -> Any:
        """Return a connection."""

    def is_closing(self) -> bool:
        """Return whether the pool is closed or closing."""


def is_pool(value: object) -> bool:
    """Return whether a value is an ``asyncpg.Pool``, without importing asyncpg."""
    return any(
        kind.__name__ == "Pool" and kind.__module__.partition(".")[0] == "asyncpg" for kind in type(value).__mro__
    )


@frozen(kw_only=True)
class PostgresSettings:
    """
    The settings of a queue in PostgreSQL.

    Args:
        schema: The schema that the tables are in. All queues in it share them.
        migrate: Whether the start creates the schema, or updates it, where the role has the right to. Otherwise it is a
            `StorageError` that the schema is missing or old.
        transaction_pooling: Whether the connections go through PgBouncer in transaction mode. Prepared statements are
            not cached then, and notifications of other processes need `listen_url`.
        listen_url: The URL of a direct connection for notifications, where `Configuration.storage` is a pool or leads
            to PgBouncer; None for no such connection.
        max_connections: Maximum number of connections of the client's own pool. A pool that is given in
            `Configuration.storage` has a size of its own.
    """

    schema: str = field(default="exponea_async", validator=_check_schema)
    migrate: bool = field(default=True, validator=checks.boolean)
    transaction_pooling: bool = field(default=False, validator=checks.boolean)
    listen_url: str | None = field(
        default=None, converter=to_secret, repr=False, validator=checks.optional(postgres_url)
    )
    max_connections: int = field(default=4, validator=checks.integer(1))


#: A name that all clients on a storage can have in common.
_LIMIT_NAME = r"[A-Za-z0-9_.:-]{1,100}"
_check_limit_name = checks.check(
    (lambda value: not isinstance(value, str), "expected a string, got {type}"),
    (
        lambda value: not re.fullmatch(_LIMIT_NAME, value),
        "must consist of 1 to 100 ASCII letters, digits and any of '_.:-', got {value}",
    ),
    hint="Use a name such as 'office', or None.",
)


def _check_backoff(settings: "UploadSettings", attribute: "Attribute[Any]", value: float) -> None:
    if value < settings.backoff_initial:
        trouble = f"must be at least backoff_initial, {settings.backoff_initial}, got {value}"
        raise ConfigurationError(attribute.name, trouble, "Use backoff_initial or more.")


@frozen(kw_only=True)
class UploadSettings:
    """
    The settings of the upload.

    Args:
        batch_size: Maximum number of events in a request; Engagement accepts up to 50.
        max_batch_bytes: Maximum size of the body of a request, in bytes.
        concurrency: Maximum number of concurrent requests.
        requests_per_second: Maximum number of requests per second; Engagement allows 100 per IP address.
        request_timeout: Time limit of a request in seconds, the response included.
        backoff_initial: Upper bound of the first wait after a failure, in seconds. It doubles with each failure in a
            row; the wait itself is random.
        backoff_max: Upper bound of all waits, in seconds.
        linger: How long to wait for more events after the first one before sending, in seconds.
        linger_max: Maximum wait for more events while they keep coming, in seconds: a request is made when it is full,
            or this long after its first event. A lower value than `linger` has no effect.
        gzip: Whether events are sent compressed, except to an address that refuses that.
        enabled: Whether this client uploads. Otherwise it only records, and another process uploads what is in the
            queue, such as a worker; messages, segments and other data are requested all the same.
        shared_rate_limit: The name of a rate limit: all clients with this name on the same storage share
            `requests_per_second`, for example since they are behind one IP address. None for a limit of its own.
        proxy: The URL of an HTTP proxy for all requests, with credentials if it needs them, or None.
        trust_env: Whether the proxies of the environment are used where there is no `proxy`: ``HTTPS_PROXY``,
            ``HTTP_PROXY``, ``ALL_PROXY`` and ``NO_PROXY``. A ``.netrc`` file is never read.
        ca_file: The path of a PEM file with the certificates of the authorities that are trusted instead of those of
            the system, or None.
        ssl: The TLS settings of all connections, for example with a certificate of the client; None for the usual ones.
        session_factory: A function that returns a new ``aiohttp.ClientSession``, which is used instead of one of the
            client's own, and closed by the client. It is called once for uploads and once for messages, in the event
            loop.
    """

    batch_size: int = field(default=50, validator=checks.integer(1, 50))
    max_batch_bytes: int = field(
        default=1_000_000,
        validator=checks.integer(
            MIN_BATCH_BYTES, why=", so that the largest command, 800 KB (819,200 bytes), fits into it"
        ),
    )
    concurrency: int = field(default=4, validator=checks.integer(1))
    requests_per_second: float = field(default=100.0, converter=checks.to_float, validator=checks.positive("requests"))
    request_timeout: float = field(default=30.0, converter=checks.to_seconds, validator=checks.positive("seconds"))
    backoff_initial: float = field(default=0.5, converter=checks.to_seconds, validator=checks.positive("seconds"))
    backoff_max: float = field(
        default=60.0, converter=checks.to_seconds, validator=[checks.positive("seconds"), _check_backoff]
    )
    linger: float = field(
        default=0.02, converter=checks.to_seconds, validator=checks.positive("seconds", allow_zero=True)
    )
    linger_max: float = field(
        default=0.5, converter=checks.to_seconds, validator=checks.positive("seconds", allow_zero=True)
    )
    gzip: bool = field(default=False, validator=checks.boolean)
    enabled: bool = field(default=True, validator=checks.boolean)
    shared_rate_limit: str | None = field(default=None, validator=checks.optional(_check_limit_name))
    proxy: str | None = field(default=None, converter=to_secret, repr=False, validator=checks.optional(checks.proxy))
    trust_env: bool = field(default=False, validator=checks.boolean)
    ca_file: str | os.PathLike[str] | None = field(default=None, validator=checks.optional(checks.path))
    ssl: SSLContext | None = field(
        default=None, validator=checks.optional(checks.instance_of(SSLContext, "Use an ssl.SSLContext."))
    )
    session_factory: Callable[[], Any] | None = field(
        default=None, repr=False, validator=checks.optional(checks.plain_function)
    )

    def __attrs_post_init__(self) -> None:
        if self.ca_file is not None and self.ssl is not None:
            raise ConfigurationError("ca_file", "must not be set together with 'ssl'", "Load it into the SSLContext.")
