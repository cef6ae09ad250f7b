"""
The command ``doctor``.
"""

import asyncio
import json
import os
import signal
import sqlite3
import ssl
import time
import tomllib
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web
from helpers.command_line import PROJECT, SECRET, CommandLine, Result, command_line, run, wait_until
from helpers.environment import Environment, SetConstants
from helpers.proxy_server import ProxyServer
from helpers.scripted_server import ReceivedRequest, ScriptedServer

from exponea_async.cli.doctor import disk, network
from exponea_async.cli.doctor.disk import file_system
from exponea_async.cli.doctor.settings import DEPENDENCIES, EXTRAS, check_versions
from exponea_async.sandbox import Project

TRACK = ("track", "ping", "--id", "registered=jane")
#: The password of a proxy, which must not be printed either.
PASSWORD = "hunter2"


@pytest.fixture
def cli(tmp_path: Path, environment: Environment, set_constants: SetConstants) -> Iterator[CommandLine]:
    # A slow machine is no problem of the network.
    set_constants(network, SLOW=60.0)
    with command_line(tmp_path, environment, projects=[Project(PROJECT, tokens=(SECRET,))]) as cli:
        yield cli


@pytest.fixture
def queue(cli: CommandLine) -> Path:
    """The file of a queue in which three events wait."""
    cli.fault("status", status=503)
    for _ in range(3):
        cli.run(*TRACK)
    cli.sandbox.faults.clear()
    return cli.folder / "queue.sqlite"


def checks(result: Result) -> dict[str, dict[str, str]]:
    """Return the checks of a result by name; of several with one name, the last."""
    return {each["name"]: each for each in result.json["checks"]}


def check(cli: CommandLine, name: str, *options: str | Path) -> dict[str, str]:
    """Run all checks and return one of them."""
    return checks(cli.run("doctor", "--json", *options))[name]


def files(folder: Path) -> dict[str, tuple[str, int]]:
    """Return the content and the time of the last change of each file in a folder."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.name: (sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns) for path in paths}


class TestReport:
    def test_everything_is_well(self, cli: CommandLine) -> None:
        """Where nothing is wrong, the exit code is 0; no event was tracked, and no file was created."""
        result = cli.run("doctor")
        assert (result.code, result.err) == (0, "")
        lines = result.out.splitlines()
        assert all(line.startswith("ok ") for line in lines[:-1])
        assert lines[-1].startswith("failed: 0, warnings: 0, ok: ")
        assert (cli.events, cli.sandbox.engine.customers(), files(cli.folder)) == ([], [], {})
        assert [request.path for request in cli.sandbox.requests] == [f"/track/v2/projects/{PROJECT}/batch"]

    def test_json(self, cli: CommandLine) -> None:
        """With --json everything is one object."""
        result = cli.run("doctor", "--json")
        assert result.json["ok"] is True
        assert {each["status"] for each in result.json["checks"]} == {"ok"}
        assert checks(result)["permission"].keys() == {"name", "status", "detail", "advice"}

    def test_a_failure(self, cli: CommandLine) -> None:
        """A failure has an exit code, a line that says what is wrong, and one that says what to do."""
        cli.fault("status", status=503)
        result = cli.run("doctor")
        assert result.code == 1
        lines = result.out.splitlines()
        at = next(number for number, line in enumerate(lines) if line.startswith("failed "))
        assert "HTTP 503" in lines[at]
        assert lines[at + 1].strip().startswith("Events wait in the queue")
        assert cli.run("doctor", "--json").json["ok"] is False

    def test_every_problem_has_advice(self, cli: CommandLine, queue: Path) -> None:
        """Nothing is reported as wrong without saying what to do."""
        queue.chmod(0o644)
        cli.fault("status", status=404)
        found = [each for each in checks(cli.run("doctor", "--json")).values() if each["status"] in "failed warning"]
        assert {each["name"] for each in found} == {"permission", "file mode"}
        assert all(each["advice"].endswith((".", str(queue))) for each in found)

    def test_text_of_the_platform_is_printable(self, cli: CommandLine) -> None:
        """What the platform says can't control the terminal."""
        cli.fault("status", status=400, body=json.dumps({"errors": ["\x1b[2J\u202e[bold]no"]}))
        result = cli.run("doctor")
        assert all(line.isprintable() for line in result.out.splitlines())
        assert "[bold]no" in result.out


