"""
Who may come in, without any server.
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
def test_a_credential_is_read(header: str, expected: object) -> None:
    """Only a well-formed Token or Basic header is a credential."""
    assert parse_credential(header) == expected


@pytest.mark.parametrize(
    ("host", "local"),
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
def test_a_host_is_local_or_not(host: str, local: bool) -> None:  # noqa: FBT001
    """Only the names of this machine are local, whatever the port."""
    assert is_local_host(host) is local


def test_a_project_hides_its_credentials() -> None:
    """Keys and secrets don't show in a project's repr."""
    shown = repr(Project("shop", tokens=["key-1"], basic=[["id-1", "secret-1"]]))

    assert "shop" in shown
    assert not any(word in shown for word in ("key-1", "id-1", "secret-1"))


def test_the_bucket_empties_and_refills() -> None:
    """A second's requests pass at once, then as many as the time that went by allows."""
    now = 0.0
    limit = RateLimiter(2, lambda: now)

    assert [limit.take() for _ in range(4)] == [0, 0, 1, 1]
    now = 0.5
    assert [limit.take() for _ in range(2)] == [0, 1]
    now = 60.0
    assert [limit.take() for _ in range(3)] == [0, 0, 1]
    limit.reset()
    assert limit.take() == 0


def test_without_a_limit_all_pass() -> None:
    """No limit is no limit."""
    limit = RateLimiter(None, lambda: 0.0)

    assert not any(limit.take() for _ in range(1_000))


def test_a_limit_is_positive() -> None:
    """A rate limit of nothing is refused."""
    with pytest.raises(ValueError, match="rate_limit"):
        RateLimiter(0, lambda: 0.0)
