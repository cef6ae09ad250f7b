r"""
The styles of messages, rewritten from their tokens: whatever is not known to be harmless is left out. Pure.

No library that sanitizes HTML also sanitizes style sheets. Tokens are used instead of regular expressions, because CSS
has escapes and comments: ``\75rl(`` and ``url(`` are the same, and ``u/**/rl(`` is not.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any

from exponea_async.features._shared.html.resources import ResourcePolicy, html_extra, name_set, strip_url

#: Ids get this prefix, so that none can refer to an element of the page that contains the message.
ID_PREFIX = "message-"

#: Properties whose ``url()`` is an image, as in the Android SDK.
_IMAGE_PROPERTIES = name_set(
    "background background-image border-image border-image-source content cursor filter list-style list-style-image "
    "mask mask-image offset-path"
)
#: Properties that ran scripts in old browsers.
_FORBIDDEN_PROPERTIES = frozenset(["behavior", "-ms-behavior", "binding", "-moz-binding", "-o-link", "-o-link-source"])
#: Functions that run scripts, or load something without a ``url()``.
_FORBIDDEN_FUNCTIONS = name_set(
    "expression image image-set -webkit-image-set cross-fade -webkit-cross-fade element -moz-element paint src "
    "url-prefix domain progid"
)
_AT_RULES = name_set(
    "container font-face keyframes -moz-keyframes -webkit-keyframes layer media scope starting-style supports"
)
_BRACKETS = {"() block": ("(", ")"), "[] block": ("[", "]"), "{} block": ("{", "}")}
_LEAVES = name_set("ident at-keyword hash number percentage dimension unicode-range literal string")
# A comment separates what is on both sides of it, as in u/**/rl(x).
_SEPARATORS = {"whitespace": " ", "comment": "/**/"}
_MAX_DEPTH = 24
_ESCAPED_IN_STRINGS = re.compile(r"[\x00-\x1f\x7f\"\\<>&]")
_SUSPICIOUS = re.compile(r"[\x00-\x1f\x7f<>]")
#: What could be mistaken for a tag; the comparisons of media queries are followed by a space or ``=``.
_TAG_LIKE = re.compile(r"<(?![ =])")

#: Returns what replaces the address of a resource; None removes the declaration.
Replace = Callable[[str], str | None]


class _UnsafeError(Exception):
    """A part of the CSS must be left out."""


def clean_sheet(css: str, policy: ResourcePolicy) -> str:
    """
    Return a safe style sheet, which also contains nothing that could end a ``<style>`` element.

    Raises:
        MissingResourceError: The policy lacks a resource.
    """
    with html_extra():
        from tinycss2 import parse_stylesheet  # type: ignore[import-untyped]  # noqa: PLC0415 - an extra
    return "\n".join(_rules(parse_stylesheet(css, skip_whitespace=True), policy, 0))


def clean_style(css: str, policy: ResourcePolicy) -> str:
    """
    Return the safe value of a ``style`` attribute.

    Raises:
        MissingResourceError: The policy lacks a resource.
    """
    declarations = (each for each in _parse_block(css) if each.type == "declaration")
    return ";".join(_rules(declarations, policy, 0))


def _parse_block(css: Any) -> list[Any]:
    with html_extra():
        from tinycss2 import parse_blocks_contents  # noqa: PLC0415 - an extra
    nodes: list[Any] = parse_blocks_contents(css, skip_whitespace=True)
    return nodes


def _rules(nodes: Iterable[Any], policy: ResourcePolicy, depth: int) -> Iterable[str]:
    writers = {"declaration": _declaration, "qualified-rule": _qualified_rule, "at-rule": _at_rule}
    for node in nodes:
        try:
            if depth < _MAX_DEPTH and node.type in writers:
                yield writers[node.type](node, policy, depth)
        except _UnsafeError:
            continue


def _declaration(node: Any, policy: ResourcePolicy, _depth: int) -> str:
    name = node.lower_name
    if name in _FORBIDDEN_PROPERTIES:
        raise _UnsafeError
    value = _write(node.value, _replacement(name, policy))
    if not value and not name.startswith("--"):
        raise _UnsafeError
    return f"{_write_name(node.name)}:{value}{'!important' if node.important else ''}"


def _replacement(name: str, policy: ResourcePolicy) -> Replace | None:
    if name == "src":
        return policy.replace_font
    bare = re.sub(r"^-(?:webkit|moz|ms|o)-", "", name)
    return policy.replace_image if bare in _IMAGE_PROPERTIES else None


def _qualified_rule(node: Any, policy: ResourcePolicy, depth: int) -> str:
    prelude = _write(node.prelude, None, in_selector=True)
    return f"{prelude}{{{_block(node.content, policy, depth)}}}"


def _at_rule(node: Any, policy: ResourcePolicy, depth: int) -> str:
    name = node.lower_at_keyword
    if name == "import":
        return _import(node, policy)
    if name not in _AT_RULES or (node.content is None and name != "layer"):
        raise _UnsafeError
    prelude = _write(node.prelude, None, in_selector=name == "scope")
    head = f"@{name} {prelude}".rstrip()
    return f"{head};" if node.content is None else f"{head}{{{_block(node.content, policy, depth)}}}"


def _import(node: Any, policy: ResourcePolicy) -> str:
    """
    Return an import, which is of fonts only, as in the Android SDK.

    Only a data URL is imported: the style sheet of another host could contain anything, after this one was cleaned.
    """
    first = next((each for each in node.prelude if each.type != "whitespace"), None)
    url = policy.replace_font(strip_url(_address(first)))
    if url is None or not url.lower().startswith("data:"):
        raise _UnsafeError
    return f"@import {_write_url(url)};"


def _block(content: Any, policy: ResourcePolicy, depth: int) -> str:
    nodes = list(_parse_block(content))
    # A rule ends by itself, and a declaration with a semicolon, which is allowed after the last one too.
    ends = ("" if each.type != "declaration" else ";" for each in nodes)
    written = (("".join(_rules([each], policy, depth + 1)), end) for each, end in zip(nodes, ends, strict=True))
    return "".join(rule + end for rule, end in written if rule)


def _address(token: Any) -> str:
    """Return the address in a string, ``url(x)`` or ``url("x")``."""
    if token is not None and token.type in ("string", "url"):
        return str(token.value)
    if token is not None and token.type == "function" and token.lower_name == "url":
        inner = [each for each in token.arguments if each.type not in ("whitespace", "comment")]
        if len(inner) == 1 and inner[0].type == "string":
            return str(inner[0].value)
    raise _UnsafeError


def _write(tokens: Iterable[Any], replace: Replace | None, *, in_selector: bool = False) -> str:
    css = "".join(_write_token(each, replace, in_selector, 0) for each in tokens).strip()
    return _TAG_LIKE.sub("< ", css)


def _write_token(token: Any, replace: Replace | None, in_selector: bool, depth: int) -> str:  # noqa: FBT001 - recursion
    if depth > _MAX_DEPTH:
        raise _UnsafeError
    if token.type in _SEPARATORS:
        return _SEPARATORS[token.type]
    if token.type in _LEAVES:
        return _write_leaf(token, in_selector=in_selector)
    if token.type == "url" or (token.type == "function" and token.lower_name == "url"):
        return _write_resource(token, replace)
    start, inner, end = _split(token)
    return start + "".join(_write_token(each, replace, in_selector, depth + 1) for each in inner) + end


def _split(token: Any) -> tuple[str, Iterable[Any], str]:
    """Return the start, the content and the end of a function or of a pair of brackets."""
    if token.type in _BRACKETS:
        start, end = _BRACKETS[token.type]
        return start, token.content, end
    if token.type == "function" and token.lower_name not in _FORBIDDEN_FUNCTIONS:
        return f"{_write_name(token.name)}(", token.arguments, ")"
    raise _UnsafeError


def _write_resource(token: Any, replace: Replace | None) -> str:
    address = strip_url(_address(token))
    if not address or replace is None or (url := replace(address)) is None:
        raise _UnsafeError
    return _write_url(url)


def _write_leaf(token: Any, *, in_selector: bool) -> str:
    if token.type == "string":
        return _quote(token.value)
    if token.type == "ident" and token.lower_value == "progid":
        raise _UnsafeError
    if token.type == "hash" and in_selector and not token.value.startswith(ID_PREFIX):
        return "#" + ID_PREFIX + _check(token.serialize()[1:])
    if token.type == "literal":
        if token.value in ("<!--", "-->"):
            raise _UnsafeError
        return str(token.value)
    return _check(token.serialize())


def _write_name(name: str) -> str:
    with html_extra():
        from tinycss2.serializer import serialize_identifier  # type: ignore[import-untyped]  # noqa: PLC0415 - an extra
    return _check(serialize_identifier(name))


def _check(name: str) -> str:
    """Return a name, unless it contains signs of HTML or control characters, which only attacks do."""
    if _SUSPICIOUS.search(name):
        raise _UnsafeError
    return name


def _quote(string: str) -> str:
    return '"' + _ESCAPED_IN_STRINGS.sub(lambda found: f"\\{ord(found[0]):x} ", string) + '"'


def _write_url(url: str) -> str:
    return f"url({_quote(url)})"
