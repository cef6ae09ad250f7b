"""
Who is who: how customers are found, made and merged.
"""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exponea_async.sandbox import Engine

NOW = 1_767_225_600.0


@pytest.fixture
def engine() -> Engine:
    return Engine(clock=lambda: NOW)


def event(ids: dict[str, str], event_type: str = "ping", **fields: Any) -> dict[str, Any]:
    return {"customer_ids": ids, "event_type": event_type, "timestamp": 1.0, "properties": {}, **fields}


def track(engine: Engine, ids: dict[str, str], event_type: str = "ping", **fields: Any) -> tuple[str, ...]:
    return engine.execute("shop", "customers/events", event(ids, event_type, **fields))


def identify(engine: Engine, ids: dict[str, str], **fields: Any) -> tuple[str, ...]:
    return engine.execute("shop", "customers", {"customer_ids": ids, **fields})


def owned(engine: Engine, **ids: str) -> list[str]:
    """Tells the types of the events of a customer."""
    view = engine.customer("shop", ids)
    assert view is not None
    return [each.event_type for each in engine.events("shop") if each.customer == view.key]


class TestIdentity:
    def test_a_login_merges_what_was_anonymous(self, engine: Engine) -> None:
        """A request with a cookie and a hard id gives the cookie's events to the hard id's customer."""
        track(engine, {"cookie": "c"}, "anonymous")
        track(engine, {"registered": "r"}, "known")
        track(engine, {"cookie": "c", "registered": "r"}, "login")

        (view,) = engine.customers()
        assert view.ids == {"registered": ("r",), "cookie": ("c",)}
        assert owned(engine, registered="r") == ["anonymous", "known", "login"]
        assert (view.key, view.events) == (2, 3)

    def test_a_customer_has_many_cookies(self, engine: Engine) -> None:
        """Each device adds its cookie to the customer."""
        for cookie in ("phone", "laptop"):
            track(engine, {"cookie": cookie, "registered": "r"}, cookie)

        assert engine.customers()[0].ids["cookie"] == ("phone", "laptop")
        assert owned(engine, cookie="phone") == ["phone", "laptop"]

    def test_a_hard_id_wins_over_a_cookie(self, engine: Engine) -> None:
        """Another person on the same device takes the cookie along, but not the other's past."""
        track(engine, {"cookie": "c", "registered": "ann"}, "ann's")
        track(engine, {"cookie": "c", "registered": "bob"}, "bob's")
        track(engine, {"cookie": "c"}, "later")

        assert owned(engine, registered="ann") == ["ann's"]
        assert owned(engine, registered="bob") == ["bob's", "later"]
        assert [view.ids.get("cookie") for view in engine.customers()] == [None, ("c",)]

    def test_a_known_customer_gains_another_kind(self, engine: Engine) -> None:
        """A hard id of a new kind joins the customer who is named beside it."""
        track(engine, {"registered": "r"})
        track(engine, {"registered": "r", "crm": "7"}, "joined")

        assert owned(engine, crm="7") == ["ping", "joined"]

    def test_two_customers_without_conflict_merge(self, engine: Engine) -> None:
        """Two hard ids of different kinds that are named together become one customer, the older one."""
        track(engine, {"crm": "7"}, "crm")
        track(engine, {"registered": "r"}, "web")
        identify(engine, {"registered": "r", "crm": "7"})

        (view,) = engine.customers()
        assert (view.key, view.events) == (1, 2)

    @pytest.mark.parametrize("second", [{"registered": "bob", "crm": "2"}, {"registered": "new"}])
    def test_conflicting_hard_ids_are_refused(self, engine: Engine, second: dict[str, str]) -> None:
        """A request that would give one customer two ids of a kind fails, and changes nothing."""
        identify(engine, {"registered": "ann", "crm": "1"})
        identify(engine, {"registered": "bob", "crm": "2"})
        before = engine.customers()

        (error,) = track(engine, {**second, "crm": "1", "cookie": "c"})

        assert "different customers" in error
        assert engine.customers() == before
        assert engine.events() == []

    def test_three_become_one(self, engine: Engine) -> None:
        """A request may show a visitor and two customers to be one."""
        track(engine, {"cookie": "c"}, "visit")
        track(engine, {"registered": "r"}, "web")
        track(engine, {"crm": "7"}, "crm")
        identify(engine, {"cookie": "c", "registered": "r", "crm": "7"})

        assert owned(engine, cookie="c") == ["visit", "web", "crm"]
        assert len(engine.customers()) == 1

    def test_a_customer_is_found_by_a_hard_id_first(self, engine: Engine) -> None:
        """Where cookie and hard id lead to two customers, the hard id decides; unknown ids find none."""
        track(engine, {"cookie": "c"})
        track(engine, {"registered": "r"})

        found = engine.customer("shop", {"cookie": "c", "registered": "r"})

        assert found is not None
        assert found.ids == {"registered": ("r",)}
        assert engine.customer("shop", {"cookie": "none"}) is None
        assert engine.customer("none", {"cookie": "c"}) is None


IDS = st.fixed_dictionaries(
    {},
    optional={
        "cookie": st.sampled_from(["c1", "c2", "c3", "c4"]),
        "registered": st.sampled_from(["r1", "r2", "r3"]),
        "crm": st.sampled_from(["k1", "k2", "k3"]),
        "card": st.sampled_from(["d1", "d2"]),
    },
).filter(bool)
REQUESTS = st.lists(st.tuples(IDS, st.sampled_from(["a", "b", None])), max_size=40)


@settings(deadline=None)
@given(REQUESTS)
def test_whatever_merges_the_books_stay_right(requests: list[tuple[dict[str, str], str | None]]) -> None:
    """Each id has one owner, no customer two values of a hard kind, and no event is lost or counted twice."""
    engine = Engine(clock=lambda: NOW)
    accepted = 0
    for ids, event_type in requests:
        if event_type is None:
            identify(engine, ids)
        else:
            accepted += track(engine, ids, event_type) == ()
    customers = engine.customers()
    pairs = [(kind, value) for view in customers for kind, values in view.ids.items() for value in values]

    assert len(pairs) == len(set(pairs))
    assert all(len(values) == 1 for view in customers for kind, values in view.ids.items() if kind != "cookie")
    assert all(view.ids or view.events for view in customers)
    assert len(engine.events()) == accepted - engine.duplicates == sum(view.events for view in customers)
    assert {each.customer for each in engine.events()} <= {view.key for view in customers}


@settings(deadline=None)
@given(REQUESTS)
def test_an_accepted_request_leads_to_its_customer(requests: list[tuple[dict[str, str], str | None]]) -> None:
    """Right after a request was accepted, each of its ids names the same customer."""
    engine = Engine(clock=lambda: NOW)
    for ids, _ in requests:
        if identify(engine, ids) == ():
            found = [engine.customer("shop", {kind: value}) for kind, value in ids.items()]
            assert found[0] is not None
            assert all(view == found[0] for view in found)
