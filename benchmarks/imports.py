"""
The time to import the package, compared with importing its dependencies, and to create a client.
"""

import os
import statistics
import subprocess
import sys

import bench

ROUNDS = bench.size(15, 1)
DEPENDENCIES = "import aiohttp, aiosqlite, attrs, platformdirs, tenacity"
NAMES = "from exponea_async import Configuration, Event, Exponea"
CLIENT = f"{NAMES}; Exponea(Configuration(project_token='token', authorization_token='key', storage='/nowhere/queue'))"
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
    statements = (DEPENDENCIES, "import exponea_async", NAMES, CLIENT)
    rounds = [[timed(each) for each in statements] for _ in range(ROUNDS)]
    dependencies, package, names, client = (statistics.median(each) for each in zip(*rounds, strict=True))
    bench.row(DEPENDENCIES, f"{dependencies * 1000:.0f} ms")
    bench.row(
        "  import exponea_async", f"{package * 1000:.0f} ms", f"{package / dependencies:.2f}", "target under 1.15"
    )
    bench.row(f"  {NAMES}", f"{names * 1000:.0f} ms", f"{names / dependencies:.2f}")
    bench.row("  the same, and create a client", f"{client * 1000:.0f} ms", f"{client / dependencies:.2f}")


if __name__ == "__main__":
    measure()
