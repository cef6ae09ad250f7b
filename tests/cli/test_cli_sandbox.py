"""
The command ``sandbox``, in a process of its own.
"""

import json
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers.command_line import finish, run, start

COMMAND = b'{"name":"customers/events","data":{"customer_ids":{"registered":"j"},"event_type":"ping"}}'


@contextmanager
def serving(*args: str) -> Iterator[str]:
    with start("sandbox", "--port", "0", *args) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline()
        finally:
            process.send_signal(signal.SIGTERM)
            _, err = finish(process)
        assert (process.returncode, err) == (0, "")


def post(url: str, key: str, project: str = "shop") -> int:
    request = urllib.request.Request(
        f"{url}/track/v2/projects/{project}/batch",
        data=b'{"commands":[%b]}' % COMMAND,
        headers={"Authorization": f"Token {key}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_it_serves_until_it_is_stopped() -> None:
    """The command prints its address alone on a line, responds there, and ends without an error on SIGTERM."""
    with serving() as line:
        assert line.startswith("http://127.0.0.1:")
        assert post(line.strip(), "any", "whatever") == 200


def test_address_as_json() -> None:
    """With --json the address is printed as JSON."""
    with serving("--json") as line, urllib.request.urlopen(json.loads(line)["url"] + "/sandbox/summary") as response:
        assert response.status == 200


def test_address_of_the_page() -> None:
    """The second line has the address of the page, at which a browser gets it; with --json it is a field."""
    with start("sandbox", "--port", "0") as process:
        assert process.stdout is not None
        address, line = process.stdout.readline().strip(), process.stdout.readline().strip()
        with urllib.request.urlopen(line.removeprefix("page: ")) as response:
            assert response.headers["Content-Type"] == "text/html; charset=utf-8"
        process.send_signal(signal.SIGINT)
        finish(process)
    assert line == f"page: {address}/"
    with serving("--json") as output:
        found = json.loads(output)
    assert found["page"] == f"{found['url']}/"


def test_ctrl_c_is_not_an_error() -> None:
    """Ctrl-C is the normal way to stop the sandbox."""
    with start("sandbox", "--port", "0") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = finish(process)
    assert (process.returncode, err) == (0, "")


def test_projects_and_keys() -> None:
    """With --project only these projects exist, each with its key."""
    with serving("--project", "shop:right", "--project", "other", "--rate-limit", "100") as line:
        url = line.strip()
        assert post(url, "right") == 200
        assert post(url, "wrong") == 401
        assert post(url, "key", "other") == 200
        assert post(url, "right", "third") == 404


def test_definitions(tmp_path: Path) -> None:
    """With --definitions the sandbox returns the content of the file."""
    path = tmp_path / "some.toml"
    path.write_text('[[segments.own]]\nid = "s1"\nsegmentation_id = "g1"\n')
    with serving("--definitions", str(path)) as line:
        url = f"{line.strip()}/sandbox/messages"
        with urllib.request.urlopen(url) as response:
            assert json.load(response) == {"segments": {"own": [{"id": "s1", "segmentation_id": "g1"}]}}


def test_invalid_definitions(tmp_path: Path) -> None:
    """An error in the definitions is reported in one line, with its path."""
    path = tmp_path / "some.json"
    path.write_text('{"inbox": [{"id": "i"}]}')
    result = run("sandbox", "--definitions", str(path))
    assert result.code == 2
    assert "inbox[0].type: is missing" in result.err


def test_limits() -> None:
    """With --max-entries the oldest commands are forgotten, which is printed once."""
    with start("sandbox", "--port", "0", "--max-entries", "2", "--max-bytes", "100000") as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        for _ in range(5):
            assert post(url, "any") == 200
        with urllib.request.urlopen(f"{url}/sandbox/log") as response:
            log = json.load(response)
        process.send_signal(signal.SIGTERM)
        _, err = finish(process)

    assert (log["oldest"], log["newest"], log["forgotten"]) == (4, 5, 3)
    assert log["limit"] == {"entries": 2, "bytes": 100_000}
    assert err.count("forgets the oldest commands") == len(err.splitlines()) == 1


def test_port_in_use() -> None:
    """A port that is in use is reported in one line."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        result = run("sandbox", "--port", str(other.getsockname()[1]))
    assert result.code == 2
    assert "can't be used" in result.err


@pytest.mark.parametrize(
    "args", [("--port", "65536"), ("--project", ":key"), ("--rate-limit", "0"), ("--max-entries", "0")]
)
def test_arguments_are_checked(args: tuple[str, str]) -> None:
    """Arguments with which the sandbox can't be served are wrong usage."""
    assert run("sandbox", *args).code == 2
