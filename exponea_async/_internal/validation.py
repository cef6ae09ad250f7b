"""
Validators and converters of settings. Pure.

A validator is called by attrs, so its error names the field. No validator of a secret shows the value. A converter
returns a value that it can't convert as it is, so that the validator, which knows the field, raises the error.
"""

import inspect
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import Error as CopyError
from copy import deepcopy
from datetime import timedelta
from enum import Enum
from functools import partial
from ipaddress import ip_address
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, get_origin
from urllib.parse import SplitResult, urlsplit, urlunsplit

import attrs
from attrs import Attribute

from exponea_async._internal.lazy import LazyModule
from exponea_async._internal.printable import printable
from exponea_async._internal.secrets import to_secret
from exponea_async.errors import ConfigurationError

if TYPE_CHECKING:
    import difflib
else:
    difflib = LazyModule("difflib")

Validator = Callable[[Any, "Attribute[Any]", Any], None]
#: Whether a value is invalid, and the message then, in which ``{value}`` and ``{type}`` are replaced.
Rule = tuple[Callable[[Any], object], str]

# Patterns are strings, which `re` compiles when a setting is checked first.
TOKEN = r"[A-Za-z0-9-]+"  # noqa: S105 - a pattern
#: As in the Android SDK: case-sensitive, without doubled, leading or trailing separators.
APPLICATION_ID = r"[a-z0-9]+(?:[-.][a-z0-9]+)*"
APPLICATION_ID_LENGTH = 50
#: What may be part of an HTTP header.
HEADER_SAFE = r"[!-~]+"
SCHEME = r"(?i:Token|Basic|Bearer)\s"
#: What other libraries call a database in memory, and misspellings of our name for it.
OTHER_MEMORY = r"(?i)(?:file:)?:*memory:*(?:\?.*)?"
INVISIBLE = r"[\s\x00-\x1f\x7f]"
HOST = r"[\w-]{1,63}(?:\.[\w-]{1,63})*\.?|[0-9A-Fa-f.]*:[0-9A-Fa-f:.]+(?:%[\w.-]+)?"
#: How the paths of the API begin, in the two modes of the vendor's SDKs, behind scheme and host.
API_PATH = (
    r"(?i)(?<=[^:/])/(?:(?:track|data)/(?:v\d+|u)|webxp/(?:s|projects|streams)|wxstatic/(?:projects|streams)"
    r"|optimization/streams|campaigns/(?:streams|send-self-check-notification)|projects/[^/]+)(?=/|$)"
)
#: The ports that a URL need not name.
DEFAULT_PORTS = {"http": 80, "https": 443}
#: The names of keys in a JSON object.
_KEYS = frozenset({"authorization_token", "secret"})
#: Maximum length of a value in a message, in characters.
MAX_REPR = 60
#: Maximum length of a setting that is any string, in characters.
MAX_STRING = 1000


def short_repr(value: object) -> str:
    """Return the repr of a value for a message, shortened."""
    with suppress(Exception):  # as of an int of more digits than Python is willing to print, or of a user's class
        full = repr(value)
        return full if len(full) <= MAX_REPR else f"{full[: MAX_REPR - 3]}..."
    return f"this {type(value).__name__}"


def suggest(name: str, known: Iterable[str], otherwise: str, *, prefix: str = "") -> str:
    """
    Return a hint with the known name that was probably meant.

    Args:
        name: The unknown name.
        known: The known names.
        otherwise: The hint if no known name is similar.
        prefix: A prefix of all names, which does not count as a similarity.
    """
    folded = {each.removeprefix(prefix).casefold(): each for each in known}
    close = difflib.get_close_matches(name.removeprefix(prefix).casefold(), list(folded), n=1, cutoff=0.5)
    return f"Did you mean {folded[close[0]]}?" if close else otherwise


@contextmanager
def renamed(rename: Callable[[str], str]) -> Iterator[None]:
    """Change the field of the errors that are raised in a block, from that of a part to that of the whole."""
    try:
        yield
    except ConfigurationError as error:
        field, error.field = error.field, rename(error.field)
        error.args = (printable(error.field) + str(error).removeprefix(printable(field)),)
        raise


# Validators in general


def check(*rules: Rule, hint: str) -> Validator:
    """Return a validator that applies rules one after another."""

    def validate(_instance: object, attribute: "Attribute[Any]", value: Any) -> None:
        for is_invalid, trouble in rules:
            if is_invalid(value):
                message = trouble.format(value=short_repr(value), type=type(value).__name__)
                raise ConfigurationError(attribute.name, message, hint)

    return validate


def optional(validator: Validator) -> Validator:
    """Return a validator that also accepts None."""

    def validate(instance: object, attribute: "Attribute[Any]", value: Any) -> None:
        if value is not None:
            validator(instance, attribute, value)

    return validate


