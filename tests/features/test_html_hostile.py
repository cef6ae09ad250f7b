"""
HTML of attackers: another parser reads the result, and must find nothing wrong in it.
"""

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from justhtml import JustHTML

from exponea_async.features._shared.html.reader import SafeHtml, read_html, resource_urls
from exponea_async.features._shared.html.resources import name_set
from exponea_async.features._shared.html.rules import HtmlRules

PLAIN = HtmlRules(scope_styles=False, allow_remote_media=True)
PLAIN_WITH_CLOSE = evolve(PLAIN, ensure_close=True)

#: Elements that run, load or send something, or that can be read in two ways.
FORBIDDEN = name_set(
    """
    script iframe frame frameset object embed applet base link form input textarea select option svg math template
    noscript noembed noframes plaintext xmp listing title portal audio video source track canvas map area dialog keygen
    isindex param foreignobject animate set use image body html head marquee bgsound layer ilayer xml
    """
)
#: Attributes, besides those of events, that load or send something, or that change the meaning of others.
FORBIDDEN_ATTRIBUTES = name_set(
    """
    srcdoc srcset action formaction form target download ping background poster http-equiv xlink:href dynsrc lowsrc
    longdesc cite code codebase classid data archive usemap profile manifest name is slot nonce autofocus
    contenteditable tabindex accesskey xmlns
    """
)
#: Schemes that browsers have run, or may run one day.
DANGEROUS = (
    "javascript",
    "vbscript",
    "livescript",
    "mocha",
    "data",
    "file",
    "blob",
    "filesystem",
    "view-source",
    "feed",
)
WORDS = {"alt", "title", "class", "aria-label", "content", "style", "rel", "id"}

