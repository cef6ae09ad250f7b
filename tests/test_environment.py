"""
Settings from ``EXPONEA_*`` variables.
"""

import json
from typing import Any

import attrs
import pytest
from helpers.environment import Environment

from exponea_async.config import Configuration, PostgresSettings, QueueSettings, UploadSettings
from exponea_async.errors import ConfigurationError
from exponea_async.models import EventType, FlushMode, TokenFrequency
from exponea_async.projects import BasicAuth, ExponeaProject
from exponea_async.requests import RequestLimits

SECRET = "s3cret"
REQUIRED = {"EXPONEA_PROJECT_TOKEN": "main", "EXPONEA_AUTHORIZATION_TOKEN": SECRET}
PRIVATE = {
    "EXPONEA_PROJECT_TOKEN": "main",
    "EXPONEA_BASIC_AUTH_KEY_ID": "id",
    "EXPONEA_BASIC_AUTH_SECRET": SECRET,
}


def error_of(environ: dict[str, str], **overrides: Any) -> ConfigurationError:
    """Return the error, after a check that neither it nor its causes contain a secret."""
    with pytest.raises(ConfigurationError) as caught:
        Configuration.from_env(environ, **overrides)
    seen: BaseException | None = caught.value
    while seen:
        assert SECRET not in f"{seen!r} {seen}"
        seen = seen.__cause__ or seen.__context__
    return caught.value


def mapped(*projects: Any) -> dict[str, str]:
    return {**REQUIRED, "EXPONEA_PROJECT_MAPPING": json.dumps({"PAYMENT": projects})}


