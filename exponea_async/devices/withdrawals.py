"""
End users who have withdrawn their consent: what belongs to them is erased, and what follows is dropped.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from hashlib import blake2b
from typing import Any
from uuid import uuid4

from exponea_async._internal.concurrency import BackgroundTasks, SharedLoad, SingleFlight
from exponea_async._internal.encoding import encode_object
from exponea_async._internal.json import decode
from exponea_async._pipeline.recorder import DEVICE_ID
from exponea_async.devices.ids import COOKIE
from exponea_async.devices.state import DeviceState
from exponea_async.errors import StorageError
from exponea_async.storage.base import Storage
from exponea_async.storage.erasure import Erased, Erasure

#: The key of the state that changes with each withdrawal, and the prefix of those that have them.
CHANGES = "withdrawals"
PREFIX = "withdrawn:"
#: The number of states that have withdrawals; each has those whose digest begins with its number.
SHARDS = 256
#: The prefixes of a device's state, and of one that is set aside.
DEVICE_PREFIX = "device:"
DAMAGED = "damaged:"
#: What stands for the latest change until it is loaded again: it differs from each stored one.
UNKNOWN = b"unknown"
DIGEST_SIZE = 16
#: Why events of an end user are dropped, and the name under which they are counted.
WITHDRAWN = "the end user has withdrawn the consent to be tracked"
WITHDRAWN_COUNT = "withdrawn"


class Withdrawals:
    """
    The devices and customers of whom nothing is tracked, in memory and in the storage.

    Only digests are stored: the key of a device and the ids of a customer would be personal data themselves.

    Args:
        storage: The storage.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._digests: set[bytes] = set()
        self._changes: bytes | None = None
        self._lock = asyncio.Lock()
        self._is_closed = False
        self._tasks = BackgroundTasks()
        self._refreshes: SingleFlight[None, None] = SingleFlight(self._tasks, log_errors=False)

    async def aclose(self) -> None:
        """Load nothing more."""
        self._is_closed = True
        await self._tasks.aclose()

    def includes_device(self, key: str) -> bool:
        """Return whether nothing is tracked of a device."""
        return bool(self._digests) and _device_digest(key) in self._digests

    def includes_customer(self, ids: Mapping[str, str | None]) -> bool:
        """Return whether nothing is tracked of a customer who has any of these ids."""
        return bool(self._digests) and not self._digests.isdisjoint(_customer_digests(ids))

    async def refresh(self) -> None:
        """
        Load them again if another process has changed them.

        Concurrent callers share one load, which begins after the last of them has called.

        Raises:
            StorageError: The storage refused, or is about to be closed.
        """
        while not self._is_closed:
            load = self._share_refresh()
            # Otherwise the application has cancelled all tasks.
            if await load.wait():
                return load.result()
        raise StorageError("The storage is closed.")

    def _share_refresh(self) -> SharedLoad[None]:
        return self._refreshes.share(None, self._refresh_alone, name="withdrawals")

    async def _refresh_alone(self) -> None:
        # Not during a change: what is stored then is older than what is in memory.
        async with self._lock:
            # What changes from now on may be missing, so later callers need another one.
            self._refreshes.discard(None)
            await self._refresh()

    async def _refresh(self) -> None:
        changes = await self._storage.load_state(CHANGES)
        found = changes.value if changes else None
        if found == self._changes:
            return
        shards = [await self._storage.load_state(_shard(number)) for number in range(SHARDS)]
        self._digests = set().union(*(_unpack(shard.value) for shard in shards if shard))
        self._changes = found

    async def withdraw_device(self, key: str, state: DeviceState | None) -> Erased:
        """
        Erase everything of a device, and drop what follows.

        Args:
            key: Its key.
            state: What it remembers, if it is known.

        Raises:
            StorageError: The storage refused; nothing was erased.
        """
        cookie, device_id = (state.cookie, state.device_id) if state else ("", "")

        def is_record(body: bytes) -> bool:
            ids, properties = _owner(body)
            return state is not None and (ids.get(COOKIE) == cookie or properties.get(DEVICE_ID) == device_id)

        def select_states(states: Iterable[tuple[str, bytes]]) -> set[str]:
            return _states_of({key}, (name for name, _ in states))

        traces = (_pair(COOKIE, cookie), _pair(DEVICE_ID, device_id)) if state else ()
        return await self._withdraw([_device_digest(key)], traces, is_record, select_states)

    async def withdraw_customer(self, ids: Mapping[str, str]) -> Erased:
        """
        Erase everything of a customer who has any of these ids, and drop what follows.

        What devices remember of the customer is erased, too; a device begins afresh with its next event.

        Raises:
            StorageError: The storage refused; nothing was erased.
        """

        def is_record(body: bytes) -> bool:
            return _has_any(_owner(body)[0], ids)

        def select_states(states: Iterable[tuple[str, bytes]]) -> set[str]:
            names, keys = [], set()
            for name, value in states:
                names.append(name)
                if name.startswith(DEVICE_PREFIX) and _has_any(_stored_ids(value), ids):
                    keys.add(name.removeprefix(DEVICE_PREFIX))
            return _states_of(keys, names)

        traces = tuple(_pair(kind, value) for kind, value in ids.items())
        return await self._withdraw(_customer_digests(ids), traces, is_record, select_states)

    async def admit_device(self, key: str) -> None:
        """
        Track a device again.

        Raises:
            StorageError: The storage refused.
        """
        await self._admit([_device_digest(key)])

    async def admit_customer(self, ids: Mapping[str, str]) -> None:
        """
        Track a customer with these ids again.

        Raises:
            StorageError: The storage refused.
        """
        await self._admit(_customer_digests(ids))

    async def _withdraw(
        self,
        digests: list[bytes],
        traces: tuple[bytes, ...],
        is_record: Callable[[bytes], bool],
        select_states: Callable[[Iterable[tuple[str, bytes]]], set[str]],
    ) -> Erased:
        async with self._lock:
            await self._refresh()
            # From now on, so that nothing is written between the erasure and the end of this call.
            added = set(digests) - self._digests
            self._digests |= added
            states = self._changed({digest[0] for digest in digests})
            try:
                return await self._storage.erase(Erasure(traces, is_record, select_states, states))
            except BaseException as error:
                if isinstance(error, StorageError):
                    self._digests -= added
                # A call that is cancelled may be stored all the same.
                self._changes = UNKNOWN
                raise

    async def _admit(self, digests: list[bytes]) -> None:
        async with self._lock:
            await self._refresh()
            removed = self._digests & set(digests)
            self._digests -= removed
            states = self._changed({digest[0] for digest in digests})
            try:
                await self._storage.erase(Erasure((), lambda _: False, lambda _: set(), states))
            except BaseException:
                # Nothing is tracked of them before it is certain that this is stored.
                self._digests |= removed
                self._changes = UNKNOWN
                raise

    def _changed(self, shards: set[int]) -> dict[str, bytes]:
        """Return the states to store after a change in some shards."""
        self._changes = uuid4().bytes
        packed = {_shard(number): b"".join(sorted(self._in_shard(number))) for number in shards}
        return {CHANGES: self._changes, **packed}

    def _in_shard(self, number: int) -> Iterator[bytes]:
        return (digest for digest in self._digests if digest[0] == number)


