"""
The styles of messages: limited to the message, read in one way only, and without addresses of the web.
"""

import os
import random
import re
from typing import Any

import pytest
from attrs import evolve
from helpers.modules import uninstalled
from justhtml import JustHTML

from exponea_async.features._shared.html.css import StyleCleaner
from exponea_async.features._shared.html.reader import SafeHtml, read_html
from exponea_async.features._shared.html.resources import KeepUrls
from exponea_async.features._shared.html.rules import HtmlRules

IMAGE = "https://i.example/a.png"
FONT = "https://f.example/a.woff2"
DEFAULT = HtmlRules()
EMBEDDED = HtmlRules(is_embedded=True)

#: How many random style sheets are cleaned; the environment variable ``STYLE_SHEETS`` raises it.
SHEETS = int(os.environ.get("STYLE_SHEETS", "3000"))

#: Style sheets that another reader takes for an import, or for a rule that the first reader did not see.
TWO_READINGS = [
    *(f'{blank}@import "http://h.example/x.css";b{{}}' for blank in "\u00a0\x85\u1680\u2000\u2005\u200a\u2028\u2029"),
    *(f'{blank}@import "http://h.example/x.css";b{{}}' for blank in "\u202f\u205f\u3000\x1c\x1d\x1e\x1f\x0b"),
    r'\a0 @import "http://h.example/x.css";b{}',
    r'\2028 @import "http://h.example/x.css";b{}',
    '@media x\\\n{}b;@import "http://h.example/x.css";{}',
    '@media x\\\n{}@import "http://h.example/x.css";b{}',
    'a\\\n{}@import "http://h.example/x.css";b{}',
    '@import "data:font/css,@import url(http://h.example/x.css)";b{}',
    "@import url(data:font/css;base64,AAAA);b{}",
    'b @import "http://h.example/x.css"; c{}',
    "b{top:0 @import x;}",
    "b{}@layer x\\\n;@import 'http://h.example/x.css';",
]


def read(source: str, rules: HtmlRules = DEFAULT) -> SafeHtml:
    """Return the result of HTML that is valid."""
    page = read_html(source, rules)
    assert page is not None
    return page


def sheet_of(page: SafeHtml) -> str:
    """Return the style sheets of a result, with a short name for the class of its scope."""
    return re.sub(r"message-scope-[0-9a-f]{12}", "S", "".join(re.findall("<style>(.*?)</style>", page.html, re.DOTALL)))


