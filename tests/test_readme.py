"""
Every example of the README runs, and prints what it says.
"""

import ast
import asyncio
import re
import subprocess
import sys
import tomllib
from inspect import CO_COROUTINE
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest

import exponea_async
from exponea_async import Configuration, Exponea
from exponea_async.sandbox import Sandbox

README = Path(__file__).parent.parent / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
PROMISED = re.compile(r"^ *print\(.*\)  # (.+)$", re.MULTILINE)
#: What the README's first program imports, and the later examples lean on.
IMPORTED = ("Configuration", "Customer", "Event", "Exponea")
#: What the README's sandbox has for customers.
(DEFINITIONS,) = re.findall(r"^```toml\n(.*?)^```$", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


async def run(block: str, names: dict[str, Any]) -> None:
    """Run an example as if it stood inside the block of an ``async with``."""
    code = compile(block, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = FunctionType(code, names)()
    if code.co_flags & CO_COROUTINE:
        await result


def test_the_first_program_runs_by_itself(tmp_path: Path) -> None:
    """The tour begins with a whole program, which runs in a file of its own and shows what arrived."""
    (tmp_path / "tour.py").write_text(BLOCKS[0], encoding="utf-8")

    done = subprocess.run(
        [sys.executable, "tour.py"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )

    assert done.stderr == ""
    assert re.search(r"<Receipt \S+: delivered>", done.stdout)
    names = [line.split()[0] for line in done.stdout.splitlines()[1:]]
    assert sorted(names) == ["installation", "purchase", "session_start"]
    assert "purchase {'cookie': '" in done.stdout
    assert "'registered': 'jane@example.com'" in done.stdout


@pytest.mark.parametrize("block", BLOCKS[1:], ids=lambda block: block.strip().splitlines()[-1][:40])
async def test_each_example_runs(block: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each later example runs inside a client's block, and prints what stands beside it."""
    names: dict[str, Any] = {name: getattr(exponea_async, name) for name in IMPORTED}
    async with Sandbox(definitions=tomllib.loads(DEFINITIONS)) as sandbox:
        configuration = Configuration(
            project_token="my-project",
            authorization_token="my-public-api-key",
            base_url=sandbox.url,
            storage=tmp_path / "events.sqlite",
        )
        async with Exponea(configuration) as exponea, asyncio.timeout(60):
            await run(block, {**names, "exponea": exponea, "configuration": configuration})

    printed = capsys.readouterr().out.splitlines()
    assert [line for line in printed if line in PROMISED.findall(block)] == PROMISED.findall(block)


def test_the_readme_has_examples() -> None:
    """The examples are found at all."""
    assert len(BLOCKS) > 10
