"""
The end user of a job: from the code that enqueues it to the worker, in the metadata of the job.
"""

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from exponea_async.client import Exponea
from exponea_async.errors import InvalidEventError
from exponea_async.subjects import CustomerTracker, Device, Subject, bound

LOG = logging.getLogger("exponea_async")

#: The one entry that metadata has: the key of a device, the ids of a customer, or nobody.
DEVICE = "device"
CUSTOMER = "customer"
NOBODY = "nobody"


class Metadata(dict[str, Any]):
    """
    The metadata of a job, whose repr does not show it: queues log the arguments and the metadata of jobs.

    Jobs that wait in a queue may have been pickled with the name of this class.
    """

    def __repr__(self) -> str:
        return "<end user>"


class JobSubjects:
    """
    Writes the bound subject into the metadata of jobs, and reads it again in the worker.

    Args:
        exponea: The client.
        default: The subject of jobs without metadata; None for ``exponea.nobody()``.
        carry: Whether subjects are written into metadata.

    Raises:
        TypeError: The default is not a subject of the client.
    """

    def __init__(self, exponea: Exponea, default: Subject | None, *, carry: bool) -> None:
        self._exponea = exponea
        self._default = exponea.nobody() if default is None else default
        self._carry = carry
        with exponea.bind(self._default):
            pass  # refuses what is not a subject of this client

    def metadata(self) -> Metadata | None:
        """Return the metadata of a job that is enqueued now; None if no subject is bound, or none is to be carried."""
        source = bound(self._exponea)
        return to_metadata(source.subject()) if self._carry and source is not None else None

    def bind(self, metadata: object) -> AbstractContextManager[None]:
        """Bind the subject of a job; it is nobody if the metadata is invalid, which is logged."""
        return self._exponea.bind(self._subject(metadata))

    def bind_unless_bound(self) -> AbstractContextManager[None]:
        """Bind the subject of a job that runs within the code that enqueues it, unless that has bound one."""
        return nullcontext() if bound(self._exponea) else self._exponea.bind(self._default)

    def _subject(self, metadata: object) -> Subject:
        if metadata is None:
            return self._default
        try:
            return read_metadata(self._exponea, metadata)
        except InvalidEventError as error:
            LOG.warning("A job has no valid end user, so nothing is tracked: %s", error)
            return self._exponea.nobody()


def to_metadata(subject: Subject) -> Metadata:
    """Return the metadata of a job about a subject."""
    if isinstance(subject, Device):
        return Metadata({DEVICE: subject.key})
    if isinstance(subject, CustomerTracker):
        if subject.ids:
            return Metadata({CUSTOMER: dict(subject.ids)})
        LOG.warning("The ids of the end user for whom a job is enqueued are invalid, so it tracks nothing.")
    return Metadata({NOBODY: True})


def read_metadata(exponea: Exponea, metadata: object) -> Subject:
    """
    Return the subject in the metadata of a job.

    The metadata comes from a queue, into which others may write. No error shows a value of it, since ids are personal
    data.

    Raises:
        InvalidEventError: It is not what `to_metadata` returns.
    """
    if not isinstance(metadata, Mapping) or len(metadata) != 1:
        raise _invalid(f"expected a mapping with one entry, got {type(metadata).__name__}")
    ((kind, value),) = metadata.items()
    try:
        if kind == DEVICE:
            return exponea.device(value)
        if kind == CUSTOMER and isinstance(value, Mapping):
            return _customer(exponea, value)
    except InvalidEventError:
        # Its text may have the value.
        raise _invalid(f"the {kind} is invalid") from None
    if kind == NOBODY and value is True:
        return exponea.nobody()
    raise _invalid(f"expected the key of a {DEVICE}, the ids of a {CUSTOMER}, or {NOBODY}, got something else")


def _customer(exponea: Exponea, ids: Mapping[str, str]) -> Subject:
    customer = exponea.for_customer(ids)
    if not customer.ids:
        # With Configuration(on_invalid="log") it would log the ids with each event.
        raise _invalid(f"the ids of the {CUSTOMER} are invalid")
    return customer


def _invalid(trouble: str) -> InvalidEventError:
    return InvalidEventError("metadata", trouble, "Enqueue the job with the integration, or without metadata.")
