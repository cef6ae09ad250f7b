"""
Content blocks as Engagement sends them: their definitions, the same for all customers, and personalized data. Pure.
"""

from collections.abc import Mapping
from sys import getsizeof
from typing import Any

from attrs import evolve, frozen

from exponea_async._internal.fields import as_integer, as_list, as_mapping, as_number, as_string, optional, required
from exponea_async.features._shared.consent import has_consent
from exponea_async.features._shared.targeting.schedule import ALWAYS, DateFilter, read_date_filter
from exponea_async.messages import InAppContentBlock, InAppContentBlockAction, PersonalizedData

OK = "OK"
UNKNOWN = "unknown"
#: The statuses of a block for a customer, as the platform sends them.
STATUSES = (OK, "filter_not_matched", "does_not_exist")
HTML = "html"
#: The content type of a block without one, as in the Android SDK.
NOT_DEFINED = "not_defined"
#: The content types that the vendor's SDKs know.
CONTENT_TYPES = (HTML, "native")
ALL_DATES = DateFilter()
#: The approximate size of a value without its strings, in bytes.
VALUE_SIZE = 64
#: Maximum length of a string in an event, in characters. Event properties are limited to 16 KB; names have some dozen.
MAX_TEXT_LENGTH = 4_000


@frozen
class BlockDefinition:
    """
    A content block, as it is the same for all customers.

    Attributes:
        id: The id.
        name: The name.
        placeholders: The placeholders in which it may be shown.
        frequency: How often it may be shown, or None.
        load_priority: The block with the higher priority is shown first; or None.
        dates: When it may be shown.
        date_filter: The same as Engagement sends it, or None.
        consent_category_tracking: The category of the consent to track it, or None.
        content_type: The type of its own content; None where the content is personalized.
        content: Its own content, or None.
    """

    id: str
    name: str
    placeholders: tuple[str, ...]
    frequency: str | None = None
    load_priority: int | None = None
    dates: DateFilter = ALL_DATES
    date_filter: Mapping[str, Any] | None = None
    consent_category_tracking: str | None = None
    content_type: str | None = None
    content: Mapping[str, Any] | None = None

    @property
    def is_personalized(self) -> bool:
        """Whether its content is personalized."""
        return self.content_type is None

    @property
    def is_supported(self) -> bool:
        """Whether it can ever be shown: as in the vendor's SDKs, static content must be HTML."""
        return self.is_personalized or _known_type(self.content_type) == HTML

    @property
    def effective_frequency(self) -> str:
        """How often it may be shown; always, if it does not say so."""
        return self.frequency or ALWAYS


def read_definition(value: Any) -> BlockDefinition:
    """
    Read the definition of a content block.

    Raises:
        ValueError: It is malformed.
    """
    source = as_mapping(value)
    date_filter = source.get("date_filter")
    return BlockDefinition(
        id=_required_text(source, "id"),
        name=_required_text(source, "name"),
        placeholders=tuple(each for each in required(source, "placeholders", as_list) if isinstance(each, str)),
        frequency=_text(source, "frequency"),
        load_priority=optional(source, "load_priority", as_integer),
        dates=read_date_filter(date_filter),
        date_filter=_scalars(date_filter),
        consent_category_tracking=_text(source, "consent_category_tracking"),
        content_type=_static_type(source.get("content_type")),
        content=_scalars(source.get("content")),
    )


def read_personalized_data(value: Any, loaded_at: float) -> PersonalizedData:
    """
    Read the content of a block for one customer.

    Args:
        value: The JSON value.
        loaded_at: When it was loaded, UNIX seconds.

    Raises:
        ValueError: It is malformed.
    """
    source = as_mapping(value)
    status = source.get("status")
    return PersonalizedData(
        id=_required_text(source, "id"),
        status=status if status in STATUSES else UNKNOWN,
        ttl=max(optional(source, "ttl_seconds", as_number) or 0.0, 0.0),
        loaded_at=loaded_at,
        has_tracking_consent=has_consent(source.get("has_tracking_consent")),
        variant_id=optional(source, "variant_id", as_integer),
        variant_name=_text(source, "variant_name"),
        content_type=_text(source, "content_type"),
        content=_scalars(source.get("content")),
    )


