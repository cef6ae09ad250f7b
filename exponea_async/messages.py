"""
Messages, content blocks, recommendations, consents and attributes, as the client returns them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from attrs import field, frozen

from exponea_async._internal.actions import ActionType, to_action_type, to_optional_action_type
from exponea_async._internal.fields import as_string, optional
from exponea_async._internal.links import safe_image


@frozen
class InAppMessageButton:
    """
    A button of an in-app message, or a link in its HTML.

    Args:
        text: The label, or None.
        url: The URL that it opens; None if there is none, or if it could run something, such as ``javascript:``.
        kind: What it does, an `ActionType` or one of its spellings: it opens the URL, or closes the message.
    """

    text: str | None = None
    url: str | None = None
    kind: ActionType = field(default=ActionType.DEEP_LINK, converter=to_action_type)


def is_enabled(part: Mapping[str, Any], switch: str, *, message_type: str, is_rich_text: bool) -> bool:
    """
    Return whether a part of an in-app message is shown, as the Android SDK decides it.

    Args:
        part: The payload, or one of its buttons.
        switch: The key that switches the part on; a missing one switches it off.
        message_type: The type of the message; alerts have no rich-text style.
        is_rich_text: Whether the payload has the rich-text style. Without it, there are no switches.
    """
    return not is_rich_text or message_type == "alert" or part.get(switch) is True


@frozen(kw_only=True)
class InAppMessage:
    """
    An in-app message.

    Attributes:
        id: The id of the message.
        name: The name of the message.
        message_type: ``"modal"``, ``"alert"``, ``"fullscreen"``, ``"slide_in"``, or ``"freeform"`` for HTML.
        frequency: How often the message may be shown: ``"always"``, ``"only_once"``, ``"once_per_visit"`` or
            ``"until_visitor_interacts"``.
        variant_id: The variant of an A/B test; -1 for the control group, to which nothing is shown.
        variant_name: The name of the variant.
        payload: The texts and the appearance of the message as sent by Engagement, parts that are switched off
            included; its links may be unsafe. It is empty for HTML.
        payload_html: The HTML as sent by Engagement, which may be unsafe; None if the message is not HTML.
        html: The HTML without scripts and other unsafe parts, in which each close button is a link; None if the message
            is not HTML.
        buttons: The buttons in order; for HTML the links.
        trigger: The events on which the message is shown, as sent by Engagement.
        date_filter: When the message may be shown, as sent by Engagement.
        load_priority: The message with the highest priority is shown first; None counts as 0.
        load_delay: How long the host is to wait before it shows the message, in seconds; 0 for messages of
            ``in_app_messages()``, which are delivered after their delay.
        close_timeout: After how many seconds the message closes by itself, the delay not included; None for never.
        is_html: Whether the message is HTML.
        is_rich_text: Whether the payload has the keys of the rich-text style. Then the title, the body text, the image
            and each button are shown only if the payload switches them on. Alerts have no such style.
        has_tracking_consent: Whether interactions with the message may be tracked.
        consent_category_tracking: The category of this consent, or None.
        device: The key of the device on which the message is shown; None if it was obtained from a customer tracker.
        customer_ids: The ids of the customer to whom the message is shown. Interactions are tracked for this customer.
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
        """The title to show, or None."""
        return self._enabled("title", "title_enabled")

    @property
    def body_text(self) -> str | None:
        """The body text to show, or None."""
        return self._enabled("body_text", "body_enabled")

    @property
    def image_url(self) -> str | None:
        """The URL of the image to show; None if there is none, or if it is not one that an image can have."""
        return safe_image(self._enabled("image_url", "image_enabled"))

    def _enabled(self, name: str, switch: str) -> str | None:
        is_shown = is_enabled(self.payload, switch, message_type=self.message_type, is_rich_text=self.is_rich_text)
        return optional(self.payload, name, as_string) if is_shown else None


@frozen
class InAppMessageAction:
    """
    An interaction with an in-app message.

    Attributes:
        type: ``"show"``, ``"click"``, ``"close"`` or ``"error"``.
        message: The message; None for an error that is not about a message.
        button: The button that was clicked, or None.
        interaction: For ``"close"``, whether the customer closed the message; None for the others.
        error_message: For ``"error"``, what went wrong; None for the others.
    """

    type: Literal["show", "click", "close", "error"]
    message: InAppMessage | None = None
    button: InAppMessageButton | None = None
    interaction: bool | None = None
    error_message: str | None = None


@frozen
class InAppContentBlockAction:
    """
    A link or button in a content block.

    Args:
        type: What it does, an `ActionType` or one of its spellings: it opens the URL, or closes the block.
        name: The label, or None.
        url: The URL that it opens; None if there is none, or if it could run something, such as ``javascript:``.
    """

    type: ActionType = field(converter=to_action_type)
    name: str | None = None
    url: str | None = None


