"""
Settings: frozen, checked once, from arguments or from ``EXPONEA_*`` variables.

Durations are seconds, given as a number or a `datetime.timedelta` and kept as float.
"""

import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Literal, Self

import attrs
from attrs import Attribute, evolve, field, frozen

from exponea_async._internal import validation as checks
from exponea_async._internal.environment import Environment
from exponea_async.errors import ConfigurationError
from exponea_async.models import EventType, FlushMode, TokenFrequency

BASE_URL = "https://api.exponea.com"
APPLICATION_ID = "default-application"

#: What a key of `Configuration.project_mapping` stands for. ``APP_INBOX`` is the iOS SDK's word for both.
ROUTED = {name: (kind,) for name, kind in EventType.__members__.items()} | {
    "APP_INBOX": (EventType.APP_INBOX_OPENED, EventType.APP_INBOX_CLICKED)
}
PROJECTS_HINT = "Use a list of ExponeaProject(project_token, authorization_token)."


@frozen
class BasicAuth:
    """
    Private access: the pair that a server may hold and an app may not.

    Args:
        key_id: The id of the private API key.
        secret: Its secret.
    """

    key_id: str = field(validator=[checks.credential, checks.key_id])
    secret: str = field(repr=False, validator=checks.credential)


def _check_authorization(instance: object, attribute: "Attribute[Any]", value: Any) -> None:
    if not isinstance(value, BasicAuth):
        checks.authorization(instance, attribute, value)


@frozen
class ExponeaProject:
    """
    A project of Engagement.

    Args:
        project_token: The project's token.
        authorization_token: Its public API key, bare; or `BasicAuth`.
        base_url: Where it is reached; None inherits the address of the configuration it is used in.
    """

    project_token: str = field(validator=checks.project_token)
    authorization_token: str | BasicAuth = field(repr=False, validator=_check_authorization)
    base_url: str | None = field(default=None, converter=checks.address, validator=checks.optional(checks.base_url))


def _projects(where: str, projects: Any) -> tuple[ExponeaProject, ...]:
    if isinstance(projects, str | bytes | Mapping) or not isinstance(projects, Iterable):
        # Not shown: a dict there is likely to hold a secret.
        raise ConfigurationError(where, f"a {type(projects).__name__} is no list of projects", PROJECTS_HINT)
    found: list[ExponeaProject] = []
    # A generator makes its projects while we walk it, so their errors come up here and get their place.
    with checks.renamed(lambda field: f"{where}[{len(found)}].{field}".rstrip(".")):
        for project in projects:
            if not isinstance(project, ExponeaProject):
                raise ConfigurationError("", f"a {type(project).__name__} is no project", PROJECTS_HINT)
            found.append(project)
    return tuple(found)


def _mapped(where: str, mapping: Any) -> Mapping[EventType, tuple[ExponeaProject, ...]]:
    if not isinstance(mapping, Mapping):
        raise ConfigurationError(where, f"a {type(mapping).__name__} is no mapping", "Map an EventType to projects.")
    routes: dict[EventType, tuple[ExponeaProject, ...]] = {}
    for key, projects in mapping.items():
        name = key.name if isinstance(key, EventType) else key
        if name not in ROUTED:
            hint = checks.nearest(str(name), ROUTED, f"Use one of {', '.join(ROUTED)}.")
            raise ConfigurationError(where, f"{checks.short_repr(name)} is no event type", hint)
        found = _projects(f"{where}[{name}]", projects)
        routes |= {kind: routes.get(kind, ()) + found for kind in ROUTED[name]}
    return MappingProxyType(routes)


def _project_mapping(
    value: Mapping[Any, Iterable[ExponeaProject]] | None,
) -> Mapping[EventType, tuple[ExponeaProject, ...]]:
    return _mapped("project_mapping", {} if value is None else value)


def _mapping(
    value: Mapping[Any, Iterable[ExponeaProject]] | None,
) -> Mapping[EventType, tuple[ExponeaProject, ...]] | None:
    return None if value is None else _mapped("mapping", value)


@frozen
class ConfigurationChange:
    """
    What ``anonymize()`` changes beside the customer.

    Args:
        project: The project to track to from now on; None keeps the present one.
        mapping: The `Configuration.project_mapping` from now on; None keeps the present one, ``{}`` clears it.
    """

    project: ExponeaProject | None = field(
        default=None, validator=checks.optional(checks.instance_of(ExponeaProject, "Use an ExponeaProject, or None."))
    )
    mapping: Mapping[EventType, tuple[ExponeaProject, ...]] | None = field(default=None, converter=_mapping)

    __reduce__ = checks.remade


def _main_address(value: str | None) -> str:
    return checks.address(BASE_URL if value is None else value) or ""


