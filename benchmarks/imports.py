"""
The time to import the package, compared with importing its dependencies.
"""

import os
import statistics
import subprocess
import sys

import bench

ROUNDS = 15
DEPENDENCIES = "import aiohttp, aiosqlite, attrs, platformdirs, tenacity"
TIMED = "import time; started = time.perf_counter(); {}; print(time.perf_counter() - started)"


def timed(statement: str) -> float:
    """Return the seconds that an import takes in a new interpreter."""
    command = [sys.executable, "-c", TIMED.format(statement)]
    # With compiled files, as an installed package has them.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return float(subprocess.run(command, capture_output=True, check=True, text=True, env=environment).stdout)


def measure() -> None:
    """Measure and print the results."""
    bench.headline(f"imports: each in a new interpreter; medians of {ROUNDS}")
    timed("import exponea_async")
    pairs = [(timed(DEPENDENCIES), timed("import exponea_async")) for _ in range(ROUNDS)]
    dependencies = statistics.median(pair[0] for pair in pairs)
    ours = statistics.median(pair[1] for pair in pairs)
    bench.row(DEPENDENCIES, f"{dependencies * 1000:.0f} ms")
    bench.row("  import exponea_async", f"{ours * 1000:.0f} ms", f"{ours / dependencies:.2f}", "target under 1.30")


if __name__ == "__main__":
    measure()
