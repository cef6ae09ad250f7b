"""
The metadata of jobs: what it has for each subject, and what is refused.
"""

from typing import Any

import pytest

from exponea_async import Configuration, Exponea, InvalidEventError
from exponea_async.integrations._jobs import JobSubjects, read_metadata, to_metadata


@pytest.fixture
def exponea() -> Exponea:
    return Exponea(Configuration(project_token="shop", authorization_token="key", storage="memory:"))


class TestWriting:
    def test_each_subject(self, exponea: Exponea) -> None:
        """Metadata has a device's key, a customer's ids, or nobody."""
        assert to_metadata(exponea.device("tg:42")) == {"device": "tg:42"}
        assert to_metadata(exponea.for_customer({"registered": " jane "})) == {"customer": {"registered": "jane"}}
        assert to_metadata(exponea.nobody()) == {"nobody": True}

    def test_invalid_customer(self, caplog: pytest.LogCaptureFixture) -> None:
        """A customer without valid ids, of whom nothing is tracked, is nobody, and the log says so."""
        exponea = Exponea(
            Configuration(project_token="shop", authorization_token="key", storage="memory:", on_invalid="log")
        )

        assert to_metadata(exponea.for_customer({"registered": "null"})) == {"nobody": True}
        assert "are invalid, so it tracks nothing" in caplog.text

    def test_what_is_bound(self, exponea: Exponea) -> None:
        """Only a subject that is bound is written, never the default device."""
        subjects = JobSubjects(exponea, None, carry=True)

        assert subjects.metadata() is None
        with exponea.bind(exponea.device("tg:42")):
            assert subjects.metadata() == {"device": "tg:42"}
            assert JobSubjects(exponea, None, carry=False).metadata() is None


FOREIGN: list[Any] = [
    "jane@example.com",
    b"jane@example.com",
    1,
    [],
    ["device", "jane@example.com"],
    {},
    {"device": "jane@example.com", "nobody": True},
    {"jane@example.com": True},
    {"device": ["jane@example.com"]},
    {"device": {"jane@example.com": 1}},
    {"device": ""},
    {"device": "@default"},
    {"device": "@nobody"},
    {"device": "jane@example.com\ud800"},
    {"customer": "jane@example.com"},
    {"customer": ["jane@example.com"]},
    {"customer": {}},
    {"customer": {"registered": None}},
    {"customer": {"registered": ["jane@example.com"]}},
    {"customer": {"registered": {"jane@example.com": 1}}},
    {"customer": {"registered": "null"}},
    {"customer": {"": "jane@example.com"}},
    {"customer": {1: "jane@example.com"}},
    {"nobody": 1},
    {"nobody": False},
    {1: 2},
]


class TestReading:
    @pytest.mark.parametrize("kind", ["device", "customer", "nobody"])
    def test_round_trip(self, exponea: Exponea, kind: str) -> None:
        """What is read is what was written."""
        metadata = {"device": "tg:42", "customer": {"registered": "jane", "cookie": "c-1"}, "nobody": True}

        assert to_metadata(read_metadata(exponea, {kind: metadata[kind]})) == {kind: metadata[kind]}

    @pytest.mark.parametrize("metadata", FOREIGN, ids=repr)
    def test_foreign_data(self, exponea: Exponea, metadata: Any) -> None:
        """Data that is not metadata is refused, and the error does not show what may be somebody's id."""
        with pytest.raises(InvalidEventError) as error:
            read_metadata(exponea, metadata)

        assert "jane@example.com" not in f"{error.value} {error.value.__cause__}"

    @pytest.mark.parametrize("metadata", FOREIGN, ids=repr)
    def test_foreign_data_where_nothing_is_raised(self, metadata: Any) -> None:
        """It is refused as well with a client that logs invalid ids, which would log them with each event."""
        exponea = Exponea(
            Configuration(project_token="shop", authorization_token="key", storage="memory:", on_invalid="log")
        )
        with pytest.raises(InvalidEventError) as error:
            read_metadata(exponea, metadata)

        assert "jane@example.com" not in f"{error.value} {error.value.__cause__}"

    @pytest.mark.parametrize("metadata", FOREIGN, ids=repr)
    def test_binding_of_foreign_data(self, exponea: Exponea, metadata: Any, caplog: pytest.LogCaptureFixture) -> None:
        """Nobody is bound where the metadata is not valid, also if somebody was bound before."""
        subjects = JobSubjects(exponea, exponea.device("tg:1"), carry=True)

        with exponea.bind(exponea.for_customer({"registered": "joe"})), subjects.bind(metadata):
            assert repr(exponea.current) == "<Nobody>"
        assert len(caplog.records) == 1

    def test_no_metadata(self, exponea: Exponea) -> None:
        """Without metadata the default is bound, also if somebody was bound before."""
        default = exponea.device("tg:1")

        with exponea.bind(exponea.for_customer({"registered": "joe"})):
            with JobSubjects(exponea, default, carry=True).bind(None):
                assert exponea.current is default
            with JobSubjects(exponea, None, carry=True).bind(None):
                assert repr(exponea.current) == "<Nobody>"
