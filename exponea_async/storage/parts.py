"""
What is moved from one storage to another, as it is.
"""

from attrs import field, frozen


@frozen
class MovedRecord:
    """
    A record of the source.

    Attributes:
        id: Its id there.
        at: When it was written, UNIX seconds.
        body: The encoded command.
        due: When it can be leased again, UNIX seconds; None if it was never leased.
        failures: How often it was refused when sent alone.
        reason: Why it is delayed.
    """

    id: int
    at: float
    body: bytes = field(repr=False)
    due: float | None
    failures: int
    reason: str


@frozen
class MovedLetter:
    """
    A dead letter of the source.

    Attributes:
        id: Its id there.
        at: When it was written, UNIX seconds.
        body: The encoded command.
        died_at: When it was refused, UNIX seconds.
        reason: Why.
    """

    id: int
    at: float
    body: bytes = field(repr=False)
    died_at: float
    reason: str


@frozen
class MovedState:
    """
    A state of the source.

    Attributes:
        key: Its key.
        value: Its value.
        version: Its version there.
        active: Its last activity, UNIX seconds, or None.
    """

    key: str
    value: bytes = field(repr=False)
    version: int
    active: float | None
