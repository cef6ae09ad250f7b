"""
Settings: which values are valid, which errors the others raise, and what is never shown.
"""

import asyncio
import copy
import math
import pickle
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import asyncpg
import attrs
import pytest
from attrs import evolve

from exponea_async.config import Configuration, PostgresSettings, QueueSettings, UploadSettings
from exponea_async.errors import ConfigurationError
from exponea_async.models import EventType, FlushMode, TokenFrequency
from exponea_async.projects import BasicAuth, ConfigurationChange, ExponeaProject
from exponea_async.requests import RequestLimits

SECRET = "s3cret"


def configuration(**settings: Any) -> Configuration:
    return Configuration(**{"project_token": "main", "authorization_token": "key"} | settings)


def error_of(make: Callable[..., Any], **settings: Any) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        make(**settings)
    assert caught.value.hint
    assert str(caught.value) == f"{str(caught.value).removesuffix(caught.value.hint).rstrip()} {caught.value.hint}"
    return caught.value


def project(token: str = "p", key: str | BasicAuth = "key", base_url: str | None = None) -> ExponeaProject:
    return ExponeaProject(token, key, base_url)


class TestDefaults:
    def test_only_two_settings_are_required(self) -> None:
        """All settings but the project token and the key have the documented defaults."""
        settings = configuration()

        found = {name: getattr(settings, name) for name in attrs.fields_dict(Configuration) if name[0] != "_"}
        assert found == {
            "project_token": "main",
            "authorization_token": "key",
            "base_url": "https://api.exponea.com",
            "project_mapping": {},
            "other_projects": (),
            "default_properties": {},
            "allow_default_customer_properties": True,
            "automatic_session_tracking": True,
            "session_timeout": 60.0,
            "manual_session_auto_close": True,
            "automatic_push_notification": True,
            "push_token_tracking_frequency": TokenFrequency.ON_TOKEN_CHANGE,
            "require_push_authorization": False,
            "flush_mode": FlushMode.IMMEDIATE,
            "flush_period": 3600.0,
            "flush_max_retries": 10,
            "default_device": True,
            "application_id": "default-application",
            "app_version": None,
            "app_group": None,
            "customer_token_provider": None,
            "push_token_storage": "event",
            "in_app_content_block_placeholders_auto_load": (),
            "message_platform": "android",
            "event_platform": None,
            "message_token_secret": None,
            "preload_messages": True,
            "resource_loader": None,
            "allow_remote_media": False,
            "scope_message_styles": True,
            "encoder": None,
            "on_invalid": "raise",
            "normalize_id": None,
            "storage": None,
            "queue": QueueSettings(max_records=1_000_000, when_full="raise", max_age=2_592_000, durability="process"),
            "postgres": PostgresSettings(
                schema="exponea_async", migrate=True, transaction_pooling=False, listen_url=None, max_connections=4
            ),
            "upload": UploadSettings(
                batch_size=50,
                max_batch_bytes=1_000_000,
                concurrency=4,
                requests_per_second=100,
                request_timeout=30,
                backoff_initial=0.5,
                backoff_max=60,
                linger=0.02,
                linger_max=0.5,
                gzip=False,
                enabled=True,
                shared_rate_limit=None,
            ),
            "limits": RequestLimits(),
        }

    @pytest.mark.parametrize(
        "value",
        [configuration(), QueueSettings(), PostgresSettings(), UploadSettings(), RequestLimits(), project()],
    )
    def test_settings_are_frozen(self, value: Any) -> None:
        """No setting can be changed after construction."""
        for name in attrs.fields_dict(type(value)):
            with pytest.raises(attrs.exceptions.FrozenInstanceError):
                setattr(value, name, None)

    def test_settings_are_keyword_only(self) -> None:
        """Positional arguments are not accepted."""
        kinds: list[Any] = [Configuration, QueueSettings, PostgresSettings, UploadSettings, RequestLimits]
        for kind in kinds:
            with pytest.raises(TypeError, match="positional"):
                kind("main", "key")


class TestProjectToken:
    @pytest.mark.parametrize("token", ["a", "A-1", "5a1c2c0e-4d1c-4b0d-9c39-5d5b2f1a7e10"])
    def test_ascii_letters_digits_and_dashes_are_valid(self, token: str) -> None:
        """Tokens of the platform are accepted unchanged."""
        assert configuration(project_token=token).project_token == token

    @pytest.mark.parametrize(
        ("token", "trouble"),
        [
            (None, "is missing"),
            (5, "expected a string, got int"),
            ("", "must not be blank"),
            (" \n", "must not be blank"),
            ("a b", "must consist of ASCII letters, digits"),
            ("tök", "must consist of ASCII letters, digits"),
            ("a_b", "must consist of ASCII letters, digits"),
            ("token\n", "must consist of ASCII letters, digits"),
            ("a/../b", "must consist of ASCII letters, digits"),
        ],
    )
    def test_other_values_are_invalid(self, token: Any, trouble: str) -> None:
        """The error of an invalid token names the field, for the main project and for others."""
        for make in (configuration, lambda project_token: ExponeaProject(project_token, "key")):
            error = error_of(make, project_token=token)
            assert (error.field, trouble in str(error)) == ("project_token", True)

    def test_the_value_is_not_shown(self) -> None:
        """The error does not show a key that was put in the wrong place."""
        assert SECRET not in str(error_of(configuration, project_token=f"{SECRET}_"))


