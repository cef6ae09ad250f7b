"""
Projects: their tokens, keys and addresses, and which of them get which kinds of events.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import attrs
from attrs import Attribute, field, frozen

from exponea_async._internal import validation as checks
from exponea_async._internal.secrets import to_secret
from exponea_async.errors import ConfigurationError
from exponea_async.models import EventType

#: The kinds of events for each key of `Configuration.project_mapping`. ``APP_INBOX`` is from the iOS SDK.
ROUTED = {name: (kind,) for name, kind in EventType.__members__.items()} | {
    "APP_INBOX": (EventType.APP_INBOX_OPENED, EventType.APP_INBOX_CLICKED)
}
PROJECTS_HINT = "Use a list of ExponeaProject(project_token, authorization_token)."


def _to_secret(value: str) -> str:
    return to_secret(value)  # type: ignore[no-any-return]


@frozen
class BasicAuth:
    """
    Private access to the API, for servers only: an app must never contain the secret.

    Args:
        key_id: The id of the private API key.
        secret: The secret of the key.
    """

    key_id: str = field(validator=[checks.credential, checks.key_id])
    secret: str = field(repr=False, converter=_to_secret, validator=checks.credential)


def to_authorization(value: str | BasicAuth) -> str | BasicAuth:
    """Convert a public API key to a string that is masked wherever it is shown."""
    return to_secret(value)  # type: ignore[no-any-return]


def check_authorization(instance: object, attribute: "Attribute[Any]", value: Any) -> None:
    """Check a public API key or `BasicAuth`."""
    if not isinstance(value, BasicAuth):
        checks.authorization(instance, attribute, value)


@frozen
class ExponeaProject:
    """
    A project in Engagement.

    Args:
        project_token: The token of the project.
        authorization_token: The public API key without a scheme, or `BasicAuth` for private access.
        base_url: The URL of the API; None for that of the configuration in which the project is used.
    """

    project_token: str = field(validator=checks.project_token)
    authorization_token: str | BasicAuth = field(repr=False, converter=to_authorization, validator=check_authorization)
    base_url: str | None = field(
        default=None, converter=checks.normalized_url, validator=checks.optional(checks.base_url)
    )


def unify_projects(uses: Iterable[tuple[str, ExponeaProject]]) -> dict[str, ExponeaProject]:
    """
    Return projects by their tokens, each with the address that any of its uses gives.

    Args:
        uses: The projects, each with the name of the setting for errors.

    Raises:
        ConfigurationError: A project has different keys or different addresses.
    """
    known: dict[str, ExponeaProject] = {}
    for where, project in uses:
        first = known.setdefault(project.project_token, project)
        check_same_project(where, project, first)
        if first.base_url is None:
            known[project.project_token] = project
    return known


def check_same_project(where: str, project: ExponeaProject, known: ExponeaProject) -> None:
    """
    Check that two uses of a project agree in the key, and in the address if both have one.

    Args:
        where: The name of the setting.
        project: The project in it.
        known: The same project elsewhere.

    Raises:
        ConfigurationError: They do not agree. The error shows no key.
    """
    token = project.project_token
    if project.base_url and known.base_url and project.base_url != known.base_url:
        raise ConfigurationError(
            f"{where}.base_url",
            f"must be the same for all uses of project {token!r}, got {project.base_url} and {known.base_url}",
            "A project has one address, since its events are sent to wherever it is when they are sent. Use another "
            "project, or a second client with its own storage.",
        )
    if project.authorization_token != known.authorization_token:
        raise ConfigurationError(
            f"{where}.authorization_token",
            f"must be the same for all uses of project {token!r}",
            "Use the same credentials for a project everywhere.",
        )


def read_projects(where: str, projects: Any) -> tuple[ExponeaProject, ...]:
    """
    Return a list of projects.

    Args:
        where: The name of the setting.
        projects: The value.

    Raises:
        ConfigurationError: It is not a list of projects.
    """
    if isinstance(projects, str | bytes | Mapping) or not isinstance(projects, Iterable):
        # The value is not shown: a dict is likely to contain a secret.
        raise ConfigurationError(where, f"expected a list of projects, got {type(projects).__name__}", PROJECTS_HINT)
    found: list[ExponeaProject] = []
    # The errors of projects that a generator creates are raised while it is iterated, so they get their index here.
    with checks.renamed(lambda field: f"{where}[{len(found)}].{field}".rstrip(".")):
        for project in projects:
            if not isinstance(project, ExponeaProject):
                raise ConfigurationError("", f"expected ExponeaProject, got {type(project).__name__}", PROJECTS_HINT)
            found.append(project)
    return tuple(found)


def read_mapping(where: str, mapping: Any) -> Mapping[EventType, tuple[ExponeaProject, ...]]:
    """
    Return the projects that get events of each kind.

    Args:
        where: The name of the setting.
        mapping: The value: lists of projects by kind, or by the name of the kind.

    Raises:
        ConfigurationError: It is not such a mapping.
    """
    if not isinstance(mapping, Mapping):
        trouble = f"expected a mapping, got {type(mapping).__name__}"
        raise ConfigurationError(where, trouble, "Use a dict with an EventType as key and a list of projects as value.")
    routes: dict[EventType, tuple[ExponeaProject, ...]] = {}
    for key, projects in mapping.items():
        name = key.name if isinstance(key, EventType) else key
        if name not in ROUTED:
            hint = checks.suggest(str(name), ROUTED, f"Use one of {', '.join(ROUTED)}.")
            raise ConfigurationError(where, f"expected an event type as key, got {checks.short_repr(name)}", hint)
        found = read_projects(f"{where}[{name}]", projects)
        routes |= {kind: routes.get(kind, ()) + found for kind in ROUTED[name]}
    return MappingProxyType(routes)


def _mapping(
    value: Mapping[Any, Iterable[ExponeaProject]] | None,
) -> Mapping[EventType, tuple[ExponeaProject, ...]] | None:
    return None if value is None else read_mapping("mapping", value)


@frozen
class ConfigurationChange:
    """
    The project to which ``anonymize()`` switches a device.

    Args:
        project: The main project from now on; None keeps the present one.
        mapping: The `Configuration.project_mapping` from now on; None keeps the present one, ``{}`` clears it.
    """

    project: ExponeaProject | None = field(
        default=None, validator=checks.optional(checks.instance_of(ExponeaProject, "Use an ExponeaProject, or None."))
    )
    mapping: Mapping[EventType, tuple[ExponeaProject, ...]] | None = field(default=None, converter=_mapping)

    __reduce__ = checks.reduce_settings

    def __attrs_post_init__(self) -> None:
        unify_projects(uses_of(self))


def uses_of(change: ConfigurationChange) -> list[tuple[str, ExponeaProject]]:
    """Return the projects of a change, each with the name of its place in it."""
    main = [] if change.project is None else [("project", change.project)]
    return main + mapped_projects("mapping", change.mapping or {})


def mapped_projects(
    where: str, mapping: Mapping[EventType, tuple[ExponeaProject, ...]]
) -> list[tuple[str, ExponeaProject]]:
    """Return the projects of a mapping, each with the name of its place in it."""
    return [
        (f"{where}[{kind.name}][{index}]", project)
        for kind, projects in mapping.items()
        for index, project in enumerate(projects)
    ]


def parse_basic_auth(value: Mapping[str, Any], where: str) -> BasicAuth:
    """Return the private access of ``{"key_id": ..., "secret": ...}``; `where` is its name in errors."""
    with checks.renamed(lambda field: f"{where}.{field}"):
        return BasicAuth(value.get("key_id"), value.get("secret"))  # type: ignore[arg-type]


def parse_mapping(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping with lists of projects from one with lists of objects."""
    # The projects are created when the configuration iterates over them, so that their errors get their index.
    return {name: map(parse_project, each) if isinstance(each, list) else each for name, each in value.items()}


def parse_project(value: Any) -> ExponeaProject:
    """Return the project of ``{"project_token": ..., "authorization_token": ..., "base_url": ...}``."""
    if not isinstance(value, dict) or not set(value) <= {each.name for each in attrs.fields(ExponeaProject)}:
        trouble = "expected an object with project_token, authorization_token and optionally base_url"
        raise ConfigurationError("", trouble, "Use only these names.")
    authorization: Any = value.get("authorization_token")
    if isinstance(authorization, dict):
        authorization = parse_basic_auth(authorization, "authorization_token")
    return ExponeaProject(value.get("project_token"), authorization, value.get("base_url"))  # type: ignore[arg-type]
