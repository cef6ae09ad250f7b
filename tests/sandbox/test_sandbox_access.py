"""
Access control and the rate limit, without a server.
"""

from base64 import b64encode

import pytest

from exponea_async.sandbox import Project
from exponea_async.sandbox.access import RateLimiter, is_local_host, parse_credential


def basic(raw: bytes) -> str:
    return f"Basic {b64encode(raw).decode()}"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("Token key", "key"),
        (" token   key ", "key"),
        (basic(b"id:secret"), ("id", "secret")),
        (basic(b"id:with:colons"), ("id", "with:colons")),
        ("", None),
        ("Token", None),
        ("key", None),
        ("Bearer jwt", None),
        ("Basic !", None),
        (basic(b"noseparator"), None),
        (basic(b":secret"), None),
        (basic(b"id:"), None),
        (basic(b"\xff:x"), None),
    ],
)
def test_parsing_credentials(header: str, expected: object) -> None:
    """Only a well-formed Token or Basic header contains a credential."""
    assert parse_credential(header) == expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("localhost", True),
        ("LocalHost:8080", True),
        ("[::1]", True),
        ("[::1]:80", True),
        ("", False),
        ("localhost:", False),
        ("localhost\n", False),
        ("127.0.0.2", False),
        ("127x0x0x1", False),
        ("localhost.evil.example", False),
        ("evil.example:80", False),
    ],
)
def test_local_hosts(host: str, *, expected: bool) -> None:
    """Only the names of this machine are local, with any port."""
    assert is_local_host(host) is expected


def test_the_repr_of_a_project() -> None:
    """The repr of a project contains no keys and secrets."""
    shown = repr(Project("shop", tokens=["key-1"], basic=[["id-1", "secret-1"]]))

    assert "shop" in shown
    assert not any(word in shown for word in ("key-1", "id-1", "secret-1"))


def test_the_rate_limiter_refills() -> None:
    """The requests of one second pass at once, then as many as the elapsed time allows."""
    now = 0.0
    limiter = RateLimiter(2, lambda: now)

    assert [limiter.take() for _ in range(4)] == [0, 0, 1, 1]
    now = 0.5
    assert [limiter.take() for _ in range(2)] == [0, 1]
    now = 60.0
    assert [limiter.take() for _ in range(3)] == [0, 0, 1]
    limiter.reset()
    assert limiter.take() == 0


def test_no_rate_limit() -> None:
    """Without a limit all requests pass."""
    limiter = RateLimiter(None, lambda: 0.0)

    assert not any(limiter.take() for _ in range(1_000))


def test_invalid_rate_limits() -> None:
    """A rate limit has to be at least 1."""
    with pytest.raises(ValueError, match="rate_limit"):
        RateLimiter(0, lambda: 0.0)
