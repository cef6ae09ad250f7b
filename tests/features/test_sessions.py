"""
Sessions: by hand, and going on by themselves.
"""

import logging
from typing import Any

import pytest
from helpers.app import DEVICE, STAMPS, App

from exponea_async import Event, Exponea, Hooks, InvalidEventError
from exponea_async.testing import end_idle_sessions

Step = tuple[float, str]


async def live(app: App, steps: list[Step]) -> None:
    """Run a script of timestamps and calls."""
    for at, verb in steps:
        app.now = at
        if verb == "sweep":
            await app.expire()
        elif verb == "track":
            await app.client.track_event(Event("ping"))
        else:
            await getattr(app.client, verb)()


class TestExplicitSessions:
    @pytest.mark.parametrize(
        ("steps", "expected"),
        [
            pytest.param(
                [
                    (2000, "track_session_start"),
                    (2010, "track_session_start"),
                    (2100, "track_session_start"),
                    (2120, "track_session_end"),
                    (2130, "track_session_end"),
                ],
                [
                    ("start", 2000),
                    ("end", 2010, 10),
                    ("start", 2010),
                    ("end", 2100, 90),
                    ("start", 2100),
                    ("end", 2120, 20),
                ],
                id="a start ends what is open",
            ),
            pytest.param(
                [(2000, "track_session_start"), (9000, "track"), (9000, "sweep"), (9500, "track_session_end")],
                [("start", 2000), ("end", 9500, 7500)],
                id="there is no timeout",
            ),
            pytest.param([(2000, "track_session_end"), (2001, "track"), (2002, "resume")], [], id="nothing by itself"),
            pytest.param(
                [(2000, "track_session_start"), (2000, "track_session_end")],
                [("start", 2000), ("end", 2000, 0)],
                id="none at all",
            ),
        ],
    )
    async def test_the_table(self, app: App, steps: list[Step], expected: list[Any]) -> None:
        """Sessions start and end as called, with exact durations; an end without a start is ignored."""
        await app.start(automatic_session_tracking=False)
        await live(app, steps)

        assert await app.sessions() == expected

    async def test_without_auto_close(self, app: App) -> None:
        """Where a start does not end the open session, its end is not tracked; the duration is the new session's."""
        await app.start(automatic_session_tracking=False, manual_session_auto_close=False)
        await live(app, [(2000, "track_session_start"), (2010, "track_session_start"), (2025, "track_session_end")])

        assert await app.sessions() == [("start", 2000), ("start", 2010), ("end", 2025, 15)]

    async def test_timestamps_of_the_caller(self, app: App) -> None:
        """A start and an end may have a timestamp; a duration is never negative."""
        client = await app.start(automatic_session_tracking=False)
        await client.track_session_start(500.5)
        await client.track_session_end(530.75)
        await client.track_session_start(600)
        await client.track_session_end(590)

        assert await app.sessions() == [("start", 500.5), ("end", 530.75, 30.25), ("start", 600), ("end", 590, 0)]

    @pytest.mark.parametrize("verb", ["track_session_start", "track_session_end"])
    async def test_invalid_timestamps(self, app: App, verb: str) -> None:
        """An invalid timestamp is refused, and nothing is recorded or remembered."""
        client = await app.start(automatic_session_tracking=False)
        await client.track_session_start()
        before = await app.pending()

        with pytest.raises(InvalidEventError, match="timestamp"):
            await getattr(client, verb)(float("nan"))
        assert await app.pending() == before

    async def test_an_end_without_a_start(self, app: App, caplog: pytest.LogCaptureFixture) -> None:
        """It is ignored with a warning, and the receipt gives the reason."""
        client = await app.start(automatic_session_tracking=False)
        receipt = await client.track_session_end()

        assert receipt.status == "dropped"
        assert "no session is open" in caplog.text
        with pytest.raises(Exception, match="no session is open"):
            await receipt.delivered()

    async def test_a_session_survives_a_restart(self, app: App) -> None:
        """A session that was started explicitly continues in another process, however much later."""
        await (await app.start(automatic_session_tracking=False)).track_session_start()
        await (await app.restart(at=9000.0, automatic_session_tracking=False)).track_session_end()

        assert await app.sessions() == [("start", 1000), ("end", 9000, 8000)]

    async def test_each_device_has_its_own(self, app: App) -> None:
        """A session of one device does not affect another device."""
        client = await app.start(automatic_session_tracking=False)
        await client.device("tg:1").track_session_start()
        receipt = await client.device("tg:2").track_session_end()

        assert receipt.status == "dropped"
        assert await app.sessions() == [("start", 1000)]


