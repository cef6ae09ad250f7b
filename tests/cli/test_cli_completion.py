"""
The command ``completion``, in real shells.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.command_line import run

#: Completes the words that are given, and prints the possibilities, one per line.
BASH = """
source "$1"
function_name=$(complete -p exponea-async | sed 's/.*-F \\([^ ]*\\).*/\\1/')
shift
COMP_WORDS=("$@")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
COMP_LINE="${COMP_WORDS[*]}"
COMP_POINT=${#COMP_LINE}
$function_name exponea-async "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""
needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """The script for bash, in a folder with a file."""
    path = tmp_path / "completion.bash"
    path.write_text(run("completion", "bash").out)
    (tmp_path / "orders.csv").touch()
    return path


def complete(script: Path, *words: str) -> set[str]:
    """Return what bash offers for the last of the words."""
    command = ["bash", "--norc", "-c", BASH, "bash", str(script), "exponea-async", *words]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=script.parent)
    assert result.stderr == ""
    return {word.strip() for word in result.stdout.splitlines() if word}


@needs_bash
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("fl",), {"flush"}),
        (("queue", "re"), {"revive", "retarget"}),
        (("queue", "purge", "--wai"), {"--waiting"}),
        (("import", "--timestamp-f"), {"--timestamp-format", "--timestamp-format-column"}),
        (("import", "--format", ""), {"jsonl", "csv", "columns"}),
        (("import", "--journal", "ord"), {"orders.csv"}),
        (("flush", "--storage", "ord"), {"orders.csv"}),
        (("completion", "f"), {"fish"}),
        (("track", "--authorization-t"), set()),
    ],
)
def test_bash(script: Path, words: tuple[str, ...], expected: set[str]) -> None:
    """Bash completes commands, actions, options, their choices and files; no option for a key is offered."""
    assert complete(script, *words) == expected


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_are_valid(shell: str, tmp_path: Path) -> None:
    """Each script names every command, and the shell finds no mistake in it."""
    result = run("completion", shell)
    assert (result.code, result.err) == (0, "")
    assert all(word in result.out for word in ("doctor", "drop-project", "dry-run", "completion"))
    if shutil.which(shell):
        path = tmp_path / "script"
        path.write_text(result.out)
        subprocess.run([shell, "-n", path], check=True, capture_output=True)


@pytest.mark.skipif(shutil.which("fish") is None, reason="there is no fish")
def test_fish(tmp_path: Path) -> None:
    """Fish completes commands and options."""
    path = tmp_path / "script.fish"
    path.write_text(run("completion", "fish").out)
    command = f"source {path}; complete -C 'exponea-async queue rev'"
    result = subprocess.run(
        ["fish", "--no-config", "-c", command], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert result.stdout.startswith("revive")


def test_unknown_shell() -> None:
    """Another shell is wrong usage."""
    assert run("completion", "tcsh").code == 2


def test_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package of the extra, the command says what to install."""
    monkeypatch.setitem(sys.modules, "shtab", None)
    result = run("completion", "bash")
    assert (result.code, "pip install 'exponea-async[cli]'" in result.err) == (2, True)
