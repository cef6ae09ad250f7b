"""
How events wait and how they are sent: the settings of the queue and the upload.
"""

from typing import Any, Literal

from attrs import Attribute, field, frozen

from exponea_async import _checks as checks
from exponea_async.errors import ConfigurationError

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