class TestAutomaticSessions:
    @pytest.mark.parametrize(
        ("steps", "expected"),
        [
            pytest.param(
                [(1000, "resume"), (1100, "pause"), (1130, "resume"), (1200, "pause"), (1260, "resume")],
                [("start", 1000), ("end", 1200, 200), ("start", 1260)],
                id="foreground and background",
            ),
            pytest.param(
                [
                    (1000, "resume"),
                    (1060, "sweep"),
                    (1100, "pause"),
                    (1130, "resume"),
                    (1195, "sweep"),
                    (1200, "pause"),
                    (1260, "sweep"),
                    (1260, "resume"),
                ],
                [("start", 1000), ("end", 1200, 200), ("start", 1260)],
                id="with or without the session expirer",
            ),
            pytest.param([(1000, "resume"), (1010, "pause"), (1069.99, "resume")], [("start", 1000)], id="in time"),
            pytest.param(
                [(1000, "resume"), (1010, "pause"), (1070, "resume")],
                [("start", 1000), ("end", 1010, 10), ("start", 1070)],
                id="just too late",
            ),
            pytest.param(
                [(1000, "track"), (1059, "track"), (1118, "track"), (1200, "track")],
                [("start", 1000), ("end", 1118, 118), ("start", 1200)],
                id="a verb is activity",
            ),
            pytest.param(
                [(1000, "track"), (1030, "track"), (1089, "sweep"), (1090, "sweep"), (5000, "sweep")],
                [("start", 1000), ("end", 1030, 30)],
                id="no further activity",
            ),
            pytest.param(
                [(1000, "track"), (1061, "pause"), (1200, "sweep")],
                [("start", 1000), ("end", 1000, 0), ("start", 1061), ("end", 1061, 0)],
                id="away without having been in front",
            ),
            pytest.param(
                [(1000, "track"), (900, "track"), (1010, "track"), (1100, "sweep")],
                [("start", 1000), ("end", 1010, 10)],
                id="a clock that goes back",
            ),
        ],
    )
    async def test_the_table(self, app: App, steps: list[Step], expected: list[Any]) -> None:
        """A session continues with each activity and ends at the last one, with exact durations."""
        await app.start()
        await live(app, steps)

        assert await app.sessions() == expected

    async def test_the_order_of_the_first_events(self, app: App) -> None:
        """The first call on a device records the installation, the session and then the event of the call."""
        await (await app.start()).track_event(Event("ping"))
        kept = await app.pending()

        assert [each.name for each in kept] == ["installation", "session_start", "ping"]
        stamps = [each.data["timestamp"] for each in kept]
        assert stamps == sorted(set(stamps))
        assert {each.at for each in kept} == {1000}

    async def test_the_properties(self, app: App) -> None:
        """Starts and ends carry the device properties; an end carries its duration too."""
        await app.start(app_version="2.1")
        await live(app, [(1000, "track"), (1100, "track")])
        installed, start, _, end, _, _ = await app.pending()

        assert set(installed.properties) == set(start.properties) == DEVICE | STAMPS | {"app_version"}
        assert set(end.properties) == DEVICE | STAMPS | {"app_version", "duration"}
        assert end.properties["device_type"] == "server"
        assert isinstance(end.properties["duration"], float)

    async def test_device_properties_take_precedence(self, app: App) -> None:
        """A default property does not replace a device property; other default properties are added."""
        client = await app.start(default_properties={"os_name": "evil", "utm_source": "evil", "ip": ""})
        await client.handle_campaign_click("https://shop.example/?utm_source=mail")
        (start,) = await app.pending("session_start")

        assert start.properties["os_name"] != "evil"
        assert (start.own["utm_source"], start.own["ip"]) == ("mail", "")

    @pytest.mark.parametrize("verb", ["track_session_start", "track_session_end"])
    async def test_explicit_calls_are_ignored(self, app: App, caplog: pytest.LogCaptureFixture, verb: str) -> None:
        """Explicit starts and ends are ignored with a warning where sessions are automatic."""
        client = await app.start()
        await client.track_event(Event("ping"))
        app.now = 1010
        receipt = await getattr(client, verb)()

        assert receipt.status == "dropped"
        assert await app.sessions() == [("start", 1000)]
        (record,) = [record for record in caplog.records if verb in record.message]
        assert record.levelno == logging.WARNING
        with pytest.raises(Exception, match="automatic"):
            await receipt.delivered()

    async def test_another_timeout(self, app: App) -> None:
        """The session timeout is a setting."""
        await app.start(session_timeout=5)
        await live(app, [(1000, "track"), (1004.9, "track"), (1009.9, "track")])

        assert await app.sessions() == [("start", 1000), ("end", 1004.9, 4.9), ("start", 1009.9)]

    async def test_a_timestamp_of_the_caller_is_not_the_activity(self, app: App) -> None:
        """An event with an old timestamp counts as activity at the time of the call."""
        client = await app.start()
        await client.track_event(Event("ping", timestamp=5.5))
        app.now = 1030
        await client.track_event(Event("ping", timestamp=9999.0))
        await app.expire(at=1100)

        assert await app.sessions() == [("start", 1000), ("end", 1030, 30)]

    async def test_bulk_is_activity(self, app: App) -> None:
        """Many events at once are one activity, and no two of their timestamps are equal."""
        client = await app.start()
        await client.track_many([Event("ping")] * 50)
        await client.track_event(Event("ping"))
        stamps = [each.data["timestamp"] for each in await app.pending()]

        assert len(stamps) == len(set(stamps)) == 53
        assert await app.sessions() == [("start", 1000)]

    async def test_hooks_get_automatic_events(self, app: App) -> None:
        """Automatic events pass the hook too, and the hook can drop them."""
        seen: list[str] = []

        def none_of_sessions(event: Event) -> Event | None:
            seen.append(event.name)
            return None if event.name.startswith("session") else event

        await app.start(hooks=Hooks(before_track=none_of_sessions))
        await live(app, [(1000, "track"), (1100, "track"), (1200, "sweep")])

        assert [each.name for each in await app.pending()] == ["installation", "ping", "ping"]
        assert seen.count("session_start") == seen.count("session_end") == 2


