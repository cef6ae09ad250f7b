"""
The settings of a client, from arguments or from ``EXPONEA_*`` environment variables.

All settings are validated at construction and can't be changed afterwards; `attrs.evolve` returns a changed copy.
Durations are given as seconds or as a `datetime.timedelta`, and are stored as seconds in a float.
"""

import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, Self

from attrs import Attribute, evolve, field, frozen

from exponea_async._internal import validation as checks
from exponea_async._internal.encoding import MAX_MESSAGE, encode_object
from exponea_async._internal.environment import Environment
from exponea_async._internal.postgres_url import (
    database_address,
    is_postgres_url,
    masked_repr,
    postgres_url,
    to_secret_url,
)
from exponea_async._internal.secrets import to_secret
from exponea_async.config_sections import (
    ConnectionPool,
    PostgresSettings,
    QueueSettings,
    UploadSettings,
    is_pool,
)
from exponea_async.errors import ConfigurationError, InvalidEventError
from exponea_async.models import EventType, FlushMode, TokenFrequency
from exponea_async.projects import (
    BasicAuth,
    ExponeaProject,
    check_authorization,
    mapped_projects,
    parse_basic_auth,
    parse_mapping,
    parse_project,
    read_mapping,
    read_projects,
    to_authorization,
    unify_projects,
)
from exponea_async.requests import RequestLimits

__all__ = [
    "APPLICATION_ID",
    "BASE_URL",
    "MAX_DEFAULTS",
    "SECTIONS",
    "Configuration",
    "ConnectionPool",
    "PostgresSettings",
    "QueueSettings",
    "UploadSettings",
    "database_address",
    "is_pool",
    "is_postgres_url",
]

BASE_URL = "https://api.exponea.com"
APPLICATION_ID = "default-application"


def _project_mapping(
    value: Mapping[Any, Iterable[ExponeaProject]] | None,
) -> Mapping[EventType, tuple[ExponeaProject, ...]]:
    return read_mapping("project_mapping", {} if value is None else value)


def _other_projects(value: Iterable[ExponeaProject]) -> tuple[ExponeaProject, ...]:
    return read_projects("other_projects", value)


def _main_url(value: str | None) -> str:
    return checks.normalized_url(BASE_URL if value is None else value) or ""


def _application_id(value: str | None) -> str:
    return APPLICATION_ID if value is None or value == "" else value


def _app_group(value: str | None) -> str | None:
    return None if value == "" else value


def _flush_mode(value: FlushMode | str) -> FlushMode:
    return checks.to_member(FlushMode, value)  # type: ignore[no-any-return]


def _token_frequency(value: TokenFrequency | str) -> TokenFrequency:
    return checks.to_member(TokenFrequency, value)  # type: ignore[no-any-return]


#: All default properties together, in bytes of JSON: half of what an event may have, so that no event fails for them.
MAX_DEFAULTS = MAX_MESSAGE // 2


def _check_defaults(configuration: "Configuration", attribute: "Attribute[Any]", value: Mapping[str, Any]) -> None:
    """Encode the default properties as each event will be: otherwise that would fail, even that of a sign-out."""
    try:
        size = len(encode_object(value, attribute.name, configuration.encoder))
    except InvalidEventError as error:
        raise ConfigurationError(error.path, error.trouble, error.hint) from error
    if size > MAX_DEFAULTS:
        trouble = f"must take at most {MAX_DEFAULTS} bytes of JSON in all, got {size}"
        raise ConfigurationError(attribute.name, trouble, "Use fewer or shorter properties.")


def _check_storage(settings: "Configuration", attribute: "Attribute[Any]", value: Any) -> None:
    if is_postgres_url(value):
        postgres_url(settings, attribute, value)
    elif value is not None and not is_pool(value):
        checks.storage(settings, attribute, value)


#: Maximum length of the name of a queue in a database, in characters: it must fit into an index.
MAX_QUEUE_NAME = 500


def _check_group(settings: "Configuration", _: "Attribute[Any]", value: Any) -> None:
    if is_postgres_url(value) or is_pool(value):
        _check_queue_name(settings)
    # A queue in memory is private to its client, so groups don't share it.
    elif settings.app_group is not None and value is not None and os.fspath(value) != "memory:":
        trouble = "has no effect on a file that is named in 'storage', which all groups would share"
        raise ConfigurationError("app_group", trouble, "Give each group a 'storage' path of its own, or only a group.")