class TestAuthorization:
    @pytest.mark.parametrize("key", ["key", "a.b-c_d~+/=", "Tokens", "tokenbasic"])
    def test_a_bare_key_is_valid(self, key: str) -> None:
        """A key may consist of anything that an HTTP header may contain."""
        assert configuration(authorization_token=key).authorization_token == key

    @pytest.mark.parametrize(
        ("key", "trouble"),
        [
            (None, "is missing"),
            ("", "must not be blank"),
            ("  ", "must not be blank"),
            (b"s3cret", "expected a string or BasicAuth, got "),
            (("id", SECRET), "expected a string or BasicAuth, got "),
            (f"Token {SECRET}", "must not begin with the name of a scheme"),
            (f"token\t{SECRET}", "must not begin with the name of a scheme"),
            (f"Basic {SECRET}", "must not begin with the name of a scheme"),
            (f"BEARER {SECRET}", "must not begin with the name of a scheme"),
            (f"{SECRET}\r\nX-Evil: 1", "must consist of visible ASCII characters"),
            (f"{SECRET} ", "must consist of visible ASCII characters"),
            (f"{SECRET}é", "must consist of visible ASCII characters"),
        ],
    )
    def test_invalid_keys_are_not_shown(self, key: Any, trouble: str) -> None:
        """The error says what to pass and does not show the key, for the main project and for others."""
        for make in (configuration, lambda authorization_token: project(key=authorization_token)):
            error = error_of(make, authorization_token=key)
            assert (error.field, trouble in str(error)) == ("authorization_token", True)
            assert "bare public API key" in error.hint
            assert "BasicAuth(key_id, secret)" in error.hint
            assert SECRET not in repr(error)

    @pytest.mark.parametrize(
        ("pair", "field", "trouble"),
        [
            ((None, SECRET), "key_id", "is missing"),
            (("id", None), "secret", "is missing"),
            (("id", ""), "secret", "must not be blank"),
            ((5, SECRET), "key_id", "expected a string, got int"),
            (("a:b", SECRET), "key_id", "colon"),
            (("id", f"{SECRET}\n"), "secret", "whitespace"),
        ],
    )
    def test_private_access_is_validated(self, pair: tuple[Any, Any], field: str, trouble: str) -> None:
        """Id and secret may consist of anything that a header may contain, but the id has no colon."""
        error = error_of(lambda: BasicAuth(*pair))

        assert (error.field, trouble in str(error), SECRET in repr(error)) == (field, True, False)

    def test_no_secret_is_ever_shown(self) -> None:
        """Neither str nor repr of a value that holds a secret contains it."""
        settings = configuration(
            authorization_token=BasicAuth("id", SECRET),
            project_mapping={"PAYMENT": [project("x", SECRET), project("y", BasicAuth("id", f"{SECRET}:2"))]},
            customer_token_provider=lambda: SECRET,
        )
        change = ConfigurationChange(project("x", SECRET), {"PAYMENT": [project("x", SECRET)]})

        for value in (settings, settings.projects, settings.project_mapping, settings.authorization_token, change):
            assert SECRET not in f"{value} {value!r}"


