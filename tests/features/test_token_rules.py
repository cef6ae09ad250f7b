"""
When the state of a push token is tracked, and which.
"""

import json
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from exponea_async.devices.push_tokens import (
    Platform,
    TokenConditions,
    TokenMemory,
    TokenState,
    handle,
    invalidate,
    legacy_property,
    reassign,
    track,
    verify,
)
from exponea_async.errors import InvalidEventError
from exponea_async.models import TokenFrequency

ON_CHANGE, LAUNCH, DAILY = TokenFrequency.ON_TOKEN_CHANGE, TokenFrequency.EVERY_LAUNCH, TokenFrequency.DAILY
MIDNIGHT = 1_767_225_600.0  # 2026-01-01, UTC
NOON = MIDNIGHT + 43_200

GRANTED_A = TokenState("A", "android", valid=True, description="Permission granted")
GRANTED_B = TokenState("B", "android", valid=True, description="Permission granted")
DENIED_A = TokenState("A", "android", valid=False, description="Permission denied")
INVALID_A = TokenState("A", "android", valid=False, description="Invalidated")


def conditions(**changed: Any) -> TokenConditions:
    """Return the conditions of most tests, with some changed."""
    usual: TokenConditions = {
        "granted": None,
        "require": False,
        "now": NOON,
        "app_version": "1.0",
        "application_id": "com.example.shop",
        "form": "event",
    }
    return {**usual, **changed}  # type: ignore[typeddict-item]


def remembered(token: str = "A", **changed: Any) -> TokenMemory:
    """Return the memory of a token that was tracked at noon."""
    return track(None, token, "android", **conditions(**changed))[0]


class TestStates:
    @pytest.mark.parametrize(
        ("require", "granted", "valid", "description"),
        [
            pytest.param(False, True, True, "Permission granted", id="not-required-granted"),
            pytest.param(False, False, True, "Permission granted", id="not-required-denied"),
            pytest.param(True, True, True, "Permission granted", id="required-granted"),
            pytest.param(True, False, False, "Permission denied", id="N07-required-denied"),
            pytest.param(True, None, True, "Permission granted", id="required-unknown"),
        ],
    )
    def test_the_truth_table(self, *, require: bool, granted: bool | None, valid: bool, description: str) -> None:
        """A token is valid unless the permission is required and denied."""
        states = track(None, "A", "android", **conditions(require=require, granted=granted))[1]
        assert states == (TokenState("A", "android", valid=valid, description=description),)

    @pytest.mark.parametrize("granted", [True, False])
    @pytest.mark.parametrize("require", [True, False])
    def test_invalidation_overrides_the_table(self, *, require: bool, granted: bool) -> None:
        """An invalidated token is invalid, whatever the permission."""
        assert invalidate(remembered(require=require, granted=granted), "event") == (INVALID_A,)

    @pytest.mark.parametrize("platform", ["android", "huawei", "ios"])
    def test_the_four_properties(self, platform: Platform) -> None:
        """The event has these properties and no others."""
        assert TokenState("A", platform, valid=True, description="Permission granted").properties() == {
            "push_notification_token": "A",
            "platform": platform,
            "valid": True,
            "description": "Permission granted",
        }

    @pytest.mark.parametrize(
        ("platform", "name"),
        [
            ("android", "google_push_notification_id"),
            ("huawei", "huawei_push_notification_id"),
            ("ios", "apple_push_notification_id"),
        ],
    )
    def test_the_legacy_property(self, platform: Platform, name: str) -> None:
        """Older versions of the vendor's SDKs stored the token in a customer property."""
        assert legacy_property(platform) == name

    def test_tokens_are_not_shown(self) -> None:
        """A token in a log line would let others write to the device."""
        memory = remembered("secret-token")
        assert "secret-token" not in f"{memory} {invalidate(memory, 'event')}"


