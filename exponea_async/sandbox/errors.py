"""
The errors that become HTTP error responses.
"""


class RequestError(Exception):
    """
    A request can't be processed.

    Attributes:
        status: The HTTP status of the response.
        reason: The error message of the response.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class AccessError(RequestError):
    """A request has no valid credential (401), the credential of another project (403), or an unknown project (404)."""