@frozen(kw_only=True)
class PersonalizedData:
    """
    The content of a content block for one customer.

    Attributes:
        id: The id of the block.
        status: ``"OK"``, ``"filter_not_matched"``, ``"does_not_exist"`` or ``"unknown"``.
        ttl: How long the content is valid, in seconds.
        loaded_at: When it was loaded, UNIX seconds.
        has_tracking_consent: Whether interactions with the block may be tracked.
        variant_id: The variant of an A/B test, or None.
        variant_name: The name of the variant, or None.
        content_type: ``"html"``, ``"native"`` or another type; None if Engagement does not send it.
        content: The content as sent by Engagement, or None.
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
    A content block for one customer. Its content does not change after it was returned.

    Attributes:
        id: The id of the block.
        name: The name of the block.
        placeholders: The placeholders in which the block may be shown.
        html: HTML without scripts and other unsafe parts, to be inserted into a page; None if there is nothing to show,
            for example for the control group of an A/B test.
        actions: The links and buttons in order.
        frequency: How often the block may be shown, as for `InAppMessage`; None for always.
        load_priority: The block with the highest priority is shown first; None counts as 0.
        date_filter: When the block may be shown, as sent by Engagement, or None.
        consent_category_tracking: The category of the consent to track interactions, or None.
        content_type: The type of `content`; None if the content is personalized.
        content: The content that is the same for all customers, as sent by Engagement, or None.
        personalized_data: The content for this customer, or None.
        customer_ids: The ids of the customer for whom the block was loaded. Interactions are tracked for this customer.
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
    A button of an app inbox message, or a link in its HTML.

    Args:
        action: What it does, an `ActionType` or one of its spellings, or None.
        title: The label, or None.
        url: The URL that it opens; None if there is none, or if it could run something, such as ``javascript:``.
    """

    action: ActionType | None = field(default=None, converter=to_optional_action_type)
    title: str | None = None
    url: str | None = None


@frozen(kw_only=True)
class AppInboxMessage:
    """
    A message of the app inbox.

    Attributes:
        id: The id of the message.
        type: ``"push"`` or ``"html"``.
        is_read: Whether the message has been read.
        create_time: When the message was created, UNIX seconds, or None.
        content: The content as sent by Engagement, whose HTML and links may be unsafe.
        title: The title, or None.
        message: The text, or the preview of an HTML message, or None.
        image_url: The URL of the image; None if there is none, or if it is not one that an image can have.
        html: The HTML of an HTML message without scripts and other unsafe parts, or None.
        action: The action of a click on the message itself, or None.
        actions: The buttons or links in order.
        tracking_data: Properties that Engagement expects in the events about the message.
        has_tracking_consent: Whether interactions with the message may be tracked.
        consent_category_tracking: The category of this consent, or None.
        customer_ids: The ids of the customer for whom the message was fetched. Interactions are tracked for this
            customer.
        sync_token: The token with which the message can be marked as read, or None.
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
    The options of ``fetch_recommendations()``.

    Args:
        id: The id of the recommendation engine.
        fill_with_random: Whether random items are added if there are too few recommendations.
        size: Maximum number of items.
        items: The weights of items on which the recommendation is based, as strings, by item id; None leaves them out.
        no_track: Whether Engagement does not track the recommendation; None leaves it out.
        catalog_attributes_whitelist: The attributes to return of each item; None for all.
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
        engine_name: The name of the recommendation engine.
        item_id: The id of the item.
        recommendation_id: The id of the recommendation.
        recommendation_variant_id: The variant of an A/B test, or None.
        data: The other attributes of the item.
    """

    engine_name: str
    item_id: str
    recommendation_id: str
    recommendation_variant_id: str | None = None
    data: Mapping[str, Any] = field(factory=dict)


@frozen
class CustomerAttribute:
    """
    The value of an attribute of a customer, or the reason why it was not returned.

    Attributes:
        success: Whether the value was returned. If not, the permission for it is usually missing.
        value: The value as JSON types; None without success.
        error: Why there is no value; None with success.
    """

    success: bool
    value: Any = None
    error: str | None = None


@frozen(kw_only=True)
class ConsentSources:
    """
    The sources from which a consent may come.

    Attributes:
        created_from_crm: The customer's record.
        imported: An import.
        from_consent_page: The consent page.
        private_api: The private API.
        public_api: The public API.
        tracked_from_scenario: A scenario.
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
    A consent category.

    Attributes:
        id: The id of the category.
        legitimate_interest: Whether it is a legitimate interest, which needs no consent.
        sources: The sources from which the consent may come.
        translations: Translated strings by language and name; a string may be None.
    """

    id: str
    legitimate_interest: bool
    sources: ConsentSources
    translations: Mapping[str, Mapping[str, str | None]]
