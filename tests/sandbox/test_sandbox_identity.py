"""
Identity: how customers are found, created and merged.
"""

import pytest
from helpers.sandbox_engine import engine_at_now, event_types, identify, track
from hypothesis import given
from hypothesis import strategies as st

from exponea_async.sandbox import Engine


@pytest.fixture
def engine() -> Engine:
    return engine_at_now()


class TestIdentity:
    def test_a_login_merges_the_anonymous_customer(self, engine: Engine) -> None:
        """After an event with a cookie and a hard id, the customer with the hard id has the events of the cookie."""
        track(engine, {"cookie": "c"}, "anonymous")
        track(engine, {"registered": "r"}, "known")
        track(engine, {"cookie": "c", "registered": "r"}, "login")

        (view,) = engine.customers()
        assert view.ids == {"registered": ("r",), "cookie": ("c",)}
        assert event_types(engine, registered="r") == ["anonymous", "known", "login"]
        assert (view.key, view.events) == (2, 3)

    def test_a_customer_can_have_many_cookies(self, engine: Engine) -> None:
        """Each device adds its cookie to the customer."""
        for cookie in ("phone", "laptop"):
            track(engine, {"cookie": cookie, "registered": "r"}, cookie)

        assert engine.customers()[0].ids["cookie"] == ("phone", "laptop")
        assert event_types(engine, cookie="phone") == ["phone", "laptop"]

    def test_a_hard_id_has_precedence_over_a_cookie(self, engine: Engine) -> None:
        """Another customer on the same device gets the cookie, but not the events of the previous customer."""
        track(engine, {"cookie": "c", "registered": "ann"}, "by ann")
        track(engine, {"cookie": "c", "registered": "bob"}, "by bob")
        track(engine, {"cookie": "c"}, "later")

        assert event_types(engine, registered="ann") == ["by ann"]
        assert event_types(engine, registered="bob") == ["by bob", "later"]
        assert [view.ids.get("cookie") for view in engine.customers()] == [None, ("c",)]

    def test_a_customer_gets_a_hard_id_of_another_kind(self, engine: Engine) -> None:
        """A hard id of a new kind is added to the customer with the other id."""
        track(engine, {"registered": "r"})
        track(engine, {"registered": "r", "crm": "7"}, "joined")

        assert event_types(engine, crm="7") == ["ping", "joined"]

    def test_two_customers_without_conflict_merge(self, engine: Engine) -> None:
        """Two customers with hard ids of different kinds are merged into the older one."""
        track(engine, {"crm": "7"}, "crm")
        track(engine, {"registered": "r"}, "web")
        identify(engine, {"registered": "r", "crm": "7"})

        (view,) = engine.customers()
        assert (view.key, view.events) == (1, 2)

    @pytest.mark.parametrize("second", [{"registered": "bob", "crm": "2"}, {"registered": "new"}])
    def test_conflicting_hard_ids_are_rejected(self, engine: Engine, second: dict[str, str]) -> None:
        """A command that would give one customer two ids of a kind fails, and changes nothing."""
        identify(engine, {"registered": "ann", "crm": "1"})
        identify(engine, {"registered": "bob", "crm": "2"})
        before = engine.customers()

        (error,) = track(engine, {**second, "crm": "1", "cookie": "c"})

        assert "different customers" in error
        assert engine.customers() == before
        assert engine.events() == []

    def test_three_customers_merge(self, engine: Engine) -> None:
        """One command can merge an anonymous customer and two others."""
        track(engine, {"cookie": "c"}, "visit")
        track(engine, {"registered": "r"}, "web")
        track(engine, {"crm": "7"}, "crm")
        identify(engine, {"cookie": "c", "registered": "r", "crm": "7"})

        assert event_types(engine, cookie="c") == ["visit", "web", "crm"]
        assert len(engine.customers()) == 1

    def test_finding_a_customer(self, engine: Engine) -> None:
        """A customer is found by a hard id before the cookie; unknown ids find none."""
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
COMMANDS = st.lists(st.tuples(IDS, st.sampled_from(["a", "b", None])), max_size=40)


@given(COMMANDS)
def test_invariants_of_merging(commands: list[tuple[dict[str, str], str | None]]) -> None:
    """Each id has one owner, no customer has two hard ids of a kind, and no event is lost or counted twice."""
    engine = engine_at_now()
    accepted = 0
    for ids, event_type in commands:
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


@given(COMMANDS)
def test_ids_of_a_command_belong_to_one_customer(commands: list[tuple[dict[str, str], str | None]]) -> None:
    """Right after a command was accepted, the same customer is found by each of its ids."""
    engine = engine_at_now()
    for ids, _ in commands:
        if identify(engine, ids) == ():
            found = [engine.customer("shop", {kind: value}) for kind, value in ids.items()]
            assert found[0] is not None
            assert all(view == found[0] for view in found)
