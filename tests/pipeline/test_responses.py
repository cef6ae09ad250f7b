"""
What a response of the platform says: the result of each record, the reason of a failure, the wait it asks for.
"""

import json
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exponea_async._pipeline.responses import (
    BatchResult,
    HttpResponse,
    classify,
    parse_retry_after,
    read_batch_result,
)
from exponea_async.errors import ProjectPausedError, RejectedError, UnavailableError
from exponea_async.storage.base import Leased

ROUTE = "https://api.exponea.com/track/v2/projects/tok-1/batch"
CLICK_ROUTE = "tok-1/campaigns/clicks"
NOW = 1_767_225_600.0
#: A slow machine does not fail a test.
BATCH = tuple(Leased(id=key, route=ROUTE, body=b'"name":"x"}', at=NOW, failures=0) for key in ("q-1", "q-2", "q-3"))


def read(content: Any, status: int = 200, batch: tuple[Leased, ...] = BATCH) -> BatchResult:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return read_batch_result(HttpResponse(status, body), batch)


def ok(key: str | None = None) -> dict[str, Any]:
    return {"success": True} if key is None else {"success": True, "command_id": key}


def failed(key: str | None = None, errors: Any = ("no",)) -> dict[str, Any]:
    return {**ok(key), "success": False, "errors": errors}


class TestResults:
    @pytest.mark.parametrize(
        ("results", "expected"),
        [
            ([ok("q-1"), ok("q-2"), ok("q-3")], BatchResult(("q-1", "q-2", "q-3"))),
            ([failed("q-3"), ok("q-1"), ok("q-2")], BatchResult(("q-1", "q-2"), (("q-3", "no"),))),
            ([ok(), failed(), ok()], BatchResult(("q-1", "q-3"), (("q-2", "no"),))),
            ([ok("q-1"), failed(), ok("q-3")], BatchResult(("q-1", "q-3"), (("q-2", "no"),))),
            # The position of the result without an id says nothing, since its neighbour is at a wrong position.
            ([ok("q-2"), failed(), ok("q-3")], BatchResult(("q-2", "q-3"), (), ("q-1",))),
            ([{**ok(), "command_id": None}, {**ok(), "command_id": []}, ok()], BatchResult(("q-1", "q-2", "q-3"))),
            ([ok("q-2")], BatchResult(("q-2",), (), ("q-1", "q-3"))),
            ([ok(), ok()], BatchResult((), (), ("q-1", "q-2", "q-3"))),
            ([ok("other"), ok("q-2"), ok("q-3")], BatchResult(("q-2", "q-3"), (), ("q-1",))),
            ([ok("q-1"), ok("q-2"), ok("q-3"), ok()], BatchResult(("q-1", "q-2", "q-3"))),
            ([], BatchResult((), (), ("q-1", "q-2", "q-3"))),
            ([None, 5, "x"], BatchResult((), (), ("q-1", "q-2", "q-3"))),
            ([{"command_id": "q-1"}, {"success": 1}, {"success": None}], BatchResult((), (), ("q-1", "q-2", "q-3"))),
        ],
    )
    def test_each_record_gets_its_own_result(self, results: list[Any], expected: BatchResult) -> None:
        """A result is identified by its command id, or by its position if no id contradicts that."""
        assert read({"success": True, "results": results}) == expected

    def test_single_results_count_even_if_the_request_failed(self) -> None:
        """A response that is not a success as a whole still has a result for each record."""
        result = read({"success": False, "results": [ok("q-1"), failed("q-2"), failed("q-3")]})

        assert (result.delivered, [key for key, _ in result.rejected]) == (("q-1",), ["q-2", "q-3"])

    @pytest.mark.parametrize(
        ("errors", "reason"),
        [
            (["At least one id should be specified."], "At least one id should be specified."),
            (["one", "two"], "one; two"),
            ({"_global": ["bad"], "price": "odd"}, "_global: bad; price: odd"),
            ([{"message": "inner"}], "inner"),
            ([{"field": "price", "code": 7}], "field: price; code: 7"),
            ("plain", "plain"),
            ([], "no reason given"),
            (None, "no reason given"),
            ({"a": {"b": {"c": {"d": "deep"}}}}, "a: b: c: "),
            (["x" * 5000], "x" * 1000),
        ],
    )
    def test_reasons_are_found_in_every_form(self, errors: Any, reason: str) -> None:
        """The explanation of the platform becomes the reason, whichever form it has."""
        assert read({"results": [failed("q-1", errors)]}).rejected == (("q-1", reason),)

    def test_deeply_nested_values_in_results_are_ignored(self) -> None:
        """A command id or an error that is nested as deeply as the decoder allows does no harm."""
        deep = b"[" * 1000 + b"]" * 1000
        body = b'{"results": [{"success": true, "command_id": %b}, {"success": false, "errors": %b}]}' % (deep, deep)

        assert read(body).unanswered == ("q-1", "q-2", "q-3")

    @pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"null", b'"ok"', {}, {"success": True}, {"results": 5}])
    def test_an_invalid_2xx_response_is_retryable(self, body: Any) -> None:
        """The page of a captive portal, for example, is not taken for a delivery."""
        with pytest.raises(UnavailableError) as caught:
            read(body)

        assert caught.value.status == 200

    @pytest.mark.parametrize("more", [{}, {"results": []}, {"results": None}])
    def test_an_unsuccessful_2xx_response_is_about_the_project(self, more: dict[str, Any]) -> None:
        """``success: false`` without results is about none of the records; a click has no other result."""
        with pytest.raises(ProjectPausedError, match="HTTP 200: e"):
            read({"success": False, "errors": ["e"], **more})
        with pytest.raises(RejectedError, match="HTTP 200: e"):
            read({"success": False, "errors": ["e"], **more}, batch=(BATCH[0]._replace(route=CLICK_ROUTE),))


