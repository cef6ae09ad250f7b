"""
What Engagement has to say to a customer: the values that the rooms of messages hand out and take.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from attrs import field, frozen


@frozen
class InAppMessageButton:
    """
    What can be pressed in an in-app message.

    Args:
        text: What it says, or None.
        url: Where it leads to, or None.
        kind: ``"browser"`` and ``"deep-link"`` open the link, ``"cancel"`` closes the message.
    """

    text: str | None = None
    url: str | None = None
    kind: str = "deep-link"


@frozen(kw_only=True)
class InAppMessage:
    """
    An in-app message.

    Attributes:
        id: Its id.
        name: Its name.
        message_type: ``"modal"``, ``"alert"``, ``"fullscreen"``, ``"slide_in"`` or ``"freeform"``, which is HTML.
        frequency: How often it may be shown: ``"always"``, ``"only_once"``, ``"once_per_visit"`` or
            ``"until_visitor_interacts"``.
        variant_id: Its variant in an A/B test; -1 is the control group, which is shown nothing.
        variant_name: The variant's name.
        payload: What it says and how it looks, as Engagement sends it; empty for HTML.
        payload_html: Its HTML as Engagement sends it, which may not be safe; None where it is none.
        html: The same made safe: no scripts, each close button a link. None where it is no HTML.
        buttons: What can be pressed in it, in order; links of HTML too.
        trigger: Which events it is for, as Engagement sends it.
        date_filter: When it may be shown, as Engagement sends it.
        load_priority: The higher one comes first; None counts as 0.
        load_delay: How long to wait before it is shown, in seconds.
        close_timeout: After how long it closes by itself, in seconds; None is never.
        is_html: Whether it is HTML.
        is_rich_text: Whether its payload has the keys of the richer style.
        has_tracking_consent: Whether what happens to it may be tracked.
        consent_category_tracking: The category of the consent, or None.
        device: The key of the device that it is shown on; None where it is shown for a customer tracker.
        customer_ids: The customer it is shown to; what happens to it is told of this one.
    """

    id: str
    name: str
    message_type: str = "modal"
    frequency: str = "always"
    variant_id: int = 0
    variant_name: str = ""
    payload: Mapping[str, Any] = field(factory=dict, repr=False)
    payload_html: str | None = field(default=None, repr=False)
    html: str | None = field(default=None, repr=False)
    buttons: tuple[InAppMessageButton, ...] = ()
    trigger: Mapping[str, Any] | None = field(default=None, repr=False)
    date_filter: Mapping[str, Any] = field(factory=dict, repr=False)
    load_priority: int | None = None
    load_delay: float = 0.0
    close_timeout: float | None = None
    is_html: bool = False
    is_rich_text: bool = False
    has_tracking_consent: bool = True
    consent_category_tracking: str | None = None
    device: str | None = None
    customer_ids: Mapping[str, str] = field(factory=dict, repr=False)

    @property
    def title(self) -> str | None:
        """Its headline, or None."""
        return _text(self.payload, "title")

    @property
    def body_text(self) -> str | None:
        """Its text, or None."""
        return _text(self.payload, "body_text")

    @property
    def image_url(self) -> str | None:
        """The address of its picture, or None."""
        return _text(self.payload, "image_url")


@frozen
class InAppMessageAction:
    """
    Something that happened to an in-app message.

    Attributes:
        type: ``"show"``, ``"click"``, ``"close"`` or ``"error"``.
        message: The message; None where an error is about none.
        button: What was pressed, or None.
        interaction: Whether somebody closed it, of a close; None otherwise.
        error_message: What went wrong, of an error; None otherwise.
    """

    type: Literal["show", "click", "close", "error"]
    message: InAppMessage | None = None
    button: InAppMessageButton | None = None
    interaction: bool | None = None
    error_message: str | None = None


@frozen
class InAppContentBlockAction:
    """
    What can be pressed in a content block.

    Args:
        type: ``"BROWSER"``, ``"DEEPLINK"`` or ``"CLOSE"``.
        name: What it says, or None.
        url: Where it leads to, or None.
    """

    type: str
    name: str | None = None
    url: str | None = None


@frozen(kw_only=True)
class PersonalizedData:
    """
    What a content block says to one customer.

    Attributes:
        id: The block's id.
        status: ``"OK"``, ``"filter_not_matched"``, ``"does_not_exist"`` or ``"unknown"``.
        ttl: How long it holds, in seconds.
        loaded_at: When it was loaded, UNIX seconds.
        has_tracking_consent: Whether what happens to the block may be tracked.
        variant_id: Its variant in an A/B test, or None.
        variant_name: The variant's name, or None.
        content_type: ``"html"``, ``"native"`` or another; None where it is not told.
        content: What it says, as Engagement sends it.
    """

    id: str
    status: str = "unknown"
    ttl: float = 0.0
    loaded_at: float = 0.0
    has_tracking_consent: bool = True
    variant_id: int | None = None
    variant_name: str | None = None
    content_type: str | None = None
    content: Mapping[str, Any] | None = field(default=None, repr=False)


@frozen(kw_only=True)
class InAppContentBlock:
    """
    A content block, as it is handed out: what it says does not change any more.

    Attributes:
        id: Its id.
        name: Its name.
        placeholders: The placeholders that it may be shown in.
        html: Its HTML made safe, ready to be put into a page; None where there is nothing to show, as for the control
            group of an A/B test.
        actions: What can be pressed in it, in order.
        frequency: How often it may be shown, as for `InAppMessage`; None is always.
        load_priority: The higher one comes first; None counts as 0.
        date_filter: When it may be shown, as Engagement sends it, or None.
        consent_category_tracking: The category of the consent, or None.
        content_type: The type of its own content; None where the content is made for each customer.
        content: Its own content, as Engagement sends it, or None.
        personalized_data: What it says to this customer, or None.
        customer_ids: The customer it was loaded for; what happens to it is told of this one.
    """

    id: str
    name: str
    placeholders: tuple[str, ...] = ()
    html: str | None = field(default=None, repr=False)
    actions: tuple[InAppContentBlockAction, ...] = ()
    frequency: str | None = None
    load_priority: int | None = None
    date_filter: Mapping[str, Any] | None = field(default=None, repr=False)
    consent_category_tracking: str | None = None
    content_type: str | None = None
    content: Mapping[str, Any] | None = field(default=None, repr=False)
    personalized_data: PersonalizedData | None = None
    customer_ids: Mapping[str, str] = field(factory=dict, repr=False)


@frozen
class AppInboxAction:
    """
    What can be pressed in a message of the app inbox.

    Args:
        action: ``"app"``, ``"browser"``, ``"deeplink"`` or ``"no_action"``.
        title: What it says, or None.
        url: Where it leads to, or None.
    """

    action: str | None = None
    title: str | None = None
    url: str | None = None


@frozen(kw_only=True)
class AppInboxMessage:
    """
    A message of the app inbox.

    Attributes:
        id: Its id.
        type: ``"push"`` or ``"html"``.
        is_read: Whether it was read.
        create_time: When it was made, UNIX seconds.
        content: What it says, as Engagement sends it.
        title: Its headline, or None.
        message: Its text; of an HTML message the preview. None where it has none.
        image_url: The address of its picture, or None.
        html: The HTML of an HTML message made safe, or None.
        action: What a press on the message itself does, or None.
        actions: What can be pressed in it, in order.
        tracking_data: What Engagement wants to find in the events about it.
        has_tracking_consent: Whether what happens to it may be tracked.
        consent_category_tracking: The category of the consent, or None.
        customer_ids: The customer it was loaded for; what happens to it is told of this one.
        sync_token: What the platform needs to mark it as read, or None.
    """

    id: str
    type: str
    is_read: bool = False
    create_time: float | None = None
    content: Mapping[str, Any] = field(factory=dict, repr=False)
    title: str | None = None
    message: str | None = None
    image_url: str | None = None
    html: str | None = field(default=None, repr=False)
    action: AppInboxAction | None = None
    actions: tuple[AppInboxAction, ...] = ()
    tracking_data: Mapping[str, Any] = field(factory=dict, repr=False)
    has_tracking_consent: bool = True
    consent_category_tracking: str | None = None
    customer_ids: Mapping[str, str] = field(factory=dict, repr=False)
    sync_token: str | None = field(default=None, repr=False)


@frozen
class RecommendationOptions:
    """
    What to recommend.

    Args:
        id: The id of the recommendation engine.
        fill_with_random: Whether random items fill the list up.
        size: How many items, at the most.
        items: Items to start from, by their ids, with their weights as texts; None leaves them out.
        no_track: Whether the platform is not to track that it recommended; None leaves it out.
        catalog_attributes_whitelist: Which attributes of the items to tell; None is all.
    """

    id: str
    fill_with_random: bool
    size: int = 10
    items: Mapping[str, str] | None = None
    no_track: bool | None = None
    catalog_attributes_whitelist: Sequence[str] | None = None


@frozen
class Recommendation:
    """
    A recommended item.

    Attributes:
        engine_name: The engine that recommends it.
        item_id: The item's id.
        recommendation_id: The recommendation's id.
        recommendation_variant_id: Its variant in an A/B test, or None.
        data: All else that is told of the item.
    """

    engine_name: str
    item_id: str
    recommendation_id: str
    recommendation_variant_id: str | None = None
    data: Mapping[str, Any] = field(factory=dict)


@frozen
class CustomerAttribute:
    """
    What the platform says of an attribute of a customer.

    Attributes:
        success: Whether it says what the attribute is; where it does not, that is mostly for want of permission.
        value: What the attribute is, as JSON types; None where there was no success.
        error: Why there was none, or None.
    """

    success: bool
    value: Any = None
    error: str | None = None


@frozen(kw_only=True)
class ConsentSources:
    """
    Where a consent may come from.

    Attributes:
        created_from_crm: From the customer's record.
        imported: From an import.
        from_consent_page: From the page of consents.
        private_api: From the private API.
        public_api: From the public API.
        tracked_from_scenario: From a scenario.
    """

    created_from_crm: bool = False
    imported: bool = False
    from_consent_page: bool = False
    private_api: bool = False
    public_api: bool = False
    tracked_from_scenario: bool = False


@frozen
class Consent:
    """
    A category of consent.

    Attributes:
        id: Its id.
        legitimate_interest: Whether it needs no consent.
        sources: Where it may come from.
        translations: Texts by language and name; a text may be None.
    """

    id: str
    legitimate_interest: bool
    sources: ConsentSources
    translations: Mapping[str, Mapping[str, str | None]]


def _text(payload: Mapping[str, Any], name: str) -> str | None:
    text = payload.get(name)
    return text if isinstance(text, str) else None
