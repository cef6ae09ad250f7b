"""
Sessions: by hand, and going on by themselves.
"""

import logging
from typing import Any

import pytest
from phones import DEVICE, STAMPS, Phone

from exponea_async import Event, Exponea, Hooks, InvalidEventError

Step = tuple[float, str]


async def live(phone: Phone, steps: list[Step]) -> None:
    """Follow a script of moments and verbs."""
    for at, verb in steps:
        phone.now = at
        if verb == "sweep":
            await phone.expire()
        elif verb == "track":
            await phone.client.track_event(Event("ping"))
        else:
            await getattr(phone.client, verb)()


class TestByHand:
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
    async def test_the_table(self, phone: Phone, steps: list[Step], expected: list[Any]) -> None:
        """Sessions start and end as told, with exact durations; an end without a start is nothing."""
        await phone.start(automatic_session_tracking=False)
        await live(phone, steps)

        assert await phone.sessions() == expected

    async def test_without_auto_close(self, phone: Phone) -> None:
        """Where starts do not end what is open, its end is never told, and the new one's duration counts from it."""
        await phone.start(automatic_session_tracking=False, manual_session_auto_close=False)
        await live(phone, [(2000, "track_session_start"), (2010, "track_session_start"), (2025, "track_session_end")])

        assert await phone.sessions() == [("start", 2000), ("start", 2010), ("end", 2025, 15)]

    async def test_moments_of_the_callers_own(self, phone: Phone) -> None:
        """A start and an end may be told with their moments; a duration is never negative."""
        client = await phone.start(automatic_session_tracking=False)
        await client.track_session_start(500.5)
        await client.track_session_end(530.75)
        await client.track_session_start(600)
        await client.track_session_end(590)

        assert await phone.sessions() == [("start", 500.5), ("end", 530.75, 30.25), ("start", 600), ("end", 590, 0)]

    @pytest.mark.parametrize("verb", ["track_session_start", "track_session_end"])
    async def test_moments_that_are_none(self, phone: Phone, verb: str) -> None:
        """A wrong moment is refused, and nothing is kept or remembered."""
        client = await phone.start(automatic_session_tracking=False)
        await client.track_session_start()
        before = await phone.kept()

        with pytest.raises(InvalidEventError, match="timestamp"):
            await getattr(client, verb)(float("nan"))
        assert await phone.kept() == before

    async def test_an_end_without_a_start(self, phone: Phone, caplog: pytest.LogCaptureFixture) -> None:
        """It is ignored with a warning, and the receipt says why."""
        client = await phone.start(automatic_session_tracking=False)
        receipt = await client.track_session_end()

        assert receipt.status == "dropped"
        assert "no session is open" in caplog.text
        with pytest.raises(Exception, match="no session is open"):
            await receipt.delivered()

    async def test_it_comes_through_a_restart(self, phone: Phone) -> None:
        """A session that was started by hand goes on in another process, however long after."""
        await (await phone.start(automatic_session_tracking=False)).track_session_start()
        await (await phone.restart(at=9000.0, automatic_session_tracking=False)).track_session_end()

        assert await phone.sessions() == [("start", 1000), ("end", 9000, 8000)]

    async def test_each_device_has_its_own(self, phone: Phone) -> None:
        """A session of one device is none of another's."""
        client = await phone.start(automatic_session_tracking=False)
        await client.device("tg:1").track_session_start()
        receipt = await client.device("tg:2").track_session_end()

        assert receipt.status == "dropped"
        assert await phone.sessions() == [("start", 1000)]


