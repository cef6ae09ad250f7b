"""
The tree of errors: what each is, says and knows.
"""

import copy
import inspect
import pickle

import pytest

from exponea_async import errors
from exponea_async.errors import (
    ClosedError,
    ConfigurationError,
    DamagedFileError,
    DeliveryError,
    DeliveryTimeoutError,
    DroppedError,
    ExponeaError,
    InvalidEventError,
    LifecycleError,
    NotStartedError,
    ProjectPausedError,
    QueueFullError,
    RejectedError,
    RequestRefusedError,
    StateConflictError,
    StorageError,
    UnavailableError,
)

EXAMPLES: list[ExponeaError] = [
    ExponeaError("It failed.", hint="Mend it."),
    ConfigurationError("base_url", "it is blank", "Use an address."),
    InvalidEventError("properties.items[3].price", "nan is no finite number", "Leave it out."),
    LifecycleError("Not now."),
    NotStartedError("Not yet."),
    ClosedError("No more."),
    StorageError("The disk is full.", hint="Make room."),
    QueueFullError("No room."),
    StateConflictError("device:default"),
    DamagedFileError("a.sqlite", "a.sqlite.damaged", "not a database"),
    DeliveryError("Not delivered."),
    RejectedError("no such event"),
    DroppedError("before_track"),
    ProjectPausedError("https://p.example", 401, "HTTP 401"),
    UnavailableError("HTTP 503", status=503, retry_after=2.0),
    RequestRefusedError("HTTP 403", status=403),
    DeliveryTimeoutError("No verdict after 3 seconds."),
]


def test_there_is_an_example_of_each() -> None:
    """The examples of these tests are all the classes there are."""
    kinds = {kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)}

    assert {type(each) for each in EXAMPLES} == kinds


def test_the_tree_at_the_head_is_the_tree() -> None:
    """The drawing in the docstring names every class, with the built-in it resembles."""
    drawing = errors.__doc__ or ""
    for each in EXAMPLES:
        builtin = [base.__name__ for base in type(each).__bases__ if base.__module__ == "builtins"]
        name = type(each).__name__
        assert (f"{name} ({builtin[0]})" if builtin and name != "ExponeaError" else name) in drawing


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (ConfigurationError, ValueError),
        (InvalidEventError, ValueError),
        (NotStartedError, RuntimeError),
        (ClosedError, RuntimeError),
        (QueueFullError, OSError),
        (DamagedFileError, OSError),
        (DeliveryTimeoutError, TimeoutError),
    ],
)
def test_errors_are_what_they_resemble(kind: type[Exception], builtin: type[Exception]) -> None:
    """Who catches the built-in catches ours, and the root catches all."""
    assert issubclass(kind, builtin)
    assert issubclass(kind, ExponeaError)


def test_the_class_says_whether_trying_again_can_help() -> None:
    """What may pass by itself is retryable, what needs a change is not."""
    assert {type(each) for each in EXAMPLES if each.retryable} == {
        StorageError,
        QueueFullError,
        StateConflictError,
        UnavailableError,
        DeliveryTimeoutError,
    }


def test_messages_tell_trouble_and_remedy() -> None:
    """The text has the place, what is wrong there, and what would be right."""
    told = {type(each): str(each) for each in EXAMPLES}

    assert told[ExponeaError] == "It failed. Mend it."
    assert told[ConfigurationError] == "base_url: it is blank. Use an address."
    assert told[InvalidEventError] == "properties.items[3].price: nan is no finite number. Leave it out."
    assert told[StorageError] == "The disk is full. Make room."
    assert told[DeliveryTimeoutError] == "No verdict after 3 seconds."
    assert told[DamagedFileError].startswith("The queue file a.sqlite is damaged (not a database); it now lies at")


def test_a_part_tells_its_place_in_the_whole() -> None:
    """The path gets longer, and the rest of the message stays."""
    error = InvalidEventError("properties.a", "nan is no finite number", "Leave it out.").within("events[3]")

    assert error.path == "events[3].properties.a"
    assert str(error) == "events[3].properties.a: nan is no finite number. Leave it out."


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_errors_travel_between_processes(error: ExponeaError) -> None:
    """A pickled or copied error is the same error, with its facts."""
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is type(error)
        assert (str(twin), vars(twin), twin.args) == (str(error), vars(error), error.args)
