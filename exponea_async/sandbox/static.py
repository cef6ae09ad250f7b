"""
The static files of the page, with entity tags and a content security policy.
"""

import asyncio
import hashlib
from collections.abc import Iterator, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable

from aiohttp import web
from attrs import frozen

FOLDER = "page"
INDEX = "index.html"
ROUTE = "/sandbox/page/"
#: Everything comes from the sandbox itself. ``data:`` is for the icon; the frame shows previews of messages.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # The browser asks each time, and gets 304 where nothing has changed: a new version is never mixed with an old one.
    "Cache-Control": "no-cache",
}
MEDIA_TYPES = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".json": "application/json",
    "": "text/plain",
}


@frozen
class StaticFile:
    """
    A file of the page.

    Attributes:
        content: The content.
        media_type: The media type.
        etag: The entity tag, without quotes.
    """

    content: bytes
    media_type: str
    etag: str


class PageFiles:
    """The routes of the files of the page, which are read once, in a thread."""

    def __init__(self) -> None:
        self._files: Mapping[str, StaticFile] | None = None

    def routes(self) -> list[web.RouteDef]:
        """Return all routes."""
        return [web.get("/", self._get), web.get(ROUTE + "{file:.+}", self._get)]

    async def _get(self, request: web.Request) -> web.Response:
        if self._files is None:
            self._files = await asyncio.to_thread(read_files)
        # A lookup among the known names, never a path on the disk.
        file = self._files.get(request.match_info.get("file", INDEX))
        if file is None:
            raise web.HTTPNotFound
        headers = {**HEADERS, "ETag": f'"{file.etag}"'}
        if any(tag.value in (file.etag, "*") for tag in request.if_none_match or ()):
            return web.Response(status=304, headers=headers)
        return web.Response(body=file.content, headers=headers, content_type=file.media_type, charset="utf-8")


def read_files() -> dict[str, StaticFile]:
    """Return all files of the page by their path below its folder."""
    return dict(_walk(files(__package__) / FOLDER, ""))


def _walk(folder: Traversable, prefix: str) -> Iterator[tuple[str, StaticFile]]:
    for each in folder.iterdir():
        name = f"{prefix}{each.name}"
        if each.is_dir():
            yield from _walk(each, f"{name}/")
        else:
            content = each.read_bytes()
            yield name, StaticFile(content, _media_type(each.name), hashlib.sha256(content).hexdigest()[:32])


def _media_type(name: str) -> str:
    suffix = name[name.rfind(".") :] if "." in name else ""
    return MEDIA_TYPES.get(suffix, MEDIA_TYPES[""])
