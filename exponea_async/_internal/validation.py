"""
What makes a setting right, said once for each kind of value, and how its usual spellings become one. Pure.

Every check is a validator of attrs, so the error names the field by itself; a check of a secret never shows it. What
a converter does not know it hands on as it is, so that the check, which knows the field, refuses it.
"""

import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from copy import Error as CopyError
from copy import deepcopy
from datetime import timedelta
from difflib import get_close_matches
from enum import Enum
from functools import partial
from ipaddress import ip_address
from types import MappingProxyType
from typing import Any, get_origin
from urllib.parse import SplitResult, urlsplit

import attrs
from attrs import Attribute

from exponea_async.errors import ConfigurationError

Check = Callable[[Any, "Attribute[Any]", Any], None]
Rule = tuple[Callable[[Any], object], str]

TOKEN = re.compile(r"[A-Za-z0-9-]+")
#: As the Android SDK has it: case-sensitive, no doubled, leading or trailing separators.
APPLICATION_ID = re.compile(r"[a-z0-9]+(?:[-.][a-z0-9]+)*")
APPLICATION_ID_LENGTH = 50
#: What can stand in an HTTP header without ending it.
HEADER_SAFE = re.compile(r"[!-~]+")
PREFIXED = re.compile(r"(?:Token|Basic|Bearer)\s", re.IGNORECASE)
UNSEEN = re.compile(r"[\s\x00-\x1f\x7f]")
HOST = re.compile(r"[\w-]{1,63}(?:\.[\w-]{1,63})*\.?|[0-9A-Fa-f.]*:[0-9A-Fa-f:.]+(?:%[\w.-]+)?")

AUTHORIZATION_HINT = (
    "Pass the bare public API key, without a word such as 'Token' before it; for private access pass "
    "BasicAuth(key_id, secret)."
)


def short_repr(value: object) -> str:
    """Show a value in a message, at most 60 characters of it."""
    with suppress(ValueError, RecursionError):  # an int of more digits than Python is willing to print; deep lists
        text = repr(value)
        return text if len(text) <= 60 else f"{text[:57]}..."
    return f"this {type(value).__name__}"


def nearest(name: str, known: Iterable[str], otherwise: str, *, prefix: str = "") -> str:
    """Name what was probably meant, in a sentence; a prefix that all have makes none more likely."""
    folded = {each.removeprefix(prefix).casefold(): each for each in known}
    close = get_close_matches(name.removeprefix(prefix).casefold(), list(folded), n=1, cutoff=0.5)
    return f"Did you mean {folded[close[0]]}?" if close else otherwise


@contextmanager
def renamed(change: Callable[[str], str]) -> Iterator[None]:
    """Let the errors of a part name the field as the owner of the whole wrote it."""
    try:
        yield
    except ConfigurationError as error:
        field, error.field = error.field, change(error.field)
        error.args = (error.field + str(error).removeprefix(field),)
        raise


def check(*rules: Rule, hint: str) -> Check:
    """Make a check of rules, each the question whether a value is wrong and what to say then."""

    def apply(_instance: object, attribute: "Attribute[Any]", value: Any) -> None:
        for is_wrong, trouble in rules:
            if is_wrong(value):
                raise ConfigurationError(attribute.name, trouble.format(short_repr(value)), hint)

    return apply


def optional(inner: Check) -> Check:
    """Let None pass."""

    def apply(instance: object, attribute: "Attribute[Any]", value: Any) -> None:
        if value is not None:
            inner(instance, attribute, value)

    return apply


def instance_of(kind: type, hint: str) -> Check:
    """Require an instance; only a text is shown, since a dict may hold a project's secret."""

    def apply(_instance: object, attribute: "Attribute[Any]", value: Any) -> None:
        if not isinstance(value, kind):
            what = short_repr(value) if isinstance(value, str) else f"a {type(value).__name__}"
            raise ConfigurationError(attribute.name, f"{what} is no {kind.__name__}", hint)

    return apply


def one_of(allowed: Iterable[str]) -> Check:
    """Require one of a few words."""
    words = tuple(allowed)
    return check(
        (lambda value: not isinstance(value, str) or value not in words, "{} is not known"),
        hint=f"Use one of {', '.join(map(repr, words))}.",
    )


