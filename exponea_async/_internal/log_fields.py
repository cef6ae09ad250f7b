"""
The fields of log records, for log formatters that write them as JSON.
"""

from typing import Any

#: What the names of all fields begin with, so that they collide with no others.
PREFIX = "exponea_"


def log_fields(event: str, **values: Any) -> dict[str, Any]:
    """
    Return the ``extra`` of a log record.

    ::

        print(log_fields("paused", project="shop"))  # {'exponea_event': 'paused', 'exponea_project': 'shop'}

    Args:
        event: What happened, as a name that does not change with the wording of the message.
        values: The fields, without their prefix.
    """
    return {f"{PREFIX}event": event, **{f"{PREFIX}{name}": value for name, value in values.items()}}