class TestSessionExpirer:
    async def test_a_session_goes_on_after_a_restart(self, app: App) -> None:
        """Closing counts as going to the background: a device that is active again in time continues its session."""
        await (await app.start()).track_event(Event("ping"))
        await (await app.restart(at=1059.0)).track_event(Event("ping"))
        await app.expire(at=1200)

        assert await app.sessions() == [("start", 1000), ("end", 1059, 59)]

    async def test_it_ends_sessions_of_other_processes(self, app: App) -> None:
        """A session without further activity is ended after the next start, at the time of its last activity."""
        client = await app.start()
        await client.device("tg:1").track_event(Event("ping"))
        app.now = 1020
        await client.device("tg:1").track_event(Event("ping"))
        await app.start(at=90_000.0)
        await app.expire()

        assert await app.sessions() == [("start", 1000), ("end", 1020, 20)]

    @pytest.mark.parametrize("swept", [True, False])
    async def test_activity_after_the_timeout(self, app: App, swept: bool) -> None:  # noqa: FBT001
        """The result is the same whether the session expirer or the next call is first."""
        await app.start()
        await live(app, [(1000, "track"), (1007, "track"), *([(1500, "sweep")] if swept else []), (2000, "track")])

        assert (await app.names())[-3:] == ["session_end", "session_start", "ping"]
        assert await app.sessions() == [("start", 1000), ("end", 1007, 7), ("start", 2000)]

    async def test_a_killed_process(self, app: App) -> None:
        """A crash loses no end and adds no time to a session in the foreground."""
        await app.start()
        await live(app, [(1000, "resume"), (1020, "track")])
        await app.start(at=50_000.0)
        await live(app, [(50_000, "resume")])

        assert await app.sessions() == [("start", 1000), ("end", 1020, 20), ("start", 50_000)]

    async def test_foreground_in_another_process(self, app: App) -> None:
        """A session in the foreground of a running process is not ended by another process."""
        first = await app.start()
        await live(app, [(1000, "resume"), *((second, "sweep") for second in range(1020, 1181, 20))])
        await app.start()
        assert await app.expire(at=1190) == 0
        assert await app.expire(at=1300) == 1

        await end_idle_sessions(first)
        await first.track_event(Event("ping"))
        assert await app.sessions() == [("start", 1000), ("end", 1180, 180), ("start", 1300)]

    async def test_ending_all_sessions_at_close(self, app: App) -> None:
        """A client can end all sessions when it closes, each at its device's last activity."""
        client = await app.start()
        await client.device("tg:1").track_event(Event("ping"))
        app.now = 1010
        await client.device("tg:2").track_event(Event("ping"))
        app.now = 1015
        await client.device("tg:1").track_event(Event("ping"))
        app.now = 1020
        await client.aclose(timeout=0, end_sessions=True)
        await app.start()

        assert sorted(await app.sessions()) == [("end", 1010, 0), ("end", 1015, 15), ("start", 1000), ("start", 1010)]

    @pytest.mark.parametrize("end", [1005, 1300])
    async def test_foreground_until_close(self, app: App, end: int) -> None:
        """A device in the foreground was active until the client closed."""
        client = await app.start()
        await client.resume()
        app.now = end
        await client.aclose(timeout=0)
        await app.start(at=end + 59.0)
        await app.expire()
        assert await app.sessions() == [("start", 1000)]

        await app.expire(at=end + 61)
        assert await app.sessions() == [("start", 1000), ("end", end, end - 1000)]

    async def test_a_hook_that_fails(self, app: App, caplog: pytest.LogCaptureFixture) -> None:
        """An exception of a hook at the end of a session is logged; that event is dropped, and the session ends."""
        broken = False

        def fragile(event: Event) -> Event:
            if broken and event.name == "session_end" and event.properties["duration"] == 0:
                raise ValueError("no")
            return event

        client = await app.start(hooks=Hooks(before_track=fragile))
        await client.device("tg:1").track_event(Event("ping"))
        await client.device("tg:2").track_event(Event("ping"))
        app.now = 1001
        await client.device("tg:2").track_event(Event("ping"))
        broken = True
        await app.expire(at=2000)

        assert [each for each in await app.sessions() if each[0] == "end"] == [("end", 1001, 1)]
        assert "no" in caplog.text
        assert await app.expire(at=3000) == 0

    async def test_many_at_once(self, app: App) -> None:
        """More sessions than fit into one batch are all ended."""
        client = await app.start()
        for number in range(250):
            await client.device(f"tg:{number}").track_event(Event("ping"))

        assert await app.expire(at=1059.9) == 0
        assert await app.expire(at=1060.1) == 250
        assert await app.expire(at=1060.1) == 0

    async def test_explicit_end_of_an_automatic_session(self, app: App) -> None:
        """A session that started automatically can be ended explicitly, and only once."""
        await (await app.start()).track_event(Event("ping"))
        client = await app.restart(at=1010.0, automatic_session_tracking=False)
        await client.track_session_end()
        await app.restart(at=5000.0)
        await app.expire()

        assert await app.sessions() == [("start", 1000), ("end", 1010, 10)]


@pytest.mark.parametrize("automatic", [True, False])
@pytest.mark.parametrize("verb", ["track_session_start", "track_session_end", "resume", "pause"])
async def test_a_customer_has_no_session(app: App, verb: str, automatic: bool) -> None:  # noqa: FBT001
    """The session methods are refused on a customer tracker."""
    client: Exponea = await app.start(automatic_session_tracking=automatic)
    with (
        client.bind(client.for_customer({"registered": "R"})),
        pytest.raises(InvalidEventError, match="Use a device"),
    ):
        await getattr(client, verb)()
    assert await app.pending() == []
