"""
The model of a random history: which events were acknowledged to the caller, and what may have become of each.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from attrs import define, field

from exponea_async import Receipt
from exponea_async.sandbox import StoredEvent
from exponea_async.testing import StoredRecord

#: The mistyped kind of id that the platform refuses.
MISTYPED = "registerd"


@define(eq=False)
class Tracked:
    """
    An event that a call has returned for.

    Attributes:
        number: The property that identifies it.
        owner: The end user that it is about.
        ids: The ids that it must carry, without the cookie.
        projects: The projects that must get it.
        marker: The default property that it must carry, or None.
        author: The client or process that tracked it.
        receipt: The receipt; None if another process has it.
        fate: What must become of it: it is ``"due"`` until it is delivered or a dead letter; ``"wiped"`` with the data;
            ``"dropped"`` at the call; ``"open"`` where the call has not returned.
        may_die: Whether the platform may have refused it while it refused others.
        arrived: The projects that had it when it was wiped; None if more of them may get it all the same.
        wiped_by: The client that wiped it.
    """

    number: int
    owner: str
    ids: Mapping[str, str]
    projects: tuple[str, ...]
    marker: str | None
    author: str
    receipt: Receipt | None = None
    fate: Literal["due", "wiped", "dropped", "open"] = "due"
    may_die: bool = False
    arrived: frozenset[str] | None = None
    wiped_by: str = ""

    @property
    def is_refused(self) -> bool:
        """Whether the platform refuses its ids."""
        return MISTYPED in self.ids


@define
class Ledger:
    """
    What the platform has.

    Attributes:
        events: All events.
        copies: How often it has each event, by project and number.
    """

    events: list[StoredEvent]
    copies: "Counter[tuple[str, int]]" = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.copies = Counter((each.project, each.properties["number"]) for each in self.numbered)

    @property
    def numbered(self) -> list[StoredEvent]:
        """The events that the history has tracked, and not the SDK by itself."""
        return [each for each in self.events if "number" in each.properties]

    def projects_with(self, event: Tracked) -> frozenset[str]:
        """Return the projects that have an event."""
        return frozenset(project for project, number in self.copies if number == event.number)


@define
class HistoryModel:
    """
    All events of a history.

    Attributes:
        events: The events by their number.
        markers: The number of the wipe after which each default property was set.
        wipes: The number of wipes so far.
    """

    events: dict[int, Tracked] = field(factory=dict)
    markers: dict[str, int] = field(factory=dict)
    wipes: int = 0

    def of(self, *fates: str) -> list[Tracked]:
        """Return the events with some fates."""
        return [each for each in self.events.values() if each.fate in fates]

    def wipe(self, by: str, ledger: Ledger, *, is_exact: bool) -> None:
        """Note that all data was deleted; without `is_exact`, some requests may still have been under way."""
        self.wipes += 1
        for event in self.of("due", "open"):
            event.fate, event.wiped_by = "wiped", by
            event.arrived = ledger.projects_with(event) if is_exact else None

    def expect_refusals(self) -> None:
        """Note that the platform refuses events from now on."""
        for event in self.of("due", "open"):
            event.may_die = True

    def forget(self, whose: str, by: str, ledger: Ledger, *, is_exact: bool) -> None:
        """Note that everything of a device or customer was deleted; ``is_exact`` as in `wipe`."""
        for event in self.of("due"):
            if event.owner.split()[:2] == whose.split():
                event.fate, event.wiped_by = "wiped", by
                event.arrived = ledger.projects_with(event) if is_exact else None

    # Checks

    def check(self, ledger: Ledger) -> None:
        """Check what must hold at any time."""
        assert [key for key, count in ledger.copies.items() if count > 1] == [], "an event is there twice"
        for stored in ledger.numbered:
            event = self.events[stored.properties["number"]]
            assert stored.project in event.projects, f"event {event.number} in project {stored.project}"
            assert event.fate != "dropped", f"event {event.number} was dropped, and is there"
            assert not event.is_refused, f"event {event.number} has an id that is refused"
            hard = {kind: value for kind, value in stored.customer_ids.items() if kind != "cookie"}
            assert hard == event.ids, f"event {event.number} of {event.owner} has the ids {hard}"
            assert stored.properties.get("marker") == event.marker, f"default properties of event {event.number}"
            if event.fate == "wiped" and event.arrived is not None:
                assert stored.project in event.arrived, f"event {event.number} arrived after it was wiped"
        self._check_owners(ledger)
        for event in self.events.values():
            if event.receipt is not None:
                self._check_receipt(event, event.receipt, ledger)

    def _check_owners(self, ledger: Ledger) -> None:
        owners: dict[Any, str] = {}
        ages: dict[Any, int] = {}
        for stored in ledger.numbered:
            event = self.events[stored.properties["number"]]
            cookie = stored.customer_ids.get("cookie")
            assert (cookie is None) is event.owner.startswith("customer"), f"cookie of event {event.number}"
            if cookie is not None:
                assert owners.setdefault(cookie, event.owner) == event.owner, f"event {event.number} has another cookie"
                ages[cookie] = int(event.owner.rpartition("/")[2])
        assert len(set(owners.values())) == len(owners), "an end user has two cookies"
        for stored in ledger.events:
            cookie, marker = stored.customer_ids.get("cookie"), stored.properties.get("marker")
            if marker is not None and cookie in ages:
                assert self.markers[marker] == ages[cookie], f"{marker} has outlived a wipe"

    def _check_receipt(self, event: Tracked, receipt: Receipt, ledger: Ledger) -> None:
        status, there = receipt.status, ledger.projects_with(event)
        name = f"the receipt of event {event.number}, {status}, of {event.fate}; it is in {sorted(there)}"
        if status == "delivered":
            assert there == set(event.projects), name
        elif status == "rejected":
            assert event.is_refused or event.may_die, name
        elif status == "dropped":
            assert event.fate in ("dropped", "wiped"), name
        elif status == "lost":
            assert event.fate == "wiped", name
            assert event.wiped_by != event.author, name
        assert (event.fate == "dropped") <= (status == "dropped"), name

    def check_end(self, ledger: Ledger, dead: Iterable[StoredRecord], live: str) -> None:
        """
        Check what must hold once everything is corrected and nothing waits.

        Args:
            ledger: What the platform has.
            dead: The dead letters.
            live: The client whose receipts must all have a verdict.
        """
        dead_by_number = {
            (each.project, each.properties["number"]): each for each in dead if "number" in each.properties
        }
        for event in self.events.values():
            for project in event.projects:
                is_there, letter = (project, event.number) in ledger.copies, dead_by_number.get((project, event.number))
                name = f"event {event.number}, {event.fate}, in {project}, dead letter: {letter and letter.reason}"
                assert letter is None or letter.reason, name
                if event.fate == "due":
                    assert is_there or letter, f"lost: {name}"
                    assert letter is None or event.is_refused or event.may_die, name
                elif event.fate != "open":
                    assert letter is None, name
                if event.is_refused and letter and not event.may_die:
                    assert MISTYPED in letter.reason, name
            if event.receipt is not None and event.author == live:
                assert event.receipt.status != "queued", f"no verdict on event {event.number}"
