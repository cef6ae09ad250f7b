"""
Content blocks as Engagement sends them: what all customers share, and what is for one of them. Pure.
"""

import math
from collections.abc import Mapping
from sys import getsizeof
from typing import Any

from attrs import evolve, frozen

from exponea_async.features._shared.consent import has_consent
from exponea_async.features._shared.targeting.schedule import ALWAYS, DateFilter, read_date_filter
from exponea_async.messages import InAppContentBlock, InAppContentBlockAction, PersonalizedData

OK = "OK"
UNKNOWN = "unknown"
#: What the platform says of a block for a customer.
STATUSES = (OK, "filter_not_matched", "does_not_exist")
HTML = "html"
#: As the Android SDK calls the type of what has none.
NOT_DEFINED = "not_defined"
#: The types that the vendor's SDKs know.
TYPES = (HTML, "native")
ALL_DATES = DateFilter()
#: What a value weighs beside its texts, in bytes.
WEIGHT = 64
#: Characters of what is told in events, whose properties may have 16 KB; names have some dozen.
MAX_TEXT = 4_000


@frozen
class Definition:
    """
    What a content block is for all customers.

    Attributes:
        id: Its id.
        name: Its name.
        placeholders: The placeholders that it may be shown in.
        frequency: How often it may be shown.
        load_priority: The higher one comes first, or None.
        dates: When it may be shown.
        date_filter: The same as Engagement sends it, or None.
        consent_category_tracking: The category of the consent, or None.
        content_type: The type of its own content; None where the content is made for each customer.
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
        """Whether its content is made for each customer."""
        return self.content_type is None

    @property
    def is_kept(self) -> bool:
        """Whether it can ever be shown; as in the vendor's SDKs, of what has content of its own only HTML can."""
        return self.is_personalized or _type(self.content_type) == HTML

    @property
    def often(self) -> str:
        """How often it may be shown; where nothing is said, always."""
        return self.frequency or ALWAYS


def read_definition(value: Any) -> Definition:
    """
    Read a content block from the list of all.

    Raises:
        ValueError: It is none.
    """
    source = _mapping(value)
    placeholders = source.get("placeholders")
    if not isinstance(placeholders, list):
        raise ValueError(f"A {type(placeholders).__name__} is no list.")  # noqa: TRY004 - broken like any other
    dates = source.get("date_filter")
    return Definition(
        id=_required(source, "id"),
        name=_required(source, "name"),
        placeholders=tuple(each for each in placeholders if isinstance(each, str)),
        frequency=_text(source, "frequency"),
        load_priority=_whole(source, "load_priority"),
        dates=read_date_filter(dates),
        date_filter=_flat(dates),
        consent_category_tracking=_text(source, "consent_category_tracking"),
        content_type=_static_type(source.get("content_type")),
        content=_flat(source.get("content")),
    )


def read_personal(value: Any, loaded_at: float) -> PersonalizedData:
    """
    Read what a block says to one customer.

    Args:
        value: Its JSON value.
        loaded_at: When it was loaded, UNIX seconds.

    Raises:
        ValueError: It is none.
    """
    source = _mapping(value)
    status = source.get("status")
    return PersonalizedData(
        id=_required(source, "id"),
        status=status if status in STATUSES else UNKNOWN,
        ttl=max(_number(source, "ttl_seconds") or 0.0, 0.0),
        loaded_at=loaded_at,
        has_tracking_consent=has_consent(source.get("has_tracking_consent")),
        variant_id=_whole(source, "variant_id"),
        variant_name=_text(source, "variant_name"),
        content_type=_text(source, "content_type"),
        content=_flat(source.get("content")),
    )


def is_fresh(definition: Definition, data: PersonalizedData | None, now: float) -> bool:
    """
    Tell whether what is known of a block needs no loading.

    Args:
        definition: The block.
        data: What it says to the customer, or None.
        now: The moment, UNIX seconds.
    """
    if not definition.is_personalized:
        return True
    # A clock that was set back must not make content last for longer.
    return data is not None and data.loaded_at <= now <= data.loaded_at + data.ttl


def status_of(definition: Definition, data: PersonalizedData | None) -> str:
    """Tell a block's status for a customer: of one that is the same for all it is always ``"OK"``."""
    if not definition.is_personalized:
        return OK
    return UNKNOWN if data is None else data.status


def can_show(definition: Definition, data: PersonalizedData | None) -> bool:
    """Tell whether a block has HTML to say to a customer, which may be empty."""
    told = data.content_type if data is not None and data.content_type is not None else definition.content_type
    return status_of(definition, data) == OK and _type(told) == HTML


def told_type(block: InAppContentBlock) -> str:
    """Tell the type of what a block says, as events have it."""
    data = block.personalized_data
    return _type(data.content_type if data is not None and data.content_type is not None else block.content_type)


def has_tracking_consent(block: InAppContentBlock) -> bool:
    """Tell whether what happens to a block may be tracked."""
    return block.personalized_data is None or block.personalized_data.has_tracking_consent


def source_of(definition: Definition, data: PersonalizedData | None) -> str | None:
    """Tell the HTML of a block for a customer as Engagement sends it; None where there is nothing to show."""
    content = data.content if data is not None and data.content is not None else definition.content
    html = None if content is None else content.get("html")
    return html if isinstance(html, str) and html.strip() else None


def handed_out(
    definition: Definition,
    data: PersonalizedData | None,
    *,
    ids: Mapping[str, str],
    html: str | None = None,
    actions: tuple[InAppContentBlockAction, ...] = (),
) -> InAppContentBlock:
    """
    Make the value that a user gets, of which nothing is shared with anybody else.

    Args:
        definition: The block.
        data: What it says to the customer, or None.
        ids: The customer's ids.
        html: Its HTML made safe, or None.
        actions: What can be pressed in it.
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


def weight(data: PersonalizedData) -> int:
    """Tell about how much memory it takes, in bytes."""
    texts = (data.id, data.variant_name, data.content_type, *(data.content or {}).values())
    return 8 * WEIGHT + sum(WEIGHT + getsizeof(each) for each in texts)


def _type(value: str | None) -> str:
    if value is None:
        return NOT_DEFINED
    word = value.lower()
    return word if word in TYPES else UNKNOWN


def _static_type(value: object) -> str | None:
    # What is no text is no type that is known, and not the lack of one, which would make the block personalised.
    return value if value is None or isinstance(value, str) else UNKNOWN


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"A {type(value).__name__} is no content block.")  # noqa: TRY004 - broken like any other
    return value


def _required(source: Mapping[str, Any], name: str) -> str:
    value = source.get(name)
    if isinstance(value, str) and 0 < len(value) <= MAX_TEXT:
        return value
    told = f"A text of {len(value)} characters" if isinstance(value, str) else f"A {type(value).__name__}"
    raise ValueError(f"{told} is no {name!r}.")


def _text(source: Mapping[str, Any], name: str) -> str | None:
    value = source.get(name)
    return value if isinstance(value, str) and len(value) <= MAX_TEXT else None


def _flat(value: object) -> Mapping[str, Any] | None:
    """Keep what is no mapping or list: only content that can't be shown has such parts, of any depth."""
    if not isinstance(value, dict):
        return None
    return {name: each for name, each in value.items() if not isinstance(each, dict | list)}


def _copy(value: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    return None if value is None else dict(value)


def _whole(source: Mapping[str, Any], name: str) -> int | None:
    value = source.get(name)
    # A larger one can't be told in an event.
    is_one = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    return value if is_one else None


def _number(source: Mapping[str, Any], name: str) -> float | None:
    value = source.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None
