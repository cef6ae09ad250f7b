"""
Which campaign a link belongs to, and for how long.
"""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exponea_async.devices.campaigns import PARAMETERS, Campaign, is_alive, read_link, read_url_params

NOW = 1_767_225_600.25

TEXTS = st.none() | st.text()
CAMPAIGNS = st.builds(
    Campaign,
    url=TEXTS,
    created_at=st.floats(allow_nan=False, allow_infinity=False),
    **dict.fromkeys(PARAMETERS, TEXTS),
)


def read(url: str) -> Campaign:
    """Read a link that is one."""
    campaign = read_link(url, NOW)
    assert campaign is not None
    return campaign


class TestReadLink:
    def test_all_of_it(self) -> None:
        """Each parameter is read, what is not of a campaign is not, and the moment is kept."""
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
    def test_how_values_are_read(self, query: str, source: str | None) -> None:
        """The first of a name counts, decoded; only the query is read."""
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
    def test_what_is_no_link(self, url: Any) -> None:
        """Without a scheme there is no campaign at all."""
        assert read_link(url, NOW) is None

    @pytest.mark.parametrize("url", ["app://sale?utm_source=a", "app://?utm_source=a", "x-shop.a+b:/p?utm_source=a"])
    def test_any_scheme(self, url: str) -> None:
        """Deep links are links too."""
        assert read(url).utm_source == "a"

    def test_an_opaque_link(self) -> None:
        """What has a scheme and no place is a visit without parameters."""
        assert read("mailto:a@b.example?utm_source=a").properties() == {"url": "mailto:a@b.example?utm_source=a"}

    @given(st.text(), st.text())
    def test_the_link_is_kept_as_it_is(self, before: str, after: str) -> None:
        """Whatever the text, the caller's link is not changed by a character."""
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
    def test_which_visits_are_clicks(self, url: str, *, expected: bool) -> None:
        """Engagement counts what bears its sign."""
        assert read(url).is_click is expected

    def test_a_notification_is_none(self) -> None:
        """What came without a link is no click on one."""
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
    def test_what_a_session_gets(self, query: str, expected: dict[str, str]) -> None:
        """A session's start gets the link and what it tells, under these names and no other."""
        url = f"https://s.example/p{query}"
        assert read(url).properties() == {"url": url, **expected}


class TestReadURLParams:
    def test_a_notification(self) -> None:
        """K09: what a notification tells of its campaign is read, without a link."""
        campaign = read_url_params({"utm_source": "push", "xnpe_cmp": "q1", "x": "y"}, NOW)
        assert campaign == Campaign(utm_source="push", xnpe_cmp="q1", created_at=NOW)

    @pytest.mark.parametrize("params", [{}, {"x": "y"}, {"utm_source": None}, {"utm_source": ["a"], "url": "b"}])
    def test_nothing_told(self, params: dict[str, Any]) -> None:
        """Without any of its names there is no campaign."""
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
    def test_what_is_no_text(self, value: object, expected: str | None) -> None:
        """A number is taken as a text, other kinds lose themselves only."""
        campaign = read_url_params({"utm_source": "push", "utm_campaign": value}, NOW)
        assert campaign == Campaign(utm_source="push", utm_campaign=expected, created_at=NOW)


class TestLife:
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
    def test_how_long(self, later: float, *, expected: bool) -> None:
        """It counts to the second, and both ways."""
        assert is_alive(Campaign(url="https://s.example", created_at=5000), 5000 + later, 10) is expected


class TestMemory:
    @given(CAMPAIGNS)
    def test_there_and_back(self, campaign: Campaign) -> None:
        """What is remembered as JSON is read back as it was."""
        assert Campaign.from_dict(json.loads(json.dumps(campaign.as_dict()))) == campaign

    def test_what_a_later_version_adds(self) -> None:
        """An older version reads a newer one's memory."""
        assert Campaign.from_dict({"url": "https://s.example", "created_at": 1.0, "mood": "good"}) == Campaign(
            url="https://s.example", created_at=1.0
        )

    def test_without_a_moment(self) -> None:
        """A memory without a moment is none."""
        with pytest.raises(TypeError):
            Campaign.from_dict({"url": "https://s.example"})