def _application_id(value: str | None) -> str:
    return APPLICATION_ID if value is None or value == "" else value


def _flush_mode(value: FlushMode | str) -> FlushMode:
    return checks.member(FlushMode, value)  # type: ignore[no-any-return]


def _token_frequency(value: TokenFrequency | str) -> TokenFrequency:
    return checks.member(TokenFrequency, value)  # type: ignore[no-any-return]


#: One command may have 800 KB (819,200 bytes), and the request has a frame round it.
SMALLEST_BATCH = 820_000 + 1_000


@frozen(kw_only=True)
class QueueSettings:
    """
    How events wait.

    Args:
        max_records: How many records the queue holds at the most.
        when_full: ``"raise"`` a `QueueFullError`, ``"wait"`` for room, or ``"drop_oldest"``.
        max_age: How old a record may become before it goes to the dead letters, in seconds; 30 days by default.
        durability: What a kept event survives: the end of the ``"process"``, or a loss of ``"power"``.
    """

    max_records: int = field(default=1_000_000, validator=checks.whole(1))
    when_full: Literal["raise", "wait", "drop_oldest"] = field(
        default="raise", validator=checks.one_of(("raise", "wait", "drop_oldest"))
    )
    max_age: float = field(default=30 * 86_400.0, converter=checks.seconds, validator=checks.finite("seconds"))
    durability: Literal["process", "power"] = field(default="process", validator=checks.one_of(("process", "power")))


def _check_backoff(settings: "UploadSettings", attribute: "Attribute[Any]", value: float) -> None:
    if value < settings.backoff_initial:
        trouble = f"{value} is below backoff_initial, {settings.backoff_initial}"
        raise ConfigurationError(attribute.name, trouble, "Use backoff_initial or more.")


@frozen(kw_only=True)
class UploadSettings:
    """
    How events are sent.

    Args:
        batch_size: Commands in one request at the most; the platform takes up to 50.
        max_batch_bytes: Bytes of one request's body at the most.
        concurrency: Requests under way at once.
        requests_per_second: Requests begun in a second; the platform allows 100 for each address.
        request_timeout: How long one request may take, in seconds.
        backoff_initial: The first wait after a failure, in seconds.
        backoff_max: The longest wait after a failure, in seconds.
        linger: How long immediate mode waits for company for an event, in seconds.
        gzip: Whether bodies are compressed.
    """

    batch_size: int = field(default=50, validator=checks.whole(1, 50))
    max_batch_bytes: int = field(
        default=1_000_000,
        validator=checks.whole(SMALLEST_BATCH, why=", so that the largest command, 800 KB (819,200 bytes), fits in"),
    )
    concurrency: int = field(default=4, validator=checks.whole(1))
    requests_per_second: float = field(
        default=100.0, converter=checks.number, validator=checks.finite("a number of requests")
    )
    request_timeout: float = field(default=30.0, converter=checks.seconds, validator=checks.finite("seconds"))
    backoff_initial: float = field(default=0.5, converter=checks.seconds, validator=checks.finite("seconds"))
    backoff_max: float = field(
        default=60.0, converter=checks.seconds, validator=[checks.finite("seconds"), _check_backoff]
    )
    linger: float = field(default=0.02, converter=checks.seconds, validator=checks.finite("seconds", zero=True))
    gzip: bool = field(default=False, validator=checks.flag)


