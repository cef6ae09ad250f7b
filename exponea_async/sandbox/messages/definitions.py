"""
All that the platform has to say to customers, as the sandbox's user defined it.

A file of definitions, JSON or TOML, has any of these keys, and elements with the keys of the wire:

- ``in_app_messages``, ``content_blocks``, ``inbox``, ``consents``: a list of elements.
- ``segments``, ``recommendations``, ``attributes``: an object of such lists, by category, by engine's id, by type. An
  attribute is ``{"id": …, "value": …}``.
- ``projects``: an object of all these keys again, by token, for what only one project has.

An element that is not for everybody has ``for``: ids and properties, as in
``{"registered": "jane@x.com", "properties": {"vip": true}}``; a list of values means any of them. ``{{ first_name }}``
in a text is the customer's property, escaped for HTML. A content block without ``content_type`` has ``personal``, the
answer for a customer, or a list of such, of which the first whose ``for`` is met is given.
"""

import json
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

from attrs import define, frozen

from exponea_async.sandbox.messages import schemas as shapes
from exponea_async.sandbox.messages.schemas import DefinitionError, Shape, check, check_block, check_consent
from exponea_async.sandbox.messages.sections import Groups, Section

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


@frozen
class _Planned:
    """Checked elements, and where they go; a section may come into being only then."""

    section: Callable[[], Section]
    elements: list[Any]
    project: str | None


class Definitions:
    """
    What the platform has for its customers.

    Attributes:
        in_app_messages: The in-app messages.
        content_blocks: The in-app content blocks; ``personal`` is the answer for a customer, or a list of such, of
            which the first whose ``for`` is met is given.
        inbox: The messages of the App Inbox.
        consents: The consent categories.
        segments: The segments of each category, such as ``segments["discovery"]``.
        recommendations: The recommended items of each engine, by its id.
        attributes: The values of other attributes by their type, such as ``attributes["segmentation"]``; the id of
            each is its ``id``, of a consent its category.
    """

    def __init__(self) -> None:
        self.in_app_messages = Section("in_app_messages", partial(check, shape=shapes.IN_APP_MESSAGE))
        self.content_blocks = Section("content_blocks", check_block)
        self.inbox = Section("inbox", partial(check, shape=shapes.INBOX_MESSAGE), defaults=_inbox_defaults)
        self.consents = Section("consents", check_consent)
        self.segments = _groups("segments", shapes.SEGMENT)
        self.recommendations = _groups("recommendations", shapes.RECOMMENDED_ITEM, id_name="item_id")
        self.attributes = _groups("attributes", shapes.ATTRIBUTE)
        self._responses: dict[str, FixedResponse] = {}

    def load(self, source: Source) -> None:
        """
        Defines what stands in a JSON or TOML file, or in a mapping of the same keys; what is there already stays.

        Args:
            source: The path of a file, whose name ends with ``.json`` or ``.toml``, or a mapping.

        Raises:
            DefinitionError: It can't be read, or something is wrong in it. Nothing was defined.
        """
        data = source if isinstance(source, Mapping) else _read(Path(source))
        planned = list(self._planned(data, "", None))
        for each in planned:
            each.section().put(*each.elements, project=each.project)

    def clear(self) -> None:
        """Remove all definitions and fixed responses."""
        for section in self._sections().values():
            section.clear()
        for groups in self._groups().values():
            groups.clear()
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

    def told(self) -> dict[str, Any]:
        """Tells all definitions in the shape of a file."""
        projects = {name for section in self._all() for name in section.projects()}
        told = self._told(None)
        if projects:
            told[PROJECTS] = {project: self._told(project) for project in sorted(projects)}
        return told

    def _told(self, project: str | None) -> dict[str, Any]:
        told: dict[str, Any] = {
            name: elements for name, section in self._sections().items() if (elements := section.told(project))
        }
        for name, groups in self._groups().items():
            inner = {
                key: elements
                for key, section in groups.items()
                if (elements := section.told(project)) or (project is None and section.is_empty)
            }
            if inner:
                told[name] = inner
        return told

    def _planned(self, data: Any, place: str, project: str | None) -> Iterator[_Planned]:
        if not isinstance(data, Mapping):
            raise DefinitionError(place.rstrip(".") or "definitions", "should be an object")
        for name, value in data.items():
            inner = f"{place}{name}"
            if name in (sections := self._sections()):
                elements = _list(value, inner)
                for number, each in enumerate(elements):
                    sections[name].check(each, f"{inner}[{number}]")
                yield _Planned(partial(sections.__getitem__, name), elements, project)
            elif name in (groups := self._groups()):
                yield from _planned_groups(groups[name], _object(value, inner), inner, project)
            elif name == PROJECTS and project is None:
                for token, its in _object(value, inner).items():
                    yield from self._planned(its, f"{inner}.{token}.", token)
            else:
                raise DefinitionError(inner, f"is unknown; there are {', '.join([*sections, *groups, PROJECTS])}")

    def _sections(self) -> dict[str, Section]:
        return {
            "in_app_messages": self.in_app_messages,
            "content_blocks": self.content_blocks,
            "inbox": self.inbox,
            "consents": self.consents,
        }

    def _groups(self) -> dict[str, Groups]:
        return {
            "segments": self.segments,
            "recommendations": self.recommendations,
            "attributes": self.attributes,
        }

    def _all(self) -> Iterator[Section]:
        yield from self._sections().values()
        for groups in self._groups().values():
            yield from (section for _, section in groups.items())


def _groups(name: str, shape: Shape, *, id_name: str = "id") -> Groups:
    examine = partial(check, shape=shape)
    return Groups(lambda key: Section(f"{name}.{key}", examine, id_name=id_name))


def _inbox_defaults() -> dict[str, Any]:
    return {"is_read": False, "create_time": time.time()}


def _planned_groups(groups: Groups, data: Mapping[str, Any], place: str, project: str | None) -> Iterator[_Planned]:
    for name, value in data.items():
        elements = _list(value, f"{place}.{name}")
        for number, each in enumerate(elements):
            groups.check(name, each, f"{place}.{name}[{number}]")
        yield _Planned(partial(groups.__getitem__, name), elements, project)


def _list(value: Any, place: str) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise DefinitionError(place, "should be a list")
    return list(value)


def _object(value: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise DefinitionError(place, "should be an object")
    return value


_READERS: dict[str, Callable[[str], Any]] = {".json": json.loads, ".toml": tomllib.loads}


def _read(path: Path) -> Any:
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise DefinitionError(str(path), "should be a .json or a .toml file")
    try:
        return reader(path.read_text("utf-8"))
    except OSError as error:
        raise DefinitionError(str(path), f"can't be read: {error.strerror}") from None
    except ValueError as error:
        raise DefinitionError(str(path), f"is no valid {path.suffix[1:].upper()}: {error}") from None
