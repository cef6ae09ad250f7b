"""
Settings: what is taken, what is refused and how, and what is never shown.
"""

import copy
import math
import pickle
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs
import pytest
from attrs import evolve

from exponea_async.config import (
    BasicAuth,
    Configuration,
    ConfigurationChange,
    ExponeaProject,
    QueueSettings,
    UploadSettings,
)
from exponea_async.errors import ConfigurationError
from exponea_async.models import EventType, FlushMode, TokenFrequency

SECRET = "s3cret"


def configuration(**settings: Any) -> Configuration:
    return Configuration(**{"project_token": "main", "authorization_token": "key"} | settings)


def refusal(make: Callable[..., Any], **settings: Any) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        make(**settings)
    assert caught.value.hint
    assert str(caught.value) == f"{str(caught.value).removesuffix(caught.value.hint).rstrip()} {caught.value.hint}"
    return caught.value


def project(token: str = "p", key: str | BasicAuth = "key", base_url: str | None = None) -> ExponeaProject:
    return ExponeaProject(token, key, base_url)


class TestDefaults:
    def test_two_settings_are_enough(self) -> None:
        """With a project and a key everything else has the documented default."""
        settings = configuration()

        told = {name: getattr(settings, name) for name in attrs.fields_dict(Configuration) if name[0] != "_"}
        assert told == {
            "project_token": "main",
            "authorization_token": "key",
            "base_url": "https://api.exponea.com",
            "project_mapping": {},
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
            "application_id": "default-application",
            "app_version": None,
            "app_group": None,
            "customer_token_provider": None,
            "push_token_storage": "event",
            "in_app_content_block_placeholders_auto_load": (),
            "message_platform": "android",
            "preload_messages": True,
            "resource_loader": None,
            "storage": None,
            "queue": QueueSettings(max_records=1_000_000, when_full="raise", max_age=2_592_000, durability="process"),
            "upload": UploadSettings(
                batch_size=50,
                max_batch_bytes=1_000_000,
                concurrency=4,
                requests_per_second=100,
                request_timeout=30,
                backoff_initial=0.5,
                backoff_max=60,
                linger=0.02,
                gzip=False,
            ),
        }

    @pytest.mark.parametrize("value", [configuration(), QueueSettings(), UploadSettings(), project()])
    def test_settings_are_frozen(self, value: Any) -> None:
        """No setting can be changed after construction."""
        for name in attrs.fields_dict(type(value)):
            with pytest.raises(attrs.exceptions.FrozenInstanceError):
                setattr(value, name, None)

    def test_settings_are_named(self) -> None:
        """Positions mean nothing in long lists, so they are not taken."""
        kinds: list[Any] = [Configuration, QueueSettings, UploadSettings]
        for kind in kinds:
            with pytest.raises(TypeError, match="positional"):
                kind("main", "key")


class TestProjectToken:
    @pytest.mark.parametrize("token", ["a", "A-1", "5a1c2c0e-4d1c-4b0d-9c39-5d5b2f1a7e10"])
    def test_ascii_letters_digits_and_dashes_are_taken(self, token: str) -> None:
        """The platform's tokens pass as they are."""
        assert configuration(project_token=token).project_token == token

    @pytest.mark.parametrize(
        ("token", "trouble"),
        [
            (None, "it is missing"),
            (5, "it is not a text"),
            ("", "it is blank"),
            (" \n", "it is blank"),
            ("a b", "has characters"),
            ("tök", "has characters"),
            ("a_b", "has characters"),
            ("token\n", "has characters"),
            ("a/../b", "has characters"),
        ],
    )
    def test_others_are_refused(self, token: Any, trouble: str) -> None:
        """Main or mapped, a wrong token is refused by name."""
        for make in (configuration, lambda project_token: ExponeaProject(project_token, "key")):
            error = refusal(make, project_token=token)
            assert (error.field, trouble in str(error)) == ("project_token", True)

    def test_the_value_is_not_shown(self) -> None:
        """A key that was put in the wrong place stays unseen."""
        assert SECRET not in str(refusal(configuration, project_token=f"{SECRET}_"))


