"""
What is stored for a device: its mailbox, as a compressed header and messages.
"""

import zlib
from typing import Any

from exponea_async._internal.json import decode

#: The name under which a device's mailbox is stored.
NAME = "inbox"
#: More bytes than a mailbox that was packed can have: it has at most 8 MB of messages.
MAX_UNPACKED = 32_000_000


def owner_of(value: bytes) -> str | None:
    """Return the fingerprint of the customer whose mailbox was stored; None if the stored form is damaged."""
    try:
        return str(decompressed(value)[0]["mark"])
    except (ValueError, KeyError, TypeError, zlib.error):
        return None


def decompressed(value: bytes) -> tuple[dict[str, Any], bytes]:
    """
    Return the header and the messages of a stored mailbox.

    Raises:
        ValueError: It is not one.
        zlib.error: It is not one.
    """
    decompressor = zlib.decompressobj()
    data = decompressor.decompress(value, MAX_UNPACKED)
    if not decompressor.eof:
        raise ValueError("the compressed data is incomplete")
    header, _, raw_messages = data.partition(b"\n")
    return decode(header), raw_messages
