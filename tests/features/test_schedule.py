"""
When messages may be shown, and shown again.
"""

import json
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from exponea_async._internal.fields import FieldError
from exponea_async.devices.impressions import RETENTION, Impression, as_list, from_list, unexpired
from exponea_async.features._shared.targeting.schedule import DateFilter, may_show, read_date_filter

NOW = 2_000_000.0
SESSION = 5000.0
DAY = 86_400.0


class TestDateFilter:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            pytest.param({}, True, id="D01"),
            pytest.param({"enabled": None}, True, id="D01-null"),
            pytest.param({"enabled": False, "from_date": 9_000_000}, True, id="D02"),
            pytest.param({"enabled": True}, True, id="D03"),
            pytest.param({"enabled": True, "to_date": 1_999_999}, False, id="D04"),
            pytest.param({"enabled": True, "to_date": 2_000_000}, True, id="D05"),
            pytest.param({"enabled": True, "to_date": 2_000_001}, True, id="D06"),
            pytest.param({"enabled": True, "from_date": 2_000_001}, False, id="D07"),
            pytest.param({"enabled": True, "from_date": 2_000_000}, True, id="D08"),
            pytest.param({"enabled": True, "from_date": 1, "to_date": 3_000_000}, True, id="D09"),
            pytest.param({"enabled": True, "from_date": 2_500_000, "to_date": 3_000_000}, False, id="D10"),
            pytest.param({"enabled": True, "from_date": 1, "to_date": 2}, False, id="D11"),
            pytest.param(None, True, id="D12"),
            pytest.param({"enabled": True, "from_date": None, "to_date": None}, True, id="null-bounds"),
            pytest.param({"enabled": True, "from_date": 1_999_999.5, "to_date": 2_000_000.5}, True, id="fractions"),
            pytest.param({"enabled": True, "from_date": 2_000_000.5}, False, id="from-a-fraction"),
            pytest.param({"enabled": True, "to_date": 1_999_999.5}, False, id="to-a-fraction"),
        ],
    )
    def test_which_times_are_included(self, value: object, *, expected: bool) -> None:
        """Times between both bounds are included, the bounds too, and all times without enabled dates."""
        assert read_date_filter(value).includes(NOW) is expected

    def test_whole_seconds_count(self) -> None:
        """The last second is included to its end."""
        assert DateFilter(enabled=True, to_date=2_000_000).includes(2_000_000.999)
        assert not DateFilter(enabled=True, from_date=2_000_001).includes(2_000_000.999)

    @pytest.mark.parametrize(
        "value",
        [
            pytest.param([], id="list"),
            pytest.param("", id="string"),
            pytest.param({"enabled": "true"}, id="string-enabled"),
            pytest.param({"enabled": 1}, id="number-enabled"),
            pytest.param({"enabled": True, "from_date": "1"}, id="string-date"),
            pytest.param({"enabled": False, "to_date": True}, id="bool-date"),
        ],
    )
    def test_broken_dates(self, value: object) -> None:
        """Broken dates raise an error that says what is expected."""
        with pytest.raises(FieldError, match=r"^date_filter: .*expected an? \w+, got "):
            read_date_filter(value)

    @given(
        enabled=st.booleans(),
        start=st.none() | st.integers(-5, 5),
        end=st.none() | st.integers(-5, 5),
        second=st.integers(0, 5),
        fraction=st.floats(0, 0.99),
    )
    def test_dates_agree_with_an_independent_implementation(
        self, *, enabled: bool, start: int | None, end: int | None, second: int, fraction: float
    ) -> None:
        """The seconds that are included are those of a range."""
        seconds = range(-9 if start is None else start, 10 if end is None else end + 1)
        value = {"enabled": enabled, "from_date": start, "to_date": end}
        assert read_date_filter(value).includes(second + fraction) is (not enabled or second in seconds)


