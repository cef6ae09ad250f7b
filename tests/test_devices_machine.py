"""
Any life of a few devices, against a second reading of the rules: what is told of whom, when, and what outlasts what.
"""

import asyncio
import json
import shutil
import tempfile
from collections.abc import Coroutine, Mapping
from contextvars import copy_context
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from attrs import define, field
from helpers.clients import kept
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from exponea_async import Configuration, Customer, Device, Event, Exponea, TokenFrequency

T = TypeVar("T")
TIMEOUT = 60.0
LINK = "https://shop.example/?utm_source=mail"
CLICK = f"{LINK}&xnpe_cmp=x"
KEYS = ("a", "b", "c")

#: Name, number of the customer, hard ids, what else is told, moment.
Told = tuple[str, int, Mapping[str, str], Any, float]


@define
class Rules:
    """The settings that a model of a device knows."""

    automatic: bool = True
    auto_close: bool = True
    every_launch: bool = False
    require: bool = False


@define
class Token:
    """A push token, as a model remembers it."""

    text: str
    granted: bool
    valid: bool


@define
class Model:
    """One device, as the specification has it."""

    rules: Rules
    now: float = 0.0
    told: list[Told] = field(factory=list)
    customer: int = -1
    ids: dict[str, str] = field(factory=dict)
    start: float | None = None
    last: float = 0.0
    campaign: tuple[str, float] | None = None
    token: Token | None = None
    launched: bool = False
    in_front: bool = False

    def tell(self, name: str, what: Any = None, at: float | None = None) -> None:
        self.told.append((name, self.customer, dict(self.ids), what, self.now if at is None else at))

    def restart(self, *, crashed: bool) -> None:
        """What is in front of somebody when the client closes was active until then; a crash knows of no later sign."""
        if self.in_front and not crashed and self.rules.automatic:
            self.last = self.now
        self.launched = self.in_front = False

    def wake(self, *, launch: bool = False) -> None:
        if self.in_front:
            self.last = self.now
        if self.customer < 0:
            self.customer = 0
            self.tell("installation")
        if self.rules.automatic:
            self.expire()
            if self.start is None:
                self.begin()
            self.last = self.now
        if launch or not self.launched:
            self.check_token()
        self.launched = True

    def begin(self) -> None:
        alive = self.campaign is not None and self.now - self.campaign[1] <= 10
        self.tell("session_start", self.campaign[0] if alive and self.campaign else None)
        self.start, self.campaign = self.now, None

    def end(self, at: float) -> None:
        assert self.start is not None
        self.tell("session_end", round(at - self.start, 3), at)
        self.start = None

    def expire(self) -> None:
        if not self.rules.automatic:
            return
        if self.in_front and self.now - self.last >= TIMEOUT / 4:
            self.last = self.now
        if self.start is not None and not self.in_front and self.now - self.last >= TIMEOUT:
            self.end(self.last)

    def check_token(self, *, granted: bool | None = None) -> None:
        token = self.token
        if token is None:
            return
        granted = token.granted if granted is None else granted
        valid = granted or not self.rules.require
        due = valid != token.valid or (valid and (self.rules.every_launch or granted != token.granted))
        self.token = Token(token.text, granted, valid)
        if due:
            self.tell_token()

    def tell_token(self, *, gone: bool = False) -> None:
        assert self.token is not None
        word = "Invalidated" if gone else "Permission granted" if self.token.valid else "Permission denied"
        self.tell("notification_state", (self.token.text, self.token.valid and not gone, word))

    def track_token(self, text: str) -> None:
        granted = self.token.granted if self.token else True
        self.token = Token(text, granted, granted or not self.rules.require)
        self.tell_token()

    def handle_token(self, text: str) -> None:
        if self.token and self.token.text == text:
            self.check_token()
            return
        if self.token:
            self.tell_token(gone=True)
        self.track_token(text)

    def anonymize(self) -> None:
        if self.in_front:
            self.last = self.now
        if self.customer >= 0 and self.rules.automatic and self.start is not None:
            self.end(self.last if self.now - self.last >= TIMEOUT else self.now)
        if self.token:
            self.tell_token(gone=True)
        self.customer, self.ids, self.start, self.campaign = self.customer + 1, {}, None, None
        self.tell("installation")
        if self.rules.automatic:
            self.begin()
            self.last = self.now
        if self.token:
            self.track_token(self.token.text)
        self.launched = True


