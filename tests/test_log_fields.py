"""
The fields of log records, by which a log in JSON is searched.
"""

import ast
import logging
import re
from pathlib import Path
from typing import Any

import pytest
from helpers.clients import PROJECT, Configure, Connect
from helpers.documents import ROOT, nodes
from helpers.waiting import until

from exponea_async import Event, Exponea
from exponea_async.sandbox import Fault, Sandbox


def logged(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """Return the fields of each record of the package that has any, without their prefix."""
    records = [record.__dict__ for record in caplog.records if record.name == "exponea_async"]
    fields = [{name: value for name, value in each.items() if name.startswith("exponea_")} for each in records]
    return [{name.removeprefix("exponea_"): value for name, value in each.items()} for each in fields if each]


async def test_the_life_of_a_client(configure: Configure, caplog: pytest.LogCaptureFixture) -> None:
    """The start and the close have the project, the queue and what waits in it."""
    caplog.set_level(logging.INFO, "exponea_async")
    settings = configure(flush_mode="MANUAL")
    async with Exponea(settings) as client:
        await client.for_customer({"registered": "jane"}).track_event(Event("visit"))

    queue = str(settings.storage)
    assert logged(caplog) == [
        {"event": "started", "project": PROJECT, "queue": queue, "waiting": 0, "dead": 0},
        {"event": "closed", "queue": queue, "waiting": 1},
    ]


async def test_what_happens_to_a_project(connect: Connect, sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    """An outage, its end, a pause and a rejection have the project, the status and the reason."""
    caplog.set_level(logging.INFO, "exponea_async")
    client = await connect()
    sandbox.faults.add(Fault("status", status=429, times=1))
    await (await client.track_event(Event("a"))).delivered(60)
    sandbox.faults.add(Fault("reject", times=1))
    await (await client.track_event(Event("b"))).decided(60)
    sandbox.faults.add(Fault("status", status=401, times=1))
    await client.track_event(Event("c"))
    await until(lambda: bool(client.stats().paused))

    fields = logged(caplog)
    assert [each["event"] for each in fields] == ["started", "unavailable", "resumed", "rejected", "paused"]
    assert {each["project"] for each in fields} == {PROJECT}
    assert (fields[1]["status"], fields[4]["status"]) == (429, 401)
    assert (fields[3]["name"], fields[3]["reason"]) == ("b", "rejected by fault injection")


async def test_fields_are_printable(connect: Connect, sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    """Text from outside can't control a terminal or forge a line, in the fields as in the message."""
    sandbox.faults.add(Fault("status", status=401, body="no\x1b[31m\nERROR forged"))
    client = await connect()
    await client.track_event(Event("visit"))
    await until(lambda: bool(client.stats().paused))

    (paused,) = [each for each in logged(caplog) if each["event"] == "paused"]
    assert "\\x1b[31m" in paused["reason"]
    assert "\n" not in paused["reason"]


def names_in_the_code() -> set[str]:
    """Return the names of what happened, as the code gives them to the log."""
    found = {"damaged"}
    for path, inside in nodes().items():
        if path.name == "log_fields.py":
            continue
        for node in inside:
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "log_fields":
                assert isinstance(node.args[0], ast.Constant)
                found.add(str(node.args[0].value))
    return found


def test_the_manual_lists_all_names() -> None:
    """The page about observability has a row for each name, and no other."""
    page = (Path(ROOT) / "docs" / "observability.md").read_text(encoding="utf-8")
    section = page.partition("## Log")[2].partition("\n## ")[0]

    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", section, re.MULTILINE)[1:]

    assert {name for row in rows for name in re.findall(r"\w+", row)} == names_in_the_code()
