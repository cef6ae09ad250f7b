r"""
Styles of messages, written anew from their tokens: what is not known to be harmless is left out. Pure.

Tokens, not regular expressions, because CSS has escapes and comments: ``\75rl(`` and ``url(`` are the same, and
``u/**/rl(`` is not.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any

from exponea_async.features._shared.html.resources import ResourcePolicy, html_extra, name_set, strip_url

#: Ids get this in front, so that none can stand for a thing of the page that a message is put into.
ID_PREFIX = "message-"

#: Properties whose ``url()`` is a picture, as in the Android SDK.
_PICTURED = name_set(
    "background background-image border-image border-image-source content cursor filter list-style list-style-image "
    "mask mask-image offset-path"
)
#: Properties that ran scripts in old browsers.
_FORBIDDEN = frozenset(["behavior", "-ms-behavior", "binding", "-moz-binding", "-o-link", "-o-link-source"])
#: Functions that run scripts or load what no ``url()`` tells.
_CALLS = name_set(
    "expression image image-set -webkit-image-set cross-fade -webkit-cross-fade element -moz-element paint src "
    "url-prefix domain progid"
)
_AT_RULES = name_set(
    "container font-face keyframes -moz-keyframes -webkit-keyframes layer media scope starting-style supports"
)
_BRACKETS = {"() block": ("(", ")"), "[] block": ("[", "]"), "{} block": ("{", "}")}
_LEAVES = name_set("ident at-keyword hash number percentage dimension unicode-range literal string")
# A comment holds apart what stands beside it, such as in u/**/rl(x).
_PLAIN = {"whitespace": " ", "comment": "/**/"}
_DEPTH = 24
_SPECIAL = re.compile(r"[\x00-\x1f\x7f\"\\<>&]")
_ODD = re.compile(r"[\x00-\x1f\x7f<>]")
#: What could be taken for a tag; media queries compare with a blank or ``=`` behind.
_TAG_LIKE = re.compile(r"<(?![ =])")

Replace = Callable[[str], str | None]


class _UnsafeError(Exception):
    """A piece of CSS that is to be left out."""


def clean_sheet(css: str, policy: ResourcePolicy) -> str:
    """
    Write a style sheet anew: safe, and without anything that could end a ``<style>`` element.

    Raises:
        MissingError: The loader has not what it needs.
    """
    with html_extra():
        from tinycss2 import parse_stylesheet  # type: ignore[import-untyped]  # noqa: PLC0415 - an extra
    return "\n".join(_rules(parse_stylesheet(css, skip_whitespace=True), policy, 0))


def clean_style(css: str, policy: ResourcePolicy) -> str:
    """
    Write the value of a ``style`` attribute anew.

    Raises:
        MissingError: The loader has not what it needs.
    """
    declarations = (each for each in _contents(css) if each.type == "declaration")
    return ";".join(_rules(declarations, policy, 0))


def _contents(css: Any) -> list[Any]:
    with html_extra():
        from tinycss2 import parse_blocks_contents  # noqa: PLC0415 - an extra
    nodes: list[Any] = parse_blocks_contents(css, skip_whitespace=True)
    return nodes


def _rules(nodes: Iterable[Any], policy: ResourcePolicy, depth: int) -> Iterable[str]:
    writers = {"declaration": _declaration, "qualified-rule": _qualified_rule, "at-rule": _at_rule}
    for node in nodes:
        try:
            if depth < _DEPTH and node.type in writers:
                yield writers[node.type](node, policy, depth)
        except _UnsafeError:
            continue


def _declaration(node: Any, policy: ResourcePolicy, _: int) -> str:
    name = node.lower_name
    if name in _FORBIDDEN:
        raise _UnsafeError
    value = _written(node.value, _replacing(name, policy))
    if not value and not name.startswith("--"):
        raise _UnsafeError
    return f"{_leaf_name(node.name)}:{value}{'!important' if node.important else ''}"


def _replacing(name: str, policy: ResourcePolicy) -> Replace | None:
    if name == "src":
        return policy.replace_font
    bare = re.sub(r"^-(?:webkit|moz|ms|o)-", "", name)
    return policy.replace_image if bare in _PICTURED else None


def _qualified_rule(node: Any, policy: ResourcePolicy, depth: int) -> str:
    prelude = _written(node.prelude, None, in_selector=True)
    return f"{prelude}{{{_block(node.content, policy, depth)}}}"


def _at_rule(node: Any, policy: ResourcePolicy, depth: int) -> str:
    name = node.lower_at_keyword
    if name == "import":
        return _import(node, policy)
    if name not in _AT_RULES or (node.content is None and name != "layer"):
        raise _UnsafeError
    prelude = _written(node.prelude, None, in_selector=name == "scope")
    head = f"@{name} {prelude}".rstrip()
    return f"{head};" if node.content is None else f"{head}{{{_block(node.content, policy, depth)}}}"


def _import(node: Any, policy: ResourcePolicy) -> str:
    """
    Write an import, which is of fonts only, as the Android SDK takes it.

    It stays only within the document: another host's sheet could say anything, after all was cleaned here.
    """
    first = next((each for each in node.prelude if each.type != "whitespace"), None)
    url = policy.replace_font(strip_url(_address(first)))
    if url is None or not url.lower().startswith("data:"):
        raise _UnsafeError
    return f"@import {_url(url)};"


def _block(content: Any, policy: ResourcePolicy, depth: int) -> str:
    nodes = list(_contents(content))
    # A rule ends by itself, and a declaration by a semicolon, which is welcome behind the last one too.
    ends = ("" if each.type != "declaration" else ";" for each in nodes)
    written = (("".join(_rules([each], policy, depth + 1)), end) for each, end in zip(nodes, ends, strict=True))
    return "".join(text + end for text, end in written if text)


def _address(token: Any) -> str:
    """Tell the address in a token that is one: a string, ``url(x)`` or ``url("x")``."""
    if token is not None and token.type in ("string", "url"):
        return str(token.value)
    if token is not None and token.type == "function" and token.lower_name == "url":
        inner = [each for each in token.arguments if each.type not in ("whitespace", "comment")]
        if len(inner) == 1 and inner[0].type == "string":
            return str(inner[0].value)
    raise _UnsafeError


def _written(tokens: Iterable[Any], replace: Replace | None, *, in_selector: bool = False) -> str:
    text = "".join(_token(each, replace, in_selector, 0) for each in tokens).strip()
    return _TAG_LIKE.sub("< ", text)


def _token(token: Any, replace: Replace | None, in_selector: bool, depth: int) -> str:  # noqa: FBT001 - recursion
    if depth > _DEPTH:
        raise _UnsafeError
    if token.type in _PLAIN:
        return _PLAIN[token.type]
    if token.type in _LEAVES:
        return _leaf(token, in_selector=in_selector)
    if token.type == "url" or (token.type == "function" and token.lower_name == "url"):
        return _resource(token, replace)
    start, inner, end = _parts(token)
    return start + "".join(_token(each, replace, in_selector, depth + 1) for each in inner) + end


def _parts(token: Any) -> tuple[str, Iterable[Any], str]:
    """Take a function or a pair of brackets apart."""
    if token.type in _BRACKETS:
        start, end = _BRACKETS[token.type]
        return start, token.content, end
    if token.type == "function" and token.lower_name not in _CALLS:
        return f"{_leaf_name(token.name)}(", token.arguments, ")"
    raise _UnsafeError


def _resource(token: Any, replace: Replace | None) -> str:
    address = strip_url(_address(token))
    if not address or replace is None or (url := replace(address)) is None:
        raise _UnsafeError
    return _url(url)


def _leaf(token: Any, *, in_selector: bool) -> str:
    if token.type == "string":
        return _quoted(token.value)
    if token.type == "ident" and token.lower_value == "progid":
        raise _UnsafeError
    if token.type == "hash" and in_selector and not token.value.startswith(ID_PREFIX):
        return "#" + ID_PREFIX + _harmless(token.serialize()[1:])
    if token.type == "literal":
        if token.value in ("<!--", "-->"):
            raise _UnsafeError
        return str(token.value)
    return _harmless(token.serialize())


def _leaf_name(name: str) -> str:
    with html_extra():
        from tinycss2.serializer import serialize_identifier  # type: ignore[import-untyped]  # noqa: PLC0415 - an extra
    return _harmless(serialize_identifier(name))


def _harmless(text: str) -> str:
    """Refuse names with signs of HTML or unprintable ones in them, which only those have who are up to something."""
    if _ODD.search(text):
        raise _UnsafeError
    return text


def _quoted(text: str) -> str:
    return '"' + _SPECIAL.sub(lambda found: f"\\{ord(found[0]):x} ", text) + '"'


def _url(url: str) -> str:
    return f"url({_quoted(url)})"
