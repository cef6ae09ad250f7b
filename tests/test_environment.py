"""
Settings from ``EXPONEA_*`` variables.
"""

import json
from typing import Any

import attrs
import pytest

from exponea_async.config import BasicAuth, Configuration, ExponeaProject, QueueSettings, UploadSettings
from exponea_async.errors import ConfigurationError
from exponea_async.models import EventType, FlushMode, TokenFrequency

SECRET = "s3cret"
ENOUGH = {"EXPONEA_PROJECT_TOKEN": "main", "EXPONEA_AUTHORIZATION_TOKEN": SECRET}
PRIVATE = {
    "EXPONEA_PROJECT_TOKEN": "main",
    "EXPONEA_BASIC_AUTH_KEY_ID": "id",
    "EXPONEA_BASIC_AUTH_SECRET": SECRET,
}


def refusal(environ: dict[str, str], **overrides: Any) -> ConfigurationError:
    """Tell the error, after a look that no secret is anywhere in it."""
    with pytest.raises(ConfigurationError) as caught:
        Configuration.from_env(environ, **overrides)
    seen: BaseException | None = caught.value
    while seen:
        assert SECRET not in f"{seen!r} {seen}"
        seen = seen.__cause__ or seen.__context__
    return caught.value


def mapped(*projects: Any) -> dict[str, str]:
    return {**ENOUGH, "EXPONEA_PROJECT_MAPPING": json.dumps({"PAYMENT": projects})}


