"""
The exceptions: their tree, their messages and their attributes.
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
    GivenUpError,
    InvalidEventError,
    LifecycleError,
    LostError,
    NoSubjectError,
    NotStartedError,
    ProjectPausedError,
    QueueFullError,
    RejectedError,
    RequestRefusedError,
    SchemaError,
    StateConflictError,
    StorageError,
    UnavailableError,
    WipedFileError,
)

EXAMPLES: list[ExponeaError] = [
    ExponeaError("It failed.", hint="Correct it."),
    ConfigurationError("base_url", "must not be blank", "Use a URL."),
    InvalidEventError("properties.items[3].price", "must be a finite number, got nan", "Leave it out."),
    LifecycleError("The client is running."),
    NotStartedError("The client is not started."),
    NoSubjectError("No subject is bound."),
    ClosedError("The client is closed."),
    StorageError("The disk is full.", hint="Free some space."),
    SchemaError("The database has no schema shop.", hint="Run 'exponea-async db init' once."),
    QueueFullError("The queue is full."),
    StateConflictError("device:@default"),
    DamagedFileError("a.sqlite", "a.sqlite.damaged", "not a database"),
    WipedFileError("a.sqlite"),
    DeliveryError("The event was not delivered."),
    RejectedError("no such event"),
    GivenUpError("not delivered within max_age, 5 seconds"),
    DroppedError("before_track"),
    LostError("it was wiped"),
    ProjectPausedError("https://p.example", 401, "HTTP 401"),
    UnavailableError("HTTP 503", status=503, retry_after=2.0),
    RequestRefusedError("HTTP 403", status=403),
    DeliveryTimeoutError("No verdict within 3 seconds."),
]


def test_there_is_an_example_of_each() -> None:
    """The examples of these tests have all classes of the module."""
    kinds = {kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)}

    assert {type(each) for each in EXAMPLES} == kinds


def test_the_tree_in_the_docstring_is_complete() -> None:
    """It names every class, with the built-in exception that it also inherits from."""
    tree = errors.__doc__ or ""
    for each in EXAMPLES:
        builtin = [base.__name__ for base in type(each).__bases__ if base.__module__ == "builtins"]
        name = type(each).__name__
        assert (f"{name} ({builtin[0]})" if builtin and name != "ExponeaError" else name) in tree


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (ConfigurationError, ValueError),
        (InvalidEventError, ValueError),
        (NotStartedError, RuntimeError),
        (NoSubjectError, RuntimeError),
        (ClosedError, RuntimeError),
        (QueueFullError, OSError),
        (DamagedFileError, OSError),
        (DeliveryTimeoutError, TimeoutError),
    ],
)
def test_exceptions_inherit_from_built_in_ones(kind: type[Exception], builtin: type[Exception]) -> None:
    """They can be caught as the built-in exception, and all of them as ExponeaError."""
    assert issubclass(kind, builtin)
    assert issubclass(kind, ExponeaError)


def test_the_class_says_whether_a_retry_may_succeed() -> None:
    """An error is retryable if the same call may succeed later."""
    assert {type(each) for each in EXAMPLES if each.retryable} == {
        StorageError,
        QueueFullError,
        StateConflictError,
        UnavailableError,
        DeliveryTimeoutError,
    }


def test_messages_have_field_trouble_and_hint() -> None:
    """A message says which field is invalid, what is wrong with it, and what to do."""
    messages = {type(each): str(each) for each in EXAMPLES}

    assert messages[ExponeaError] == "It failed. Correct it."
    assert messages[ConfigurationError] == "base_url: must not be blank. Use a URL."
    expected = "properties.items[3].price: must be a finite number, got nan. Leave it out."
    assert messages[InvalidEventError] == expected
    assert messages[StorageError] == "The disk is full. Free some space."
    assert messages[DeliveryTimeoutError] == "No verdict within 3 seconds."
    paused = str(ProjectPausedError("p", 401, "HTTP 401: The key is invalid.", address="https://h.example", hint="Do."))
    assert paused == "Project p is paused: HTTP 401: The key is invalid, from https://h.example. Do."
    assert messages[DamagedFileError].startswith(
        "The queue file a.sqlite is damaged (not a database); it has been moved to"
    )


def test_the_path_of_a_part_can_be_extended() -> None:
    """`within` prepends the path of the whole, and keeps the rest of the message."""
    error = InvalidEventError("properties.a", "must be finite, got nan", "Leave it out.").within("events[3]")

    assert error.path == "events[3].properties.a"
    assert str(error) == "events[3].properties.a: must be finite, got nan. Leave it out."


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_exceptions_can_be_pickled_and_copied(error: ExponeaError) -> None:
    """A copy has the same type, message and attributes."""
    for copied in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(copied) is type(error)
        assert (str(copied), vars(copied), copied.args) == (str(error), vars(error), error.args)
