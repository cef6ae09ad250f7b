"""
The campaign of a link, and how long it counts.
"""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exponea_async.devices.campaigns import PARAMETERS, Campaign, is_alive, read_link, read_url_params

NOW = 1_767_225_600.25

STRINGS = st.none() | st.text()
CAMPAIGNS = st.builds(
    Campaign,
    url=STRINGS,
    created_at=st.floats(allow_nan=False, allow_infinity=False),
    **dict.fromkeys(PARAMETERS, STRINGS),
)


def read(url: str) -> Campaign:
    """Return the campaign of a link."""
    campaign = read_link(url, NOW)
    assert campaign is not None
    return campaign


class TestReadLink:
    def test_all_parameters(self) -> None:
        """All campaign parameters and the time are read, and other parameters are ignored."""
        url = "https://s.example/p?utm_source=a&utm_medium=b&utm_campaign=c&utm_content=d&utm_term=e&xnpe_cmp=f&x=g"
        assert read(url) == Campaign(
            url=url,
            utm_source="a",
            utm_medium="b",
            utm_campaign="c",
            utm_content="d",
            utm_term="e",
            xnpe_cmp="f",
            created_at=NOW,
        )

    @pytest.mark.parametrize(
        ("query", "source"),
        [
            pytest.param("?utm_source=a&utm_source=b", "a", id="K06"),
            pytest.param("?utm_source=a%20%26%C3%A9&x=1", "a &é", id="K10"),
            pytest.param("?utm_source=a+b", "a b", id="K10-plus"),
            pytest.param("?utm_source=%FF", "\ufffd", id="K10-no-utf-8"),
            pytest.param("?utm_source=a=b", "a=b", id="equals-sign"),
            pytest.param("?utm_source=", "", id="empty"),
            pytest.param("?utm_source", "", id="no-value"),
            pytest.param("?UTM_SOURCE=a", None, id="case"),
            pytest.param("?x=utm_source%3Da", None, id="within-a-value"),
            pytest.param("?utm_source=a#utm_source=b", "a", id="before-a-fragment"),
            pytest.param("#/?utm_source=a", None, id="in-a-fragment"),
            pytest.param("?", None, id="empty-query"),
        ],
    )
    def test_values(self, query: str, source: str | None) -> None:
        """Only the query is read; of a repeated parameter the first value counts, decoded."""
        assert read(f"https://s.example/p{query}").utm_source == source

    @pytest.mark.parametrize(
        "url",
        [
            pytest.param("shop.example/?utm_source=a", id="K11"),
            pytest.param("/p?utm_source=https://a", id="path"),
            pytest.param("//shop.example/?utm_source=a", id="no-scheme"),
            pytest.param("", id="empty"),
            pytest.param("  ", id="blank"),
            pytest.param("://shop.example", id="empty-scheme"),
            pytest.param("http://[shop.example/?utm_source=a", id="unreadable"),
            pytest.param(None, id="none"),
            pytest.param(b"https://shop.example/", id="bytes"),
        ],
    )
    def test_not_a_link(self, url: Any) -> None:
        """A string without a scheme has no campaign."""
        assert read_link(url, NOW) is None

    @pytest.mark.parametrize("url", ["app://sale?utm_source=a", "app://?utm_source=a", "x-shop.a+b:/p?utm_source=a"])
    def test_any_scheme(self, url: str) -> None:
        """Deep links have campaigns, too."""
        assert read(url).utm_source == "a"

    def test_opaque_link(self) -> None:
        """The parameters of a link without a path or host are not read."""
        assert read("mailto:a@b.example?utm_source=a").properties() == {"url": "mailto:a@b.example?utm_source=a"}

    @given(st.text(), st.text())
    def test_link_is_unchanged(self, before: str, after: str) -> None:
        """The link stays as it was passed, whatever it contains."""
        for url in (before, f"https://s.example/{before}?{after}"):
            campaign = read_link(url, NOW)
            assert campaign is None or campaign.url == url


