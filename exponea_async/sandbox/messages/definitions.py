"""
The messages that the platform has for its customers, as the user of the sandbox defines them.

A file of definitions, JSON or TOML, has any of these keys, and elements with the keys of the API:

- ``in_app_messages``, ``content_blocks``, ``inbox``, ``consents``: a list of elements.
- ``segments``, ``recommendations``, ``attributes``: an object of such lists, by category, by id of the engine, by type.
  An attribute is ``{"id": …, "value": …}``.
- ``projects``: an object of all these keys by project token, for elements that only one project has.

An element that is not for every customer has ``for``: the ids and properties of its customers, as in
``{"registered": "jane@x.com", "properties": {"vip": true}}``; a list of ids means any of them. ``{{ first_name }}``
in a string is replaced by that property of the customer, escaped for HTML. A content block without ``content_type``
has ``personal``: the content for a customer, or a list of these, of which the first whose ``for`` is met is returned.
"""

import json
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

from attrs import define

from exponea_async.sandbox.messages import schemas
from exponea_async.sandbox.messages.schemas import (
    DefinitionError,
    Schema,
    check,
    check_block,
    check_consent,
    unexpected,
)
from exponea_async.sandbox.messages.sections import Section, SectionGroup

Source = str | Path | Mapping[str, Any]
RouteName = Literal[
    "inappmessages",
    "bundle",
    "inappcontentblocks",
    "appinbox/fetch",
    "appinbox/markasread",
    "segments",
    "link-ids",
    "consents",
    "attributes",
    "self-check",
]
PROJECTS = "projects"


@define
class FixedResponse:
    """
    A response that a route returns unchanged, whatever the definitions say.

    Attributes:
        body: The body.
        status: The HTTP status.
        content_type: The media type.
        times: The number of requests that still get it; no limit where None.
    """

    body: bytes
    status: int
    content_type: str
    times: int | None


