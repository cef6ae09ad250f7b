"""
Records to requests, answers to verdicts.
"""

import json
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exponea_async._pipeline.commands import (
    BatchResult,
    HttpResponse,
    customer_command,
    event_command,
    pack,
    read_answer,
    read_command,
    read_retry_after,
    request_body,
    route_of,
)
from exponea_async.config import ExponeaProject
from exponea_async.errors import InvalidEventError, ProjectPausedError, RejectedError, UnavailableError
from exponea_async.storage.base import Leased

ROUTE = "https://api.exponea.com/track/v2/projects/tok-1/batch"
NOW = 1_767_225_600.0
#: A slow machine is no failure.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def leased(key: str, *, route: str = ROUTE, body: bytes = b'"name":"x"}', failures: int = 0) -> Leased:
    return Leased(id=key, route=route, body=body, at=NOW, failures=failures)


BATCH = (leased("q-1"), leased("q-2"), leased("q-3"))


def read(content: Any, status: int = 200, batch: tuple[Leased, ...] = BATCH) -> BatchResult:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return read_answer(HttpResponse(status, body), batch)


def ok(key: str | None = None) -> dict[str, Any]:
    return {"success": True} if key is None else {"success": True, "command_id": key}


def failed(key: str | None = None, errors: Any = ("no",)) -> dict[str, Any]:
    return {**ok(key), "success": False, "errors": errors}


class TestCommands:
    def test_an_event_command(self) -> None:
        """An event's command has its ids, type, moment and properties, and nothing else."""
        body = event_command(b'{"registered":"R"}', b'"x"', 5.5, b'{"a":1}')

        assert read_command(body) == {
            "name": "customers/events",
            "data": {"customer_ids": {"registered": "R"}, "event_type": "x", "timestamp": 5.5, "properties": {"a": 1}},
        }

    def test_a_customer_command_carries_the_moment_of_the_update(self) -> None:
        """A customer's command has ``update_timestamp``, so that a late one can't roll newer values back."""
        body = customer_command(b'{"cookie":"C"}', 1767225600.25, b"{}")

        assert read_command(body) == {
            "name": "customers",
            "data": {"customer_ids": {"cookie": "C"}, "properties": {}, "update_timestamp": 1767225600.25},
        }

    @pytest.mark.parametrize("path", ["event", "customer"])
    def test_a_command_over_800_kb_is_refused(self, path: str) -> None:
        """What the platform would refuse for its size never gets into the queue."""
        large = b'{"a":"%b"}' % (b"x" * 819_200)

        with pytest.raises(InvalidEventError, match="819200") as caught:
            event_command(b"{}", b'"x"', 1.0, large) if path == "event" else customer_command(b"{}", 1.0, large)

        assert caught.value.path == path

    def test_a_large_command_passes(self) -> None:
        """A command just below the limit is taken."""
        assert len(event_command(b"{}", b'"x"', 1.0, b'{"a":"%b"}' % (b"x" * 819_000))) <= 819_200

    def test_a_route_names_the_project(self) -> None:
        """Batches go to the project's own address."""
        assert route_of(ExponeaProject("tok-1", "key", "https://h.example/x")) == (
            "https://h.example/x/track/v2/projects/tok-1/batch"
        )

    def test_a_request_joins_commands_with_their_ids(self) -> None:
        """Stored commands get their records' ids and become one body."""
        commands = json.loads(request_body(BATCH))["commands"]

        assert commands == [{"command_id": f"q-{n}", "name": "x"} for n in (1, 2, 3)]


