"""
Runs of pytest in a process of its own, as the tests of an application, with the package's plugin.
"""

import re
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

from attrs import frozen


@frozen
class PytestRun:
    """
    A run of pytest.

    Attributes:
        outcomes: The number of tests by outcome, such as ``{"passed": 2}``.
        output: What it has printed.
    """

    outcomes: Mapping[str, int]
    output: str


def run_pytest(folder: Path, source: str, *options: str) -> PytestRun:
    """
    Run the tests of one module. Warnings are errors.

    Args:
        folder: The folder of the module, which is written.
        source: The module; common indentation is removed. Empty where the folder has modules already.
        options: Further options of pytest.
    """
    if source:
        (folder / "test_application.py").write_text(textwrap.dedent(source), encoding="utf-8")
    # It warns where that is not set, and pytest warns of the setting where pytest-asyncio is not there.
    scope = "" if "no:asyncio" in options else "asyncio_default_fixture_loop_scope = function\n"
    (folder / "pytest.ini").write_text(f"[pytest]\naddopts = --strict-markers\n{scope}", encoding="utf-8")
    # The plugin is named, so that a source tree is enough. Where it is installed, too, it is the same one.
    plugins = ["-p", "pytest_exponea_async", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", *plugins, *options],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    output = done.stdout + done.stderr
    counts = re.findall(r"(\d+) (passed|failed|error|skipped|warning|deselected)", output.rpartition("\n")[0][-300:])
    return PytestRun({outcome: int(count) for count, outcome in counts}, output)