def is_fresh(definition: BlockDefinition, data: PersonalizedData | None, now: float) -> bool:
    """
    Return whether a block does not need to be loaded for a customer.

    Args:
        definition: The block.
        data: Its personalized data, or None.
        now: The current time, UNIX seconds.
    """
    if not definition.is_personalized:
        return True
    # A clock that was set back must not prolong the time to live.
    return data is not None and data.loaded_at <= now <= data.loaded_at + data.ttl


def status_of(definition: BlockDefinition, data: PersonalizedData | None) -> str:
    """Return the status of a block for a customer; always ``"OK"`` for a block that is not personalized."""
    if not definition.is_personalized:
        return OK
    return UNKNOWN if data is None else data.status


def can_show(definition: BlockDefinition, data: PersonalizedData | None) -> bool:
    """Return whether a block has HTML for a customer, which may be empty."""
    content_type = data.content_type if data is not None and data.content_type is not None else definition.content_type
    return status_of(definition, data) == OK and _known_type(content_type) == HTML


def content_type_of(block: InAppContentBlock) -> str:
    """Return the type of a block's content, as events name it."""
    data = block.personalized_data
    return _known_type(data.content_type if data is not None and data.content_type is not None else block.content_type)


def has_tracking_consent(block: InAppContentBlock) -> bool:
    """Return whether events about a block may be tracked."""
    return block.personalized_data is None or block.personalized_data.has_tracking_consent


def html_of(definition: BlockDefinition, data: PersonalizedData | None) -> str | None:
    """Return the HTML of a block for a customer, as Engagement sends it; None where there is nothing to show."""
    content = data.content if data is not None and data.content is not None else definition.content
    html = None if content is None else content.get("html")
    return html if isinstance(html, str) and html.strip() else None


def public_block(
    definition: BlockDefinition,
    data: PersonalizedData | None,
    *,
    ids: Mapping[str, str],
    html: str | None = None,
    actions: tuple[InAppContentBlockAction, ...] = (),
) -> InAppContentBlock:
    """
    Return the block that a caller gets, which shares no mutable value with others.

    Args:
        definition: The block.
        data: Its personalized data, or None.
        ids: The customer's ids.
        html: Its safe HTML, or None.
        actions: The actions in it.
    """
    return InAppContentBlock(
        id=definition.id,
        name=definition.name,
        placeholders=definition.placeholders,
        html=html,
        actions=actions,
        frequency=definition.frequency,
        load_priority=definition.load_priority,
        date_filter=_copy(definition.date_filter),
        consent_category_tracking=definition.consent_category_tracking,
        content_type=definition.content_type,
        content=_copy(definition.content),
        personalized_data=data and evolve(data, content=_copy(data.content)),
        customer_ids=dict(ids),
    )


def memory_size(data: PersonalizedData) -> int:
    """Return the approximate size of personalized data in memory, in bytes."""
    values = (data.id, data.variant_name, data.content_type, *(data.content or {}).values())
    return 8 * VALUE_SIZE + sum(VALUE_SIZE + getsizeof(each) for each in values)


def _known_type(content_type: str | None) -> str:
    if content_type is None:
        return NOT_DEFINED
    lowercase = content_type.lower()
    return lowercase if lowercase in CONTENT_TYPES else UNKNOWN


def _static_type(value: object) -> str | None:
    # A type that is not a string is unknown, but not missing: that would make the block personalized.
    return value if value is None or isinstance(value, str) else UNKNOWN


def _required_text(source: Mapping[str, Any], name: str) -> str:
    return required(source, name, as_string, max_length=MAX_TEXT_LENGTH, allow_empty=False)


def _text(source: Mapping[str, Any], name: str) -> str | None:
    return optional(source, name, as_string, max_length=MAX_TEXT_LENGTH)


def _scalars(value: object) -> Mapping[str, Any] | None:
    """Return the members that are not objects or lists: those are of any depth, and not part of content in HTML."""
    if not isinstance(value, dict):
        return None
    return {name: each for name, each in value.items() if not isinstance(each, dict | list)}


def _copy(value: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    return None if value is None else dict(value)
