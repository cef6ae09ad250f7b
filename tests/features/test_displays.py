"""
When messages may be shown again.
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
VISIT = 5000.0
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
        ],
    )
    def test_which_moments_pass(self, value: object, *, expected: bool) -> None:
        """Moments between both bounds pass, the bounds included, and all do where no dates are meant."""
        assert read_date_filter(value).includes(NOW) is expected

    def test_whole_seconds_count(self) -> None:
        """The last second passes to its end."""
        assert DateFilter(enabled=True, to_date=2_000_000).includes(2_000_000.999)
        assert not DateFilter(enabled=True, from_date=2_000_001).includes(2_000_000.999)

    @pytest.mark.parametrize(
        "value",
        [
            pytest.param([], id="list"),
            pytest.param("", id="text"),
            pytest.param({"enabled": "true"}, id="text-enabled"),
            pytest.param({"enabled": 1}, id="number-enabled"),
            pytest.param({"enabled": True, "from_date": "1"}, id="text-moment"),
            pytest.param({"enabled": False, "to_date": True}, id="bool-moment"),
        ],
    )
    def test_what_can_not_be_read(self, value: object) -> None:
        """Dates that are not written as they should be are an error that says so."""
        with pytest.raises(FieldError, match=r"^date_filter: .*expected an? \w+, got "):
            read_date_filter(value)

    @given(
        enabled=st.booleans(),
        start=st.none() | st.integers(-5, 5),
        end=st.none() | st.integers(-5, 5),
        second=st.integers(0, 5),
        fraction=st.floats(0, 0.99),
    )
    def test_dates_agree_with_a_plain_retelling(
        self, *, enabled: bool, start: int | None, end: int | None, second: int, fraction: float
    ) -> None:
        """What passes are the seconds of a range."""
        seconds = range(-9 if start is None else start, 10 if end is None else end + 1)
        value = {"enabled": enabled, "from_date": start, "to_date": end}
        assert read_date_filter(value).includes(second + fraction) is (not enabled or second in seconds)


class TestFrequency:
    @pytest.mark.parametrize(
        ("frequency", "display", "visit_start", "expected"),
        [
            pytest.param("always", Impression(4000, 4500), VISIT, True, id="Q01"),
            pytest.param("only_once", Impression(), VISIT, True, id="Q02"),
            pytest.param("only_once", None, VISIT, True, id="Q02-nothing"),
            pytest.param("only_once", Impression(10), VISIT, False, id="Q03"),
            pytest.param("only_once", Impression(None, 10), VISIT, True, id="Q04"),
            pytest.param("once_per_visit", None, VISIT, True, id="Q05"),
            pytest.param("once_per_visit", Impression(4999), VISIT, True, id="Q06"),
            pytest.param("once_per_visit", Impression(5000), VISIT, False, id="Q07"),
            pytest.param("once_per_visit", Impression(6000), VISIT, False, id="Q08"),
            pytest.param("once_per_visit", Impression(6000), 7000.0, True, id="Q09"),
            pytest.param("once_per_visit", Impression(None, 6000), VISIT, True, id="Q10"),
            pytest.param("until_visitor_interacts", Impression(6000), VISIT, True, id="Q11"),
            pytest.param("until_visitor_interacts", Impression(6000, 6001), VISIT, False, id="Q12"),
            pytest.param("until_visitor_interacts", Impression(6000), VISIT, True, id="Q13-message-closed"),
            pytest.param("until_visitor_interacts", Impression(6000, 6001), VISIT, False, id="Q14-block-closed"),
            pytest.param("sometimes", Impression(1, 1), VISIT, True, id="Q15"),
            pytest.param("only_once", Impression(10), 7000.0, False, id="Q16-message-after-identify"),
            pytest.param("only_once", None, 7000.0, True, id="Q17-block-after-identify"),
            pytest.param("only_once", None, 7000.0, True, id="Q18-after-anonymize"),
            pytest.param("ONLY_ONCE", Impression(10), VISIT, False, id="upper-case"),
        ],
    )
    def test_when_it_may_be_shown_again(
        self, frequency: str, display: Impression | None, visit_start: float, *, expected: bool
    ) -> None:
        """A message is shown as often as its frequency allows, and one of an unknown frequency always."""
        assert may_show(frequency, display, visit_start) is expected

    @pytest.mark.parametrize("days", [pytest.param(31, id="Q19")])
    def test_what_is_forgotten_may_be_shown(self, days: int) -> None:
        """A message of which nothing is remembered any more is a new one."""
        kept = unexpired({"m": Impression(NOW - days * DAY)}, NOW)
        assert may_show("only_once", kept.get("m"), VISIT)

    @pytest.mark.parametrize("before", [pytest.param(Impression(), id="Q20")])
    def test_what_was_only_said_to_be_shown(self, before: Impression) -> None:
        """A display that only is remembered, of a control group, counts like any other."""
        assert may_show("only_once", before, VISIT)
        assert not may_show("only_once", evolve(before, displayed=6000.0), VISIT)

    MOMENTS = st.none() | st.sampled_from([4999.0, 5000.0, 5001.0])

    @given(
        st.sampled_from(["always", "only_once", "once_per_visit", "until_visitor_interacts", "Sometimes"]),
        MOMENTS,
        MOMENTS,
    )
    def test_frequency_agrees_with_a_plain_retelling(
        self, frequency: str, displayed: float | None, interacted: float | None
    ) -> None:
        """What stops a message is one moment each, and is looked up in a table."""
        stops = {
            "only_once": [displayed],
            "once_per_visit": [displayed] if (displayed or 0) >= VISIT else [],
            "until_visitor_interacts": [interacted],
        }
        stopped = any(moment is not None for moment in stops.get(frequency, []))
        for spelled in (frequency, frequency.upper()):
            assert may_show(spelled, Impression(displayed, interacted), VISIT) is not stopped

    @given(st.text(), st.floats())
    def test_any_word_is_an_answer(self, frequency: str, visit_start: float) -> None:
        """No frequency is too odd."""
        assert may_show(frequency, Impression(1.0, 2.0), visit_start) in (True, False)


class TestMemory:
    @pytest.mark.parametrize(
        ("display", "expected"),
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
    def test_what_is_forgotten(self, display: Impression, *, expected: bool) -> None:
        """A message is forgotten when nothing happened of it for more than 30 days."""
        assert unexpired({"m": display}, NOW) == ({"m": display} if expected else {})

    def test_little_room_is_taken(self) -> None:
        """What never happened takes no room where nothing follows."""
        displays = {"a": Impression(1.5), "b": Impression(1.5, 2.5), "c": Impression(None, 2.5)}
        assert as_list(displays) == [["a", 1.5], ["b", 1.5, 2.5], ["c", None, 2.5]]

    @given(
        st.dictionaries(
            st.text(),
            st.builds(Impression, st.none() | st.floats(0, 1e10), st.none() | st.floats(0, 1e10)),
        )
    )
    def test_what_was_told_is_read(self, displays: dict[str, Impression]) -> None:
        """What is stored comes back as it was."""
        assert from_list(json.loads(json.dumps(as_list(displays)))) == displays

    @pytest.mark.parametrize("kept", [7, None, [7], [["a", 1, 2, 3]]])
    def test_what_was_not_told(self, kept: Any) -> None:
        """Something else than what was stored is an error."""
        with pytest.raises(TypeError):
            from_list(kept)