class TestReading:
    def test_only_two_variables_are_required(self) -> None:
        """All other fields have their defaults."""
        assert Configuration.from_env(REQUIRED) == Configuration(project_token="main", authorization_token=SECRET)

    def test_the_variables_of_the_process_are_read_by_default(self, environment: Environment) -> None:
        """Without an argument, `os.environ` is read."""
        environment(**REQUIRED)

        assert Configuration.from_env(flush_mode="MANUAL").project_token == "main"

    def test_values_are_parsed_by_the_type_of_the_field(self) -> None:
        """There are strings, numbers, flags, choices, lists and objects."""
        settings = Configuration.from_env(
            {
                **REQUIRED,
                "EXPONEA_BASE_URL": "https://h.example/",
                "EXPONEA_STORAGE": "queue.sqlite",
                "EXPONEA_DEFAULT_PROPERTIES": '{"a": 1, "b": {"c": [true, null]}}',
                "EXPONEA_SESSION_TIMEOUT": "1.5",
                "EXPONEA_FLUSH_MAX_RETRIES": "3",
                "EXPONEA_AUTOMATIC_SESSION_TRACKING": "Off",
                "EXPONEA_REQUIRE_PUSH_AUTHORIZATION": "1",
                "EXPONEA_FLUSH_MODE": "PERIOD",
                "EXPONEA_PUSH_TOKEN_TRACKING_FREQUENCY": "DAILY",
                "EXPONEA_PUSH_TOKEN_STORAGE": "property",
                "EXPONEA_IN_APP_CONTENT_BLOCK_PLACEHOLDERS_AUTO_LOAD": "home, cart,,",
                "EXPONEA_APP_VERSION": "1.2",
                "OTHER": "is ignored",
            }
        )

        assert settings == Configuration(
            project_token="main",
            authorization_token=SECRET,
            base_url="https://h.example",
            storage="queue.sqlite",
            default_properties={"a": 1, "b": {"c": [True, None]}},
            session_timeout=1.5,
            flush_max_retries=3,
            automatic_session_tracking=False,
            require_push_authorization=True,
            flush_mode=FlushMode.PERIOD,
            push_token_tracking_frequency=TokenFrequency.DAILY,
            push_token_storage="property",
            in_app_content_block_placeholders_auto_load=("home", "cart"),
            app_version="1.2",
        )

    def test_every_field_of_the_nested_settings_has_a_variable(self) -> None:
        """The settings of the queue and the upload have variables of their own."""
        settings = Configuration.from_env(
            {
                **REQUIRED,
                "EXPONEA_QUEUE_MAX_RECORDS": "10",
                "EXPONEA_QUEUE_WHEN_FULL": "wait",
                "EXPONEA_QUEUE_MAX_AGE": "60",
                "EXPONEA_QUEUE_DURABILITY": "power",
                "EXPONEA_UPLOAD_BATCH_SIZE": "5",
                "EXPONEA_UPLOAD_REQUESTS_PER_SECOND": "2.5",
                "EXPONEA_UPLOAD_GZIP": "yes",
                "EXPONEA_UPLOAD_ENABLED": "no",
                "EXPONEA_UPLOAD_SHARED_RATE_LIMIT": "office",
                "EXPONEA_POSTGRES_SCHEMA": "tracking",
                "EXPONEA_POSTGRES_MIGRATE": "false",
                "EXPONEA_POSTGRES_TRANSACTION_POOLING": "true",
                "EXPONEA_POSTGRES_LISTEN_URL": "postgresql://h/db",
                "EXPONEA_POSTGRES_MAX_CONNECTIONS": "2",
                "EXPONEA_LIMITS_APP_INBOX_CONCURRENCY": "2",
                "EXPONEA_LIMITS_SEGMENTS_WAIT": "0.5",
            }
        )

        assert settings.queue == QueueSettings(max_records=10, when_full="wait", max_age=60, durability="power")
        assert settings.limits == RequestLimits(app_inbox_concurrency=2, segments_wait=0.5)
        assert settings.upload == UploadSettings(
            batch_size=5, requests_per_second=2.5, gzip=True, enabled=False, shared_rate_limit="office"
        )
        assert settings.postgres == PostgresSettings(
            schema="tracking",
            migrate=False,
            transaction_pooling=True,
            listen_url="postgresql://h/db",
            max_connections=2,
        )

    def test_a_database(self) -> None:
        """The URL of a database may have a group beside it, and is not shown."""
        url = f"postgresql://u:{SECRET}@h/db"
        settings = Configuration.from_env({**REQUIRED, "EXPONEA_STORAGE": url, "EXPONEA_APP_GROUP": "group"})

        assert (settings.storage, settings.app_group) == (url, "group")
        assert SECRET not in repr(settings)

    def test_every_setting_but_functions_has_a_variable(self) -> None:
        """All settings that are not functions can be set by the environment."""
        names = [f"EXPONEA_{name.upper()}" for name in attrs.fields_dict(Configuration) if name[0] != "_"]
        names += [f"EXPONEA_QUEUE_{name.upper()}" for name in attrs.fields_dict(QueueSettings)]
        names += [f"EXPONEA_POSTGRES_{name.upper()}" for name in attrs.fields_dict(PostgresSettings)]
        names += [f"EXPONEA_UPLOAD_{name.upper()}" for name in attrs.fields_dict(UploadSettings)]
        names += [f"EXPONEA_LIMITS_{name.upper()}" for name in attrs.fields_dict(RequestLimits)]
        functions = ["CUSTOMER_TOKEN_PROVIDER", "RESOURCE_LOADER", "ENCODER", "NORMALIZE_ID"]
        functions += ["UPLOAD_SESSION_FACTORY", "UPLOAD_SSL"]
        sections = ["QUEUE", "POSTGRES", "UPLOAD", "LIMITS"]
        others = {*(f"EXPONEA_{name}" for name in sections), *(f"EXPONEA_{name}" for name in functions)}

        Configuration.from_env({**dict.fromkeys(set(names) - others, ""), **REQUIRED})

    def test_private_access(self) -> None:
        """Two variables give a `BasicAuth`."""
        assert Configuration.from_env(PRIVATE).authorization_token == BasicAuth("id", SECRET)

    def test_the_mapping_is_json(self) -> None:
        """Projects are objects with a key or private access, and optionally a URL."""
        pair = {"key_id": "id", "secret": SECRET}
        settings = Configuration.from_env(
            mapped(
                {"project_token": "a", "authorization_token": SECRET},
                {"project_token": "b", "authorization_token": pair, "base_url": "https://b.example/"},
            )
        )

        assert settings.project_mapping[EventType.PAYMENT] == (
            ExponeaProject("a", SECRET),
            ExponeaProject("b", BasicAuth("id", SECRET), "https://b.example"),
        )

    def test_an_empty_variable_counts_as_not_set(self) -> None:
        """A variable that a compose file leaves blank has the default."""
        environ = {**REQUIRED, "EXPONEA_BASE_URL": "", "EXPONEA_QUEUE_MAX_RECORDS": "", "EXPONEA_BASIC_AUTH_SECRET": ""}

        assert Configuration.from_env(environ) == Configuration.from_env(REQUIRED)


