"""
Any life of a few devices and the messages for them, against a second reading of the rules: what is given out is for who
the device is, what is told is told of them, and nothing is lost, shown too often, or left behind.
"""

import asyncio
import gc
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import copy_context
from pathlib import Path
from typing import Any, TypeVar

import pytest
from attrs import define, evolve, field
from helpers.personalised_content import (
    CATEGORY,
    FREQUENCIES,
    INBOX,
    ITEMS,
    LINK,
    PAGE,
    SECRET,
    Personal,
    background,
    name_of,
    owner_of,
)
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from exponea_async import Configuration, Customer, Device, Event, Exponea, UploadSettings
from exponea_async.devices.state import DeviceState
from exponea_async.errors import RequestRefusedError, UnavailableError
from exponea_async.features.content_blocks import loader as _blocks_loads
from exponea_async.messages import AppInboxAction, AppInboxMessage, InAppContentBlock, InAppMessage, InAppMessageButton
from exponea_async.sandbox import Fault, Sandbox

T = TypeVar("T")
TIMEOUT = 60.0

#: How many lives to try, where that is more than usual.
LONG_RUN = int(os.environ.get("EXPONEA_TEST_LONG_RUN", "0"))
KEYS = ("a", "tg:4:2", "ключ " * 50)
BUTTON = InAppMessageButton("Go", LINK, "browser")
CUSTOMERS = ("1", "2")
IDS: tuple[dict[str, str], ...] = ({}, {"registered": "1"}, {"registered": "2"})
EVENTS = (*FREQUENCIES, PAGE, SECRET)
MONTH = 30 * 86_400.0
ROUTES = ("/inappmessages", "/bundle-android.json", "/inappcontentblocks", "/fetch", "/markasread", "/segments")
#: What a platform that is in trouble makes verbs raise.
TROUBLE = (RequestRefusedError, UnavailableError)
#: Told where somebody else came while something was made ready, which is up to chance.
TOO_LATE = "error"


@define(eq=False)
class Owner:
    """A customer of a device, as a model remembers it; its cookie is found out."""

    cookie: str = ""


@define
class Seen:
    """When something was shown and pressed: as steps, and as a moment."""

    shown: int = 0
    pressed: int = 0
    at: float = 0.0


@define
class Model:
    """One device, as the specification has it."""

    now: float = 0.0
    step: int = 0
    owner: Owner | None = None
    ids: dict[str, str] = field(factory=dict)
    began: int = 0
    since: dict[str, int] = field(factory=dict)
    visit: int | None = None
    last: float = 0.0
    launched: bool = False
    messages: dict[str, Seen] = field(factory=dict)
    blocks: dict[str, Seen] = field(factory=dict)
    stage: InAppMessage | None = None
    told: list[tuple[Owner, dict[str, str], tuple[str, ...]]] = field(factory=list)

    @property
    def name(self) -> str:
        """The name of who it is now."""
        assert self.owner is not None
        return name_of({"cookie": self.owner.cookie, **self.ids})

    def tick(self) -> int:
        self.step += 1
        return self.step

    def tell(self, *what: str) -> None:
        assert self.owner is not None
        self.told.append((self.owner, dict(self.ids), what))

    def wake(self) -> None:
        if self.owner is None:
            self.owner = Owner()
            self.tell("installation")
        if self.visit is not None and self.now - self.last >= TIMEOUT:
            self.tell("session_end")
            self.visit = None
        if self.visit is None:
            self.tell("session_start")
            self.visit = self.tick()
        if not self.launched:
            self.messages, self.blocks = self.fresh(self.messages), self.fresh(self.blocks)
        self.last, self.launched = self.now, True

    def fresh(self, seen: dict[str, Seen]) -> dict[str, Seen]:
        return {name: each for name, each in seen.items() if each.at >= self.now - MONTH}

    def anonymize(self) -> None:
        if self.visit is not None:
            self.tell("session_end")
        self.owner, self.ids, self.visit = Owner(), {}, self.tick()
        self.messages, self.blocks, self.stage = {}, {}, None
        self.tell("installation")
        self.tell("session_start")
        self.last, self.launched = self.now, True

    def may_show(self, which: str, seen: dict[str, Seen]) -> bool:
        often, known = FREQUENCIES.get(which, "always"), seen.get(which)
        if known is None or often == "always":
            return True
        if often == "only_once":
            return not known.shown
        if often == "once_per_visit":
            return known.shown < (self.visit or 0)
        return not known.pressed

    def saw(self, message: InAppMessage) -> None:
        """An in-app message is shown."""
        self.messages = self.fresh(self.messages)
        self.messages[message.id] = evolve(self.messages.get(message.id, Seen()), shown=self.tick(), at=self.now)
        if message.id != SECRET:
            self.tell("banner", "show", message.id, self.name)
        self.stage = message

    def saw_block(self, block: InAppContentBlock) -> None:
        self.blocks[block.id] = evolve(self.blocks.get(block.id, Seen()), shown=self.tick(), at=self.now)
        if block.id != SECRET:
            self.tell("banner", "show", block.id, self.name)

    def restart(self) -> None:
        self.launched, self.stage = False, None