@frozen(kw_only=True)
class Configuration:
    """
    Everything that a client is told; checked at construction, never changed.

    `attrs.evolve` makes a changed copy.

    Args:
        project_token: The main project's token.
        authorization_token: Its public API key, bare; or `BasicAuth` for private access.
        base_url: Where Engagement is reached.
        project_mapping: By `EventType` or its name, the projects that get such events beside the main one.
        default_properties: Properties under those of every event; a copy is kept.
        allow_default_customer_properties: Whether they also go under ``identify_customer()``'s.
        automatic_session_tracking: Whether a device's sessions are tracked without being asked for.
        session_timeout: How long a device may be idle within a session, in seconds.
        manual_session_auto_close: Whether starting a session by hand ends the one that is open.
        automatic_push_notification: Whether a device's push token is tracked without being asked for.
        push_token_tracking_frequency: How often a push token is tracked again; a `TokenFrequency` or its name.
        require_push_authorization: Whether a push token only counts with the permission to push.
        flush_mode: When queued events are uploaded; a `FlushMode` or its name.
        flush_period: Seconds between uploads in `FlushMode.PERIOD`.
        flush_max_retries: How often one record alone may be answered with 5xx before it is a dead letter.
        application_id: Stamped on events; None or ``""`` is the default.
        app_version: The application's version, a device property.
        app_group: Keeps the data of several applications apart.
        customer_token_provider: An async function that gives the customer's JWT, for the app inbox and content
            blocks. One that takes an argument gets the customer's ids, as a mapping.
        push_token_storage: Push tokens as an ``"event"``, or as customer ``"property"`` as SDKs below 2.3.0 did.
        in_app_content_block_placeholders_auto_load: Placeholders whose content blocks are loaded ahead.
        message_platform: Whose messages are shown, ``"android"`` or ``"ios"``: Engagement makes them for phones.
        preload_messages: Whether ``anonymize()`` loads content blocks and the app inbox of the new customer ahead, and
            in-app messages where somebody listens.
        resource_loader: An async function that gets the address of a picture or font that a message needs, and gives
            its bytes, or None where there are none. Without it nothing is loaded, and messages are shown as they are.
        storage: A file's path, or ``"memory:"``; None is a file of the project's own.
        queue: How events wait.
        upload: How events are sent.

    Raises:
        ConfigurationError: A setting is wrong.
    """

    project_token: str = field(validator=checks.project_token)
    authorization_token: str | BasicAuth = field(repr=False, validator=_check_authorization)
    base_url: str = field(default=BASE_URL, converter=_main_address, validator=checks.base_url)
    project_mapping: Mapping[EventType, tuple[ExponeaProject, ...]] = field(default=None, converter=_project_mapping)
    default_properties: Mapping[str, Any] = field(default=None, converter=checks.snapshot, validator=checks.properties)
    allow_default_customer_properties: bool = field(default=True, validator=checks.flag)
    automatic_session_tracking: bool = field(default=True, validator=checks.flag)
    session_timeout: float = field(
        default=60.0, converter=checks.seconds, validator=checks.finite("seconds", zero=True)
    )
    manual_session_auto_close: bool = field(default=True, validator=checks.flag)
    automatic_push_notification: bool = field(default=True, validator=checks.flag)
    push_token_tracking_frequency: TokenFrequency = field(
        default=TokenFrequency.ON_TOKEN_CHANGE,
        converter=_token_frequency,
        validator=checks.instance_of(TokenFrequency, f"Use one of {', '.join(TokenFrequency.__members__)}."),
    )
    require_push_authorization: bool = field(default=False, validator=checks.flag)
    flush_mode: FlushMode = field(
        default=FlushMode.IMMEDIATE,
        converter=_flush_mode,
        validator=checks.instance_of(FlushMode, f"Use one of {', '.join(FlushMode.__members__)}."),
    )
    flush_period: float = field(default=3600.0, converter=checks.seconds, validator=checks.finite("seconds"))
    flush_max_retries: int = field(default=10, validator=checks.whole(1))
    application_id: str = field(default=APPLICATION_ID, converter=_application_id, validator=checks.application_id)
    app_version: str | None = field(default=None, validator=checks.optional(checks.text))
    app_group: str | None = field(default=None, validator=checks.optional(checks.text))
    customer_token_provider: Callable[[], Awaitable[str]] | Callable[[Mapping[str, str]], Awaitable[str]] | None = (
        field(default=None, repr=False, validator=checks.optional(checks.function))
    )
    push_token_storage: Literal["event", "property"] = field(
        default="event", validator=checks.one_of(("event", "property"))
    )
    in_app_content_block_placeholders_auto_load: tuple[str, ...] = field(
        default=(), converter=checks.words, validator=checks.placeholders
    )
    message_platform: Literal["android", "ios"] = field(default="android", validator=checks.one_of(("android", "ios")))
    preload_messages: bool = field(default=True, validator=checks.flag)
    resource_loader: Callable[[str], Awaitable[bytes | None]] | None = field(
        default=None, repr=False, validator=checks.optional(checks.function)
    )
    storage: str | os.PathLike[str] | None = field(default=None, validator=checks.optional(checks.storage))
    queue: QueueSettings = field(
        factory=QueueSettings, validator=checks.instance_of(QueueSettings, "Use QueueSettings(...).")
    )
    upload: UploadSettings = field(
        factory=UploadSettings, validator=checks.instance_of(UploadSettings, "Use UploadSettings(...).")
    )
    _all: tuple[ExponeaProject, ...] = field(init=False, repr=False, eq=False)
    _routes: Mapping[EventType, tuple[ExponeaProject, ...]] = field(init=False, repr=False, eq=False)

    __reduce__ = checks.remade

    def __attrs_post_init__(self) -> None:
        main = ExponeaProject(self.project_token, self.authorization_token, self.base_url)
        known = {_place(main): main}
        routes = {
            kind: _route(main, [evolve(each, base_url=each.base_url or self.base_url) for each in mapped], kind, known)
            for kind, mapped in self.project_mapping.items()
        }
        object.__setattr__(self, "_all", tuple(known.values()))
        object.__setattr__(self, "_routes", routes)

    @property
    def main(self) -> ExponeaProject:
        """The project that gets everything, with its address."""
        return self._all[0]

    @property
    def projects(self) -> tuple[ExponeaProject, ...]:
        """All projects, the main one first, each once and with its address."""
        return self._all

    def projects_for(self, event_type: EventType) -> tuple[ExponeaProject, ...]:
        """Tell the projects that get such an event: the main one, then the mapped ones, each once."""
        return self._routes.get(event_type, self._all[:1])

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **overrides: Any) -> Self:
        """
        Read the settings from ``EXPONEA_*`` variables.

        Every field has the variable ``EXPONEA_<FIELD>``, those of `queue` and `upload` ``EXPONEA_QUEUE_<FIELD>`` and
        ``EXPONEA_UPLOAD_<FIELD>``. Mappings are JSON, placeholders are separated by commas, private access is
        ``EXPONEA_BASIC_AUTH_KEY_ID`` with ``EXPONEA_BASIC_AUTH_SECRET``; that of a mapped project is an object with
        ``key_id`` and ``secret`` for its ``authorization_token``. A variable that is empty counts as not set.

        Args:
            environ: The variables; by default those of the process.
            overrides: Fields that are not read but taken from here.

        Raises:
            ConfigurationError: A variable is missing, wrong or unknown; it is named, and no secret is shown.
        """
        source = Environment(cls, {"basic_auth": BasicAuth, "queue": QueueSettings, "upload": UploadSettings})
        variables = os.environ if environ is None else environ
        source.refuse_unknown(variables)
        given = source.read(variables, overrides, standing_for={"basic_auth": "authorization_token"})
        with checks.renamed(lambda field: source.as_written(field, overrides)):
            return cls(**_assembled(given) | overrides)


