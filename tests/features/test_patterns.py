"""
Regular expressions: what is found, by which engine, and that none of them takes long.
"""

import logging
import re
import time
from types import ModuleType

import pytest
from helpers.modules import import_copy
from hypothesis import given
from hypothesis import strategies as st

NAME = "exponea_async.features._shared.targeting.patterns"


def engine(*, extra: bool, always: bool = False) -> ModuleType:
    """Return a copy of the module that has the extra, does not have it, or uses it whenever possible."""
    module = import_copy(NAME, without="" if extra else "regex")
    if always:
        module.MAX_STEPS = -1  # type: ignore[attr-defined]
    return module


BOTH, ALONE, EXTRA = engine(extra=True), engine(extra=False), engine(extra=True, always=True)
ENGINES = {"both": BOTH, "re": ALONE, "regex": EXTRA}


@pytest.fixture(params=ENGINES.values(), ids=list(ENGINES))
def patterns(request: pytest.FixtureRequest) -> ModuleType:
    module: ModuleType = request.param
    module.compile_pattern.cache_clear()
    module.warn_extra_missing.cache_clear()
    module.warn_timeout.cache_clear()
    return module


def found(patterns: ModuleType, pattern: str, string: str) -> bool:
    is_found: bool = patterns.compile_pattern(pattern).found_in(string)
    return is_found


def outcome(patterns: ModuleType, pattern: str, string: str) -> bool | None:
    """Return the result of `found`, or None if the pattern is rejected."""
    try:
        return found(patterns, pattern, string)
    except patterns.PatternError:
        return None


EVERYDAY = [
    ("", "", True),
    ("checkout", "checkou" * 2000 + "checkout", True),
    ("checkout", "checkou" * 2000, False),
    (".*checkout.*", "checkou" * 2000 + "checkout", True),
    (".*checkout.*?", "checkou" * 2000, False),
    ("^/products/.*$", "/products/" * 1600, True),
    ("https?://(www\\.)?shop\\.example/(en|de)/.*", f"https://shop.example/de/{'a' * 10_000}", True),
    ("^(\\d{1,3}\\.){3}\\d{1,3}$", "127.0.0.1", True),
    ("^(\\d{1,3}\\.){3}\\d{1,3}$", "127.0.0." * 2000, False),
    ("cart.*total", f"cart{'a' * 600}total", True),
    ("utm_[a-z]+=(spring|summer)", f"https://shop.example/?{'a=1&' * 100}utm_campaign=summer", True),
    ("^[\\w.+-]+@[\\w-]+\\.[\\w.-]+$", "jane.doe+shopping@mail.shop.example", True),
    ("^[\\w.+-]+@[\\w-]+\\.[\\w.-]+$", "jane.doe", False),
    ("Teal", "teal", False),
    ("(?i)ŽLUŤ", "žluťoučký", True),
    ("(?i:teal) red", "TEAL RED", False),
    ("^\\w+$", "žluť", True),
    ("^\\d$", "\u0667", True),
    ("^a$", "b\na", False),
    ("(?m)^a$", "b\na\nb", True),
    ("a$", "a\n", True),
    ("a.b", "a\nb", False),
    ("(?s)a.b", "a\nb", True),
    ("(?x) t e a l", "teal", None),
    ("(?<n>ab)-\\k<n>", "ab-ab", True),
    ("(?<n>ab)-\\k<n>", "ab-ac", False),
    ("(?P<n>ab)-(?P=n)", "ab-ab", True),
    ("(a)(?#why)\\1", "aa", True),
    ("a\\z", "a\n", False),
    ("a\\Z", "a\n", True),
    ("a\\Z", "a\n\n", False),
    ("[[a]", "[", True),
    ("[^]a]", "]a", False),
    ("[a-z&&[b]]", "b]", True),
    ('{"a":1}', '{"a":1}', True),
    ("a{e}", "a{e}", True),
    ("a{e}", "b", False),
    ("a{,2}b", "b", True),
    ("(?>a+)b", "aab", True),
    ("a++ab", "aaab", False),
    ("(?<!b)a", "ba", False),
    ("\\bb|\\Bc", "ac", True),
    ("x*", "", True),
]

