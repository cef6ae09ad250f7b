"""
What corporate networks need: proxies, certificates of their own, and sessions of the application.
"""

import logging
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme
from aiohttp import web
from attrs import evolve
from helpers.clients import Configure
from helpers.environment import Environment
from helpers.proxy_server import ProxyServer
from helpers.scripted_server import ReceivedRequest, ScriptedServer

from exponea_async import (
    Configuration,
    ConfigurationError,
    Event,
    Exponea,
    RequestRefusedError,
    UnavailableError,
    UploadSettings,
)

PASSWORD = "pass/w@rd"
CREDENTIALS = f"user:{PASSWORD}"
IN_URL = "user:pass%2Fw%40rd"


def respond(request: ReceivedRequest) -> web.Response:
    """Accept all events, and return no consents."""
    return request.accept() if "batch" in request.path else web.json_response({"success": True, "results": []})


@pytest.fixture
async def platform() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer(respond) as server:
        yield server


@pytest.fixture
async def proxy(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ProxyServer]:
    async with ProxyServer(tmp_path_factory.mktemp("proxy"), CREDENTIALS) as server:
        yield server


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
async def encrypted(authority: trustme.CA) -> AsyncIterator[ScriptedServer]:
    server = ScriptedServer(respond)
    server.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server.tls)
    async with server:
        yield server


@pytest.fixture
def servers(platform: ScriptedServer, encrypted: ScriptedServer) -> dict[str, ScriptedServer]:
    return {"http": platform, "https": encrypted}


async def use(configuration: Configuration, **upload: Any) -> None:
    """Track an event and fetch consents, both with success."""
    configuration = evolve(configuration, upload=evolve(configuration.upload, **upload))
    async with Exponea(configuration) as client:
        receipt = await client.track_event(Event("ping"))
        await receipt.delivered(timeout=60)
        assert await client.fetch_consents() == []


class TestProxy:
    async def test_all_requests(self, configure: Configure, platform: ScriptedServer, proxy: ProxyServer) -> None:
        """Events and messages go through the proxy, with its credentials."""
        await use(configure(base_url=platform.url), proxy=f"http://{IN_URL}@{proxy.address}")
        assert {request.path.rpartition("/")[2] for request in platform.requests} == {"batch", "categories"}
        assert all("proxy.py" in request.headers["Via"] for request in platform.requests)
        assert not any("Proxy-Authorization" in request.headers for request in platform.requests)

    async def test_a_tunnel(
        self, configure: Configure, encrypted: ScriptedServer, proxy: ProxyServer, authority: trustme.CA, tmp_path: Path
    ) -> None:
        """Encrypted requests go through a tunnel, and the platform gets nothing of the proxy's credentials."""
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        url = f"http://{IN_URL}@{proxy.address}"
        await use(configure(base_url=encrypted.url), proxy=url, ca_file=tmp_path / "ca.pem")
        assert len(encrypted.requests) == 2
        assert not any("Proxy-Authorization" in request.headers for request in encrypted.requests)

    @pytest.mark.parametrize("scheme", ["http", "https"])
    async def test_wrong_credentials(
        self,
        configure: Configure,
        servers: dict[str, ScriptedServer],
        proxy: ProxyServer,
        caplog: pytest.LogCaptureFixture,
        scheme: str,
    ) -> None:
        """
        Without its password the proxy lets nothing through: events are kept, and no error shows a password.

        The error in the log is about the proxy, not about the project's key.
        """
        configuration = configure(base_url=servers[scheme].url)
        upload = evolve(configuration.upload, proxy=f"http://user:hunter2@{proxy.address}")
        caplog.set_level(logging.DEBUG)
        async with Exponea(evolve(configuration, upload=upload)) as client:
            jane = client.for_customer({"registered": "jane"})
            await jane.track_event(Event("ping"))
            with pytest.raises((UnavailableError, RequestRefusedError)) as raised:
                await jane.fetch_consents()
            result = await client.flush_data(timeout=1.0)
        assert (result.delivered, result.rejected, result.remaining) == (0, 0, 1)
        assert "hunter2" not in f"{raised.value!r}{caplog.text}{upload!r}"
        assert "407" in caplog.text
        assert "Check project_token" not in caplog.text
        assert servers[scheme].requests == []

    async def test_the_environment(
        self, configure: Configure, platform: ScriptedServer, proxy: ProxyServer, environment: Environment
    ) -> None:
        """The proxies of the environment are used if the settings say so, and only then."""
        environment(http_proxy=f"http://{IN_URL}@{proxy.address}")
        await use(configure(base_url=platform.url))
        assert not any("Via" in request.headers for request in platform.requests)
        await use(configure(base_url=platform.url), trust_env=True)
        assert all("Via" in request.headers for request in platform.requests[2:])
        environment(no_proxy="127.0.0.1")
        await use(configure(base_url=platform.url), trust_env=True)
        assert not any("Via" in request.headers for request in platform.requests[4:])
        assert len(platform.requests) == 6

    @pytest.mark.parametrize(
        "proxy_url",
        [
            "",
            "hunter2:1",
            "socks5://hunter2",
            "http://:1",
            "http://h/hunter2",
            "http://h:hunter2",
            "http://h?hunter2",
            5,
        ],
    )
    def test_invalid(self, proxy_url: Any) -> None:
        """Anything but the URL of a proxy is refused, without showing it."""
        with pytest.raises(ConfigurationError, match=r"^proxy: ") as raised:
            UploadSettings(proxy=proxy_url)
        assert "hunter2" not in str(raised.value)


