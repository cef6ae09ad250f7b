"""
The command ``import``.
"""

import asyncio
import json
import os
import signal
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from helpers.command_line import PROJECT, CommandLine, command_line, finish, wait_until
from helpers.environment import Environment, SetConstants

from exponea_async import Configuration, Exponea
from exponea_async.cli.importer import job
from exponea_async.cli.importer.reader import MAX_LINE_BYTES, Line, LineReader
from exponea_async.cli.importer.rejects import RejectsFile

COLUMNS = """\
 id    date  count  amount
 00001 19970101  1   11.77
 00001 19970101  1   11.77
 00002 19970112  5   77.00
"""
COLUMN_OPTIONS = (
    *("--event", "payment", "--id", "registered=id", "--timestamp", "date", "--timestamp-format", "%Y%m%d"),
    *("--property", "brutto=amount:number", "--property", "cds=count:integer", "--line-number", "line"),
)
LINE_OPTIONS = ("--event", "ping", "--id", "registered=who", "--timestamp", "at", "--property", "n=n")


@pytest.fixture
def cli(tmp_path: Path, environment: Environment) -> Iterator[CommandLine]:
    with command_line(tmp_path, environment) as cli:
        yield cli


def lines(count: int) -> str:
    return "".join(json.dumps({"who": f"c{n % 50}", "at": 1_700_000_000 + n, "n": n}) + "\n" for n in range(count))