class TestClick:
    @pytest.mark.parametrize(
        ("url", "expected"),
        [
            pytest.param("https://s.example/?utm_source=a&xnpe_cmp=b", True, id="K01"),
            pytest.param("https://s.example/?utm_source=a", False, id="K02"),
            pytest.param("https://s.example/?xnpe_cmp=", False, id="K07"),
            pytest.param("https://s.example/p", False, id="K11b"),
        ],
    )
    def test_clicks(self, url: str, *, expected: bool) -> None:
        """A link with a non-empty `xnpe_cmp` is a click."""
        assert read(url).is_click is expected

    def test_notification_is_not_a_click(self) -> None:
        """A campaign without a link is not a click."""
        assert not Campaign(xnpe_cmp="a", created_at=NOW).is_click


class TestProperties:
    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            pytest.param("?utm_source=a&xnpe_cmp=b", {"utm_source": "a", "xnpe_cmp": "b"}, id="K01"),
            pytest.param("?utm_source=a", {"utm_source": "a"}, id="K02"),
            pytest.param("?xnpe_cmp=", {"xnpe_cmp": ""}, id="K07"),
            pytest.param("", {}, id="K11b"),
        ],
    )
    def test_session_properties(self, query: str, expected: dict[str, str]) -> None:
        """The start of a session gets the link and its campaign parameters."""
        url = f"https://s.example/p{query}"
        assert read(url).properties() == {"url": url, **expected}


class TestReadURLParams:
    def test_notification(self) -> None:
        """K09: the campaign parameters of a notification are read, without a link."""
        campaign = read_url_params({"utm_source": "push", "xnpe_cmp": "q1", "x": "y"}, NOW)
        assert campaign == Campaign(utm_source="push", xnpe_cmp="q1", created_at=NOW)

    @pytest.mark.parametrize("params", [{}, {"x": "y"}, {"utm_source": None}, {"utm_source": ["a"], "url": "b"}])
    def test_no_parameters(self, params: dict[str, Any]) -> None:
        """Without a campaign parameter there is no campaign."""
        assert read_url_params(params, NOW) is None

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (2026, "2026"),
            (0.5, "0.5"),
            (True, None),
            ([], None),
            ({}, None),
            pytest.param(10**5000, None, id="endless"),
            ("", ""),
        ],
    )
    def test_other_types(self, value: object, expected: str | None) -> None:
        """A number is read as a string; a value of another type is ignored."""
        campaign = read_url_params({"utm_source": "push", "utm_campaign": value}, NOW)
        assert campaign == Campaign(utm_source="push", utm_campaign=expected, created_at=NOW)


class TestAttribution:
    @pytest.mark.parametrize(
        ("later", "expected"),
        [
            pytest.param(0, True, id="at-once"),
            pytest.param(11, False, id="K04"),
            pytest.param(10, True, id="K05"),
            pytest.param(-10, True, id="K05-clock-set-back"),
            pytest.param(-11, False, id="K04-clock-set-back"),
        ],
    )
    def test_duration(self, later: float, *, expected: bool) -> None:
        """A campaign counts for exactly the given time, also if the clock was set back."""
        assert is_alive(Campaign(url="https://s.example", created_at=5000), 5000 + later, 10) is expected


class TestStorage:
    @given(CAMPAIGNS)
    def test_round_trip(self, campaign: Campaign) -> None:
        """A stored campaign is read unchanged."""
        assert Campaign.from_dict(json.loads(json.dumps(campaign.as_dict()))) == campaign

    def test_unknown_field(self) -> None:
        """Unknown fields, which a later version may have stored, are ignored."""
        assert Campaign.from_dict({"url": "https://s.example", "created_at": 1.0, "mood": "good"}) == Campaign(
            url="https://s.example", created_at=1.0
        )

    def test_without_a_timestamp(self) -> None:
        """A stored campaign without a timestamp raises an error."""
        with pytest.raises(TypeError):
            Campaign.from_dict({"url": "https://s.example"})
