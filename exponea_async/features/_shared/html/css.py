r"""
The styles of messages, rewritten from their tokens: whatever is not known to be harmless is left out. Pure.

No library that sanitizes HTML also sanitizes style sheets. Tokens are used instead of regular expressions, because CSS
has escapes and comments: ``\75rl(`` and ``url(`` are the same, and ``u/**/rl(`` is not.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from typing import Any

from attrs import evolve, frozen

from exponea_async._internal.links import is_web, strip_resource
from exponea_async.features._shared.html.resources import KeepUrls, ResourcePolicy, html_extra, name_set

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
#: In these rules, the contents are written as those of the rule around them. ``@scope`` is not among them: with it, a
#: declaration would apply to elements of the page. Nor is ``@import``: another style sheet could contain anything.
_GROUPS = name_set("container layer media starting-style supports")
_KEYFRAMES = name_set("keyframes -moz-keyframes -webkit-keyframes")
_FONT_FACE = name_set("font-face")
#: Elements of a document that a message does not have; its scope stands for them.
_ROOTS = name_set("html body")
#: The values of ``position`` that stay within the layout of the message.
_POSITIONS = name_set("static relative absolute sticky inherit initial unset revert")
_BRACKETS = {"() block": ("(", ")"), "[] block": ("[", "]"), "{} block": ("{", "}")}
# No at-keyword: where one stands in a selector or a value, another reader could take it for the start of a rule.
_LEAVES = name_set("ident hash number percentage dimension unicode-range literal string")
# A comment separates what is on both sides of it, as in u/**/rl(x).
_SEPARATORS = {"whitespace": " ", "comment": "/**/"}
_MAX_DEPTH = 24
#: The blanks of CSS. Python's `str.strip()` also removes those that are part of a name, which makes another name of it.
_BLANKS = " \t\n\r\f"
_ESCAPED_IN_STRINGS = re.compile(r"[\x00-\x1f\x7f\"\\<>&]")
_SUSPICIOUS = re.compile(r"[\x00-\x1f\x7f<>]")
#: What could be mistaken for a tag; the comparisons of media queries are followed by a space or ``=``.
_TAG_LIKE = re.compile(r"<(?![ =])")
_WORD = re.compile(r"[^a-z-]")

#: What is left out where a style sheet refers to the web.
REMOTE_MEDIA = "images and fonts of the web in a style sheet (allow_remote_media)"

#: Returns what replaces the address of a resource; None removes the declaration.
Replace = Callable[[str], str | None]


class _UnsafeError(Exception):
    """A part of the CSS must be left out."""


class _Place(Enum):
    """
    The place of a rule: within it, what may stand there.

    Declarations stand in style rules and in ``@font-face`` only. In a group of rules at the top of a sheet they could
    apply to elements of the page.
    """

    TOP = ("qualified-rule", "at-rule")
    STYLE = ("declaration", "qualified-rule", "at-rule")
    KEYFRAMES = ("qualified-rule",)
    DECLARATIONS = ("declaration",)


@frozen
class StyleCleaner:
    """
    Makes the styles of one message safe.

    Args:
        sheets: Decides about the addresses in style sheets.
        attributes: Decides about the addresses in ``style`` attributes.
        scope: The selector of the element that contains the message, to which style sheets are limited; an empty
            string for no limit.
        allow_fixed: Whether an element may be positioned relative to the window.
        removed: Collects what was left out.
    """

    sheets: ResourcePolicy
    attributes: ResourcePolicy
    scope: str = ""
    allow_fixed: bool = True
    removed: Callable[[str], None] = lambda _: None

    def clean_sheet(self, css: str) -> str:
        """
        Return a safe style sheet, which also contains nothing that could end a ``<style>`` element.

        Raises:
            MissingResourceError: The policy lacks a resource.
        """
        with html_extra():
            from tinycss2 import parse_stylesheet  # type: ignore[import-untyped]  # noqa: PLC0415 - an extra

        def write(css: str, writer: _Writer) -> str:
            nodes = parse_stylesheet(css, skip_whitespace=True)
            return "\n".join(writer.rules(nodes, _Place.TOP, 0))

        written = write(css, _Writer(self.sheets, self))
        # What was written must be read as it was meant, or a browser might find in it what the first reading did not.
        again = write(written, _Writer(KeepUrls(), evolve(self, scope="", removed=lambda _: None)))
        return self._unless_changed(written, again, "a style sheet that can be read in two ways")

    def clean_style(self, css: str) -> str:
        """
        Return the safe value of a ``style`` attribute.

        Raises:
            MissingResourceError: The policy lacks a resource.
        """
        written = ";".join(_Writer(self.attributes, self).declarations(css))
        again = ";".join(_Writer(KeepUrls(), evolve(self, removed=lambda _: None)).declarations(written))
        return self._unless_changed(written, again, "a style that can be read in two ways")

    def _unless_changed(self, written: str, again: str, what: str) -> str:
        if written == again:
            return written
        self.removed(what)
        return ""


@frozen
class _Writer:
    policy: ResourcePolicy
    cleaner: StyleCleaner

    def declarations(self, css: str) -> Iterator[str]:
        """Write the declarations of a ``style`` attribute."""
        return self.rules(_parse_block(css), _Place.DECLARATIONS, 0)

    def rules(self, nodes: Iterable[Any], place: _Place, depth: int) -> Iterator[str]:
        """Write what is safe of the rules and declarations in a place."""
        writers = {"declaration": self._declaration, "qualified-rule": self._qualified_rule, "at-rule": self._at_rule}
        # Comments are skipped here, and not by the parser, which would also skip those that separate two tokens.
        for node in (each for each in nodes if each.type != "comment"):
            is_known = depth < _MAX_DEPTH and node.type in place.value
            try:
                written = writers[node.type](node, place, depth) if is_known else None
            except _UnsafeError:
                written = None
            if written is None:
                self.cleaner.removed(_name_of(node))
            else:
                yield written

    def _declaration(self, node: Any, _place: _Place, _depth: int) -> str:
        name = node.lower_name
        if name in _FORBIDDEN_PROPERTIES or (name == "position" and not self._may_position(node.value)):
            raise _UnsafeError
        value = _write(node.value, self._replacement(name))
        if not value and not name.startswith("--"):
            raise _UnsafeError
        return f"{_write_name(node.name)}:{value}{'!important' if node.important else ''}"

    def _may_position(self, value: Iterable[Any]) -> bool:
        if self.cleaner.allow_fixed:
            return True
        tokens = [each for each in value if each.type not in _SEPARATORS]
        return len(tokens) == 1 and tokens[0].type == "ident" and tokens[0].lower_value in _POSITIONS

    def _replacement(self, name: str) -> Replace | None:
        bare = re.sub(r"^-(?:webkit|moz|ms|o)-", "", name)
        if name != "src" and bare not in _IMAGE_PROPERTIES:
            return None
        replace = self.policy.replace_font if name == "src" else self.policy.replace_image

        def replace_or_note(url: str) -> str | None:
            replaced = replace(url)
            if replaced is None and is_web(url):
                self.cleaner.removed(REMOTE_MEDIA)
            return replaced

        return replace_or_note

    def _qualified_rule(self, node: Any, place: _Place, depth: int) -> str:
        if place is _Place.KEYFRAMES:
            return f"{_write(node.prelude, None)}{{{self._block(node.content, _Place.DECLARATIONS, depth)}}}"
        scope = self.cleaner.scope
        if not scope:
            prelude = _write(node.prelude, None, in_selector=True)
        elif place is _Place.TOP:
            prelude = ",".join(_limited(each, scope) for each in _split_list(node.prelude))
        else:
            prelude = ",".join(map(_nested, _split_list(node.prelude)))
        return f"{prelude}{{{self._block(node.content, _Place.STYLE, depth)}}}"

    def _at_rule(self, node: Any, place: _Place, depth: int) -> str:
        name = node.lower_at_keyword
        inner = _place_within(name, place)
        if node.content is None and name != "layer":
            raise _UnsafeError
        head = f"@{name} {_write(node.prelude, None)}".rstrip()
        return f"{head};" if node.content is None else f"{head}{{{self._block(node.content, inner, depth)}}}"

    def _block(self, content: Any, place: _Place, depth: int) -> str:
        nodes = _parse_block(content)
        # A rule ends by itself, and a declaration with a semicolon, which is allowed after the last one too.
        ends = ("" if each.type != "declaration" else ";" for each in nodes)
        written = (("".join(self.rules([each], place, depth + 1)), end) for each, end in zip(nodes, ends, strict=True))
        return "".join(rule + end for rule, end in written if rule)


def _place_within(name: str, place: _Place) -> _Place:
    """Return the place within a rule such as ``@media``."""
    if name in _GROUPS:
        return place
    if name in _KEYFRAMES and place is _Place.TOP:
        return _Place.KEYFRAMES
    if name in _FONT_FACE and place is _Place.TOP:
        return _Place.DECLARATIONS
    raise _UnsafeError


def _name_of(node: Any) -> str:
    """Return what is left out, in words; names come from outside and are limited to letters."""
    if node.type == "at-rule":
        return f"@{_WORD.sub('', node.lower_at_keyword)[:30]}"
    return (
        f"{_WORD.sub('', node.lower_name)[:30]} in a style" if node.type == "declaration" else "a rule of a style sheet"
    )


def _parse_block(css: Any) -> list[Any]:
    with html_extra():
        from tinycss2 import parse_blocks_contents  # noqa: PLC0415 - an extra
    nodes: list[Any] = parse_blocks_contents(css, skip_whitespace=True)
    return nodes


# Selectors within the scope of the message


def _split_list(tokens: Iterable[Any]) -> list[list[Any]]:
    """Return the selectors of a list."""
    selectors: list[list[Any]] = [[]]
    for each in tokens:
        if each.type == "literal" and each.value == ",":
            selectors.append([])
        else:
            selectors[-1].append(each)
    return selectors


def _limited(selector: list[Any], scope: str) -> str:
    """
    Return a selector that only selects the element of the scope, or elements within it.

    The element stands for the document of the message, ``html`` and ``body``. It has no siblings, so ``+`` and ``~``
    lead to nothing.
    """
    rest = _without_root(selector)
    if rest is None:
        return f"{scope} {_write_selector(selector)}"
    while (more := _without_root(_without_child(rest))) is not None:
        rest = more
    return scope + _write(rest, None, in_selector=True, strip_start=False)


def _without_root(tokens: list[Any]) -> list[Any] | None:
    """Return what follows ``html``, ``body`` or ``:root`` at the start of a selector; None if it starts otherwise."""
    rest = _without_blanks(tokens)
    if rest and rest[0].type == "ident" and rest[0].lower_value in _ROOTS:
        return rest[1:]
    is_root = len(rest) > 1 and rest[0] == ":" and rest[1].type == "ident" and rest[1].lower_value == "root"
    return rest[2:] if is_root else None


def _without_child(tokens: list[Any]) -> list[Any]:
    """Return what follows a descendant or child combinator."""
    rest = _without_blanks(tokens)
    if rest and rest[0] == ">":
        return rest[1:]
    # Without a combinator, what follows is a part of the same selector, as in "body.x".
    return rest if len(rest) < len(tokens) else []


def _without_blanks(tokens: list[Any]) -> list[Any]:
    first = next((index for index, each in enumerate(tokens) if each.type not in _SEPARATORS), len(tokens))
    return tokens[first:]


def _nested(selector: list[Any]) -> str:
    """
    Return a selector within a style rule.

    ``&`` stands for what the outer rule selects. At the start it limits the selector to that, but ``html:has(&) input``
    would select elements of the page.
    """
    rest = _without_blanks(selector)
    start, rest = ("&", rest[1:]) if rest and rest[0] == "&" else ("", rest)
    if _contains_nesting(rest):
        raise _UnsafeError
    return start + _write(rest, None, in_selector=True, strip_start=not start)


def _contains_nesting(tokens: Iterable[Any]) -> bool:
    return any(
        each == "&" or _contains_nesting(getattr(each, "content", None) or getattr(each, "arguments", None) or ())
        for each in tokens
    )


def _write_selector(tokens: Iterable[Any]) -> str:
    written = _write(tokens, None, in_selector=True)
    if not written:
        raise _UnsafeError
    return written


# Tokens


def _address(token: Any) -> str:
    """Return the address in a string, ``url(x)`` or ``url("x")``."""
    if token is not None and token.type in ("string", "url"):
        return str(token.value)
    if token is not None and token.type == "function" and token.lower_name == "url":
        inner = [each for each in token.arguments if each.type not in ("whitespace", "comment")]
        if len(inner) == 1 and inner[0].type == "string":
            return str(inner[0].value)
    raise _UnsafeError


def _write(
    tokens: Iterable[Any], replace: Replace | None, *, in_selector: bool = False, strip_start: bool = True
) -> str:
    css = "".join(_write_token(each, replace, in_selector, 0) for each in tokens).rstrip(_BLANKS)
    return _TAG_LIKE.sub("< ", css.lstrip(_BLANKS) if strip_start else css)


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
    address = strip_resource(_address(token))
    if not address or replace is None or (url := replace(address)) is None:
        raise _UnsafeError
    return write_url(url)


def _write_leaf(token: Any, *, in_selector: bool) -> str:
    if token.type == "string":
        return _quote(token.value)
    if token.type == "ident" and token.lower_value == "progid":
        raise _UnsafeError
    if token.type == "hash" and in_selector and not token.value.startswith(ID_PREFIX):
        return "#" + ID_PREFIX + _check(token.serialize()[1:])
    if token.type == "literal":
        # A backslash that escapes nothing would escape what is written after it.
        if token.value in ("<!--", "-->", "\\"):
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


def write_url(url: str) -> str:
    """Return an address as CSS."""
    return f"url({_quote(url)})"
