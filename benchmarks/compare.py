"""
Compares two files of results that `run.py` has written: ``python benchmarks/compare.py OLD NEW``.

Where a row has a ratio to a limit that was measured in the same run, the ratios are compared, which other load affects
less than the figures.
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

#: The units of which more is better; for all others, less is.
RATES = ("/s",)

Row = dict[str, Any]
Key = tuple[str, str, int]


class Change(NamedTuple):
    """
    How a row has changed.

    Attributes:
        label: The benchmark and the row.
        old: What the row showed.
        new: What it shows now.
        factor: The new value divided by the old one; None if it cannot be said.
        verdict: Whether it is better or worse; empty if the change is below the threshold.
    """

    label: str
    old: str
    new: str
    factor: float | None
    verdict: str


def rows_of(results: dict[str, Any]) -> Iterator[tuple[Key, Row]]:
    """Return the rows with a key: the benchmark, the label, and which one of several with this label it is."""
    for program, benchmark in results["benchmarks"].items():
        seen: Counter[str] = Counter()
        for row in benchmark["rows"]:
            yield (program, row["label"], seen[row["label"]]), row
            seen[row["label"]] += 1


def compared(old: Row, new: Row) -> tuple[float, float] | None:
    """Return the two numbers to compare: ratios if both have one, else values of the same unit."""
    if old["ratio"] is not None and new["ratio"] is not None:
        return old["ratio"], new["ratio"]
    if old["value"] is not None and new["value"] is not None and old["unit"] == new["unit"]:
        return old["value"], new["value"]
    return None


def change(label: str, old: Row, new: Row, threshold: float) -> Change:
    """Return how a row has changed."""
    pair = compared(old, new)
    factor = pair[1] / pair[0] if pair and pair[0] else None
    verdict = ""
    if factor is not None and not 1 / (1 + threshold) <= factor <= 1 + threshold:
        verdict = "better" if (factor > 1) == new["unit"].startswith(RATES) else "worse"
    return Change(label, shown(old), shown(new), factor, verdict)


def shown(row: Row) -> str:
    """Return the figure of a row and its ratio."""
    return row["figure"] if row["ratio"] is None else f"{row['figure']} ({row['ratio']:.2f})"


def changes(old: dict[str, Any], new: dict[str, Any], threshold: float) -> list[Change]:
    """Return how all rows have changed; those that only one of the files has are at the end."""
    before, after = dict(rows_of(old)), dict(rows_of(new))
    found = [change(": ".join(key[:2]), before[key], row, threshold) for key, row in after.items() if key in before]
    added, removed = after.keys() - before.keys(), before.keys() - after.keys()
    found += [Change(": ".join(key[:2]), "", shown(after[key]), None, "new") for key in sorted(added)]
    found += [Change(": ".join(key[:2]), shown(before[key]), "", None, "gone") for key in sorted(removed)]
    return found


def main() -> None:
    """Print a table of the changes."""
    parser = argparse.ArgumentParser(description="Compare two files of results.")
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--threshold", type=float, default=0.15, help="mark changes by more than this share; 0.15")
    parser.add_argument("--marked", action="store_true", help="print only the rows that are marked")
    options = parser.parse_args()
    old, new = (json.loads(path.read_text(encoding="utf-8")) for path in (options.old, options.new))
    for name, each in (("old", old), ("new", new)):
        print(f"  {name}  {each['at']}, load {each['load']:.1f}, {each['cores']} cores, Python {each['python']}")
    print(f"\n  {'':<90} {'old':>26} {'new':>26} {'new/old':>8}")
    for found in changes(old, new, options.threshold):
        if found.verdict or not options.marked:
            factor = "" if found.factor is None else f"{found.factor:.2f}"
            print(f"  {found.label:<90} {found.old:>26} {found.new:>26} {factor:>8}  {found.verdict}".rstrip())


if __name__ == "__main__":
    main()
