"""
Regular expressions from campaigns, searched for in arbitrary strings, in bounded time.

Campaigns write them for Android; syntax that Python lacks, such as ``(?<name>...)``, is translated. They are
case-sensitive and know Unicode. Neither the pattern nor the string can be trusted, and Python's own ``re`` can't be
interrupted. Therefore two engines are used:

- ``re`` runs if the number of its steps has a small upper bound, which is estimated from the pattern and the length of
  the string: the number of ways to distribute the string over the repetitions, tried at each position. A repetition of
  something that can itself match in several ways, such as ``(a+)+`` or ``(a|ab)*``, allows a few characters only.
- ``regex``, an extra, runs for all others. It stops after a timeout, which counts as not found. It is not used for all,
  because it is many times slower at what ``re`` does in a microsecond. If it is not installed, nothing is found in
  such strings, which is logged.
"""

import logging
import math
import re
import warnings
from bisect import bisect_left
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from typing import Any

try:
    import regex  # type: ignore[import-untyped]
except ImportError:
    regex = None

LOG = logging.getLogger("exponea_async")

#: Maximum length of a pattern, and of a string that is searched.
MAX_PATTERN, MAX_STRING = 500, 16_384
#: Maximum number of steps of `re`: a few milliseconds at worst if `regex` is installed, and tens of them if not.
MAX_STEPS, MAX_STEPS_ALONE = 200_000, 2_000_000
#: Seconds for one search: a thousand times what usual patterns need, and no noticeable delay of the event loop.
TIMEOUT = 0.02
#: Seconds for one search of a pattern that has timed out again and again, so that many of them do not add up.
MIN_TIMEOUT = 0.001
#: Maximum size of a pattern for `regex`, in tokens. It expands repetitions when it compiles, all of
#: ``(a{1000}){1000}``, and has no timeout there; so many tokens take some milliseconds and a few megabytes.
MAX_TOKENS = 10_000

_INSTALL = "pip install 'exponea-async[html]'"

_ANYTHING = ([".", "*"], [".", "*?"])
_NAMED_SET = r"\[:\^?(?:alnum|alpha|blank|cntrl|digit|graph|lower|print|punct|space|upper|word|xdigit):\]"
#: The tokens of a pattern: escapes, sets, repetitions, comments, starts of groups, single characters.
_TOKEN = re.compile(
    r"\\[pPN]\{[^{}]*\}|\\k<\w+>|\\."
    rf"|\[\^?\]?(?:{_NAMED_SET}|\\.|[^\]\\])*\]"
    r"|(?:[*+?]|\{(?:[0-9]+,?[0-9]*|,[0-9]*)\})[?+]?"
    r"|\(\?#[^)]*\)|\(\?[aimsux]+\)|\(\?P=\w+\)|\(\?\(\w+\)|\((?:\?(?:[aimsux-]*:|[=!>]|<[=!]|P?<\w+>))?"
    r"|.",
    re.DOTALL,
)
_REPETITION = re.compile(r"([*+?])|\{([0-9]*)(,?)([0-9]*)\}")
_FLAGS = re.compile(r"\(\?[a-z]+\)")
_VERBOSE = re.compile(r"\(\?[a-z]*x[a-z-]*[:)]")
#: What only `regex` supports, or reads as it is meant.
_NEEDS_REGEX = re.compile(rf"\\[pPhRX]|{_NAMED_SET}")
#: The content of a set; the second group is a bracket that starts nothing.
_IN_SET = re.compile(rf"({_NAMED_SET}|\\.)|(\[)", re.DOTALL)
# Android's ``\z`` is Python's ``\Z``, while its ``\Z`` allows a line break after it. A brace that does not start a
# repetition is literal, though `regex` may read it as a tolerance for errors.
_TRANSLATIONS = {"{": "\\{", "\\z": "\\Z", "\\Z": "(?=\\n?\\Z)"}

_Search = Callable[[str], Any]


class PatternError(ValueError):
    """A pattern can't be read, or must not be run."""


