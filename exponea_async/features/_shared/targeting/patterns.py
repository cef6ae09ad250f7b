"""
Regular expressions from campaigns, looked for in texts from anywhere.

Campaigns write them for Android; what Python spells otherwise, such as ``(?<name>...)``, is respelled. They tell upper
from lower case, and know Unicode. Neither pattern nor text is to be trusted, and Python's own ``re`` can't be stopped.
So there are two engines:

- ``re`` runs where a bound of its steps, computed from the pattern and the length of the text, is small: how many ways
  there are to spread the text over the repetitions, each tried out from every place in the text. A repetition round
  something that can itself match in several ways, such as ``(a+)+`` or ``(a|ab)*``, is good for a few characters only.
- ``regex``, an extra, runs for all others. It gives up when its time is over, and there is no match. It is not used for
  all since it is many times as slow on what ``re`` does in a microsecond. Where it isn't installed nothing is found in
  these texts, and the log says so.
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

#: Characters of a pattern, and of a text that one is looked for in.
MAX_PATTERN, MAX_TEXT = 500, 16_384
#: What `re` may be given to do: a few milliseconds at worst, where the other engine can take over, or tens of them.
MAX_STEPS, MAX_STEPS_ALONE = 200_000, 2_000_000
#: Seconds for one search: a thousand times what an honest one needs, and a delay that no event loop suffers from.
BUDGET = 0.02
#: Seconds for one search of a pattern that has run out of time again and again: many of them must not add up.
LEAST_BUDGET = 0.001
#: How large `regex` may compile a pattern, in parts. It writes out what must be repeated, all of ``(a{1000}){1000}``,
#: and no budget holds there; so many parts take it some milliseconds and a few megabytes.
MAX_PARTS = 10_000

_NEEDED = "pip install 'exponea-async[html]'"

_ANYTHING = ([".", "*"], [".", "*?"])
_NAMED_SET = r"\[:\^?(?:alnum|alpha|blank|cntrl|digit|graph|lower|print|punct|space|upper|word|xdigit):\]"
#: What a pattern consists of: escapes, sets, repetitions, comments, beginnings of groups, single characters.
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
#: What only `regex` knows, or reads as it is meant.
_BEYOND = re.compile(rf"\\[pPhRX]|{_NAMED_SET}")
#: What stands in a set, with a bracket that opens nothing in the second group.
_IN_SET = re.compile(rf"({_NAMED_SET}|\\.)|(\[)", re.DOTALL)
# Android's ``\z`` is Python's ``\Z``, while its ``\Z`` lets a line break follow. A brace that begins no repetition is
# one, though `regex` may read it as a tolerance for errors.
_SPELLINGS = {"{": "\\{", "\\z": "\\Z", "\\Z": "(?=\\n?\\Z)"}

_Search = Callable[[str], Any]


class PatternError(ValueError):
    """A pattern can't be read, or may not be run."""


class Pattern:
    """
    A regular expression that takes bounded time; made by `compile_pattern`.

    Args:
        source: As it was written, for the log.
        quick: The search without a limit of time.
        longest: The longest text which that is good for.
        patient: The search that takes a limit of time, or None.
    """

    __slots__ = ("_budget", "_longest", "_patient", "_quick", "_source")

    def __init__(self, source: str, quick: _Search, longest: int, patient: Callable[..., Any] | None) -> None:
        self._source = source
        self._quick = quick
        self._longest = longest
        self._patient = patient
        self._budget = BUDGET

    def found_in(self, text: str) -> bool:
        """Tell whether it matches somewhere in a text, as far as that can be told in time."""
        if len(text) <= self._longest:
            return self._quick(text) is not None
        return len(text) <= MAX_TEXT and self._found_in_time(text)

    def _found_in_time(self, text: str) -> bool:
        if self._patient is None:
            if regex is None:
                _advise(self._source)
            return False
        try:
            return self._patient(text, timeout=self._budget) is not None
        except TimeoutError:
            _tell_of_timeout(self._source)
            self._budget = max(self._budget / 2, LEAST_BUDGET)
            return False


@lru_cache(maxsize=512)
def compile_pattern(text: str) -> Pattern:
    """
    Read a regular expression.

    Messages come again and again with the same ones, hence the cache.

    Raises:
        PatternError: It can't be read, is too large, or may take too long for any text.
    """
    if len(text) > MAX_PATTERN:
        raise PatternError(f"a regular expression has more than {MAX_PATTERN} characters")
    spelled = "".join(map(_respelled, _TOKEN.findall(text)))
    tokens = [token for token in _TOKEN.findall(spelled) if not token.startswith("(?#")]
    _check_groups(tokens)
    patient = _patient(spelled, tokens)
    try:
        quick, longest = _quick(spelled, tokens)
    except PatternError:
        if patient is None:
            if regex is None and _BEYOND.search(text):
                _advise(text)
            raise
        return Pattern(text, patient, -1, patient)
    if longest < 0 and patient is None:
        if regex is None:
            _advise(text)
        raise PatternError("a regular expression may take too long")
    return Pattern(text, quick, longest, patient)


# The caches of these two are what makes them tell each pattern only once, however often messages are loaded.
@lru_cache(maxsize=1000)
def _advise(source: str) -> None:
    LOG.warning("The regular expression %r needs an extra to be found: %s", source, _NEEDED)


@lru_cache(maxsize=1000)
def _tell_of_timeout(source: str) -> None:
    LOG.warning("The regular expression %r takes too long, and counts as not found.", source)


