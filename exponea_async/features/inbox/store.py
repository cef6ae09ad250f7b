"""
The mailboxes of devices: in memory, and in the storage, so that they survive a restart.
"""

import logging
from functools import partial
from types import MappingProxyType

from exponea_async._internal.concurrency import KeyedLocks
from exponea_async.devices.context import SubjectContext
from exponea_async.devices.customers import CustomerSnapshot
from exponea_async.features._shared.envelopes import to_thread_if_large
from exponea_async.features.inbox.mailbox import Mailbox, mailbox_cache, pack, unpack
from exponea_async.features.inbox.parsing import ReadHtml
from exponea_async.features.inbox.stored import NAME, owner_of

LOG = logging.getLogger("exponea_async")

#: How many times as long it takes to make HTML safe than to decode JSON of the same length.
HTML_COST = 40


class MailboxStore:
    """
    The mailboxes of devices. Customer trackers have none.

    Args:
        application_id: The application. A mailbox that was stored for another application is not used.
        read_html: Makes HTML safe.

    Attributes:
        mailboxes: The mailboxes in memory by device key, whichever customer owns them.
    """

    def __init__(self, application_id: str, read_html: ReadHtml) -> None:
        self._application_id = application_id
        self._read_html = read_html
        self.mailboxes = mailbox_cache()
        # Writes of a device's mailbox are in order, so that the latest one stays.
        self._locks: KeyedLocks[str] = KeyedLocks()

    async def load(self, context: SubjectContext, customer: CustomerSnapshot) -> Mailbox:
        """Return a customer's mailbox from memory or from the storage; otherwise an empty one."""
        empty = Mailbox(customer.fingerprint)
        if customer.device is None:
            return empty
        mailbox = self.mailboxes.get(customer.device)
        if mailbox is None:
            mailbox = await self._load_stored(context, customer, empty)
            if mailbox is not empty and self.mailboxes.get(customer.device) is None:
                self.mailboxes.put(customer.device, mailbox)
        return mailbox if mailbox.fingerprint == customer.fingerprint else empty

    def latest(self, customer: CustomerSnapshot, mailbox: Mailbox) -> Mailbox:
        """Return the present state of a mailbox that was loaded earlier."""
        cached = self.mailboxes.get(customer.device) if customer.device is not None else None
        return cached if cached is not None and cached.fingerprint == customer.fingerprint else mailbox

    async def save(self, context: SubjectContext, customer: CustomerSnapshot, mailbox: Mailbox) -> None:
        """Keep the mailbox of the device's present customer."""
        if customer.device is None:
            return
        self.mailboxes.put(customer.device, mailbox)
        async with self._locks.for_key(customer.device):
            # By now there may be a newer one, of the same customer or another.
            latest = self.mailboxes.get(customer.device) or mailbox
            packed = await to_thread_if_large(latest.size, partial(pack, latest, self._application_id))
            current = await context.current_customer(counts_as_activity=False)
            # The mailbox of a previous customer must not be stored: it may have been deleted by now.
            if current is not None and current.fingerprint == latest.fingerprint:
                await context.save_data(NAME, packed)

    async def delete(self, context: SubjectContext, customer: CustomerSnapshot) -> None:
        """Delete the mailbox of a device."""
        if customer.device is not None:
            async with self._locks.for_key(customer.device):
                await self._delete(context, customer.device)

    async def delete_others(self, context: SubjectContext, customer: CustomerSnapshot) -> None:
        """Delete the mailbox of a device from memory and from the storage, unless it is the present customer's."""
        if customer.device is None:
            return
        async with self._locks.for_key(customer.device):
            cached = self.mailboxes.get(customer.device)
            if cached is None:
                is_foreign = await self._is_foreign(context, customer)
            else:
                is_foreign = cached.fingerprint != customer.fingerprint
            if is_foreign:
                await self._delete(context, customer.device)

    def clear(self) -> None:
        """Remove all mailboxes from memory."""
        self.mailboxes.clear()

    async def _delete(self, context: SubjectContext, device: str) -> None:
        self.mailboxes.pop(device)
        await context.save_data(NAME, None)

    async def _is_foreign(self, context: SubjectContext, customer: CustomerSnapshot) -> bool:
        value = await context.load_data(NAME)
        return value is not None and owner_of(value) != customer.fingerprint

    async def _load_stored(self, context: SubjectContext, customer: CustomerSnapshot, empty: Mailbox) -> Mailbox:
        value = await context.load_data(NAME)
        if value is None:
            return empty
        ids = MappingProxyType(dict(customer.ids))
        read = partial(unpack, value, empty, self._application_id, ids, self._read_html)
        try:
            return await to_thread_if_large(len(value) * HTML_COST, read)
        except ValueError as error:
            LOG.warning("A stored app inbox can't be read and is treated as empty: %.200s", error)
            return empty