class TestBaseUrl:
    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            (None, "https://api.exponea.com"),
            ("https://h.example", "https://h.example"),
            ("https://h.example///", "https://h.example"),
            ("HTTPS://H.Example:443/", "https://h.example"),
            ("http://h.example:80/Prefix/", "http://h.example/Prefix"),
            ("https://h.example:80", "https://h.example:80"),
            ("http://H.example:08080", "http://h.example:8080"),
            ("https://h.example:", "https://h.example"),
            ("http://[2001:DB8::1]:80", "http://[2001:db8::1]"),
            ("http://localhost:8080/a/b/", "http://localhost:8080/a/b"),
            ("http://127.0.0.1:1", "http://127.0.0.1:1"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("https://bücher.example", "https://bücher.example"),
            ("https://under_score.example.", "https://under_score.example."),
        ],
    )
    def test_absolute_urls_are_valid(self, given: str | None, expected: str) -> None:
        """A URL has a scheme, a host and optionally a path; all spellings are normalized, and None is the default."""
        assert configuration(base_url=given).base_url == expected

    @pytest.mark.parametrize(
        "address",
        [
            *("", "/", "h.example", "//h.example", "ftp://h.example", "https://", "https:///x", "https://h h", 5),
            *("https://h.example:0", "https://h.example:99999", "https://h.example:x", "http://[::1", "http://.h"),
            *("https://h.example?a=b", "https://h.example#x", "https://h.example/\n", "http://a..b", "http://[zz]"),
            *(
                f"http://{'a' * 64}.example",
                "http://1.2.3.4.5",
                "http://999.1.1.1",
                "http://\u00ad.example",
                b"http://h",
            ),
        ],
    )
    def test_other_values_are_invalid(self, address: Any) -> None:
        """A URL that no request could be sent to raises an error that names the field."""
        for make in (configuration, lambda base_url: project(base_url=base_url)):
            error = error_of(make, base_url=address)
            assert (error.field, "https://api.exponea.com" in error.hint) == ("base_url", True)

    @pytest.mark.parametrize(
        "path",
        [
            *("/track/v2/projects/X", "/track/v2/projects/X/batch", "/track/v2", "/TRACK/V2/Projects", "/track/u/v1"),
            *("/data/v2/projects/X", "/webxp/s/X/inappmessages", "/webxp/projects/X", "/wxstatic/projects/X"),
            *("/projects/X", "/optimization/streams/X"),
        ],
    )
    def test_a_path_of_the_api_is_refused(self, path: str) -> None:
        """A URL of an endpoint raises an error that has the right form, also behind the prefix of a proxy."""
        for base in ("https://h.example", "http://[::1]:8080", "https://h.example/prefix/engagement"):
            for make in (configuration, lambda base_url: project(base_url=base_url)):
                error = error_of(make, base_url=base + path)
                assert (error.field, error.hint) == ("base_url", f"Use {base!r}.")

    @pytest.mark.parametrize(
        "path", ["/track", "/projects", "/data", "/webxp", "/tracker/v2x", "/my-projects/x", "/v2", "/engagement/api"]
    )
    def test_the_prefix_of_a_proxy_is_valid(self, path: str) -> None:
        """A path that does not begin a path of the API is appended to all addresses."""
        assert configuration(base_url=f"https://h.example{path}").base_url == f"https://h.example{path}"

    def test_a_host_may_look_like_a_path(self) -> None:
        """Only the path is searched."""
        assert configuration(base_url="https://track/v3api").base_url == "https://track/v3api"

    def test_credentials_in_a_url_are_not_shown(self) -> None:
        """Logs show the URL, so it must not contain a secret; neither does the error."""
        for address in (f"https://u:{SECRET}@h.example", f"https://h.example?key={SECRET}"):
            assert SECRET not in str(error_of(configuration, base_url=address))


class TestApplicationId:
    @pytest.mark.parametrize("given", ["app", "com.example.shop", "shop-2", "a.b-c", "default-application", "a" * 50])
    def test_the_form_of_the_platform_is_valid(self, given: str) -> None:
        """An id consists of lower-case letters and digits with single separators."""
        assert configuration(application_id=given).application_id == given

    @pytest.mark.parametrize("given", [None, ""])
    def test_none_and_the_empty_string_are_the_default(self, given: str | None) -> None:
        """They mean the same as in the vendor's SDKs."""
        assert configuration(application_id=given).application_id == "default-application"

    @pytest.mark.parametrize(
        "given", ["-a", "a-", "a..b", "a--b", "a.-b", "a_b", "App", "é", "a b", "app\n", "a" * 51, 5]
    )
    def test_other_values_are_invalid(self, given: Any) -> None:
        """The error names the field, and its hint the maximum length."""
        error = error_of(configuration, application_id=given)

        assert (error.field, "at most 50" in error.hint) == ("application_id", True)


NOT_NUMBERS: list[Any] = [None, "5", True, math.nan, math.inf, -math.inf, -1, 10**400, -timedelta(seconds=1)]
DURATIONS: list[tuple[Callable[..., Any], str]] = [
    (configuration, "session_timeout"),
    (configuration, "flush_period"),
    (QueueSettings, "max_age"),
    (QueueSettings, "lock_timeout"),
    (UploadSettings, "request_timeout"),
    (UploadSettings, "backoff_initial"),
    (UploadSettings, "backoff_max"),
    *((RequestLimits, name) for name in attrs.fields_dict(RequestLimits) if not name.endswith("concurrency")),
    (UploadSettings, "linger"),
    (UploadSettings, "linger_max"),
]


