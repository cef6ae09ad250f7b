"""
The files of the page and the server that sends them.
"""

import hashlib
import json
import re
from pathlib import Path

import aiohttp
import pytest

from exponea_async import sandbox as package
from exponea_async.sandbox import Sandbox

FOLDER = Path(package.__file__).parent / "page"
VENDOR = FOLDER / "vendor"
OWN = sorted([*FOLDER.glob("*.js"), *FOLDER.glob("*.css"), *FOLDER.glob("*.html")])
LONGEST_FILE = 500
LONGEST_LINE = 160
#: What would turn text into markup, or text into a program.
FORBIDDEN = re.compile(
    r"dangerouslySetInnerHTML|innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc"
)


def vendored() -> list[dict[str, str]]:
    return list(json.loads((VENDOR / "vendor.json").read_text()))


class TestVendored:
    @pytest.mark.parametrize("each", vendored(), ids=lambda each: each["file"])
    def test_files_are_those_of_the_packages(self, each: dict[str, str]) -> None:
        """A vendored file is the one of its package, and its licenses are beside it."""
        content = (VENDOR / each["file"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == each["sha256"]
        assert all((VENDOR / name).stat().st_size > 500 for name in each["licenses"])
        assert re.fullmatch(r"\d+\.\d+\.\d+", each["version"])

    def test_every_file_is_listed(self) -> None:
        """There is no vendored file of unknown origin."""
        listed = {"vendor.json"} | {name for each in vendored() for name in (each["file"], *each["licenses"])}
        assert {path.name for path in VENDOR.iterdir()} == listed


class TestSources:
    @pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
    def test_files_are_short_and_safe(self, path: Path) -> None:
        """A file has at most 500 lines, none of them too long, and never turns text into markup."""
        text = path.read_text()
        lines = text.splitlines()
        assert len(lines) <= LONGEST_FILE
        assert FORBIDDEN.search(text) is None
        if path.suffix == ".js":
            assert max(map(len, lines)) <= LONGEST_LINE
            assert lines[0].startswith(("/**", "//"))

    def test_all_modules_are_loaded_at_once(self) -> None:
        """The document names each module, so that no import waits for another one."""
        named = re.findall(r'rel="modulepreload" href="/sandbox/page/([^"]+)"', (FOLDER / "index.html").read_text())
        modules = {path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.js")}
        assert set(named) == modules - {"theme-first.js", "app.js"}

    def test_nothing_is_from_another_host(self) -> None:
        """No file names another host, except the namespace of SVG."""
        for path in OWN:
            addresses = re.findall(r"https?://[^\s\"'`)]+", path.read_text())
            assert [each for each in addresses if not each.startswith("http://www.w3.org/")] == []


class TestServer:
    async def test_every_file_is_served(self, sandbox: Sandbox) -> None:
        """Each file is served with its media type, its policy and an entity tag that saves the second transfer."""
        types = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".json": "application/json"}
        async with aiohttp.ClientSession() as session:
            for path in (path for path in FOLDER.rglob("*") if path.is_file()):
                url = f"{sandbox.url}/sandbox/page/{path.relative_to(FOLDER)}"
                async with session.get(url) as response:
                    assert (response.status, await response.read()) == (200, path.read_bytes())
                    headers = response.headers
                assert headers["Content-Type"].startswith(types.get(path.suffix, "text/plain"))
                assert headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'; ")
                assert (headers["X-Content-Type-Options"], headers["Referrer-Policy"]) == ("nosniff", "no-referrer")
                async with session.get(url, headers={"If-None-Match": headers["ETag"]}) as response:
                    assert (response.status, await response.read()) == (304, b"")

    async def test_the_page_itself(self, sandbox: Sandbox) -> None:
        """The address of the sandbox is that of the page; it is not counted as a request of an SDK."""
        async with aiohttp.ClientSession() as session, session.get(sandbox.url) as response:
            assert (response.status, await response.read()) == (200, (FOLDER / "index.html").read_bytes())
        assert sandbox.request_count == 0

    @pytest.mark.parametrize("name", ["../server.py", "..%2fserver.py", "nothing.js", "vendor", "vendor/", "%00"])
    async def test_nothing_else_is_served(self, sandbox: Sandbox, name: str) -> None:
        """No other file can be read through the route of the page."""
        async with aiohttp.ClientSession() as session, session.get(f"{sandbox.url}/sandbox/page/{name}") as response:
            assert response.status == 404

    @pytest.mark.parametrize("path", ["/", "/sandbox/page/app.js", "/sandbox/preview"])
    async def test_only_for_local_names(self, sandbox: Sandbox, path: str) -> None:
        """A page of another host that resolves to this machine gets nothing."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{sandbox.url}{path}", headers={"Host": "evil.example"}) as response,
        ):
            assert response.status == 403