class TestAuthorization:
    @pytest.mark.parametrize("key", ["key", "a.b-c_d~+/=", "Tokens", "tokenbasic"])
    def test_a_bare_key_is_taken(self, key: str) -> None:
        """What an HTTP header can hold passes."""
        assert configuration(authorization_token=key).authorization_token == key

    @pytest.mark.parametrize(
        ("key", "trouble"),
        [
            (None, "it is missing"),
            ("", "it is blank"),
            ("  ", "it is blank"),
            (b"s3cret", "neither a text nor BasicAuth"),
            (("id", SECRET), "neither a text nor BasicAuth"),
            (f"Token {SECRET}", "name of a scheme"),
            (f"token\t{SECRET}", "name of a scheme"),
            (f"Basic {SECRET}", "name of a scheme"),
            (f"BEARER {SECRET}", "name of a scheme"),
            (f"{SECRET}\r\nX-Evil: 1", "whitespace, control or non-ASCII"),
            (f"{SECRET} ", "whitespace, control or non-ASCII"),
            (f"{SECRET}é", "whitespace, control or non-ASCII"),
        ],
    )
    def test_others_are_refused_unseen(self, key: Any, trouble: str) -> None:
        """Main or mapped, the error tells what to pass, and never the key."""
        for make in (configuration, lambda authorization_token: project(key=authorization_token)):
            error = refusal(make, authorization_token=key)
            assert (error.field, trouble in str(error)) == ("authorization_token", True)
            assert "bare public API key" in error.hint
            assert "BasicAuth(key_id, secret)" in error.hint
            assert SECRET not in repr(error)

    @pytest.mark.parametrize(
        ("pair", "field", "trouble"),
        [
            ((None, SECRET), "key_id", "it is missing"),
            (("id", None), "secret", "it is missing"),
            (("id", ""), "secret", "it is blank"),
            ((5, SECRET), "key_id", "it is not a text"),
            (("a:b", SECRET), "key_id", "colon"),
            (("id", f"{SECRET}\n"), "secret", "whitespace"),
        ],
    )
    def test_private_access_is_checked_as_well(self, pair: tuple[Any, Any], field: str, trouble: str) -> None:
        """Both halves must be what a header can hold, and the id has no colon."""
        error = refusal(lambda: BasicAuth(*pair))

        assert (error.field, trouble in str(error), SECRET in repr(error)) == (field, True, False)

    def test_no_secret_is_ever_shown(self) -> None:
        """Neither str nor repr of anything that holds a secret has it."""
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
        ("given", "kept"),
        [
            (None, "https://api.exponea.com"),
            ("https://h.example", "https://h.example"),
            ("https://h.example///", "https://h.example"),
            ("http://localhost:8080/a/b/", "http://localhost:8080/a/b"),
            ("http://127.0.0.1:1", "http://127.0.0.1:1"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("https://bücher.example", "https://bücher.example"),
            ("https://under_score.example.", "https://under_score.example."),
        ],
    )
    def test_absolute_addresses_are_taken(self, given: str | None, kept: str) -> None:
        """Scheme, host and perhaps a path pass, without slashes at the end; None is the default."""
        assert configuration(base_url=given).base_url == kept

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
    def test_others_are_refused(self, address: Any) -> None:
        """What no request could go to is refused at once, by name."""
        for make in (configuration, lambda base_url: project(base_url=base_url)):
            error = refusal(make, base_url=address)
            assert (error.field, "https://api.exponea.com" in error.hint) == ("base_url", True)

    def test_credentials_are_refused_unseen(self) -> None:
        """An address is shown in logs, so it holds no secret, and the error does not either."""
        for address in (f"https://u:{SECRET}@h.example", f"https://h.example?key={SECRET}"):
            assert SECRET not in str(refusal(configuration, base_url=address))


class TestApplicationId:
    @pytest.mark.parametrize("given", ["app", "com.example.shop", "shop-2", "a.b-c", "default-application", "a" * 50])
    def test_the_platforms_form_is_taken(self, given: str) -> None:
        """Lower-case words with single separators pass."""
        assert configuration(application_id=given).application_id == given

    @pytest.mark.parametrize("given", [None, ""])
    def test_nothing_is_the_default(self, given: str | None) -> None:
        """None and the empty text are what the vendor's SDKs make of them."""
        assert configuration(application_id=given).application_id == "default-application"

    @pytest.mark.parametrize(
        "given", ["-a", "a-", "a..b", "a--b", "a.-b", "a_b", "App", "é", "a b", "app\n", "a" * 51, 5]
    )
    def test_others_are_refused(self, given: Any) -> None:
        """The error names the form and the length."""
        error = refusal(configuration, application_id=given)

        assert (error.field, "at most 50" in error.hint) == ("application_id", True)


