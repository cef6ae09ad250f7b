"""
How a command ends.
"""

from enum import IntEnum


class Exit(IntEnum):
    """The exit codes."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    BAD_INPUT = 3
    UNSENT = 4
    INTERRUPTED = 130


EPILOG = """\
exit codes:
  0    done
  1    failed: the storage refused, something was lost
  2    wrong usage or configuration
  3    some input was bad, or Engagement rejected some of it
  4    something remains unsent; it is kept in the queue
  130  interrupted
"""


class UsageError(Exception):
    """The command can't be carried out as it was given."""