class TestResults:
    @pytest.mark.parametrize(
        ("results", "verdict"),
        [
            ([ok("q-1"), ok("q-2"), ok("q-3")], BatchResult(("q-1", "q-2", "q-3"))),
            ([failed("q-3"), ok("q-1"), ok("q-2")], BatchResult(("q-1", "q-2"), (("q-3", "no"),))),
            ([ok(), failed(), ok()], BatchResult(("q-1", "q-3"), (("q-2", "no"),))),
            ([ok("q-1"), failed(), ok("q-3")], BatchResult(("q-1", "q-3"), (("q-2", "no"),))),
            # The one without an id has no place of its own here, for its neighbour stands on it.
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
    def test_each_result_is_read_by_itself(self, results: list[Any], verdict: BatchResult) -> None:
        """Results count by command id in any order, by place where nothing speaks against it, else not at all."""
        assert read({"success": True, "results": results}) == verdict

    def test_single_results_count_even_where_the_whole_failed(self) -> None:
        """A request that is not a success as a whole still has its verdicts."""
        verdict = read({"success": False, "results": [ok("q-1"), failed("q-2"), failed("q-3")]})

        assert (verdict.delivered, [key for key, _ in verdict.rejected]) == (("q-1",), ["q-2", "q-3"])

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
    def test_reasons_are_found_in_every_shape(self, errors: Any, reason: str) -> None:
        """The platform's own words become the reason, however it wraps them."""
        assert read({"results": [failed("q-1", errors)]}).rejected == (("q-1", reason),)

    def test_a_result_nested_without_end_is_no_verdict(self) -> None:
        """What nests as deeply as a decoder lets it is passed over."""
        deep = b"[" * 1000 + b"]" * 1000
        body = b'{"results": [{"success": true, "command_id": %b}, {"success": false, "errors": %b}]}' % (deep, deep)

        assert read(body).unanswered == ("q-1", "q-2", "q-3")

    @pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"null", b'"ok"', {}, {"success": True}, {"results": 5}])
    def test_a_success_that_is_none_is_tried_again(self, body: Any) -> None:
        """A captive portal's page is no delivery."""
        with pytest.raises(UnavailableError) as caught:
            read(body)

        assert caught.value.status == 200

    @pytest.mark.parametrize("more", [{}, {"results": []}, {"results": None}])
    def test_a_success_that_says_no_is_a_refusal(self, more: dict[str, Any]) -> None:
        """``success: false`` without results refuses the whole request."""
        with pytest.raises(RejectedError, match="HTTP 200: e"):
            read({"success": False, "errors": ["e"], **more})


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
    def test_each_status_has_its_meaning(self, statuses: tuple[int, ...], kind: type[Exception]) -> None:
        """What is about the content is refused, about the project pauses it, about the moment is tried again."""
        for status in statuses:
            with pytest.raises(kind, match=str(status)):
                read({"success": False}, status)

    @pytest.mark.parametrize(
        ("body", "said"),
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
            (b"", "HTTP 400"),
        ],
    )
    def test_the_platforms_words_are_told(self, body: Any, said: str) -> None:
        """Every shape of error that the platform is known for is read."""
        with pytest.raises(RejectedError) as caught:
            read(body, 400)

        assert caught.value.reason == said

    def test_a_pause_names_the_project_and_the_status(self) -> None:
        """What a listener needs to mend it stands in the error."""
        with pytest.raises(ProjectPausedError) as caught:
            read({"errors": ["wrong key"]}, 401)

        assert (caught.value.project, caught.value.status) == (ROUTE, 401)
        assert "wrong key" in str(caught.value)

    def test_a_busy_platform_says_how_long(self) -> None:
        """``Retry-After`` and the status come along."""
        with pytest.raises(UnavailableError) as caught:
            read_answer(HttpResponse(429, b"", retry_after=2.0), BATCH)

        assert (caught.value.status, caught.value.retry_after) == (429, 2.0)

    def test_a_redirect_tells_where_to(self) -> None:
        """The target is shown, strange bytes in it replaced."""
        with pytest.raises(ProjectPausedError, match=r"redirect to https://new\.example/\?") as caught:
            read_answer(HttpResponse(301, b"", location="https://new.example/\udcff"), BATCH)

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


class TestAnyAnswer:
    @UNHURRIED
    @given(st.builds(lambda body: json.dumps(body).encode(), bodies) | st.binary(), st.integers(100, 999))
    def test_any_answer_is_a_verdict_or_one_of_three_errors(self, body: bytes, status: int) -> None:
        """No answer whatever raises anything else, and no reason is unfit for storing."""
        try:
            verdict = read_answer(HttpResponse(status, body), BATCH)
        except (RejectedError, ProjectPausedError, UnavailableError) as error:
            assert str(error).encode()  # noqa: PT017
        else:
            assert all(reason.encode() for _, reason in verdict.rejected)

    @UNHURRIED
    @given(results, st.permutations(BATCH))
    def test_verdicts_partition_the_batch(self, found: list[Any], batch: list[Leased]) -> None:
        """Each record gets exactly one verdict, whatever the results say."""
        verdict = read({"results": found, "success": True}, batch=tuple(batch))

        told = [*verdict.delivered, *(key for key, _ in verdict.rejected), *verdict.unanswered]
        assert sorted(told) == ["q-1", "q-2", "q-3"]