class Pattern:
    """
    A regular expression whose searches take bounded time. Use `compile_pattern` to create one.

    Args:
        source: The pattern as it was written, for the log.
        fast_search: The search with `re`, which can't be interrupted.
        max_fast: Maximum length of a string for it.
        slow_search: The search with `regex`, which takes a timeout, or None.

    Attributes:
        timeout: Seconds after which `slow_search` stops.
    """

    __slots__ = ("_fast_search", "_max_fast", "_slow_search", "_source", "timeout")

    def __init__(
        self, source: str, fast_search: _Search, max_fast: int, slow_search: Callable[..., Any] | None
    ) -> None:
        self._source = source
        self._fast_search = fast_search
        self._max_fast = max_fast
        self._slow_search = slow_search
        self.timeout = TIMEOUT

    def found_in(self, string: str) -> bool:
        """Return whether the pattern matches anywhere in a string, as far as that is known within the timeout."""
        if len(string) <= self._max_fast:
            return self._fast_search(string) is not None
        return len(string) <= MAX_STRING and self._found_before_timeout(string)

    def _found_before_timeout(self, string: str) -> bool:
        if self._slow_search is None:
            if regex is None:
                warn_extra_missing(self._source)
            return False
        try:
            return self._slow_search(string, timeout=self.timeout) is not None
        except TimeoutError:
            warn_timeout(self._source)
            self.timeout = max(self.timeout / 2, MIN_TIMEOUT)
            return False


@lru_cache(maxsize=512)
def compile_pattern(source: str) -> Pattern:
    """
    Compile a regular expression.

    The result is cached, because messages are loaded again and again with the same patterns.

    Raises:
        PatternError: It can't be read, is too large, or may take too long for any string.
    """
    if len(source) > MAX_PATTERN:
        raise PatternError(f"a regular expression has more than {MAX_PATTERN} characters")
    translated = "".join(map(_translate, _TOKEN.findall(source)))
    tokens = [part for part in _TOKEN.findall(translated) if not part.startswith("(?#")]
    _check_groups(tokens)
    slow_search = _compile_slow(translated, tokens)
    try:
        fast_search, max_fast = _compile_fast(translated, tokens)
    except PatternError:
        if slow_search is None:
            if regex is None and _NEEDS_REGEX.search(source):
                warn_extra_missing(source)
            raise
        return Pattern(source, slow_search, -1, slow_search)
    if max_fast < 0 and slow_search is None:
        if regex is None:
            warn_extra_missing(source)
        raise PatternError("a regular expression may take too long")
    return Pattern(source, fast_search, max_fast, slow_search)


# The caches of these two make each pattern logged only once, however often messages are loaded.
@lru_cache(maxsize=1000)
def warn_extra_missing(source: str) -> None:
    """Log that a pattern needs the extra."""
    LOG.warning("The regular expression %r needs an extra to be found: %s", source, _INSTALL)


@lru_cache(maxsize=1000)
def warn_timeout(source: str) -> None:
    """Log that a search has timed out."""
    LOG.warning("The regular expression %r takes too long, and counts as not found.", source)


def _translate(part: str) -> str:
    if part.startswith("\\k<"):
        return f"(?P={part[3:-1]})"
    if part.startswith("(?<") and part.endswith(">"):
        return f"(?P<{part[3:]}"
    if part[0] == "[" and len(part) > 1:  # `regex` must not see more sets in a set than `_TOKEN` does
        return part[0] + _IN_SET.sub(lambda found: found[1] or "\\[", part[1:])
    return _TRANSLATIONS.get(part, part)


def _check_groups(tokens: list[str]) -> None:
    """Reject what `regex` supports but Android does not: recursion, which uses up memory, and misplaced flags."""
    has_begun = False
    for part, following in pairwise([*tokens, ""]):
        if part == "(" and _REPETITION.match(following):
            raise PatternError("a regular expression can't be read: an unknown kind of group")
        is_flags = _FLAGS.fullmatch(part) is not None
        if is_flags and has_begun:
            raise PatternError("a regular expression can't be read: flags after its beginning")
        has_begun = not is_flags


def _compile_slow(translated: str, tokens: list[str]) -> Callable[..., Any] | None:
    """Return the search that takes a timeout, or None."""
    if regex is None or _expanded_size(tokens) > MAX_TOKENS:
        return None
    if "{" in translated and _VERBOSE.search(translated):  # among spaces and comments, anything may be repeated
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            search: Callable[..., Any] = regex.compile(translated, regex.VERSION0, cache_pattern=False).search
            return search
    except (regex.error, ValueError, LookupError, OverflowError, RecursionError):
        return None


