"""
Which addresses of messages and notifications are handed out.
"""

from typing import Any

import pytest

from exponea_async._internal.links import safe_image, safe_link
from exponea_async.messages import InAppMessage

DANGEROUS = [
    "javascript:alert(1)",
    " JaVaScRiPt:alert(1)",
    "java\nscript:alert(1)",
    "\x01javascript:alert(1)",
    "javascript\u200b:alert(1)",
    "javascript://x%0aalert(1)",
    "%6aavascript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "file:///etc/passwd",
    "vbscript:x",
    "blob:https://h.example/x",
    "view-source:https://h.example",
    "filesystem:https://h.example/x",
]


class TestSafeLink:
    @pytest.mark.parametrize("url", DANGEROUS)
    def test_dangerous(self, url: str) -> None:
        """An address that could run something, or show the reader's own files, is not handed out."""
        assert safe_link(url) is None

    @pytest.mark.parametrize("url", [None, "", " \n"])
    def test_blank(self, url: str | None) -> None:
        """A blank address is none."""
        assert safe_link(url) is None

    @pytest.mark.parametrize(
        "url", ["https://h.example/a?b=javascript:c#d", "app://x", "mailto:a@h.example", "tel:1", "/path", "#place"]
    )
    def test_harmless(self, url: str) -> None:
        """Every other address is, stripped as browsers do it."""
        assert safe_link(f" {url}\n") == url


class TestSafeImage:
    @pytest.mark.parametrize(
        "url", [*(each for each in DANGEROUS), "app://x.png", "data:font/woff2,x", "ftp://h/x.png"]
    )
    def test_not_an_image(self, url: str) -> None:
        """An address that no image has is not handed out."""
        assert safe_image(url) is None

    @pytest.mark.parametrize(
        ("url", "expected"),
        [
            ("https://h.example/a.png", "https://h.example/a.png"),
            (" http://h.example/a.png ", "http://h.example/a.png"),
            ("//h.example/a.png", "https://h.example/a.png"),
            ("a.png", "a.png"),
            ("data:image/png;base64,AA==", "data:image/png;base64,AA=="),
        ],
    )
    def test_images(self, url: str, expected: str) -> None:
        """The addresses of images are, with a scheme where they have a host."""
        assert safe_image(url) == expected


@pytest.mark.parametrize("url", [*DANGEROUS, 5, None])
def test_in_app_message(url: Any) -> None:
    """The image of an in-app message is safe, and its payload has the address as it came."""
    message = InAppMessage(id="1", name="n", payload={"image_url": url})
    assert message.image_url is None
    assert message.payload["image_url"] == url