COUNT, SIZE = 3, 400
record_lists = st.lists(
    st.builds(
        lambda route, size, failures: leased("", route=route, body=b"x" * size, failures=failures),
        st.sampled_from(["a", "b"]),
        st.integers(0, 500),
        st.sampled_from([0, 0, 0, 1, 2]),
    ),
    max_size=25,
).map(lambda made: [leased(f"{n}", route=r.route, body=r.body, failures=r.failures) for n, r in enumerate(made)])


class TestPacking:
    @UNHURRIED
    @given(record_lists)
    def test_every_record_goes_exactly_once(self, records: list[Leased]) -> None:
        """Nothing is lost and nothing sent twice."""
        packed = [record.id for batch in pack(records, COUNT, SIZE) for record in batch]

        assert sorted(packed) == sorted(record.id for record in records)

    @UNHURRIED
    @given(record_lists)
    def test_limits_are_kept(self, records: list[Leased]) -> None:
        """A batch has one route, at most so many records, and at most so many bytes unless it is a single record."""
        for batch in pack(records, COUNT, SIZE):
            assert batch
            assert len(batch) <= COUNT
            assert len({record.route for record in batch}) == 1
            assert len(batch) == 1 or len(request_body(batch)) <= SIZE

    @UNHURRIED
    @given(record_lists)
    def test_order_is_kept_within_a_route(self, records: list[Leased]) -> None:
        """Records that never failed leave in the order they came in, seen route by route."""
        batches = list(pack(records, COUNT, SIZE))
        for route in ("a", "b"):
            sound = [each.id for each in records if each.route == route and not each.failures]
            assert [r.id for batch in batches for r in batch if r.route == route and not r.failures] == sound

    @UNHURRIED
    @given(record_lists)
    def test_who_failed_goes_alone(self, records: list[Leased]) -> None:
        """A record that was refused by itself before drags no others along."""
        assert all(len(batch) == 1 for batch in pack(records, COUNT, SIZE) if any(each.failures for each in batch))

    def test_a_full_batch_is_filled_to_the_brim(self) -> None:
        """Fifty small records make one request."""
        assert [len(batch) for batch in pack([leased(str(n)) for n in range(120)], 50, 1_000_000)] == [50, 50, 20]


class TestRetryAfter:
    @pytest.mark.parametrize(
        ("value", "seconds"),
        [
            ("2", 2.0),
            (" 120 ", 120.0),
            ("1.5", 1.5),
            ("0", 0.0),
            ("999999", 1800.0),
            ("9" * 5000, 1800.0),
            (format_datetime(datetime.fromtimestamp(NOW + 30, UTC), usegmt=True), 30.0),
            (format_datetime(datetime.fromtimestamp(NOW - 30, UTC), usegmt=True), 0.0),
            ("Thu, 01 Jan 2026 00:01:00", 60.0),
            ("Fri, 31 Dec 9999 23:59:59 GMT", 1800.0),
        ],
    )
    def test_seconds_and_dates_are_read(self, value: str, seconds: float) -> None:
        """Both forms are seconds from now, between none and half an hour."""
        assert read_retry_after(value, NOW) == seconds

    @pytest.mark.parametrize("value", [None, "", " ", "soon", "-5", "²", "nan", "inf", "1_000", "1e3", "0x1", "\udcff"])
    def test_garbage_is_no_wish(self, value: str | None) -> None:
        """What can't be read asks for nothing."""
        assert read_retry_after(value, NOW) is None

    @UNHURRIED
    @given(st.text(max_size=30) | st.from_regex(r"[A-Z][a-z]{2}, \d{1,3} [A-Z][a-z]{2} \d{1,5} \d\d?:\d\d:\d\d.*"))
    def test_no_text_raises(self, value: str) -> None:
        """Any header at all is read or passed over."""
        seconds = read_retry_after(value, NOW)

        assert seconds is None or 0.0 <= seconds <= 1800.0
