"""
The connections of applications, of several libraries, on which this package runs statements.

None of these libraries is imported here but asyncpg, which the storage needs anyway: an application that passes a
connection has imported its library already.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from typing import Any, Protocol

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from exponea_async._internal.closing import run_thread_to_end

#: What ``transaction()`` accepts, for the error about anything else.
ACCEPTED = (
    "an asyncpg Connection, a SQLAlchemy AsyncSession or AsyncConnection with the driver asyncpg or psycopg, or a"
    " psycopg AsyncConnection or Connection"
)
_DRIVERS = ("asyncpg", "psycopg")
_PARAMETER = re.compile(r"\$(\d+)")
#: The classes of errors about data and about constraints.
_ABOUT_VALUES = ("22", "23")

Rows = Sequence[Sequence[Any]]


class HostConnection(Protocol):
    """The connection of an application."""

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """What its library raises."""
        ...

    @property
    def is_in_transaction(self) -> bool:
        """Whether it is in a transaction, as far as the library knows; to be read after a statement."""
        ...

    async def fetch(self, statement: str, values: Sequence[object]) -> Rows:
        """Run a statement with parameters ``$1``, ``$2`` and so on, and return its rows."""
        ...


def host_connection(connection: object) -> HostConnection:
    """
    Return a connection of an application, as this package uses it.

    Raises:
        TypeError: It is of a library that is not supported.
    """
    if isinstance(connection, asyncpg.Connection | PoolConnectionProxy):
        return AsyncpgConnection(connection)
    for library, name in _classes(connection):
        if library == "psycopg" and name == "AsyncConnection":
            return PsycopgConnection(connection)
        if library == "psycopg" and name == "Connection":
            return SyncPsycopgConnection(connection)
        if library == "sqlalchemy" and name in ("AsyncSession", "async_scoped_session", "AsyncConnection"):
            return SQLAlchemyConnection(connection)
    raise unsupported(_name(connection))


def unsupported(given: str) -> TypeError:
    """Return the error for a connection that can't be used."""
    return TypeError(f"connection: expected {ACCEPTED}, got {given}.")


def _classes(connection: object) -> Iterator[tuple[str, str]]:
    """Return the libraries and the names of the classes of an object."""
    for each in type(connection).__mro__:
        yield each.__module__.partition(".")[0], each.__name__


def _name(connection: object) -> str:
    # Not the object itself, whose text may have a password.
    return f"{type(connection).__module__}.{type(connection).__qualname__}"


class AsyncpgConnection:
    """
    A connection of asyncpg, its own or that of a pool.

    Args:
        connection: The connection.
    """

    errors: tuple[type[Exception], ...] = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError)

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    @property
    def is_in_transaction(self) -> bool:
        """Whether it is in a transaction."""
        return bool(self._connection.is_in_transaction())

    async def fetch(self, statement: str, values: Sequence[object]) -> Rows:
        """Run a statement and return its rows."""
        return list(await self._connection.fetch(statement, *values))


class PsycopgConnection:
    """
    An asynchronous connection of psycopg 3.

    Args:
        connection: The connection.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._psycopg = sys.modules["psycopg"]

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """What psycopg raises."""
        return (self._psycopg.Error, OSError)

    @property
    def is_in_transaction(self) -> bool:
        """Whether it is in a transaction."""
        return not self._connection.closed and bool(self._connection.info.transaction_status)

    async def fetch(self, statement: str, values: Sequence[object]) -> Rows:
        """Run a statement and return its rows."""
        # Cursors that the connection makes may return other rows, or encode the values in another way.
        async with self._psycopg.AsyncCursor(self._connection, row_factory=self._psycopg.rows.tuple_row) as cursor:
            await cursor.execute(named_parameters(statement), by_name(values))
            rows: Rows = await cursor.fetchall()
            return rows


class SyncPsycopgConnection(PsycopgConnection):
    """
    A connection of psycopg 3 that is not asynchronous, such as that of Django. Statements run in a thread.

    Args:
        connection: The connection.
    """

    async def fetch(self, statement: str, values: Sequence[object]) -> Rows:
        """Run a statement and return its rows."""
        # The thread can't be interrupted, and the application must not use the connection at the same time.
        return await run_thread_to_end(partial(self._fetch, named_parameters(statement), by_name(values)))

    def _fetch(self, statement: str, values: dict[str, object]) -> Rows:
        with self._psycopg.Cursor(self._connection, row_factory=self._psycopg.rows.tuple_row) as cursor:
            cursor.execute(statement, values)
            rows: Rows = cursor.fetchall()
            return rows


class SQLAlchemyConnection:
    """
    A session or a connection of SQLAlchemy, which is asynchronous.

    Args:
        connection: The session or the connection.
    """

    def __init__(self, connection: Any) -> None:
        self._given = connection
        self._connection: Any = None

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """What SQLAlchemy raises."""
        return (sys.modules["sqlalchemy.exc"].SQLAlchemyError, OSError)

    @property
    def is_in_transaction(self) -> bool:
        """Whether it is in a transaction: SQLAlchemy itself believes so with automatic commits, too."""
        raw = self._connection.sync_connection.connection.driver_connection
        return host_connection(raw).is_in_transaction

    async def fetch(self, statement: str, values: Sequence[object]) -> Rows:
        """Run a statement and return its rows."""
        connection = self._connection = await self._open()
        if connection.dialect.driver == "asyncpg":
            result = await connection.exec_driver_sql(statement, tuple(values))
        else:
            result = await connection.exec_driver_sql(named_parameters(statement), by_name(values))
        rows: Rows = result.fetchall()
        return rows

    async def _open(self) -> Any:
        """Return the connection that the session uses within its present transaction."""
        if hasattr(self._given, "exec_driver_sql"):
            connection = self._given
        else:
            connection = await self._given.connection()
        dialect = connection.dialect
        if dialect.name != "postgresql" or dialect.driver not in _DRIVERS:
            raise unsupported(f"{_name(self._given)} of {dialect.name}+{dialect.driver}")
        return connection


@lru_cache(maxsize=64)
def named_parameters(statement: str) -> str:
    """Return a statement with the parameters of psycopg."""
    return _PARAMETER.sub(r"%(p\1)s", statement.replace("%", "%%"))


def by_name(values: Sequence[object]) -> dict[str, object]:
    """Return the values of these parameters."""
    return {f"p{number}": value for number, value in enumerate(values, 1)}


def driver_error(error: BaseException) -> BaseException:
    """
    Return the error of the driver in one of SQLAlchemy.

    The text of the latter has the values of the statement, which are personal data.
    """
    inner = getattr(error, "orig", None)
    if not isinstance(inner, BaseException):
        return error
    # With asyncpg there is one more in between.
    return inner.__cause__ or inner


def message(error: BaseException) -> str:
    """Return the message of a driver's error, without the details, which may have the values of a row."""
    diagnosis = getattr(error, "diag", None)
    text = getattr(diagnosis, "message_primary", None) or (error.args[0] if error.args else "")
    return str(text).strip().rstrip(".") or type(error).__name__


def shown(error: BaseException) -> BaseException | None:
    """Return an error as the cause of another; None where its details are values of a row, which may be personal."""
    return None if str(getattr(error, "sqlstate", "")).startswith(_ABOUT_VALUES) else error