class TestStatuses:
    @pytest.mark.parametrize(
        ("statuses", "kind"),
        [
            ((400, 409, 413, 422), RejectedError),
            ((401, 402, 403, 404, 405, 410, 414, 415, 431), ProjectPausedError),
            ((300, 301, 302, 304, 307, 308), ProjectPausedError),
            ((408, 425, 429, 500, 501, 502, 503, 504, 520, 599, 999, 101), UnavailableError),
        ],
    )
    def test_statuses_are_classified(self, statuses: tuple[int, ...], kind: type[Exception]) -> None:
        """A status is about the content of the request, about the project, or temporary."""
        for status in statuses:
            with pytest.raises(kind, match=str(status)):
                read({"success": False}, status)

    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            (204, "success"),
            (400, "data error"),
            (401, "project error"),
            (429, "temporary error"),
            (500, "temporary error"),
        ],
    )
    def test_a_status_has_one_class(self, status: int, kind: str) -> None:
        """Uploads and requests share one table of statuses."""
        assert classify(status) == kind

    @pytest.mark.parametrize(
        ("body", "reason"),
        [
            ({"success": False, "errors": ["a", "b"]}, "HTTP 400: a; b"),
            ({"error": "a"}, "HTTP 400: a"),
            ({"errors": {"_global": ["a"]}}, "HTTP 400: _global: a"),
            ({"success": False, "message": "a"}, "HTTP 400: a"),
            ({"errors": [], "message": "a"}, "HTTP 400: a"),
            (["a"], "HTTP 400: a"),
            ("a", "HTTP 400: a"),
            ({"success": False}, "HTTP 400"),
            (b"<html>", "HTTP 400"),
            (b"Bad \x1b[1m\r\nRequest", "HTTP 400: Bad \\x1b[1m Request"),
            (b"<html><style>b{}</style><b>Not</b>\xff here", "HTTP 400: Not \N{REPLACEMENT CHARACTER} here"),
            (b"x" * 100_000, f"HTTP 400: {'x' * 200}"),
            (b"", "HTTP 400"),
        ],
    )
    def test_the_reason_includes_the_explanation(self, body: Any, reason: str) -> None:
        """Every form of error that the platform is known to send is read."""
        with pytest.raises(RejectedError) as caught:
            read(body, 400)

        assert caught.value.reason == reason

    def test_a_project_error_has_the_route_and_the_status(self) -> None:
        """A listener finds in the error what it needs to correct the configuration."""
        with pytest.raises(ProjectPausedError) as caught:
            read({"errors": ["wrong key"]}, 401)

        assert (caught.value.project, caught.value.status) == ("tok-1", 401)
        assert "wrong key" in str(caught.value)

    def test_a_temporary_error_has_the_wait_that_was_asked_for(self) -> None:
        """``Retry-After`` and the status are attributes of the error."""
        with pytest.raises(UnavailableError) as caught:
            read_batch_result(HttpResponse(429, b"", retry_after=2.0), BATCH)

        assert (caught.value.status, caught.value.retry_after) == (429, 2.0)

    def test_a_redirect_is_described_with_its_target(self) -> None:
        """Undecodable bytes in the target are shown by their codes."""
        with pytest.raises(ProjectPausedError, match=r"redirect to https://new\.example/\\udcff") as caught:
            read_batch_result(HttpResponse(301, b"", location="https://new.example/\udcff"), BATCH)

        assert str(caught.value).encode()


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | st.just("q-1"),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["success", "results", "command_id", "errors", "error", "message", "x"]), inner, max_size=4
        )
    ),
    max_leaves=15,
)
results = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "success": st.booleans() | json_values,
            "command_id": st.sampled_from(["q-1", "q-2", "q-3"]) | json_values,
            "errors": json_values,
        },
    )
    | json_values,
    max_size=4,
)
bodies = st.one_of(
    json_values,
    st.builds(lambda found, success: {"success": success, "results": found}, results, st.booleans() | json_values),
)


