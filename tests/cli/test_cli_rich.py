"""
Tables, colors and progress on a real terminal, with and without rich.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.command_line import CommandLine, command_line
from helpers.environment import Environment
from helpers.pseudo_terminal import Screen, run_on_terminal

#: Runs the command in a process that can't import rich.
WITHOUT_RICH = """
import sys
sys.modules["rich"] = None
from exponea_async.cli import main
code = main(sys.argv[1:])
assert not [name for name in sys.modules if name.startswith("rich.")]
sys.exit(code)
"""
#: Runs the command and prints whether rich was imported.
TELL_RICH = """
import sys
from exponea_async.cli import main
code = main(sys.argv[1:])
print("rich" in sys.modules, file=sys.stderr)
sys.exit(code)
"""
#: Runs the command, and interrupts it once the journal says that something was imported.
INTERRUPTED = """
import json, os, signal, sys, threading, time
def interrupt():
    while True:
        try:
            if json.load(open("a.journal"))["place"]["offset"]:
                break
        except (OSError, ValueError):
            pass
        time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGINT)
# A shell ignores it in programs that it starts in the background, and they inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
threading.Thread(target=interrupt, daemon=True).start()
from exponea_async.cli import main
sys.exit(main(sys.argv[1:]))
"""
#: What a terminal, or rich's markup, would obey.
HOSTILE = "[bold]a[/bold] [link=file:///x]b :smile: \x1b[2J\x07\u202e\r\n[red"
SHOWN = r"[bold]a[/bold] [link=file:///x]b :smile: \x1b[2J\x07\u202e\r\n[red"
PLAIN = {"without rich": {"program": WITHOUT_RICH}, "NO_COLOR": {"NO_COLOR": "1"}, "dumb": {"TERM": "dumb"}}


@pytest.fixture
def cli(tmp_path: Path, environment: Environment) -> Iterator[CommandLine]:
    with command_line(tmp_path, environment) as cli:
        yield cli


@pytest.fixture
def queue(cli: CommandLine) -> CommandLine:
    """A queue in which an event waits whose name and customer are hostile."""
    cli.fault("status", status=503)
    assert cli.run("track", HOSTILE, "--id", f"registered={HOSTILE}").code == 0
    return cli


def squeezed(screen: Screen) -> str:
    """Return what is on the screen without blanks, since cells that are too wide continue on the next line."""
    return "".join(screen.text.split())


class TestTables:
    def test_terminal(self, queue: CommandLine) -> None:
        """On a terminal a table has colors; names of events and customers appear as they are, without any effect."""
        screen = run_on_terminal("queue", "list", columns=400)
        assert screen.code == 0
        assert screen.is_colored
        assert screen.text.count(SHOWN) == 2
        assert "\x1b[2J" not in screen.raw
        assert "\x07" not in screen.raw
        assert "\u202e" not in screen.raw

    def test_narrow_terminal(self, queue: CommandLine) -> None:
        """On a narrow terminal nothing is cut off."""
        (record,) = [json.loads(line) for line in queue.run("queue", "list", "--json").out.splitlines()]
        screen = run_on_terminal("queue", "list", columns=100)
        assert record["id"] in screen.text
        assert max(map(len, screen.text.splitlines())) <= 100

    @pytest.mark.parametrize("how", PLAIN)
    def test_plain(self, queue: CommandLine, how: str) -> None:
        """Without rich, with NO_COLOR and on a dumb terminal, the text is plain and just as harmless."""
        screen = run_on_terminal("queue", "list", **PLAIN[how])  # type: ignore[arg-type] # program or a variable
        assert screen.code == 0
        assert screen.raw.replace("\r\n", "").isprintable()
        assert screen.text.count(SHOWN) == 2

    def test_summary(self, queue: CommandLine) -> None:
        """The counts of a queue are the same in both."""
        styled, plain = run_on_terminal("queue", "stats"), run_on_terminal("queue", "stats", NO_COLOR="1")
        assert styled.is_colored
        assert not plain.is_colored
        assert squeezed(styled) == squeezed(plain)

    def test_json(self, queue: CommandLine) -> None:
        """JSON is the same on a terminal as elsewhere."""
        screen = run_on_terminal("queue", "stats", "--json")
        assert screen.raw.strip() == queue.run("queue", "stats", "--json").out.strip()

    def test_no_terminal(self, queue: CommandLine) -> None:
        """Where the result is not printed on a terminal, rich is not even imported."""
        screen = run_on_terminal("queue", "list", only_errors=True, program=TELL_RICH)
        assert screen.out.isprintable() is False  # line breaks
        assert all(line.isprintable() for line in screen.out.splitlines())
        assert screen.raw.strip() == "False"


class TestDoctor:
    def test_terminal(self, queue: CommandLine) -> None:
        """The results of checks have colors; what the platform says is not interpreted."""
        queue.sandbox.faults.clear()
        queue.fault("status", status=400, body=json.dumps({"errors": [HOSTILE]}))
        screen = run_on_terminal("doctor", columns=400)
        assert screen.code == 1
        assert screen.is_colored
        assert SHOWN in screen.text
        assert squeezed(screen).count("failed") == squeezed(run_on_terminal("doctor", NO_COLOR="1")).count("failed")


def write_lines(cli: CommandLine) -> Path:
    return cli.write("[red]a.jsonl", "".join(json.dumps({"who": "j", "at": n, "n": n}) + "\n" for n in range(600)))


OPTIONS = ("--event", "ping", "--id", "registered=who", "--timestamp", "at", "--timestamp-format", "s")


class TestProgress:
    def test_bar(self, cli: CommandLine) -> None:
        """An import shows a bar with the rate and the time left, which disappears; the result follows."""
        screen = run_on_terminal("import", write_lines(cli), *OPTIONS, only_errors=True)
        assert (screen.code, len(cli.events)) == (0, 600)
        assert "  600" in screen.out
        assert "━" in screen.text
        assert "\x1b[2K" in screen.raw

    @pytest.mark.parametrize("how", ["without rich", "NO_COLOR"])
    def test_plain(self, cli: CommandLine, how: str) -> None:
        """Otherwise the bar is plain text."""
        screen = run_on_terminal(
            "import",
            write_lines(cli),
            *OPTIONS,
            only_errors=True,
            **PLAIN[how],  # type: ignore[arg-type]
        )
        assert (screen.code, len(cli.events)) == (0, 600)
        assert "━" not in screen.text
        assert not screen.is_colored

    def test_lines_above_the_bar(self, cli: CommandLine) -> None:
        """What is printed while the bar is shown stays, and is not interpreted either."""
        cli.fault("status", status=503, times=2, body=json.dumps({"errors": ["[bold]down"]}))
        screen = run_on_terminal("import", write_lines(cli), *OPTIONS, only_errors=True)
        assert (screen.code, len(cli.events)) == (0, 600)
        assert "exponea-async: Engagement is unavailable: HTTP 503: [bold]down" in " ".join(screen.text.split())

    def test_interruption(self, cli: CommandLine) -> None:
        """After Ctrl-C the cursor is visible again, and the message about it stays."""
        cli.fault("status", status=503)
        arguments = ("import", write_lines(cli), *OPTIONS, "--journal", "a.journal")
        screen = run_on_terminal(*arguments, program=INTERRUPTED)
        assert screen.code == 130
        assert "the same command continues there" in " ".join(screen.text.split())
        assert -1 < screen.raw.rfind("\x1b[?25l") < screen.raw.rfind("\x1b[?25h")

    def test_flush(self, cli: CommandLine, environment: Environment) -> None:
        """An upload shows how much of the queue is done."""
        environment(EXPONEA_FLUSH_MODE="MANUAL")
        for _ in range(3):
            cli.run("track", "ping", "--id", "registered=jane")
        environment(EXPONEA_FLUSH_MODE=None)
        screen = run_on_terminal("flush", only_errors=True)
        assert screen.code == 0
        assert "0 of 3 events" in screen.text
        assert "delivered  3" in screen.out


def test_importing_the_program_imports_no_extra() -> None:
    """Neither rich nor shtab is imported before it is needed."""
    program = "import sys, exponea_async.cli; print([n for n in ('rich', 'shtab') if n in sys.modules])"
    screen = run_on_terminal(program=program)
    assert screen.text.split() == ["[]"]
