"""
Where records are sent: the project's address and key are looked up when they are sent.
"""

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from aiohttp import web
from attrs import evolve
from helpers.app import App
from helpers.clients import PROJECT, Configure, Connect, DeliveryLog, numbered_events
from helpers.queue_file import write_version_1
from helpers.scripted_server import ReceivedRequest, ScriptedServer
from helpers.waiting import until

from exponea_async import (
    Configuration,
    ConfigurationChange,
    ConfigurationError,
    Event,
    EventType,
    Exponea,
    ExponeaProject,
    FlushResult,
    Hooks,
)
from exponea_async._pipeline.commands import event_command
from exponea_async.sandbox import Fault, Project, Sandbox
from exponea_async.storage.base import Record
from exponea_async.storage.sqlite.storage import SQLiteStorage
from exponea_async.testing import pending_records

#: An address at which nothing listens.
WRONG = "http://127.0.0.1:9"
OUTLET = ExponeaProject("outlet", "outlet-key")


def moves(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the log lines about records that are sent to another address than before."""
    return [each.getMessage() for each in caplog.records if "they are sent to" in each.getMessage()]


def number_of_events(sandbox: Sandbox, project: str = PROJECT) -> int:
    """Return how many different events a project has received."""
    return len({each.properties["number"] for each in sandbox.engine.events(project, "ping")})


class TestCorrectedAddress:
    async def test_what_waits_is_sent_to_the_corrected_address(
        self, connect: Connect, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Events that were tracked while the address was wrong are delivered, which is logged once."""
        client = await connect(base_url=WRONG)
        await client.track_many(numbered_events(7))
        await client.aclose(1)
        again = await connect()

        assert await again.flush_data(60) == FlushResult(7, 0, 0)
        assert moves(caplog) == [
            f"7 events wait for project shop that were recorded for {WRONG}; they are sent to {sandbox.url}."
        ]
        await again.track_many(numbered_events(1))
        await again.aclose(0)
        await (await connect()).flush_data(60)
        assert len(moves(caplog)) == 1

    async def test_another_spelling_is_the_same_address(
        self, connect: Connect, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Records do not depend on how the address was written, and nothing is logged."""
        client = await connect(base_url=sandbox.url.replace("http", "HTTP") + "//", flush_mode="MANUAL")
        await client.track_many(numbered_events(3))
        await client.aclose()

        assert await (await connect()).flush_data(60) == FlushResult(3, 0, 0)
        assert moves(caplog) == []

    async def test_a_wait_that_the_wrong_address_has_asked_for(self, connect: Connect, sandbox: Sandbox) -> None:
        """It does not hold up the events once the address is corrected."""
        async with ScriptedServer(lambda _: web.Response(status=429, headers={"Retry-After": "3600"})) as wrong:
            client = await connect(base_url=wrong.url)
            await client.track_many(numbered_events(7))
            await until(lambda: client.stats().retried > 0)
            await client.aclose(0)
            again = await connect()

            assert await again.flush_data(60) == FlushResult(7, 0, 0)
            assert len(wrong.requests) == 1

    async def test_an_outage_during_a_pause(self, connect: Connect) -> None:
        """What failed in an outage while its project was paused is not put off until the pause is probed."""

        async def respond(request: ReceivedRequest) -> web.Response:
            await until(lambda: len(platform.requests) == 2)
            if request is platform.requests[0]:
                return web.Response(status=401)
            await until(lambda: bool(client.stats().paused))
            return web.Response(status=503)

        async with ScriptedServer(respond) as platform:
            client = await connect(base_url=platform.url, authorization_token="wrong")
            await client.track_many(numbered_events(100))
            await until(lambda: client.stats().retried > 0)
            await client.aclose(0)
            platform.script = ReceivedRequest.accept
            again = await connect(base_url=platform.url)

            assert await again.flush_data(60) == FlushResult(100, 0, 0)

    async def test_clicks(self, app: App, sandbox: Sandbox) -> None:
        """Campaign clicks have an endpoint of their own, and are sent to the corrected address, too."""
        client = await app.start(base_url=WRONG)
        await client.handle_campaign_click("https://shop.example/?utm_campaign=c&xnpe_cmp=x")
        result = await (await app.restart()).flush_data(60)

        assert (result.rejected, result.remaining) == (0, 0)
        assert len(sandbox.engine.events(PROJECT, "campaign_click")) == 1

    async def test_a_mapped_project(self, connect: Connect) -> None:
        """The address of an additional project can be corrected, too."""
        for address in (WRONG, None):
            mapping = {EventType.TRACK_EVENT: [ExponeaProject("outlet", "key", address)]}
            client = await connect(project_mapping=mapping, flush_mode="MANUAL")
            await client.track_many(numbered_events(1))
            result = await client.flush_data(1 if address else 20)
            await client.aclose(0)

        assert result == FlushResult(3, 0, 0)


class TestUnknownProject:
    async def test_the_result_and_the_error_say_what_helps(
        self, connect: Connect, deliveries: DeliveryLog, sandbox: Sandbox
    ) -> None:
        """Records of a project that is neither configured nor stored are kept, and the reason names the ways out."""
        client = await connect(project_mapping={EventType.TRACK_EVENT: [OUTLET]}, flush_mode="MANUAL")
        await client.track_many(numbered_events(4))
        await client.aclose()
        again = await connect(hooks=Hooks(listeners=[deliveries]), flush_mode="MANUAL")
        result = await again.flush_data(60)

        assert (result.delivered, result.remaining, list(result.reasons)) == (4, 4, ["outlet"])
        for way_out in ("other_projects", "queue retarget", "queue drop-project"):
            assert way_out in result.reasons["outlet"]
        assert "authorization_token" not in result.reasons["outlet"]
        assert [(each.kind, each.project) for each in deliveries if each.kind == "paused"] == [("paused", "outlet")]
        assert again.stats().paused == dict(result.reasons)

    async def test_other_projects_deliver_what_waits(self, connect: Connect, sandbox: Sandbox) -> None:
        """A project that gets no new events is configured in `other_projects`, so that its old ones are delivered."""
        client = await connect(project_mapping={EventType.TRACK_EVENT: [OUTLET]}, flush_mode="MANUAL")
        await client.track_many(numbered_events(4))
        await client.aclose()
        again = await connect(other_projects=[OUTLET], flush_mode="MANUAL")
        await again.track_event(Event("new"))

        assert await again.flush_data(60) == FlushResult(9, 0, 0)
        assert number_of_events(sandbox, "outlet") == 4
        assert sandbox.engine.events("outlet", "new") == []

    @pytest.mark.file_only
    async def test_paused_projects_do_not_hold_up_others(self, connect: Connect, sandbox: Sandbox) -> None:
        """While all projects that were tried are paused, records of further projects are sent all the same."""
        sandbox.faults.add(Fault("status", status=404, project=PROJECT))
        client = await connect(other_projects=[OUTLET])
        await client.track_many(numbered_events(1))
        await until(lambda: PROJECT in client.stats().paused)
        writer = await connect(project_token="outlet", authorization_token="outlet-key", flush_mode="MANUAL")
        await writer.track_many(numbered_events(5))

        await until(lambda: number_of_events(sandbox, "outlet") == 5)

    async def test_an_outage_is_a_reason(self, connect: Connect) -> None:
        """The result of a flush says that the platform is unavailable."""
        client = await connect(base_url=WRONG, flush_mode="MANUAL")
        await client.track_many(numbered_events(2))
        result = await client.flush_data(0.5)

        assert result.remaining == 2
        assert "unavailable" in result.reasons[PROJECT]
        assert client.stats().paused == {}


class TestSwitchedDevices:
    async def test_an_address_that_was_not_given_is_the_configured_one_of_now(self, app: App, sandbox: Sandbox) -> None:
        """A switch without an address does not freeze the address of that day."""
        client = await app.start(base_url=WRONG)
        await client.anonymize(ConfigurationChange(project=OUTLET, mapping={EventType.PAYMENT: [OUTLET]}))
        await client.track_event(Event("ping", {"number": 1}))
        result = await (await app.restart()).flush_data(60)

        assert (result.rejected, result.remaining) == (0, 0)
        assert number_of_events(sandbox, "outlet") == 1

    async def test_a_given_address_stays(self, app: App, sandbox: Sandbox) -> None:
        """A switch with an address is independent of the configured one, and so is the next one without."""
        client = await app.start(base_url=WRONG)
        await client.anonymize(ConfigurationChange(project=ExponeaProject("outlet", "key", sandbox.url)))
        await client.anonymize(ConfigurationChange(project=ExponeaProject("outlet", "new-key")))
        await client.track_event(Event("ping", {"number": 1}))

        assert (await client.flush_data(60)).remaining == 0
        assert number_of_events(sandbox, "outlet") == 1

    async def test_the_configuration_comes_first(self, app: App, sandbox: Sandbox) -> None:
        """The address and the key of a project that a device was switched to can be corrected in the configuration."""
        client = await app.start()
        await client.anonymize(ConfigurationChange(project=ExponeaProject("outlet", "old", WRONG)))
        async with Sandbox(projects=[Project("outlet", ["rotated"])]) as strict:
            outlet = ExponeaProject("outlet", "rotated", strict.url)
            result = await (await app.restart(other_projects=[outlet])).flush_data(60)

            assert (result.rejected, result.remaining) == (0, 0)
            assert len(strict.engine.events("outlet", "installation")) == 1

    async def test_requests_go_to_the_configured_address_of_now(self, app: App, sandbox: Sandbox) -> None:
        """Requests for messages and consents look the address up like events do."""
        client = await app.start(base_url=WRONG)
        await client.anonymize(ConfigurationChange(project=OUTLET))
        client = await app.restart()

        assert await client.fetch_consents() == []
        assert sandbox.request_count == 1

    async def test_the_error_says_where_the_refused_key_is_from(self, app: App) -> None:
        """The key of a switched device is not one of the settings, so the error does not advise to check these."""
        async with Sandbox(projects=[Project("outlet", ["right"])]) as strict:
            client = await app.start(base_url=strict.url)
            await client.anonymize(ConfigurationChange(project=OUTLET))
            reason = (await client.flush_data(60)).reasons["outlet"]

        assert "other_projects" in reason
        assert "Check project_token" not in reason

    @pytest.mark.parametrize(
        "value", [b"{", b"[]", b'{"authorization": "k", "base_url": "https://h.example/track/v2/projects/x"}']
    )
    @pytest.mark.file_only
    async def test_what_is_stored_can_be_damaged(self, app: App, configure: Configure, value: bytes) -> None:
        """A client starts all the same, and the project counts as unknown until it is configured."""
        client = await app.start()
        await client.anonymize(ConfigurationChange(project=OUTLET))
        await client.aclose(0)
        path = configure().storage
        with closing(sqlite3.connect(path)) as database, database:  # type: ignore[arg-type]
            database.execute("UPDATE state SET value = ? WHERE key IN ('project:outlet', 'addresses')", (value,))
        assert "queue retarget" in (await (await app.start()).flush_data(60)).reasons["outlet"]
        assert (await (await app.restart(other_projects=[OUTLET])).flush_data(60)).remaining == 0

    async def test_a_new_address_is_logged(self, app: App, sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
        """A switch that gives a project another address says how many waiting records are sent there."""
        client = await app.start()
        await client.anonymize(ConfigurationChange(project=ExponeaProject("outlet", "key", WRONG)))
        await client.device("other").anonymize(
            ConfigurationChange(project=ExponeaProject("outlet", "key", sandbox.url))
        )

        assert moves(caplog) == [
            f"2 events wait for project outlet that were recorded for {WRONG}; they are sent to {sandbox.url}."
        ]

    @pytest.mark.parametrize(
        ("project", "field"),
        [
            (ExponeaProject(PROJECT, "other"), "change.project.authorization_token"),
            (ExponeaProject("outlet", "outlet-key", WRONG), "change.project.base_url"),
        ],
    )
    async def test_a_contradiction_to_the_configuration_is_refused(
        self, app: App, sandbox: Sandbox, project: ExponeaProject, field: str
    ) -> None:
        """A key or an address that is not the configured one can't be given by a switch; nothing is changed."""
        outlet = ExponeaProject("outlet", "outlet-key", sandbox.url)
        client = await app.start(other_projects=[outlet])
        cookie = await client.get_customer_cookie()
        with pytest.raises(ConfigurationError) as caught:
            await client.anonymize(ConfigurationChange(project=project))

        assert caught.value.field == field
        assert await client.get_customer_cookie() == cookie
        await client.anonymize(ConfigurationChange(project=outlet))

    async def test_the_newest_key_counts_in_all_processes(self, app: App) -> None:
        """A project that is not configured has the key of the latest switch, which other clients use at once."""
        async with Sandbox(projects=[Project("outlet", ["new"])]) as strict:
            first = await app.start(base_url=strict.url)
            await first.anonymize(ConfigurationChange(project=ExponeaProject("outlet", "old")))
            assert "401" in (await first.flush_data(60)).reasons["outlet"]
            second = await app.start(base_url=strict.url)
            await second.device("b").anonymize(ConfigurationChange(project=ExponeaProject("outlet", "new")))

            assert (await first.flush_data(60)).remaining == 0


class TestFilesOfVersion1:
    def old(self, address: str, token: str = PROJECT, path: str = "batch") -> str:
        return f"{address}/track/v2/projects/{token}/{path}"

    @pytest.fixture
    def settings(self, configure: Configure) -> Configuration:
        return configure(flush_mode="MANUAL")

    async def flushed(self, settings: Configuration) -> FlushResult:
        async with Exponea(settings) as client:
            return await client.flush_data(60)

    @pytest.mark.file_only
    @pytest.mark.parametrize("leased", [0, 3])
    async def test_all_records_of_a_project_are_sent(
        self,
        settings: Configuration,
        tmp_path: Path,
        sandbox: Sandbox,
        caplog: pytest.LogCaptureFixture,
        leased: int,
    ) -> None:
        """Records with different addresses become records of one project, and the log says which have moved."""
        doubled = f"{sandbox.url}/track/v2/projects/{PROJECT}"
        records = {self.old(WRONG): 120, self.old(sandbox.url): 5, self.old(doubled): 4}
        write_version_1(tmp_path / "queue.sqlite", records, {}, leased=leased)

        assert await self.flushed(settings) == FlushResult(129, 0, 0)
        assert number_of_events(sandbox) == 129
        assert moves(caplog) == [
            f"{count} events wait for project shop that were recorded for {address}; they are sent to {sandbox.url}."
            for address, count in ((WRONG, 120), (doubled, 4))
        ]
        await self.flushed(settings)
        assert len(moves(caplog)) == 2

    @pytest.mark.file_only
    async def test_ids_stay(self, settings: Configuration, tmp_path: Path, sandbox: Sandbox) -> None:
        """Records keep their ids, and new ones get others; both can be read in one queue."""
        write_version_1(tmp_path / "queue.sqlite", {self.old(WRONG): 3, self.old(sandbox.url): 2}, {}, leased=1)
        async with Exponea(settings) as client:
            await client.track_many([({"registered": "x"}, event) for event in numbered_events(2, start=90)])
            records = await pending_records(client)

            assert len({each.id for each in records}) == 7
            assert {int(each.id) >> 44 for each in records} == {7, 8}
            assert {each.route for each in records} == {"shop/batch"}

    @pytest.mark.file_only
    async def test_what_an_older_process_writes_meanwhile(
        self, settings: Configuration, tmp_path: Path, sandbox: Sandbox
    ) -> None:
        """A process with an older version of this package still writes routes that are URLs, and they are sent."""
        body = event_command(b'{"registered":"jane"}', b'"ping"', 1e9, b'"number":7')
        older = SQLiteStorage(tmp_path / "queue.sqlite")
        async with Exponea(settings) as client:
            await older.open()
            await older.write([Record(self.old(WRONG), body, time.time())])
            await older.aclose()

            assert (await client.flush_data(60)).delivered == 1
        assert number_of_events(sandbox) == 1

    @pytest.mark.file_only
    @pytest.mark.parametrize("frozen", [True, False])
    async def test_devices_that_were_switched(
        self, settings: Configuration, tmp_path: Path, sandbox: Sandbox, *, frozen: bool
    ) -> None:
        """
        The key of a switched device is found, and its address if the switch gave one.

        If it is the address that the configured project had, then the switch gave none.
        """
        configured = WRONG if frozen else "http://elsewhere.example"
        address = WRONG if frozen else sandbox.url
        state = b'{"cookie":"c","device_id":"d","project":["%b","outlet"],"mapping":{"PAYMENT":[["%b","paid"]]}}'
        states = {
            f"key:{self.old(address, token, path)}": b'"key"'
            for token in ("outlet", "paid")
            for path in ("batch", "campaigns/clicks")
        }
        states["device:default"] = state % (address.encode(), address.encode())
        write_version_1(tmp_path / "queue.sqlite", {self.old(configured): 1, self.old(address, "outlet"): 2}, states)
        async with Exponea(settings if frozen else evolve(settings, base_url=WRONG)) as client:
            await client.track_event(Event("ping", {"number": 50}))
            assert (await client.flush_data(60, projects=["outlet"])).remaining == 0
            # The record of the configured project stays where nobody is at its address.
            result = await client.flush_data(60 if frozen else 0.1)

        assert number_of_events(sandbox, "outlet") == 3
        assert result.remaining == (0 if frozen else 1)
