"""
Random activity on a few devices, compared with a model: which events are tracked, for which customer and when.
"""

import asyncio
import json
import shutil
import tempfile
from collections.abc import Coroutine, Mapping
from contextvars import copy_context
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
from attrs import define, field
from helpers.clients import pending_data
from helpers.queue_file import stored_state
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from exponea_async import Configuration, Customer, Device, Event, Exponea, TokenFrequency
from exponea_async.testing import end_idle_sessions

pytestmark = pytest.mark.usefixtures("no_periodic_expiry")

T = TypeVar("T")
TIMEOUT = 60.0
LINK = "https://shop.example/?utm_source=mail"
CLICK = f"{LINK}&xnpe_cmp=x"
KEYS = ("a", "b", "c")

#: An event: name, number of the customer, hard ids, its relevant properties, timestamp.
TrackedEvent = tuple[str, int, Mapping[str, str], Any, float]


@define
class Settings:
    """The settings that matter to the model."""

    automatic: bool = True
    auto_close: bool = True
    every_launch: bool = False
    require: bool = False


@define
class Token:
    """A push token."""

    text: str
    granted: bool
    valid: bool


@define
class Model:
    """One device, as it is specified."""

    rules: Settings
    now: float = 0.0
    tracked: list[TrackedEvent] = field(factory=list)
    customer: int = -1
    ids: dict[str, str] = field(factory=dict)
    start: float | None = None
    last: float = 0.0
    campaign: tuple[str, float] | None = None
    token: Token | None = None
    launched: bool = False
    in_foreground: bool = False

    def track(self, name: str, what: Any = None, at: float | None = None) -> None:
        self.tracked.append((name, self.customer, dict(self.ids), what, self.now if at is None else at))

    def restart(self, *, crashed: bool) -> None:
        """A device in the foreground is active until the client closes; after a crash, the stored activity counts."""
        if self.in_foreground and not crashed and self.rules.automatic:
            self.last = self.now
        self.launched = self.in_foreground = False

    def be_active(self, *, launch: bool = False) -> None:
        if self.in_foreground:
            self.last = self.now
        if self.customer < 0:
            self.customer = 0
            self.track("installation")
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
        self.track("session_start", self.campaign[0] if alive and self.campaign else None)
        self.start, self.campaign = self.now, None

    def end(self, at: float) -> None:
        assert self.start is not None
        self.track("session_end", round(at - self.start, 3), at)
        self.start = None

    def expire(self) -> None:
        if not self.rules.automatic:
            return
        if self.in_foreground and self.now - self.last >= TIMEOUT / 4:
            self.last = self.now
        if self.start is not None and not self.in_foreground and self.now - self.last >= TIMEOUT:
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
            self.track_token_state()

    def track_token_state(self, *, gone: bool = False) -> None:
        assert self.token is not None
        word = "Invalidated" if gone else "Permission granted" if self.token.valid else "Permission denied"
        self.track("notification_state", (self.token.text, self.token.valid and not gone, word))

    def track_token(self, text: str) -> None:
        granted = self.token.granted if self.token else True
        self.token = Token(text, granted, granted or not self.rules.require)
        self.track_token_state()

    def handle_token(self, text: str) -> None:
        if self.token and self.token.text == text:
            self.check_token()
            return
        if self.token:
            self.track_token_state(gone=True)
        self.track_token(text)

    def anonymize(self) -> None:
        if self.in_foreground:
            self.last = self.now
        if self.customer >= 0 and self.rules.automatic and self.start is not None:
            self.end(self.last if self.now - self.last >= TIMEOUT else self.now)
        if self.token:
            self.track_token_state(gone=True)
        self.customer, self.ids, self.start, self.campaign = self.customer + 1, {}, None, None
        self.track("installation")
        if self.rules.automatic:
            self.begin()
            self.last = self.now
        if self.token:
            self.track_token(self.token.text)
        self.launched = True