ANCHOR = '<a href="{}">x</a>'
VECTORS = [
    # Elements that run.
    "<script>alert(1)</script>x",
    "<SCRIPT SRC=//x.example/x.js></SCRIPT>x",
    "<scr<script>ipt>alert(1)</scr</script>ipt>x",
    "<script/x>alert(1)</script/y>x",
    "<script>x</script\n>y<script",
    "<<script>alert(1)//<</script>x",
    "<script\0>alert(1)</script>x",
    "<scr\0ipt>alert(1)</scr\0ipt>x",
    '<script a=">" src=x></script>x',
    "<script><!--<script></script>--></script><img src=x onerror=alert(1)>x",
    "<iframe src=javascript:alert(1)></iframe>x",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>x",
    "<frameset><frame src=javascript:alert(1)></frameset>x",
    "<object data=javascript:alert(1)>x</object>y",
    "<embed src=data:text/html,<script>alert(1)</script>>x",
    "<applet code=x></applet>y",
    "<base href=javascript:alert(1)//><a href=x>y</a>",
    "<link rel=stylesheet href=javascript:alert(1)>x",
    "<link rel=import href=data:text/html,x>x",
    "<meta http-equiv=refresh content='0;url=javascript:alert(1)'>x",
    "<meta name=viewport http-equiv=refresh content='0;url=//x.example'>x",
    "<form action=javascript:alert(1)><button>x</button></form>",
    "<button formaction=javascript:alert(1) form=f>x</button>",
    "<input autofocus onfocus=alert(1)>x",
    "<isindex type=image src=1 onerror=alert(1)>x",
    "<video><source onerror=alert(1)></video>x",
    "<audio src=x onerror=alert(1)>x</audio>y",
    "<marquee onstart=alert(1)>x</marquee>",
    "<details open ontoggle=alert(1)>x</details>",
    "<dialog open onclose=alert(1)>x</dialog>",
    "<x onclick=alert(1) contenteditable tabindex=1>y</x>",
    "<custom-element is=x>y</custom-element>",
    # Attributes.
    "<img src=x onerror=alert(1)>",
    "<img src=x oNeRrOr=alert(1)//",
    '<img """><script>alert(1)</script>">',
    "<img/src=x/onerror=alert(1)>",
    "<img src=x\fonerror=alert(1)>",
    "<img src='x'onerror=alert(1)>",
    "<img src=`x`onerror=alert(1)>",
    "<img src=x onerror\n=\nalert(1)>",
    "<img src=x on\0error=alert(1)>",
    "<img src=x =onerror=alert(1)>",
    '<img src="x" alt="``onload=alert(1)">',
    "<p title='\"><img src=x onerror=alert(1)>'>x</p>",
    "<p class='\"onclick=alert(1)'>x</p>",
    "<a href='x' onclick=alert(1) href='y'>z</a>",
    "<img srcset='javascript:alert(1) 1x' src=x>",
    "<table background=javascript:alert(1)><td>x</table>",
    "<body onload=alert(1) background=javascript:alert(1)>x",
    "<body><body onpageshow=alert(1) style='background:url(javascript:alert(1))'>x",
    "<html onclick=alert(1)><head onclick=alert(1)>x",
    "<p data-bind=x data-ng-click=alert(1) ng-app v-html=x hx-get=/ x-data={}>y</p>",
    "<a id=location name=cookie href=x>y</a><img id=body name=body>",
    # Addresses.
    ANCHOR.format("javascript:alert(1)"),
    ANCHOR.format("JaVaScRiPt:alert(1)"),
    ANCHOR.format(" javascript:alert(1)"),
    ANCHOR.format("\x01javascript:alert(1)"),
    ANCHOR.format("\x1f\x00 javascript:alert(1)"),
    ANCHOR.format("java\tscript:alert(1)"),
    ANCHOR.format("java\nscript:alert(1)"),
    ANCHOR.format("java\0script:alert(1)"),
    ANCHOR.format("java&#10;script&colon;alert(1)"),
    ANCHOR.format("&#106;&#x61;vascript:alert(1)"),
    ANCHOR.format("&#0000106avascript&#58alert(1)"),
    ANCHOR.format("&Tab;java&NewLine;script:alert(1)"),
    ANCHOR.format("javascript\t:alert(1)"),
    ANCHOR.format("javascript&#x0A;:alert(1)"),
    ANCHOR.format("jav\xadascript:alert(1)"),
    ANCHOR.format("\u00a0javascript:alert(1)"),
    ANCHOR.format("\ufeffjavascript:alert(1)"),
    ANCHOR.format("vbscript:msgbox(1)"),
    ANCHOR.format("data:text/html,<script>alert(1)</script>"),
    ANCHOR.format("data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg=="),
    ANCHOR.format("data:image/svg+xml,<svg onload=alert(1)>"),
    ANCHOR.format("feed:javascript:alert(1)"),
    ANCHOR.format("view-source:javascript:alert(1)"),
    ANCHOR.format("blob:https://x.example/1"),
    ANCHOR.format("file:///etc/passwd"),
    ANCHOR.format("https://x.example/\"onclick='alert(1)"),
    "<p data-link='javascript:alert(1)'>x</p>",
    "<p data-link=' java\nscript:alert(1)' data-actiontype=browser>x</p>",
    "<p data-link='data:text/html,x' data-actiontype=close>x</p>",
    "<p data-link='\"><img src=x onerror=alert(1)>'>x</p>",
    "<p data-actiontype='close\"><img src=x onerror=alert(1)>'>x</p>",
    "<a href=app:x data-link=javascript:alert(1)>x</a>",
    "<img src=javascript:alert(1)>",
    "<img src=data:text/html,x>",
    "<img src='data:image/svg+xml,<svg onload=alert(1)>'>",
    "<area href=javascript:alert(1)><map name=x><area href=vbscript:x></map>y",
    # Foreign elements.
    "<svg onload=alert(1)>x",
    "<svg/onload=alert(1)//>x",
    "<svg><script>alert(1)</script></svg>x",
    "<svg><script href=data:,alert(1) />x",
    "<svg><a xlink:href=javascript:alert(1)><text>x</text></a></svg>y",
    "<svg><animate onbegin=alert(1) attributeName=x dur=1s></svg>y",
    "<svg><set attributeName=href to=javascript:alert(1)></svg>y",
    "<svg><use href='data:image/svg+xml,<svg id=x>#x'></svg>y",
    "<svg><foreignObject><iframe src=javascript:alert(1)></foreignObject></svg>y",
    "<math href=javascript:alert(1)>x</math>y",
    "<math><maction actiontype=statusline xlink:href=javascript:alert(1)>x</maction></math>y",
    # Markup that changes its meaning when it is read again.
    '<noscript><p title="</noscript><img src=x onerror=alert(1)>">x</noscript>y',
    '<svg></p><style><a id="</style><img src=1 onerror=alert(1)>">x',
    "<svg><style><img src=x onerror=alert(1)></style></svg>y",
    "<svg><style>&lt;img src=x onerror=alert(1)&gt;</style></svg>y",
    "<math><mtext><table><mglyph><style><math><img src=x onerror=alert(1)></style></mglyph></table></mtext></math>y",
    '<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror=alert(1)&gt;">y',
    "<form><math><mtext></form><form><mglyph><style></math><img src onerror=alert(1)>y",
    '<math><annotation-xml encoding="text/html"><style><img src=x onerror=alert(1)></style></annotation-xml></math>y',
    "<svg><desc><style><img src=x onerror=alert(1)></style></desc></svg>y",
    "<svg><title><style><a title='</style><img src=x onerror=alert(1)>'></title></svg>y",
    "<svg><p><style><!--</style><img title='--><img src=x onerror=alert(1)>'>y",
    "<template><script>alert(1)</script></template>x",
    "<template><p title='</template><img src=x onerror=alert(1)>'>x</template>y",
    "<textarea><img title='</textarea><img src=x onerror=alert(1)>'></textarea>y",
    "<title><img title='</title><img src=x onerror=alert(1)>'></title>y",
    "<xmp><p title='</xmp><img src=x onerror=alert(1)>'></xmp>y",
    "<noembed><p title='</noembed><img src=x onerror=alert(1)>'></noembed>y",
    "<noframes><p title='</noframes><img src=x onerror=alert(1)>'></noframes>y",
    "<iframe><p title='</iframe><img src=x onerror=alert(1)>'></iframe>y",
    "<select><template><style><!--</style><a rel='--></style></template></select><img src=x onerror=alert(1)>'>y",
    "<select><style></select><img src=x onerror=alert(1)></style></select>y",
    "<select><option><iframe></select><b><script>alert(1)</script>y",
    "x<plaintext><img src=x onerror=alert(1)>",
    "<listing>&lt;img src=x onerror=alert(1)&gt;</listing>x",
    "<pre>\n\n&lt;img src=x onerror=alert(1)&gt;</pre>",
    "<table><a href=app:x><table><a href=app:y>x</table></table>",
    "<a href=app:x><table><tr><td><a href=app:y>x</a></table>",
    "<p><table><p><b></table></b>x",
    "<b><p><i></b>x</i></p>",
    "<a data-actiontype=close><p><a data-link=app:x><div>x",
    "<table data-actiontype=close><tr data-link=app:x><td data-link=app:y>x",
    "<div data-link=app:x>x <a href=app:y>y</a></div><li data-link=app:x>x <a href=app:y>y</a>",
    "<button data-link=app:x><button data-actiontype=close>x",
    # Comments and declarations.
    "<!--><img src=x onerror=alert(1)>-->x",
    "<!---><img src=x onerror=alert(1)>-->x",
    "<!-- --!><img src=x onerror=alert(1)>-->x",
    "<!--[if gte IE 4]><script>alert(1)</script><![endif]-->x",
    "<![CDATA[<img src=x onerror=alert(1)>]]>x",
    "<svg><![CDATA[><img src=x onerror=alert(1)>]]></svg>x",
    "<!DOCTYPE x [<!ENTITY y 'z'>]><img src=x onerror=alert(1)>x",
    "<?xml-stylesheet href=javascript:alert(1)?>x",
    "<? foo='><script>alert(1)</script>'>x",
    "<! foo='><script>alert(1)</script>'>x",
    "</ foo='><script>alert(1)</script>'>x",
    "<% foo><x foo='%><script>alert(1)</script>'>x",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "+ADw-script+AD4-alert(1)+ADw-/script+AD4-",
    "\ufeff<script>alert(1)</script>x\ud800<img src=\udfff onerror=alert(1)>",
    # Styles.
    "<p style='width:expression(alert(1))'>x</p>",
    "<p style='width:exp/**/ression(alert(1))'>x</p>",
    r"<p style='width:\65xpression(alert(1))'>x</p>",
    r"<p style='width:e\78 pression(alert(1))'>x</p>",
    "<p style='--x:expression(alert(1));width:var(--x)'>x</p>",
    "<p style='behavior:url(x.htc)'>x</p>",
    r"<p style='b\65havior:url(#default#time2)'>x</p>",
    "<p style='-moz-binding:url(//x.example/x.xml#x)'>x</p>",
    "<p style='background:url(javascript:alert(1))'>x</p>",
    "<p style='background:url(\"java\nscript:alert(1)\")'>x</p>",
    r"<p style='background:url(\6a\61vascript:alert(1))'>x</p>",
    r"<p style='background:\75\72\6c(javascript:alert(1))'>x</p>",
    "<p style='background:u/**/rl(javascript:alert(1))'>x</p>",
    "<p style='background:url(data:text/html,x)'>x</p>",
    "<p style='background:image-set(\"javascript:alert(1)\" 1x)'>x</p>",
    "<p style='filter:progid:DXImageTransform.Microsoft.AlphaImageLoader(src=\"javascript:alert(1)\")'>x</p>",
    "<p style='color:red\"onclick=alert(1)'>x</p>",
    '<p style=\'list-style:url("x\\"onerror=alert(1)")\'>x</p>',
    "<style>@import 'javascript:alert(1)';</style>x",
    "<style>@import url(//x.example/x.css);</style>x",
    r"<style>@\69mport url(https://x.example/x.css);</style>x",
    "<style>@im/**/port url(https://x.example/x.css);</style>x",
    "<style>@import/**/'data:text/css,*{x:expression(alert(1))}';</style>x",
    "<style>@charset 'utf-7';@namespace url(javascript:alert(1));x{}</style>y",
    "<style>@font-face{font-family:x;src:url(javascript:alert(1))}</style>y",
    "<style>@document url-prefix(){*{-moz-binding:url(x)}}</style>y",
    "<style>*{background:url('</style><img src=x onerror=alert(1)>')}</style>y",
    r"<style>*{content:'\3c/style\3e\3cimg src=x onerror=alert(1)\3e'}</style>y",
    r"<style>\3c/style\3e\3cimg\20src=x\20onerror=alert(1)\3e{top:0}</style>y",
    r"<style>a{\3c/style\3e:x;--\3c/style\3e:x;b:\3c/style\3e;c:#\3c/style\3e;d:1\3c/style\3e}</style>y",
    r"<style>@media \3c/style\3e{a{top:0}}.\3c/style\3e{top:0}a[b=\3c/style\3e]{top:0}</style>y",
    r"<style>a{b:\3c/style\3e(1);c:@\3c/style\3e}</style>y",
    "<style>a{b:</style/**/c}</style>y",
    "<style><</style/>/style><img src=x onerror=alert(1)>y",
    "<style><!--</style><img src=x onerror=alert(1)>--></style>y",
    "<style></ style><img src=x onerror=alert(1)></style>y",
    "<style></sty\0le><img src=x onerror=alert(1)></style>y",
    "<style>{</style\n><img src=x onerror=alert(1)>y",
    "<style/><img src=x onerror=alert(1)></style>y",
    "<style media='\"><img src=x onerror=alert(1)>'>a{top:0}</style>y",
    "<style>input[value^=a]{background:url(javascript:alert(1))}</style>y",
    '<style>a{background:url(https://x.example/"onerror=alert(1))}</style>y',
    '<p style="background:url(https://x.example/&quot;);behavior:url(x)//)">x</p>',
]


