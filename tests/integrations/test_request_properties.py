"""
What events take from the headers of their requests: nothing by default, and never anything that could do harm.
"""

from typing import Any

import pytest
from helpers.web import Receive, Scope, Send, call, http_scope, tracked
from hypothesis import given
from hypothesis import strategies as st

from exponea_async import ConfigurationError, Event, Exponea
from exponea_async.integrations.asgi import ExponeaMiddleware, RequestProperties

EVERYTHING = RequestProperties(ip=1, user_agent=True, location=["q"], referrer=True, utm=True)


def read(properties: RequestProperties, **headers: str) -> dict[str, str]:
    """Return what is taken from a request with headers."""
    named = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return properties.read(http_scope(headers=named))


class TestDefaults:
    async def test_nothing(self, exponea: Exponea) -> None:
        """Nothing of a request is sent unless it is switched on."""

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await exponea.track_event(Event("visit"))

        headers = [("user-agent", "Firefox"), ("referer", "https://a.example/"), ("x-forwarded-for", "192.0.2.7")]
        middleware = ExponeaMiddleware(application, exponea, customer=lambda _: "jane@example.com")
        await call(middleware, http_scope("/p", query="utm_source=mail&q=1", headers=headers))

        (event,) = await tracked(exponea)
        assert event.properties == {"application_id": "default-application"}

    async def test_everything(self, exponea: Exponea) -> None:
        """What is switched on is in each event of the request, unless the event has it itself."""

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await exponea.track_event(Event("visit", {"location": "own", "referrer": None}))

        headers = [("User-Agent", "Firefox"), ("Referer", "https://a.example/x"), ("X-Forwarded-For", "192.0.2.7")]
        middleware = ExponeaMiddleware(application, exponea, customer=lambda _: "jane", properties=EVERYTHING)
        await call(middleware, http_scope("/p", query="utm_source=mail&q=1", headers=headers))

        (event,) = await tracked(exponea)
        assert event.properties == {
            "application_id": "default-application",
            "ip": "192.0.2.7",
            "user_agent": "Firefox",
            "location": "own",
            "utm_source": "mail",
        }

    @pytest.mark.parametrize(
        ("settings", "field"),
        [
            ({"ip": -1}, "ip"),
            ({"ip": True}, "ip"),
            ({"ip": "1"}, "ip"),
            ({"user_agent": 1}, "user_agent"),
            ({"location": "q"}, "location"),
            ({"location": [1]}, "location"),
            ({"location": True}, "location"),
            ({"referrer": None}, "referrer"),
            ({"utm": "yes"}, "utm"),
        ],
    )
    def test_invalid(self, settings: dict[str, Any], field: str) -> None:
        """An invalid setting is an error that names it."""
        with pytest.raises(ConfigurationError) as raised:
            RequestProperties(**settings)
        assert raised.value.field == field


class TestAddress:
    @pytest.mark.parametrize(
        ("proxies", "forwarded", "expected"),
        [
            (0, None, "192.0.2.1"),
            (0, "198.51.100.1", "192.0.2.1"),
            (1, "198.51.100.1", "198.51.100.1"),
            (1, "203.0.113.9, 198.51.100.1", "198.51.100.1"),
            (2, "203.0.113.9, 198.51.100.1, 192.0.2.3", "198.51.100.1"),
            (2, "198.51.100.1", None),
            (1, None, None),
            (1, "", None),
            (1, "198.51.100.1,", None),
            (1, "unknown", None),
            (1, "<script>", None),
            (1, "198.51.100.1:8080", "198.51.100.1"),
            (1, "2001:DB8::1", "2001:db8::1"),
            (1, "[2001:db8::1]:443", "2001:db8::1"),
            (1, "fe80::1%eth0", "fe80::1"),
            (1, "::ffff:198.51.100.1", "198.51.100.1"),
            (1, "198.51.100.1\u0661", None),
            (100, "198.51.100.1", None),
        ],
    )
    def test_proxies(self, proxies: int, forwarded: str | None, expected: str | None) -> None:
        """The address is the one that the outermost trusted proxy has seen; what a visitor claims does not count."""
        headers = {} if forwarded is None else {"x_forwarded_for": forwarded}

        assert read(RequestProperties(ip=proxies), **headers).get("ip") == expected

    def test_several_headers(self) -> None:
        """Proxies may append a header of their own; their order counts."""
        scope = http_scope(headers=[("x-forwarded-for", "203.0.113.9"), ("X-Forwarded-For", "198.51.100.1")])

        assert RequestProperties(ip=1).read(scope) == {"ip": "198.51.100.1"}
        assert RequestProperties(ip=2).read(scope) == {"ip": "203.0.113.9"}

    @pytest.mark.parametrize("client", [None, ("", 0), ("testclient", 1)])
    def test_unknown(self, client: Any) -> None:
        """A server that knows no address, as on a Unix socket, gives none."""
        assert RequestProperties(ip=0).read(http_scope(client=client)) == {}