class TestByThemselves:
    @pytest.mark.parametrize(
        ("steps", "expected"),
        [
            pytest.param(
                [(1000, "resume"), (1100, "pause"), (1130, "resume"), (1200, "pause"), (1260, "resume")],
                [("start", 1000), ("end", 1200, 200), ("start", 1260)],
                id="in front of somebody, and away",
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
                id="whether or not somebody sweeps",
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
                id="nobody comes back",
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
    async def test_the_table(self, phone: Phone, steps: list[Step], expected: list[Any]) -> None:
        """A session goes on with each sign of life, and ends at the last one, with exact durations."""
        await phone.start()
        await live(phone, steps)

        assert await phone.sessions() == expected

    async def test_the_order_of_a_first_verb(self, phone: Phone) -> None:
        """A device's first verb brings it to life: installation, session, and then what was asked for."""
        await (await phone.start()).track_event(Event("ping"))
        kept = await phone.kept()

        assert [each.name for each in kept] == ["installation", "session_start", "ping"]
        stamps = [each.data["timestamp"] for each in kept]
        assert stamps == sorted(set(stamps))
        assert {each.at for each in kept} == {1000}

    async def test_what_is_told(self, phone: Phone) -> None:
        """Starts and ends tell what stands for the device; an end its duration, too."""
        await phone.start(app_version="2.1")
        await live(phone, [(1000, "track"), (1100, "track")])
        installed, start, _, end, _, _ = await phone.kept()

        assert set(installed.properties) == set(start.properties) == DEVICE | STAMPS | {"app_version"}
        assert set(end.properties) == DEVICE | STAMPS | {"app_version", "duration"}
        assert end.properties["device_type"] == "server"
        assert isinstance(end.properties["duration"], float)

    async def test_what_stands_for_the_device_counts(self, phone: Phone) -> None:
        """A default property does not take the place of a device's, whatever else an event tells; others get in."""
        client = await phone.start(default_properties={"os_name": "evil", "utm_source": "evil", "ip": ""})
        await client.handle_campaign_click("https://shop.example/?utm_source=mail")
        (start,) = await phone.kept("session_start")

        assert start.properties["os_name"] != "evil"
        assert (start.own["utm_source"], start.own["ip"]) == ("mail", "")

    @pytest.mark.parametrize("verb", ["track_session_start", "track_session_end"])
    async def test_by_hand_all_the_same(self, phone: Phone, caplog: pytest.LogCaptureFixture, verb: str) -> None:
        """Starts and ends by hand are ignored with a warning where sessions are automatic."""
        client = await phone.start()
        await client.track_event(Event("ping"))
        phone.now = 1010
        receipt = await getattr(client, verb)()

        assert receipt.status == "dropped"
        assert await phone.sessions() == [("start", 1000)]
        (record,) = [record for record in caplog.records if verb in record.message]
        assert record.levelno == logging.WARNING
        with pytest.raises(Exception, match="automatic"):
            await receipt.delivered()

    async def test_a_timeout_of_ones_own(self, phone: Phone) -> None:
        """The time until a session ends is a setting."""
        await phone.start(session_timeout=5)
        await live(phone, [(1000, "track"), (1004.9, "track"), (1009.9, "track")])

        assert await phone.sessions() == [("start", 1000), ("end", 1004.9, 4.9), ("start", 1009.9)]

    async def test_a_moment_of_the_callers_own_is_no_activity(self, phone: Phone) -> None:
        """What was long ago may be told, and the session goes on from the call, not from then."""
        client = await phone.start()
        await client.track_event(Event("ping", timestamp=5.5))
        phone.now = 1030
        await client.track_event(Event("ping", timestamp=9999.0))
        await phone.expire(at=1100)

        assert await phone.sessions() == [("start", 1000), ("end", 1030, 30)]

    async def test_bulk_is_activity(self, phone: Phone) -> None:
        """Many events at once are one sign of life, and no two moments of theirs are equal."""
        client = await phone.start()
        await client.track_many([Event("ping")] * 50)
        await client.track_event(Event("ping"))
        stamps = [each.data["timestamp"] for each in await phone.kept()]

        assert len(stamps) == len(set(stamps)) == 53
        assert await phone.sessions() == [("start", 1000)]

    async def test_a_hook_sees_them(self, phone: Phone) -> None:
        """Events that nobody asked for go by the hook, too, and what it drops is not told."""
        seen: list[str] = []

        def none_of_sessions(event: Event) -> Event | None:
            seen.append(event.name)
            return None if event.name.startswith("session") else event

        await phone.start(hooks=Hooks(before_track=none_of_sessions))
        await live(phone, [(1000, "track"), (1100, "track"), (1200, "sweep")])

        assert [each.name for each in await phone.kept()] == ["installation", "ping", "ping"]
        assert seen.count("session_start") == seen.count("session_end") == 2


class TestTheSweeper:
    async def test_a_session_goes_on_after_a_restart(self, phone: Phone) -> None:
        """A client that closes is one that went to the background: who is back in time is in the same session."""
        await (await phone.start()).track_event(Event("ping"))
        await (await phone.restart(at=1059.0)).track_event(Event("ping"))
        await phone.expire(at=1200)

        assert await phone.sessions() == [("start", 1000), ("end", 1059, 59)]

    async def test_it_ends_what_another_process_has_left(self, phone: Phone) -> None:
        """A session that nobody came back to is ended at the next start, with the moment of its last activity."""
        client = await phone.start()
        await client.device("tg:1").track_event(Event("ping"))
        phone.now = 1020
        await client.device("tg:1").track_event(Event("ping"))
        await phone.start(at=90_000.0)
        await phone.expire()

        assert await phone.sessions() == [("start", 1000), ("end", 1020, 20)]

    @pytest.mark.parametrize("swept", [True, False])
    async def test_who_comes_back_late(self, phone: Phone, swept: bool) -> None:  # noqa: FBT001
        """It is the same whether the sweeper was first, or the next verb."""
        await phone.start()
        await live(phone, [(1000, "track"), (1007, "track"), *([(1500, "sweep")] if swept else []), (2000, "track")])

        assert [name for name, _ in await phone.told()][-3:] == ["session_end", "session_start", "ping"]
        assert await phone.sessions() == [("start", 1000), ("end", 1007, 7), ("start", 2000)]

    async def test_a_killed_process(self, phone: Phone) -> None:
        """A crash loses no end and adds no time to a session that was in front of somebody."""
        await phone.start()
        await live(phone, [(1000, "resume"), (1020, "track")])
        await phone.start(at=50_000.0)
        await live(phone, [(50_000, "resume")])

        assert await phone.sessions() == [("start", 1000), ("end", 1020, 20), ("start", 50_000)]

    async def test_another_process_sees_who_is_there(self, phone: Phone) -> None:
        """What is in front of somebody in one process is not ended by another one, as long as the one runs."""
        first = await phone.start()
        await live(phone, [(1000, "resume"), *((moment, "sweep") for moment in range(1020, 1181, 20))])
        await phone.start()
        assert await phone.expire(at=1190) == 0
        assert await phone.expire(at=1300) == 1

        await first._session_expirer.expire()
        await first.track_event(Event("ping"))
        assert await phone.sessions() == [("start", 1000), ("end", 1180, 180), ("start", 1300)]

    async def test_ending_all_on_closing(self, phone: Phone) -> None:
        """A client may end all sessions when it closes, each at its device's last activity."""
        client = await phone.start()
        await client.device("tg:1").track_event(Event("ping"))
        phone.now = 1010
        await client.device("tg:2").track_event(Event("ping"))
        phone.now = 1015
        await client.device("tg:1").track_event(Event("ping"))
        phone.now = 1020
        await client.aclose(timeout=0, end_sessions=True)
        await phone.start()

        assert sorted(await phone.sessions()) == [("end", 1010, 0), ("end", 1015, 15), ("start", 1000), ("start", 1010)]

    @pytest.mark.parametrize("end", [1005, 1300])
    async def test_in_front_until_the_end(self, phone: Phone, end: int) -> None:
        """What is in front of somebody when the client closes was so until then."""
        client = await phone.start()
        await client.resume()
        phone.now = end
        await client.aclose(timeout=0)
        await phone.start(at=end + 59.0)
        await phone.expire()
        assert await phone.sessions() == [("start", 1000)]

        await phone.expire(at=end + 61)
        assert await phone.sessions() == [("start", 1000), ("end", end, end - 1000)]

    async def test_a_hook_that_fails(self, phone: Phone, caplog: pytest.LogCaptureFixture) -> None:
        """What a hook raises at the end of a session goes to the log, and the others' sessions end all the same."""
        broken = False

        def fragile(event: Event) -> Event:
            if broken and event.name == "session_end" and event.properties["duration"] == 0:
                raise ValueError("no")
            return event

        client = await phone.start(hooks=Hooks(before_track=fragile))
        await client.device("tg:1").track_event(Event("ping"))
        await client.device("tg:2").track_event(Event("ping"))
        phone.now = 1001
        await client.device("tg:2").track_event(Event("ping"))
        broken = True
        await phone.expire(at=2000)

        assert [each for each in await phone.sessions() if each[0] == "end"] == [("end", 1001, 1)]
        assert "no" in caplog.text
        assert await phone.expire(at=3000) == 0

    async def test_many_at_once(self, phone: Phone) -> None:
        """More sessions than are ended in one go are all ended."""
        client = await phone.start()
        for number in range(250):
            await client.device(f"tg:{number}").track_event(Event("ping"))

        assert await phone.expire(at=1059.9) == 0
        assert await phone.expire(at=1060.1) == 250
        assert await phone.expire(at=1060.1) == 0

    async def test_none_where_sessions_are_by_hand(self, phone: Phone) -> None:
        """A session from times when they were automatic is ended by hand, and only once."""
        await (await phone.start()).track_event(Event("ping"))
        client = await phone.restart(at=1010.0, automatic_session_tracking=False)
        await client.track_session_end()
        await phone.restart(at=5000.0)
        await phone.expire()

        assert await phone.sessions() == [("start", 1000), ("end", 1010, 10)]


@pytest.mark.parametrize("automatic", [True, False])
@pytest.mark.parametrize("verb", ["track_session_start", "track_session_end", "resume", "pause"])
async def test_a_customer_has_no_session(phone: Phone, verb: str, automatic: bool) -> None:  # noqa: FBT001
    """Whoever speaks about a customer is told that there is no session to speak of."""
    client: Exponea = await phone.start(automatic_session_tracking=automatic)
    with (
        client.bind(client.for_customer({"registered": "R"})),
        pytest.raises(InvalidEventError, match="Use a device"),
    ):
        await getattr(client, verb)()
    assert await phone.kept() == []