class Machine(RuleBasedStateMachine):
    """Devices and customer trackers of one client, which is closed, stopped and started again."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp())
        self.now, self.is_troubled, self.is_stopped = 1_700_000_000.0, False, False
        self.models = {key: Model() for key in KEYS}
        #: What was told by customer trackers, and what was uploaded of devices that are forgotten.
        self.books: Counter[tuple[str, ...]] = Counter()
        self.pending: list[tuple[str, ...]] = []
        self.messages: list[InAppMessage] = []
        self.blocks: list[InAppContentBlock] = []
        self.inbox: list[AppInboxMessage] = []
        self.patch = pytest.MonkeyPatch()
        # A project that did not answer is asked again at once.
        self.patch.setattr(_blocks_loads, "PAUSE", 0.0)
        self.client: Exponea

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work, context=copy_context())

    @initialize()
    def begin(self) -> None:
        self.sandbox = Sandbox()
        self.run(self.sandbox.start())
        self.personal = Personal(self.sandbox)
        self.run(self.connect())

    async def connect(self) -> None:
        configuration = Configuration(
            project_token="shop",
            authorization_token="key",
            base_url=self.sandbox.url,
            storage=self.folder / "queue.sqlite",
            flush_mode="MANUAL",
            session_timeout=TIMEOUT,
            upload=UploadSettings(backoff_initial=0.001, backoff_max=0.002, linger=0.001, requests_per_second=100_000),
        )
        self.client = Exponea(configuration, clock=lambda: self.now)
        self.client._session_expirer._run = asyncio.Event().wait  # type: ignore[method-assign, assignment]
        await self.client.start()

    def about(self, key: str) -> tuple[Device, Model]:
        self.models[key].now = self.now
        return self.client.device(key), self.models[key]

    def settle(self, key: str) -> Model:
        """Find out which cookie a new customer of a device has."""
        model = self.models[key]
        if model.owner is not None and not model.owner.cookie:
            state = self.run(self.state(key))
            known = {each.owner.cookie for each in self.models.values() if each.owner is not None}
            assert state.cookie not in known
            model.owner.cookie = state.cookie
        if model.owner is not None:
            # Who was somebody else for a while is the one of before again.
            model.since.setdefault(model.name, model.began)
        return model

    async def state(self, key: str) -> DeviceState:
        stored = await self.client._storage.load_state(f"device:{key}")
        assert stored is not None
        return DeviceState.decode(stored.value, version=1, last_activity=None)

    def tried(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Do something that may fail where there is trouble."""
        try:
            return self.run(work)
        except TROUBLE:
            assert self.is_troubled
            return None

    # Life

    @rule(seconds=st.sampled_from([1.0, 6.0, 59.0, 61.0, 1_801.0, 7_200.0, 31 * 86_400.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(route=st.sampled_from(ROUTES), times=st.sampled_from([1, 10]), kind=st.sampled_from(["status", "drop"]))
    def trouble(self, route: str, times: int, kind: Any) -> None:
        self.sandbox.faults.add(Fault(kind, path=route, times=times))
        self.is_troubled = True

    @precondition(lambda self: self.is_troubled)
    @rule()
    def repair(self) -> None:
        self.sandbox.faults.clear()
        self.is_troubled = False

    @rule()
    def restart(self) -> None:
        self.run(self.close())
        self.is_stopped = False
        # No two events of one kind and moment, which the platform would take for one.
        self.now += 0.01
        self.run(self.connect())
        for model in self.models.values():
            model.restart()

    async def close(self) -> None:
        await self.client.aclose(timeout=0)
        assert background() == []

    @rule()
    def upload(self) -> None:
        self.run(self.client.flush_data())
        if not self.is_stopped:
            self.compare()

    @rule(flush=st.booleans())
    def stop(self, flush: bool) -> None:  # noqa: FBT001 - drawn
        for key in KEYS:
            self.settle(key)
        self.run(self.stopped(flush=flush))
        if flush and not self.is_stopped:
            self.compare()
        self.is_stopped = True
        self.models, self.pending = {key: Model(step=each.step) for key, each in self.models.items()}, []
        self.forget_uploaded()

    async def stopped(self, *, flush: bool) -> None:
        await self.client.stop_integration(flush=flush)
        assert background() == []

    def forget_uploaded(self) -> None:
        """What is in the platform's books by now stays there."""
        self.books = self.sandbox_books()

    @precondition(lambda self: self.is_stopped)
    @rule()
    def start(self) -> None:
        self.now += 0.01
        self.run(self.client.start())
        self.is_stopped = False

    @precondition(lambda self: self.is_stopped)
    @rule(key=st.sampled_from(KEYS))
    def nothing_is_given(self, key: str) -> None:
        async def ask() -> list[Any]:
            verbs = surfaces(self.client.device(key), "always")
            before = self.sandbox.request_count
            given = [await verb() for verb in verbs.values()]
            assert self.sandbox.request_count == before
            return given

        assert not any(self.run(ask()))

    # Who it is

    @precondition(lambda self: not self.is_stopped)
    @rule(key=st.sampled_from(KEYS), ids=st.sampled_from(IDS))
    def identify(self, key: str, ids: dict[str, str]) -> None:
        device, model = self.about(key)
        self.run(device.identify_customer(Customer(ids)))
        self.identified(model, ids)
        self.settle(key)

    def identified(self, model: Model, ids: dict[str, str]) -> None:
        model.wake()
        model.began = self.personal.answers
        model.ids |= ids
        model.blocks = {}

    @precondition(lambda self: not self.is_stopped)
    @rule(key=st.sampled_from(KEYS))
    def anonymize(self, key: str) -> None:
        device, model = self.about(key)
        self.run(device.anonymize())
        if model.visit is not None and self.now - model.last >= TIMEOUT:
            model.now = model.last
        model.anonymize()
        model.began, model.last = self.personal.answers, self.now
        self.settle(key)

    # What is given out

    @precondition(lambda self: not self.is_stopped)
    @rule(key=st.sampled_from(KEYS), which=st.sampled_from(EVENTS))
    def in_app_message(self, key: str, which: str) -> None:
        device, model = self.about(key)
        message = self.tried(device.in_app_message_for(Event(which)))
        model.wake()
        model = self.settle(key)
        is_due = model.stage is None and model.may_show(which, model.messages)
        assert is_due if message else not is_due or self.is_troubled
        if message:
            assert (owner_of(message), message.id) == (model.name, which)
            model.saw(message)
            self.messages.append(message)

    @precondition(lambda self: not self.is_stopped)
    @rule(
        key=st.sampled_from(KEYS), pick=st.integers(0, 99), how=st.sampled_from(["click", "close", "fail", "by hand"])
    )
    def finish_message(self, key: str, pick: int, how: str) -> None:
        """What is shown on a device, or else whatever was shown to whomever; it is told of them."""
        message = self.models[key].stage
        if message is None and self.messages:
            message = self.messages[pick % len(self.messages)]
        if message is None or message.device is None:
            return
        device, model = self.about(message.device)
        if how == "fail" and model.owner is None:
            # Such a device is stored without its installation, which has a test of its own.
            return
        verbs: dict[str, Callable[[], Awaitable[Any]]] = {
            "click": lambda: device.click_in_app_message(message, BUTTON),
            "close": lambda: device.close_in_app_message(message),
            "fail": lambda: device.fail_in_app_message(message, "broken"),
            "by hand": lambda: device.track_in_app_message_close(message),
        }
        self.run(awaited(verbs[how]()))
        if how != "fail":
            model.wake()
            self.settle(message.device)
        elif model.visit is not None:
            # It is no sign of life, but no session ends before what was told in it.
            model.last = self.now
        if model.stage is not None and (model.stage.id, owner_of(model.stage)) == (message.id, owner_of(message)):
            model.stage = None
        if how == "click" and model.owner is not None and message.customer_ids["cookie"] == model.owner.cookie:
            model.messages = model.fresh(model.messages)
            known = model.messages.get(message.id, Seen())
            model.messages[message.id] = evolve(known, pressed=model.tick(), at=self.now)
        if message.id != SECRET:
            what = {"by hand": "close", "fail": "failed"}.get(how, how)
            self.pending.append((owner_of(message), "banner", what, message.id, owner_of(message)))

    @precondition(lambda self: not self.is_stopped)
    @rule(key=st.sampled_from(KEYS), which=st.sampled_from([*FREQUENCIES, SECRET]))
    def content_block(self, key: str, which: str) -> None:
        device, model = self.about(key)
        block = self.run(device.content_block(which))
        model.wake()
        model = self.settle(key)
        is_due = model.may_show(which, model.blocks)
        assert is_due if block else not is_due or self.is_troubled
        if block:
            assert (owner_of(block), block.id) == (model.name, which)
            model.saw_block(block)
            self.blocks.append(block)

    @precondition(lambda self: not self.is_stopped)
    @rule(key=st.sampled_from(KEYS), pick=st.integers(0, 99), click=st.booleans())
    def finish_block(self, key: str, pick: int, click: bool) -> None:  # noqa: FBT001 - drawn
        """Whoever it was shown to, whenever, and on whichever device."""
        device, model = self.about(key)
        # Not a precondition: what is there is up to chance where all happens at once.
        if not self.blocks:
            return
        block = self.blocks[pick % len(self.blocks)]
        if click:
            assert self.run(device.click_content_block(block.id, block, LINK)) == LINK
        else:
            self.run(device.close_content_block(block.id, block))
        model.wake()
        model = self.settle(key)
        if owner_of(block) == model.name:
            known = model.blocks.get(block.id, Seen())
            model.blocks[block.id] = evolve(known, pressed=model.tick(), at=self.now)
        if block.id != SECRET:
            self.pending.append((owner_of(block), "banner", "click" if click else "close", block.id, owner_of(block)))

    @precondition(lambda self: not self.is_stopped)
    @rule(key=st.sampled_from(KEYS), anew=st.booleans())
    def read_inbox(self, key: str, anew: bool) -> None:  # noqa: FBT001 - drawn
        device, model = self.about(key)
        if anew:
            messages = self.tried(device.fetch_app_inbox()) or []
        else:
            found = self.tried(device.fetch_app_inbox_item(INBOX[0]))
            messages = [found] if found else []
        model.wake()
        model = self.settle(key)
        assert messages or self.is_troubled
        if messages:
            assert sorted(each.id for each in messages) == list(INBOX if anew else INBOX[:1])
            assert {owner_of(each) for each in messages} == {model.name}
            self.inbox += messages

    @precondition(lambda self: not self.is_stopped)
    @rule(key=st.sampled_from(KEYS), pick=st.integers(0, 99), how=st.sampled_from(["read", "open", "press"]))
    def use_inbox(self, key: str, pick: int, how: str) -> None:
        """Whomever it was fetched for, whenever, and on whichever device."""
        device, model = self.about(key)
        if not self.inbox:
            return
        message = self.inbox[pick % len(self.inbox)]
        if how == "read":
            if self.run(device.mark_app_inbox_as_read(message)):
                asked = [each.body for each in self.sandbox.requests if each.path.endswith("/markasread")]
                assert name_of(asked[-1]["customer_ids"]) == owner_of(message)
        elif how == "open":
            self.run(device.track_app_inbox_opened(message))
        else:
            self.run(device.track_app_inbox_click(AppInboxAction("browser", "Go", LINK), message))
        model.wake()
        self.settle(key)
        if how != "read":
            status = "opened" if how == "open" else "clicked"
            self.pending.append((owner_of(message), "campaign", status, owner_of(message)))

    @precondition(lambda self: not self.is_stopped)
    @rule(key=st.sampled_from(KEYS), force=st.booleans())
    def segments(self, key: str, force: bool) -> None:  # noqa: FBT001 - drawn
        device, model = self.about(key)
        segments = self.run(device.get_segments(CATEGORY, force=force))
        model.wake()
        model = self.settle(key)
        assert model.owner is not None
        for each in segments:
            assert owner_of(each) == name_of({"cookie": model.owner.cookie})
            assert int(each["segmentation_id"]) > model.since[model.name]

    @precondition(lambda self: not self.is_stopped)
    @rule(key=st.sampled_from(KEYS))
    def recommendations(self, key: str) -> None:
        device, model = self.about(key)
        items = self.run(device.fetch_recommendations(ITEMS))
        model.wake()
        assert owner_of(items[0]) == self.settle(key).name

    @precondition(lambda self: not self.is_stopped)
    @rule(customer=st.sampled_from(CUSTOMERS), which=st.sampled_from([*FREQUENCIES, SECRET]))
    def tracker(self, customer: str, which: str) -> None:
        """A customer who is told of by their ids, maybe the same as a device's, and whom nobody remembers."""
        ids = {"registered": customer}
        tracker = self.client.for_customer(ids)
        message = self.tried(tracker.in_app_message_for(Event(which)))
        block = self.run(tracker.content_block(which))
        inbox = self.tried(tracker.fetch_app_inbox())
        for each in (message, block, *(inbox or ())):
            assert owner_of(each) == name_of(ids) if each else self.is_troubled
        for shown in (message, block):
            if shown and which != SECRET:
                self.pending.append((name_of(ids), "banner", "show", which, name_of(ids)))

    @precondition(lambda self: not self.is_stopped)
    @rule(key=st.sampled_from(KEYS), ids=st.none() | st.sampled_from(CUSTOMERS), lead=st.integers(0, 12))
    def all_at_once(self, key: str, ids: str | None, lead: int) -> None:
        """In the middle of everything the device becomes somebody else's: who comes later gets nothing of before."""
        device, model = self.about(key)
        self.run(device.open())
        model.wake()
        before, since = self.settle(key).name, self.personal.answers
        hard = None if ids is None else {"registered": ids}
        given, late = self.run(at_once(device, hard, lead))
        was_free = model.stage is None
        if hard is None:
            model.anonymize()
        else:
            self.identified(model, hard)
        model.began = since
        after = self.settle(key).name
        cookies = {name.partition(";")[0] for name in (before, after)}
        for each in given:
            allowed = cookies if isinstance(each, dict) else {before, after}
            assert owner_of(each) in allowed
        for each in late:
            assert owner_of(each) == (after.partition(";")[0] if isinstance(each, dict) else after), each
        self.count_shown(model, given, was_free=was_free, stays=hard is not None)

    def count_shown(self, model: Model, given: list[Any], *, was_free: bool, stays: bool) -> None:
        for each in given:
            if isinstance(each, InAppMessage | InAppContentBlock):
                self.pending.append((owner_of(each), "banner", "show", each.id, owner_of(each)))
            if isinstance(each, InAppMessage):
                is_present = owner_of(each) == model.name
                assert was_free or is_present
                model.messages = model.fresh(model.messages)
                model.stage = each if stays or is_present else None

    # The books

    def compare(self) -> None:
        """Make sure that all that was told, and only that, is in the platform's books, of whom it was told."""
        expected = self.books + Counter(self.pending)
        for key in KEYS:
            model = self.settle(key)
            expected += Counter((name_of({"cookie": owner.cookie, **ids}), *what) for owner, ids, what in model.told)
        books = self.sandbox_books()
        assert not self.sandbox.engine.rejected
        wrong, missing = books - expected, expected - books
        assert not wrong, wrong
        assert not missing, missing

    def sandbox_books(self) -> Counter[tuple[str, ...]]:
        told = [(name_of(each.customer_ids), *told_of(each)) for each in self.sandbox.engine.events()]
        return Counter(each for each in told if TOO_LATE not in each)

    def teardown(self) -> None:
        try:
            if hasattr(self, "client") and not self.is_stopped:
                self.run(self.client.flush_data())
                self.compare()
        finally:
            if hasattr(self, "client"):
                self.run(self.close())
                self.run(self.sandbox.aclose())
                del self.client
            self.runner.close()
            self.patch.undo()
            shutil.rmtree(self.folder)
            gc.collect()


def surfaces(device: Device, which: str) -> dict[str, Callable[[], Coroutine[Any, Any, Any]]]:
    """Tell all ways to be given something."""
    return {
        "in-app message": lambda: device.in_app_message_for(Event(which)),
        "content block": lambda: device.content_block(which),
        "inbox": device.fetch_app_inbox,
        "inbox item": lambda: device.fetch_app_inbox_item(INBOX[0]),
        "segments": lambda: device.get_segments(CATEGORY, force=True),
        "recommendations": lambda: device.fetch_recommendations(ITEMS),
    }


async def at_once(device: Device, ids: dict[str, str] | None, lead: int) -> tuple[list[Any], list[Any]]:
    """
    Let a device become somebody else's in the middle of everything that it asks for.

    Returns:
        What was given, and what of it was given only when it was somebody else's.
    """
    given: list[Any] = []
    late: list[Any] = []
    is_over = False

    async def ask(verb: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        try:
            got = await verb()
        except TROUBLE:
            return
        things = [each for each in (got if isinstance(got, list) else [got]) if each]
        given.extend(things)
        if is_over:
            late.extend(things)

    asking = [asyncio.ensure_future(ask(verb)) for verb in surfaces(device, "always").values()]
    await asyncio.sleep(lead / 1000)
    await (device.anonymize() if ids is None else device.identify_customer(Customer(ids)))
    is_over = True
    await asyncio.gather(*asking)
    return given, late


def told_of(event: Any) -> tuple[str, ...]:
    """Tell of an event what a model tells."""
    properties = event.properties
    if event.event_type == "campaign":
        return "campaign", properties["status"], properties["owner"]
    if event.event_type != "banner":
        return (event.event_type,)
    is_block = properties["type"] == "in-app content block"
    owner = properties["variant_name"] if is_block else properties["banner_name"]
    is_failure = properties.get("error") == "broken"
    return "banner", "failed" if is_failure else properties["action"], properties["banner_id"], owner


async def awaited(work: Awaitable[T]) -> T:
    """Make a coroutine of something that can be awaited."""
    return await work


TestMessages = Machine.TestCase
TestMessages.settings = settings(
    max_examples=max(40, LONG_RUN), stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
