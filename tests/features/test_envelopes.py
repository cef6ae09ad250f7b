"""
The envelopes of the platform's responses, also broken ones.
"""

import json
import logging
import threading
from typing import Any

import pytest
from helpers.environment import SetConstants
from hypothesis import given
from hypothesis import strategies as st

from exponea_async import RequestRefusedError, UnavailableError
from exponea_async.features._shared import envelopes
from exponea_async.features._shared.envelopes import decode_elements, read_envelope, to_thread_if_large


def integer(value: Any) -> int:
    if not isinstance(value, int):
        raise TypeError("not an integer")
    return value


class TestEnvelopes:
    @pytest.mark.parametrize("name", ["results", "data", "messages", "in_app_content_blocks"])
    def test_the_list_has_one_of_four_names(self, name: str) -> None:
        """The list is found under each of four names, in any order of the members."""
        envelope = read_envelope(json.dumps({name: [1, {"a": 2}], "success": True, "sync_token": "t"}).encode())

        assert [json.loads(each) for each in envelope.elements] == [1, {"a": 2}]
        assert envelope.sync_token == "t"

    @pytest.mark.parametrize("body", [{"success": True}, {"success": True, "results": None}, {"success": True, "x": 1}])
    def test_without_a_list(self, body: dict[str, Any]) -> None:
        """An envelope without a list has no elements."""
        assert read_envelope(json.dumps(body).encode()) == envelopes.Envelope(())

    def test_a_token_of_another_type(self) -> None:
        """A sync token that is not a string is ignored."""
        assert read_envelope(b'{"success": true, "sync_token": 5}').sync_token is None

    def test_a_failure(self) -> None:
        """A failure is raised with the platform's reason, of whatever type."""
        for reason in (
            '"errors": ["no such engine"]',
            '"error": "no such engine"',
            '"message": {"a": "no such engine"}',
        ):
            with pytest.raises(RequestRefusedError, match="no such engine") as caught:
                read_envelope(f'{{"success": false, {reason}}}'.encode())
            assert caught.value.status == 200
        with pytest.raises(RequestRefusedError):
            read_envelope(b'{"success": false}')

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"null",
            b"[]",
            b"<html>",
            b"{}",
            b'{"results": []}',
            b'{"success": 1}',
            b'{"success": true, "results": {}}',
            b'{"success": true, "results": [1, 2',
            b'{"success": tru}',
            b"\xff\xfe",
            pytest.param(b'{"success":' + b"[" * 100_000 + b"}", id="deep"),
        ],
    )
    def test_something_else(self, body: bytes) -> None:
        """A body that is not an envelope counts as no usable response, so that the request is repeated."""
        with pytest.raises(UnavailableError):
            read_envelope(body)

    @given(st.binary(max_size=60) | st.text(alphabet='{}[]:,"\\ successtruefal').map(str.encode))
    def test_any_body(self, body: bytes) -> None:
        """Any body is an envelope, or raises one of these errors."""
        try:
            read_envelope(body)
        except (RequestRefusedError, UnavailableError):
            return

    def test_a_long_list(self, set_constants: SetConstants, caplog: pytest.LogCaptureFixture) -> None:
        """Elements beyond the limit are ignored, which is logged."""
        set_constants(envelopes, MAX_ELEMENTS=3)
        envelope = read_envelope(b'{"success": true, "results": [1, 2, 3, 4, 5]}')

        assert envelope.elements == (b"1", b"2", b"3")
        assert "more than 3 elements" in caplog.text


class TestElements:
    def test_broken_elements(self, caplog: pytest.LogCaptureFixture) -> None:
        """A broken element is skipped and logged, and the others are read."""
        assert list(decode_elements([b"1", b'"x"', b"{", b"2"], integer, "Number")) == [1, 2]
        assert "Number 1 of a response is skipped: TypeError: not an integer" in caplog.text
        assert "Number 2 of a response is skipped" in caplog.text

    def test_huge_and_deep_elements(self) -> None:
        """Huge and deeply nested elements are skipped, and the others are read."""
        huge, deep = b'"' + b"x" * envelopes.MAX_ELEMENT_BYTES + b'"', b"[" * 50_000 + b"]" * 50_000

        assert list(decode_elements([huge, b"1", deep, b"2"], integer, "Number")) == [1, 2]

    def test_many_broken_elements(self, caplog: pytest.LogCaptureFixture) -> None:
        """The first broken elements are logged, and the others only counted."""
        with caplog.at_level(logging.WARNING):
            assert list(decode_elements([b"null"] * 1000, integer, "Number")) == []

        assert len(caplog.records) == envelopes.MAX_LOGGED + 1
        assert f"{1000 - envelopes.MAX_LOGGED} more" in caplog.text


async def test_to_thread_if_large() -> None:
    """Only large bodies are read in a thread."""
    here = threading.get_ident()
    assert await to_thread_if_large(10, threading.get_ident) == here
    assert await to_thread_if_large(envelopes.THREAD_THRESHOLD, threading.get_ident) != here
