"""
How commands are encoded, and how stored commands become requests.
"""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exponea_async._pipeline.commands import (
    customer_command,
    event_command,
    pack,
    project_of,
    read_command,
    request_body,
    route_of,
    split_route,
    url_of,
)
from exponea_async.errors import InvalidEventError
from exponea_async.models import EventType
from exponea_async.storage.base import Leased

ROUTE = "tok-1/batch"
#: A slow machine does not fail a test.


def leased(key: str, *, route: str = ROUTE, body: bytes = b'"name":"x"}', failures: int = 0) -> Leased:
    return Leased(id=key, route=route, body=body, at=1.0, failures=failures)


BATCH = (leased("q-1"), leased("q-2"), leased("q-3"))


class TestCommands:
    def test_an_event_command(self) -> None:
        """The command of an event has its ids, type, timestamp and properties, and nothing else."""
        body = event_command(b'{"registered":"R"}', b'"x"', 5.5, b'"a":1')

        assert read_command(body) == {
            "name": "customers/events",
            "data": {"customer_ids": {"registered": "R"}, "event_type": "x", "timestamp": 5.5, "properties": {"a": 1}},
        }

    def test_a_customer_command_has_the_time_of_the_update(self) -> None:
        """It is sent as ``update_timestamp``, so that a late update does not overwrite newer values."""
        body = customer_command(b'{"cookie":"C"}', 1767225600.25, b"")

        assert read_command(body) == {
            "name": "customers",
            "data": {"customer_ids": {"cookie": "C"}, "properties": {}, "update_timestamp": 1767225600.25},
        }

    @pytest.mark.parametrize("path", ["event", "customer"])
    def test_a_command_over_800_kb_is_invalid(self, path: str) -> None:
        """A command that the platform would refuse for its size is not queued."""
        large = b'"a":"%b"' % (b"x" * 819_200)

        with pytest.raises(InvalidEventError, match="819200") as caught:
            event_command(b"{}", b'"x"', 1.0, large) if path == "event" else customer_command(b"{}", 1.0, large)

        assert caught.value.path == path

    def test_a_command_below_the_limit_is_valid(self) -> None:
        """The limit is that of the platform."""
        assert len(event_command(b"{}", b'"x"', 1.0, b'"a":"%b"' % (b"x" * 819_000))) <= 819_200

    def test_a_route_is_the_project_and_the_endpoint(self) -> None:
        """It has no address, which is added when the records are sent."""
        route, clicks = route_of("tok-1"), route_of("tok-1", EventType.CAMPAIGN_CLICK)

        assert (route, clicks) == ("tok-1/batch", "tok-1/campaigns/clicks")
        assert url_of("https://h.example/x", route) == "https://h.example/x/track/v2/projects/tok-1/batch"

    def test_routes_of_older_files_are_urls(self) -> None:
        """The address in them is separate from the project, also where the address looks like a route itself."""
        for address in ("https://h.example", "https://h.example/track/v2/projects/X"):
            old = f"{address}/track/v2/projects/tok-1/batch"

            assert split_route(old) == (address, "tok-1/batch")
            assert (project_of(old), url_of("https://new", old)) == (
                "tok-1",
                "https://new/track/v2/projects/tok-1/batch",
            )

    def test_a_request_has_all_commands_with_their_ids(self) -> None:
        """The id of a record becomes the ``command_id`` of its command."""
        commands = json.loads(request_body(BATCH))["commands"]

        assert commands == [{"command_id": f"q-{n}", "name": "x"} for n in (1, 2, 3)]


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
    @given(record_lists)
    def test_every_record_is_in_exactly_one_batch(self, records: list[Leased]) -> None:
        """No record is lost, and none is sent twice."""
        packed = [record.id for batch in pack(records, COUNT, SIZE) for record in batch]

        assert sorted(packed) == sorted(record.id for record in records)

    @given(record_lists)
    def test_limits_are_kept(self, records: list[Leased]) -> None:
        """A batch has one route, and respects both limits unless it is a single record."""
        for batch in pack(records, COUNT, SIZE):
            assert batch
            assert len(batch) <= COUNT
            assert len({record.route for record in batch}) == 1
            assert len(batch) == 1 or len(request_body(batch)) <= SIZE

    @given(record_lists)
    def test_order_is_kept_within_a_route(self, records: list[Leased]) -> None:
        """Records of a route that never failed keep their order."""
        batches = list(pack(records, COUNT, SIZE))
        for route in ("a", "b"):
            expected = [each.id for each in records if each.route == route and not each.failures]
            assert [r.id for batch in batches for r in batch if r.route == route and not r.failures] == expected

    @given(record_lists)
    def test_a_record_that_failed_is_alone_in_its_batch(self, records: list[Leased]) -> None:
        """A record that failed by itself before does not make others fail."""
        assert all(len(batch) == 1 for batch in pack(records, COUNT, SIZE) if any(each.failures for each in batch))

    def test_batches_are_full(self) -> None:
        """Records are packed into the fewest batches."""
        assert [len(batch) for batch in pack([leased(str(n)) for n in range(120)], 50, 1_000_000)] == [50, 50, 20]