NOT_NUMBERS: list[Any] = [None, "5", True, math.nan, math.inf, -math.inf, -1, 10**400, -timedelta(seconds=1)]
DURATIONS: list[tuple[Callable[..., Any], str]] = [
    (configuration, "session_timeout"),
    (configuration, "flush_period"),
    (QueueSettings, "max_age"),
    (UploadSettings, "request_timeout"),
    (UploadSettings, "backoff_initial"),
    (UploadSettings, "backoff_max"),
    (UploadSettings, "linger"),
]


class TestNumbers:
    @pytest.mark.parametrize(("make", "name"), DURATIONS)
    @pytest.mark.parametrize("given", [30, 30.0, timedelta(seconds=30)])
    def test_durations_are_seconds(self, make: Callable[..., Any], name: str, given: Any) -> None:
        """A number or a timedelta is kept as float seconds."""
        kept = getattr(make(**{name: given}), name)

        assert (type(kept), kept) == (float, 30.0)

    @pytest.mark.parametrize(("make", "name"), [*DURATIONS, (UploadSettings, "requests_per_second")])
    @pytest.mark.parametrize("given", NOT_NUMBERS)
    def test_other_durations_are_refused(self, make: Callable[..., Any], name: str, given: Any) -> None:
        """What is no finite number, or a negative one, is refused by name."""
        assert refusal(make, **{name: given}).field == name

    def test_zero_is_a_duration_only_where_it_makes_sense(self) -> None:
        """A session may end at once and a burst need not be waited for; nothing else takes no time."""
        assert (configuration(session_timeout=0).session_timeout, UploadSettings(linger=0).linger) == (0.0, 0.0)
        for make, name in [*DURATIONS[1:-1], (UploadSettings, "requests_per_second")]:
            assert "too small" in str(refusal(make, **{name: 0}))

    @pytest.mark.parametrize(
        ("make", "name", "least"),
        [
            (configuration, "flush_max_retries", 1),
            (QueueSettings, "max_records", 1),
            (UploadSettings, "batch_size", 1),
            (UploadSettings, "concurrency", 1),
            (UploadSettings, "max_batch_bytes", 821_000),
        ],
    )
    def test_counts_are_whole_numbers_within_bounds(self, make: Callable[..., Any], name: str, least: int) -> None:
        """The least passes, and what is below it, or no int, is refused by name."""
        assert getattr(make(**{name: least}), name) == least
        for wrong in (least - 1, -1, float(least), str(least), True, None):
            assert refusal(make, **{name: wrong}).field == name

    def test_a_batch_has_at_most_fifty(self) -> None:
        """The platform takes no more commands in one request."""
        assert "from 1 to 50" in refusal(UploadSettings, batch_size=51).hint

    def test_the_longest_wait_is_no_shorter_than_the_first(self) -> None:
        """Settings that contradict each other are refused."""
        error = refusal(UploadSettings, backoff_initial=10, backoff_max=5)

        assert (error.field, "backoff_initial, 10.0" in str(error)) == ("backoff_max", True)


