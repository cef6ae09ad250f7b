"""
Who is who: the customers of one project and how their ids merge. Pure.

``cookie`` is a soft id: a customer may have many, and one may move to another customer. Every other kind is
hard: a customer has at most one value of it, and the value belongs to one customer for good.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from typing import Any

from attrs import Factory, define

from exponea_async.sandbox import push_tokens as push
from exponea_async.sandbox.commands import CommandError

COOKIE = "cookie"


class IdentityConflictError(CommandError):
    """The ids of one command belong to customers who can't be the same person."""

    def __init__(self, kind: str, one: str, other: str) -> None:
        super().__init__([f"The ids belong to different customers: {kind!r} can't be both {one!r} and {other!r}."])


@define(eq=False)
class Profile:
    """
    One customer, as kept.

    Attributes:
        key: Its number in the project.
        hard: Its hard ids.
        cookies: Its cookies, oldest first; the values mean nothing.
        properties: Each property with the UNIX second of its last update.
        events: The numbers of its events by their digest.
        tokens: What is known last of its push tokens.
        read: The ids of the inbox messages that it has read; the values mean nothing.
    """

    key: int
    hard: dict[str, str] = Factory(dict)
    cookies: dict[str, None] = Factory(dict)
    properties: dict[str, tuple[Any, float]] = Factory(dict)
    events: dict[bytes, int] = Factory(dict)
    tokens: push.Tokens = Factory(dict)
    read: dict[str, None] = Factory(dict)

    def update(self, properties: Iterable[tuple[str, tuple[Any, float]]]) -> None:
        """Takes over each property whose kept value is not newer."""
        for name, fresh in properties:
            kept = self.properties.get(name)
            if kept is None or kept[1] <= fresh[1]:
                self.properties[name] = fresh

    def pairs(self) -> Iterator[tuple[str, str]]:
        """Tells every id of the customer."""
        yield from self.hard.items()
        yield from ((COOKIE, cookie) for cookie in self.cookies)


class Profiles:
    """The customers of one project."""

    def __init__(self) -> None:
        self._keys = count(1)
        self._owners: dict[tuple[str, str], Profile] = {}
        self._profiles: dict[int, Profile] = {}

    def __iter__(self) -> Iterator[Profile]:
        return iter(self._profiles.values())

    def __len__(self) -> int:
        return len(self._profiles)

    def find(self, ids: dict[str, str]) -> Profile | None:
        """Finds the customer by any of the ids, a hard one before the cookie."""
        for pair in sorted(ids.items(), key=lambda pair: pair[0] == COOKIE):
            if pair in self._owners:
                return self._owners[pair]
        return None

    def recognize(self, ids: Mapping[str, str]) -> Profile | None:
        """
        Finds the customer whom `admit` would settle on, and changes nothing.

        A cookie doesn't count where a hard id says that it is now someone else's.
        """
        wanted = {kind: value for kind, value in ids.items() if kind != COOKIE}
        for pair in wanted.items():
            if pair in self._owners:
                return self._owners[pair]
        visitor = self._owners.get((COOKIE, ids.get(COOKIE, "")))
        return visitor if visitor is not None and _agree(visitor.hard, wanted) else None

    def admit(self, ids: dict[str, str]) -> tuple[Profile, list[Profile]]:
        """
        Finds or creates the customer with these ids, and merges those whom the ids show to be one.

        Returns:
            The customer, and those who have just been merged into it; their events are still their own.

        Raises:
            IdentityConflictError: The hard ids can't belong to one customer. Nothing was changed.
        """
        owners = [self._owners.get(pair) for pair in ids.items()]
        first = owners[0]
        if first is not None and all(owner is first for owner in owners):
            return first, []
        return self._settle(ids)

    def _settle(self, ids: dict[str, str]) -> tuple[Profile, list[Profile]]:
        wanted = {kind: value for kind, value in ids.items() if kind != COOKIE}
        named = {owner.key: owner for pair in wanted.items() if (owner := self._owners.get(pair))}
        named = dict(sorted(named.items()))
        for owner in named.values():
            _unite(wanted, owner.hard)
        visitor = self._owners.get((COOKIE, ids.get(COOKIE, "")))
        # A hard id wins over a cookie: someone else on the same device stays someone else.
        if visitor is not None and _agree(visitor.hard, wanted):
            named.setdefault(visitor.key, visitor)
        # The customer with the hard id stays, however old the anonymous one is.
        profile, *absorbed = named.values() or [self._create()]
        for other in absorbed:
            self._absorb(profile, other)
        self._attach(profile, ids.items())
        return profile, absorbed

    def _create(self) -> Profile:
        profile = Profile(next(self._keys))
        self._profiles[profile.key] = profile
        return profile

    def _absorb(self, profile: Profile, other: Profile) -> None:
        del self._profiles[other.key]
        self._attach(profile, list(other.pairs()))
        # Where both were updated at the same time, what the customer itself had stays.
        own = list(profile.properties.items())
        profile.update(other.properties.items())
        profile.update(own)
        push.note(profile.tokens, other.tokens.values())
        profile.read.update(other.read)

    def _attach(self, profile: Profile, pairs: Iterable[tuple[str, str]]) -> None:
        for kind, value in pairs:
            if kind == COOKIE:
                previous = self._owners.get((kind, value))
                if previous is not None and previous is not profile:
                    del previous.cookies[value]
                profile.cookies[value] = None
            else:
                profile.hard[kind] = value
            self._owners[kind, value] = profile


def _unite(wanted: dict[str, str], hard: dict[str, str]) -> None:
    for kind, value in hard.items():
        if wanted.setdefault(kind, value) != value:
            raise IdentityConflictError(kind, wanted[kind], value)


def _agree(one: dict[str, str], other: dict[str, str]) -> bool:
    return all(other.get(kind, value) == value for kind, value in one.items())