class TestNumbers:
    @pytest.mark.parametrize(("make", "name"), DURATIONS)
    @pytest.mark.parametrize("given", [30, 30.0, timedelta(seconds=30)])
    def test_durations_are_seconds(self, make: Callable[..., Any], name: str, given: Any) -> None:
        """A number or a timedelta becomes float seconds."""
        found = getattr(make(**{name: given}), name)

        assert (type(found), found) == (float, 30.0)

    @pytest.mark.parametrize(("make", "name"), [*DURATIONS, (UploadSettings, "requests_per_second")])
    @pytest.mark.parametrize("given", NOT_NUMBERS)
    def test_invalid_durations(self, make: Callable[..., Any], name: str, given: Any) -> None:
        """A value that is not a finite number, or negative, raises an error that names the field."""
        assert error_of(make, **{name: given}).field == name

    def test_only_some_durations_may_be_zero(self) -> None:
        """The session timeout and the linger times may be 0; all others must be above 0."""
        upload = UploadSettings(linger=0, linger_max=0)
        assert (configuration(session_timeout=0).session_timeout, upload.linger, upload.linger_max) == (0.0, 0.0, 0.0)
        for make, name in [*DURATIONS[1:-2], (UploadSettings, "requests_per_second")]:
            assert "must be above 0" in str(error_of(make, **{name: 0}))

    @pytest.mark.parametrize(
        ("make", "name", "least"),
        [
            (configuration, "flush_max_retries", 1),
            (QueueSettings, "max_records", 1),
            (UploadSettings, "batch_size", 1),
            (UploadSettings, "concurrency", 1),
            (RequestLimits, "segments_concurrency", 1),
            (UploadSettings, "max_batch_bytes", 821_000),
        ],
    )
    def test_counts_are_integers_within_bounds(self, make: Callable[..., Any], name: str, least: int) -> None:
        """The minimum is valid; a lower value or one that is not an int raises an error that names the field."""
        assert getattr(make(**{name: least}), name) == least
        for wrong in (least - 1, -1, float(least), str(least), True, None):
            assert error_of(make, **{name: wrong}).field == name

    def test_a_batch_has_at_most_fifty_commands(self) -> None:
        """The platform accepts no more in one request."""
        assert "from 1 to 50" in error_of(UploadSettings, batch_size=51).hint

    def test_the_longest_wait_is_at_least_the_first_one(self) -> None:
        """Settings that contradict each other raise an error."""
        error = error_of(UploadSettings, backoff_initial=10, backoff_max=5)

        assert (error.field, "backoff_initial, 10.0" in str(error)) == ("backoff_max", True)


class TestChoices:
    def test_names_of_enum_members_are_valid(self) -> None:
        """A member and its name mean the same."""
        settings = configuration(flush_mode="PERIOD", push_token_tracking_frequency="DAILY")

        assert settings == configuration(
            flush_mode=FlushMode.PERIOD, push_token_tracking_frequency=TokenFrequency.DAILY
        )

    @pytest.mark.parametrize(
        ("make", "name", "choices"),
        [
            (configuration, "flush_mode", [*FlushMode.__members__]),
            (configuration, "push_token_tracking_frequency", [*TokenFrequency.__members__]),
            (configuration, "push_token_storage", ["event", "property"]),
            (QueueSettings, "when_full", ["raise", "wait", "drop_oldest"]),
            (QueueSettings, "durability", ["process", "power"]),
        ],
    )
    def test_the_hint_lists_all_choices(self, make: Callable[..., Any], name: str, choices: list[str]) -> None:
        """Every choice is valid; for other values the error names the field, and its hint all choices."""
        for choice in choices:
            make(**{name: choice})
        for wrong in ("", choices[0].swapcase(), 5, None, [choices[0]], EventType.PAYMENT):
            error = error_of(make, **{name: wrong})
            assert error.field == name
            assert all(choice in error.hint for choice in choices)

    @pytest.mark.parametrize(
        ("make", "name"),
        [
            (configuration, "allow_default_customer_properties"),
            (configuration, "automatic_session_tracking"),
            (configuration, "manual_session_auto_close"),
            (configuration, "automatic_push_notification"),
            (configuration, "require_push_authorization"),
            (UploadSettings, "gzip"),
            (UploadSettings, "enabled"),
            (PostgresSettings, "migrate"),
            (PostgresSettings, "transaction_pooling"),
        ],
    )
    def test_flags_are_bools(self, make: Callable[..., Any], name: str) -> None:
        """A value that is merely truthy raises an error."""
        for wrong in (1, "true", None):
            assert error_of(make, **{name: wrong}).field == name

    @pytest.mark.parametrize(
        ("name", "wrong"),
        [
            ("app_version", ["", " ", 5]),
            ("app_group", [" ", 5]),
            ("customer_token_provider", ["jwt", 5]),
            ("resource_loader", ["https://img.example", 5]),
            ("encoder", ["str", 5, asyncio.sleep]),
            ("on_invalid", ["ignore", None, True]),
            ("normalize_id", ["lower", 5, asyncio.sleep]),
            ("message_platform", ["Android", "web", None, 1]),
            ("preload_messages", ["yes", None, 1]),
            ("in_app_content_block_placeholders_auto_load", ["one", 5, [1], [""], {"a": 1}]),
            ("queue", [None, {}, UploadSettings()]),
            ("upload", [None, {}, QueueSettings()]),
            ("postgres", [None, {}, "postgresql://h", QueueSettings()]),
            ("default_properties", [5, "a", [("a", 1)], {1: 2}, {"": 1}]),
        ],
    )
    def test_values_of_other_types_are_invalid(self, name: str, wrong: list[Any]) -> None:
        """The error names the field."""
        for each in wrong:
            assert error_of(configuration, **{name: each}).field == name

    def test_placeholders_become_a_tuple(self) -> None:
        """Any iterable of strings is valid."""
        settings = configuration(in_app_content_block_placeholders_auto_load=["a", "b"])

        assert settings.in_app_content_block_placeholders_auto_load == ("a", "b")


