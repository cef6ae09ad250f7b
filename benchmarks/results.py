"""
The results of benchmarks as data: each program adds its rows to a file, if `run.py` has named one.
"""

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

#: The variable with the path of the file, to which each row is added as one line of JSON.
VARIABLE = "BENCH_ROWS"
NUMBER = re.compile(r"\+?(-?(?:\d[\d,]*)?\.?\d+) ?([^\d\s].*)?")
RATIO = re.compile(r"([+-]?\d+(?:\.\d+)?)(%?)(?: x)?")

Row = dict[str, Any]

_path: list[str] = []


def add(label: str, figure: str, ratio: str, target: str) -> None:
    """Add a row."""
    label = full_label(label)
    if file := os.environ.get(VARIABLE):
        line = json.dumps({"program": Path(sys.argv[0]).stem, **parsed(label, figure, ratio, target)})
        with Path(file).open("a", encoding="utf-8") as rows:
            rows.write(line + "\n")


def full_label(label: str) -> str:
    """Return a label preceded by those that it is indented under."""
    depth = (len(label) - len(label.lstrip(" "))) // 2
    del _path[depth:]
    _path.append(label.strip())
    return ": ".join(_path)


def parsed(label: str, figure: str, ratio: str, target: str) -> Row:
    """Return a row with its numbers; those that are not there, or more than one in a text, are None."""
    found = NUMBER.fullmatch(figure)
    share = RATIO.fullmatch(ratio)
    return {
        "label": label,
        "figure": figure,
        "value": float(found[1].replace(",", "")) if found else None,
        "unit": (found[2] or "") if found else "",
        "ratio": (float(share[1]) / 100 + 1 if share[2] else float(share[1])) if share else None,
        "target": target,
    }


def read_rows(path: Path) -> dict[str, list[Row]]:
    """Return the rows of a file that programs have written, by program."""
    programs: dict[str, list[Row]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        programs.setdefault(row.pop("program"), []).append(row)
    return programs