class TestOverrides:
    def test_an_argument_takes_precedence_over_its_variable(self) -> None:
        """The variable is not parsed at all."""
        environ = {**REQUIRED, "EXPONEA_SESSION_TIMEOUT": "nonsense", "EXPONEA_QUEUE_MAX_RECORDS": "nonsense"}

        settings = Configuration.from_env(environ, session_timeout=5, queue=QueueSettings(max_records=7))

        assert (settings.session_timeout, settings.queue.max_records) == (5.0, 7)

    def test_an_argument_replaces_a_missing_variable(self) -> None:
        """All settings can be given as arguments."""
        settings = Configuration.from_env({}, project_token="p", authorization_token=BasicAuth("i", SECRET))

        assert settings.authorization_token == BasicAuth("i", SECRET)

    def test_credentials_given_as_an_argument_replace_both_forms(self) -> None:
        """Neither the variable of the key nor those of private access are read."""
        environ = {**PRIVATE, **REQUIRED}

        assert Configuration.from_env(environ, authorization_token="k").authorization_token == "k"

    def test_a_function_is_given_as_an_argument(self) -> None:
        """Functions can't come from the environment."""

        async def provide() -> str:
            return SECRET

        assert Configuration.from_env(REQUIRED, customer_token_provider=provide).customer_token_provider is provide

    def test_the_error_of_an_argument_names_the_argument(self) -> None:
        """It does not name the variable, which was not read."""
        assert error_of(REQUIRED, session_timeout=-1).field == "session_timeout"
        assert error_of({**REQUIRED, "EXPONEA_BASE_URL": "x"}, base_url="y").field == "base_url"


