"""
The bounded cache keeps the entries that were used last, within its bounds.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exponea_async._internal.lru import LruCache


def test_a_cache_evicts_the_entry_that_was_used_longest_ago() -> None:
    """A full cache makes room by removing the least recently used entry."""
    cache: LruCache[str, int] = LruCache(2)
    cache.put("a", 1)
    cache.put("b", 2)
    assert cache.get("a") == 1
    cache.put("c", 3)
    assert dict(cache.items()) == {"a": 1, "c": 3}


def test_peeking_does_not_count_as_use() -> None:
    """An entry that was only peeked at is still evicted first."""
    cache: LruCache[str, int] = LruCache(2)
    cache.put("a", 1)
    cache.put("b", 2)
    assert cache.peek("a") == 1
    cache.put("c", 3)
    assert list(cache) == ["b", "c"]
    assert cache.peek("a") is None


def test_replacing_a_value_counts_as_use_and_evicts_nothing() -> None:
    """A new value for a known key takes the room of the old one."""
    cache: LruCache[str, str] = LruCache(2, max_weight=6, weigh=len)
    cache.put("a", "xxx")
    cache.put("b", "yyy")
    cache.put("a", "zzz")
    assert list(cache) == ["b", "a"]
    assert list(cache.values()) == ["yyy", "zzz"]
    assert cache.weight == 6


def test_a_cache_is_bounded_by_weight() -> None:
    """As many of the oldest entries are evicted as the weight demands."""
    cache: LruCache[str, str] = LruCache(max_weight=5, weigh=len)
    cache.put("a", "xx")
    cache.put("b", "xx")
    cache.put("c", "xxxx")
    assert list(cache) == ["c"]
    assert cache.weight == 4


@pytest.mark.parametrize(("keep_latest", "kept"), [(True, ["huge"]), (False, [])])
def test_an_entry_heavier_than_the_bound_stays_only_on_request(keep_latest: bool, kept: list[str]) -> None:  # noqa: FBT001 - a parameter of pytest
    """With `keep_latest` the entry that was put last stays, however heavy; without it, it is evicted too."""
    cache: LruCache[str, str] = LruCache(max_weight=3, weigh=len, keep_latest=keep_latest)
    cache.put("small", "x")
    cache.put("huge", "xxxx")
    assert list(cache) == kept
    assert cache.weight == 4 * len(kept)


def test_only_evictions_are_reported() -> None:
    """`on_evict` hears of entries that made room, not of those that the caller removed or replaced."""
    evicted: list[tuple[str, int]] = []
    cache: LruCache[str, int] = LruCache(1, on_evict=lambda key, value: evicted.append((key, value)))
    cache.put("a", 1)
    cache.put("a", 2)
    cache.put("b", 3)
    assert cache.pop("b") == 3
    cache.put("c", 4)
    cache.clear()
    assert evicted == [("a", 2)]
    assert len(cache) == 0


def test_removing_an_unknown_key_changes_nothing() -> None:
    """`pop` of a key that is not cached returns None; the oldest entry of an empty cache is an error."""
    cache: LruCache[str, int] = LruCache(1)
    assert cache.pop("a") is None
    assert "a" not in cache
    with pytest.raises(KeyError):
        cache.pop_oldest()


@given(st.lists(st.tuples(st.sampled_from(["put", "get", "pop"]), st.integers(0, 5), st.text(max_size=4))))
def test_the_weight_is_that_of_the_entries(steps: list[tuple[str, int, str]]) -> None:
    """Whatever happens to a cache, its weight is the sum over its entries and within the bounds."""
    cache: LruCache[int, str] = LruCache(3, max_weight=8, weigh=len)
    for verb, key, value in steps:
        if verb == "put":
            cache.put(key, value)
        else:
            getattr(cache, verb)(key)
        assert cache.weight == sum(map(len, cache.values())) <= 8
        assert len(cache) <= 3
