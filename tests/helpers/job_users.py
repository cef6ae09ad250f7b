"""
Many end users whose jobs run at the same time, and what must hold for the events of these jobs.
"""

from collections import Counter, defaultdict

from exponea_async import Exponea
from exponea_async.sandbox import Sandbox, StoredEvent
from exponea_async.subjects import Subject

#: Every second one is a customer, and every other one a device.
USERS = [f"user-{number}" for number in range(60)]
JOBS_PER_USER = 5
#: How long all their jobs may take, in seconds.
PATIENCE = 300.0
#: The time limit of jobs that hang, in seconds. They must have tracked before, on a busy machine, too.
TIME_LIMIT = 6


def subject(exponea: Exponea, user: str) -> Subject:
    """Return the subject of a user."""
    if int(user.partition("-")[2]) % 2:
        return exponea.device(user)
    return exponea.for_customer({"registered": user})


def visits(sandbox: Sandbox) -> list[StoredEvent]:
    """Return the events that jobs have tracked."""
    return sandbox.engine.events("shop", "visit")


def kinds(sandbox: Sandbox) -> Counter[str]:
    """Return how many events of each kind jobs have tracked. An attempt counts once: queues may repeat it."""
    attempts = {
        (event.properties["kind"], event.properties["user"], event.properties.get("attempt"))
        for event in visits(sandbox)
    }
    return Counter(kind for kind, _, _ in attempts)


def check_identities(sandbox: Sandbox) -> None:
    """Check that each event has exactly the ids of the user whose job tracked it."""
    cookies: defaultdict[str, set[str]] = defaultdict(set)
    for event in visits(sandbox):
        user, ids = event.properties["user"], dict(event.customer_ids)
        if int(user.partition("-")[2]) % 2:
            assert ids.keys() == {"cookie"}
            cookies[user].add(ids["cookie"])
        else:
            assert ids == {"registered": user}
    found = [cookie for each in cookies.values() for cookie in each]
    assert len(found) == len(set(found)) == len(cookies)