def whole(low: int, high: int | None = None, *, why: str = "") -> Check:
    """Require an int within bounds; a bool is none."""
    bounds = f"from {low:,} to {high:,}" if high else f"of {low:,} or more"
    return check(
        (lambda value: isinstance(value, bool) or not isinstance(value, int), "{} is not a whole number"),
        (lambda value: value < low, "{} is too small"),
        (lambda value: high is not None and value > high, "{} is too large"),
        hint=f"Use a whole number {bounds}{why}.",
    )


def finite(what: str, *, zero: bool = False) -> Check:
    """Require a finite float above 0, or from 0 on."""
    return check(
        (lambda value: not isinstance(value, float), "{} is not a number"),
        (lambda value: not math.isfinite(value), "{} is not finite"),
        (lambda value: value < 0 or (value == 0 and not zero), "{} is too small"),
        hint=f"Use {what} {'of 0 or more' if zero else 'above 0'}.",
    )


def number(value: float) -> float:
    """Make an int a float; what is neither is left for the check that follows."""
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) < 1e300 else math.inf
    return value


def seconds(value: float | timedelta) -> float:
    """Make a duration seconds; what is none is left for the check that follows."""
    return value.total_seconds() if isinstance(value, timedelta) else number(value)


def member(kind: type[Enum], value: Any) -> Any:
    """Make a name the member of an enum."""
    return kind.__members__[value] if isinstance(value, str) and value in kind.__members__ else value


def address(value: str | None) -> str | None:
    """Strip all trailing slashes."""
    return value.rstrip("/") if isinstance(value, str) else value


def words(value: Iterable[str]) -> tuple[str, ...]:
    """Make a tuple; the letters of a lone text are not what was meant."""
    given: Any = value
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        return given  # type: ignore[return-value]
    return tuple(given)


