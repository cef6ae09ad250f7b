"""
The HTML of messages: what is left of it, what can be clicked, and which resources it needs.
"""

import re

import pytest
from attrs import evolve
from helpers.modules import uninstalled

from exponea_async.features._shared.html.reader import HtmlAction, SafeHtml, find_action, read_html, resource_urls
from exponea_async.features._shared.html.resources import ResourceUrls
from exponea_async.features._shared.html.rules import HtmlRules

#: Styles as they came, without a scope.
PLAIN = HtmlRules(scope_styles=False, allow_remote_media=True)
PLAIN_WITH_CLOSE = evolve(PLAIN, ensure_close=True)
CLOSE_URL = re.compile(r"#close_action_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
IMAGE = "https://i.example/a.png"
FONT = "https://f.example/a.woff2"
LOADED = {IMAGE: b"\x00", FONT: b"\x01"}
IMAGE_DATA = "data:image/png;base64,AA=="
FONT_DATA = "data:application/font;charset=utf-8;base64,AQ=="


def read(source: str, *, ensure_close: bool = False, inlined: bool = False) -> SafeHtml:
    """Return the result of HTML that is valid."""
    page = read_html(source, evolve(PLAIN, ensure_close=ensure_close), resources=LOADED if inlined else None)
    assert page is not None
    return page


def kinds_and_texts(page: SafeHtml) -> list[tuple[str, str | None]]:
    """Return the kinds and texts of the actions."""
    return [(each.kind, each.text) for each in page.actions]


class TestActions:
    def test_close_and_data_link(self) -> None:
        """Marked elements become links, in document order."""
        page = read('<div data-actiontype=close>x</div><a data-link="app://p">go</a>')
        assert kinds_and_texts(page) == [("close", "x"), ("deep-link", "go")]
        assert CLOSE_URL.fullmatch(page.actions[0].url)
        assert page.actions[1].url == "app://p"

    @pytest.mark.parametrize(
        ("source", "ensure_close", "expected"),
        [
            pytest.param(
                '<div data-actiontype=close>x</div><a data-link="app://p">go</a>',
                False,
                [("close", "x"), ("deep-link", "go")],
                id="H01",
            ),
            pytest.param('<a data-link="https://s.example">s</a>', True, [("browser", "s"), ("close", None)], id="H02"),
            pytest.param('<a data-link="https://s.example">s</a>', False, [("browser", "s")], id="H03"),
            pytest.param(
                '<a href="https://a.example" data-link="https://b.example">t</a>', False, [("browser", "t")], id="H04"
            ),
            pytest.param('<a href="app:x">one</a><a href="app:x">two</a>', False, [("deep-link", "one")], id="H05"),
            pytest.param(
                '<a href="https://a.example" data-actiontype="DEEP-LINK">t</a>', False, [("deep-link", "t")], id="H10"
            ),
            pytest.param(
                '<a href="https://a.example" data-actiontype="foo">t</a>', False, [("browser", "t")], id="H11"
            ),
            pytest.param('<a href="app:x"><b>Buy</b> now</a>', False, [("deep-link", "Buy now")], id="H17"),
            pytest.param('<a href="app:x"><div>Buy</div>now</a>', False, [("deep-link", "Buy now")], id="H17-blocks"),
            pytest.param('<a href="app:x">B<b>u</b>y<br>now</a>', False, [("deep-link", "Buy now")], id="H17-inline"),
            pytest.param(
                '<a href="app:x"><style>b{top:0}</style><img alt=x></a>', False, [("deep-link", None)], id="H17-none"
            ),
            pytest.param(
                "<i data-actiontype=close>1</i><a href=x data-actiontype=close>2</a>"
                "<a href=y><b data-actiontype=CLOSE>3</b></a>",
                True,
                [("close", "1"), ("close", "2"), ("close", "3")],
                id="H18",
            ),
            pytest.param(
                '<div data-actiontype=close>x</div><a href="app:x">y</a>',
                True,
                [("close", "x"), ("deep-link", "y")],
                id="one-close-one-link",
            ),
            pytest.param(
                '<a href="app:x">x</a><a href="app:y">y</a>',
                True,
                [("deep-link", "x"), ("deep-link", "y"), ("close", None)],
                id="links-and-one",
            ),
            pytest.param(
                '<div data-link="app:x">x</div><a href="app:x">y</a>', False, [("deep-link", "x")], id="same-address"
            ),
            pytest.param('<a href="  ">x</a><a href>y</a><b data-link=" ">z</b>', False, [], id="blank"),
            pytest.param(
                '<b data-link="app:x" data-actiontype="browser">x</b>', False, [("browser", "x")], id="declared-kind"
            ),
            pytest.param('<b data-actiontype="browser">x</b>', False, [], id="no-address"),
            pytest.param(
                '<a href="app:x"><b data-link="https://s.example">x</b></a>', False, [("browser", "x")], id="parent"
            ),
            pytest.param('<b data-link="HTTPS://s.example">x</b>', False, [("browser", "x")], id="case"),
            pytest.param('<b data-link="app:x" data-actiontype=close>x</b>', False, [("close", "x")], id="close-wins"),
        ],
    )
    def test_kinds_and_texts(self, source: str, ensure_close: bool, expected: list[tuple[str, str | None]]) -> None:  # noqa: FBT001
        """Each address is one action, of the declared kind, or else of the kind of its scheme."""
        assert kinds_and_texts(read(source, ensure_close=ensure_close)) == expected

    def test_data_link_takes_precedence(self) -> None:
        """H04: the address of an element that has both is the data-link."""
        page = read('<a href="https://a.example" data-link="https://b.example">t</a>')
        assert [each.url for each in page.actions] == ["https://b.example"]
        assert 'href="https://b.example"' in page.html
        assert "a.example" not in page.html

    def test_each_close_button_has_its_own_address(self) -> None:
        """H18: three close buttons have three addresses."""
        urls = {each.url for each in read("<b data-actiontype=close>x</b>" * 3).actions}
        assert len(urls) == 3
        assert all(map(CLOSE_URL.fullmatch, urls))

    @pytest.mark.parametrize(
        "source",
        [
            "<table><tr><td data-link=app:x>a</td></tr></table>",
            "<table><tr data-link=app:x><td>a</td></tr></table>",
            "<ul><li data-link=app:x>a</li></ul>",
            "<div data-link=app:x><p>a</p></div>",
            "<button data-link=app:x>a</button>",
            "<p><span data-link=app:x>a</span></p>",
            "<div data-link=app:y><div data-link=app:x>a</div></div>",
        ],
    )
    def test_any_element_can_be_clicked(self, source: str) -> None:
        """Links are put where they stay links, and into the cells of tables."""
        assert HtmlAction("deep-link", "app:x", "a") in read(source).actions

    @pytest.mark.parametrize(
        "url", ["app://cart", "myapp:x", "mailto:a@b.example", "tel:+42", "app://?a=1&b=%20", "x-1:"]
    )
    def test_links_to_applications(self, url: str) -> None:
        """A link may lead to any application."""
        page = read(f'<a href="{url.replace("&", "&amp;")}">x</a><b data-link="{url.replace("&", "&amp;")}/2">y</b>')
        assert [each.url for each in page.actions] == [url, url + "/2"]
        assert [each.kind for each in page.actions] == ["deep-link"] * 2

    def test_marks_move_to_the_links(self) -> None:
        """The attributes that made an element an action can be read from its link."""
        html = read('<b class=c data-actiontype="deep-link" data-link="app:x">y</b>').html
        assert html.startswith('<a data-actiontype="deep-link" data-link="app:x" href="app:x"')
        assert '><b class="c">y</b></a>' in html

    @pytest.mark.parametrize("source", ["<tbody data-actiontype=close>", "<table><tr data-actiontype=close></table>x"])
    def test_a_mark_without_a_link(self, source: str) -> None:
        """A mark that does not become a link is not a close button."""
        assert kinds_and_texts(read("x" + source, ensure_close=True)) == [("close", None)]


class TestFindAction:
    ACTIONS = (
        HtmlAction("close", "https://b.example", "x"),
        HtmlAction("browser", "https://b.example/", "y"),
        HtmlAction("browser", "https://b.example/p?a=1", "z"),
        HtmlAction("deep-link", "mailto:a@b.example", "m"),
        HtmlAction("close", "https://exponea.com/close_action_1", None),
        HtmlAction("deep-link", "https://[", "broken"),
    )

    @pytest.mark.parametrize(
        ("url", "text"),
        [
            pytest.param("https://b.example/", "y", id="H15"),
            pytest.param("https://b.example", "y", id="H15-not-close"),
            pytest.param("https://b.example/?q", None, id="H16"),
            pytest.param("https://b.example/p?a=2", None, id="H16-value"),
            pytest.param("HTTPS://B.example:8443/p/?a=1#f", "z", id="port-and-fragment"),
            pytest.param("http://b.example/", None, id="scheme"),
            pytest.param("https://b.example/P?a=1", None, id="path"),
            pytest.param("https://b.example//", None, id="two-slashes"),
            pytest.param("mailto:a@b.example", "m", id="mail"),
            pytest.param("https://[", "broken", id="broken"),
            pytest.param("", None, id="empty"),
        ],
    )
    def test_comparison(self, url: str, text: str | None) -> None:
        """Scheme, host, path and query count, and other actions take precedence over close buttons."""
        found = find_action(self.ACTIONS, url)
        assert (found and found.text) == text

    def test_in_safe_html(self) -> None:
        """An action can also be found in the whole result."""
        page = read("<b data-actiontype=close>x</b>")
        assert find_action(page, page.actions[0].url) is page.actions[0]


class TestCleaning:
    @pytest.mark.parametrize(
        ("source", "html"),
        [
            pytest.param("a<script>b</script>", "a", id="H06-script"),
            pytest.param('<p onclick="x" ONLOAD=y>a</p>', "<p>a</p>", id="H06-handler"),
            pytest.param("<link href=x rel=stylesheet>a", "a", id="H06-link"),
            pytest.param("<iframe src=x>b</iframe>a", "a", id="H06-iframe"),
            pytest.param("<title>b</title>a", "a", id="H06-title"),
            pytest.param("<meta charset=utf-8><meta http-equiv=refresh content='0;x'>a", "a", id="H06-meta"),
            pytest.param(
                '<meta name="viewport" content="width=1">a', '<meta content="width=1" name="viewport">a', id="H07"
            ),
            pytest.param('<div href="x">a</div>', "<div>a</div>", id="H08"),
            pytest.param(
                '<a target=_blank download ping="https://p.example" href="app:x">a</a>',
                '<a href="app:x" rel="noopener noreferrer">a</a>',
                id="H09",
            ),
            pytest.param('<img src="data:image/png;base64,AA==">', '<img src="data:image/png;base64,AA==">', id="H13"),
            pytest.param(
                "<!DOCTYPE html><html><head><style>b{top:0}</style></head><body><b>a</b></body></html>",
                "<style>b{top:0;}</style><b>a</b>",
                id="document",
            ),
            pytest.param('<body class="x" onload=y>a</body>', '<div class="x">a</div>', id="look-of-the-body"),
            pytest.param('<p id="a">a</p>', '<p id="message-a">a</p>', id="ids"),
            pytest.param(
                "<form action=x><input name=y>a<button>b</button></form>",
                'a<button type="button">b</button>',
                id="form",
            ),
            pytest.param("<!--[if mso]>x<![endif]-->a<!-- b --><![if !mso]>c<![endif]>", "ac", id="comments"),
            pytest.param("<pre>\n\na\n</pre>", "<pre>a\n</pre>", id="pre"),
            pytest.param("a &lt;b&gt; &amp;c", "a &lt;b&gt; &amp;c", id="entities"),
            pytest.param("a\0\ud800", "a\ufffd\ufffd", id="no-characters"),
            pytest.param("<P CLASS=a class=b>x", '<p class="a">x</p>', id="first-attribute"),
            pytest.param("<svg/>a<math>b</math>", "a", id="foreign"),
            pytest.param("<x-y>a</x-y>", "a", id="unknown"),
            pytest.param('<img src="x.png"><img src=" ">a', "<img><img>a", id="relative-picture"),
            pytest.param("<p style='background:none' style='top:0'>a", '<p style="background:none">a</p>', id="style"),
            pytest.param("<style media=print>b{top:0}</style>a", '<style media="print">b{top:0;}</style>a', id="media"),
            pytest.param("<style>b{top:0}", None, id="style-alone"),
            pytest.param("a<style></style>", "a", id="empty-style"),
        ],
    )
    def test_cleaning(self, source: str, html: str | None) -> None:
        """What is harmless stays as it is, and everything else is removed."""
        page = read_html(source, PLAIN)
        assert (page and page.html) == html

    @pytest.mark.parametrize(
        "source", ["", " \n", "<!-- a -->", "<script>a</script>", "<title>a</title>", "<style>b{top:0}</style>"]
    )
    def test_nothing_to_show(self, source: str) -> None:
        """Empty HTML is not a message, even with a close button."""
        assert read_html(source, PLAIN_WITH_CLOSE) is None


class TestStyles:
    @pytest.mark.parametrize(
        ("css", "expected"),
        [
            ("a{color:red;top:0}", "a{color:red;top:0;}"),
            ("a{color:red!important}", "a{color:red!important;}"),
            ("a > b , c{top:0}", "a > b , c{top:0;}"),
            ("#x .y{top:0}", "#message-x .y{top:0;}"),
            ("#message-x{color:#fff}", "#message-x{color:#fff;}"),
            ("@media (max-width:600px){a{top:0}}", "@media (max-width:600px){a{top:0;}}"),
            ("@media (width<600px) and (1px<=height){a{top:0}}", "@media (width< 600px) and (1px<=height){a{top:0;}}"),
            ("@keyframes x{from{top:0}50%{top:1px}}", "@keyframes x{from{top:0;}50%{top:1px;}}"),
            ("a{top:0;b{left:0}&:hover{left:1px}}", "a{top:0;b{left:0;}&:hover{left:1px;}}"),
            ("@layer a,b;", "@layer a,b;"),
            ("@supports (display:grid){a{display:grid}}", "@supports (display:grid){a{display:grid;}}"),
            ("a{--x: 1px ;width:calc(var(--x) + 2px)}", "a{--x:1px;width:calc(var(--x) + 2px);}"),
            (r'a{content:"\3c/style>"}', r'a{content:"\3c /style\3e ";}'),
            ("<!-- a{top:0} -->", "a{top:0;}"),
            ("a/* b */.c{top:0}", "a/**/.c{top:0;}"),
            ("a{background:url(x)}b{top:0}", "a{}\nb{top:0;}"),
            ("@charset 'x';@namespace 'x';@page{top:0}b{top:0}", "b{top:0;}"),
            ("a{b:" + "(" * 50 + "}", "a{}"),
        ],
    )
    def test_sheets(self, css: str, expected: str) -> None:
        """Style sheets keep their meaning, in one notation."""
        html = read(f"<style>{css}</style>a").html
        assert re.sub(r"</?style>", "", html.removesuffix("a")) == expected


class TestResources:
    STYLES = (
        pytest.param(f"background: url('{IMAGE}')", id="H14"),
        pytest.param(f'background: url("{IMAGE}");', id="H14-quotes"),
        pytest.param(f"background-image:url({IMAGE}) ;color:red", id="H14-none"),
        pytest.param(f"BACKGROUND:URL( {IMAGE} )", id="H14-case"),
        pytest.param(f"cursor:url({IMAGE}),auto", id="H14-list"),
        pytest.param(f"-webkit-mask-image:url({IMAGE})", id="H14-prefix"),
        pytest.param(rf"background:\75rl({IMAGE})", id="H14-escape"),
    )

    @pytest.mark.parametrize("style", STYLES)
    def test_images_of_styles(self, style: str) -> None:
        """Images in styles are collected and inlined, in any notation."""
        for source in (f"<p style='{style.replace(chr(39), '&#39;')}'>a</p>", f"<style>p{{{style}}}</style>a"):
            assert resource_urls(source) == ResourceUrls(images=(IMAGE,))
            html = read(source, inlined=True).html
            assert f"url({IMAGE_DATA})" in html.replace("&quot;", "").replace('"', "").replace("&#34;", "")
            assert IMAGE not in html

    def test_images(self) -> None:
        """Images are inlined, and those that are data URLs stay."""
        html = read(f'<img src=" {IMAGE} "><img src="{IMAGE_DATA}x">', inlined=True).html
        assert html == f'<img src="{IMAGE_DATA}"><img src="{IMAGE_DATA}x">'

    def test_fonts(self) -> None:
        """Fonts are inlined."""
        source = f"<style>@font-face{{font-family:x;src:url({FONT}) format('woff2')}}</style>a"
        assert resource_urls(source) == ResourceUrls(fonts=(FONT,))
        html = read(source, inlined=True).html
        assert f'src:url("{FONT_DATA}") format("woff2");' in html

    @pytest.mark.parametrize(
        "source",
        [
            pytest.param('<img src="https://i.example/b.png">', id="H12"),
            pytest.param("<img src=b.png>", id="H12-relative"),
            pytest.param('<p style="background:url(https://i.example/b.png)">a', id="H12-style"),
        ],
    )
    def test_a_missing_resource(self, source: str) -> None:
        """H12: without one of its resources, the message is not shown at all."""
        assert read_html(source, PLAIN, resources=LOADED) is None

    def test_resource_urls(self) -> None:
        """Each URL is collected once, but not blank ones, data URLs, other schemes, or those that are not shown."""
        images = [IMAGE, " ", IMAGE, IMAGE_DATA, "javascript:x", "file:///etc/passwd", "//i.example/c.png"]
        source = "".join(f'<img src="{each}">' for each in images)
        source += f"<svg><img src='{IMAGE}2'></svg><style>p{{color:url({IMAGE}3);content:url({IMAGE}4)}}</style>"
        assert resource_urls(source) == ResourceUrls(images=(IMAGE, "https://i.example/c.png", f"{IMAGE}4"))

    @pytest.mark.parametrize("url", [FONT, FONT_DATA, "data:font/css,b{top:0}"])
    def test_imports(self, url: str) -> None:
        """Another style sheet could contain anything, so no import stays, and nothing is loaded for it."""
        source = f"<style>@import url('{url}');@import '{url}' print;b{{top:0}}</style>a"
        assert resource_urls(source) == ResourceUrls()
        page = read(source, inlined=True)
        assert page.html == "<style>b{top:0;}</style>a"
        assert page.removed == ("@import",)


class TestLimits:
    @pytest.mark.parametrize(
        "source",
        [
            pytest.param("x" * (512 * 1024 + 1), id="long"),
            pytest.param("<div>" * 100_000, id="deep"),
            pytest.param("<div>" * 300 + "x", id="rather-deep"),
            pytest.param("&" * 200_000, id="ampersands"),
            pytest.param("<p>" + "".join(f"<b class={i}>" for i in range(700)) + "</p>" + "<p>x" * 700, id="reopened"),
            pytest.param("<p><b><b><b><i><i><i></p>" + "<p>x" * 9_000, id="many"),
            pytest.param("<b data-link=app:x>x</b>" * 300, id="actions"),
        ],
    )
    def test_huge_html(self, source: str) -> None:
        """What would take long, or much memory, is rejected."""
        assert read_html(source, PLAIN_WITH_CLOSE) is None

    @pytest.mark.parametrize("source", ["<" * 300_000, "<p>" * 30_000])
    def test_huge_html_needs_no_resources(self, source: str) -> None:
        """HTML that is rejected needs no resources."""
        assert resource_urls(source) == ResourceUrls()

    @pytest.mark.parametrize(
        "source",
        [
            pytest.param("<div " + " ".join(f"a{i}" for i in range(70_000)) + ">x", id="attributes"),
            pytest.param("<a " * 19_000 + "x" * 400_000, id="open-tags"),
            pytest.param("<p style='width:" + "(" * 100_000 + "'>x", id="brackets"),
            pytest.param("<style>" + "a{" * 100_000 + "</style>x", id="rules"),
            pytest.param("\0" * 100_000, id="zeros"),
            pytest.param("<![odd[" * 5_000 + ">x", id="sections"),
        ],
    )
    def test_odd_html(self, source: str) -> None:
        """Odd HTML takes time in proportion to its length."""
        assert read_html(source, PLAIN_WITH_CLOSE) is not None


class TestLibraries:
    @pytest.mark.parametrize("library", ["nh3", "selectolax.lexbor", "tinycss2", "tinycss2.serializer"])
    def test_missing_libraries(self, library: str) -> None:
        """Without the libraries, the error says how to install them."""
        with uninstalled(library), pytest.raises(ImportError, match=r"pip install 'exponea-async\[html\]'"):
            read_html("<style>a{top:0}</style>x", PLAIN)