def rejects(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


class TestFormats:
    def test_columns(self, cli: CommandLine) -> None:
        """Columns become ids, timestamps and properties; line numbers keep equal lines apart."""
        result = cli.run("import", cli.write("cds.txt", COLUMNS), *COLUMN_OPTIONS)
        assert result.code == 0
        facts = dict(line.split() for line in result.out.splitlines())
        assert (facts["lines"], facts["delivered"], facts["bad"]) == ("3", "3", "0")
        first = cli.events[0]
        assert (first.event_type, first.customer_ids["registered"], first.timestamp) == (
            "payment",
            "00001",
            852_076_800.0,
        )
        assert cli.properties("brutto") == [11.77, 11.77, 77.0]
        assert cli.properties("cds") == [1, 1, 5]
        assert cli.properties("line") == [2, 3, 4]

    def test_columns_without_header(self, cli: CommandLine) -> None:
        """Columns can be named, and the first lines skipped."""
        path = cli.write("cds.txt", COLUMNS)
        more = ("--columns", "id,date,count,amount", "--skip-lines", "1")
        assert cli.run("import", path, *COLUMN_OPTIONS, *more).code == 0
        assert cli.properties("line") == [2, 3, 4]

    def test_equal_lines_are_duplicates(self, cli: CommandLine) -> None:
        """Without line numbers the platform stores equal lines as one event."""
        path = cli.write("cds.txt", COLUMNS)
        assert cli.run("import", path, *COLUMN_OPTIONS[:-2]).code == 0
        assert len(cli.events) == 2

    def test_csv(self, cli: CommandLine) -> None:
        """CSV may contain a byte-order mark, quoted line breaks and typed values."""
        content = (
            '\ufeffmail,when,what,"a, b:c",amount\r\n'
            'j@x.com,2024-05-01T10:00:00+02:00,"two\r\nlines",1,"1.50"\r\n'
            "\r\n"
            "k@x.com,2024-05-01 10:00,plain,,\r\n"
        )
        options = ("--event-column", "what", "--id", "registered=mail", "--timestamp", "when", "--line-number", "line")
        properties = ("--property", "x=a, b:c", "--property", "y=amount:number", "--timezone", "Europe/Prague")
        assert cli.run("import", cli.write("orders.csv", content), *options, *properties).code == 0
        events = sorted(cli.events, key=lambda event: event.properties["line"])
        assert [event.event_type for event in events] == ["two\r\nlines", "plain"]
        assert [event.timestamp for event in events] == [1_714_550_400.0] * 2
        assert [event.properties["x"] for event in events] == ["1", ""]
        assert events[0].properties["y"] == 1.5
        assert "y" not in events[1].properties
        assert [event.properties["line"] for event in events] == [2, 5]

    def test_other_delimiters(self, cli: CommandLine) -> None:
        """The delimiter may be a semicolon or a tab."""
        options = ("--event", "e", "--id", "registered=who", "--timestamp", "at")
        semicolons = cli.write("a.csv", "who;at\nj;1\n")
        assert cli.run("import", semicolons, *options, "--delimiter", ";").code == 0
        assert cli.run("import", cli.write("a.tsv", "who\tat\nj\t2\n"), *options).code == 0
        assert sorted(event.timestamp for event in cli.events) == [1.0, 2.0]

    def test_json_lines(self, cli: CommandLine) -> None:
        """Values of JSON keep their types; a missing value is omitted."""
        content = '{"who": 7, "at": 1.5, "n": [1, {"a": null}]}\n\n{"who": "j", "at": "1700000000"}'
        assert cli.run("import", cli.write("a.jsonl", content), *LINE_OPTIONS).code == 0
        by_time = sorted(cli.events, key=lambda event: event.timestamp)
        assert [event.customer_ids["registered"] for event in by_time] == ["7", "j"]
        assert by_time[0].properties["n"] == [1, {}]
        assert "n" not in by_time[1].properties

    def test_milliseconds_and_strings(self, cli: CommandLine) -> None:
        """Timestamps may be in milliseconds; a number can be tracked as a string."""
        content = '{"who": "j", "at": 1500, "n": 7}\n{"who": "j", "at": "x", "n": 7}\n{"who": "j", "at": 1, "n": {}}'
        more = ("--timestamp-format", "milliseconds", "--line-number", "line")
        options = [*LINE_OPTIONS[:-1], "n=n:text", *more]
        assert cli.run("import", cli.write("a.jsonl", content), *options, "--json").json["bad"] == 2
        assert (cli.events[0].timestamp, cli.events[0].properties["n"]) == (1.5, "7")

    def test_empty_file(self, cli: CommandLine) -> None:
        """An empty file is imported successfully."""
        assert cli.run("import", cli.write("a.jsonl", ""), *LINE_OPTIONS, "--json").json["lines"] == 0


class TestInvalidLines:
    def test_they_are_written_to_a_file(self, cli: CommandLine) -> None:
        """Invalid lines are written to the rejects file with number and reason; all others are tracked."""
        raw_lines = [
            '{"who": "j", "at": 1, "n": 1}',
            "{",
            "[1]",
            '{"who": "", "at": 1}',
            '{"at": 1}',
            '{"who": "j"}',
            '{"who": "j", "at": "20240501"}',
            '{"who": "j", "at": true}',
            '{"who": "j", "at": 1, "n": NaN}',
            json.dumps({"who": "j", "at": 1, "n": "x" * 20_000}),
            '{"who": "j", "at": 1e300}',
            '{"who": "j", "at": 2, "n": 2}',
            "[" * 100_000,
        ]
        result = cli.run("import", cli.write("a.jsonl", "\n".join(raw_lines)), *LINE_OPTIONS, "--json")
        assert result.code == 3
        assert (result.json["lines"], result.json["tracked"], result.json["bad"]) == (13, 2, 11)
        invalid = rejects(cli.folder / "a.jsonl.bad.jsonl")
        assert [each["line"] for each in invalid] == [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13]
        assert [each["text"] for each in invalid[:2]] == raw_lines[1:3]
        assert invalid[2]["values"] == json.loads(raw_lines[3])
        reasons = [each["reason"] for each in invalid]
        assert reasons[0].startswith(
            "the line must be a JSON object that is not empty, got invalid JSON: Expecting property name"
        )
        assert reasons[3] == "who: is missing"
        assert reasons[4] == "at: is missing"
        assert "may be a date or seconds" in reasons[5]
        assert reasons[8].startswith("properties.n: must take less than")
        assert cli.properties("n") == [1, 2]

    def test_invalid_bytes_and_rows(self, cli: CommandLine) -> None:
        """Wrong encodings, rows of wrong length and wrong types are invalid lines, not the end of the import."""
        path = cli.folder / "a.csv"
        path.write_bytes(b"who,at,n\nj,1,one\nj,2,\xff\nj,3\nj,4,5\nj,5,6,7\nj,6,\n")
        result = cli.run("import", path, *LINE_OPTIONS[:-1], "n=n:integer", "--bad", cli.folder / "bad", "--json")
        assert result.code == 3
        reasons = {each["line"]: each["reason"] for each in rejects(cli.folder / "bad")}
        assert reasons[2] == "n: must be an integer, got 'one'"
        assert reasons[3].startswith("the line must be UTF-8, got byte 0xff")
        assert reasons[4] == "the line must have 3 columns, got 2"
        assert reasons[6] == "the line must have 3 columns, got 4"
        assert sorted(event.timestamp for event in cli.events) == [4.0, 6.0]

    def test_numbers(self, cli: CommandLine) -> None:
        """A number is written as in JSON; an empty one is omitted."""
        content = "who,at,n\nj,1,1.50\nj,2,-2e3\nj,3,\nj,4,inf\nj,5,1_0\nj,6,7\n"
        result = cli.run("import", cli.write("a.csv", content), *LINE_OPTIONS[:-1], "n=n:number", "--json")
        assert result.json["bad"] == 2
        by_time = sorted(cli.events, key=lambda event: event.timestamp)
        assert [event.properties.get("n") for event in by_time] == [1.5, -2000.0, None, 7]

    def test_long_lines(self, cli: CommandLine) -> None:
        """A line that is too long is skipped without being held in memory, and the next one is read."""
        path = cli.write("a.jsonl", f"{'x' * 2 * MAX_LINE_BYTES}\n{lines(1)}{'y' * (MAX_LINE_BYTES + 1)}")
        result = cli.run("import", path, *LINE_OPTIONS, "--json")
        assert (result.json["tracked"], result.json["bad"]) == (1, 2)
        assert [len(each["text"]) for each in rejects(cli.folder / "a.jsonl.bad.jsonl")] == [MAX_LINE_BYTES] * 2

    def test_rejections_are_counted(self, cli: CommandLine) -> None:
        """Events that the platform rejects are counted, and the command says how to show the reasons."""
        cli.fault("reject", times=2)
        result = cli.run("import", cli.write("a.jsonl", lines(5)), *LINE_OPTIONS, "--json")
        assert result.code == 3
        assert (result.json["delivered"], result.json["rejected"]) == (3, 2)
        assert "queue dead" in result.err


class TestJournal:
    def test_second_import_does_nothing(self, cli: CommandLine) -> None:
        """A finished import is not repeated."""
        path = cli.write("a.jsonl", lines(10))
        assert cli.run("import", path, *LINE_OPTIONS).code == 0
        requests = cli.sandbox.request_count
        result = cli.run("import", path, *LINE_OPTIONS)
        assert result.code == 0
        assert "Pass --again to import it once more" in result.out
        assert cli.run("import", path, *LINE_OPTIONS, "--json").json["already"] is True
        assert cli.sandbox.request_count == requests

    def test_again_sends_duplicates(self, cli: CommandLine) -> None:
        """With --again the platform removes all events as duplicates, and invalid lines are not written twice."""
        path = cli.write("a.jsonl", lines(1200) + "invalid\n")
        assert cli.run("import", path, *LINE_OPTIONS).code == 3
        before = cli.events
        assert cli.run("import", path, *LINE_OPTIONS, "--again", "--json").json["delivered"] == 1200
        assert cli.events == before
        assert cli.sandbox.engine.duplicates == 1200
        assert len(rejects(cli.folder / "a.jsonl.bad.jsonl")) == 1

    @pytest.mark.parametrize("what", ["file", "project", "mapping"])
    def test_journal_of_another_import(self, cli: CommandLine, what: str) -> None:
        """A checkpoint of another file, another project or other columns is refused."""
        path = cli.write("a.jsonl", lines(3))
        cli.run("import", path, *LINE_OPTIONS)
        if what == "file":
            cli.write("a.jsonl", lines(4))
        more = {"file": (), "project": ("--project-token", "other"), "mapping": ("--line-number", "line")}[what]
        result = cli.run("import", path, *LINE_OPTIONS, *more)
        assert result.code == 2
        assert f"({what} differs)" in result.err
        assert cli.run("import", path, *LINE_OPTIONS, *more, "--journal", cli.folder / "other").code == 0

    def test_other_default_properties(self, cli: CommandLine, environment: Environment) -> None:
        """With other default properties an event sent twice is not a duplicate, so that is another import."""
        path = cli.write("a.jsonl", lines(3))
        cli.run("import", path, *LINE_OPTIONS)
        environment(EXPONEA_DEFAULT_PROPERTIES='{"currency": "USD"}')
        assert cli.run("import", path, *LINE_OPTIONS).code == 2

    @pytest.mark.parametrize(
        "content",
        [
            "",
            "{}",
            "[]",
            '{"version": 1, "about": {}, "place": {"far": 1}}',
            '{"version": 1, "about": {}, "place": []}',
            '{"version": 1, "about": [], "place": {}}',
        ],
    )
    def test_file_that_is_not_a_journal(self, cli: CommandLine, content: str) -> None:
        """A file that is not a journal is neither used nor replaced."""
        cli.write("a.jsonl.journal", content)
        result = cli.run("import", cli.write("a.jsonl", lines(3)), *LINE_OPTIONS)
        assert result.code == 2
        assert (cli.folder / "a.jsonl.journal").read_text() == content

    def test_format(self, cli: CommandLine) -> None:
        """The format of the journal is fixed, so that a later version continues an import."""
        path = cli.write("a.jsonl", lines(3) + "{\n")
        os.utime(path, ns=(0, 1_700_000_000_000_000_000))
        options = (*LINE_OPTIONS, "--property", "m=n:number", "--timezone", "Europe/Prague")
        assert cli.run("import", path, *options).code == 3
        journal = json.loads((cli.folder / "a.jsonl.journal").read_text())
        assert journal.pop("place").pop("finished_at") > 0
        assert journal == {
            "version": 1,
            "about": {
                "file": {
                    "size": path.stat().st_size,
                    "mtime_ns": 1_700_000_000_000_000_000,
                    "head": sha256(path.read_bytes()).hexdigest(),
                },
                "project": "shop",
                "mapping": {
                    "format": "jsonl",
                    "columns": [],
                    "delimiter": ",",
                    "skip": 0,
                    "event": "ping",
                    "event_column": None,
                    "ids": {"registered": "who"},
                    "timestamp": "at",
                    "moments": ["auto", "Europe/Prague"],
                    "properties": [
                        {"name": "n", "column": "n", "type": None},
                        {"name": "m", "column": "n", "type": "number"},
                    ],
                    "line_number": None,
                    "stamps": [{}, "default-application"],
                },
            },
        }

    def test_a_journal_with_an_address(self, cli: CommandLine) -> None:
        """An import to another address of the same project is continued, and an address in the journal is ignored."""
        path, journal = cli.write("a.jsonl", lines(3)), cli.folder / "a.jsonl.journal"
        cli.run("import", path, *LINE_OPTIONS)
        content = json.loads(journal.read_text())
        content["about"]["project"] = "https://elsewhere.example/prefix/shop"
        journal.write_text(json.dumps(content))

        assert cli.run("import", path, *LINE_OPTIONS, "--json").json["already"] is True
        content["about"]["project"] = "https://elsewhere.example/prefix/outlet"
        journal.write_text(json.dumps(content))
        assert "project differs" in cli.run("import", path, *LINE_OPTIONS).err

    def test_checkpoint(self, cli: CommandLine) -> None:
        """The keys of a checkpoint are fixed, in the journal and in JSON output."""
        path = cli.write("a.jsonl", lines(3) + "{\n")
        cli.run("import", path, *LINE_OPTIONS)
        rejects_size = (cli.folder / "a.jsonl.bad.jsonl").stat().st_size
        checkpoint = _checkpoint(cli.folder / "a.jsonl.journal")
        assert cli.run("import", path, *LINE_OPTIONS, "--json").json == {"already": True, **checkpoint}
        assert checkpoint == {
            "offset": path.stat().st_size,
            "number": 4,
            "lines": 4,
            "tracked": 3,
            "bad": 1,
            "bad_size": rejects_size,
            "finished_at": checkpoint["finished_at"],
        }

    def test_journal_that_cannot_be_written(self, cli: CommandLine) -> None:
        """If the journal can't be written, nothing is tracked."""
        path = cli.write("a.jsonl", lines(3))
        result = cli.run("import", path, *LINE_OPTIONS, "--journal", cli.folder / "no" / "journal")
        assert result.code == 2
        assert "Choose other files with --journal and --bad" in result.err
        assert not cli.events

    def test_killed_import_continues(self, cli: CommandLine) -> None:
        """After kill -9 the same command continues, and each line is stored exactly once."""
        count = 6000
        raw_lines = lines(count).splitlines(keepends=True)
        raw_lines[10:10] = ["invalid\n"]
        path = cli.write("a.jsonl", "".join(raw_lines))
        # Some responses are lost, and later all requests fail, so the import can't finish before it is killed.
        cli.fault("drop_after", every=7)
        cli.fault("status", status=503, after=40)
        journal = cli.folder / "a.jsonl.journal"
        for part in (1, 2):
            enough = part * path.stat().st_size // 4
            with cli.start("import", path, *LINE_OPTIONS) as process:
                wait_until(lambda enough=enough: _offset(journal) > enough)  # type: ignore[misc]
                process.kill()
                finish(process)
            assert process.returncode == -signal.SIGKILL
            _end_leases(cli.folder / "queue.sqlite")
        assert 0 < len(cli.events) < count
        cli.sandbox.faults.clear()
        result = cli.run("import", path, *LINE_OPTIONS, "--json")
        assert 0 < result.json["resumed_at"] <= count + 1
        assert result.json["lines"] < count
        assert result.json["finished"] is True
        assert cli.properties("n") == list(range(count))
        assert len(rejects(cli.folder / "a.jsonl.bad.jsonl")) == 1
        assert _checkpoint(journal)["tracked"] == count
        assert cli.run("queue", "stats", "--json").json["waiting"] == 0

    def test_file_that_grows(self, cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
        """A file that changes while it is read is not considered finished."""
        path = cli.write("a.jsonl", lines(3))
        read_line = LineReader.__next__

        def grow(reader: LineReader) -> Line:
            if path.read_text() == lines(3):
                cli.write("a.jsonl", lines(4))
            return read_line(reader)

        monkeypatch.setattr(LineReader, "__next__", grow)
        result = cli.run("import", path, *LINE_OPTIONS)
        assert result.code == 2
        assert "has changed while it was read" in result.err

    def test_interruption(self, cli: CommandLine) -> None:
        """After Ctrl-C the command reports how far it has come, and the same command continues there."""
        cli.fault("status", status=503)
        path = cli.write("a.jsonl", lines(600))
        with cli.start("import", path, *LINE_OPTIONS) as process:
            wait_until(lambda: (cli.folder / "a.jsonl.journal").exists() and cli.sandbox.request_count)
            process.send_signal(signal.SIGINT)
            _, err = finish(process)
        assert process.returncode == 130
        assert "the same command continues there" in err
        assert "Traceback" not in err
        cli.sandbox.faults.clear()
        assert cli.run("import", path, *LINE_OPTIONS).code == 0
        assert cli.properties("n") == list(range(600))

    def test_wrong_key_stops_the_import(self, cli: CommandLine) -> None:
        """If the project refuses the key, the import stops; once the key is right, the same command continues."""
        cli.fault("status", status=401)
        path = cli.write("a.jsonl", lines(30))
        result = cli.run("import", path, *LINE_OPTIONS, "--json")
        assert result.code == 4
        assert result.json["finished"] is False
        assert "is paused: HTTP 401" in result.err
        cli.sandbox.faults.clear()
        assert cli.run("import", path, *LINE_OPTIONS).code == 0
        assert cli.properties("n") == list(range(30))


class TestLeftOvers:
    @pytest.mark.parametrize("project", ["outlet", "bad"])
    def test_records_of_other_projects(self, cli: CommandLine, environment: Environment, project: str) -> None:
        """An import finishes although the queue has records of another project, which is unknown or unavailable."""
        environment(EXPONEA_FLUSH_MODE="MANUAL")
        cli.run("track", "old", "--id", "registered=jane", "--project-token", project)
        environment(EXPONEA_FLUSH_MODE=None)
        if project == "bad":
            cli.fault("status", status=503, project="bad")
            environment(EXPONEA_OTHER_PROJECTS='[{"project_token": "bad", "authorization_token": "key"}]')
        result = cli.run("import", cli.write("a.jsonl", lines(700)), *LINE_OPTIONS, "--json")
        assert (result.code, result.json["finished"], result.json["delivered"]) == (0, True, 700)
        assert cli.run("queue", "stats", "--json").json["projects"][project] == 1

    def test_they_do_not_fill_the_queue(
        self, cli: CommandLine, environment: Environment, set_constants: SetConstants
    ) -> None:
        """The limit of waiting records is that of the import's own records."""
        set_constants(job, MAX_RECORDS=1, CHUNK_LINES=5)
        environment(EXPONEA_FLUSH_MODE="MANUAL")
        for _ in range(10):
            cli.run("track", "old", "--id", "registered=jane", "--project-token", "outlet")
        environment(EXPONEA_FLUSH_MODE=None)
        assert cli.run("import", cli.write("a.jsonl", lines(50)), *LINE_OPTIONS).code == 0


class TestFilesBeside:
    """The journal and the file of invalid lines, which contain data of customers."""

    def test_only_their_owner_reads_them(self, cli: CommandLine) -> None:
        """Both files have the mode 0600, also one that was readable by others when the import is continued."""
        path = cli.write("a.jsonl", lines(3) + "invalid\n")
        beside = [cli.folder / "a.jsonl.journal", cli.folder / "a.jsonl.bad.jsonl"]
        old = os.umask(0o022)
        try:
            cli.run("import", path, *LINE_OPTIONS)
            assert [stat.S_IMODE(each.stat().st_mode) for each in beside] == [0o600] * 2
        finally:
            os.umask(old)

    def test_a_continued_import(self, tmp_path: Path) -> None:
        """A file of invalid lines that others could read can be read by its owner only once it is continued."""
        path = tmp_path / "bad.jsonl"
        first = RejectsFile(path, 0)
        first.add(Line(1, "one", {}), "odd")
        first.sync()
        first.close()
        path.chmod(0o644)
        second = RejectsFile(path, first.size)
        second.add(Line(2, "two", {}), "odd")
        second.close()

        assert [each["text"] for each in rejects(path)] == ["one", "two"]
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    @pytest.mark.parametrize("name", ["a.jsonl.journal.new", "a.jsonl.journal", "a.jsonl.bad.jsonl"])
    @pytest.mark.parametrize("options", [(), ("--again",)])
    def test_a_link_is_not_followed(self, cli: CommandLine, name: str, options: tuple[str, ...]) -> None:
        """Where somebody has put a link in place of one of the files, its target is not changed."""
        target = cli.write("target", "of somebody")
        target.chmod(0o644)
        (cli.folder / name).symlink_to(target)
        result = cli.run("import", cli.write("a.jsonl", lines(3) + "invalid\n"), *LINE_OPTIONS, *options)

        assert result.code in (2, 3)
        assert (target.read_text(), stat.S_IMODE(target.stat().st_mode)) == ("of somebody", 0o644)

    @pytest.mark.parametrize("option", ["--journal", "--bad"])
    def test_a_file_of_somebody_else(self, cli: CommandLine, option: str) -> None:
        """A file that no import has written is neither replaced nor deleted, not even to start over."""
        foreign = cli.write("orders.csv", "id,email\n1,jane@example.com\n")
        path = cli.write("a.jsonl", lines(3) + "invalid\n")
        result = cli.run("import", path, *LINE_OPTIONS, "--again", option, foreign)

        assert result.code == 2
        assert f"Pass {option} to choose another file" in result.err
        assert foreign.read_text() == "id,email\n1,jane@example.com\n"
        assert cli.events == []

    def test_a_line_that_was_cut(self, cli: CommandLine) -> None:
        """A file with a part of a line, as an interrupted import leaves it, is replaced."""
        cli.write("a.jsonl.bad.jsonl", '{"line": 1, "reason": "od')
        assert cli.run("import", cli.write("a.jsonl", "invalid\n" + lines(3)), *LINE_OPTIONS).code == 3
        assert len(rejects(cli.folder / "a.jsonl.bad.jsonl")) == 1

    def test_they_go_with_the_queue(self, cli: CommandLine) -> None:
        """Beside the queue both files are deleted with all other data of customers; the imported file stays."""
        path = cli.write("a.jsonl", lines(3) + "invalid\n")
        cli.run("import", path, *LINE_OPTIONS)
        assert (cli.folder / "a.jsonl.bad.jsonl").exists()
        settings = Configuration.from_env()
        asyncio.run(Exponea.clear_local_customer_data(settings))

        assert not [*cli.folder.glob("*.journal"), *cli.folder.glob("*.bad.jsonl")]
        assert path.exists()


def _checkpoint(journal: Path) -> dict[str, Any]:
    checkpoint: dict[str, Any] = json.loads(journal.read_text())["place"]
    return checkpoint


def _offset(journal: Path) -> int:
    return int(_checkpoint(journal)["offset"]) if journal.exists() else 0


def _end_leases(queue: Path) -> None:
    """End the leases of a killed process now, which otherwise takes 15 seconds."""
    with closing(sqlite3.connect(queue)) as file, file:
        file.execute("UPDATE taken SET due = 0")


class TestQueue:
    def test_import_waits_for_the_upload(
        self, cli: CommandLine, environment: Environment, set_constants: SetConstants
    ) -> None:
        """A file with more lines than the queue may hold is read as fast as events are uploaded, and none are lost."""
        set_constants(job, MAX_RECORDS=100, CHUNK_LINES=50, MAX_OPEN_RECEIPTS=60)
        environment(EXPONEA_QUEUE_WHEN_FULL="drop_oldest", EXPONEA_FLUSH_MODE="MANUAL")
        result = cli.run("import", cli.write("a.jsonl", lines(1000)), *LINE_OPTIONS, "--json")
        assert result.json["delivered"] == 1000
        assert cli.properties("n") == list(range(1000))
        assert PROJECT in cli.sandbox.engine.projects()


class TestUsage:
    @pytest.mark.parametrize(
        "args",
        [
            ("none.jsonl",),
            ("a.doc",),
            ("a.jsonl", "--columns", "a,b"),
            ("a.jsonl", "--timezone", "Moon/Crater"),
            ("a.jsonl", "--timestamp-format", "yyyy"),
            ("a.jsonl", "--line-number", "n"),
            ("a.jsonl", "--id", "registered=other"),
            ("a.jsonl", "--event-column", "what"),
            ("a.jsonl", "--bad", "a.jsonl"),
            ("a.jsonl", "--journal", "a.jsonl.bad.jsonl"),
            ("a.jsonl", "--delimiter", "ab"),
            ("a.jsonl", "--skip-lines", "-1"),
            ("a.csv",),
            ("a.csv", "--columns", "who,,at"),
            ("a.csv", "--columns", "who,at,m"),
            ("twice.csv",),
            ("empty.csv",),
        ],
    )
    def test_wrong_usage(self, cli: CommandLine, args: tuple[str, ...]) -> None:
        """Wrong arguments are refused before any file is written."""
        cli.write("a.jsonl", lines(1))
        cli.write("a.doc", lines(1))
        cli.write("a.csv", "who,at\nj,1\n")
        cli.write("twice.csv", "who,at,n,n\n")
        cli.write("empty.csv", "")
        files = sorted(cli.folder.iterdir())
        result = cli.run("import", *args, *LINE_OPTIONS)
        assert result.code == 2
        assert sorted(cli.folder.iterdir()) == files

    def test_timestamp_is_required(self, cli: CommandLine) -> None:
        """Without a timestamp from the file, a line sent twice would not be a duplicate."""
        path = cli.write("a.jsonl", lines(1))
        assert cli.run("import", path, "--event", "e", "--id", "registered=who").code == 2
