"""
What a check has found.
"""

from typing import Literal

from attrs import frozen

from exponea_async.errors import ExponeaError

Status = Literal["ok", "warning", "failed", "skipped"]


@frozen
class Finding:
    """
    The result of one check.

    Attributes:
        name: What was checked, such as ``"clock"``.
        status: ``"failed"`` if events can't be tracked or sent until it is corrected, ``"warning"`` if something is
            likely to cause trouble, ``"skipped"`` if it can't be checked because another check has failed.
        detail: What was found.
        advice: What to do, in one or more sentences; empty where nothing is to be done.
    """

    name: str
    status: Status
    detail: str
    advice: str = ""

    @classmethod
    def of_error(cls, name: str, error: ExponeaError) -> "Finding":
        """Return a failure with the message and the hint of an error."""
        return cls(name, "failed", str(error).removesuffix(f" {error.hint}").removesuffix("."), error.hint)