class TestFrequency:
    @pytest.mark.parametrize(
        ("frequency", "impression", "session_start", "expected"),
        [
            pytest.param("always", Impression(4000, 4500), SESSION, True, id="Q01"),
            pytest.param("only_once", Impression(), SESSION, True, id="Q02"),
            pytest.param("only_once", None, SESSION, True, id="Q02-nothing"),
            pytest.param("only_once", Impression(10), SESSION, False, id="Q03"),
            pytest.param("only_once", Impression(None, 10), SESSION, True, id="Q04"),
            pytest.param("once_per_visit", None, SESSION, True, id="Q05"),
            pytest.param("once_per_visit", Impression(4999), SESSION, True, id="Q06"),
            pytest.param("once_per_visit", Impression(5000), SESSION, False, id="Q07"),
            pytest.param("once_per_visit", Impression(6000), SESSION, False, id="Q08"),
            pytest.param("once_per_visit", Impression(6000), 7000.0, True, id="Q09"),
            pytest.param("once_per_visit", Impression(None, 6000), SESSION, True, id="Q10"),
            pytest.param("until_visitor_interacts", Impression(6000), SESSION, True, id="Q11"),
            pytest.param("until_visitor_interacts", Impression(6000, 6001), SESSION, False, id="Q12"),
            pytest.param("until_visitor_interacts", Impression(6000), SESSION, True, id="Q13-message-closed"),
            pytest.param("until_visitor_interacts", Impression(6000, 6001), SESSION, False, id="Q14-block-closed"),
            pytest.param("sometimes", Impression(1, 1), SESSION, True, id="Q15"),
            pytest.param("only_once", Impression(10), 7000.0, False, id="Q16-message-after-identify"),
            pytest.param("only_once", None, 7000.0, True, id="Q17-block-after-identify"),
            pytest.param("only_once", None, 7000.0, True, id="Q18-after-anonymize"),
            pytest.param("ONLY_ONCE", Impression(10), SESSION, False, id="upper-case"),
        ],
    )
    def test_when_a_message_may_be_shown_again(
        self, frequency: str, impression: Impression | None, session_start: float, *, expected: bool
    ) -> None:
        """A message is shown as often as its frequency allows, and one of an unknown frequency always."""
        assert may_show(frequency, impression, session_start) is expected

    @pytest.mark.parametrize("days", [pytest.param(31, id="Q19")])
    def test_forgotten_impressions(self, days: int) -> None:
        """A message whose impression was forgotten may be shown again."""
        stored = unexpired({"m": Impression(NOW - days * DAY)}, NOW)
        assert may_show("only_once", stored.get("m"), SESSION)

    @pytest.mark.parametrize("impression", [pytest.param(Impression(), id="Q20")])
    def test_impressions_of_a_control_group(self, impression: Impression) -> None:
        """A display that is only remembered, for a control group, counts like any other."""
        assert may_show("only_once", impression, SESSION)
        assert not may_show("only_once", evolve(impression, displayed=6000.0), SESSION)

    TIMES = st.none() | st.sampled_from([4999.0, 5000.0, 5001.0])

    @given(
        st.sampled_from(["always", "only_once", "once_per_visit", "until_visitor_interacts", "Sometimes"]),
        TIMES,
        TIMES,
    )
    def test_frequency_agrees_with_an_independent_implementation(
        self, frequency: str, displayed: float | None, interacted: float | None
    ) -> None:
        """What prevents a message is one time for each frequency, in a table."""
        stops = {
            "only_once": [displayed],
            "once_per_visit": [displayed] if (displayed or 0) >= SESSION else [],
            "until_visitor_interacts": [interacted],
        }
        stopped = any(time is not None for time in stops.get(frequency, []))
        for spelled in (frequency, frequency.upper()):
            assert may_show(spelled, Impression(displayed, interacted), SESSION) is not stopped

    @given(st.text(), st.floats())
    def test_any_frequency(self, frequency: str, session_start: float) -> None:
        """Any string is accepted as a frequency."""
        assert may_show(frequency, Impression(1.0, 2.0), session_start) in (True, False)


class TestImpressions:
    @pytest.mark.parametrize(
        ("impression", "expected"),
        [
            pytest.param(Impression(NOW - RETENTION), True, id="30-days"),
            pytest.param(Impression(NOW - RETENTION - 1), False, id="longer"),
            pytest.param(Impression(None, NOW - RETENTION), True, id="interacted-30-days"),
            pytest.param(Impression(None, NOW - RETENTION - 1), False, id="interacted-longer"),
            pytest.param(Impression(NOW - RETENTION - 1, NOW), True, id="interacted-now"),
            pytest.param(Impression(NOW, NOW - RETENTION - 1), True, id="displayed-now"),
            pytest.param(Impression(NOW - RETENTION - 1, NOW - RETENTION - 1), False, id="both-longer"),
            pytest.param(Impression(), False, id="nothing"),
        ],
    )
    def test_expiry(self, impression: Impression, *, expected: bool) -> None:
        """An impression expires when nothing happened for more than 30 days."""
        assert unexpired({"m": impression}, NOW) == ({"m": impression} if expected else {})

    def test_the_stored_form_is_small(self) -> None:
        """An interaction that never happened is not stored."""
        impressions = {"a": Impression(1.5), "b": Impression(1.5, 2.5), "c": Impression(None, 2.5)}
        assert as_list(impressions) == [["a", 1.5], ["b", 1.5, 2.5], ["c", None, 2.5]]

    @given(
        st.dictionaries(
            st.text(),
            st.builds(Impression, st.none() | st.floats(0, 1e10), st.none() | st.floats(0, 1e10)),
        )
    )
    def test_the_stored_form_can_be_read(self, impressions: dict[str, Impression]) -> None:
        """Impressions are read as they were stored."""
        assert from_list(json.loads(json.dumps(as_list(impressions)))) == impressions

    @pytest.mark.parametrize("stored", [7, None, [7], [["a", 1, 2, 3]]])
    def test_a_broken_stored_form(self, stored: Any) -> None:
        """Something else than the stored form raises an error."""
        with pytest.raises(TypeError):
            from_list(stored)