ATOMS = st.sampled_from(
    ["a", "b", ".", "[ab]", "[^b]", "\\w", "\\s", "(a)", "(?:ab)", "(?>a|ab)", "^", "$", "\\b", "\\Z", "(?=a)", "(?!b)"]
)
SIGNS = st.sampled_from(["", "", "*", "+", "?", "*?", "+?", "??", "{2}", "{1,3}", "{,2}", "++"])
PIECES = st.builds(lambda atom, sign: atom if atom in ("^", "$", "\\b", "\\Z") else atom + sign, ATOMS, SIGNS)
NESTS = st.builds(
    lambda inner, sign: f"(?:{inner}){sign}", st.lists(PIECES, min_size=1, max_size=3).map("|".join), SIGNS
)


class TestFinding:
    @pytest.mark.parametrize(("pattern", "string", "expected"), EVERYDAY)
    def test_usual_patterns(self, patterns: ModuleType, pattern: str, string: str, *, expected: bool | None) -> None:
        """Usual patterns are found by both engines, in strings of any length."""
        if expected is None:
            expected = patterns is not ALONE or None
        assert outcome(patterns, pattern, string) is expected

    @pytest.mark.parametrize(
        ("pattern", "string", "expected"),
        [
            ("^\\p{L}+$", "Žluťoučký", True),
            ("^\\p{L}+$", "Teal7", False),
            ("\\p{Lu}\\P{Lu}", "aBc", True),
            ("[\\p{Sc}] ?\\d", "€7", True),
            ("^[[:alpha:]_]+$", "a_b", True),
            ("^[[:^digit:]]+$", "a7", False),
            ("a\\hb", "a\tb", True),
            ("(foo|bar)+!", "foobar" * 100 + "!", True),
            ("([a-z]+\\.)*shop", "a.b." * 50 + "shop", True),
            ("(a+)+b", "aab" * 10, True),
        ],
    )
    def test_patterns_for_the_extra(
        self, pattern: str, string: str, caplog: pytest.LogCaptureFixture, *, expected: bool
    ) -> None:
        """Without the extra, patterns that need it are not found, which is logged once."""
        ALONE.warn_extra_missing.cache_clear()
        ALONE.compile_pattern.cache_clear()
        assert found(BOTH, pattern, string) is found(EXTRA, pattern, string) is expected
        assert caplog.messages == []
        assert not outcome(ALONE, pattern, string)
        assert not outcome(ALONE, pattern, string)
        assert len(caplog.messages) == 1
        assert "pip install 'exponea-async[html]'" in caplog.text

    @given(
        st.lists(PIECES | NESTS, max_size=5).map("|".join) | st.lists(PIECES | NESTS, max_size=5).map("".join),
        st.text("abA \n", max_size=7),
    )
    def test_the_engines_agree(self, pattern: str, string: str) -> None:
        """Both engines find what Python finds in short strings, except that the end is Android's."""
        expected = re.search(pattern.replace("\\Z", "(?=\\n?\\Z)"), string) is not None
        assert found(EXTRA, pattern, string) is found(BOTH, pattern, string) is expected
        assert outcome(ALONE, pattern, string) in (expected, None, False)

    @pytest.mark.parametrize(
        "name",
        [
            "alnum",
            "alpha",
            "blank",
            "cntrl",
            "digit",
            "graph",
            "lower",
            "print",
            "punct",
            "space",
            "upper",
            "word",
            "xdigit",
        ],
    )
    def test_named_sets(self, name: str) -> None:
        """The extra knows all named sets."""
        assert found(EXTRA, f"^[[:^{name}:][:{name}:]]$", "a")

    @given(st.text(max_size=20) | st.text("()[]{}?*+|^$\\.,:=!<>#Pix01abpLRZzk&-", max_size=30))
    def test_any_pattern(self, pattern: str) -> None:
        """Any pattern is read or rejected, by both engines."""
        for module in ENGINES.values():
            assert outcome(module, pattern, "Teal") in (True, False, None)