class TestScope:
    @pytest.mark.parametrize(
        ("css", "expected"),
        [
            ("a{top:0}", ".S a{top:0;}"),
            ("a, .b > c{top:0}", ".S a,.S .b > c{top:0;}"),
            ("*{top:0}", ".S *{top:0;}"),
            ("body{top:0}", ".S{top:0;}"),
            ("html, :root{top:0}", ".S,.S{top:0;}"),
            ("html body .x{top:0}", ".S .x{top:0;}"),
            ("html>body>.x{top:0}", ".S>.x{top:0;}"),
            ("body.x:hover .y{top:0}", ".S.x:hover .y{top:0;}"),
            ("BODY p{top:0}", ".S p{top:0;}"),
            ("html:has(.x) input{top:0}", ".S:has(.x) input{top:0;}"),
            (":is(body, .x) a{top:0}", ".S :is(body, .x) a{top:0;}"),
            ("@media print{a{top:0}}", "@media print{.S a{top:0;}}"),
            ("@layer x{@supports (top:0){body a{top:0}}}", "@layer x{@supports (top:0){.S a{top:0;}}}"),
            ("@keyframes x{from{top:0}50%{top:1px}}", "@keyframes x{from{top:0;}50%{top:1px;}}"),
            (
                "a{top:0;&:hover{left:0}b{left:1px}> c{left:2px}}",
                ".S a{top:0;&:hover{left:0;}b{left:1px;}> c{left:2px;}}",
            ),
            ("a{html:has(&) input{top:0}}", ".S a{}"),
            ("a{:not(&) input{top:0}}", ".S a{}"),
            ("a{& ~ &{top:0}}", ".S a{}"),
            ("& input{top:0}", ".S & input{top:0;}"),
            ("@media all{top:0}", "@media all{}"),
            ("@scope (html){input{top:0}}", ""),
            ("a{@scope (html){top:0}}", ".S a{}"),
            (",a{top:0}", ""),
            ("a,{top:0}", ""),
            ("{top:0}", ""),
            ("@keyframes x{from{input{top:0}}}", "@keyframes x{from{}}"),
            ("@font-face{input{top:0}font-family:x}", "@font-face{font-family:x;}"),
        ],
    )
    def test_selectors(self, css: str, expected: str) -> None:
        """A style sheet selects the element around the message, and what is in it; nothing else of the page."""
        assert sheet_of(read(f"<style>{css}</style>a")) == expected

    def test_the_element(self) -> None:
        """The element has the attributes of the message's own body, and no siblings that a sheet could select."""
        page = read("<html><head><style>body{top:0}</style></head><body class=x bgcolor=red><p>a</p></body></html>")
        scope = re.search(r"message-scope-[0-9a-f]{12}", page.html)
        assert scope
        assert page.html == (
            f'<style>.{scope[0]}{{top:0;}}</style><div><div bgcolor="red" class="{scope[0]} x"><p>a</p></div></div>'
        )

    def test_messages_apart(self) -> None:
        """Two messages have two scopes, and the same message has the same one each time."""
        one, other = read("<style>a{top:0}</style>a"), read("<style>a{top:0}</style>b")
        assert one.html.replace(">a<", ">b<") != other.html
        assert one == read("<style>a{top:0}</style>a")

    def test_without_styles(self) -> None:
        """A message without a style sheet stays as it is."""
        assert read('<p style="top:0">a</p>').html == '<p style="top:0">a</p>'

    def test_without_a_scope(self) -> None:
        """The limit can be switched off."""
        page = read("<style>a{top:0}</style>a", HtmlRules(scope_styles=False))
        assert page.html == "<style>a{top:0;}</style>a"


class TestEmbedded:
    @pytest.mark.parametrize(
        "value",
        ["fixed", "FIXED", r"\66ixed", "fixed!important", "var(--x)", "fixed absolute", "-webkit-fixed", "/**/fixed"],
    )
    def test_nothing_is_fixed(self, value: str) -> None:
        """Within a page, no element is positioned relative to the window, neither by a sheet nor by an attribute."""
        page = read(f"<style>p{{position:{value};top:0}}</style><p style='position:{value};left:0'>a", EMBEDDED)
        assert "position" not in page.html
        assert "top:0" in page.html
        assert "left:0" in page.html
        assert "position in a style" in page.removed

    @pytest.mark.parametrize("value", ["relative", "absolute", "sticky", "inherit"])
    def test_other_positions(self, value: str) -> None:
        """Other positions stay."""
        assert f"position:{value}" in read(f"<p style='position:{value}'>a", EMBEDDED).html

    @pytest.mark.parametrize("source", ["<style>p{top:0}</style><p>a", "<p style='position:absolute'>a"])
    def test_it_stays_in_its_place(self, source: str) -> None:
        """A message with styles is put into an element that contains its layout, which no sheet can select."""
        root: Any = JustHTML(read(source, EMBEDDED).html, sanitize=False, fragment=True).root
        last = root.children[-1]
        assert (last.name, last.attrs) == ("div", {"style": "contain:layout paint"})

    def test_not_embedded(self) -> None:
        """A message that covers the page may do so."""
        assert "position:fixed" in read("<style>p{position:fixed}</style><p>a").html


