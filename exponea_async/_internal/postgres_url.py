"""
URLs of PostgreSQL databases: which are valid, what of them may be shown, and which database they mean.

The rules are those of asyncpg, which is not imported: settings are checked where it is not installed, too.
"""

import os
import re
from contextlib import suppress
from itertools import zip_longest
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from attrs import Attribute

from exponea_async._internal import validation as checks
from exponea_async._internal.lazy import LazyModule
from exponea_async._internal.secrets import Secret
from exponea_async.errors import ConfigurationError

if TYPE_CHECKING:
    import getpass
else:
    getpass = LazyModule("getpass")

MASKED = "***"
#: What is meant as such a URL, well-formed or not. A path would lose a slash, hence without slashes.
SCHEME = r"(?i)\s*postgres(?:ql)?(\+\w+)?:"
DEFAULT_PORT = "5432"
MAX_PORT = 65_535
_HOST = r"(?:\[[\w:.%]+\]|[^\[\]:@,]+)(?::\d{1,5})?"
#: A second "@" would be that of a password, at which asyncpg would not split.
_AUTHORITY = rf"(?:[^@]*@)?(?:{_HOST}(?:,{_HOST})*)?"
_PORT = r":(\d+)(?=,|$)"
#: The parameters whose values are shown; another one may be a password.
_VISIBLE = frozenset(
    {"application_name", "database", "dbname", "host", "port", "sslmode", "target_session_attrs", "user"}
)

_HINT = (
    "Use 'postgresql://user:password@host:5432/database', with the special characters of the password in "
    "percent-encoding, such as %40 for '@' and %2F for '/'."
)


def is_postgres_url(value: object) -> bool:
    """Return whether a value is meant as the URL of a PostgreSQL database; it may be malformed."""
    return isinstance(value, str) and bool(re.match(SCHEME, value))


def to_secret_url(value: Any) -> Any:
    """Convert what has a scheme, and may have a password in it, to a `Secret`; return other values as they are."""
    # A path of a URL has lost a slash, but not the password.
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if isinstance(path, str) and ("://" in path or re.match(SCHEME, path)):
        return Secret(path)
    return str(value) if isinstance(value, Secret) else value


def masked_repr(value: object) -> str:
    """Return the repr of a value, of a URL without its password."""
    masked = _masked(value) if isinstance(value, Secret) else None
    return repr(value) if masked is None else repr(masked)


def _masked(url: str) -> str | None:
    if not is_postgres_url(url) or _trouble(url) is not None:
        # It is not known where the password is.
        return None
    parts = urlsplit(url)
    login, separator, hosts = parts.netloc.rpartition("@")
    user, colon, _ = login.partition(":")
    query = "&".join(_masked_parameter(each) for each in parts.query.split("&") if each)
    return f"{parts.scheme}://{user}{colon and f':{MASKED}'}{separator}{hosts}{parts.path}{query and f'?{query}'}"


def _masked_parameter(parameter: str) -> str:
    name, _, value = parameter.partition("=")
    return f"{name}={value if unquote(name) in _VISIBLE else MASKED}"


# Validity


def postgres_url(_instance: object, attribute: "Attribute[Any]", value: Any) -> None:
    """Check the URL of a PostgreSQL database, whose errors show nothing of it."""
    if not isinstance(value, str):
        raise ConfigurationError(attribute.name, f"expected a string, got {type(value).__name__}", _HINT)
    scheme = re.match(SCHEME, value)
    if scheme and scheme[1]:
        trouble = f"must not name a driver, got '{scheme[0].strip()}//'"
        raise ConfigurationError(attribute.name, trouble, f"Leave '{scheme[1]}' out: 'postgresql://...'.")
    if found := _trouble(value):
        raise ConfigurationError(attribute.name, found, _HINT)


def _trouble(url: str) -> str | None:
    """Return what is wrong with a URL, without any part of it."""
    if re.search(checks.INVISIBLE, url):
        return "must not contain whitespace or control characters"
    parts = _split(url)
    if parts is None or parts.scheme not in ("postgresql", "postgres") or "://" not in url[: len("postgresql://")]:
        return "must be a URL that begins with 'postgresql://'"
    if "#" in url or "@" in parts.path or "@" in parts.query or parts.netloc.count("@") > 1:
        return "must not contain '#', and not '@' except before the host"
    if not re.fullmatch(_AUTHORITY, parts.netloc):
        return "must have a valid host and port"
    ports = re.findall(_PORT, parts.netloc.rpartition("@")[2])
    if not all(0 < int(each) <= MAX_PORT for each in ports):
        return f"must have a port from 1 to {MAX_PORT:,}"
    return None if _is_query(parts.query) else "must have parameters of the form name=value behind its '?'"


def _split(url: str) -> SplitResult | None:
    with suppress(ValueError):  # brackets without an IPv6 address
        return urlsplit(url)
    return None


def _is_query(query: str) -> bool:
    with suppress(ValueError):
        return not query or bool(parse_qsl(query, strict_parsing=True))
    return False


# The database


def database_address(url: str) -> str:
    """
    Return what identifies the database of a valid URL: its hosts, ports and name, without user and password.

    What the URL leaves out is taken from the environment, as asyncpg does.
    """
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    login, _, hosts = parts.netloc.rpartition("@")
    hosts = unquote(hosts) or query.get("host") or os.environ.get("PGHOST") or "localhost"
    ports = query.get("port") or os.environ.get("PGPORT") or DEFAULT_PORT
    user = unquote(login.partition(":")[0]) or query.get("user") or os.environ.get("PGUSER") or _system_user()
    name = unquote(parts.path[1:]) or query.get("dbname") or query.get("database") or os.environ.get("PGDATABASE")
    return f"postgresql://{_with_ports(hosts.split(','), ports.split(','))}/{quote(name or user)}"


def _with_ports(hosts: list[str], ports: list[str]) -> str:
    """Return hosts with the ports that they do not name themselves; the last one is that of all others."""
    pairs = list(zip_longest(hosts, ports[: len(hosts)], fillvalue=ports[-1]))
    named = [(_normalized(host), port) for host, port in pairs]
    return ",".join(host if re.search(_PORT, host) else f"{host}:{port}" for host, port in named)


def _normalized(host: str) -> str:
    return host if host.startswith("/") else host.lower()


def _system_user() -> str:
    with suppress(OSError, KeyError, ImportError):
        return getpass.getuser()
    return ""