class TestAnyResponse:
    @given(st.builds(lambda body: json.dumps(body).encode(), bodies) | st.binary(), st.integers(100, 999))
    def test_any_response_has_results_or_raises_one_of_three_errors(self, body: bytes, status: int) -> None:
        """No response raises anything else, and every reason can be stored."""
        try:
            result = read_batch_result(HttpResponse(status, body), BATCH)
        except (RejectedError, ProjectPausedError, UnavailableError) as error:
            assert str(error).encode()  # noqa: PT017
        else:
            assert all(reason.encode() for _, reason in result.rejected)

    @given(results, st.permutations(BATCH))
    def test_each_record_has_exactly_one_result(self, found: list[Any], batch: list[Leased]) -> None:
        """A record is delivered, rejected or unanswered, whatever the response says."""
        result = read({"results": found, "success": True}, batch=tuple(batch))

        ids = [*result.delivered, *(key for key, _ in result.rejected), *result.unanswered]
        assert sorted(ids) == ["q-1", "q-2", "q-3"]


class TestRetryAfter:
    @pytest.mark.parametrize(
        ("value", "seconds"),
        [
            ("2", 2.0),
            (" 120 ", 120.0),
            ("1.5", 1.5),
            ("0", 0.0),
            ("7200", 7200.0),
            ("999999", 86_400.0),
            ("9" * 5000, 86_400.0),
            (format_datetime(datetime.fromtimestamp(NOW + 30, UTC), usegmt=True), 30.0),
            (format_datetime(datetime.fromtimestamp(NOW - 30, UTC), usegmt=True), 0.0),
            ("Thu, 01 Jan 2026 00:01:00", 60.0),
            ("Fri, 31 Dec 9999 23:59:59 GMT", 86_400.0),
        ],
    )
    def test_seconds_and_dates_are_read(self, value: str, seconds: float) -> None:
        """Both forms become seconds from now, between 0 and a day."""
        assert parse_retry_after(value, NOW) == seconds

    @pytest.mark.parametrize("value", [None, "", " ", "soon", "-5", "²", "nan", "inf", "1_000", "1e3", "0x1", "\udcff"])
    def test_unreadable_headers_are_ignored(self, value: str | None) -> None:
        """A value of another form asks for no wait."""
        assert parse_retry_after(value, NOW) is None

    @given(st.text(max_size=30) | st.from_regex(r"[A-Z][a-z]{2}, \d{1,3} [A-Z][a-z]{2} \d{1,5} \d\d?:\d\d:\d\d.*"))
    def test_any_header_is_read_or_ignored(self, value: str) -> None:
        """No string raises an error."""
        seconds = parse_retry_after(value, NOW)

        assert seconds is None or 0.0 <= seconds <= 86_400.0