#: Patterns that take Python forever with the right string, and the repeated part of such a string.
HOSTILE = [
    ("(a+)+$", "a"),
    ("([a-zA-Z]+)*$", "a"),
    ("(a|aa)+$", "a"),
    ("(a|a?)+$", "a"),
    ("(.*a){20}$", "a"),
    ("(x+x+)+y", "x"),
    ("(?:a*)*b", "a"),
    ("(?i)(a+)+$", "a"),
    ("(?x)( a+ )+ $", "a"),
    ("(?=(a+)+b)", "a"),
    ("(?<!b)(a+)+$", "a"),
    ("(?P<many>a+)+(?P=many)$", "a"),
    ("(a*)*\\1b", "a"),
    ("(?#why)(a+)+$", "a"),
    ("(a)?(?(1)(a+)+|b)$", "a"),
    ("(a{1,50}){1,50}b", "a"),
    ("a?" * 30 + "a" * 30, "a"),
    ("(.*)(.*)(.*)(.*)=", "a"),
    (".*?.*?.*?=", "a"),
    ("[^=]*[^=]*[^=]*=", "a"),
    ("\\s+$", " "),
    ("\\d+\\d+\\d+x", "1"),
    ("^(([a-z])+.)+[A-Z]([a-z])+$", "a"),
    ("^(\\w+\\s?)*$", "a "),
    (
        "^([a-zA-Z0-9])(([\\-.]|[_]+)?([a-zA-Z0-9]+))*(@){1}[a-z0-9]+[.]{1}(([a-z]{2,3})|([a-z]{2,3}[.]{1}[a-z]{2,3}))$",
        "a",
    ),
    ("[]a]+[^]b]+[a\\]]+c", "a"),
    ("(?:(?:(?:){1000}){1000}){1000}x", "a"),
    ("(?:(?:(?:\\b){100}){100}){100}x", "a"),
    ("(?x)(a+) +$", "a"),
    ("(a+)(?#why)+$", "a"),
    ("(?:a|\\p{L})+$", "a"),
    ("(\\p{L}+)+$", "a"),
    ("(.|\\w|a)*\\1b", "ab"),
    ("(?(DEFINE)(?<q>a))(a|aa)+$", "a"),
    ("((((((((((a?)*)?)*)?)*)?)*)?)*)?b!", "a"),
    ("(.+)\\1$", "ab"),
    ("(?<=(a|aa)+)b$", "a"),
    ("(?i)(ß|ss|ẞ)+$", "ß"),
]

#: Patterns that must not even be compiled, because their repetitions are expanded.
LARGE = [
    "(a{1000}){1000}",
    "(?:(?:a{1000}){1000}){1000}",
    "(?:(?:(?:\\b){1000}){1000}){1000}x",
    "a{20000}",
    "a{4294967294}",
    "(?:a{65535}){65535}",
    "(\\p{L}{1000}){1000}",
    "(\\p{L}{1000})(?#why){1000}",
    "(?x)(\\p{L}{1000}) {1000}",
    "(?x)# (?#\n(\\p{L}{1000})# [\n{1 0 0 0}",
    "(?x:(\\p{L}{1000}) {1000})",
    "(\\p{L}{1000}[[:a=b:](]){1000}",
    "(\\p{L}{1000}[[:foo:]){1000}x]",
    "([[:a=b:])]\\p{L}{1000}){1000}",
    "(?:" * 60 + "\\p{L}" + "{2})" * 60,
]