class TestSettings:
    def test_missing_settings(self, cli: CommandLine, environment: Environment, queue: Path) -> None:
        """Invalid settings are a failure, and the queue is checked all the same."""
        environment(EXPONEA_AUTHORIZATION_TOKEN=None)
        result = cli.run("doctor", "--json")
        assert result.code == 1
        assert checks(result)["settings"]["detail"] == "EXPONEA_AUTHORIZATION_TOKEN: is missing"
        assert "permission" not in checks(result)
        assert checks(result)["waiting"]["detail"].startswith("3, ")

    def test_nothing_is_set(self, environment: Environment) -> None:
        """Without any setting, the versions are checked and the missing setting is named."""
        result = run("doctor", "--json")
        assert result.code == 1
        assert list(checks(result)) == ["versions", "dependencies", "extras", "settings"]

    def test_key_file(self, cli: CommandLine) -> None:
        """A file of the key that can't be read is a failure, not wrong usage."""
        found = check(cli, "settings", "--authorization-file", "missing")
        assert (found["status"], "can't be read" in found["detail"]) == ("failed", True)

    def test_clear_text(self, cli: CommandLine) -> None:
        """An address that is not encrypted is a warning, unless it is on this machine."""
        found = check(cli, "encryption", "--base-url", "http://shop.invalid", "--timeout", "5")
        assert found["status"] == "warning"
        assert "encryption" not in checks(cli.run("doctor", "--json"))

    def test_manual_mode(self, cli: CommandLine, environment: Environment) -> None:
        """A mode in which nothing is sent by itself is a warning."""
        environment(EXPONEA_FLUSH_MODE="MANUAL")
        assert check(cli, "flush mode")["status"] == "warning"

    def test_clients_that_only_record(self, cli: CommandLine, environment: Environment) -> None:
        """Settings with which nothing is sent are a warning."""
        environment(EXPONEA_UPLOAD_ENABLED="false")
        found = check(cli, "flush mode")
        assert found["status"] == "warning"
        assert "upload.enabled" in found["detail"]

    def test_extras(self) -> None:
        """The extras and dependencies are those that the package declares."""
        project = tomllib.loads(Path(__file__).parents[2].joinpath("pyproject.toml").read_text())["project"]

        def names(requirements: list[str]) -> tuple[str, ...]:
            return tuple(requirement.partition(">=")[0] for requirement in requirements)

        assert names(project["dependencies"]) == DEPENDENCIES
        assert {extra: names(each) for extra, each in project["optional-dependencies"].items()} == EXTRAS

    def test_missing_dependency(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A distribution that is not installed is named."""
        monkeypatch.setattr("exponea_async.cli.doctor.settings.DEPENDENCIES", ("attrs", "no-such-distribution"))
        monkeypatch.setattr("exponea_async.cli.doctor.settings.EXTRAS", {"html": ("no-such-distribution",)})
        found = {each.name: each for each in check_versions()}
        assert found["dependencies"].status == "failed"
        assert "no-such-distribution" in found["dependencies"].detail
        assert found["extras"].detail == "installed: none; not installed: html"


class TestPermission:
    @pytest.mark.parametrize(
        ("status", "expected", "advice"),
        [
            (302, "failed", "EXPONEA_BASE_URL"),
            (400, "failed", "EXPONEA_BASE_URL"),
            (401, "failed", "EXPONEA_AUTHORIZATION_TOKEN"),
            (403, "failed", "the permission to track"),
            (404, "failed", "EXPONEA_PROJECT_TOKEN"),
            (429, "warning", "Try again later"),
            (500, "failed", "Try again later"),
            (503, "failed", "Try again later"),
        ],
    )
    def test_statuses(self, cli: CommandLine, status: int, expected: str, advice: str) -> None:
        """Each status that is not a success says what to do."""
        cli.fault("status", status=status)
        found = check(cli, "permission")
        assert (found["status"], f"HTTP {status}" in found["detail"]) == (expected, True)
        assert advice in found["advice"]

    @pytest.mark.parametrize(("project", "key", "status"), [(PROJECT, "wrong", 401), ("unknown", SECRET, 404)])
    def test_wrong_settings(
        self, cli: CommandLine, environment: Environment, project: str, key: str, status: int
    ) -> None:
        """A wrong key and an unknown project are failures."""
        environment(EXPONEA_PROJECT_TOKEN=project, EXPONEA_AUTHORIZATION_TOKEN=key)
        found = check(cli, "permission")
        assert (found["status"], f"HTTP {status}" in found["detail"]) == ("failed", True)

    @pytest.mark.parametrize("body", ["<html>Please log in</html>", "[]", "{}"])
    def test_not_the_platform(self, cli: CommandLine, body: str) -> None:
        """A successful response of something else, such as a login page, is a failure."""
        cli.fault("status", status=200, body=body)
        assert "login page" in check(cli, "HTTP")["advice"]

    @pytest.mark.parametrize(
        "body",
        [
            {"success": False, "errors": ["no permission"]},
            {"success": True, "results": [{"success": False, "errors": ["no permission"]}]},
        ],
    )
    def test_refused_with_success(self, cli: CommandLine, body: dict[str, Any]) -> None:
        """A command that is refused in a response with status 200 is a failure, with the platform's reason."""
        cli.fault("status", status=200, body=json.dumps(body))
        found = check(cli, "permission")
        assert (found["status"], found["detail"]) == ("failed", f"project {PROJECT}: HTTP 200: no permission")

    def test_each_project_is_checked(self, cli: CommandLine, environment: Environment) -> None:
        """The keys of all projects in the settings are checked."""
        other = {"project_token": "other", "authorization_token": "key"}
        environment(EXPONEA_OTHER_PROJECTS=json.dumps([other]))
        found = [each for each in cli.run("doctor", "--json").json["checks"] if each["name"] == "permission"]
        assert [(each["status"], each["detail"].split()[1].strip(":")) for each in found] == [
            ("ok", PROJECT),
            ("failed", "other"),
        ]


class TestConnection:
    def test_no_response_in_time(self, cli: CommandLine) -> None:
        """A platform that does not answer in time is a failure."""
        cli.fault("latency", seconds=30)
        found = check(cli, "HTTP", "--timeout", "0.2")
        assert (found["status"], "no response in time" in found["detail"]) == ("failed", True)

    def test_dropped_connection(self, cli: CommandLine) -> None:
        """A connection that is closed without a response is a failure."""
        cli.fault("drop")
        assert check(cli, "HTTP")["status"] == "failed"

    def test_slow_response(self, cli: CommandLine, set_constants: SetConstants) -> None:
        """A slow response is a warning."""
        set_constants(network, SLOW=0.0)
        found = check(cli, "permission")
        assert (found["status"], "which is slow" in found["detail"]) == ("warning", True)

    def test_closed_port(self, cli: CommandLine) -> None:
        """Where nothing listens, the connection is a failure, and the key is not checked."""
        result = cli.run("doctor", "--json", "--base-url", "http://127.0.0.1:1")
        assert checks(result)["TCP"]["status"] == "failed"
        assert checks(result)["permission"]["status"] == "skipped"

    def test_unknown_host(self, cli: CommandLine) -> None:
        """A name that can't be resolved is a failure."""
        assert check(cli, "DNS", "--base-url", "https://shop.invalid")["status"] == "failed"

    def test_known_host(self, cli: CommandLine) -> None:
        """A name that can be resolved is shown with its addresses."""
        url = cli.sandbox.url.replace("127.0.0.1", "localhost")
        assert "127.0.0.1" in check(cli, "DNS", "--base-url", url)["detail"]

    def test_missing_certificates(self, cli: CommandLine, environment: Environment) -> None:
        """A file with certificates that can't be loaded is a failure."""
        environment(EXPONEA_UPLOAD_CA_FILE=cli.folder / "missing.pem")
        assert check(cli, "certificates")["status"] == "failed"

    def test_proxy_that_is_not_used(self, cli: CommandLine, environment: Environment) -> None:
        """A proxy in the environment that has no effect is a warning, which does not show its password."""
        environment(https_proxy=f"http://user:{PASSWORD}@127.0.0.1:1")
        result = cli.run("doctor")
        assert "HTTPS_PROXY is set and not used" in result.out
        environment(http_proxy="http://127.0.0.1:1")
        assert "HTTPS_PROXY, HTTP_PROXY are set and not used" in cli.run("doctor").out
        assert PASSWORD not in result.out


class TestClock:
    @pytest.mark.parametrize(
        ("ahead", "status", "words"),
        [(3630, "failed", "1 h 0 min behind"), (-3600, "failed", "1 h 0 min ahead of"), (30, "warning", "behind")],
    )
    def test_wrong_clock(self, cli: CommandLine, ahead: float, status: str, words: str) -> None:
        """A clock that differs from that of the platform is reported."""
        body = {"success": True, "results": [{"success": True, "time": time.time() + ahead}]}
        cli.fault("status", status=200, body=json.dumps(body))
        found = check(cli, "clock")
        assert (found["status"], words in found["detail"]) == (status, True)


def accept(request: ReceivedRequest) -> web.Response:
    """Respond as the platform does."""
    return web.json_response({"success": True, "results": [{"success": True, "time": time.time()}]})


async def check_async(*options: str) -> dict[str, dict[str, str]]:
    """Run all checks beside the event loop of this test, which serves the platform."""
    result = await asyncio.to_thread(run, "doctor", "--json", *options)
    assert SECRET not in result.out + result.err
    assert PASSWORD not in result.out + result.err
    return checks(result)


class TestEncryption:
    @staticmethod
    def server(authority: trustme.CA, **certificate: Any) -> ScriptedServer:
        server = ScriptedServer(accept)
        server.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1", **certificate).configure_cert(server.tls)
        return server

    @staticmethod
    def trust(authority: trustme.CA, environment: Environment, folder: Path, server: ScriptedServer) -> None:
        authority.cert_pem.write_to_path(folder / "ca.pem")
        environment(
            EXPONEA_PROJECT_TOKEN=PROJECT,
            EXPONEA_AUTHORIZATION_TOKEN=SECRET,
            EXPONEA_BASE_URL=server.url,
            EXPONEA_STORAGE=folder / "queue.sqlite",
            EXPONEA_UPLOAD_CA_FILE=folder / "ca.pem",
        )

    async def test_trusted(self, environment: Environment, tmp_path: Path) -> None:
        """A certificate of a trusted authority is valid, and the key is checked."""
        authority = trustme.CA()
        async with self.server(authority) as server:
            self.trust(authority, environment, tmp_path, server)
            found = await check_async()
        assert (found["TLS"]["status"], found["permission"]["status"]) == ("ok", "ok")
        assert found["TLS"]["detail"].startswith("TLSv1.")

    async def test_not_trusted(self, environment: Environment, tmp_path: Path) -> None:
        """A certificate of another authority is a failure that names the setting for authorities."""
        authority = trustme.CA()
        async with self.server(trustme.CA()) as server:
            self.trust(authority, environment, tmp_path, server)
            found = await check_async()
        assert found["TLS"]["status"] == "failed"
        assert "EXPONEA_UPLOAD_CA_FILE" in found["TLS"]["advice"]
        assert found["permission"]["status"] == "skipped"

    async def test_ends_soon(self, environment: Environment, tmp_path: Path) -> None:
        """A certificate that ends within two weeks is a warning."""
        authority = trustme.CA()
        async with self.server(authority, not_after=datetime.now(UTC) + timedelta(days=3)) as server:
            self.trust(authority, environment, tmp_path, server)
            assert (await check_async())["TLS"]["status"] == "warning"

    async def test_no_encryption(self, environment: Environment, tmp_path: Path) -> None:
        """A server without encryption at an https address is a failure."""
        async with ScriptedServer(accept) as server:
            server.url = server.url.replace("http://", "https://")
            self.trust(trustme.CA(), environment, tmp_path, server)
            assert (await check_async())["TLS"]["status"] == "failed"

    async def test_proxy(
        self, environment: Environment, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        """Through a proxy, the connection to it and the key are checked; its password is not shown."""
        async with (
            ScriptedServer(accept) as server,
            ProxyServer(tmp_path_factory.mktemp("proxy"), f"user:{PASSWORD}") as proxy,
        ):
            self.trust(trustme.CA(), environment, tmp_path, server)
            environment(EXPONEA_UPLOAD_PROXY=f"http://user:{PASSWORD}@{proxy.address}")
            found = await check_async()
            environment(EXPONEA_UPLOAD_PROXY=f"http://other:{PASSWORD}@{proxy.address}")
            refused = await check_async()
        assert proxy.address in found["proxy"]["detail"]
        assert found["permission"]["status"] == "ok"
        assert "HTTP 407" in refused["permission"]["detail"]
        assert "EXPONEA_UPLOAD_PROXY" in refused["permission"]["advice"]


class TestQueue:
    def test_content(self, cli: CommandLine, queue: Path) -> None:
        """What waits is counted without changing the file."""
        before = files(cli.folder)
        found = checks(cli.run("doctor", "--json"))
        assert found["waiting"]["detail"].startswith("3, the oldest since ")
        assert found["queue"]["detail"].endswith("no damage found")
        assert files(cli.folder) == before

    def test_in_use(self, cli: CommandLine) -> None:
        """A queue that another process has open is read, unchanged, and the process is named."""
        cli.fault("status", status=503, retry_after=1000)
        with cli.start(*TRACK, "--wait", "60") as process:
            wait_until(lambda: cli.sandbox.request_count)
            before = set(files(cli.folder))
            found = checks(cli.run("doctor", "--json"))
            assert set(files(cli.folder)) == before
            process.kill()
        assert found["waiting"]["detail"].startswith("1, ")
        if Path("/proc/locks").exists():
            assert str(process.pid) in found["processes"]["detail"]

    def test_after_a_crash(self, cli: CommandLine) -> None:
        """What a killed process has left is read, its write-ahead log included, and stays as it is."""
        cli.fault("status", status=503, retry_after=1000)
        with cli.start(*TRACK, "--wait", "60") as process:
            wait_until(lambda: cli.sandbox.request_count)
            process.send_signal(signal.SIGKILL)
            process.wait()
        before = files(cli.folder)
        assert before.keys() == {"queue.sqlite", "queue.sqlite-wal", "queue.sqlite-shm"}
        assert check(cli, "waiting")["detail"].startswith("1, ")
        assert files(cli.folder) == before
        (cli.folder / "queue.sqlite-shm").unlink()
        found = check(cli, "queue")
        assert (found["status"], "without creating a file" in found["detail"]) == ("skipped", True)
        assert files(cli.folder).keys() == {"queue.sqlite", "queue.sqlite-wal"}

    def test_dead_letters(self, cli: CommandLine) -> None:
        """Dead letters are a warning."""
        cli.fault("reject", every_command=1)
        cli.run(*TRACK, "--wait", "10")
        found = check(cli, "dead letters")
        assert (found["status"], found["detail"]) == ("warning", "1 were refused for good")

    def test_unknown_project(self, cli: CommandLine, queue: Path) -> None:
        """Events of a project that nothing names are a warning."""
        found = check(cli, "projects", "--project-token", "other")
        assert (found["status"], "3 events wait for project shop" in found["detail"]) == ("warning", True)

    def test_old_events(self, cli: CommandLine, queue: Path, set_constants: SetConstants) -> None:
        """Events that have waited for long are a warning."""
        set_constants(disk, OLD=0.0)
        assert check(cli, "waiting")["status"] == "warning"

    def test_nearly_full(self, cli: CommandLine, queue: Path, environment: Environment) -> None:
        """A queue that is nearly full is a warning."""
        environment(EXPONEA_QUEUE_MAX_RECORDS="3")
        assert "capacity is 3" in check(cli, "waiting")["detail"]

    @pytest.mark.parametrize("size", [6000, 57_344])
    def test_damaged(self, cli: CommandLine, queue: Path, size: int) -> None:
        """A file that is cut off, or has damaged pages, is a failure and is not moved aside."""
        content = queue.read_bytes()[:size]
        queue.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
        before = files(cli.folder)
        found = check(cli, "queue")
        assert (found["status"], "is damaged" in found["detail"]) == ("failed", True)
        assert files(cli.folder) == before

    def test_later_version(self, cli: CommandLine, queue: Path) -> None:
        """A file of a later version is a failure."""
        with closing(sqlite3.connect(queue)) as connection:
            connection.execute("PRAGMA user_version = 99")
        found = check(cli, "queue")
        assert (found["status"], "schema version 99" in found["detail"]) == ("failed", True)

    def test_another_file(self, cli: CommandLine) -> None:
        """A file of something else is a failure and stays as it is."""
        path = cli.write("notes.txt", "my notes")
        found = check(cli, "queue", "--storage", path)
        assert (found["status"], "is not a queue" in found["detail"]) == ("failed", True)
        assert path.read_text() == "my notes"

    def test_links(self, cli: CommandLine, queue: Path, environment: Environment) -> None:
        """A link to the file is a failure, unless links are followed."""
        link = cli.folder / "link.sqlite"
        link.symlink_to(queue)
        assert "symbolic link" in check(cli, "queue", "--storage", link)["detail"]
        environment(EXPONEA_QUEUE_FOLLOW_LINKS="true")
        assert check(cli, "queue", "--storage", link)["status"] == "ok"

    def test_mode(self, cli: CommandLine, queue: Path) -> None:
        """A file that others can read is a warning."""
        queue.chmod(0o644)
        assert check(cli, "file mode")["status"] == "warning"

    def test_damaged_copies(self, cli: CommandLine, queue: Path) -> None:
        """Copies of damaged files are a warning, since they have data of customers in them."""
        queue.write_bytes(queue.read_bytes()[:6000])
        cli.run("queue", "stats")
        assert check(cli, "damaged copies")["detail"].startswith("1, the newest is ")

    def test_large_log(self, cli: CommandLine, queue: Path, set_constants: SetConstants) -> None:
        """A write-ahead log that is not emptied is a warning."""
        set_constants(disk, LARGE_LOG=-1)
        assert check(cli, "size")["status"] == "warning"

    def test_memory(self, cli: CommandLine) -> None:
        """A queue in memory is a warning."""
        assert check(cli, "storage", "--storage", "memory:")["status"] == "warning"

    def test_a_database(self, cli: CommandLine, environment: Environment) -> None:
        """A queue in a database is named without the password, with the queue of the project and the group."""
        environment(EXPONEA_APP_GROUP="group", EXPONEA_STORAGE="postgresql://u:s3cret@127.0.0.1:9/shop")
        found = check(cli, "storage")

        assert found["status"] == "ok"
        assert "postgresql://127.0.0.1:9/shop (schema exponea_async, queue " in found["detail"]
        assert found["detail"].endswith("@group)")


class TestFolder:
    def test_missing(self, cli: CommandLine) -> None:
        """A folder that does not exist is not created."""
        found = check(cli, "folder", "--storage", cli.folder / "new" / "queue.sqlite")
        assert (found["status"], "does not exist yet" in found["detail"]) == ("ok", True)
        assert not (cli.folder / "new").exists()

    def test_below_a_file(self, cli: CommandLine) -> None:
        """A path below a file is a failure."""
        path = cli.write("file", "") / "folder" / "queue.sqlite"
        assert check(cli, "folder", "--storage", path)["status"] == "failed"

    def test_empty_file(self, cli: CommandLine, queue: Path) -> None:
        """A file without content is a queue to be."""
        queue.write_bytes(b"")
        assert check(cli, "queue")["detail"] == f"{queue} is empty; the first start creates the queue in it"

    def test_not_writable(self, cli: CommandLine) -> None:
        """A folder that can't be written, as on a file system of the kernel's, is a failure."""
        if not Path("/proc/self").exists():
            pytest.skip("the system has no /proc")
        found = check(cli, "folder", "--storage", "/proc/sys/kernel/queue.sqlite")
        assert found["status"] == "failed"

    def test_writable_for_all(self, cli: CommandLine) -> None:
        """A folder in which every user can replace the file is a warning."""
        cli.folder.chmod(0o777)
        assert check(cli, "folder")["status"] == "warning"
        cli.folder.chmod(0o1777)
        assert check(cli, "folder")["status"] == "ok"

    def test_little_space(self, cli: CommandLine, set_constants: SetConstants) -> None:
        """Little free space is a warning, and almost none a failure."""
        set_constants(disk, LITTLE_SPACE=10**18)
        assert check(cli, "disk space")["status"] == "warning"
        set_constants(disk, NO_SPACE=10**18)
        assert check(cli, "disk space")["status"] == "failed"

    def test_umask(self, cli: CommandLine) -> None:
        """A umask that takes rights from the owner is a failure."""
        before = os.umask(0o277)
        try:
            found = check(cli, "umask")
            assert os.umask(0o277) == 0o277
        finally:
            os.umask(before)
        assert found["status"] == "failed"

    @pytest.mark.parametrize(
        ("path", "expected"),
        [("/srv/shared/q", "nfs4"), ("/srv/q", "ext4"), ("/mnt/a b/q", "cifs"), ("/tmp/q", "tmpfs")],
    )
    def test_file_systems(self, path: str, expected: str) -> None:
        """The file system of a path is that of the deepest mount, the last one where there are several."""
        mounts = (
            "22 1 0:20 / / rw - ext4 /dev/vda rw\n"
            "23 22 0:21 / /srv/shared rw,relatime shared:1 - nfs4 host:/x rw\n"
            "24 22 0:22 / /mnt/a\\040b rw - cifs //host/x rw\n"
            "25 22 0:23 / /tmp rw - ext4 /dev/vdb rw\n"
            "26 25 0:24 / /tmp rw - tmpfs tmpfs rw\n"
            "broken\n"
        )
        assert file_system(Path(path), mounts) == expected

    @pytest.mark.parametrize(("kind", "word"), [("nfs4", "network"), ("tmpfs", "in memory")])
    def test_unsuitable_file_systems(self, cli: CommandLine, set_constants: SetConstants, kind: str, word: str) -> None:
        """A network file system and one in memory are warnings."""
        mounts = cli.write("mounts", f"22 1 0:20 / / rw - {kind} host:/x rw\n")
        set_constants(disk, MOUNTS=mounts)
        found = check(cli, "file system")
        assert (found["status"], word in found["detail"]) == ("warning", True)