def _check_queue_name(settings: "Configuration") -> None:
    group = settings.app_group or ""
    if "\0" in group:
        raise ConfigurationError("app_group", "must not contain a NUL character for PostgreSQL", "Use another name.")
    if (length := len(settings.project_token) + len(group)) > MAX_QUEUE_NAME:
        field = "app_group" if group else "project_token"
        trouble = (
            f"must have at most {MAX_QUEUE_NAME} characters for PostgreSQL, with the project's token, got {length}"
        )
        raise ConfigurationError(field, trouble, "Use a shorter name.")


#: Minimum length of a secret that signs tokens, in characters.
MIN_SECRET = 16
# The value is not shown.
_check_token_secret = checks.check(
    (lambda value: not isinstance(value, str), "expected a string, got {type}"),
    (lambda value: len(value) < MIN_SECRET, f"must have at least {MIN_SECRET} characters"),
    hint="Use a random string, such as secrets.token_urlsafe().",
)


#: The settings that are fields of a `Configuration`, with variables of their own.
SECTIONS: Mapping[str, type] = {
    "queue": QueueSettings,
    "postgres": PostgresSettings,
    "upload": UploadSettings,
    "limits": RequestLimits,
}


@frozen(kw_only=True)
class Configuration:
    """
    The settings of a client.

    ::

        Configuration(project_token="my-project", authorization_token="my-key", upload=UploadSettings(gzip=True))

    Args:
        project_token: The token of the main project.
        authorization_token: The public API key of the main project without a scheme, or `BasicAuth` for private access.
        base_url: The URL of the API.
        project_mapping: Further projects that get events of a kind, besides the main one; by `EventType` or its name.
        other_projects: Projects that get no events because of this setting. Their keys and addresses apply to devices
            that ``anonymize()`` switches there, and to events that wait in the queue for them.
        default_properties: Properties that are added to every event that does not have them, at most 400 KB of JSON
            in all. A copy is stored.
        allow_default_customer_properties: Whether they are also added to the properties of ``identify_customer()``.
        automatic_session_tracking: Whether the sessions of devices are tracked automatically.
        session_timeout: After how many seconds without activity a session ends.
        manual_session_auto_close: Whether ``track_session_start()`` ends the session that is open.
        automatic_push_notification: Whether push tokens of devices are tracked automatically.
        push_token_tracking_frequency: How often a push token is tracked again; a `TokenFrequency` or its name.
        require_push_authorization: Whether a push token is only valid with the permission to send notifications.
        flush_mode: When queued events are uploaded; a `FlushMode` or its name.
        flush_period: Seconds between uploads in `FlushMode.PERIOD`.
        flush_max_retries: After how many failures of its own a record becomes a dead letter. Failures in an outage do
            not count.
        default_device: Whether the client's coroutines are about a device of its own where no subject is bound.
            Otherwise they raise a `NoSubjectError`: in a server, a forgotten binding would merge strangers into one
            customer.
        application_id: The id of the application, which is added to events; None or ``""`` for the default.
        app_version: The version of the application, a device property; None leaves it out.
        app_group: The name of a group of applications, whose data is in a default file of its own, or in PostgreSQL in
            a queue of its own; None or ``""`` for no group. It can't be combined with the path of a file in `storage`.
        customer_token_provider: An async function that returns the customer's JWT, for the app inbox and content
            blocks. If it takes an argument, it is called with the customer's ids, a mapping.
        push_token_storage: Whether push tokens are tracked as an ``"event"``, or as a customer ``"property"`` as by
            SDKs below 2.3.0.
        in_app_content_block_placeholders_auto_load: Placeholders whose content blocks are loaded in advance.
        message_platform: The platform whose messages are used, ``"android"`` or ``"ios"``, since messages in
            Engagement are made for one of them.
        event_platform: The platform that events about messages name, ``"android"``, ``"ios"`` or ``"web"``; None for
            `message_platform` on devices, and ``"web"`` for customer trackers.
        message_token_secret: The secret that signs the tokens of messages; the same in all processes that make or
            redeem them.
        preload_messages: Whether ``anonymize()`` loads the content blocks and the app inbox of the new customer, and
            in-app messages if there is a subscription.
        resource_loader: An async function that is called with the URL of an image or a font in a message, and returns
            its bytes, or None if there are none. They are put into the message. Without it the browser of the reader
            loads them.
        allow_remote_media: Whether the style sheets of messages may refer to images and fonts of the web, where there
            is no `resource_loader`. Without `scope_message_styles`, a style sheet can find out what a field of the page
            contains, and tell it to such an address.
        scope_message_styles: Whether the style sheets of messages are limited to the message. Otherwise they apply to
            the whole page.
        encoder: A plain function that is called with each property value of a type that is neither of JSON nor of the
            standard types that `Event` names. It returns a value of these types instead, or the value itself to leave
            it to the SDK.
        on_invalid: What the coroutines that return receipts do with an invalid event, customer or argument:
            ``"raise"`` an `InvalidEventError`, or ``"log"`` it, at most once a minute, and return a dropped receipt.
        normalize_id: A plain function that is called with the type and the value of each customer id that the
            application gives, and returns the value to use, for example in lower case.
        storage: Where the queue is: the path of a file, in which ``~`` is the home directory; ``"memory:"``; or a
            PostgreSQL database, by its URL, such as ``"postgresql://user:password@host:5432/database"``, or as an open
            ``asyncpg.Pool``, which the client does not close. None for a file in the user's state directory, one for
            each project.
        queue: The settings of the queue.
        postgres: The settings of a queue in PostgreSQL.
        upload: The settings of the upload.
        limits: The limits of requests for messages, segments and other data.

    Raises:
        ConfigurationError: A setting is missing or invalid.
    """

    project_token: str = field(validator=checks.project_token)
    authorization_token: str | BasicAuth = field(repr=False, converter=to_authorization, validator=check_authorization)
    base_url: str = field(default=BASE_URL, converter=_main_url, validator=checks.base_url)
    project_mapping: Mapping[EventType, tuple[ExponeaProject, ...]] = field(default=None, converter=_project_mapping)
    other_projects: Sequence[ExponeaProject] = field(default=(), converter=_other_projects)
    default_properties: Mapping[str, Any] = field(
        default=None, converter=checks.frozen_copy, validator=[checks.properties, _check_defaults]
    )
    allow_default_customer_properties: bool = field(default=True, validator=checks.boolean)
    automatic_session_tracking: bool = field(default=True, validator=checks.boolean)
    session_timeout: float = field(
        default=60.0, converter=checks.to_seconds, validator=checks.positive("seconds", allow_zero=True)
    )
    manual_session_auto_close: bool = field(default=True, validator=checks.boolean)
    automatic_push_notification: bool = field(default=True, validator=checks.boolean)
    push_token_tracking_frequency: TokenFrequency = field(
        default=TokenFrequency.ON_TOKEN_CHANGE,
        converter=_token_frequency,
        validator=checks.instance_of(TokenFrequency, f"Use one of {', '.join(TokenFrequency.__members__)}."),
    )
    require_push_authorization: bool = field(default=False, validator=checks.boolean)
    flush_mode: FlushMode = field(
        default=FlushMode.IMMEDIATE,
        converter=_flush_mode,
        validator=checks.instance_of(FlushMode, f"Use one of {', '.join(FlushMode.__members__)}."),
    )
    flush_period: float = field(default=3600.0, converter=checks.to_seconds, validator=checks.positive("seconds"))
    flush_max_retries: int = field(default=10, validator=checks.integer(1))
    default_device: bool = field(default=True, validator=checks.boolean)
    application_id: str = field(default=APPLICATION_ID, converter=_application_id, validator=checks.application_id)
    app_version: str | None = field(default=None, validator=checks.optional(checks.string))
    app_group: str | None = field(default=None, converter=_app_group, validator=checks.optional(checks.string))
    customer_token_provider: Callable[[], Awaitable[str]] | Callable[[Mapping[str, str]], Awaitable[str]] | None = (
        field(default=None, repr=False, validator=checks.optional(checks.function))
    )
    push_token_storage: Literal["event", "property"] = field(
        default="event", validator=checks.one_of(("event", "property"))
    )
    in_app_content_block_placeholders_auto_load: tuple[str, ...] = field(
        default=(), converter=checks.to_tuple, validator=checks.placeholders
    )
    message_platform: Literal["android", "ios"] = field(default="android", validator=checks.one_of(("android", "ios")))
    event_platform: Literal["android", "ios", "web"] | None = field(
        default=None, validator=checks.optional(checks.one_of(("android", "ios", "web")))
    )
    message_token_secret: str | None = field(
        default=None, converter=to_secret, repr=False, validator=checks.optional(_check_token_secret)
    )
    preload_messages: bool = field(default=True, validator=checks.boolean)
    resource_loader: Callable[[str], Awaitable[bytes | None]] | None = field(
        default=None, repr=False, validator=checks.optional(checks.function)
    )
    allow_remote_media: bool = field(default=False, validator=checks.boolean)
    scope_message_styles: bool = field(default=True, validator=checks.boolean)
    encoder: Callable[[Any], Any] | None = field(
        default=None, repr=False, validator=checks.optional(checks.plain_function)
    )
    on_invalid: Literal["raise", "log"] = field(default="raise", validator=checks.one_of(("raise", "log")))
    normalize_id: Callable[[str, str], str] | None = field(
        default=None, repr=False, validator=checks.optional(checks.plain_function)
    )
    storage: str | os.PathLike[str] | ConnectionPool | None = field(
        default=None, converter=to_secret_url, repr=masked_repr, validator=[_check_storage, _check_group]
    )
    queue: QueueSettings = field(
        factory=QueueSettings, validator=checks.instance_of(QueueSettings, "Use QueueSettings(...).")
    )
    postgres: PostgresSettings = field(
        factory=PostgresSettings, validator=checks.instance_of(PostgresSettings, "Use PostgresSettings(...).")
    )
    upload: UploadSettings = field(
        factory=UploadSettings, validator=checks.instance_of(UploadSettings, "Use UploadSettings(...).")
    )
    limits: RequestLimits = field(
        factory=RequestLimits, validator=checks.instance_of(RequestLimits, "Use RequestLimits(...).")
    )
    _projects: tuple[ExponeaProject, ...] = field(init=False, repr=False, eq=False)
    _routes: Mapping[EventType, tuple[ExponeaProject, ...]] = field(init=False, repr=False, eq=False)

    __reduce__ = checks.reduce_settings

    def __attrs_post_init__(self) -> None:
        main = ExponeaProject(self.project_token, self.authorization_token, self.base_url)
        others = [(f"other_projects[{index}]", project) for index, project in enumerate(self.other_projects)]
        uses = [("", main), *mapped_projects("project_mapping", self.project_mapping), *others]
        known = {
            token: evolve(project, base_url=project.base_url or self.base_url)
            for token, project in unify_projects(uses).items()
        }
        routes = {
            kind: tuple(known[token] for token in dict.fromkeys([main.project_token, *_tokens(mapped)]))
            for kind, mapped in self.project_mapping.items()
        }
        object.__setattr__(self, "_projects", tuple(known.values()))
        object.__setattr__(self, "_routes", routes)

    @property
    def main(self) -> ExponeaProject:
        """The main project, with its URL."""
        return self._projects[0]

    @property
    def projects(self) -> tuple[ExponeaProject, ...]:
        """All projects with their URLs, the main one first, each once."""
        return self._projects

    def projects_for(self, event_type: EventType) -> tuple[ExponeaProject, ...]:
        """Return the projects that get events of a kind: the main one, then the mapped ones, each once."""
        return self._routes.get(event_type, self._projects[:1])

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **overrides: Any) -> Self:
        """
        Read the settings from ``EXPONEA_*`` environment variables.

        The variable of a field is ``EXPONEA_<FIELD>``; of those of `queue`, `postgres`, `upload` and `limits` it
        is ``EXPONEA_QUEUE_<FIELD>`` and so on. Mappings are written in JSON, and placeholders are separated by commas.
        Private access is given by ``EXPONEA_BASIC_AUTH_KEY_ID`` and ``EXPONEA_BASIC_AUTH_SECRET``; for a mapped project
        the ``authorization_token`` is then an object with ``key_id`` and ``secret``. An empty variable counts as not
        set.

        Args:
            environ: The variables; by default those of the process.
            overrides: Fields whose values are given here. Their variables are not read.

        Raises:
            ConfigurationError: A variable is missing, invalid or unknown. The error names it and shows no secret.
        """
        environment = Environment(cls, {"basic_auth": BasicAuth, **SECTIONS})
        variables = environment.select(os.environ if environ is None else environ)
        environment.check_names(variables)
        values = environment.read(variables, overrides, replaces={"basic_auth": "authorization_token"})
        with checks.renamed(lambda field: environment.variable_of(field, overrides)):
            return cls(**_fields_of(values) | overrides)


def _tokens(projects: Iterable[ExponeaProject]) -> list[str]:
    return [project.project_token for project in projects]


def _fields_of(values: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the fields of a `Configuration` from the values of the variables, by section."""
    fields = dict(values[""])
    if "project_mapping" in fields:
        fields["project_mapping"] = parse_mapping(fields["project_mapping"])
    if "other_projects" in fields:
        fields["other_projects"] = map(parse_project, fields["other_projects"])
    for section, kind in SECTIONS.items():
        if values[section]:
            with checks.renamed(lambda field, section=section: f"{section}.{field}"):  # type: ignore[misc]
                fields[section] = kind(**values[section])
    if values["basic_auth"]:
        if "authorization_token" in fields:
            trouble = "must not be set together with private access"
            raise ConfigurationError("authorization_token", trouble, "Set one of the two.")
        fields["authorization_token"] = parse_basic_auth(values["basic_auth"], "basic_auth")
    for required in ("project_token", "authorization_token"):
        # The validators raise the error for a missing field.
        fields.setdefault(required, None)
    return fields
