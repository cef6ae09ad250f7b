"""
What in-app messages cost: memory for the messages of many customers, and the time to choose one for an event.
"""

import gc
import json
import random
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import bench

from exponea_async.devices.impressions import Impression
from exponea_async.features._shared.targeting.filters import TriggerEvent
from exponea_async.features._shared.targeting.priority import choose_by_priority
from exponea_async.features.in_app.cache import MAX_BYTES, MessageCache
from exponea_async.features.in_app.loader import pack
from exponea_async.features.in_app.parsing import allowed_by_frequency, matching_messages, priority_of

CUSTOMERS = bench.size(10_000, 100)
MESSAGES = 50
#: Customers who share all messages but one.
OVERLAPPING_CUSTOMERS = bench.size(2_000, 20)
#: Customers who share no messages: far more of them than the cache can hold.
DISTINCT_CUSTOMERS = bench.size(1_000, 10)
ROUNDS = bench.size(2_000, 20)


def message(number: int, salt: str = "") -> dict[str, Any]:
    """Return a message as a campaign of a shop would define it."""
    condition = {
        "attribute": {"type": "property", "property": "price"},
        "constraint": {
            "type": "number",
            "operator": "greater than",
            "operands": [{"type": "constant", "value": str(number % 10)}],
        },
    }
    button = {
        "button_text": "Open the basket",
        "button_type": "deep-link",
        "button_link": f"shop://basket?from={number}",
        "button_text_color": "#ffffff",
        "button_background_color": "#222222",
    }
    return {
        "id": f"{salt}5f0c{number:020d}",
        "name": f"Campaign {number}",
        "message_type": "modal",
        "frequency": "once_per_visit",
        "payload": {
            "title": "Still thinking?",
            "body_text": "Your basket waits, and what is in it is ten percent off until midnight. " * 3,
            "image_url": f"https://img.example/{number}.png",
            "title_text_color": "#000000",
            "title_text_size": "22px",
            "body_text_color": "#333333",
            "body_text_size": "14px",
            "background_color": "#ffffff",
            "buttons": [button, {**button, "button_type": "cancel", "button_text": "Later"}],
        },
        "variant_id": 0,
        "variant_name": "Variant A",
        "trigger": {"type": "event", "event_type": "view_item", "filter": [condition]},
        "date_filter": {"enabled": True, "from_date": 1_700_000_000, "to_date": 4_000_000_000},
        "load_priority": number % 5,
        "load_delay": 0,
        "close_timeout": None,
        "is_html": False,
        "has_tracking_consent": True,
    }


def response(salt: str = "") -> bytes:
    """Return the body of the platform's response for a customer."""
    return json.dumps({"success": True, "results": [message(number, salt) for number in range(MESSAGES)]}).encode()


def resident() -> float:
    """Return the resident memory in megabytes after a garbage collection."""
    gc.collect()
    return bench.resident()


def fill_cache(fill: Callable[[MessageCache], None]) -> tuple[int, float, float]:
    """
    Fill a cache in a process of its own.

    Returns:
        The number of customers it holds, the growth of memory in MB, and the cache's own count of it in MB.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(_fill_cache, fill).result()


def _fill_cache(fill: Callable[[MessageCache], None]) -> tuple[int, float, float]:
    # Before, let parsing itself allocate what it needs.
    body = response("first")
    for _ in range(20):
        MessageCache().read(body)
    before, cache = resident(), MessageCache()
    fill(cache)
    return len(cache), resident() - before, cache.size / 1e6


def same(cache: MessageCache) -> None:
    """Add customers with the same messages, each from a response of its own."""
    body = response()
    for number in range(CUSTOMERS):
        cache.put(f"{number:032x}", cache.read(bytes(bytearray(body))), time.time())


def overlapping(cache: MessageCache) -> None:
    """Add customers with the same messages, except that one is replaced by a message of their own."""
    common = [message(number) for number in range(MESSAGES)]
    for number in range(OVERLAPPING_CUSTOMERS):
        own = [each for index, each in enumerate(common) if index != number % MESSAGES]
        own.append({**message(number), "id": f"own-{number}"})
        body = json.dumps({"success": True, "results": own}).encode()
        cache.put(f"{number:032x}", cache.read(body), time.time())


def distinct(cache: MessageCache) -> None:
    """Add customers with messages of their own."""
    for number in range(DISTINCT_CUSTOMERS):
        cache.put(f"{number:032x}", cache.read(response(f"{number}-")), time.time())


def memory() -> None:
    """Print the size of messages in memory and on disk."""
    body = response()
    bench.row(f"a response with {MESSAGES} messages", f"{len(body) / 1000:,.0f} KB")
    bench.row("  as stored for a device", f"{len(pack(body, '0' * 32, time.time())) / 1000:,.1f} KB")
    for label, fill, target in (
        ("the same messages", same, "target under 10 MB"),
        ("one message of their own each", overlapping, ""),
        ("all messages different", distinct, f"limit {MAX_BYTES / 1e6:.0f} MB"),
    ):
        held, size, counted = fill_cache(fill)
        bench.row(f"{held:,} customers, {label}", f"{size:,.1f} MB", "", target)
        bench.row("  counted by the cache; measured / counted", f"{counted:,.1f} MB", f"{size / counted:.2f}")
        bench.row("  each", f"{size / held * 1e3:,.1f} KB")


def seconds(function: Callable[[], object]) -> float:
    """Return the duration of a call in seconds, as the mean of many."""
    started = time.perf_counter()
    for _ in range(ROUNDS):
        function()
    return (time.perf_counter() - started) / ROUNDS


def speed() -> None:
    """Print how long it takes to choose a message."""
    content = MessageCache().read(response())
    event, now = bench.event(1), time.time()
    impressions = {each.id: Impression(now - 86_400.0) for each in content.definitions}
    names = list(impressions)
    rng = random.Random(1)

    def limit() -> int:
        found = 0
        for name in names:
            if impressions.get(name) is not None:
                found += 1
        return found

    def choose(name: str) -> object:
        trigger = TriggerEvent(name, event.properties, now)
        matches = matching_messages(content.for_event_type(name), trigger, now)
        if not matches:
            return None
        return choose_by_priority([(trigger, allowed_by_frequency(matches, impressions, now))], priority_of, rng)

    bare = bench.median_of(9, lambda: seconds(limit))
    bench.row(f"a bare loop of {MESSAGES} lookups", f"{bare * 1e6:.1f} us", "1.0")
    for label, name in (
        (f"choosing among {MESSAGES} for an event", "view_item"),
        ("an event that triggers no message", "ping"),
    ):
        took = bench.median_of(9, lambda name=name: seconds(lambda: choose(name)))  # type: ignore[misc]
        bench.row(label, f"{took * 1e6:.1f} us", f"{took / bare:.1f}", "target under 50 us")
    body = response("new")
    reading = bench.median_of(5, lambda: seconds_once(lambda: MessageCache().read(body)))
    bench.row("parsing a response with new messages", f"{reading * 1e3:.1f} ms")
    cache = MessageCache()
    cache.put("known", cache.read(body), now)
    again = bench.median_of(9, lambda: seconds_once(lambda: cache.read(body)))
    bench.row("parsing one with messages in the cache", f"{again * 1e3:.2f} ms", f"{again / reading:.3f}")


def seconds_once(function: Callable[[], object]) -> float:
    """Return the duration of one call in seconds."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


if __name__ == "__main__":
    bench.headline(f"in-app messages: {MESSAGES} for each customer")
    memory()
    speed()