def _respelled(token: str) -> str:
    if token.startswith("\\k<"):
        return f"(?P={token[3:-1]})"
    if token.startswith("(?<") and token.endswith(">"):
        return f"(?P<{token[3:]}"
    if token[0] == "[" and len(token) > 1:  # `regex` shall not see more sets in a set than `_TOKEN` does
        return token[0] + _IN_SET.sub(lambda found: found[1] or "\\[", token[1:])
    return _SPELLINGS.get(token, token)


def _check_groups(tokens: list[str]) -> None:
    """Refuse what `regex` knows beyond Android, such as recursion, which eats memory, and flags that it misplaces."""
    has_begun = False
    for part, following in pairwise([*tokens, ""]):
        if part == "(" and _REPETITION.match(following):
            raise PatternError("a regular expression can't be read: an unknown kind of group")
        is_flags = _FLAGS.fullmatch(part) is not None
        if is_flags and has_begun:
            raise PatternError("a regular expression can't be read: flags after its beginning")
        has_begun = not is_flags


def _patient(spelled: str, tokens: list[str]) -> Callable[..., Any] | None:
    """Make the search that can be stopped; None if there is none."""
    if regex is None or _parts(tokens) > MAX_PARTS:
        return None
    if "{" in spelled and _VERBOSE.search(spelled):  # among blanks and comments anything may be repeated
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            search: Callable[..., Any] = regex.compile(spelled, regex.VERSION0, cache_pattern=False).search
            return search
    except (regex.error, ValueError, LookupError, OverflowError, RecursionError):
        return None


def _quick(spelled: str, tokens: list[str]) -> tuple[_Search, int]:
    """Make the search that can't be stopped, and tell the longest text that it is good for."""
    if any(part[0] == "[" and re.search(_NAMED_SET, part) for part in tokens):
        raise PatternError(f"a regular expression can't be read: named sets take {_NEEDED}")
    limit = MAX_STEPS_ALONE if regex is None else MAX_STEPS
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what a later Python may read otherwise
            search = re.compile(spelled).search
            if _VERBOSE.search(spelled):  # what a repetition belongs to is not seen among blanks and comments
                return search, -1
            tokens = _shortened(tokens)
            search = re.compile("".join(tokens)).search
        longest = bisect_left(range(MAX_TEXT + 1), 1, key=lambda length: _steps(tokens, length) > limit) - 1
    except (re.error, OverflowError, RecursionError) as error:
        raise PatternError(f"a regular expression can't be read: {error}") from error
    return search, longest


def _shortened(tokens: list[str]) -> list[str]:
    """Take away what makes no difference at the ends: a search finds the same without, and much faster."""
    tokens = tokens[:]
    while tokens[:2] in _ANYTHING:
        del tokens[:2]
    while tokens[-2:] in _ANYTHING:
        del tokens[-2:]
    return tokens


def _opens(token: str) -> bool:
    return token[0] == "(" and (token[-1] != ")" or token.startswith("(?("))


def _parts(tokens: list[str]) -> int:
    """Tell how many parts a pattern has at most when what must be repeated is written out."""
    size, last, outer = 0, 0, []
    for part in tokens:
        if _opens(part):
            outer.append(size)
            size = 1
        elif part == ")":
            last = size
            size += outer.pop() if outer else 0
        elif repetition := _REPETITION.match(part):
            least = max(int(repetition[2] or 0), 1)
            size += last * (least - 1)
            last *= least
        else:
            last = 1
            size += 1
    return size + sum(outer)


def _steps(tokens: list[str], length: int) -> float:
    """Tell how many steps a search takes at most in a text of a length."""
    steps = _bound(tokens[::-1], length)[1]
    return steps + length if tokens[:1] == ["^"] and "|" not in tokens else steps * (length + 1)


def _bound(tokens: list[str], length: int) -> tuple[float, float]:
    """
    Tell in how many ways a group can match at a place at most, and how many steps it takes to try them all.

    It takes the group's tokens, the bracket that closes it too, from the end of the list.
    """
    ways, steps, branches = 1.0, 1.0, 1
    while tokens and (part := tokens.pop()) != ")":
        branches += part == "|"
        # A character that must be there is a fifth of a step: only repetitions and groups are places to come back to.
        inner, cost = 1.0, 0.2
        if part.startswith("(?("):  # whose branches depend on what was found
            return math.inf, math.inf
        if _opens(part):
            inner, cost = _bound(tokens, length)
        elif part.startswith("(?P=") or (part[0] == "\\" and part[1:].isdigit()):
            cost += length  # what a group found before may be as long as the text
        if repetition := _REPETITION.match(tokens[-1]) if tokens else None:
            tokens.pop()
            inner, cost = _repeated(repetition, inner, cost, length)
        steps += ways * cost
        ways *= inner
    return ways * branches, steps


def _repeated(repetition: re.Match[str], ways: float, steps: float, length: int) -> tuple[float, float]:
    sign, least, comma, most = repetition.groups()
    low = int(least or 0) if sign is None else int(sign == "+")
    high = 1 if sign == "?" else int(most) if most else math.inf if sign or comma else low
    # Beyond the least number each round takes a character.
    rounds = min(high, low + length)
    if rounds * math.log2(ways) > 60:
        return math.inf, math.inf
    return (rounds - low + 1) * ways**rounds, max(rounds, 1) * ways**rounds * steps
