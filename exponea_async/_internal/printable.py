"""
Text from outside, made safe for logs, errors and terminals. Pure, but for the filter of the package's log.

The text of a response, of an end user or of a file may contain what a terminal or a log viewer obeys: escape sequences,
line breaks that forge another log line, and characters that reverse the order of others.
"""

import json
import logging
from typing import Any

from exponea_async._internal.log_fields import PREFIX


def printable(text: str) -> str:
    r"""Return a text with each character that is not printable as an escape sequence, such as ``\x1b``."""
    # Only what Python calls printable stays. Controls, line breaks other than a blank, controls of the direction of
    # text, and halves of surrogate pairs are not.
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def printable_json(value: Any) -> str:
    r"""Return a value as JSON in one line, with each character that is not printable as ``\u``, which JSON allows."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return text if text.isprintable() else "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


class PrintableFilter(logging.Filter):
    """Makes the arguments and fields of log records printable. The message itself is the SDK's own."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change a record, and let it pass."""
        if isinstance(record.args, tuple):
            record.args = tuple(map(_printable_argument, record.args))
        for name, value in record.__dict__.items():
            if name.startswith(PREFIX):
                record.__dict__[name] = _printable_argument(value)
        return True


def _printable_argument(argument: Any) -> Any:
    # Numbers stay what their formats need.
    return printable(str(argument)) if isinstance(argument, str | BaseException) else argument


logging.getLogger("exponea_async").addFilter(PrintableFilter())
