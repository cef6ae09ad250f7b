"""
Projects: the address and the ``Authorization`` header of each, looked up when something is sent.
"""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Sequence

from attrs import evolve, frozen

from exponea_async._internal.secrets import SecretBytes
from exponea_async._internal.validation import normalized_url
from exponea_async._pipeline.commands import project_of, split_route
from exponea_async._pipeline.transport import authorization_header
from exponea_async.config import Configuration
from exponea_async.errors import CHECK_SETTINGS, StateConflictError
from exponea_async.projects import BasicAuth, ExponeaProject, check_same_project
from exponea_async.storage.base import StateChange, Storage, replace_state

LOG = logging.getLogger("exponea_async")

#: The key of the state with the address that each project had when a client looked last.
ADDRESSES = "addresses"
#: What to do about a project that is refused, and that a device was switched to.
STORED_PROJECT_HINT = (
    "Its events are kept. Its key and address are those of the last anonymize() that switched a device to it; correct "
    "them in Configuration.other_projects."
)
#: What to do about records of a project that is not known.
UNKNOWN_PROJECT_HINT = (
    "Its events are kept. Add it to Configuration.other_projects; or give its events to another project with "
    "'exponea-async queue retarget', or delete them with 'exponea-async queue drop-project'."
)


# No method shows the key, since none is made.
@frozen(eq=False, repr=False)
class ProjectAccess:
    """
    How a project is reached.

    Attributes:
        base_url: The address of the API.
        authorization: The ``Authorization`` header.
        hint: What to do if the project is refused.
    """

    base_url: str
    authorization: str
    hint: str = CHECK_SETTINGS


class ProjectStore:
    """
    The configured projects, and those that devices were switched to.

    The latter are stored, so that what such a device has tracked can be sent after a restart and by other processes.
    For a configured project only the configuration counts.

    Args:
        configuration: Names the configured projects, and the address of those that are stored without one.
        storage: Where the other projects are stored.
    """

    def __init__(self, configuration: Configuration, storage: Storage) -> None:
        self._storage = storage
        self._base_url = configuration.base_url
        self._configured = {each.project_token: each for each in configuration.projects}
        self._access = {token: _access(each, self._base_url) for token, each in self._configured.items()}
        self._changed: set[str] = set()

    async def find(self, token: str) -> ProjectAccess | None:
        """
        Return how a project is reached, or None if it is neither configured nor stored.

        Stored projects are read each time, because another process may switch a device with another key or address.

        Raises:
            StorageError: The storage failed.
        """
        if token in self._access:
            return self._access[token]
        stored = await self._load(token)
        return None if stored is None else evolve(_access(stored, self._base_url), hint=STORED_PROJECT_HINT)

    async def store(self, uses: Sequence[tuple[str, ExponeaProject]], present: str | None) -> None:
        """
        Store projects that a device is to be switched to, unless they are configured.

        Args:
            uses: The projects, each with its place in the caller's argument for errors. One without an address keeps
                the one that is stored for it, or else gets the one that is stored for `present`, if any.
            present: The token of the project that the device was switched to before.

        Raises:
            ConfigurationError: A project is configured with another key or address; nothing was stored.
            StorageError: The storage failed.
        """
        for where, project in uses:
            if project.project_token in self._configured:
                check_same_project(where, project, self._configured[project.project_token])
        inherited = await self._load(present) if present else None
        for _, project in uses:
            if project.project_token not in self._configured:
                await self._store(project, inherited.base_url if inherited else None)
        await self.update_addresses([project.project_token for _, project in uses])

    async def _store(self, project: ExponeaProject, inherited: str | None) -> None:
        known = await self._load(project.project_token)
        base_url = project.base_url or (known.base_url if known else inherited)
        project = evolve(project, base_url=base_url)
        if project != known:
            await replace_state(self._storage, _state_key(project.project_token), _encode(project))
            self._changed.add(project.project_token)

    async def _load(self, token: str) -> ExponeaProject | None:
        stored = await self._storage.load_state(_state_key(token))
        if stored is None:
            return None
        try:
            return _decode(token, stored.value)
        except (ValueError, KeyError, TypeError) as error:
            LOG.warning("What is stored about project %s can't be used: %s", token, error)
            return None

    def pop_changed(self) -> set[str]:
        """Return the tokens of the projects that were stored since the last call with another key or address."""
        changed, self._changed = self._changed, set()
        return changed

    # Addresses that change while records wait

    async def update_addresses(self, tokens: Sequence[str] = ()) -> None:
        """
        Log once which waiting records are sent to another address than they were to be before.

        Args:
            tokens: Projects whose address is remembered, too, although they may have no records yet.

        Raises:
            StorageError: The storage failed.
        """
        moved = await self._rename_urls()
        while True:
            try:
                moved += await self._replace_addresses(tokens)
                break
            except StateConflictError:
                # Another process has done so at the same time; it has logged what it has found.
                continue
        for (token, old), count in moved.items():
            access = await self.find(token)
            if access is not None and access.base_url != old:
                LOG.warning(
                    "%d events wait for project %s that were recorded for %s; they are sent to %s.",
                    count,
                    token,
                    old,
                    access.base_url,
                )

    async def _rename_urls(self) -> "Counter[tuple[str, str]]":
        """Rename routes that are URLs; return the number of their records by project and address."""
        moved: Counter[tuple[str, str]] = Counter()
        for name, count in (await self._storage.pending()).routes.items():
            address, route = split_route(name)
            if address:
                await self._storage.rename_route(name, route)
                if count:
                    moved[project_of(route), normalized_url(address) or address] += count
        return moved

    async def _replace_addresses(self, tokens: Sequence[str]) -> "Counter[tuple[str, str]]":
        """Store the present addresses; return the number of records by project and the address that was stored."""
        state = await self._storage.load_state(ADDRESSES)
        before = _addresses(state.value) if state else {}
        waiting: Counter[str] = Counter()
        for route, count in (await self._storage.pending()).routes.items():
            waiting[project_of(route)] += count
        now = {**before, **await self._present_addresses([*self._configured, *waiting, *tokens])}
        if now == before:
            return Counter()
        change = StateChange(ADDRESSES, json.dumps(now).encode(), state.version if state else 0)
        await self._storage.write((), (change,))
        moved = {token: old for token, old in before.items() if old != now[token] and waiting[token]}
        return Counter({(token, old): waiting[token] for token, old in moved.items()})

    async def _present_addresses(self, tokens: Iterable[str]) -> dict[str, str]:
        found = {token: await self.find(token) for token in tokens}
        return {token: access.base_url for token, access in found.items() if access is not None}


def _addresses(value: bytes) -> dict[str, str]:
    try:
        return dict(json.loads(value))
    except (ValueError, TypeError):
        # They are only for the log, so they are replaced.
        return {}


def _access(project: ExponeaProject, base_url: str) -> ProjectAccess:
    return ProjectAccess(project.base_url or base_url, authorization_header(project.authorization_token))


def _state_key(token: str) -> str:
    return f"project:{token}"


def _encode(project: ExponeaProject) -> bytes:
    key = project.authorization_token
    value = [key.key_id, key.secret] if isinstance(key, BasicAuth) else key
    return SecretBytes(json.dumps({"authorization": value, "base_url": project.base_url}).encode())


def _decode(token: str, value: bytes) -> ExponeaProject:
    stored = json.loads(value)
    key = stored["authorization"]
    return ExponeaProject(token, key if isinstance(key, str) else BasicAuth(*key), stored["base_url"])