def instance_of(kind: type, hint: str) -> Validator:
    """Return a validator of the type. It shows only strings, since a dict may hold the secret of a project."""

    def validate(_instance: object, attribute: "Attribute[Any]", value: Any) -> None:
        if not isinstance(value, kind):
            found = short_repr(value) if isinstance(value, str) else type(value).__name__
            raise ConfigurationError(attribute.name, f"expected {kind.__name__}, got {found}", hint)

    return validate


def one_of(allowed: Iterable[str]) -> Validator:
    """Return a validator that accepts some strings only."""
    names = tuple(allowed)
    return check(
        (lambda value: not isinstance(value, str) or value not in names, "expected a known value, got {value}"),
        hint=f"Use one of {', '.join(map(repr, names))}.",
    )


def integer(low: int, high: int | None = None, *, why: str = "") -> Validator:
    """Return a validator that accepts an int within bounds, but not a bool."""
    bounds = f"from {low:,} to {high:,}" if high else f"of {low:,} or more"
    return check(
        (lambda value: isinstance(value, bool) or not isinstance(value, int), "expected an integer, got {value}"),
        (lambda value: value < low, f"must be at least {low:,}, got {{value}}"),
        (lambda value: high is not None and value > high, f"must be at most {high:,}, got {{value}}" if high else ""),
        hint=f"Use an integer {bounds}{why}.",
    )


def positive(unit: str, *, allow_zero: bool = False) -> Validator:
    """Return a validator that accepts a finite float above 0, or also 0."""
    bound = "at least 0" if allow_zero else "above 0"
    return check(
        (lambda value: not isinstance(value, float), "expected a number, got {value}"),
        (lambda value: not math.isfinite(value), "must be finite, got {value}"),
        (lambda value: value < 0 or (value == 0 and not allow_zero), f"must be {bound}, got {{value}}"),
        hint=f"Use a number of {unit} {'of 0 or more' if allow_zero else 'above 0'}.",
    )


# Converters


def to_float(value: float) -> float:
    """Convert an int to a float."""
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) < 1e300 else math.inf
    return value


def to_seconds(value: float | timedelta) -> float:
    """Convert a duration to seconds."""
    return value.total_seconds() if isinstance(value, timedelta) else to_float(value)


def to_member(kind: type[Enum], value: Any) -> Any:
    """Convert the name of a member of an enum to the member."""
    return kind.__members__[value] if isinstance(value, str) and value in kind.__members__ else value


def to_tuple(value: Iterable[str]) -> tuple[str, ...]:
    """Convert an iterable to a tuple, but not a string, whose characters are hardly meant."""
    given: Any = value
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        return given  # type: ignore[return-value]
    return tuple(given)


def normalized_url(value: str | None) -> str | None:
    """
    Return a URL in the one form that all spellings of it have in common; None, and what is not a URL, as it is.

    Scheme and host are in lower case, without the default port of the scheme and without trailing slashes.
    """
    if not isinstance(value, str) or re.search(INVISIBLE, value) or not set(value).isdisjoint("@?#"):
        return value
    parts = _split(value)
    if parts is None or not parts.hostname:
        return value
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    is_default = parts.port is None or parts.port == DEFAULT_PORTS.get(parts.scheme)
    netloc = host if is_default else f"{host}:{parts.port}"
    return urlunsplit(parts._replace(netloc=netloc)).rstrip("/")


