"""
The examples of task queues run as users run them.
"""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.redis_server import ROOT


@pytest.mark.parametrize("name", ["arq", "saq", "taskiq", "celery"])
async def test_example(request: pytest.FixtureRequest, tmp_path: Path, name: str) -> None:
    """An example ends by itself, and each job is about the customer for whom it was enqueued."""
    redis = {"REDIS_URL": request.getfixturevalue("redis_url")} if name in ("arq", "saq") else {}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **redis}
    command = [sys.executable, str(ROOT / "examples" / f"{name}_worker.py")]

    def run() -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
        )

    done = await asyncio.to_thread(run)

    assert (done.returncode, done.stderr) == (0, "")
    # A queue may run a job again whose worker was slow.
    assert set(done.stdout.splitlines()) == {
        "shipped order-1 {'registered': 'jane@example.com'}",
        "shipped order-2 {'registered': 'joe@example.com'}",
    }