class TestCertificates:
    async def test_own_authority(
        self, configure: Configure, encrypted: ScriptedServer, authority: trustme.CA, tmp_path: Path
    ) -> None:
        """A server is trusted by the file of its authority, or by the settings of TLS."""
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        await use(configure(base_url=encrypted.url), ca_file=str(tmp_path / "ca.pem"))
        context = ssl.create_default_context()
        authority.configure_trust(context)
        await use(configure(base_url=encrypted.url), ssl=context)
        assert len(encrypted.requests) == 4

    async def test_unknown_authority(self, configure: Configure, encrypted: ScriptedServer) -> None:
        """By default the server of an unknown authority gets nothing."""
        async with Exponea(configure(base_url=encrypted.url)) as client:
            await client.for_customer({"registered": "jane"}).track_event(Event("ping"))
            assert (await client.flush_data(timeout=0.5)).remaining == 1
        assert encrypted.requests == []

    @pytest.mark.parametrize("content", [None, b"", b"no certificate"])
    async def test_unusable_file(self, configure: Configure, tmp_path: Path, content: bytes | None) -> None:
        """A file that can't be loaded is an error of the start, after which the client can be closed."""
        path = tmp_path / "ca.pem"
        if content is not None:
            path.write_bytes(content)
        client = Exponea(configure(upload={"ca_file": path}))
        with pytest.raises(ConfigurationError, match=r"upload\.ca_file: can't be loaded"):
            await client.start()
        await client.aclose()

    def test_two_settings(self) -> None:
        """The file and the settings of TLS exclude each other."""
        with pytest.raises(ConfigurationError, match="ca_file: must not be set together with 'ssl'"):
            UploadSettings(ca_file="ca.pem", ssl=ssl.create_default_context())


class TestSessions:
    async def test_own_sessions(self, configure: Configure, platform: ScriptedServer) -> None:
        """The application's sessions make all requests, and the client closes them."""
        made: list[aiohttp.ClientSession] = []

        def create() -> aiohttp.ClientSession:
            made.append(aiohttp.ClientSession(headers={"X-Team": "shop"}))
            return made[-1]

        await use(configure(base_url=platform.url), session_factory=create)
        assert [request.headers["X-Team"] for request in platform.requests] == ["shop"] * 2
        assert [each.closed for each in made] == [True, True]

    async def test_shared_connector(self, configure: Configure, platform: ScriptedServer) -> None:
        """The connector of the application stays open if its sessions don't own it."""
        connector = aiohttp.TCPConnector()
        await use(
            configure(base_url=platform.url),
            session_factory=lambda: aiohttp.ClientSession(connector=connector, connector_owner=False),
        )
        assert not connector.closed
        await connector.close()

    @pytest.mark.parametrize("created", [None, 5])
    async def test_not_a_session(self, configure: Configure, created: Any) -> None:
        """A function that returns anything else is an error of the start."""
        client = Exponea(configure(upload={"session_factory": lambda: created}))
        with pytest.raises(ConfigurationError, match=r"upload\.session_factory: must return an aiohttp"):
            await client.start()
        await client.aclose()

    def test_not_from_the_environment(self) -> None:
        """What is no text can't be given by an environment variable, and the error says so."""
        for name in ("SESSION_FACTORY", "SSL"):
            variables = {"EXPONEA_PROJECT_TOKEN": "p", "EXPONEA_AUTHORIZATION_TOKEN": "k"}
            with pytest.raises(ConfigurationError, match="Pass the object itself"):
                Configuration.from_env(variables | {f"EXPONEA_UPLOAD_{name}": "x"})


class TestClearText:
    async def test_warning(self, configure: Configure, caplog: pytest.LogCaptureFixture) -> None:
        """An address that is not encrypted, and not on this machine, is logged once."""
        async with Exponea(configure(base_url="http://platform.invalid:8080")) as client:
            await client.track_event(Event("ping"))
            for _ in range(2):
                await client.flush_data(timeout=0.2)
        logged = [each.getMessage() for each in caplog.records if "clear text" in each.getMessage()]
        assert len(logged) == 1
        assert logged[0].startswith("http://platform.invalid:8080 is not encrypted")

    async def test_this_machine(
        self, configure: Configure, platform: ScriptedServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        """On this machine nobody listens."""
        await use(configure(base_url=platform.url))
        await use(configure(base_url=platform.url.replace("127.0.0.1", "localhost")))
        assert "clear text" not in caplog.text


def test_from_the_environment() -> None:
    """The settings that are text have environment variables."""
    configuration = Configuration.from_env(
        {
            "EXPONEA_PROJECT_TOKEN": "p",
            "EXPONEA_AUTHORIZATION_TOKEN": "k",
            "EXPONEA_UPLOAD_PROXY": "http://u:hunter2@h:1",
            "EXPONEA_UPLOAD_TRUST_ENV": "true",
            "EXPONEA_UPLOAD_CA_FILE": "/ca.pem",
        }
    )
    upload = configuration.upload
    assert (upload.proxy, upload.trust_env, upload.ca_file) == ("http://u:hunter2@h:1", True, "/ca.pem")
    assert "hunter2" not in repr(configuration)
