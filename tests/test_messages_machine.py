"""
Random histories of a few devices and their messages, against a model of the rules: what is returned belongs to the
device's customer, what is tracked is tracked for its owner, and nothing is lost, shown too often, or left over.
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
from helpers.internals import devices_of, disable_session_expirer
from helpers.owned_content import (
    CATEGORY,
    FREQUENCIES,
    INBOX,
    ITEMS,
    LINK,
    PAGE,
    SECRET,
    PersonalizedContent,
    name_of,
    owner_of,
)
from helpers.waiting import running, until
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from exponea_async import Configuration, Customer, Device, Event, Exponea, UploadSettings
from exponea_async.devices.state import DeviceState
from exponea_async.errors import RequestRefusedError, UnavailableError
from exponea_async.features.content_blocks import loader
from exponea_async.features.in_app import loader as in_app_loader
from exponea_async.features.segments import watcher
from exponea_async.messages import AppInboxAction, AppInboxMessage, InAppContentBlock, InAppMessage, InAppMessageButton
from exponea_async.sandbox import Fault, Sandbox

T = TypeVar("T")
TIMEOUT = 60.0

#: The number of histories, if it is larger than usual.
LONG_RUN = int(os.environ.get("EXPONEA_TEST_LONG_RUN", "0"))
KEYS = ("a", "tg:4:2", "ключ " * 50)
BUTTON = InAppMessageButton("Go", LINK, "browser")
CUSTOMERS = ("1", "2")
IDS: tuple[dict[str, str], ...] = ({}, {"registered": "1"}, {"registered": "2"})
EVENTS = (*FREQUENCIES, PAGE, SECRET)
MONTH = 30 * 86_400.0
ROUTES = ("/inappmessages", "/bundle-android.json", "/inappcontentblocks", "/fetch", "/markasread", "/segments")
#: The errors that a platform with faults causes.
FAILURES = (RequestRefusedError, UnavailableError)
#: Tracked if the customer changed while something was prepared, which is a matter of chance.
TOO_LATE = "error"


@define(eq=False)
class Owner:
    """A customer of a device, in the model; the cookie is looked up later."""

    cookie: str = ""


@define
class ExpectedImpression:
    """When something was shown and clicked, as steps, and the time of the latest."""

    displayed: int = 0
    interacted: int = 0
    at: float = 0.0


@define
class Model:
    """One device, as the specification describes it."""

    now: float = 0.0
    step: int = 0
    owner: Owner | None = None
    ids: dict[str, str] = field(factory=dict)
    min_response: int = 0
    first_responses: dict[str, int] = field(factory=dict)
    session: int | None = None
    last: float = 0.0
    launched: bool = False
    messages: dict[str, ExpectedImpression] = field(factory=dict)
    blocks: dict[str, ExpectedImpression] = field(factory=dict)
    active: InAppMessage | None = None
    expected: list[tuple[Owner, dict[str, str], tuple[str, ...]]] = field(factory=list)

    @property
    def name(self) -> str:
        """The name of the present customer."""
        assert self.owner is not None
        return name_of({"cookie": self.owner.cookie, **self.ids})

    def tick(self) -> int:
        self.step += 1
        return self.step

    def expect(self, *what: str) -> None:
        assert self.owner is not None
        self.expected.append((self.owner, dict(self.ids), what))

    def activate(self) -> None:
        if self.owner is None:
            self.owner = Owner()
            self.expect("installation")
        if self.session is not None and self.now - self.last >= TIMEOUT:
            self.expect("session_end")
            self.session = None
        if self.session is None:
            self.expect("session_start")
            self.session = self.tick()
        if not self.launched:
            self.messages, self.blocks = self.fresh(self.messages), self.fresh(self.blocks)
        self.last, self.launched = self.now, True

    def fresh(self, seen: dict[str, ExpectedImpression]) -> dict[str, ExpectedImpression]:
        return {name: each for name, each in seen.items() if each.at >= self.now - MONTH}

    def anonymize(self) -> None:
        if self.session is not None:
            self.expect("session_end")
        self.owner, self.ids, self.session = Owner(), {}, self.tick()
        self.messages, self.blocks, self.active = {}, {}, None
        self.expect("installation")
        self.expect("session_start")
        self.last, self.launched = self.now, True

    def may_show(self, id_: str, seen: dict[str, ExpectedImpression]) -> bool:
        frequency, known = FREQUENCIES.get(id_, "always"), seen.get(id_)
        if known is None or frequency == "always":
            return True
        if frequency == "only_once":
            return not known.displayed
        if frequency == "once_per_visit":
            return known.displayed < (self.session or 0)
        return not known.interacted

    def record_display(self, message: InAppMessage) -> None:
        """Record that an in-app message was shown."""
        self.messages = self.fresh(self.messages)
        self.messages[message.id] = evolve(
            self.messages.get(message.id, ExpectedImpression()), displayed=self.tick(), at=self.now
        )
        if message.id != SECRET:
            self.expect("banner", "show", message.id, self.name)
        self.active = message

    def record_block_display(self, block: InAppContentBlock) -> None:
        self.blocks[block.id] = evolve(
            self.blocks.get(block.id, ExpectedImpression()), displayed=self.tick(), at=self.now
        )
        if block.id != SECRET:
            self.expect("banner", "show", block.id, self.name)

    def restart(self) -> None:
        self.launched, self.active = False, None


class MessagesMachine(RuleBasedStateMachine):
    """Devices and customer trackers of one client, which is closed, stopped and started again."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp())
        self.now, self.has_faults, self.is_stopped = 1_700_000_000.0, False, False
        self.models = {key: Model() for key in KEYS}
        # What was uploaded of devices that the client has forgotten since.
        self.uploaded: Counter[tuple[str, ...]] = Counter()
        self.pending: list[tuple[str, ...]] = []
        self.messages: list[InAppMessage] = []
        self.blocks: list[InAppContentBlock] = []
        self.inbox: list[AppInboxMessage] = []
        self.patch = pytest.MonkeyPatch()
        # A project that did not respond is requested again at once.
        for module in (loader, in_app_loader, watcher):
            self.patch.setattr(module, "PAUSE", 0.0)
        self.patch.setattr(in_app_loader, "REFUSAL_PAUSE", 0.0)
        self.client: Exponea

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work, context=copy_context())

    @initialize()
    def begin(self) -> None:
        self.sandbox = Sandbox()
        self.run(self.sandbox.start())
        self.content = PersonalizedContent(self.sandbox)
        self.run(self.connect())

    async def connect(self) -> None:
        configuration = Configuration(
            project_token="shop",
            authorization_token="key",
            base_url=self.sandbox.url,
            storage=self.folder / "queue.sqlite",
            flush_mode="MANUAL",
            session_timeout=TIMEOUT,
            upload=UploadSettings(
                backoff_initial=0.001, backoff_max=0.002, linger=0.001, linger_max=0.0, requests_per_second=100_000
            ),
        )
        self.client = Exponea(configuration, clock=lambda: self.now)
        disable_session_expirer(self.client)
        await self.client.start()

    def device_and_model(self, key: str) -> tuple[Device, Model]:
        self.models[key].now = self.now
        return self.client.device(key), self.models[key]

    def update_cookie(self, key: str) -> Model:
        """Look up the cookie of a new customer of a device."""
        model = self.models[key]
        if model.owner is not None and not model.owner.cookie:
            state = self.run(self.state(key))
            known = {each.owner.cookie for each in self.models.values() if each.owner is not None}
            assert state.cookie not in known
            model.owner.cookie = state.cookie
        if model.owner is not None:
            # After an identify to and fro, the customer is the same as before.
            model.first_responses.setdefault(model.name, model.min_response)
        return model

    async def state(self, key: str) -> DeviceState:
        stored = await devices_of(self.client).storage.load_state(f"device:{key}")
        assert stored is not None
        return DeviceState.decode(stored.value, version=1, last_activity=None)

    def run_or_fail(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Run something that may fail if there are faults."""
        try:
            return self.run(work)
        except FAILURES:
            assert self.has_faults
            return None

    # Life cycle and faults

    @rule(seconds=st.sampled_from([1.0, 6.0, 59.0, 61.0, 1_801.0, 7_200.0, 31 * 86_400.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(route=st.sampled_from(ROUTES), times=st.sampled_from([1, 10]), kind=st.sampled_from(["status", "drop"]))
    def add_fault(self, route: str, times: int, kind: Any) -> None:
        self.sandbox.faults.add(Fault(kind, path=route, times=times))
        self.has_faults = True

    @precondition(lambda self: self.has_faults)
    @rule()
    def clear_faults(self) -> None:
        self.sandbox.faults.clear()
        self.has_faults = False

    @rule()
    def restart(self) -> None:
        self.run(self.close())
        self.is_stopped = False
        # The platform removes duplicates: two events of one type need different timestamps.
        self.now += 0.01
        self.run(self.connect())
        for model in self.models.values():
            model.restart()

    async def close(self) -> None:
        await self.client.aclose(timeout=0)
        await until(lambda: running() == [])

    @rule()
    def upload(self) -> None:
        self.run(self.client.flush_data())
        if not self.is_stopped:
            self.compare()

    @rule(flush=st.booleans())
    def stop(self, flush: bool) -> None:  # noqa: FBT001 - drawn
        for key in KEYS:
            self.update_cookie(key)
        self.run(self.stop_client(flush=flush))
        if flush and not self.is_stopped:
            self.compare()
        self.is_stopped = True
        self.models, self.pending = {key: Model(step=each.step) for key, each in self.models.items()}, []
        self.keep_uploaded()

    async def stop_client(self, *, flush: bool) -> None:
        await self.client.stop_integration(flush=flush, everyone=True)
        await until(lambda: running() == [])

    def keep_uploaded(self) -> None:
        """What was uploaded before stays uploaded."""
        self.uploaded = self.uploaded_events()

    @precondition(lambda self: self.is_stopped)
    @rule()
    def start(self) -> None:
        self.now += 0.01
        self.run(self.client.start())
        self.is_stopped = False

    @precondition(lambda self: self.is_stopped)
    @rule(key=st.sampled_from(KEYS))
    def nothing_is_returned(self, key: str) -> None:
        async def call() -> list[Any]:
            verbs = surfaces(self.client.device(key), "always")
            before = self.sandbox.request_count
            results = [await verb() for verb in verbs.values()]
            assert self.sandbox.request_count == before
            return results

        assert not any(self.run(call()))

    # Customers

    @precondition(lambda self: not self.is_stopped)
    @rule(key=st.sampled_from(KEYS), ids=st.sampled_from(IDS))
    def identify(self, key: str, ids: dict[str, str]) -> None:
        device, model = self.device_and_model(key)
        self.run(device.identify_customer(Customer(ids)))
        self.expect_identify(model, ids)
        self.update_cookie(key)

    def expect_identify(self, model: Model, ids: dict[str, str]) -> None:
        model.activate()
        model.min_response = self.content.responses
        model.ids |= ids
        model.blocks = {}

    @precondition(lambda self: not self.is_stopped)
    @rule(key=st.sampled_from(KEYS))
    def anonymize(self, key: str) -> None:
        device, model = self.device_and_model(key)
        self.run(device.anonymize())
        if model.session is not None and self.now - model.last >= TIMEOUT:
            model.now = model.last
        model.anonymize()
        model.min_response, model.last = self.content.responses, self.now
        self.update_cookie(key)

    # Results

    @precondition(lambda self: not self.is_stopped)
    @rule(key=st.sampled_from(KEYS), id_=st.sampled_from(EVENTS))
    def in_app_message(self, key: str, id_: str) -> None:
        device, model = self.device_and_model(key)
        message = self.run_or_fail(device.in_app_message_for(Event(id_)))
        model.activate()
        model = self.update_cookie(key)
        is_due = model.active is None and model.may_show(id_, model.messages)
        assert is_due if message else not is_due or self.has_faults
        if message:
            assert (owner_of(message), message.id) == (model.name, id_)
            model.record_display(message)
            self.messages.append(message)

    @precondition(lambda self: not self.is_stopped)
    @rule(
        key=st.sampled_from(KEYS),
        index=st.integers(0, 99),
        interaction=st.sampled_from(["click", "close", "fail", "manual close"]),
    )
    def finish_message(self, key: str, index: int, interaction: str) -> None:
        """Report an interaction with the message that is shown on a device, or else with any earlier one."""
        message = self.models[key].active
        if message is None and self.messages:
            message = self.messages[index % len(self.messages)]
        if message is None or message.device is None:
            return
        device, model = self.device_and_model(message.device)
        if interaction == "fail" and model.owner is None:
            # Such a device is stored without its installation, which has a test of its own.
            return
        verbs: dict[str, Callable[[], Awaitable[Any]]] = {
            "click": lambda: device.click_in_app_message(message, BUTTON),
            "close": lambda: device.close_in_app_message(message),
            "fail": lambda: device.fail_in_app_message(message, "broken"),
            "manual close": lambda: device.track_in_app_message_close(message),
        }
        self.run(as_coroutine(verbs[interaction]()))
        if interaction != "fail":
            model.activate()
            self.update_cookie(message.device)
        elif model.session is not None:
            # It does not count as activity, but a session does not end before its events.
            model.last = self.now
        if model.active is not None and (model.active.id, owner_of(model.active)) == (message.id, owner_of(message)):
            model.active = None
        if interaction == "click" and model.owner is not None and message.customer_ids["cookie"] == model.owner.cookie:
            model.messages = model.fresh(model.messages)
            known = model.messages.get(message.id, ExpectedImpression())
            model.messages[message.id] = evolve(known, interacted=model.tick(), at=self.now)
        if message.id != SECRET:
            what = {"manual close": "close", "fail": "failed"}.get(interaction, interaction)
            self.pending.append((owner_of(message), "banner", what, message.id, owner_of(message)))

    @precondition(lambda self: not self.is_stopped)
    @rule(key=st.sampled_from(KEYS), id_=st.sampled_from([*FREQUENCIES, SECRET]))
    def content_block(self, key: str, id_: str) -> None:
        device, model = self.device_and_model(key)
        block = self.run(device.content_block(id_))
        model.activate()
        model = self.update_cookie(key)
        is_due = model.may_show(id_, model.blocks)
        assert is_due if block else not is_due or self.has_faults
        if block:
            assert (owner_of(block), block.id) == (model.name, id_)
            model.record_block_display(block)
            self.blocks.append(block)

    @precondition(lambda self: not self.is_stopped)
    @rule(key=st.sampled_from(KEYS), index=st.integers(0, 99), click=st.booleans())
    def finish_block(self, key: str, index: int, click: bool) -> None:  # noqa: FBT001 - drawn
        """Report an interaction with any block, of any customer, on any device."""
        device, model = self.device_and_model(key)
        # Not a precondition: in concurrent calls, the number of blocks is a matter of chance.
        if not self.blocks:
            return
        block = self.blocks[index % len(self.blocks)]
        if click:
            assert self.run(device.click_content_block(block.id, block, LINK)) == LINK
        else:
            self.run(device.close_content_block(block.id, block))
        model.activate()
        model = self.update_cookie(key)
        if owner_of(block) == model.name:
            known = model.blocks.get(block.id, ExpectedImpression())
            model.blocks[block.id] = evolve(known, interacted=model.tick(), at=self.now)
        if block.id != SECRET:
            self.pending.append((owner_of(block), "banner", "click" if click else "close", block.id, owner_of(block)))

    @precondition(lambda self: not self.is_stopped)
    @rule(key=st.sampled_from(KEYS), fetch=st.booleans())
    def read_inbox(self, key: str, fetch: bool) -> None:  # noqa: FBT001 - drawn
        device, model = self.device_and_model(key)
        if fetch:
            messages = self.run_or_fail(device.fetch_app_inbox()) or []
        else:
            found = self.run_or_fail(device.fetch_app_inbox_item(INBOX[0]))
            messages = [found] if found else []
        model.activate()
        model = self.update_cookie(key)
        assert messages or self.has_faults
        if messages:
            assert sorted(each.id for each in messages) == list(INBOX if fetch else INBOX[:1])
            assert {owner_of(each) for each in messages} == {model.name}
            self.inbox += messages

    @precondition(lambda self: not self.is_stopped)
    @rule(key=st.sampled_from(KEYS), index=st.integers(0, 99), interaction=st.sampled_from(["read", "open", "press"]))
    def use_inbox(self, key: str, index: int, interaction: str) -> None:
        """Use any inbox message, of any customer, on any device."""
        device, model = self.device_and_model(key)
        if not self.inbox:
            return
        message = self.inbox[index % len(self.inbox)]
        if interaction == "read":
            if self.run(device.mark_app_inbox_as_read(message)):
                requests = [each.body for each in self.sandbox.requests if each.path.endswith("/markasread")]
                assert name_of(requests[-1]["customer_ids"]) == owner_of(message)
        elif interaction == "open":
            self.run(device.track_app_inbox_opened(message))
        else:
            self.run(device.track_app_inbox_click(AppInboxAction("browser", "Go", LINK), message))
        model.activate()
        self.update_cookie(key)
        if interaction != "read":
            status = "opened" if interaction == "open" else "clicked"
            self.pending.append((owner_of(message), "campaign", status, owner_of(message)))

    @precondition(lambda self: not self.is_stopped)
    @rule(key=st.sampled_from(KEYS), force=st.booleans())
    def segments(self, key: str, force: bool) -> None:  # noqa: FBT001 - drawn
        device, model = self.device_and_model(key)
        segments = self.run(device.get_segments(CATEGORY, force=force))
        model.activate()
        model = self.update_cookie(key)
        assert model.owner is not None
        for each in segments:
            assert owner_of(each) == name_of({"cookie": model.owner.cookie})
            assert int(each["segmentation_id"]) > model.first_responses[model.name]

    @precondition(lambda self: not self.is_stopped)
    @rule(key=st.sampled_from(KEYS))
    def recommendations(self, key: str) -> None:
        device, model = self.device_and_model(key)
        items = self.run(device.fetch_recommendations(ITEMS))
        model.activate()
        assert owner_of(items[0]) == self.update_cookie(key).name

    @precondition(lambda self: not self.is_stopped)
    @rule(customer=st.sampled_from(CUSTOMERS), id_=st.sampled_from([*FREQUENCIES, SECRET]))
    def tracker(self, customer: str, id_: str) -> None:
        """Use a customer tracker, whose ids may be those of a device's customer."""
        ids = {"registered": customer}
        tracker = self.client.for_customer(ids)
        message = self.run_or_fail(tracker.in_app_message_for(Event(id_)))
        block = self.run(tracker.content_block(id_))
        inbox = self.run_or_fail(tracker.fetch_app_inbox())
        for each in (message, block, *(inbox or ())):
            assert owner_of(each) == name_of(ids) if each else self.has_faults
        for displayed in (message, block):
            if displayed and id_ != SECRET:
                self.pending.append((name_of(ids), "banner", "show", id_, name_of(ids)))

    @precondition(lambda self: not self.is_stopped)
    @rule(key=st.sampled_from(KEYS), ids=st.none() | st.sampled_from(CUSTOMERS), delay=st.integers(0, 12))
    def all_at_once(self, key: str, ids: str | None, delay: int) -> None:
        """Change the customer during concurrent calls: later results must belong to the new one."""
        device, model = self.device_and_model(key)
        self.run(device.open())
        model.activate()
        before, first_responses = self.update_cookie(key).name, self.content.responses
        hard = None if ids is None else {"registered": ids}
        results, late_results = self.run(change_during_calls(device, hard, delay))
        was_free = model.active is None
        if hard is None:
            model.anonymize()
        else:
            self.expect_identify(model, hard)
        model.min_response = first_responses
        after = self.update_cookie(key).name
        cookies = {name.partition(";")[0] for name in (before, after)}
        for each in results:
            allowed = cookies if isinstance(each, dict) else {before, after}
            assert owner_of(each) in allowed
        for each in late_results:
            assert owner_of(each) == (after.partition(";")[0] if isinstance(each, dict) else after), each
        self.count_shown(model, results, was_free=was_free, stays=hard is not None)

    def count_shown(self, model: Model, results: list[Any], *, was_free: bool, stays: bool) -> None:
        for each in results:
            if isinstance(each, InAppMessage | InAppContentBlock):
                self.pending.append((owner_of(each), "banner", "show", each.id, owner_of(each)))
            if isinstance(each, InAppMessage):
                is_present = owner_of(each) == model.name
                assert was_free or is_present
                model.messages = model.fresh(model.messages)
                model.active = each if stays or is_present else None

    # What was uploaded

    def compare(self) -> None:
        """Check that the platform has all expected events, for the expected customers, and no others."""
        expected = self.uploaded + Counter(self.pending)
        for key in KEYS:
            model = self.update_cookie(key)
            for owner, ids, what in model.expected:
                expected[name_of({"cookie": owner.cookie, **ids}), *what] += 1
        uploaded = self.uploaded_events()
        assert not self.sandbox.engine.rejected
        wrong, missing = uploaded - expected, expected - uploaded
        assert not wrong, wrong
        assert not missing, missing

    def uploaded_events(self) -> Counter[tuple[str, ...]]:
        events = [(name_of(each.customer_ids), *describe(each)) for each in self.sandbox.engine.events()]
        return Counter(each for each in events if TOO_LATE not in each)

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


def surfaces(device: Device, id_: str) -> dict[str, Callable[[], Coroutine[Any, Any, Any]]]:
    """Return all calls that return something."""
    return {
        "in-app message": lambda: device.in_app_message_for(Event(id_)),
        "content block": lambda: device.content_block(id_),
        "inbox": device.fetch_app_inbox,
        "inbox item": lambda: device.fetch_app_inbox_item(INBOX[0]),
        "segments": lambda: device.get_segments(CATEGORY, force=True),
        "recommendations": lambda: device.fetch_recommendations(ITEMS),
    }


async def change_during_calls(device: Device, ids: dict[str, str] | None, delay: int) -> tuple[list[Any], list[Any]]:
    """
    Change a device's customer during concurrent calls.

    Returns:
        All results, and those that were returned after the change.
    """
    results: list[Any] = []
    late_results: list[Any] = []
    has_changed = False

    async def call(verb: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        try:
            result = await verb()
        except FAILURES:
            return
        things = [each for each in (result if isinstance(result, list) else [result]) if each]
        results.extend(things)
        if has_changed:
            late_results.extend(things)

    calls = [asyncio.ensure_future(call(verb)) for verb in surfaces(device, "always").values()]
    await asyncio.sleep(delay / 1000)
    await (device.anonymize() if ids is None else device.identify_customer(Customer(ids)))
    has_changed = True
    await asyncio.gather(*calls)
    return results, late_results


def describe(event: Any) -> tuple[str, ...]:
    """Describe an event as the model does."""
    properties = event.properties
    if event.event_type == "campaign":
        return "campaign", properties["status"], properties["owner"]
    if event.event_type != "banner":
        return (event.event_type,)
    is_block = properties["type"] == "in-app content block"
    owner = properties["variant_name"] if is_block else properties["banner_name"]
    is_failure = properties.get("error") == "broken"
    return "banner", "failed" if is_failure else properties["action"], properties["banner_id"], owner


async def as_coroutine(work: Awaitable[T]) -> T:
    """Return a coroutine of an awaitable."""
    return await work


TestMessages = MessagesMachine.TestCase
TestMessages.settings = settings(
    max_examples=max(40, LONG_RUN), stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
