"""
What is stored for a device: the messages of its customer, behind a line that says whose they are.
"""

import json
from contextlib import suppress

#: The name under which the messages of a device are stored.
NAME = "in_app_messages"


def owner_of(stored: bytes) -> str | None:
    """Return the fingerprint of the customer whose messages were stored; None if the stored form is damaged."""
    with suppress(ValueError, LookupError, TypeError):
        return str(json.loads(stored.partition(b"\n")[0])[0])
    return None