class Machine(RuleBasedStateMachine):
    """Devices of one client, which is closed and started again, or crashes."""

    settings_: ClassVar[Settings] = Settings()

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp())
        self.now, self.file, self.number = 1_700_000_000.0, 0, 0
        self.models = {key: Model(self.settings_) for key in KEYS}
        self.client: Exponea

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work, context=copy_context())

    @property
    def path(self) -> Path:
        return self.folder / f"{self.file}.sqlite"

    async def connect(self) -> None:
        known = self.settings_
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
        await self.client.start()
        # The client does so, too, but later.
        await end_idle_sessions(self.client)

    def about(self, key: str) -> tuple[Device, Model]:
        self.models[key].now = self.now
        return self.client.device(key), self.models[key]

    @initialize()
    def begin(self) -> None:
        self.run(self.connect())

    # Life cycle

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
            model.expire()
        self.compare()

    @rule()
    def expire(self) -> None:
        self.run(end_idle_sessions(self.client))
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
        model.be_active()
        for _ in range(1 + many):
            model.track("ping", self.number)

    @rule(key=st.sampled_from(KEYS), ids=st.dictionaries(st.sampled_from(["registered", "crm"]), st.sampled_from("12")))
    def identify(self, key: str, ids: dict[str, str]) -> None:
        device, model = self.about(key)
        self.run(device.identify_customer(Customer(ids)))
        model.be_active()
        model.ids |= ids
        model.track("customer")

    @rule(key=st.sampled_from(KEYS))
    def anonymize(self, key: str) -> None:
        device, model = self.about(key)
        self.run(device.anonymize())
        model.anonymize()

    @rule(key=st.sampled_from(KEYS), foreground=st.booleans())
    def resume_or_pause(self, key: str, foreground: bool) -> None:  # noqa: FBT001 - drawn
        device, model = self.about(key)
        self.run(device.resume() if foreground else device.pause())
        model.be_active(launch=foreground)
        model.in_foreground = foreground

    @rule(key=st.sampled_from(KEYS), text=st.sampled_from("XY"), handled=st.booleans())
    def give_token(self, key: str, text: str, handled: bool) -> None:  # noqa: FBT001 - drawn
        device, model = self.about(key)
        self.run(device.handle_push_token(text) if handled else device.track_push_token(text))
        model.be_active()
        (model.handle_token if handled else model.track_token)(text)

    @rule(key=st.sampled_from(KEYS), granted=st.sampled_from([None, True, False]))
    def verify_token(self, key: str, granted: bool | None) -> None:  # noqa: FBT001 - drawn
        device, model = self.about(key)
        self.run(device.verify_push_status_and_track_push_token(granted))
        model.be_active()
        model.check_token(granted=granted)

    @rule(key=st.sampled_from(KEYS), url=st.sampled_from([LINK, CLICK, "no link"]))
    def follow_link(self, key: str, url: str) -> None:
        device, model = self.about(key)
        assert self.run(device.handle_campaign_click(url)) is (url == CLICK)
        if url != "no link":
            model.campaign = (url, self.now)
            model.be_active()
        if url == CLICK:
            model.track("click", url)

    @precondition(lambda self: not self.settings_.automatic)
    @rule(key=st.sampled_from(KEYS), start=st.booleans())
    def manage_session(self, key: str, start: bool) -> None:  # noqa: FBT001 - drawn
        device, model = self.about(key)
        self.run(device.track_session_start() if start else device.track_session_end())
        model.be_active()
        if model.start is not None and (self.settings_.auto_close or not start):
            model.end(self.now)
        if start:
            model.begin()

    # Comparison

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
        """Check that the events of each device are exactly those of its model, in that order."""
        owners: dict[str, tuple[str, int]] = {}
        found: dict[str, list[TrackedEvent]] = {key: [] for key in KEYS}
        keys = {self.device_id(key): key for key in KEYS if self.models[key].customer >= 0}
        for data in self.run(pending_data(self.client)):
            ids = dict(data["customer_ids"])
            cookie = ids.pop("cookie")
            if data.get("event_type") == "installation":
                key = keys[data["properties"]["device_id"]]
                owners[cookie] = key, sum(owner == key for owner, _ in owners.values())
            key, customer = owners[cookie]
            at = data["timestamp" if "timestamp" in data else "update_timestamp"]
            found[key].append((*event_of(data, customer, ids), round(at, 2)))
        assert found == {key: model.tracked for key, model in self.models.items()}

    def device_id(self, key: str) -> str:
        state = stored_state(self.path, f"device:{key}")
        assert state is not None
        return str(json.loads(state)["device_id"])


def event_of(data: dict[str, Any], customer: int, ids: dict[str, str]) -> tuple[str, int, dict[str, str], Any]:
    """Return the event of a command as the model has it, without its timestamp."""
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


class Manual(Machine):
    """Sessions are started and ended by calls, and push notifications need a permission."""

    settings_ = Settings(automatic=False, every_launch=True, require=True)


class ManualWithoutEnd(Machine):
    """Sessions are started and ended by calls; a start replaces an open session without ending it."""

    settings_ = Settings(automatic=False, auto_close=False)


def search(examples: int) -> settings:
    """Return how much to search."""
    ignored = list(HealthCheck)
    return settings(max_examples=examples, stateful_step_count=25, suppress_health_check=ignored)


TestAutomatic = Machine.TestCase
TestAutomatic.settings = search(40)
TestManual = Manual.TestCase
TestManual.settings = search(15)
TestManualWithoutEnd = ManualWithoutEnd.TestCase
TestManualWithoutEnd.settings = search(10)