class TestText:
    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            ("Mozilla/5.0 (X11; Linux)", "Mozilla/5.0 (X11; Linux)"),
            ("evil\r\nX: y\x00\x1b[31m\x7f", "evil  X: y[31m"),
            ("東京\u3000大阪\u00a0\tx\ny", "東京 大阪  x y"),
            ("right \u202eto left\u2066", "right to left"),
            ("bad \udcff\udcfe utf-8", "bad  utf-8"),
            ("kávé", "kávé"),
            ("\x00", None),
            ("", None),
            ("x" * 2_000, "x" * 1_000),
            ("ж" * 2_000, "ж" * 1_000),
            ("😀" * 2_000, "😀" * 1_000),
        ],
    )
    def test_cleaned(self, given: str, expected: str | None) -> None:
        """
        Control characters, controls of direction and invalid UTF-8 are removed, and long values are cut.

        What separates words becomes a blank.
        """
        assert read(RequestProperties(user_agent=True), user_agent=given).get("user_agent") == expected

    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            ("https://a.example/path?token=secret#part", "https://a.example/path"),
            ("https://jane:password@a.example:8443/", "https://a.example:8443/"),
            ("http://a.example", "http://a.example"),
            ("javascript:alert(1)", None),
            ("about:blank", None),
            ("http://[::1", None),
            ("", None),
        ],
    )
    def test_referrer(self, given: str, expected: str | None) -> None:
        """The referrer has neither a query, which may have secrets, nor credentials."""
        assert read(RequestProperties(referrer=True), referer=given).get("referrer") == expected


class TestQuery:
    @pytest.mark.parametrize(
        ("names", "path", "query", "expected"),
        [
            ([], "/reset", "token=secret", "/reset"),
            (["q"], "/search", "q=mugs&token=secret", "/search?q=mugs"),
            (["q", "page"], "/search", "page=2&q=a%20b&q=c", "/search?q=a+b&page=2"),
            (["q"], "/search", "q=%E2%80%AE%00%FFx", "/search?q=x"),
            (["q"], "/search", "q=káv%C3%A9", "/search?q=k%C3%A1v%C3%A9"),
            (["q"], "/search", "", "/search"),
            ([], "/káv\u202eé?", "", "/k%C3%A1v%C3%A9%3F"),
            ([], "/" + "x" * 2_000, "", "/" + "x" * 999),
        ],
    )
    def test_location(self, names: list[str], path: str, query: str, expected: str) -> None:
        """The location has of the query only what is allowed by name."""
        scope = http_scope("/", query=query)
        scope["path"] = path

        assert RequestProperties(location=names).read(scope) == {"location": expected}

    def test_campaign(self) -> None:
        """The parameters of campaigns are taken by their names, and nothing else."""
        query = "utm_source=mail&utm_campaign=spring%20sale&utm_other=x&utm_term=&xnpe_cmp=y"

        assert RequestProperties(utm=True).read(http_scope(query=query)) == {
            "utm_source": "mail",
            "utm_campaign": "spring sale",
        }


@given(
    headers=st.lists(
        st.tuples(
            st.sampled_from([b"user-agent", b"referer", b"x-forwarded-for", b"cookie", b"X-Other"]),
            st.one_of(st.binary(max_size=50), st.binary(max_size=30).map(lambda raw: b"https://[" + raw)),
        )
    ),
    query=st.binary(max_size=50).map(lambda raw: b"utm_source=" + raw + b"&q=%" + raw),
    path=st.text(max_size=30),
)
def test_any_bytes(headers: list[tuple[bytes, bytes]], query: bytes, path: str) -> None:
    """Whatever bytes a request has, each property is a short string of printable characters."""
    found = EVERYTHING.read({**http_scope(), "headers": headers, "query_string": query, "path": path})

    assert found.keys() <= {"ip", "user_agent", "location", "referrer", "utm_source"}
    for value in found.values():
        assert value.isprintable()
        assert 0 < len(value) <= 1_000
        value.encode()