class TestHandle:
    @pytest.mark.parametrize("frequency", TokenFrequency)
    def test_the_first_token(self, frequency: TokenFrequency) -> None:
        """A device's first token is tracked and remembered."""
        memory, states = handle(None, "A", "android", frequency=frequency, **conditions())
        assert states == (GRANTED_A,)
        assert memory == remembered()

    @pytest.mark.parametrize(
        ("frequency", "later", "due"),
        [
            pytest.param(ON_CHANGE, 0, False, id="N01"),
            pytest.param(ON_CHANGE, 86_400, False, id="N01-next-day"),
            pytest.param(LAUNCH, 0, True, id="N03"),
            pytest.param(DAILY, 0, False, id="N04-at-once"),
            pytest.param(DAILY, 43_199, False, id="N04-same-day"),
            pytest.param(DAILY, 43_200, True, id="N04-next-day"),
            pytest.param(DAILY, -43_201, True, id="N04-day-before"),
        ],
    )
    def test_the_same_token(self, frequency: TokenFrequency, later: float, *, due: bool) -> None:
        """The same token is tracked again as the frequency says; a day is one of UTC, not 24 hours."""
        kept = remembered()
        for memory, states in (
            handle(kept, "A", "android", frequency=frequency, **conditions(now=NOON + later)),
            verify(kept, frequency=frequency, **conditions(now=NOON + later)),
        ):
            assert states == ((GRANTED_A,) if due else ())
            assert memory == evolve(kept, tracked_at=NOON + later if due else NOON)

    @pytest.mark.parametrize("frequency", TokenFrequency)
    def test_another_token(self, frequency: TokenFrequency) -> None:
        """N02: the old token is invalidated, then the new one is tracked and remembered, on the same day too."""
        memory, states = handle(remembered(), "B", "android", frequency=frequency, **conditions())
        assert states == (INVALID_A, GRANTED_B)
        assert memory == remembered("B")

    @pytest.mark.parametrize("frequency", TokenFrequency)
    def test_the_same_token_of_another_platform(self, frequency: TokenFrequency) -> None:
        """The same string from another platform is another token."""
        memory, states = handle(remembered(), "A", "huawei", frequency=frequency, **conditions())
        assert states == (INVALID_A, TokenState("A", "huawei", valid=True, description="Permission granted"))
        assert memory == evolve(remembered(), platform="huawei")

    def test_another_token_while_denied(self) -> None:
        """A new token is tracked even if the user denies notifications."""
        kept = remembered(require=True, granted=False)
        memory, states = handle(kept, "B", "android", frequency=DAILY, **conditions(require=True))
        assert states == (INVALID_A, TokenState("B", "android", valid=False, description="Permission denied"))
        assert memory == evolve(kept, token="B")

    @pytest.mark.parametrize("token", ["", "  \n", None, 5, b"A"])
    def test_invalid_tokens(self, token: Any) -> None:
        """An invalid token is refused at the call."""
        with pytest.raises(InvalidEventError, match=r"^token: "):
            handle(remembered(), token, "android", frequency=LAUNCH, **conditions())
        with pytest.raises(InvalidEventError, match=r"^token: "):
            track(None, token, "android", **conditions())


class TestVerify:
    def test_no_token(self) -> None:
        """Without a token nothing is tracked."""
        assert verify(None, frequency=LAUNCH, **conditions()) == (None, ())

    @pytest.mark.parametrize("frequency", TokenFrequency)
    @pytest.mark.parametrize(
        "changed",
        [
            pytest.param({"app_version": "1.1"}, id="app-version"),
            pytest.param({"app_version": None}, id="no-app-version"),
            pytest.param({"application_id": "com.example.cafe"}, id="N06"),
        ],
    )
    def test_another_application(self, frequency: TokenFrequency, changed: dict[str, Any]) -> None:
        """With a new version or id of the application the token is tracked once, whatever the frequency."""
        memory, states = verify(remembered(), frequency=frequency, **conditions(**changed))
        assert states == (GRANTED_A,)
        assert memory == evolve(remembered(), **changed)
        assert verify(memory, frequency=ON_CHANGE, **conditions(**changed)) == (memory, ())

    @pytest.mark.parametrize("frequency", TokenFrequency)
    def test_a_denial_is_tracked_once(self, frequency: TokenFrequency) -> None:
        """N07: a denied permission is tracked once, and not at each verification after that."""
        memory, states = verify(remembered(), frequency=frequency, **conditions(require=True, granted=False))
        assert states == (DENIED_A,)
        for day in range(3):
            later = conditions(require=True, granted=False, now=NOON + day * 86_400)
            assert verify(memory, frequency=frequency, **later) == (memory, ())

    @pytest.mark.parametrize("frequency", TokenFrequency)
    def test_a_grant_after_a_denial(self, frequency: TokenFrequency) -> None:
        """A token that becomes valid again is tracked at once."""
        kept = remembered(require=True, granted=False)
        assert verify(kept, frequency=frequency, **conditions(require=True, granted=True)) == (
            remembered(),
            (GRANTED_A,),
        )

    def test_another_application_while_denied(self) -> None:
        """With a new version of the application a denial is tracked again."""
        kept = remembered(require=True, granted=False)
        assert verify(kept, frequency=DAILY, **conditions(require=True, app_version="1.1"))[1] == (DENIED_A,)

    @pytest.mark.parametrize("frequency", TokenFrequency)
    def test_the_permission_becomes_required(self, frequency: TokenFrequency) -> None:
        """A denial is tracked once the permission becomes required, and again once it is no longer required."""
        denied = remembered(granted=False)
        memory, states = verify(denied, frequency=frequency, **conditions(require=True))
        assert states == (DENIED_A,)
        assert verify(memory, frequency=frequency, **conditions(require=False)) == (denied, (GRANTED_A,))

    @pytest.mark.parametrize(
        ("frequency", "due"),
        [
            pytest.param(ON_CHANGE, True, id="on-change"),
            pytest.param(LAUNCH, True, id="every-launch"),
            pytest.param(DAILY, False, id="daily"),
        ],
    )
    @pytest.mark.parametrize("granted", [True, False])
    def test_a_permission_that_is_not_required(self, frequency: TokenFrequency, *, due: bool, granted: bool) -> None:
        """A change of a permission that is not required is tracked as the frequency says, and remembered."""
        kept = remembered(granted=not granted)
        memory, states = verify(kept, frequency=frequency, **conditions(granted=granted))
        assert states == ((GRANTED_A,) if due else ())
        assert memory == evolve(kept, granted=granted)

    @pytest.mark.parametrize("granted", [True, False])
    def test_a_permission_as_last_known(self, *, granted: bool) -> None:
        """An unknown permission stands for the last known one."""
        kept = remembered(granted=granted, require=True)
        assert verify(kept, frequency=ON_CHANGE, **conditions(require=True)) == (kept, ())