class TestChoices:
    def test_enums_may_be_named(self) -> None:
        """A member or its name is the same."""
        settings = configuration(flush_mode="PERIOD", push_token_tracking_frequency="DAILY")

        assert settings == configuration(
            flush_mode=FlushMode.PERIOD, push_token_tracking_frequency=TokenFrequency.DAILY
        )

    @pytest.mark.parametrize(
        ("make", "name", "words"),
        [
            (configuration, "flush_mode", [*FlushMode.__members__]),
            (configuration, "push_token_tracking_frequency", [*TokenFrequency.__members__]),
            (configuration, "push_token_storage", ["event", "property"]),
            (QueueSettings, "when_full", ["raise", "wait", "drop_oldest"]),
            (QueueSettings, "durability", ["process", "power"]),
        ],
    )
    def test_other_words_are_refused(self, make: Callable[..., Any], name: str, words: list[str]) -> None:
        """The error lists the words that there are."""
        for word in words:
            make(**{name: word})
        for wrong in ("", words[0].swapcase(), 5, None, [words[0]], EventType.PAYMENT):
            error = refusal(make, **{name: wrong})
            assert error.field == name
            assert all(word in error.hint for word in words)

    @pytest.mark.parametrize(
        ("make", "name"),
        [
            (configuration, "allow_default_customer_properties"),
            (configuration, "automatic_session_tracking"),
            (configuration, "manual_session_auto_close"),
            (configuration, "automatic_push_notification"),
            (configuration, "require_push_authorization"),
            (UploadSettings, "gzip"),
        ],
    )
    def test_switches_are_bools(self, make: Callable[..., Any], name: str) -> None:
        """What merely counts as true is refused."""
        for wrong in (1, "true", None):
            assert refusal(make, **{name: wrong}).field == name

    @pytest.mark.parametrize(
        ("name", "wrong"),
        [
            ("app_version", ["", " ", 5]),
            ("app_group", ["", 5]),
            ("customer_token_provider", ["jwt", 5]),
            ("resource_loader", ["https://img.example", 5]),
            ("message_platform", ["Android", "web", None, 1]),
            ("preload_messages", ["yes", None, 1]),
            ("in_app_content_block_placeholders_auto_load", ["one", 5, [1], [""], {"a": 1}]),
            ("queue", [None, {}, UploadSettings()]),
            ("upload", [None, {}, QueueSettings()]),
            ("default_properties", [5, "a", [("a", 1)], {1: 2}, {"": 1}]),
        ],
    )
    def test_other_kinds_are_refused(self, name: str, wrong: list[Any]) -> None:
        """Each setting takes its own kind of value."""
        for each in wrong:
            assert refusal(configuration, **{name: each}).field == name

    def test_placeholders_become_a_tuple(self) -> None:
        """Any list of texts will do."""
        settings = configuration(in_app_content_block_placeholders_auto_load=["a", "b"])

        assert settings.in_app_content_block_placeholders_auto_load == ("a", "b")


class TestStorage:
    @pytest.mark.parametrize("storage", ["memory:", "queue.sqlite", "/var/lib/x.sqlite", Path("x")])
    def test_files_and_memory_are_accepted(self, storage: str | Path) -> None:
        """A file path and ``"memory:"`` are stored unchanged."""
        assert configuration(storage=storage).storage == storage

    @pytest.mark.parametrize(
        "storage", ["", " ", "a\0b", 5, b"x", "postgres://h", "redis://h", "unix:///s", "file:///q", "xyz://", "x://[h"]
    )
    def test_other_values_are_refused(self, storage: Any) -> None:
        """A value that is not a path or ``"memory:"`` is refused with the name of the field."""
        assert refusal(configuration, storage=storage).field == "storage"

    def test_an_address_is_refused_without_being_shown(self) -> None:
        """The error says what is accepted, and does not contain the address, which may hold a password."""
        message = str(refusal(configuration, storage=f"xyz://u:{SECRET}@h"))

        assert SECRET not in message
        assert "must be a file path or 'memory:'" in message


class TestDefaultProperties:
    def test_a_copy_is_kept(self) -> None:
        """Later changes of what was given do not reach in, at any depth."""
        given: dict[str, Any] = {"a": 1, "nested": {"b": [1, {"c": 2}]}, "set": {1}}
        settings = configuration(default_properties=given)

        given["a"] = 9
        given["nested"]["b"][1]["c"] = 9
        given["set"].add(2)

        assert settings.default_properties == {"a": 1, "nested": {"b": [1, {"c": 2}]}, "set": {1}}

    def test_the_copy_is_read_only(self) -> None:
        """Nobody changes the settings of others through them."""
        with pytest.raises(TypeError):
            configuration(default_properties={"a": 1}).default_properties["a"] = 2  # type: ignore[index]

    def test_any_mapping_will_do(self) -> None:
        """It need not be a dict, inside neither."""
        given = MappingProxyType({"a": MappingProxyType({"b": (1, 2)})})

        assert configuration(default_properties=given).default_properties == {"a": {"b": (1, 2)}}

    def test_what_cannot_be_copied_is_refused(self) -> None:
        """Cycles and generators are no properties."""
        ring: dict[str, Any] = {}
        ring["ring"] = ring

        for given in (ring, {"a": (n for n in [1])}):
            assert refusal(configuration, default_properties=given).field == "default_properties"


