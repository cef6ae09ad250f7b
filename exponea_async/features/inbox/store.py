"""
Where app inboxes are kept: in memory, and for each device in the storage, so that they survive a restart.
"""

import asyncio
import logging
from functools import partial
from types import MappingProxyType
from weakref import WeakValueDictionary

from exponea_async.devices.context import SubjectContext
from exponea_async.devices.customers import CustomerSnapshot
from exponea_async.features._shared.envelopes import to_thread_if_large
from exponea_async.features.inbox.mailbox import Mailbox, Mailboxes, pack, unpack
from exponea_async.features.inbox.parsing import ReadPage

LOG = logging.getLogger("exponea_async")

#: Under which name a device's mailbox is stored.
NAME = "inbox"
#: To make HTML safe takes so many times as long as to read JSON of the same length.
HTML_WEIGHT = 40


class Store:
    """
    The mailboxes of devices. Customer trackers have none.

    Args:
        application_id: The application; what was stored for another one is not used.
        read_page: Makes HTML safe.
    """

    def __init__(self, application_id: str, read_page: ReadPage) -> None:
        self._application_id = application_id
        self._read_page = read_page
        self._mailboxes = Mailboxes()
        # Only those in use. What is stored last has to be the latest.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing in memory."""
        return not self._mailboxes

    async def load(self, context: SubjectContext, customer: CustomerSnapshot) -> Mailbox:
        """Tell the mailbox of a customer, as far as it is kept."""
        empty = Mailbox(customer.fingerprint)
        if customer.device is None:
            return empty
        kept = self._mailboxes.get(customer.device)
        if kept is None:
            kept = await self._stored(context, customer, empty)
            if kept is not empty and self._mailboxes.get(customer.device) is None:
                self._mailboxes.put(customer.device, kept)
        return kept if kept.fingerprint == customer.fingerprint else empty

    def latest(self, customer: CustomerSnapshot, mailbox: Mailbox) -> Mailbox:
        """Tell what became of a customer's mailbox since it was loaded."""
        kept = self._mailboxes.get(customer.device) if customer.device is not None else None
        return kept if kept is not None and kept.fingerprint == customer.fingerprint else mailbox

    async def save(self, context: SubjectContext, customer: CustomerSnapshot, mailbox: Mailbox) -> None:
        """Keep the mailbox of a customer, who the device is now."""
        if customer.device is None:
            return
        self._mailboxes.put(customer.device, mailbox)
        async with self._lock(customer.device):
            # Something newer may be there by now, of the same customer or another.
            kept = self._mailboxes.get(customer.device) or mailbox
            packed = await to_thread_if_large(kept.size, partial(pack, kept, self._application_id))
            now = await context.current_customer(counts_as_activity=False)
            # Of somebody who has gone meanwhile nothing is to be stored: it may have been forgotten by now.
            if now is not None and now.fingerprint == kept.fingerprint:
                await context.save_data(NAME, packed)

    async def forget(self, context: SubjectContext, customer: CustomerSnapshot) -> None:
        """Forget the mailbox of a device."""
        if customer.device is not None:
            async with self._lock(customer.device):
                await self._drop(context, customer.device)

    async def forget_others(self, context: SubjectContext, customer: CustomerSnapshot, *, unseen: bool = False) -> None:
        """
        Forget the mailbox of a device, unless it is that of the customer who the device is now.

        Args:
            context: The device.
            customer: The customer.
            unseen: Whether to forget what is stored too, where there is none in memory.
        """
        if customer.device is None:
            return
        async with self._lock(customer.device):
            kept = self._mailboxes.get(customer.device)
            if unseen if kept is None else kept.fingerprint != customer.fingerprint:
                await self._drop(context, customer.device)

    def clear(self) -> None:
        """Forget all that is in memory."""
        self._mailboxes.clear()

    async def _drop(self, context: SubjectContext, device: str) -> None:
        self._mailboxes.drop(device)
        await context.save_data(NAME, None)

    async def _stored(self, context: SubjectContext, customer: CustomerSnapshot, empty: Mailbox) -> Mailbox:
        value = await context.load_data(NAME)
        if value is None:
            return empty
        ids = MappingProxyType(dict(customer.ids))
        read = partial(unpack, value, empty, self._application_id, ids, self._read_page)
        try:
            return await to_thread_if_large(len(value) * HTML_WEIGHT, read)
        except ValueError as error:
            LOG.warning("A stored app inbox can't be read, and counts as empty: %.200s", error)
            return empty

    def _lock(self, device: str) -> asyncio.Lock:
        lock = self._locks.get(device)
        if lock is None:
            lock = self._locks[device] = asyncio.Lock()
        return lock