class Machine(RuleBasedStateMachine):
    """Devices of one client, which is closed, crashes and is started again."""

    rules_: ClassVar[Rules] = Rules()

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp())
        self.now, self.file, self.number = 1_700_000_000.0, 0, 0
        self.models = {key: Model(self.rules_) for key in KEYS}
        self.client: Exponea

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work, context=copy_context())

    @property
    def path(self) -> Path:
        return self.folder / f"{self.file}.sqlite"

    async def connect(self) -> None:
        known = self.rules_
        frequency = TokenFrequency.EVERY_LAUNCH if known.every_launch else TokenFrequency.ON_TOKEN_CHANGE
        configuration = Configuration(
            project_token="shop",
            authorization_token="key",
            base_url="http://127.0.0.1:9",
            storage=self.path,
            flush_mode="MANUAL",
            automatic_session_tracking=known.automatic,
            manual_session_auto_close=known.auto_close,
            session_timeout=TIMEOUT,
            require_push_authorization=known.require,
            push_token_tracking_frequency=frequency,
        )
        self.client = Exponea(configuration, clock=lambda: self.now)
        # Nothing is swept but by the machine's own rule.
        self.client._session_expirer._run = asyncio.Event().wait  # type: ignore[method-assign, assignment]
        await self.client.start()

    def about(self, key: str) -> tuple[Device, Model]:
        self.models[key].now = self.now
        return self.client.device(key), self.models[key]

    @initialize()
    def begin(self) -> None:
        self.run(self.connect())

    # Life

    @rule(seconds=st.sampled_from([1.75, 9.5, 16.0, 50.0, 59.0, 60.0, 61.0, 500.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(crashed=st.booleans())
    def restart(self, crashed: bool) -> None:  # noqa: FBT001 - drawn
        old = self.client
        if crashed:
            before, self.file = self.path, self.file + 1
            for part in ("", "-wal", "-shm"):
                shutil.copy(f"{before}{part}", f"{self.path}{part}")
        self.run(old.aclose(timeout=0))
        self.run(self.connect())
        for model in self.models.values():
            model.now = self.now
            model.restart(crashed=crashed)
        self.compare()

    @rule()
    def expire(self) -> None:
        self.run(self.client._session_expirer.expire())
        for model in self.models.values():
            model.now = self.now
            model.expire()

    # Verbs

    @rule(key=st.sampled_from(KEYS), many=st.booleans())
    def track(self, key: str, many: bool) -> None:  # noqa: FBT001 - drawn
        device, model = self.about(key)
        self.number += 1
        event = Event("ping", {"number": self.number})
        with self.client.bind(device):
            self.run(self.client.track_many([event, event]) if many else self.client.track_event(event))
        model.wake()
        for _ in range(1 + many):
            model.tell("ping", self.number)

    @rule(key=st.sampled_from(KEYS), ids=st.dictionaries(st.sampled_from(["registered", "crm"]), st.sampled_from("12")))
    def identify(self, key: str, ids: dict[str, str]) -> None:
        device, model = self.about(key)
        self.run(device.identify_customer(Customer(ids)))
        model.wake()
        model.ids |= ids
        model.tell("customer")

    @rule(key=st.sampled_from(KEYS))
    def anonymize(self, key: str) -> None:
        device, model = self.about(key)
        self.run(device.anonymize())
        model.anonymize()

    @rule(key=st.sampled_from(KEYS), front=st.booleans())
    def come_and_go(self, key: str, front: bool) -> None:  # noqa: FBT001 - drawn
        device, model = self.about(key)
        self.run(device.resume() if front else device.pause())
        model.wake(launch=front)
        model.in_front = front

    @rule(key=st.sampled_from(KEYS), text=st.sampled_from("XY"), anew=st.booleans())
    def give_token(self, key: str, text: str, anew: bool) -> None:  # noqa: FBT001 - drawn
        device, model = self.about(key)
        self.run(device.handle_push_token(text) if anew else device.track_push_token(text))
        model.wake()
        (model.handle_token if anew else model.track_token)(text)

    @rule(key=st.sampled_from(KEYS), granted=st.sampled_from([None, True, False]))
    def verify_token(self, key: str, granted: bool | None) -> None:  # noqa: FBT001 - drawn
        device, model = self.about(key)
        self.run(device.verify_push_status_and_track_push_token(granted))
        model.wake()
        model.check_token(granted=granted)

    @rule(key=st.sampled_from(KEYS), url=st.sampled_from([LINK, CLICK, "no link"]))
    def follow_link(self, key: str, url: str) -> None:
        device, model = self.about(key)
        assert self.run(device.handle_campaign_click(url)) is (url == CLICK)
        if url != "no link":
            model.campaign = (url, self.now)
            model.wake()
        if url == CLICK:
            model.tell("click", url)

    @precondition(lambda self: not self.rules_.automatic)
    @rule(key=st.sampled_from(KEYS), start=st.booleans())
    def by_hand(self, key: str, start: bool) -> None:  # noqa: FBT001 - drawn
        device, model = self.about(key)
        self.run(device.track_session_start() if start else device.track_session_end())
        model.wake()
        if model.start is not None and (self.rules_.auto_close or not start):
            model.end(self.now)
        if start:
            model.begin()

    # The books

    def teardown(self) -> None:
        try:
            if hasattr(self, "client"):
                self.compare()
        finally:
            if hasattr(self, "client"):
                self.run(self.client.aclose(timeout=0))
            self.runner.close()
            shutil.rmtree(self.folder)

    def compare(self) -> None:
        """Make sure that of each device exactly that was told which the model tells, in that order."""
        owners: dict[str, tuple[str, int]] = {}
        books: dict[str, list[Told]] = {key: [] for key in KEYS}
        keys = {self.device_id(key): key for key in KEYS if self.models[key].customer >= 0}
        for data in self.run(kept(self.client)):
            ids = dict(data["customer_ids"])
            cookie = ids.pop("cookie")
            if data.get("event_type") == "installation":
                key = keys[data["properties"]["device_id"]]
                owners[cookie] = key, sum(owner == key for owner, _ in owners.values())
            key, customer = owners[cookie]
            at = data["timestamp" if "timestamp" in data else "update_timestamp"]
            books[key].append((*told_of(data, customer, ids), round(at, 3)))
        assert books == {key: model.told for key, model in self.models.items()}

    def device_id(self, key: str) -> str:
        state = self.run(self.client._storage.load_state(f"device:{key}"))
        assert state is not None
        return str(json.loads(state.value)["device_id"])


def told_of(data: dict[str, Any], customer: int, ids: dict[str, str]) -> tuple[str, int, dict[str, str], Any]:
    """Tell of a command what a model tells."""
    properties = data["properties"]
    name = data.get("event_type", "click" if "url" in data else "customer")
    tokens = ("push_notification_token", "valid", "description")
    what = {
        "session_start": properties.get("url"),
        "session_end": properties.get("duration"),
        "notification_state": tuple(properties.get(each) for each in tokens),
        "ping": properties.get("number"),
        "click": data.get("url"),
    }.get(name)
    return name, customer, ids, what


class ByHand(Machine):
    """Sessions are started and ended by hand, and pushing needs a permission."""

    rules_ = Rules(automatic=False, every_launch=True, require=True)


class ByHandLoosely(Machine):
    """Sessions are started and ended by hand; one that starts forgets the one before."""

    rules_ = Rules(automatic=False, auto_close=False)


def usual(examples: int) -> settings:
    """Tell how long to search."""
    patient = list(HealthCheck)
    return settings(max_examples=examples, stateful_step_count=25, deadline=None, suppress_health_check=patient)


TestAutomatic = Machine.TestCase
TestAutomatic.settings = usual(40)
TestByHand = ByHand.TestCase
TestByHand.settings = usual(15)
TestByHandLoosely = ByHandLoosely.TestCase
TestByHandLoosely.settings = usual(10)