class TestRemoteMedia:
    SHEET = (
        f"input[value^=a]{{background:url({IMAGE});top:0}}"
        f"@font-face{{font-family:x;src:url({FONT});unicode-range:U+61}}b{{cursor:URL('//i.example/a.cur'),auto}}"
    )

    def test_default(self) -> None:
        """A style sheet refers to nothing in the web, and the result says so."""
        page = read(f"<style>{self.SHEET}</style>a")
        assert "example" not in page.html
        assert "top:0" in page.html
        assert "images and fonts of the web in a style sheet (allow_remote_media)" in page.removed

    def test_allowed(self) -> None:
        """It does if that is allowed."""
        page = read(f"<style>{self.SHEET}</style>a", HtmlRules(allow_remote_media=True))
        assert [IMAGE in page.html, FONT in page.html, "https://i.example/a.cur" in page.html] == [True] * 3
        assert page.removed == ()

    def test_what_the_message_contains(self) -> None:
        """Images and fonts that the message contains itself stay."""
        data = "data:image/png;base64,AA=="
        assert f'url("{data}")' in read(f"<style>a{{background:url({data})}}</style>a").html

    def test_elements(self) -> None:
        """Pictures of elements stay: an element selects nothing, so it can tell nothing of the page."""
        source = f'<img src="{IMAGE}"><p style="background:url({IMAGE})">a</p>'
        page = read(source)
        assert page.html.count(IMAGE) == 2
        assert page.removed == ()


class TestOldNotations:
    @pytest.mark.parametrize(
        ("source", "html"),
        [
            (f'<img src="{IMAGE[6:]}">', f'<img src="{IMAGE}">'),
            (f'<img srcset="{IMAGE} 2x, b.png 1x">', f'<img src="{IMAGE}">'),
            (f'<picture><source srcset="x.webp"><img src="{IMAGE}"></picture>', f'<img src="{IMAGE}">'),
            (
                f'<table background="{IMAGE}"><tr><td>a</table>',
                f'<table style="background-image:url(&quot;{IMAGE}&quot;)"><tbody><tr><td>a</td></tr></tbody></table>',
            ),
            (f"<body background={IMAGE}>", f'<div style="background-image:url(&quot;{IMAGE}&quot;)"></div>'),
            (
                f"<body style='background:url({IMAGE});height:9px'></body>",
                f'<div style="background:url(&quot;{IMAGE}&quot;);height:9px"></div>',
            ),
        ],
    )
    def test_pictures(self, source: str, html: str) -> None:
        """Pictures stay in any notation; also those of a body that has nothing else."""
        assert read(source).html == html

    def test_what_was_removed(self) -> None:
        """What a message lacks is listed, once each, and nothing of what means nothing."""
        page = read(
            "<!DOCTYPE html><html><head><title>x</title><meta charset=utf-8></head><body><!-- c -->"
            "<svg><script>x</script></svg><svg></svg><math>1</math><form>a<input></form>"
            "<p onclick=x onload=y>b<script>x</script>"
            "<a href='javascript:x' target=_blank>c</a><img src=b.png><style>@import 'x';b{behavior:url(x)}</style>"
        )
        assert page.removed == (
            *("<svg>", "<math>", "<form>", "<input>", "onclick of <p>", "onload of <p>", "<script>", "href of <a>"),
            *("src of <img>", "@import", "behavior in a style"),
        )

    def test_many_removals(self) -> None:
        """The list is short, whatever the message contains, and names are plain words."""
        page = read("".join(f"<x-{number}\u202e{'y' * 99}>" for number in range(100)) + "a")
        assert len(page.removed) == 20
        assert all(re.fullmatch("<[a-z0-9-]{1,30}>", each) for each in page.removed)