def _compile_fast(translated: str, tokens: list[str]) -> tuple[_Search, int]:
    """Return the search that can't be interrupted, and the maximum length of a string for it."""
    if any(part[0] == "[" and re.search(_NAMED_SET, part) for part in tokens):
        raise PatternError(f"a regular expression can't be read: named sets need {_INSTALL}")
    limit = MAX_STEPS_ALONE if regex is None else MAX_STEPS
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about syntax that later versions of Python may read differently
            search = re.compile(translated).search
            if _VERBOSE.search(translated):  # among spaces and comments, it is unclear what a repetition applies to
                return search, -1
            tokens = _without_anything_at_the_ends(tokens)
            search = re.compile("".join(tokens)).search
        max_length = bisect_left(range(MAX_STRING + 1), 1, key=lambda length: _max_steps(tokens, length) > limit) - 1
    except (re.error, OverflowError, RecursionError) as error:
        raise PatternError(f"a regular expression can't be read: {error}") from error
    return search, max_length


def _without_anything_at_the_ends(tokens: list[str]) -> list[str]:
    """Remove ``.*`` from both ends: a search finds the same without it, and much faster."""
    tokens = tokens[:]
    while tokens[:2] in _ANYTHING:
        del tokens[:2]
    while tokens[-2:] in _ANYTHING:
        del tokens[-2:]
    return tokens


def _starts_group(part: str) -> bool:
    return part[0] == "(" and (part[-1] != ")" or part.startswith("(?("))


def _expanded_size(tokens: list[str]) -> int:
    """Return the maximum number of tokens of a pattern whose mandatory repetitions are expanded."""
    size, last, outer = 0, 0, []
    for part in tokens:
        if _starts_group(part):
            outer.append(size)
            size = 1
        elif part == ")":
            last = size
            size += outer.pop() if outer else 0
        elif repetition := _REPETITION.match(part):
            minimum = max(int(repetition[2] or 0), 1)
            size += last * (minimum - 1)
            last *= minimum
        else:
            last = 1
            size += 1
    return size + sum(outer)


def _max_steps(tokens: list[str], length: int) -> float:
    """Return the maximum number of steps of a search in a string of a length."""
    steps = _count_group(tokens[::-1], length)[1]
    return steps + length if tokens[:1] == ["^"] and "|" not in tokens else steps * (length + 1)


def _count_group(tokens: list[str], length: int) -> tuple[float, float]:
    """
    Return in how many ways a group can match at one position at most, and how many steps it takes to try them all.

    Takes the tokens of the group, including its closing bracket, from the end of the list.
    """
    ways, steps, branches = 1.0, 1.0, 1
    while tokens and (part := tokens.pop()) != ")":
        branches += part == "|"
        # A mandatory character is a fifth of a step: `re` only returns to repetitions and groups.
        inner, cost = 1.0, 0.2
        if part.startswith("(?("):  # its branches depend on what was found before
            return math.inf, math.inf
        if _starts_group(part):
            inner, cost = _count_group(tokens, length)
        elif part.startswith("(?P=") or (part[0] == "\\" and part[1:].isdigit()):
            cost += length  # what the group found before may be as long as the string
        if repetition := _REPETITION.match(tokens[-1]) if tokens else None:
            tokens.pop()
            inner, cost = _count_repetition(repetition, inner, cost, length)
        steps += ways * cost
        ways *= inner
    return ways * branches, steps


def _count_repetition(repetition: re.Match[str], ways: float, steps: float, length: int) -> tuple[float, float]:
    sign, minimum, comma, maximum = repetition.groups()
    low = int(minimum or 0) if sign is None else int(sign == "+")
    high = 1 if sign == "?" else int(maximum) if maximum else math.inf if sign or comma else low
    # Beyond the minimum, each round takes a character.
    rounds = min(high, low + length)
    if rounds * math.log2(ways) > 60:
        return math.inf, math.inf
    return (rounds - low + 1) * ways**rounds, max(rounds, 1) * ways**rounds * steps