class Definitions:
    """
    The definitions of everything that the platform has for its customers.

    Attributes:
        in_app_messages: The in-app messages.
        content_blocks: The in-app content blocks; ``personal`` is the content for a customer, or a list of these, of
            which the first whose ``for`` is met is returned.
        inbox: The messages of the App Inbox.
        consents: The consent categories.
        segments: The segments of each category, such as ``segments["discovery"]``.
        recommendations: The recommended items of each engine, by the id of the engine.
        attributes: The values of other attributes by type, such as ``attributes["segmentation"]``; the ``id`` of an
            element is the id of the attribute, of a consent its category.
    """

    def __init__(self) -> None:
        self.in_app_messages = Section("in_app_messages", partial(check, schema=schemas.IN_APP_MESSAGE))
        self.content_blocks = Section("content_blocks", check_block)
        self.inbox = Section("inbox", partial(check, schema=schemas.INBOX_MESSAGE), defaults=_inbox_defaults)
        self.consents = Section("consents", check_consent)
        self.segments = _group("segments", schemas.SEGMENT)
        self.recommendations = _group("recommendations", schemas.RECOMMENDED_ITEM, id_name="item_id")
        self.attributes = _group("attributes", schemas.ATTRIBUTE)
        self._responses: dict[str, FixedResponse] = {}

    def load(self, source: Source) -> None:
        """
        Add the definitions of a JSON or TOML file, or of a mapping with the same keys, to the present ones.

        Args:
            source: The path of a file whose name ends with ``.json`` or ``.toml``, or a mapping.

        Raises:
            DefinitionError: The source can't be read, or is invalid. Nothing was defined.
        """
        # Everything is checked before anything is stored.
        for store in self._loaded(source):
            store()

    def replace(self, source: Source) -> None:
        """
        Replace all definitions by those of a file or mapping; fixed responses stay.

        Args:
            source: As in `load`.

        Raises:
            DefinitionError: The source can't be read, or is invalid. Nothing was changed.
        """
        stores = self._loaded(source)
        self._clear_sections()
        for store in stores:
            store()

    def clear(self) -> None:
        """Remove all definitions and fixed responses."""
        self._clear_sections()
        self._responses.clear()

    def set_response(
        self,
        route: RouteName,
        body: bytes | str,
        *,
        status: int = 200,
        content_type: str = "application/json",
        times: int | None = None,
    ) -> None:
        """
        Make a route return one fixed response to every authorized request.

        Args:
            route: The route.
            body: The body.
            status: The HTTP status.
            content_type: The media type.
            times: The number of requests that get this response; None for all until `clear_response`.

        Raises:
            ValueError: The route is unknown.
        """
        if route not in get_args(RouteName):
            raise ValueError(f"route: must be one of {', '.join(get_args(RouteName))}, got {route!r}")
        raw = body.encode() if isinstance(body, str) else body
        self._responses[route] = FixedResponse(raw, status, content_type, times)

    def clear_response(self, route: RouteName) -> None:
        """Make a route build its responses from the definitions again."""
        self._responses.pop(route, None)

    def take_response(self, route: RouteName) -> FixedResponse | None:
        """Return the fixed response of a route for one request and count it; None where there is none."""
        response = self._responses.get(route)
        if response is None or response.times is None:
            return response
        response.times -= 1
        if response.times <= 0:
            del self._responses[route]
        return response

    def as_dict(self) -> dict[str, Any]:
        """Return all definitions in the format of a file."""
        projects = {name for section in self._all_sections() for name in section.projects()}
        result = self._elements(None)
        if projects:
            result[PROJECTS] = {project: self._elements(project) for project in sorted(projects)}
        return result

    def _loaded(self, source: Source) -> list[Callable[[], None]]:
        if not isinstance(source, str | Path | Mapping):
            raise DefinitionError("definitions", f"expected a mapping or the path of a file, got {source!r}")
        data = source if isinstance(source, Mapping) else _read(Path(source))
        return list(self._checked(data, "", None))

    def _clear_sections(self) -> None:
        for section in self._sections().values():
            section.clear()
        for group in self._groups().values():
            group.clear()

    def _elements(self, project: str | None) -> dict[str, Any]:
        result: dict[str, Any] = {
            name: elements for name, section in self._sections().items() if (elements := section.as_list(project))
        }
        for name, group in self._groups().items():
            inner = {
                key: elements
                for key, section in group.items()
                if (elements := section.as_list(project)) or (project is None and section.is_empty)
            }
            if inner:
                result[name] = inner
        return result

    def _checked(self, data: Any, prefix: str, project: str | None) -> Iterator[Callable[[], None]]:
        """Check definitions; yield functions that each store those of one section."""
        sections, groups = self._sections(), self._groups()
        for name, value in _object(data, prefix.rstrip(".") or "definitions").items():
            path = f"{prefix}{name}"
            if name in sections:
                section = sections[name]
                elements = _checked_list(value, path, section.check)
                yield partial(section.put, *elements, project=project)
            elif name in groups:
                group = groups[name]
                for key, inner in _object(value, path).items():
                    elements = _checked_list(inner, f"{path}.{key}", partial(group.check, key))
                    yield partial(group.put, key, *elements, project=project)
            elif name == PROJECTS and project is None:
                for token, inner in _object(value, path).items():
                    yield from self._checked(inner, f"{path}.{token}.", token)
            else:
                raise DefinitionError(path, f"is unknown; expected one of {', '.join([*sections, *groups, PROJECTS])}")

    def _sections(self) -> dict[str, Section]:
        return {
            "in_app_messages": self.in_app_messages,
            "content_blocks": self.content_blocks,
            "inbox": self.inbox,
            "consents": self.consents,
        }

    def _groups(self) -> dict[str, SectionGroup]:
        return {
            "segments": self.segments,
            "recommendations": self.recommendations,
            "attributes": self.attributes,
        }

    def _all_sections(self) -> Iterator[Section]:
        yield from self._sections().values()
        for group in self._groups().values():
            yield from (section for _, section in group.items())


def _group(name: str, schema: Schema, *, id_name: str = "id") -> SectionGroup:
    check_element = partial(check, schema=schema)
    return SectionGroup(lambda key: Section(f"{name}.{key}", check_element, id_name=id_name))


def _inbox_defaults() -> dict[str, Any]:
    return {"is_read": False, "create_time": time.time()}


def _checked_list(value: Any, path: str, check_element: Callable[[Any, str], None]) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise unexpected(path, "a list", value)
    for number, element in enumerate(value):
        check_element(element, f"{path}[{number}]")
    return list(value)


def _object(value: Any, path: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise unexpected(path, "an object", value)
    return value


_PARSERS: dict[str, Callable[[str], Any]] = {".json": json.loads, ".toml": tomllib.loads}


def _read(path: Path) -> Any:
    parse = _PARSERS.get(path.suffix.lower())
    if parse is None:
        raise DefinitionError(str(path), "must be a .json or a .toml file")
    try:
        return parse(path.read_text("utf-8"))
    except OSError as error:
        raise DefinitionError(str(path), f"can't be read: {error.strerror}") from None
    except ValueError as error:
        raise DefinitionError(str(path), f"is not valid {path.suffix[1:].upper()}: {error}") from None