class TestStorage:
    @pytest.mark.parametrize("storage", ["memory:", "queue.sqlite", "/var/lib/x.sqlite", Path("x")])
    def test_files_and_memory_are_accepted(self, storage: str | Path) -> None:
        """A file path and ``"memory:"`` are stored unchanged."""
        assert configuration(storage=storage).storage == storage

    @pytest.mark.parametrize(
        "storage",
        ["", " ", "a\0b", 5, b"x", "redis://h", "mysql://h", "unix:///s", "file:///q", "xyz://", "x://[h"],
    )
    def test_other_values_are_refused(self, storage: Any) -> None:
        """A value that is not a path or ``"memory:"`` is refused with the name of the field."""
        assert error_of(configuration, storage=storage).field == "storage"

    @pytest.mark.parametrize("storage", ["file:queue.sqlite", "file::memory:", "file:memory:?mode=memory"])
    def test_uris_are_refused(self, storage: str) -> None:
        """The URI of a database is not mistaken for a path."""
        assert error_of(configuration, storage=storage).field == "storage"

    @pytest.mark.parametrize("storage", [":memory:", "memory", ":memory", "MEMORY:", Path(":memory:")])
    def test_other_names_of_memory(self, storage: str | Path) -> None:
        """What was meant to be a queue in memory does not become a file; the error says how it is written."""
        message = str(error_of(configuration, storage=storage))

        assert "must be 'memory:' for a queue in memory" in message

    def test_an_address_is_refused_without_being_shown(self) -> None:
        """The error says what is accepted, and does not contain the address, which may hold a password."""
        message = str(error_of(configuration, storage=f"xyz://u:{SECRET}@h"))

        assert SECRET not in message
        assert "must be a file path, 'memory:' or a PostgreSQL URL" in message


def masked(url: str) -> str:
    """Return what the repr of the settings shows of a URL."""
    return repr(configuration(storage=url)).partition(" storage=")[2].partition(", queue=")[0]


