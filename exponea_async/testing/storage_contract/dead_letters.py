"""
Dead letters: reviving and deleting them.
"""

import time

import pytest

from exponea_async.storage.base import DELETED_LETTER, RecordStatus, Storage
from exponea_async.testing.storage_contract.builders import NOW, bodies, dead, ids, lease, record, records, write_dead
from exponea_async.testing.storage_contract.part import ContractPart

MINUTE = 60.0


class DeadLetterContract(ContractPart):
    """Dead letters: reviving and deleting them."""

    async def test_dead_letters_are_revived_under_their_ids(self, storage: Storage) -> None:
        """Revived records are due at once, under their ids, with no failures, and are not dead letters any more."""
        keys = await write_dead(storage, "a", "b")

        assert await storage.revive() == 2
        again = await lease(storage)
        assert ids(again) == keys
        assert [(each.body, each.failures) for each in again] == [(b"a", 0), (b"b", 0)]
        assert await storage.dead(10) == []

    async def test_some_dead_letters_are_revived(self, storage: Storage) -> None:
        """Only the named dead letters are revived, each once; other ids are ignored."""
        one, two = await write_dead(storage, "a", "b")
        queued = (await storage.write(records("c"))).ids[0]

        assert await storage.revive([two, two, queued, "nonsense"]) == 1
        assert await storage.revive([two]) == 0
        assert ids(await storage.dead(10)) == (one,)
        assert sorted(bodies(await lease(storage))) == ["b", "c"]

    async def test_revived_records_can_die_again(self, storage: Storage) -> None:
        """A revived record that is refused again is a dead letter again, with its new reason."""
        keys = await write_dead(storage, "a", reason="first")
        await storage.revive()
        await lease(storage)
        await storage.settle(dead(*keys, reason="second"))

        assert [each.reason for each in await storage.dead(10)] == ["second"]
        assert await storage.find(keys) == {keys[0]: RecordStatus("rejected", "second")}

    async def test_revived_records_count_as_written_now(self, storage: Storage) -> None:
        """A record that was given up for its age is not too old again when it is revived."""
        written = await storage.write([record("a", at=5.0)])
        await lease(storage)
        await storage.settle(dead(*written.ids))
        before = time.time()
        await storage.revive()

        (again,) = await lease(storage)
        # The clock of a server may be a little off.
        assert before - MINUTE <= again.at <= time.time() + MINUTE

    async def test_the_oldest_dead_letters_beyond_a_number_are_pruned(self, storage: Storage) -> None:
        """The newest dead letters stay; the ids of the others are returned, and their records are marked."""
        keys = [(await write_dead(storage, name))[0] for name in "abcde"]

        assert await storage.prune(max_count=2) == tuple(keys[:3])
        assert ids(await storage.dead(10)) == (keys[4], keys[3])
        assert (await storage.find(keys[:1]))[keys[0]] == RecordStatus("rejected", DELETED_LETTER)
        assert await storage.prune(max_count=2) == ()
        assert await storage.prune(max_count=0) == tuple(keys[3:])
        assert (await storage.pending()).dead == 0

    async def test_old_dead_letters_are_pruned(self, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
        """Those that died before a time are deleted, but not those that died when the clock was not set."""
        times = {"unset": 5.0, "old": NOW, "new": NOW + 10}
        keys = {}
        for name, died_at in times.items():
            monkeypatch.setattr(time, "time", lambda died_at=died_at: died_at)
            (keys[name],) = await write_dead(storage, name)

        assert await storage.prune() == ()
        assert await storage.prune(before=NOW) == ()
        assert await storage.prune(before=NOW + 10) == (keys["old"],)
        assert set(ids(await storage.dead(10))) == {keys["unset"], keys["new"]}

    async def test_dead_letters_are_purged(self, storage: Storage) -> None:
        """Purged dead letters are gone: the named ones, or all."""
        one, _, _ = await write_dead(storage, "a", "b", "c")

        assert await storage.purge([one, one, "nonsense"]) == 1
        assert await storage.purge() == 2
        assert await storage.purge() == 0
        assert await storage.revive() == 0
        assert (await storage.pending()).dead == 0

    async def test_no_ids_are_not_all_dead_letters(self, storage: Storage) -> None:
        """An empty list of ids selects no dead letters."""
        await write_dead(storage, "a")

        assert await storage.purge([]) == 0
        assert await storage.revive(iter(())) == 0
        assert (await storage.pending()).dead == 1