class ResultReader:
    """Reads a result and collects what is wrong with it."""

    def __init__(self, html: str, *, fragment: bool, scripting: bool) -> None:
        document = JustHTML(html, sanitize=False, fragment=fragment, scripting_enabled=scripting)
        self._wrappers = set() if fragment else {"html", "head", "body"}
        self._root: Any = document.root

    def faults(self) -> list[str]:
        return [fault for node in walk(self._root) for fault in self._faults(node)]

    def _faults(self, node: Any) -> Iterator[str]:
        if node.name in ("#comment", "!doctype"):
            yield node.name
        if node.name.startswith(("#", "!")) or (node.name in self._wrappers and not node.attrs):
            return
        if node.namespace != "html" or node.name in FORBIDDEN or not re.fullmatch("[a-z][a-z0-9]*", node.name):
            yield f"<{node.name}>"
        if node.name == "meta" and node.attrs.get("name") != "viewport":
            yield "meta"
        if node.name == "style":
            yield from css_faults("".join(child.data for child in node.children))
        for name, value in (node.attrs or {}).items():
            yield from attribute_faults(node.name, name, value or "")


def walk(node: Any) -> Iterator[Any]:
    """Iterate over a tree, including templates, without recursion."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += getattr(node, "children", None) or []
        waiting += [node.template_content] if getattr(node, "template_content", None) else []


def attribute_faults(tag: str, name: str, value: str) -> Iterator[str]:
    forbidden = FORBIDDEN_ATTRIBUTES - ({"name"} if tag == "meta" else set())
    if name.startswith(("on", "xml")) or name in forbidden or not re.fullmatch("[a-z-]+", name):
        yield f"{tag} {name}"
    if (name == "href" and tag != "a") or (name == "src" and tag != "img"):
        yield f"{tag} {name}"
    if name == "id" and not value.startswith("message-"):
        yield f"id {value}"
    if name == "style":
        yield from css_faults(value)
    if name not in WORDS and is_dangerous(value, "image/" if name == "src" else None):
        yield f"{name}={value}"


def is_dangerous(url: str, data: str | None) -> bool:
    """Return whether a browser, or a program that decodes too often, could run an address."""
    url = re.sub(r"[\x00-\x20\x7f-\xa0\xad\ufeff\ufffd]", "", unquote(url)).lower()
    scheme, _, rest = url.partition(":")
    return scheme in DANGEROUS and not (scheme == "data" and data and rest.startswith(data.split("|", maxsplit=1)[0]))


def css_faults(css: str) -> Iterator[str]:
    """Return what could run, also if a browser decoded names before it reads them."""
    if re.search(r"<(?![ =])", css):
        yield f"tag in {css}"
    strings = re.sub(r'(url\()?"[^"]*"', lambda found: found[0] if found[1] else '""', css)
    plain = re.sub(
        r"\\([0-9a-f]{1,6})\s?", lambda found: chr(min(int(found[1], 16), 0x10FFFF)), strings, flags=re.IGNORECASE
    )
    plain = re.sub(r"/\*.*?\*/", "\x01", plain.replace("\\", ""), flags=re.DOTALL).lower()
    for word in (
        "expression(",
        "behavior:",
        "-moz-binding:",
        "progid:",
        "image-set(",
        "@charset",
        "@namespace",
        "@document",
    ):
        if word in plain:
            yield f"{word} in {css}"
    for url in re.findall(r"url\(\s*[\"']?(.*?)[\"']?\s*\)", strings + plain, flags=re.IGNORECASE | re.DOTALL):
        if not re.match(r"https?://|data:image/|data:application/font", url, flags=re.IGNORECASE):
            yield f"url({url}) in {css}"
    if re.search(r"@import(?! url\(\"data:application/font)", plain):
        yield f"import in {css}"


def faults(html: str) -> list[str]:
    """Read a result as part of a page and as a page, with scripting and without, and return what is wrong."""
    ways = [(fragment, scripting) for fragment in (True, False) for scripting in (True, False)]
    return [
        each
        for fragment, scripting in ways
        for each in ResultReader(html, fragment=fragment, scripting=scripting).faults()
    ]


def check(page: SafeHtml | None) -> None:
    """Check that nothing is wrong with a result, and that reading it again changes nothing."""
    if page is None:
        return
    assert faults(page.html) == []
    assert not [each for each in page.actions if is_dangerous(each.url, None)]
    again = read_html(page.html, PLAIN)
    assert again is not None or not re.search(r">[^<\s]|<(?!style|/|meta)", page.html)
    assert again is None or without_numbers(again) == without_numbers(page)


def without_numbers(safe: SafeHtml | None) -> SafeHtml | None:
    """Return a result whose close buttons have addresses that are the same each time."""
    if safe is None:
        return None

    def replace(text: str) -> str:
        return re.sub(r"(?<=close_action_)[0-9a-f-]{36}", "0", text)

    return SafeHtml(replace(safe.html), tuple(evolve(each, url=replace(each.url)) for each in safe.actions))


class TestHostile:
    @pytest.mark.parametrize("source", VECTORS)
    @pytest.mark.parametrize("ensure_close", [True, False])
    def test_known_attacks(self, source: str, ensure_close: bool) -> None:  # noqa: FBT001
        """Another parser finds nothing wrong in the results of known attacks."""
        page = read_html(source, evolve(PLAIN, ensure_close=ensure_close))
        check(page)
        resources = resource_urls(source)
        assert all(re.match("https?://", url) for url in (*resources.images, *resources.fonts))

    @pytest.mark.parametrize("source", VECTORS)
    @pytest.mark.parametrize(
        "around", ["<p title='{}'>x", '<p title="{}">x', "<style>{}</style>x", "<table>{}", "<!--{}-->x", "<svg>{}"]
    )
    def test_known_attacks_in_other_places(self, source: str, around: str) -> None:
        """The same is true of attacks within attributes, styles, tables, comments and foreign elements."""
        check(read_html(around.replace("{}", source), PLAIN))

    @pytest.mark.parametrize("source", VECTORS)
    def test_known_attacks_with_inlined_resources(self, source: str) -> None:
        """What was loaded is inlined as data, and means nothing to the page."""
        urls = resource_urls(source)
        loaded = dict.fromkeys((*urls.images, *urls.fonts, "x"), b"</style><script>alert(1)</script>")
        check(read_html(source, PLAIN_WITH_CLOSE, resources=loaded))

    def test_the_attacks_are_distinct(self) -> None:
        """The attacks are many, each once."""
        assert len(set(VECTORS)) == len(VECTORS) >= 150

    def test_most_messages_stay(self) -> None:
        """Most of these messages are cleaned, not rejected."""
        rejected = [source for source in VECTORS if read_html(source, PLAIN) is None]
        assert len(rejected) < len(VECTORS) / 10, rejected


MIXED_TAGS = sorted(name_set("p b a i div table tr td li ul button style script svg math template select pre form"))
PIECES = [
    *(f"<{tag}>" for tag in MIXED_TAGS),
    *(f"</{tag}>" for tag in MIXED_TAGS),
    "<title>", "</title>", "<noscript>", "</noscript>", "<textarea>", "</textarea>", "<mtext>", "<mglyph>", "<desc>",
    "<!--", "-->", "--!>", "<![CDATA[", "]]>", "<!", "<?", "</", "<", ">", "'", '"', "=", "/", " ", "\n", "\0", "&",
    "<a href=", "<img src=", " onerror=alert(1)", "javascript:", "data:text/html,", "data:image/png;base64,AA==",
    "<p style='", '<p title="', "<a data-link=app:x>", "<b data-actiontype=close>", "<td data-link=app:y>",
    "https://x.example/", "url(", ")", "{", "}", ";", ":", "@import ", "@media x", "expression(", "background:", "src:",
    "\\", "/*", "*/", "\\3c ", "#x", "<body class=x>", "</body>", "<br>", "&lt;", "&#106;", "x", "\ud800", "\u00a0",
]  # fmt: skip


class TestRandomMarkup:
    @given(st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=40).map("".join))
    def test_random_markup(self, source: str) -> None:
        """Nothing is wrong with the result of random markup, and reading it again changes nothing."""
        page = read_html(source, PLAIN)
        check(page)


class TestTheReader:
    """A reader that finds nothing would prove nothing."""

    @pytest.mark.parametrize(
        "html",
        [
            "<script>x</script>",
            "<p onclick=x>",
            "<a href=javascript:x>",
            "<a href='java\nscript:x'>",
            "<svg></svg>",
            "<!-- x -->",
            "<img src=data:text/html,x>",
            "<a href=data:image/png,x>",
            "<p data-link=vbscript:x>",
            "<p style='width:expression(x)'>",
            r"<p style='width:\65xpression(x)'>",
            "<style>@import url(https://x.example)</style>",
            "<style>a{background:url(x)}</style>",
            "<style>a{b:'<!--'}</style>",
            "<p id=x>",
            "<meta charset=x>",
            "<noscript><p></noscript>",
            "<template><p></template>",
        ],
    )
    def test_it_finds_faults(self, html: str) -> None:
        """Each kind of fault is found."""
        assert faults(html)
