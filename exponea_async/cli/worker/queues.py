"""
The queues that a worker serves, and the settings of the client of each.
"""

from typing import Protocol

from attrs import evolve, field, frozen

from exponea_async.config import Configuration
from exponea_async.errors import ConfigurationError
from exponea_async.models import FlushMode
from exponea_async.projects import ExponeaProject
from exponea_async.storage import (
    check_postgres_library,
    is_in_postgres,
    queue_name,
    split_queue_name,
    storage_location,
)

#: The queues for which a connection waits for notifications. The others are looked at every second.
MAX_LISTENERS = 8


@frozen
class FoundQueue:
    """
    A queue that exists.

    Attributes:
        name: Its name, for log lines and metrics.
        project: The token of the project whose clients have it open.
        waiting: The number of records in it, where that is known.
        configuration: The settings of a client for it; None if its project is not configured, or there is a trouble.
        trouble: Why there can't be a client for it, with any configuration.
    """

    name: str
    project: str
    waiting: int
    configuration: Configuration | None = field(repr=False)
    trouble: str = ""


class QueueSource(Protocol):
    """Where a worker looks for queues."""

    @property
    def location(self) -> str:
        """The database or the file, without secrets."""
        ...

    async def find(self) -> list[FoundQueue]:
        """
        Return all queues.

        Raises:
            StorageError: The database can't be used.
        """
        ...

    async def aclose(self) -> None:
        """Close what was opened for that."""
        ...


def queue_source(configuration: Configuration) -> QueueSource:
    """
    Return where the queues of a configuration are.

    Args:
        configuration: The settings, whose queue is not in memory.

    Raises:
        ConfigurationError: The library for PostgreSQL is not installed, or there is no place for a file.
    """
    if is_in_postgres(configuration):
        check_postgres_library()
        return DatabaseQueues(configuration)
    return FileQueue(configuration)


class FileQueue:
    """
    The one queue of a file.

    Args:
        configuration: The settings.

    Attributes:
        location: The path of the file.
    """

    def __init__(self, configuration: Configuration) -> None:
        self.location = str(storage_location(configuration))
        project = configuration.project_token
        self._queue = FoundQueue(project, project, 0, configuration)

    async def find(self) -> list[FoundQueue]:
        """Return the queue."""
        return [self._queue]

    async def aclose(self) -> None:
        """Do nothing: only the client opens the file."""


class DatabaseQueues:
    """
    The queues in a schema of a database: those of all configured projects, whichever their app groups are.

    Args:
        configuration: The settings; its own app group does not matter.

    Attributes:
        location: The database and the schema.
    """

    def __init__(self, configuration: Configuration) -> None:
        from exponea_async.storage.postgres.queues import QueueCatalog  # noqa: PLC0415 - asyncpg is an extra

        self._configuration = configuration
        self._catalog = QueueCatalog(
            str(configuration.storage), configuration.postgres, configuration.queue.lock_timeout
        )
        self._listening: set[str] = set()
        self.location: str = self._catalog.location

    async def find(self) -> list[FoundQueue]:
        """Return all queues of the schema."""
        return [self._found(each.name, each.waiting) for each in await self._catalog.find()]

    def _found(self, name: str, waiting: int) -> FoundQueue:
        project, group = split_queue_name(name)
        try:
            settings = settings_for(self._configuration, project, group)
        except ConfigurationError as error:
            # One odd name must not keep the worker from the other queues.
            return FoundQueue(name, project, waiting, None, f"no client can have it: {error}")
        if settings is not None and queue_name(settings) != name:
            return FoundQueue(name, project, waiting, None, "no client can have it: its app group is empty")
        return FoundQueue(name, project, waiting, settings and self._with_shared_connections(name, settings))

    def _with_shared_connections(self, name: str, settings: Configuration) -> Configuration:
        """Return the settings of a client that has at most one connection of its own, for notifications."""
        postgres = settings.postgres
        url = postgres.listen_url
        if url is None and not postgres.transaction_pooling:
            url = str(settings.storage)
        if len(self._listening) < MAX_LISTENERS:
            self._listening.add(name)
        url = url if name in self._listening else None
        return evolve(settings, storage=self._catalog.pool, postgres=evolve(postgres, listen_url=url))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._catalog.aclose()


def worker_settings(configuration: Configuration, limit_name: str | None) -> Configuration:
    """
    Return settings with which a client sends what others have recorded, as soon as it is there.

    Args:
        configuration: The settings of the environment, perhaps those of clients that only record.
        limit_name: The name of the rate limit that all workers behind one address share; None for the configured one.

    Raises:
        ConfigurationError: The name is invalid.
    """
    upload = configuration.upload
    shared = limit_name or upload.shared_rate_limit or "default"
    return evolve(
        configuration,
        flush_mode=FlushMode.IMMEDIATE,
        # A worker shows no messages.
        in_app_content_block_placeholders_auto_load=(),
        preload_messages=False,
        upload=evolve(upload, enabled=True, shared_rate_limit=shared),
    )


def settings_for(configuration: Configuration, project: str, group: str | None) -> Configuration | None:
    """
    Return the settings of a client for the queue of a project and an app group; None if the project is not configured.

    Args:
        configuration: The settings of the worker.
        project: The token of the project.
        group: The app group, or None.
    """
    if project == configuration.project_token:
        return evolve(configuration, app_group=group)
    others = [each for each in configuration.projects if each.project_token != project]
    own = next((each for each in configuration.projects if each.project_token == project), None)
    return None if own is None else _settings_of_other(configuration, own, others, group)


def _settings_of_other(
    configuration: Configuration, own: ExponeaProject, others: list[ExponeaProject], group: str | None
) -> Configuration:
    """Return the settings for a project that is not the main one; the mapping is that of the main project's events."""
    return evolve(
        configuration,
        project_token=own.project_token,
        authorization_token=own.authorization_token,
        base_url=own.base_url,
        app_group=group,
        project_mapping={},
        other_projects=others,
    )
