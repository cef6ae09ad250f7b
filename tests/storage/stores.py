"""
Small words for the tests of storages.
"""

from collections.abc import Iterable

from exponea_async.storage.base import DeadLetter, Leased, Record, Settlement, Storage

NOW = 1_767_225_600.0
LEASE = 60.0


def record(body: str, route: str = "shop", at: float = NOW) -> Record:
    return Record(route, body.encode(), at)


def records(*bodies: str, route: str = "shop") -> list[Record]:
    return [record(body, route) for body in bodies]


def bodies(found: Iterable[Leased | DeadLetter]) -> list[str]:
    return [each.body.decode() for each in found]


def ids(found: Iterable[Leased | DeadLetter]) -> tuple[str, ...]:
    return tuple(each.id for each in found)


def delivered(*keys: str) -> list[Settlement]:
    return [Settlement(keys, "delivered")]


def later(*keys: str, due: float, failures: int = 0) -> list[Settlement]:
    return [Settlement(keys, "later", due=due, failures=failures, reason="busy")]


def dead(*keys: str, reason: str = "bad name") -> list[Settlement]:
    return [Settlement(keys, "dead", reason=reason)]


async def take(storage: Storage, limit: int = 100, now: float = NOW, only: str | None = None) -> list[Leased]:
    return await storage.lease(limit, LEASE, now, only=only)


async def bury(storage: Storage, *names: str, route: str = "shop", reason: str = "bad name") -> tuple[str, ...]:
    """Write records and have them refused for good."""
    written = await storage.write(records(*names, route=route))
    await take(storage, only=route)
    await storage.settle(dead(*written.ids, reason=reason))
    return written.ids