class TestHostile:
    @pytest.mark.parametrize(("pattern", "string"), HOSTILE)
    def test_patterns_that_explode(self, patterns: ModuleType, pattern: str, string: str) -> None:
        """No pattern takes long, however long the string is."""
        start = time.thread_time()
        for length in (*range(48), 64, 80, 100, 150, 200, 400, 800, 1600, 10_000, 1_000_000):
            outcome(patterns, pattern, string * length + "!")
        assert time.thread_time() - start < 5

    @pytest.mark.parametrize("pattern", LARGE)
    def test_patterns_that_grow(self, patterns: ModuleType, pattern: str) -> None:
        """No pattern takes long to compile, however often a part is repeated."""
        start = time.thread_time()
        assert not outcome(patterns, pattern, "a" * 100)
        assert time.thread_time() - start < 2

    @pytest.mark.parametrize("pattern", ["[" * 250 + "]" * 250, "(" * 250 + ")" * 250, "[[a]--" * 80, "(a|" * 166])
    def test_patterns_that_are_deep(self, patterns: ModuleType, pattern: str) -> None:
        """Nested sets and groups do not take long either."""
        start = time.thread_time()
        outcome(patterns, pattern, "a" * 50)
        assert time.thread_time() - start < 2

    @pytest.mark.parametrize(
        "pattern",
        [
            pytest.param("a" * (BOTH.MAX_PATTERN + 1), id="long"),
            pytest.param("a{99999999999}", id="many"),
            pytest.param(".*(?i)a", id="late-flag"),
            pytest.param("(?-i)a", id="flag-off"),
            pytest.param("(?V1)a", id="version"),
            pytest.param("(?e)a", id="fuzzy"),
            pytest.param("a|(?R)", id="recursion"),
            pytest.param("(?<q>a)(?&q)", id="call"),
            pytest.param("(*FAIL)|a", id="verb"),
            pytest.param(".*+*", id="twice"),
            pytest.param("\\", id="open-escape"),
            pytest.param("[a", id="open-set"),
            pytest.param("(a", id="open-group"),
            pytest.param("a)", id="closed-group"),
            pytest.param("\\p{Nope}", id="property"),
            pytest.param("\\L<names>", id="list"),
        ],
    )
    def test_rejected_patterns(self, patterns: ModuleType, pattern: str) -> None:
        """A pattern that Android can't read, or that is too large, raises an error that says so."""
        with pytest.raises(patterns.PatternError, match=r"^a regular expression "):
            patterns.compile_pattern(pattern)

    def test_timeout(self, caplog: pytest.LogCaptureFixture) -> None:
        """A search that takes too long finds nothing, is logged once, and later ones get less time."""
        EXTRA.compile_pattern.cache_clear()
        EXTRA.warn_timeout.cache_clear()
        pattern = EXTRA.compile_pattern("(a|aa)+$")
        for _ in range(10):
            assert not pattern.found_in("a" * 100 + "!")
        assert [record.levelno for record in caplog.records] == [logging.WARNING]
        assert "takes too long" in caplog.text
        assert pattern.timeout == EXTRA.MIN_TIMEOUT
        assert pattern.found_in("!aa")

    def test_strings_that_are_too_long(self, patterns: ModuleType) -> None:
        """Nothing is found in strings above the maximum length."""
        assert found(patterns, "b", "a" * (patterns.MAX_STRING - 1) + "b")
        assert not found(patterns, "b", "a" * patterns.MAX_STRING + "b")

    @given(st.lists(PIECES | NESTS, min_size=1, max_size=8).map("".join), st.sampled_from([20, 60, 200, 700, 5000]))
    def test_no_pattern_takes_long(self, pattern: str, length: int) -> None:
        """Any combination of repetitions is searched for within a short time."""
        start = time.thread_time()
        for module in ENGINES.values():
            outcome(module, f"{pattern}c", "a" * length)
        assert time.thread_time() - start < 2

    def test_patterns_are_cached(self, patterns: ModuleType) -> None:
        """A pattern is compiled once, however often messages are loaded."""
        assert patterns.compile_pattern("a") is patterns.compile_pattern("a")