def snapshot(value: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Copy all the way down; what is no mapping passes."""
    given: Any = {} if value is None else value
    if not isinstance(given, Mapping):
        return given  # type: ignore[no-any-return]
    try:
        return MappingProxyType(_copied(given))
    except (TypeError, RecursionError, CopyError) as error:
        trouble = f"it can't be copied ({type(error).__name__})"
    raise ConfigurationError("default_properties", trouble, "Use JSON values, without cycles.")


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copied(inner) for key, inner in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(_copied, value))
    return deepcopy(value)


def remade(instance: Any) -> tuple[Any, ...]:
    """Be the ``__reduce__`` of settings: a read-only mapping can be neither pickled nor copied deeply by itself."""
    given = {each.alias: getattr(instance, each.name) for each in attrs.fields(type(instance)) if each.init}
    plain = {name: dict(value) if isinstance(value, MappingProxyType) else value for name, value in given.items()}
    kind: type = type(instance)
    return partial(kind, **plain), ()


def _is_none(value: object) -> bool:
    return value is None


def _is_no_text(value: object) -> bool:
    return not isinstance(value, str)


def _is_blank(value: str) -> bool:
    return not value.strip()


def _is_unsafe(value: str) -> bool:
    return not HEADER_SAFE.fullmatch(value)


def _split(address: str) -> SplitResult | None:
    with suppress(ValueError):  # brackets that are no IPv6 address, or a port that is no port
        parts = urlsplit(address)
        return parts if parts.port is None or parts.port else None
    return None


def _is_no_http(address: str) -> bool:
    parts = _split(address)
    return not (parts and parts.scheme in ("http", "https") and _is_host(parts.hostname or ""))


def _is_host(name: str) -> bool:
    if not HOST.fullmatch(name):
        return False
    with suppress(ValueError):
        if ":" in name or name.rstrip(".").rpartition(".")[2].isdigit():
            ip_address(name.rstrip("."))
        elif not name.isascii():
            name.encode("idna")
        return True
    return False


def _is_no_place(storage: object) -> bool:
    return not isinstance(storage, str | os.PathLike) or not isinstance(os.fspath(storage), str)


project_token = check(
    (_is_none, "it is missing"),
    (_is_no_text, "it is not a text"),
    (_is_blank, "it is blank"),
    # Not shown: it may be a key that went astray.
    (lambda value: not TOKEN.fullmatch(value), "it has characters that no project token has"),
    hint="Use the project's token, of ASCII letters, digits and '-'.",
)

# What is wrong is never shown here: it is a secret, or next to one.
authorization = check(
    (_is_none, "it is missing"),
    (_is_no_text, "it is neither a text nor BasicAuth"),
    (_is_blank, "it is blank"),
    (PREFIXED.match, "it starts with the name of a scheme"),
    (_is_unsafe, "it has whitespace, control or non-ASCII characters"),
    hint=AUTHORIZATION_HINT,
)

credential = check(
    (_is_none, "it is missing"),
    (_is_no_text, "it is not a text"),
    (_is_blank, "it is blank"),
    (_is_unsafe, "it has whitespace, control or non-ASCII characters"),
    hint="Use it as the page of the private access group shows it.",
)

#: A colon would end the user's part of ``key_id:secret``.
key_id = check((lambda value: ":" in value, "it has a colon in it"), hint="Use the key's id alone, without the secret.")

base_url = check(
    (_is_no_text, "it is not a text"),
    (lambda value: "@" in value, "it has an '@', as if there were credentials in it"),
    (lambda value: "?" in value or "#" in value, "it has a query or a fragment"),
    (UNSEEN.search, "{} has whitespace or control characters"),
    (_is_no_http, "{} is not an absolute http or https address"),
    hint="Use scheme, host and perhaps a path, such as 'https://api.exponea.com'.",
)

application_id = check(
    (_is_no_text, "{} is not a text"),
    (lambda value: len(value) > APPLICATION_ID_LENGTH, f"{{}} is longer than {APPLICATION_ID_LENGTH} characters"),
    (lambda value: not APPLICATION_ID.fullmatch(value), "{} has another form"),
    hint=f"Use at most {APPLICATION_ID_LENGTH} lower-case ASCII letters and digits, single '-' or '.' between them, "
    "such as 'com.example.shop'.",
)

# An address may hold a password, so only what can't be one is shown.
storage = check(
    (_is_no_place, "it is neither a text nor a path"),
    (lambda value: _is_blank(os.fspath(value)), "it is blank"),
    (lambda value: "\0" in os.fspath(value), "it has a NUL character"),
    (lambda value: "://" in os.fspath(value), "must be a file path or 'memory:', got an address with a scheme"),
    hint="Use a file path such as 'queue.sqlite', 'memory:', or None for a file in the user's state directory.",
)

text = check((_is_no_text, "{} is not a text"), (_is_blank, "it is blank"), hint="Use a text, or None to leave it out.")

flag = check((lambda value: not isinstance(value, bool), "{} is not a bool"), hint="Use True or False.")

function = check((lambda value: not callable(value), "it can't be called"), hint="Use an async function, or None.")

placeholders = check(
    (lambda value: not isinstance(value, tuple), "{} is no list"),
    (lambda value: not all(isinstance(word, str) and word for word in value), "{} has something else than texts in it"),
    hint="Use a list of placeholder ids, each a non-empty text.",
)

properties = check(
    (lambda value: not isinstance(value, Mapping), "{} is no mapping"),
    (lambda value: not all(isinstance(key, str) and key for key in value), "it has a name that is no text, or empty"),
    hint="Map names, which are non-empty texts, to JSON values.",
)


def _flag_of(text: str) -> bool:
    return {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}[
        text.strip().lower()
    ]


def _object_of(text: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError(text)  # noqa: TRY004 - the text is wrong, not its type
    return value


def _words_of(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


#: By a field's type: how its text is read, what to say of a text that can't be, and what would be right.
READERS: Mapping[Any, tuple[Callable[[str], Any], str, str]] = {
    bool: (_flag_of, "{} is neither true nor false", "Use true, false, 1, 0, yes, no, on or off."),
    int: (int, "{} is not a whole number", "Use digits only."),
    float: (float, "{} is not a number", "Use a number, such as 0.5."),
    # Projects have keys in them, so this one is not shown.
    Mapping: (_object_of, "it is not a JSON object", "Use a JSON object, such as {}."),
    tuple: (_words_of, "", ""),
}


def read(field: str, kind: Any, text: str) -> Any:
    """Read the text of a variable as a field's type has it."""
    reader, trouble, hint = READERS.get(get_origin(kind) or kind, (str, "", ""))
    with suppress(ValueError, KeyError, RecursionError):
        return reader(text)
    raise ConfigurationError(field, trouble.format(short_repr(text)), hint)