class TestReading:
    def test_two_variables_are_enough(self) -> None:
        """The rest has its defaults."""
        assert Configuration.from_env(ENOUGH) == Configuration(project_token="main", authorization_token=SECRET)

    def test_the_variables_of_the_process_are_read_by_default(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without an argument it is the environment."""
        for name, value in ENOUGH.items():
            monkeypatch.setenv(name, value)

        assert Configuration.from_env(flush_mode="MANUAL").project_token == "main"

    def test_every_kind_of_field_has_its_text(self) -> None:
        """Texts, numbers, switches, choices, lists and objects are read as what they are."""
        settings = Configuration.from_env(
            {
                **ENOUGH,
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
                "OTHER": "is none of our business",
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
        """Queue and upload are read field by field."""
        settings = Configuration.from_env(
            {
                **ENOUGH,
                "EXPONEA_QUEUE_MAX_RECORDS": "10",
                "EXPONEA_QUEUE_WHEN_FULL": "wait",
                "EXPONEA_QUEUE_MAX_AGE": "60",
                "EXPONEA_QUEUE_DURABILITY": "power",
                "EXPONEA_UPLOAD_BATCH_SIZE": "5",
                "EXPONEA_UPLOAD_REQUESTS_PER_SECOND": "2.5",
                "EXPONEA_UPLOAD_GZIP": "yes",
            }
        )

        assert settings.queue == QueueSettings(max_records=10, when_full="wait", max_age=60, durability="power")
        assert settings.upload == UploadSettings(batch_size=5, requests_per_second=2.5, gzip=True)

    def test_every_setting_but_code_has_a_variable(self) -> None:
        """A variable for each field is known, so that no setting needs code."""
        names = [f"EXPONEA_{name.upper()}" for name in attrs.fields_dict(Configuration) if name[0] != "_"]
        names += [f"EXPONEA_QUEUE_{name.upper()}" for name in attrs.fields_dict(QueueSettings)]
        names += [f"EXPONEA_UPLOAD_{name.upper()}" for name in attrs.fields_dict(UploadSettings)]
        others = {"EXPONEA_QUEUE", "EXPONEA_UPLOAD", "EXPONEA_CUSTOMER_TOKEN_PROVIDER", "EXPONEA_RESOURCE_LOADER"}

        Configuration.from_env({**dict.fromkeys(set(names) - others, ""), **ENOUGH})

    def test_private_access(self) -> None:
        """A pair of variables makes a `BasicAuth`."""
        assert Configuration.from_env(PRIVATE).authorization_token == BasicAuth("id", SECRET)

    def test_the_mapping_is_json(self) -> None:
        """Projects are objects, with a key or private access and perhaps an address."""
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
        """As compose files have it, what is left blank is the default."""
        environ = {**ENOUGH, "EXPONEA_BASE_URL": "", "EXPONEA_QUEUE_MAX_RECORDS": "", "EXPONEA_BASIC_AUTH_SECRET": ""}

        assert Configuration.from_env(environ) == Configuration.from_env(ENOUGH)


class TestOverrides:
    def test_an_argument_wins_over_its_variable(self) -> None:
        """The variable is not even read."""
        environ = {**ENOUGH, "EXPONEA_SESSION_TIMEOUT": "nonsense", "EXPONEA_QUEUE_MAX_RECORDS": "nonsense"}

        settings = Configuration.from_env(environ, session_timeout=5, queue=QueueSettings(max_records=7))

        assert (settings.session_timeout, settings.queue.max_records) == (5.0, 7)

    def test_an_argument_stands_for_what_is_missing(self) -> None:
        """Nothing need be in the environment."""
        settings = Configuration.from_env({}, project_token="p", authorization_token=BasicAuth("i", SECRET))

        assert settings.authorization_token == BasicAuth("i", SECRET)

    def test_access_given_as_an_argument_wins_over_both_forms(self) -> None:
        """Neither the key's variable nor the pair's is read."""
        environ = {**PRIVATE, **ENOUGH}

        assert Configuration.from_env(environ, authorization_token="k").authorization_token == "k"

    def test_code_comes_as_an_argument(self) -> None:
        """A provider of tokens can't be a variable, so it is one of the arguments."""

        async def provide() -> str:
            return SECRET

        assert Configuration.from_env(ENOUGH, customer_token_provider=provide).customer_token_provider is provide

    def test_a_wrong_argument_keeps_its_own_name(self) -> None:
        """The error names the argument and no variable."""
        assert refusal(ENOUGH, session_timeout=-1).field == "session_timeout"
        assert refusal({**ENOUGH, "EXPONEA_BASE_URL": "x"}, base_url="y").field == "base_url"


class TestRefusals:
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
    def test_what_is_missing_is_named(self, environ: dict[str, str], missing: str) -> None:
        """The variable to set stands in the error."""
        error = refusal(environ)

        assert (error.field, f"{missing}: it is missing." in str(error)) == (missing, True)

    @pytest.mark.parametrize(
        ("name", "hint"),
        [
            ("EXPONEA_PROJECT_TOKN", "Did you mean EXPONEA_PROJECT_TOKEN?"),
            ("EXPONEA_AUTHORISATION_TOKEN", "Did you mean EXPONEA_AUTHORIZATION_TOKEN?"),
            ("EXPONEA_QUEUE_MAX_RECORD", "Did you mean EXPONEA_QUEUE_MAX_RECORDS?"),
            ("EXPONEA_base_url", "Did you mean EXPONEA_BASE_URL?"),
            ("EXPONEA_ZZZ", "Remove it."),
            ("EXPONEA_CUSTOMER_TOKEN_PROVIDER", "pass it to from_env() as an argument"),
        ],
    )
    def test_an_unknown_variable_is_refused(self, name: str, hint: str) -> None:
        """A typo is found, with what was probably meant, and what it held is not shown."""
        error = refusal({**ENOUGH, name: SECRET})

        assert (error.field, hint in str(error)) == (name, True)

    @pytest.mark.parametrize(
        ("name", "text", "words"),
        [
            ("EXPONEA_PROJECT_TOKEN", f"{SECRET}_", "has characters that no project token has"),
            ("EXPONEA_PROJECT_TOKEN", " ", "it is blank"),
            ("EXPONEA_AUTHORIZATION_TOKEN", f"Token {SECRET}", "name of a scheme"),
            ("EXPONEA_BASE_URL", f"https://u:{SECRET}@h.example", "credentials"),
            ("EXPONEA_STORAGE", f"rdis://:{SECRET}@h", "must be a file path"),
            ("EXPONEA_DEFAULT_PROPERTIES", f'["{SECRET}"]', "not a JSON object"),
            ("EXPONEA_DEFAULT_PROPERTIES", f"{{{SECRET}", "not a JSON object"),
            ("EXPONEA_DEFAULT_PROPERTIES", "[" * 100_000, "not a JSON object"),
            ("EXPONEA_DEFAULT_PROPERTIES", f'{{"": "{SECRET}"}}', "no text, or empty"),
            ("EXPONEA_SESSION_TIMEOUT", "soon", "'soon' is not a number"),
            ("EXPONEA_SESSION_TIMEOUT", "nan", "not finite"),
            ("EXPONEA_FLUSH_MAX_RETRIES", "1.5", "'1.5' is not a whole number"),
            ("EXPONEA_FLUSH_MAX_RETRIES", "0", "too small"),
            ("EXPONEA_FLUSH_MAX_RETRIES", "9" * 5000, "not a whole number"),
            ("EXPONEA_FLUSH_MODE", "SOMETIMES", "Use one of IMMEDIATE, PERIOD"),
            ("EXPONEA_UPLOAD_GZIP", "maybe", "neither true nor false"),
            ("EXPONEA_UPLOAD_BATCH_SIZE", "51", "too large"),
            ("EXPONEA_UPLOAD_BACKOFF_MAX", "0.1", "below backoff_initial"),
            ("EXPONEA_QUEUE_WHEN_FULL", "panic", "'panic' is not known"),
            ("EXPONEA_APPLICATION_ID", "App", "'App' has another form"),
            ("EXPONEA_PROJECT_MAPPING", f'["{SECRET}"]', "not a JSON object"),
            ("EXPONEA_PROJECT_MAPPING", '{"PAYMNT": []}', "Did you mean PAYMENT?"),
        ],
        ids=lambda text: text[:40],
    )
    def test_a_wrong_text_is_refused_by_its_variable(self, name: str, text: str, words: str) -> None:
        """The error names the variable as the user wrote it, what is wrong, and no secret."""
        error = refusal({**ENOUGH, name: text})

        assert error.field == name
        assert str(error).startswith(f"{name}: ")
        assert words in str(error)

    @pytest.mark.parametrize(
        ("described", "rest"),
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
    def test_a_wrong_project_is_found_by_its_place(self, described: Any, rest: str) -> None:
        """The variable, the event type, the number and the field lead to the trouble."""
        error = refusal(mapped({"project_token": "a", "authorization_token": SECRET}, described))

        assert error.field == f"EXPONEA_PROJECT_MAPPING{rest}"

    def test_projects_stand_in_a_list(self) -> None:
        """One object alone is told what it should be in."""
        environ = {**ENOUGH, "EXPONEA_PROJECT_MAPPING": json.dumps({"PAYMENT": {"authorization_token": SECRET}})}

        assert refusal(environ).field == "EXPONEA_PROJECT_MAPPING[PAYMENT]"

    def test_a_key_and_private_access_are_one_too_many(self) -> None:
        """Which of the two is meant can't be guessed."""
        error = refusal({**PRIVATE, **ENOUGH})

        assert (error.field, "Set one of the two." in str(error)) == ("EXPONEA_AUTHORIZATION_TOKEN", True)

    @pytest.mark.parametrize(
        ("name", "text"), [("EXPONEA_BASIC_AUTH_SECRET", f"{SECRET}\n"), ("EXPONEA_BASIC_AUTH_KEY_ID", "a:b")]
    )
    def test_private_access_is_checked(self, name: str, text: str) -> None:
        """Each half is named by its variable."""
        assert refusal({**PRIVATE, name: text}).field == name
