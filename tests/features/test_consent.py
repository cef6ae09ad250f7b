"""
What may be tracked, with and without consent.
"""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exponea_async.features._shared.consent import forces_tracking, has_consent, may_track

WORDS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


class TestConsent:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            pytest.param(None, True, id="G11-absent"),
            pytest.param(True, True, id="G11-true"),
            pytest.param("1", True, id="G11-text-1"),
            pytest.param(1, True, id="G11-1"),
            pytest.param("true", True, id="text-true"),
            pytest.param("TRUE", True, id="text-TRUE"),
            pytest.param(False, False, id="G12-false"),
            pytest.param("0", False, id="G12-text-0"),
            pytest.param(0, False, id="G12-0"),
            pytest.param("yes", False, id="G12-yes"),
            pytest.param(2, False, id="G12-2"),
            pytest.param("false", False, id="text-false"),
            pytest.param("", False, id="empty"),
            pytest.param(1.0, False, id="float"),
            pytest.param([], False, id="list"),
        ],
    )
    def test_values(self, value: object, *, expected: bool) -> None:
        """A missing value, true and 1 mean yes, as strings too; every other value means no."""
        assert has_consent(value) is expected

    @pytest.mark.parametrize("value", ["jane@example.com", 1.0, ["jane@example.com"], b"1"])
    def test_unknown_values(self, value: object, caplog: pytest.LogCaptureFixture) -> None:
        """A value that means neither is logged by its type, once, and never with its content."""
        assert not has_consent(value)
        assert not has_consent(value)
        assert len(caplog.records) == 1
        assert type(value).__name__ in caplog.text
        assert "jane" not in caplog.text

    @pytest.mark.parametrize("value", [None, True, False, 1, 0, 2, "true", "FALSE", "0", "1"])
    def test_known_values(self, value: object, caplog: pytest.LogCaptureFixture) -> None:
        """A value with a known meaning is not logged."""
        with caplog.at_level(logging.DEBUG):
            has_consent(value)
        assert not caplog.records

    @given(WORDS)
    def test_any_value(self, value: object) -> None:
        """Any value means yes or no."""
        assert has_consent(value) in (True, False)


class TestForcedTracking:
    @pytest.mark.parametrize(
        ("url", "expected"),
        [
            pytest.param("https://x.example/?xnpe_force_track=true", True, id="G01"),
            pytest.param("https://x.example/?xnpe_force_track=TRUE", True, id="G02"),
            pytest.param("https://x.example/?xnpe_force_track=True", True, id="G02-title"),
            pytest.param("https://x.example/?a=1&xnpe_force_track=1", True, id="G03"),
            pytest.param("https://x.example/?a=1&xnpe_force_track", True, id="G04"),
            pytest.param("https://x.example/?xnpe_force_track", True, id="G04-alone"),
            pytest.param("https://x.example/?xnpe_force_track=", True, id="G05"),
            pytest.param("https://x.example/?xnpe_force_track=false", False, id="G06-false"),
            pytest.param("https://x.example/?xnpe_force_track=FALSE", False, id="G06-FALSE"),
            pytest.param("https://x.example/?xnpe_force_track=0", False, id="G06-0"),
            pytest.param("https://x.example/?xnpe_force_track=yes", False, id="G07"),
            pytest.param("https://x.example/?q=xnpe_force_track%3Dtrue", False, id="G08-value"),
            pytest.param("https://x.example/xnpe_force_track=true", False, id="G08-path"),
            pytest.param("https://x.example/#?xnpe_force_track=true", False, id="fragment"),
            pytest.param(None, False, id="G09-none"),
            pytest.param("", False, id="G09-empty"),
            pytest.param("mailto:a@b.example", False, id="G09-opaque"),
            pytest.param("mailto:a@b.example?xnpe_force_track=true", False, id="G09-opaque-query"),
            pytest.param("https://x.example/", False, id="G09-no-query"),
            pytest.param("http://[x?xnpe_force_track=true", False, id="unreadable"),
            pytest.param("app://deep?xnpe_force_track=true", True, id="G10"),
            pytest.param("app://x?y=1&xnpe_force_track=true", True, id="G10-second"),
            pytest.param("app://?xnpe_force_track=true", True, id="no-host"),
            pytest.param("x.example/?xnpe_force_track=1", True, id="no-scheme"),
            pytest.param("https://x.example/?xnpe_force_track=0&xnpe_force_track=1", False, id="first-counts"),
        ],
    )
    def test_which_links_force(self, url: str | None, *, expected: bool) -> None:
        """The parameter forces tracking if it is true, 1 or empty, in a link of any scheme."""
        assert forces_tracking(url) is expected

    @given(st.text())
    def test_any_link(self, text: str) -> None:
        """Any string is accepted as a link."""
        assert forces_tracking(text) in (True, False)
        assert forces_tracking(f"https://{text}?xnpe_force_track") in (True, False)


FORCED = "https://x.example/?xnpe_force_track=1"


class TestMayTrack:
    @pytest.mark.parametrize(
        ("consent", "consider", "url", "expected"),
        [
            pytest.param(True, True, None, True, id="consent"),
            pytest.param(False, True, None, False, id="no-consent"),
            pytest.param(False, True, "https://x.example/", False, id="no-consent-plain-link"),
            pytest.param(False, True, FORCED, True, id="no-consent-forced-link"),
            pytest.param(False, False, None, True, id="not-considered"),
            pytest.param(False, False, "https://x.example/", True, id="not-considered-plain-link"),
        ],
    )
    def test_the_matrix(self, *, consent: bool, consider: bool, url: str | None, expected: bool) -> None:
        """Without consent nothing is tracked, unless consent is not considered or a click is forced."""
        assert may_track(has_consent=consent, consider_consent=consider, url=url) is expected