def _shard(number: int) -> str:
    return f"{PREFIX}{number}"


def _unpack(value: bytes) -> Iterator[bytes]:
    return (value[start : start + DIGEST_SIZE] for start in range(0, len(value), DIGEST_SIZE))


def _digest(*parts: str) -> bytes:
    return blake2b("\0".join(parts).encode(errors="surrogatepass"), digest_size=DIGEST_SIZE).digest()


def _device_digest(key: str) -> bytes:
    return _digest("device", key)


def _customer_digests(ids: Mapping[str, str | None]) -> list[bytes]:
    return [_digest("customer", kind, value) for kind, value in ids.items() if value is not None]


def _pair(kind: str, value: str) -> bytes:
    return encode_object({kind: value}, "")[1:-1]


def _has_any(found: Mapping[str, Any], ids: Mapping[str, str]) -> bool:
    return any(found.get(kind) == value for kind, value in ids.items())


def _owner(body: bytes) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return the ids and the properties in a record, whose opening brace is added when it is sent."""
    with suppress(ValueError, TypeError, AttributeError):
        data = decode(b"{" + body).get("data", {})
        ids, properties = data.get("customer_ids"), data.get("properties")
        return ids if isinstance(ids, dict) else {}, properties if isinstance(properties, dict) else {}
    return {}, {}


def _stored_ids(value: bytes) -> Mapping[str, Any]:
    """Return the ids in a device's stored state."""
    with suppress(ValueError, AttributeError):
        stored = decode(value)
        ids = stored.get("ids")
        return {**(ids if isinstance(ids, dict) else {}), COOKIE: stored.get("cookie")}
    return {}


def _states_of(keys: set[str], names: Iterable[str]) -> set[str]:
    """Return the names of all states that belong to devices with these keys, damaged ones included."""
    own = {name for name in names if not name.startswith(PREFIX)}
    return {name for name in own if name.removeprefix(DAMAGED).partition(":")[2] in keys}