class TestPostgresUrl:
    @pytest.mark.parametrize(
        "url",
        [
            "postgresql://",
            "postgres://db.example",
            "postgresql://user@db.example:5432/shop",
            "postgresql://user:p%40%2Fss@[::1]:5432/shop?sslmode=verify-full&sslrootcert=/etc/ca.pem",
            "postgresql://user:pw@one:5432,two/shop?target_session_attrs=read-write",
            "postgresql:///shop?host=/var/run/postgresql",
            "postgresql://%2Fvar%2Frun/shop",
            "POSTGRESQL://db.example",
        ],
    )
    def test_urls_are_accepted(self, url: str) -> None:
        """The forms of a URL that asyncpg connects to are stored unchanged, also as the URL for notifications."""
        assert configuration(storage=url).storage == url
        assert PostgresSettings(listen_url=url).listen_url == url

    @pytest.mark.parametrize(
        ("url", "trouble"),
        [
            (f"postgresql+asyncpg://u:{SECRET}@h/db", "must not name a driver, got 'postgresql+asyncpg://'"),
            (f"postgres+psycopg2://u:{SECRET}@h/db", "must not name a driver"),
            (f"postgresql:/u:{SECRET}@h/db", "begins with 'postgresql://'"),
            (f"postgresql:u:{SECRET}@h/db", "begins with 'postgresql://'"),
            (f"postgresql://u:{SECRET}@[::1/db", "begins with 'postgresql://'"),
            (f"postgresql://u:@{SECRET}@h/db", "not '@' except before the host"),
            (f"postgresql://u:/{SECRET}@h/db", "not '@' except before the host"),
            (f"postgresql://u:1?{SECRET}@h/db", "not '@' except before the host"),
            (f"postgresql://u:#{SECRET}@h/db", "must not contain '#'"),
            (f"postgresql://u:{SECRET}@h,,i/db", "a valid host and port"),
            (f"postgresql://u:{SECRET}@h:port/db", "a valid host and port"),
            (f"postgresql://u:{SECRET}@h:65536/db", "a port from 1 to 65,535"),
            (f"postgresql://u:{SECRET}@h:0/db", "a port from 1 to 65,535"),
            (f"postgresql://u:{SECRET}@h/db?{SECRET}", "of the form name=value"),
            (f" postgresql://u:{SECRET}@h/db", "whitespace"),
            (f"postgresql://u:{SECRET}\n@h/db", "whitespace"),
        ],
    )
    def test_malformed_urls_are_refused(self, url: str, trouble: str) -> None:
        """The error names the field and says what is expected, without the password; so does the repr."""
        for make, name in ((configuration, "storage"), (PostgresSettings, "listen_url")):
            error = error_of(make, **{name: url})
            assert (error.field, trouble in str(error)) == (name, True)
            assert SECRET not in f"{error!r} {error}"
            assert "postgresql://" in error.hint

    def test_a_path_of_a_url(self) -> None:
        """A path, which has lost a slash of the URL, is not mistaken for a file."""
        error = error_of(configuration, storage=Path(f"postgresql://u:{SECRET}@h/db"))

        assert "begins with 'postgresql://'" in str(error)
        assert SECRET not in str(error)

    def test_a_driver_is_left_out(self) -> None:
        """The hint for a URL of SQLAlchemy says what to leave out."""
        assert "Leave '+asyncpg' out" in error_of(configuration, storage="postgresql+asyncpg://h/db").hint

    @pytest.mark.parametrize(
        ("url", "shown"),
        [
            (f"postgresql://u:{SECRET}@h:5432/db", "'postgresql://u:***@h:5432/db'"),
            (f"postgres://:{SECRET}@h", "'postgres://:***@h'"),
            (f"postgresql://u:{SECRET}@one,two/db", "'postgresql://u:***@one,two/db'"),
            (f"postgresql:///db?user=u&password={SECRET}", "'postgresql:///db?user=u&password=***'"),
            (
                f"postgresql://h/?p%61ssword={SECRET}&sslmode=require",
                "'postgresql://h/?p%61ssword=***&sslmode=require'",
            ),
            ("postgresql://u@h/db", "'postgresql://u@h/db'"),
        ],
    )
    def test_the_password_is_masked(self, url: str, shown: str) -> None:
        """The repr of the settings shows the database without the password, also after a copy and through pickle."""
        settings = configuration(storage=url)

        assert masked(url) == shown
        for same in (settings, evolve(settings), copy.deepcopy(settings), pickle.loads(pickle.dumps(settings))):
            assert same == settings
            assert SECRET not in f"{same!r} {same.storage!r} {same.__reduce__()!r}"

    def test_the_repr_of_a_file(self) -> None:
        """The path of a file is shown as it is."""
        assert masked("queue.sqlite") == "'queue.sqlite'"

    def test_the_url_for_notifications_is_not_shown(self) -> None:
        """The repr does not contain it."""
        settings = configuration(postgres=PostgresSettings(listen_url=f"postgresql://u:{SECRET}@h/db"))

        assert SECRET not in f"{settings!r} {settings.__reduce__()!r} {settings.postgres.listen_url!r}"

    async def test_a_pool(self) -> None:
        """A pool of asyncpg, or of a subclass, is accepted; a connection is not."""

        class OwnPool(asyncpg.Pool):  # type: ignore[misc]
            """A pool of the application."""

        pool = asyncpg.create_pool(f"postgresql://u:{SECRET}@h/db")

        assert configuration(storage=pool, app_group="group").storage is pool
        assert configuration(storage=object.__new__(OwnPool)).postgres == PostgresSettings()
        assert SECRET not in repr(configuration(storage=pool))
        assert "asyncpg.Pool" in str(error_of(configuration, storage=asyncpg.Connection))


class TestPostgresSettings:
    @pytest.mark.parametrize("schema", ["exponea_async", "_", "a1", "x" * 63])
    def test_schemas(self, schema: str) -> None:
        """A name that needs no quotes in SQL is accepted."""
        assert PostgresSettings(schema=schema).schema == schema

    @pytest.mark.parametrize(
        "schema", ["", "1a", "Shop", "a-b", 'a"; DROP TABLE x', "x" * 64, "ü", "a\n", "pg_own", 5, None]
    )
    def test_other_schemas_are_refused(self, schema: Any) -> None:
        """The error of another name names the field."""
        assert error_of(PostgresSettings, schema=schema).field == "schema"

    @pytest.mark.parametrize("count", [0, -1, 1.5, True, "4", None])
    def test_the_number_of_connections(self, count: Any) -> None:
        """There is at least one connection."""
        assert error_of(PostgresSettings, max_connections=count).field == "max_connections"

    @pytest.mark.parametrize("name", ["office", "eu-1.example:a_B", "x" * 100])
    def test_names_of_rate_limits(self, name: str) -> None:
        """A short name without spaces is accepted."""
        assert UploadSettings(shared_rate_limit=name).shared_rate_limit == name

    @pytest.mark.parametrize("name", ["", " ", "a b", "a\0", "x" * 101, "ü", 5, True])
    def test_other_names_of_rate_limits(self, name: Any) -> None:
        """The error of another name names the field."""
        assert error_of(UploadSettings, shared_rate_limit=name).field == "shared_rate_limit"

    @pytest.mark.parametrize(
        ("given", "field"),
        [
            ({"app_group": "a\0b"}, "app_group"),
            ({"app_group": "x" * 500}, "app_group"),
            ({"project_token": "x" * 501}, "project_token"),
        ],
    )
    def test_names_that_a_database_refuses(self, given: dict[str, str], field: str) -> None:
        """Names that are not valid text in PostgreSQL, or too long for an index, are refused there only."""
        assert configuration(**given).storage is None
        assert error_of(configuration, storage="postgresql://h/db", **given).field == field