class TestErrors:
    @pytest.mark.parametrize(
        ("environ", "missing"),
        [
            ({}, "EXPONEA_PROJECT_TOKEN"),
            ({"EXPONEA_AUTHORIZATION_TOKEN": SECRET}, "EXPONEA_PROJECT_TOKEN"),
            ({"EXPONEA_PROJECT_TOKEN": "main"}, "EXPONEA_AUTHORIZATION_TOKEN"),
            ({**PRIVATE, "EXPONEA_BASIC_AUTH_KEY_ID": ""}, "EXPONEA_BASIC_AUTH_KEY_ID"),
            ({**PRIVATE, "EXPONEA_BASIC_AUTH_SECRET": ""}, "EXPONEA_BASIC_AUTH_SECRET"),
        ],
    )
    def test_the_error_names_the_missing_variable(self, environ: dict[str, str], missing: str) -> None:
        """The error says which variable to set."""
        error = error_of(environ)

        assert (error.field, f"{missing}: is missing." in str(error)) == (missing, True)

    @pytest.mark.parametrize(
        ("name", "hint"),
        [
            ("EXPONEA_PROJECT_TOKN", "Did you mean EXPONEA_PROJECT_TOKEN?"),
            ("EXPONEA_AUTHORISATION_TOKEN", "Did you mean EXPONEA_AUTHORIZATION_TOKEN?"),
            ("EXPONEA_QUEUE_MAX_RECORD", "Did you mean EXPONEA_QUEUE_MAX_RECORDS?"),
            ("EXPONEA_base_url", "Did you mean EXPONEA_BASE_URL?"),
            ("EXPONEA_ZZZ", "Remove it."),
            ("EXPONEA_CUSTOMER_TOKEN_PROVIDER", "Pass the object itself as an argument of from_env()."),
        ],
    )
    def test_unknown_variables_are_reported(self, name: str, hint: str) -> None:
        """The error of a misspelled variable names the one that was probably meant, and does not show the value."""
        error = error_of({**REQUIRED, name: SECRET})

        assert (error.field, hint in str(error)) == (name, True)

    @pytest.mark.parametrize(
        ("name", "value", "trouble"),
        [
            ("EXPONEA_PROJECT_TOKEN", f"{SECRET}_", "must consist of ASCII letters, digits and '-'"),
            ("EXPONEA_PROJECT_TOKEN", " ", "must not be blank"),
            ("EXPONEA_AUTHORIZATION_TOKEN", f"Token {SECRET}", "must not begin with the name of a scheme"),
            ("EXPONEA_BASE_URL", f"https://u:{SECRET}@h.example", "credentials"),
            ("EXPONEA_STORAGE", f"rdis://:{SECRET}@h", "must be a file path"),
            ("EXPONEA_STORAGE", f"postgresql+asyncpg://u:{SECRET}@h", "must not name a driver"),
            ("EXPONEA_STORAGE", f"postgresql://u:{SECRET}@h:x", "must have a valid host and port"),
            ("EXPONEA_POSTGRES_LISTEN_URL", f"http://u:{SECRET}@h", "begins with 'postgresql://'"),
            ("EXPONEA_POSTGRES_SCHEMA", "pg_x", "must not begin with 'pg_'"),
            ("EXPONEA_POSTGRES_MAX_CONNECTIONS", "0", "must be at least 1, got 0"),
            ("EXPONEA_UPLOAD_ENABLED", "never", "expected true or false, got 'never'"),
            ("EXPONEA_UPLOAD_SHARED_RATE_LIMIT", "a b", "must consist of 1 to 100 ASCII letters"),
            ("EXPONEA_DEFAULT_PROPERTIES", f'["{SECRET}"]', "expected a JSON object"),
            ("EXPONEA_DEFAULT_PROPERTIES", f"{{{SECRET}", "expected a JSON object"),
            ("EXPONEA_DEFAULT_PROPERTIES", "[" * 100_000, "expected a JSON object"),
            ("EXPONEA_DEFAULT_PROPERTIES", f'{{"": "{SECRET}"}}', "must have non-empty strings as keys"),
            ("EXPONEA_SESSION_TIMEOUT", "soon", "expected a number, got 'soon'"),
            ("EXPONEA_SESSION_TIMEOUT", "nan", "must be finite, got nan"),
            ("EXPONEA_FLUSH_MAX_RETRIES", "1.5", "expected an integer, got '1.5'"),
            ("EXPONEA_FLUSH_MAX_RETRIES", "0", "must be at least 1, got 0"),
            ("EXPONEA_FLUSH_MAX_RETRIES", "9" * 5000, "expected an integer, got "),
            ("EXPONEA_FLUSH_MODE", "SOMETIMES", "Use one of IMMEDIATE, PERIOD"),
            ("EXPONEA_UPLOAD_GZIP", "maybe", "expected true or false, got 'maybe'"),
            ("EXPONEA_UPLOAD_BATCH_SIZE", "51", "must be at most 50, got 51"),
            ("EXPONEA_UPLOAD_BACKOFF_MAX", "0.1", "must be at least backoff_initial, 0.5, got 0.1"),
            ("EXPONEA_QUEUE_WHEN_FULL", "panic", "expected a known value, got 'panic'"),
            ("EXPONEA_APPLICATION_ID", "App", "must consist of lower-case ASCII letters"),
            ("EXPONEA_PROJECT_MAPPING", f'["{SECRET}"]', "expected a JSON object"),
            ("EXPONEA_PROJECT_MAPPING", '{"PAYMNT": []}', "Did you mean PAYMENT?"),
            ("EXPONEA_OTHER_PROJECTS", '{"a": 1}', "expected a JSON list"),
            ("EXPONEA_OTHER_PROJECTS", f"[{SECRET}", "expected a JSON list"),
        ],
        ids=lambda value: value[:40],
    )
    def test_the_error_names_the_variable(self, name: str, value: str, trouble: str) -> None:
        """The error says which variable is invalid and why, and does not show a secret."""
        error = error_of({**REQUIRED, name: value})

        assert error.field == name
        assert str(error).startswith(f"{name}: ")
        assert trouble in str(error)

    @pytest.mark.parametrize(
        ("project", "rest"),
        [
            (SECRET, "[PAYMENT][1]"),
            ({"project_token": "b", "authorization_token": SECRET, "extra": 1}, "[PAYMENT][1]"),
            ({"authorization_token": SECRET}, "[PAYMENT][1].project_token"),
            ({"project_token": "b"}, "[PAYMENT][1].authorization_token"),
            ({"project_token": "b", "authorization_token": f"Token {SECRET}"}, "[PAYMENT][1].authorization_token"),
            (
                {"project_token": "b", "authorization_token": {"key_id": SECRET}},
                "[PAYMENT][1].authorization_token.secret",
            ),
            ({"project_token": "b", "authorization_token": SECRET, "base_url": "x"}, "[PAYMENT][1].base_url"),
            ({"project_token": "main", "authorization_token": "other"}, "[PAYMENT][1].authorization_token"),
        ],
    )
    def test_the_error_names_the_index_of_the_project(self, project: Any, rest: str) -> None:
        """The path has the variable, the event type, the index and the field."""
        error = error_of(mapped({"project_token": "a", "authorization_token": SECRET}, project))

        assert error.field == f"EXPONEA_PROJECT_MAPPING{rest}"

    def test_other_projects(self) -> None:
        """They are a JSON list of objects; an error names the index and the field."""
        good, bad = {"project_token": "a", "authorization_token": SECRET}, {"project_token": "b"}
        settings = Configuration.from_env({**REQUIRED, "EXPONEA_OTHER_PROJECTS": json.dumps([good])})

        assert settings.other_projects == (ExponeaProject("a", SECRET),)
        error = error_of({**REQUIRED, "EXPONEA_OTHER_PROJECTS": json.dumps([good, bad])})
        assert error.field == "EXPONEA_OTHER_PROJECTS[1].authorization_token"

    def test_projects_must_be_in_a_list(self) -> None:
        """A single object raises an error that names the event type."""
        environ = {**REQUIRED, "EXPONEA_PROJECT_MAPPING": json.dumps({"PAYMENT": {"authorization_token": SECRET}})}

        assert error_of(environ).field == "EXPONEA_PROJECT_MAPPING[PAYMENT]"

    def test_a_key_and_private_access_exclude_each_other(self) -> None:
        """The error says to set one of the two."""
        error = error_of({**PRIVATE, **REQUIRED})

        assert (error.field, "Set one of the two." in str(error)) == ("EXPONEA_AUTHORIZATION_TOKEN", True)

    @pytest.mark.parametrize(
        ("name", "value"), [("EXPONEA_BASIC_AUTH_SECRET", f"{SECRET}\n"), ("EXPONEA_BASIC_AUTH_KEY_ID", "a:b")]
    )
    def test_private_access_is_validated(self, name: str, value: str) -> None:
        """The error names the variable of the id or of the secret."""
        assert error_of({**PRIVATE, name: value}).field == name


def test_the_path_of_an_invalid_value_follows_the_variable() -> None:
    """An error about a value inside a mapping names the variable, then the path."""
    variables = {**REQUIRED, "EXPONEA_DEFAULT_PROPERTIES": json.dumps({"cart": {"text": "x" * 20_000}})}
    with pytest.raises(ConfigurationError) as caught:
        Configuration.from_env(variables)

    assert caught.value.field == "EXPONEA_DEFAULT_PROPERTIES.cart"
