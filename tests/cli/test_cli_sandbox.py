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
from cli_stage import run, start

COMMAND = b'{"name":"customers/events","data":{"customer_ids":{"registered":"j"},"event_type":"ping"}}'


@contextmanager
def serving(*args: str) -> Iterator[str]:
    with start("sandbox", "--port", "0", *args) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline()
        finally:
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate()
        assert (process.returncode, err) == (0, "")


def post(url: str, key: str, project: str = "shop") -> int:
    request = urllib.request.Request(
        f"{url}/track/v2/projects/{project}/batch",
        data=b'{"commands":[%b]}' % COMMAND,
        headers={"Authorization": f"Token {key}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_it_serves_until_it_is_stopped() -> None:
    """It prints its address alone on a line, answers there, and ends well on SIGTERM."""
    with serving() as line:
        assert line.startswith("http://127.0.0.1:")
        assert post(line.strip(), "any", "whatever") == 200


def test_address_as_json() -> None:
    """A script gets the address as JSON."""
    with serving("--json") as line, urllib.request.urlopen(json.loads(line)["url"] + "/sandbox/summary") as answer:
        assert answer.status == 200


def test_ctrl_c_ends_it_well() -> None:
    """Ctrl-C is how it is meant to end."""
    with start("sandbox", "--port", "0") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    assert (process.returncode, err) == (0, "")


def test_projects_and_keys() -> None:
    """With --project, only those projects exist, each with its key."""
    with serving("--project", "shop:right", "--project", "other", "--rate-limit", "100") as line:
        url = line.strip()
        assert post(url, "right") == 200
        assert post(url, "wrong") == 401
        assert post(url, "key", "other") == 200
        assert post(url, "right", "third") == 404


def test_definitions(tmp_path: Path) -> None:
    """With --definitions, it tells what stands in the file."""
    path = tmp_path / "some.toml"
    path.write_text('[[segments.own]]\nid = "s1"\nsegmentation_id = "g1"\n')
    with serving("--definitions", str(path)) as line:
        url = f"{line.strip()}/sandbox/messages"
        with urllib.request.urlopen(url) as answer:
            assert json.load(answer) == {"segments": {"own": [{"id": "s1", "segmentation_id": "g1"}]}}


def test_broken_definitions(tmp_path: Path) -> None:
    """What is wrong with the definitions is told in a line, with its place."""
    path = tmp_path / "some.json"
    path.write_text('{"inbox": [{"id": "i"}]}')
    outcome = run("sandbox", "--definitions", str(path))
    assert outcome.code == 2
    assert "inbox[0].type: is missing" in outcome.err


def test_port_that_is_taken() -> None:
    """A port that is taken is told in a line."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        outcome = run("sandbox", "--port", str(taken.getsockname()[1]))
    assert outcome.code == 2
    assert "can't be used" in outcome.err


@pytest.mark.parametrize("args", [("--port", "65536"), ("--project", ":key"), ("--rate-limit", "0")])
def test_arguments_are_checked(args: tuple[str, str]) -> None:
    """What can't be served is wrong usage."""
    assert run("sandbox", *args).code == 2