class TestDefaultProperties:
    @pytest.mark.parametrize(
        ("given", "field"),
        [
            ({"cart": {"sum": math.nan}}, "default_properties.cart.sum"),
            ({"cart": [1, print]}, "default_properties.cart[1]"),
            ({"cart": "x" * 20_000}, "default_properties.cart"),
            ({f"p{number}": "x" * 16_000 for number in range(30)}, "default_properties"),
        ],
    )
    def test_default_properties_are_checked_as_those_of_an_event(self, given: dict[str, Any], field: str) -> None:
        """A value that no event could carry is an error that names its path, so no later call fails for it."""
        error = error_of(configuration, default_properties=given)

        assert error.field == field
        assert str(error).startswith(f"{field}: ")

    def test_default_properties_of_types_that_the_encoder_converts(self) -> None:
        """The encoder of the configuration applies to its default properties, too."""
        error_of(configuration, default_properties={"a": 1j})
        assert configuration(default_properties={"a": 1j}, encoder=str).default_properties == {"a": 1j}

    def test_default_properties_are_copied(self) -> None:
        """Later changes of the given values have no effect, at any depth."""
        given: dict[str, Any] = {"a": 1, "nested": {"b": [1, {"c": 2}]}, "set": {1}}
        settings = configuration(default_properties=given)

        given["a"] = 9
        given["nested"]["b"][1]["c"] = 9
        given["set"].add(2)

        assert settings.default_properties == {"a": 1, "nested": {"b": [1, {"c": 2}]}, "set": {1}}

    def test_the_copy_is_read_only(self) -> None:
        """The settings can't be changed through it."""
        with pytest.raises(TypeError):
            configuration(default_properties={"a": 1}).default_properties["a"] = 2  # type: ignore[index]

    def test_any_mapping_is_accepted(self) -> None:
        """Neither the properties nor the values in them need be dicts."""
        given = MappingProxyType({"a": MappingProxyType({"b": (1, 2)})})

        assert configuration(default_properties=given).default_properties == {"a": {"b": (1, 2)}}

    def test_values_that_cannot_be_copied_are_invalid(self) -> None:
        """Cycles and generators raise an error that names the field."""
        ring: dict[str, Any] = {}
        ring["ring"] = ring

        for given in (ring, {"a": (n for n in [1])}):
            assert error_of(configuration, default_properties=given).field == "default_properties"