def _place(project: ExponeaProject) -> tuple[str | None, str]:
    return project.base_url, project.project_token


def _route(
    main: ExponeaProject,
    mapped: Iterable[ExponeaProject],
    kind: EventType,
    known: dict[tuple[str | None, str], ExponeaProject],
) -> tuple[ExponeaProject, ...]:
    route = {_place(main): main}
    for index, project in enumerate(mapped):
        if known.setdefault(_place(project), project).authorization_token != project.authorization_token:
            raise ConfigurationError(
                f"project_mapping[{kind.name}][{index}].authorization_token",
                f"project {project.project_token!r} has another authorization elsewhere",
                "Give a project the same authorization everywhere.",
            )
        route.setdefault(_place(project), project)
    return tuple(route.values())


def _assembled(given: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Make the fields of a `Configuration` of what the variables say."""
    fields = dict(given[""])
    if "project_mapping" in fields:
        fields["project_mapping"] = _described(fields["project_mapping"])
    for section, kind in (("queue", QueueSettings), ("upload", UploadSettings)):
        if given[section]:
            with checks.renamed(lambda field, section=section: f"{section}.{field}"):  # type: ignore[misc]
                fields[section] = kind(**given[section])
    if given["basic_auth"]:
        if "authorization_token" in fields:
            raise ConfigurationError("authorization_token", "there is private access too", "Set one of the two.")
        fields["authorization_token"] = _private_access(given["basic_auth"], "basic_auth")
    for required in ("project_token", "authorization_token"):
        # The checks tell what would be right.
        fields.setdefault(required, None)
    return fields


def _private_access(pair: Mapping[str, Any], where: str) -> BasicAuth:
    with checks.renamed(lambda field: f"{where}.{field}"):
        return BasicAuth(pair.get("key_id"), pair.get("secret"))  # type: ignore[arg-type]


def _described(mapping: Mapping[str, Any]) -> dict[str, Any]:
    # The projects are made when the configuration walks them, which gives their errors the place.
    return {name: map(_project, each) if isinstance(each, list) else each for name, each in mapping.items()}


def _project(described: Any) -> ExponeaProject:
    """Make a project of ``{"project_token": ..., "authorization_token": ..., "base_url": ...}``."""
    if not isinstance(described, dict) or not set(described) <= {each.name for each in attrs.fields(ExponeaProject)}:
        trouble = "it is no object with project_token, authorization_token and perhaps base_url"
        raise ConfigurationError("", trouble, "Use these names only.")
    authorization: Any = described.get("authorization_token")
    if isinstance(authorization, dict):
        authorization = _private_access(authorization, "authorization_token")
    return ExponeaProject(described.get("project_token"), authorization, described.get("base_url"))  # type: ignore[arg-type]