class TestMapping:
    def test_keys_are_event_types_or_their_names(self) -> None:
        """Both spellings mean the same and their projects add up; aliases lead to what they stand for."""
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
        ("mapping", "field", "words"),
        [
            ([], "project_mapping", "a list is no mapping"),
            ({"PAYMNT": []}, "project_mapping", "Did you mean PAYMENT?"),
            ({"payment": []}, "project_mapping", "Did you mean PAYMENT?"),
            ({5: []}, "project_mapping", "Use one of INSTALL,"),
            ({FlushMode.MANUAL: []}, "project_mapping", "is no event type"),
            ({"PAYMENT": project(key=SECRET)}, "project_mapping[PAYMENT]", "is no list of projects"),
            ({"PAYMENT": {"project_token": SECRET}}, "project_mapping[PAYMENT]", "a dict is no list of projects"),
            ({"PAYMENT": [project(), SECRET]}, "project_mapping[PAYMENT][1]", "a str is no project"),
        ],
    )
    def test_others_are_refused(self, mapping: Any, field: str, words: str) -> None:
        """The error names the event type and the place, and shows nothing that may be a secret."""
        error = refusal(configuration, project_mapping=mapping)

        assert (error.field, words in str(error), SECRET in str(error)) == (field, True, False)

    def test_a_wrong_project_is_found_where_it_is_made(self) -> None:
        """A generator's error names the place, too."""
        error = refusal(configuration, project_mapping={"PAYMENT": (project(token) for token in ("ok", "not ok"))})

        assert error.field == "project_mapping[PAYMENT][1].project_token"

    def test_the_main_project_comes_first_and_each_once(self) -> None:
        """Projects are told apart by address and token; mapped ones inherit the main address."""
        settings = configuration(
            base_url="https://h.example",
            project_mapping={
                "PAYMENT": [
                    project("x"),
                    project("main"),
                    project("x", base_url="https://h.example/"),
                    project("x", "other", base_url="https://z.example"),
                ]
            },
        )
        main = ExponeaProject("main", "key", "https://h.example")
        x, z = project("x", base_url="https://h.example"), project("x", "other", base_url="https://z.example")

        assert settings.main == main
        assert settings.projects_for(EventType.PAYMENT) == (main, x, z)
        assert settings.projects_for(EventType.INSTALL) == (main,)
        assert settings.projects == (main, x, z)

    def test_one_project_has_one_key(self) -> None:
        """Two keys for one project are a mistake, found before anything is sent."""
        for mapped in ([project("main", SECRET)], [project("x", "a"), project("x", SECRET)]):
            error = refusal(configuration, project_mapping={"INSTALL": [], "PAYMENT": mapped})
            assert error.field == f"project_mapping[PAYMENT][{len(mapped) - 1}].authorization_token"
            assert SECRET not in str(error)

    def test_the_mapping_is_read_only(self) -> None:
        """It is frozen like the rest."""
        with pytest.raises(TypeError):
            configuration().project_mapping[EventType.PAYMENT] = ()  # type: ignore[index]


class TestChanges:
    def test_a_changed_copy(self) -> None:
        """`attrs.evolve` gives new settings, checked again, and leaves the old ones alone."""
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
        assert refusal(lambda: evolve(before, project_token="")).field == "project_token"

    def test_settings_travel_between_processes(self) -> None:
        """Pickled and deeply copied settings are equal, and route alike."""
        mapping: Any = {"PAYMENT": [project("x", BasicAuth("id", SECRET))]}
        settings = configuration(project_mapping=mapping, default_properties={"a": {"b": [1]}}, flush_mode="MANUAL")

        for value in (settings, ConfigurationChange(project("p"), mapping), ConfigurationChange()):
            for twin in (pickle.loads(pickle.dumps(value)), copy.deepcopy(value), copy.copy(value)):
                assert twin == value
        assert copy.deepcopy(settings).projects_for(EventType.PAYMENT) == settings.projects_for(EventType.PAYMENT)

    def test_nothing_given_keeps_everything(self) -> None:
        """A change that says nothing changes nothing; an empty mapping is something else."""
        assert (ConfigurationChange().project, ConfigurationChange().mapping) == (None, None)
        assert ConfigurationChange(mapping={}).mapping == {}

    def test_a_change_is_checked_like_the_settings(self) -> None:
        """Keys may be names, and what is wrong is named without being shown."""
        change = ConfigurationChange(project("new"), {"PAYMENT": [project("x")]})

        assert change.mapping == {EventType.PAYMENT: (project("x"),)}
        assert refusal(ConfigurationChange, mapping={"PAYMENT": [5]}).field == "mapping[PAYMENT][0]"
        error = refusal(ConfigurationChange, project={"authorization_token": SECRET})
        assert (error.field, SECRET in str(error)) == ("project", False)