class TestMapping:
    def test_keys_are_event_types_or_their_names(self) -> None:
        """Both mean the same, and their projects add up; aliases stand for their event types."""
        settings = configuration(
            project_mapping={
                EventType.PAYMENT: [project("a")],
                "PAYMENT": (project("b"),),
                "NOTIFICATION_STATE": [project("c")],
                "APP_INBOX": iter([project("d")]),
            }
        )

        assert settings.project_mapping == {
            EventType.PAYMENT: (project("a"), project("b")),
            EventType.PUSH_TOKEN: (project("c"),),
            EventType.APP_INBOX_OPENED: (project("d"),),
            EventType.APP_INBOX_CLICKED: (project("d"),),
        }

    @pytest.mark.parametrize(
        ("mapping", "field", "trouble"),
        [
            ([], "project_mapping", "expected a mapping, got list"),
            ({"PAYMNT": []}, "project_mapping", "Did you mean PAYMENT?"),
            ({"payment": []}, "project_mapping", "Did you mean PAYMENT?"),
            ({5: []}, "project_mapping", "Use one of INSTALL,"),
            ({FlushMode.MANUAL: []}, "project_mapping", "expected an event type as key, got "),
            (
                {"PAYMENT": project(key=SECRET)},
                "project_mapping[PAYMENT]",
                "expected a list of projects, got ExponeaProject",
            ),
            (
                {"PAYMENT": {"project_token": SECRET}},
                "project_mapping[PAYMENT]",
                "expected a list of projects, got dict",
            ),
            ({"PAYMENT": [project(), SECRET]}, "project_mapping[PAYMENT][1]", "expected ExponeaProject, got str"),
        ],
    )
    def test_other_values_are_invalid(self, mapping: Any, field: str, trouble: str) -> None:
        """The error names the event type and the index, and does not show values that may be secrets."""
        error = error_of(configuration, project_mapping=mapping)

        assert (error.field, trouble in str(error), SECRET in str(error)) == (field, True, False)

    def test_errors_of_a_generator_have_the_index(self) -> None:
        """An error that a generator raises while it creates a project names the index and the field."""
        error = error_of(configuration, project_mapping={"PAYMENT": (project(token) for token in ("ok", "not ok"))})

        assert error.field == "project_mapping[PAYMENT][1].project_token"

    def test_projects_are_listed_once_the_main_one_first(self) -> None:
        """A project is identified by its token; projects inherit the main URL, or have that of their other uses."""
        settings = configuration(
            base_url="https://h.example",
            project_mapping={
                "PAYMENT": [
                    project("x"),
                    project("main"),
                    project("x", base_url="HTTPS://H.example:443/"),
                    project("z"),
                ]
            },
            other_projects=[project("z", base_url="https://z.example"), project("y")],
        )
        main = ExponeaProject("main", "key", "https://h.example")
        x, z = project("x", base_url="https://h.example"), project("z", base_url="https://z.example")

        assert settings.main == main
        assert settings.projects_for(EventType.PAYMENT) == (main, x, z)
        assert settings.projects_for(EventType.INSTALL) == (main,)
        assert settings.projects == (main, x, z, project("y", base_url="https://h.example"))

    def test_a_project_has_the_same_address_everywhere(self) -> None:
        """Two different addresses for one project raise an error that names both."""
        for given in (
            {"project_mapping": {"PAYMENT": [project("main", base_url="https://z.example")]}},
            {
                "other_projects": [
                    project("x", base_url="https://y.example"),
                    project("x", base_url="https://z.example"),
                ]
            },
        ):
            error = error_of(configuration, **given)
            assert error.field in ("project_mapping[PAYMENT][0].base_url", "other_projects[1].base_url")
            assert "https://z.example" in str(error)

    def test_a_change_is_consistent_in_itself(self) -> None:
        """A switch can't give one project two keys or two addresses."""
        first = project("x", base_url="https://x.example")
        for second in (project("x", SECRET), project("x", base_url="https://z.example")):
            error = error_of(ConfigurationChange, project=first, mapping={"PAYMENT": [second]})
            assert error.field.startswith("mapping[PAYMENT][0].")
            assert SECRET not in str(error)

    def test_a_project_has_the_same_key_everywhere(self) -> None:
        """Two different keys for one project raise an error."""
        for mapped in ([project("main", SECRET)], [project("x", "a"), project("x", SECRET)]):
            error = error_of(configuration, project_mapping={"INSTALL": [], "PAYMENT": mapped})
            assert error.field == f"project_mapping[PAYMENT][{len(mapped) - 1}].authorization_token"
            assert SECRET not in str(error)

    def test_the_mapping_is_read_only(self) -> None:
        """It is frozen like all settings."""
        with pytest.raises(TypeError):
            configuration().project_mapping[EventType.PAYMENT] = ()  # type: ignore[index]


class TestChanges:
    def test_evolve_returns_a_changed_copy(self) -> None:
        """The copy is validated, and the original does not change."""
        before = configuration(project_mapping={"PAYMENT": [project("x")]}, default_properties={"a": 1})

        after = evolve(
            before, base_url="https://new.example/", flush_mode="MANUAL", session_timeout=timedelta(minutes=2)
        )

        assert (after.base_url, after.flush_mode, after.session_timeout) == (
            "https://new.example",
            FlushMode.MANUAL,
            120.0,
        )
        assert after.projects_for(EventType.PAYMENT)[1].base_url == "https://new.example"
        assert before.projects_for(EventType.PAYMENT)[1].base_url == "https://api.exponea.com"
        assert evolve(after, base_url=None, flush_mode="IMMEDIATE", session_timeout=60) == before
        assert error_of(lambda: evolve(before, project_token="")).field == "project_token"

    def test_settings_can_be_pickled_and_copied(self) -> None:
        """A copy is equal to the original, and has the same routes."""
        mapping: Any = {"PAYMENT": [project("x", BasicAuth("id", SECRET))]}
        settings = configuration(project_mapping=mapping, default_properties={"a": {"b": [1]}}, flush_mode="MANUAL")

        for value in (settings, ConfigurationChange(project("p"), mapping), ConfigurationChange()):
            for copied in (pickle.loads(pickle.dumps(value)), copy.deepcopy(value), copy.copy(value)):
                assert copied == value
        assert copy.deepcopy(settings).projects_for(EventType.PAYMENT) == settings.projects_for(EventType.PAYMENT)

    def test_an_empty_change_keeps_everything(self) -> None:
        """None keeps the present value; an empty mapping does not."""
        assert (ConfigurationChange().project, ConfigurationChange().mapping) == (None, None)
        assert ConfigurationChange(mapping={}).mapping == {}

    def test_a_change_is_validated_like_the_settings(self) -> None:
        """Keys may be names, and the error names the field without showing the value."""
        change = ConfigurationChange(project("new"), {"PAYMENT": [project("x")]})

        assert change.mapping == {EventType.PAYMENT: (project("x"),)}
        assert error_of(ConfigurationChange, mapping={"PAYMENT": [5]}).field == "mapping[PAYMENT][0]"
        error = error_of(ConfigurationChange, project={"authorization_token": SECRET})
        assert (error.field, SECRET in str(error)) == ("project", False)
