"""
Runs all benchmarks, or those that are named, one after the other, and writes the results as JSON.

`compare.py` compares two of these files. A benchmark that fails is named at the end, and the others run all the same.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import results

FOLDER = Path(__file__).parent
#: In the order in which they run; postgres_bloat.py takes too long to be one of them.
PROGRAMS: tuple[str, ...] = ("track", "drain", "loop", "memory", "imports", "devices")
PROGRAMS += ("messages", "asgi", "latency", "postgres", "peers")
#: The arguments of each extent, where they are not just the option.
ARGUMENTS = {
    ("peers", ""): ["--quick"],
    ("peers", "--quick"): ["--quick", "--only", "ours", "--tables", "1"],
    ("peers", "--long"): [],
}


def run(program: str, arguments: list[str], rows: Path) -> dict[str, Any]:
    """Run one program, whose output is printed; return its rows, how long it took, and its exit status."""
    rows.unlink(missing_ok=True)
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, f"{FOLDER.name}/{program}.py", *arguments],
        cwd=FOLDER.parent,
        env={**os.environ, results.VARIABLE: str(rows)},
        check=False,
    )
    found = results.read_rows(rows).get(program, []) if rows.exists() else []
    return {"seconds": round(time.monotonic() - started, 1), "status": done.returncode, "rows": found}


def machine() -> dict[str, Any]:
    """Return what the results depend on."""
    return {
        "at": time.strftime("%Y-%m-%d %H:%M:%S"),
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
    }


def main() -> None:
    """Run the programs and write the results."""
    parser = argparse.ArgumentParser(description="Run benchmarks, and write the results as JSON.")
    parser.add_argument("programs", nargs="*", help=f"by default {', '.join(PROGRAMS)}")
    extents = parser.add_mutually_exclusive_group()
    extents.add_argument("--quick", action="store_true", help="only show that the programs work")
    extents.add_argument("--long", action="store_true", help="measure more")
    parser.add_argument("--json", type=Path, help="the file; by default build/bench/<date>.json")
    options = parser.parse_args()
    path = (options.json or FOLDER.parent / "build" / "bench" / time.strftime("%Y-%m-%d-%H%M%S.json")).resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    extent = "--quick" if options.quick else "--long" if options.long else ""
    written: dict[str, Any] = {**machine(), "extent": extent, "benchmarks": {}}
    with tempfile.TemporaryDirectory(prefix="exponea-bench-") as folder:
        for program in options.programs or PROGRAMS:
            arguments = ARGUMENTS.get((program, extent), [extent] if extent else [])
            written["benchmarks"][program] = run(program, arguments, Path(folder) / "rows")
            # After each, so that an interrupted run leaves what it has measured.
            path.write_text(json.dumps(written, indent=1), encoding="utf-8")
    failed = [name for name, each in written["benchmarks"].items() if each["status"]]
    total = sum(each["seconds"] for each in written["benchmarks"].values())
    print(f"\n{total:.0f} s in all; the results are in {path}")
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