def frozen_copy(value: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return a deep, read-only copy of default properties; of None an empty one."""
    given: Any = {} if value is None else value
    if not isinstance(given, Mapping):
        return given  # type: ignore[no-any-return]
    try:
        return MappingProxyType(_copy(given))
    except (TypeError, RecursionError, CopyError) as error:
        trouble = f"must consist of values that can be copied, but copying raised {type(error).__name__}"
    raise ConfigurationError("default_properties", trouble, "Use JSON values without cycles.")


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(inner) for key, inner in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(_copy, value))
    return deepcopy(value)


def reduce_settings(instance: Any) -> tuple[Any, ...]:
    """Implement ``__reduce__`` of a settings class: a read-only mapping itself can't be pickled or copied deeply."""
    given = {each.alias: getattr(instance, each.name) for each in attrs.fields(type(instance)) if each.init}
    plain = {name: dict(value) if isinstance(value, MappingProxyType) else value for name, value in given.items()}
    kind: type = type(instance)
    return partial(kind, **plain), ()


# Validators of single settings


def _is_none(value: object) -> bool:
    return value is None


def _is_no_string(value: object) -> bool:
    return not isinstance(value, str)


def _is_no_unicode(value: str) -> bool:
    return value.encode(errors="replace") != value.encode(errors="surrogatepass")


def _is_blank(value: str) -> bool:
    return not value.strip()


def _is_unsafe(value: str) -> bool:
    return not re.fullmatch(HEADER_SAFE, value)


def _split(url: str) -> SplitResult | None:
    with suppress(ValueError):  # brackets without an IPv6 address, or an invalid port
        parts = urlsplit(url)
        return parts if parts.port is None or parts.port else None
    return None


def _is_no_http_url(url: str) -> bool:
    parts = _split(url)
    return not (parts and parts.scheme in ("http", "https") and _is_host(parts.hostname or ""))


def _is_host(name: str) -> bool:
    if not re.fullmatch(HOST, name):
        return False
    with suppress(ValueError):
        if ":" in name or name.rstrip(".").rpartition(".")[2].isdigit():
            ip_address(name.rstrip("."))
        elif not name.isascii():
            name.encode("idna")
        return True
    return False


def _is_no_path(storage: object) -> bool:
    return not isinstance(storage, str | os.PathLike) or not isinstance(os.fspath(storage), str)


def is_async(function: object) -> bool:
    """Return whether a function, or an object that can be called, must be awaited."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


def _is_memory_in_other_words(storage: object) -> bool:
    path = os.fspath(storage)  # type: ignore[call-overload]
    return bool(path != "memory:" and re.fullmatch(OTHER_MEMORY, path))


def _is_no_proxy(value: str) -> bool:
    with suppress(ValueError):
        parts = urlsplit(value)
        is_bare = parts.path in ("", "/") and not parts.query and not parts.fragment
        return parts.scheme not in DEFAULT_PORTS or not parts.hostname or not is_bare or parts.port == 0
    return True


_MISSING: Rule = (_is_none, "is missing")
_NO_STRING: Rule = (_is_no_string, "expected a string, got {type}")
_BLANK: Rule = (_is_blank, "must not be blank")
_UNSAFE: Rule = (_is_unsafe, "must consist of visible ASCII characters, without whitespace or control characters")

project_token = check(
    _MISSING,
    _NO_STRING,
    _BLANK,
    # The value is not shown: it may be a key that was put in the wrong place.
    (lambda value: not re.fullmatch(TOKEN, value), "must consist of ASCII letters, digits and '-'"),
    hint="Use the token of the project.",
)

authorization = check(
    _MISSING,
    (_is_no_string, "expected a string or BasicAuth, got {type}"),
    _BLANK,
    (lambda value: re.match(SCHEME, value), "must not begin with the name of a scheme"),
    _UNSAFE,
    hint="Pass the bare public API key, without a word such as 'Token' before it; for private access pass "
    "BasicAuth(key_id, secret).",
)

credential = check(
    _MISSING,
    _NO_STRING,
    _BLANK,
    _UNSAFE,
    hint="Use it as shown on the page of the private access group.",
)

#: A colon would end the first part of ``key_id:secret``.
key_id = check((lambda value: ":" in value, "must not contain a colon"), hint="Use only the id, without the secret.")

_base_url = check(
    _NO_STRING,
    (lambda value: "@" in value, "must not contain an '@', which separates credentials"),
    (lambda value: "?" in value or "#" in value, "must not have a query or a fragment"),
    (lambda value: re.search(INVISIBLE, value), "must not contain whitespace or control characters, got {value}"),
    (_is_no_http_url, "must be an absolute http or https URL, got {value}"),
    hint="Use scheme, host and optionally a path, such as 'https://api.exponea.com'.",
)


def base_url(instance: object, attribute: "Attribute[Any]", value: Any) -> None:
    """Check the URL of the API, to which the paths of the API are appended; the prefix of a proxy may be in it."""
    _base_url(instance, attribute, value)
    if found := re.search(API_PATH, value):
        trouble = f"must not contain a path of the API, {found[0]!r}, which is appended to it, got {short_repr(value)}"
        raise ConfigurationError(attribute.name, trouble, f"Use {value[: found.start()]!r}.")


# The value is not shown: it may contain a password.
proxy = check(
    _NO_STRING,
    (lambda value: re.search(INVISIBLE, value), "must not contain whitespace or control characters"),
    (_is_no_proxy, "must be an http or https URL of a host, with nothing after its port"),
    hint="Use scheme, host and port, with credentials if they are needed: 'http://name:password@proxy.example:3128'.",
)

path = check((_is_no_path, "expected a file path, got {type}"), hint="Use a string or a pathlib.Path.")

application_id = check(
    _NO_STRING,
    (
        lambda value: len(value) > APPLICATION_ID_LENGTH,
        f"must have at most {APPLICATION_ID_LENGTH} characters, got {{value}}",
    ),
    (
        lambda value: not re.fullmatch(APPLICATION_ID, value),
        "must consist of lower-case ASCII letters and digits with single '-' or '.' between them, got {value}",
    ),
    hint=f"Use an id of at most {APPLICATION_ID_LENGTH} characters, such as 'com.example.shop'.",
)

_STORAGES = "a file path, 'memory:' or a PostgreSQL URL"
# The address is not shown, since it may contain a password.
storage = check(
    (_is_no_path, "expected a file path, 'memory:', a PostgreSQL URL or an asyncpg.Pool, got {type}"),
    (lambda value: _is_blank(os.fspath(value)), "must not be blank"),
    (lambda value: "\0" in os.fspath(value), "must not contain a NUL character"),
    (lambda value: "://" in os.fspath(value), f"must be {_STORAGES}, got an address of another scheme"),
    (_is_memory_in_other_words, "must be 'memory:' for a queue in memory, got {value}"),
    (lambda value: os.fspath(value).startswith("file:"), f"must be {_STORAGES}, got a URI"),
    hint="Use a file path such as 'queue.sqlite', 'memory:', 'postgresql://user:password@host/database', or None for a "
    "file in the user's state directory.",
)

# It becomes a property of events, or part of the name of a file.
string = check(
    _NO_STRING,
    _BLANK,
    (lambda value: len(value) > MAX_STRING, f"must have at most {MAX_STRING} characters, got {{value}}"),
    (_is_no_unicode, "must be valid Unicode, got {value}"),
    hint="Use a string, or None.",
)

boolean = check((lambda value: not isinstance(value, bool), "expected a bool, got {value}"), hint="Use True or False.")

function = check(
    (lambda value: not callable(value), "expected a function, got {type}"), hint="Use an async function, or None."
)

# The coroutine that an async function returns would never be awaited.
plain_function = check(
    (lambda value: not callable(value), "expected a function, got {value}"),
    (is_async, "expected a plain function, got the async function {value}"),
    hint="Use a plain function.",
)

placeholders = check(
    (lambda value: not isinstance(value, tuple), "expected a list of strings, got {value}"),
    (
        lambda value: not all(isinstance(each, str) and each for each in value),
        "must contain only non-empty strings, got {value}",
    ),
    hint="Use a list of placeholder ids.",
)

properties = check(
    (lambda value: not isinstance(value, Mapping), "expected a mapping, got {type}"),
    (lambda value: not all(isinstance(key, str) and key for key in value), "must have non-empty strings as keys"),
    hint="Use a dict of property names and JSON values.",
)


# Environment variables


def _parse_boolean(value: str) -> bool:
    return {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}[
        value.strip().lower()
    ]


def _mask_keys(parsed: dict[str, Any]) -> dict[str, Any]:
    return {name: to_secret(value) if name in _KEYS else value for name, value in parsed.items()}


def _parse_object(value: str) -> dict[str, Any]:
    parsed = json.loads(value, object_hook=_mask_keys)
    if not isinstance(parsed, dict):
        raise ValueError(value)  # noqa: TRY004 - the value is wrong, not its type
    return parsed


def _parse_json_list(value: str) -> list[Any]:
    parsed = json.loads(value)
    if not isinstance(parsed, list):
        raise ValueError(value)  # noqa: TRY004 - the value is wrong, not its type
    return parsed


def _parse_list(value: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in value.split(",") if item.strip())


#: By the type of a field: how the value of its variable is parsed, the message if that fails, and the hint.
PARSERS: Mapping[Any, tuple[Callable[[str], Any], str, str]] = {
    bool: (_parse_boolean, "expected true or false, got {}", "Use true, false, 1, 0, yes, no, on or off."),
    int: (int, "expected an integer, got {}", "Use digits only."),
    float: (float, "expected a number, got {}", "Use a number such as 0.5."),
    # The value is not shown, since projects contain keys.
    Mapping: (_parse_object, "expected a JSON object", "Use a JSON object such as {}."),
    tuple: (_parse_list, "", ""),
    Sequence: (_parse_json_list, "expected a JSON list", "Use a JSON list such as []."),
}


def parse_variable(field: str, kind: Any, value: str) -> Any:
    """
    Parse the value of an environment variable.

    Args:
        field: The name in the error.
        kind: The type of the field.
        value: The value of the variable.

    Raises:
        ConfigurationError: The value can't be parsed.
    """
    parse, trouble, hint = PARSERS.get(get_origin(kind) or kind, (str, "", ""))
    with suppress(ValueError, KeyError, RecursionError):
        return parse(value)
    raise ConfigurationError(field, trouble.format(short_repr(str(value))), hint)
