"""
What the page copies is run: the command of the shell, the call, and the assertion.
"""

import asyncio
import json
import subprocess
import textwrap
from collections.abc import Mapping
from itertools import cycle
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from helpers.browser import CLIPBOARD, Visitor, copied, customer, event
from helpers.pytest_runs import run_pytest
from playwright.async_api import expect
from yarl import URL

HOSTILE = {
    "quotes": "it's \"quoted\" '''three''' \\' \\\" \\",
    "shell": "$(touch pwned) `touch pwned` ; touch pwned # && $HOME !! %s ~ *",
    "lines": "one\ntwo\r\nthree\ttab",
    "invisible": "bidi \u202e\u2066 nul\u0000 escape\u001b[31m del\u007f c1\u0085 line\u2028 tag\U000e0041 end",
    "unicode": "p\u0159\u00edli\u0161 \u05e9\u05dc\u05d5\u05dd \U0001f600 e\u0301",
    "like an escape": "\\u202e \\ud83d\\ude00 {x} {{y}} %(z)s",
    "true": [True, False, {}, [], {"": [[]]}],
    "numbers": [1.0, -0.0, 2**53 + 1, 1e300, 5e-324, 0.1],
    "__proto__": {"constructor": {"__proto__": 1}},
    "toString": "x" * 300,
}


async def post(visitor: Visitor, path: str, body: bytes, headers: Mapping[str, str]) -> None:
    """Send a request whose path is not changed on the way."""
    url = URL(visitor.sandbox.url + path, encoded=True)
    async with aiohttp.ClientSession() as session, session.post(url, data=body, headers=headers) as response:
        await response.read()


async def request(visitor: Visitor, number: int) -> Any:
    url = f"{visitor.sandbox.url}/sandbox/requests/{number}"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return await response.json()


def headers_of(request: Any) -> list[list[str]]:
    """Return the headers without the one for a compressed response, which is not copied."""
    return sorted(header for header in request["headers"] if header[0] != "Accept-Encoding")


def names_in(folder: Path) -> list[str]:
    return [each.name for each in folder.iterdir()]


TOKENS = [
    "shop",
    "it%27s%20%24%28touch%20pwned%29",
    "%5B1-3%5D%7Ba,b%7D",
    "[1-3]{a,b}",
    "a%2Fb%3Fc%23d",
    "p%C5%99%0A%22",
]
BODIES = [
    json.dumps({"commands": [event("it's", HOSTILE)]}).encode(),
    json.dumps({"commands": [event("it's", HOSTILE)]}, ensure_ascii=False, indent=1).replace("\n", "\r\n").encode(),
    b"@/etc/passwd",
    "not JSON: '$(touch pwned)'\r\n\u202e\u00a0\u001b[0m\t".encode(),
]


@pytest.mark.parametrize(("token", "body"), list(zip(TOKENS, cycle(BODIES), strict=False)))
async def test_curl(visitor: Visitor, tmp_path: Path, token: str, body: bytes) -> None:
    """The copied command sends the same request again, to the byte, and runs nothing else."""
    headers = {
        "Authorization": "Token a-secret-key", "Content-Type": "application/json", "X-Empty": "",
        "X-Hostile": "it's $(touch pwned) `touch pwned` \"\\",
    }  # fmt: skip
    await post(visitor, f"/track/v2/projects/{token}/batch?note=%27$(touch)&list=[1-2]", body, headers)
    page = await visitor.open("/?view=requests&request=1", permissions=CLIPBOARD)
    command = await copied(page, "#copy-curl")
    assert not {character for character in command if ord(character) < 32 and character != "\n"}
    done = await asyncio.to_thread(
        subprocess.run, ["bash", "-c", command], cwd=tmp_path, capture_output=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert names_in(tmp_path) == []
    one, two = await request(visitor, 1), await request(visitor, 2)
    for name in ("method", "path", "query", "body", "status", "commands"):
        assert two[name] == one[name], name
    assert headers_of(two) == headers_of(one)


AUTO = ("-o", "asyncio_mode=auto")
APPLICATION = """
from exponea_async import Customer, Event

async def test_it(exponea, exponea_sandbox, assert_tracked, assert_not_tracked):
{call}
    await exponea.flush_data()
{assertion}
    entry = exponea_sandbox.engine.journal.log.get(1)
    print("sent", entry.raw.decode())
"""


@pytest.mark.parametrize(
    "command",
    [
        event("purchase", {"total_price": 7.99}),
        event(
            "__proto__", HOSTILE, {"registered": 'it\'s "$(x)" \\ \u202e', "__proto__": "x"}, timestamp=1_790_000_000.25
        ),
        event("soft", {}, {"cookie": "c-1"}),
        customer({"vip": True}),
        customer(HOSTILE),
        customer({}),
        event("deep", {"deep": json.loads("[" * 90 + "]" * 90)}),
    ],
    ids=["plain", "hostile", "cookie", "customer", "hostile customer", "no properties", "deep"],
)
async def test_python_and_pytest(visitor: Visitor, tmp_path: Path, command: Mapping[str, Any]) -> None:
    """The copied call tracks the same again, and the copied assertion holds then, and fails without it."""
    await visitor.send(command)
    page = await visitor.open("/?entry=1", permissions=CLIPBOARD)
    await expect(page.locator(".panel .chip")).to_have_text("accepted")
    call, assertion = await copied(page, "#copy-python"), await copied(page, "#copy-pytest")
    indented = {"call": textwrap.indent(call, "    "), "assertion": textwrap.indent(assertion, "    ")}
    run = await asyncio.to_thread(run_pytest, tmp_path, APPLICATION.format(**indented), "-s", *AUTO)
    assert run.outcomes == {"passed": 1}, run.output
    sent = json.loads(next(line for line in run.output.split("\n") if "sent {" in line).partition("sent ")[2])
    data = command["data"]
    assert sent["customer_ids"] == data["customer_ids"]
    assert {name: sent["properties"][name] for name in data["properties"]} == data["properties"]
    assert sent.get("timestamp") == data.get("timestamp", sent.get("timestamp"))
    indented["call"] = "    pass"
    run = await asyncio.to_thread(run_pytest, tmp_path, APPLICATION.format(**indented), *AUTO)
    assert run.outcomes == {"failed": 1}, run.output
