"""
Applications that use PostgreSQL through different libraries, with the same few steps.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Literal, TypeVar

import asyncpg
import psycopg
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, create_async_engine

#: Isolation levels of a transaction.
Isolation = Literal["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]

T = TypeVar("T")


class Host(ABC):
    """
    An application with one connection.

    Attributes:
        connection: What the application passes to ``transaction()``.
    """

    connection: Any

    def __init__(self, url: str) -> None:
        self.url = url

    @abstractmethod
    async def open(self) -> None:
        """Connect."""

    @abstractmethod
    async def close(self) -> None:
        """Close the connection; a transaction that is open is rolled back."""

    @abstractmethod
    async def begin(self, isolation: Isolation = "READ COMMITTED") -> None:
        """Begin a transaction."""

    @abstractmethod
    async def execute(self, statement: str) -> None:
        """Run a statement of the application."""

    @abstractmethod
    async def commit(self) -> None:
        """Commit the transaction."""

    @abstractmethod
    async def rollback(self) -> None:
        """Roll the transaction back."""

    @asynccontextmanager
    async def transaction(self, isolation: Isolation = "READ COMMITTED") -> AsyncIterator[Any]:
        """Run a block in a transaction, which is rolled back after an exception."""
        await self.begin(isolation)
        try:
            yield self.connection
        except BaseException:
            await self.rollback()
            raise
        await self.commit()


class AsyncpgHost(Host):
    """asyncpg."""

    async def open(self) -> None:
        self.connection = await asyncpg.connect(self.url)

    async def close(self) -> None:
        await self.connection.close()

    async def begin(self, isolation: Isolation = "READ COMMITTED") -> None:
        self._transaction = self.connection.transaction(isolation=isolation.lower().replace(" ", "_"))
        await self._transaction.start()

    async def execute(self, statement: str) -> None:
        await self.connection.execute(statement)

    async def commit(self) -> None:
        await self._transaction.commit()

    async def rollback(self) -> None:
        await self._transaction.rollback()


class PoolHost(AsyncpgHost):
    """A pool of asyncpg."""

    async def open(self) -> None:
        self._pool = await asyncpg.create_pool(self.url, min_size=1, max_size=1)
        self.connection = await self._pool.acquire()

    async def close(self) -> None:
        await self._pool.release(self.connection)
        await self._pool.close()


class PsycopgHost(Host):
    """psycopg with asyncio."""

    async def open(self) -> None:
        self.connection = await psycopg.AsyncConnection.connect(self.url)

    async def close(self) -> None:
        await self.connection.close()

    async def begin(self, isolation: Isolation = "READ COMMITTED") -> None:
        await self.connection.set_isolation_level(psycopg.IsolationLevel[isolation.replace(" ", "_")])

    async def execute(self, statement: str) -> None:
        await self.connection.execute(statement.encode())

    async def commit(self) -> None:
        await self.connection.commit()

    async def rollback(self) -> None:
        await self.connection.rollback()


class SyncPsycopgHost(Host):
    """psycopg without asyncio, as with Django."""

    async def open(self) -> None:
        self.connection = await asyncio.to_thread(psycopg.connect, self.url)

    async def close(self) -> None:
        await asyncio.to_thread(self.connection.close)

    async def begin(self, isolation: Isolation = "READ COMMITTED") -> None:
        self.connection.isolation_level = psycopg.IsolationLevel[isolation.replace(" ", "_")]

    async def execute(self, statement: str) -> None:
        await asyncio.to_thread(self.connection.execute, statement)

    async def commit(self) -> None:
        await asyncio.to_thread(self.connection.commit)

    async def rollback(self) -> None:
        await asyncio.to_thread(self.connection.rollback)


class SessionHost(Host):
    """A session of SQLAlchemy with asyncpg."""

    driver = "asyncpg"

    async def open(self) -> None:
        self._engine = create_async_engine(self.url.replace("postgresql:", f"postgresql+{self.driver}:"))
        self.connection = AsyncSession(self._engine)

    async def close(self) -> None:
        await self.connection.close()
        await self._engine.dispose()

    async def begin(self, isolation: Isolation = "READ COMMITTED") -> None:
        await self.connection.connection(execution_options={"isolation_level": isolation})

    async def execute(self, statement: str) -> None:
        connection = await self.connection.connection()
        await connection.exec_driver_sql(statement)

    async def commit(self) -> None:
        await self.connection.commit()

    async def rollback(self) -> None:
        await self.connection.rollback()


class PsycopgSessionHost(SessionHost):
    """A session of SQLAlchemy with psycopg."""

    driver = "psycopg"


class ConnectionHost(SessionHost):
    """A connection of SQLAlchemy with asyncpg."""

    connection: AsyncConnection

    async def open(self) -> None:
        self._engine = create_async_engine(self.url.replace("postgresql:", f"postgresql+{self.driver}:"))
        self.connection = await self._engine.connect()

    async def begin(self, isolation: Isolation = "READ COMMITTED") -> None:
        await self.connection.execution_options(isolation_level=isolation)
        await self.connection.begin()

    async def execute(self, statement: str) -> None:
        await self.connection.exec_driver_sql(statement)


class PsycopgConnectionHost(ConnectionHost):
    """A connection of SQLAlchemy with psycopg."""

    driver = "psycopg"


HOSTS: Mapping[str, Callable[[str], Host]] = {
    "asyncpg": AsyncpgHost,
    "asyncpg-pool": PoolHost,
    "psycopg": PsycopgHost,
    "psycopg-sync": SyncPsycopgHost,
    "session-asyncpg": SessionHost,
    "session-psycopg": PsycopgSessionHost,
    "sqlalchemy-asyncpg": ConnectionHost,
    "sqlalchemy-psycopg": PsycopgConnectionHost,
}