PIECES = [
    *"\u00a0\x85\u1680\u2000\u2009\u200a\u2028\u2029\u202f\u205f\u3000\ufeff\u200b\x0b\x0c\x1c\x1f\x00\x7f",
    *"{}()[];:,.#@\\&>+~*/=^$|!%<-_\"'\n\r\t ",
    *("@import ", "@media x", "@media ", "@layer ", "@layer a;", "@supports ", "@scope ", "@font-face", "@keyframes k"),
    *("@charset ", "@namespace ", "@container ", "\\\n", "\\a0 ", "\\40 import ", "\\{", "\\}", "\\;", "\\3c ", "\\"),
    *(
        '"http://h/x.css"',
        "'http://h/x.css'",
        "url(http://h)",
        "url('http://h')",
        "URL(",
        "u\\72l(",
        "src:",
        "/*",
        "*/",
    ),
    *("<!--", "-->", "</style>", "a", "b{}", "b{top:0}", "a{", "top:0;", "--x:", "var(--x)", ":is(", ":has(&)", "&"),
    *("html", "body", ":root", "from", "50%", "to", "U+61", "1px", "1e3", "#a", ".b", "input[value^=a]", "!important"),
    *("background:url(data:image/png,x)", "content:'\\a'", "expression(", "image-set(", "position:fixed", "é", "😀"),
]
#: Where the random part of a sheet stands; with all of it random, hardly anything would be valid.
PLACES = [
    "{}",
    "{}b{{top:0}}",
    "b{{top:0}}{}",
    "a{}{{top:0}}",
    "a{{top:0;{}}}",
    "@media {}{{b{{top:0}}}}",
    "@media all{{{}}}",
]


def random_sheet(chance: random.Random) -> str:
    """Return a style sheet of random pieces."""
    return chance.choice(PLACES).format("".join(chance.choices(PIECES, k=chance.randint(1, 10))))


def contains_import(css: str) -> bool:
    """Return whether a style sheet has an import, apart from what stands in strings and names."""
    # An escaped quotation mark outside of a string begins none.
    rest = re.sub(r'\\.|"(\\.|[^"\\])*"', " ", css, flags=re.DOTALL)
    return "@import" in rest.lower()


class TestTwoReadings:
    @pytest.mark.parametrize("css", TWO_READINGS)
    @pytest.mark.parametrize("rules", [DEFAULT, HtmlRules(scope_styles=False, allow_remote_media=True)])
    def test_known_sheets(self, css: str, rules: HtmlRules) -> None:
        """A sheet that would be read in another way the second time is left out, and so is every import."""
        assert "import" not in read(f"<style>{css}</style>a", rules).html.replace("\\@import", "").lower()

    def test_random_sheets(self) -> None:
        """What is written of any style sheet is the same when it is cleaned again, and contains no import."""
        seed = random.randrange(2**32)
        chance = random.Random(seed)
        cleaner = StyleCleaner(KeepUrls(), KeepUrls())
        scoped, refused = evolve(cleaner, scope=".S"), 0
        for _ in range(SHEETS):
            source = random_sheet(chance)
            css = cleaner.clean_sheet(source)
            assert cleaner.clean_sheet(css) == css, (seed, source)
            assert not contains_import(css), (seed, source)
            limited = scoped.clean_sheet(source)
            assert cleaner.clean_sheet(limited) == limited, (seed, source)
            refused += not css
        assert refused < SHEETS, "something must be left"

    def test_random_attributes(self) -> None:
        """The same is true of ``style`` attributes."""
        seed = random.randrange(2**32)
        chance = random.Random(seed)
        cleaner = StyleCleaner(KeepUrls(), KeepUrls())
        for _ in range(SHEETS // 3):
            source = "".join(chance.choices(PIECES, k=chance.randint(1, 10)))
            css = cleaner.clean_style(source)
            assert cleaner.clean_style(css) == css, (seed, source)


def test_missing_library() -> None:
    """Without the library, an error says what to install."""
    with uninstalled("tinycss2"), pytest.raises(ImportError, match="html"):
        read_html("<style>a{top:0}</style>a", DEFAULT)