class TestTrack:
    def test_the_same_token(self) -> None:
        """N05: an explicitly tracked token is tracked each time."""
        memory, states = track(remembered(), "A", "android", **conditions(now=NOON + 1))
        assert states == (GRANTED_A,)
        assert memory == evolve(remembered(), tracked_at=NOON + 1)

    def test_another_token(self) -> None:
        """Another token is tracked and remembered; the old one is not invalidated."""
        assert track(remembered(), "B", "android", **conditions()) == (remembered("B"), (GRANTED_B,))

    @pytest.mark.parametrize("granted", [True, False])
    def test_a_permission_as_last_known(self, *, granted: bool) -> None:
        """The permission is the device's, not the token's."""
        kept = remembered(granted=granted, require=True)
        memory, states = track(kept, "B", "android", **conditions(require=True))
        assert memory.granted is granted
        assert states[0].valid is granted


class TestNewCustomer:
    def test_the_token_moves_to_the_new_customer(self) -> None:
        """N08: the old customer's token is invalidated, and tracked for the new customer."""
        kept = remembered()
        assert invalidate(kept, "event") == (INVALID_A,)
        assert reassign(kept, **conditions(now=NOON + 1)) == (evolve(kept, tracked_at=NOON + 1), (GRANTED_A,))

    def test_a_denial_moves_to_the_new_customer(self) -> None:
        """A denial is tracked again for the new customer."""
        kept = remembered(require=True, granted=False)
        assert reassign(kept, **conditions(require=True)) == (kept, (DENIED_A,))

    def test_no_token(self) -> None:
        """N10: without a token nothing is tracked."""
        assert invalidate(None, "event") == ()
        assert reassign(None, **conditions()) == (None, ())


MEMORIES = st.builds(
    TokenMemory,
    token=st.text(min_size=1),
    platform=st.sampled_from(("android", "huawei", "ios")),
    tracked_at=st.floats(allow_nan=False, allow_infinity=False),
    granted=st.booleans(),
    app_version=st.none() | st.text(),
    application_id=st.text(),
    valid=st.booleans(),
    form=st.sampled_from((None, "event", "property")),
)
CHECKS = st.fixed_dictionaries(
    {
        "granted": st.none() | st.booleans(),
        "require": st.booleans(),
        "now": st.floats(0, 1e11),
        "app_version": st.sampled_from((None, "1.0", "1.1")),
        "application_id": st.sampled_from(("shop", "cafe")),
        "form": st.sampled_from(("event", "property")),
    }
)


class TestMemory:
    @given(MEMORIES)
    def test_round_trip(self, memory: TokenMemory) -> None:
        """A memory is read back from JSON as it was."""
        assert TokenMemory.from_dict(json.loads(json.dumps(memory.as_dict()))) == memory

    def test_fields_of_a_later_version(self) -> None:
        """An older version reads the memory of a newer one."""
        assert TokenMemory.from_dict({**remembered().as_dict(), "mood": "good"}) == remembered()

    def test_missing_fields(self) -> None:
        """A memory without a token can't be read."""
        with pytest.raises(TypeError):
            TokenMemory.from_dict({"platform": "android"})

    @given(MEMORIES, CHECKS, st.sampled_from(TokenFrequency))
    def test_engagement_has_the_remembered_state(
        self, memory: TokenMemory, now: Any, frequency: TokenFrequency
    ) -> None:
        """Engagement gets the remembered state, and with ON_TOKEN_CHANGE no state is tracked twice."""
        after, states = verify(memory, frequency=frequency, **now)
        assert after is not None
        assert after.valid == (after.granted or not now["require"])
        unchanged = evolve(memory, granted=after.granted, form=after.form)
        assert states[-1:] == reassign(after, **now)[1] or (not states and after == unchanged)
        assert verify(after, frequency=ON_CHANGE, **now) == (after, ())
