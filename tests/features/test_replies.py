"""
The envelopes of the platform's answers, and what is left of those that are broken.
"""

import json
import logging
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exponea_async import RequestRefusedError, UnavailableError
from exponea_async.features._shared import envelopes as _replies
from exponea_async.features._shared.envelopes import decode_elements, read_envelope, to_thread_if_large


def whole(value: Any) -> int:
    if not isinstance(value, int):
        raise TypeError("it is no number")
    return value


class TestEnvelopes:
    @pytest.mark.parametrize("name", ["results", "data", "messages", "in_app_content_blocks"])
    def test_the_list_has_one_of_four_names(self, name: str) -> None:
        """Each of them will do, in whatever order the members come."""
        reply = read_envelope(json.dumps({name: [1, {"a": 2}], "success": True, "sync_token": "t"}).encode())

        assert [json.loads(each) for each in reply.elements] == [1, {"a": 2}]
        assert reply.sync_token == "t"

    @pytest.mark.parametrize("body", [{"success": True}, {"success": True, "results": None}, {"success": True, "x": 1}])
    def test_without_a_list_it_holds_nothing(self, body: dict[str, Any]) -> None:
        """A missing list is an empty one."""
        assert read_envelope(json.dumps(body).encode()) == _replies.Envelope(())

    def test_a_token_that_is_no_text_is_none(self) -> None:
        """What nobody could send back does not count."""
        assert read_envelope(b'{"success": true, "sync_token": 5}').sync_token is None

    def test_a_failure_is_a_refusal(self) -> None:
        """The platform's own words are told, whatever shape they have."""
        for said in ('"errors": ["no such engine"]', '"error": "no such engine"', '"message": {"a": "no such engine"}'):
            with pytest.raises(RequestRefusedError, match="no such engine") as caught:
                read_envelope(f'{{"success": false, {said}}}'.encode())
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
    def test_what_is_no_envelope_is_no_usable_answer(self, body: bytes) -> None:
        """A cut or strange answer may be whole the next time."""
        with pytest.raises(UnavailableError):
            read_envelope(body)

    @given(st.binary(max_size=60) | st.text(alphabet='{}[]:,"\\ successtruefal').map(str.encode))
    def test_nothing_else_is_raised(self, body: bytes) -> None:
        """Whatever comes, it is an envelope, a refusal or no usable answer."""
        try:
            read_envelope(body)
        except (RequestRefusedError, UnavailableError):
            return

    def test_a_list_has_a_bound(self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
        """What is behind it is left out, and the log says so."""
        monkeypatch.setattr(_replies, "MAX_ELEMENTS", 3)
        reply = read_envelope(b'{"success": true, "results": [1, 2, 3, 4, 5]}')

        assert reply.elements == (b"1", b"2", b"3")
        assert "more than 3 elements" in caplog.text


class TestElements:
    def test_a_broken_one_is_left_out(self, caplog: pytest.LogCaptureFixture) -> None:
        """Those beside it are read, and the log says what was wrong."""
        assert list(decode_elements([b"1", b'"x"', b"{", b"2"], whole, "Number")) == [1, 2]
        assert "Number 1 of a response is skipped: TypeError: it is no number" in caplog.text
        assert "Number 2 of a response is skipped" in caplog.text

    def test_a_huge_or_deep_one_is_broken(self) -> None:
        """Neither is decoded, and neither harms the others."""
        huge, deep = b'"' + b"x" * _replies.MAX_ELEMENT_BYTES + b'"', b"[" * 50_000 + b"]" * 50_000

        assert list(decode_elements([huge, b"1", deep, b"2"], whole, "Number")) == [1, 2]

    def test_many_broken_ones_make_no_flood(self, caplog: pytest.LogCaptureFixture) -> None:
        """The first ones are told, and the number of the others."""
        with caplog.at_level(logging.WARNING):
            assert list(decode_elements([b"null"] * 1000, whole, "Number")) == []

        assert len(caplog.records) == _replies.MAX_LOGGED + 1
        assert f"{1000 - _replies.MAX_LOGGED} more" in caplog.text


async def test_large_work_is_done_elsewhere() -> None:
    """What the event loop would notice is done on a thread, and all else at once."""
    here = threading.get_ident()
    assert await to_thread_if_large(10, threading.get_ident) == here
    assert await to_thread_if_large(_replies.THREAD_THRESHOLD, threading.get_ident) != here
