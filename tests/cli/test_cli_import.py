"""
The command ``import``.
"""

import json
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cli_stage import PROJECT, Stage, staged, until

from exponea_async.cli.importer.reader import Line, Lines

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
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    with staged(tmp_path, monkeypatch) as stage:
        yield stage


def lines(count: int) -> str:
    return "".join(json.dumps({"who": f"c{n % 50}", "at": 1_700_000_000 + n, "n": n}) + "\n" for n in range(count))


def bad_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


class TestFormats:
    def test_columns(self, stage: Stage) -> None:
        """Columns become ids, times and properties; equal lines stay apart by their numbers."""
        outcome = stage.run("import", stage.write("cds.txt", COLUMNS), *COLUMN_OPTIONS)
        assert outcome.code == 0
        facts = dict(line.split() for line in outcome.out.splitlines())
        assert (facts["lines"], facts["delivered"], facts["bad"]) == ("3", "3", "0")
        first = stage.events[0]
        assert (first.event_type, first.customer_ids["registered"], first.timestamp) == (
            "payment",
            "00001",
            852_076_800.0,
        )
        assert stage.properties("brutto") == [11.77, 11.77, 77.0]
        assert stage.properties("cds") == [1, 1, 5]
        assert stage.properties("line") == [2, 3, 4]

    def test_columns_without_header(self, stage: Stage) -> None:
        """Columns can be named, and first lines passed over."""
        path = stage.write("cds.txt", COLUMNS)
        more = ("--columns", "id,date,count,amount", "--skip-lines", "1")
        assert stage.run("import", path, *COLUMN_OPTIONS, *more).code == 0
        assert stage.properties("line") == [2, 3, 4]

    def test_equal_lines_are_one(self, stage: Stage) -> None:
        """Without a line number the platform takes equal lines for one event."""
        path = stage.write("cds.txt", COLUMNS)
        assert stage.run("import", path, *COLUMN_OPTIONS[:-2]).code == 0
        assert len(stage.events) == 2

    def test_csv(self, stage: Stage) -> None:
        """CSV may have a byte-order mark, quoted line ends, and types of its own choice."""
        text = (
            '\ufeffmail,when,what,"a, b:c",amount\r\n'
            'j@x.com,2024-05-01T10:00:00+02:00,"two\r\nlines",1,"1.50"\r\n'
            "\r\n"
            "k@x.com,2024-05-01 10:00,plain,,\r\n"
        )
        options = ("--event-column", "what", "--id", "registered=mail", "--timestamp", "when", "--line-number", "line")
        properties = ("--property", "x=a, b:c", "--property", "y=amount:number", "--timezone", "Europe/Prague")
        assert stage.run("import", stage.write("orders.csv", text), *options, *properties).code == 0
        events = sorted(stage.events, key=lambda event: event.properties["line"])
        assert [event.event_type for event in events] == ["two\r\nlines", "plain"]
        assert [event.timestamp for event in events] == [1_714_550_400.0] * 2
        assert [event.properties["x"] for event in events] == ["1", ""]
        assert events[0].properties["y"] == 1.5
        assert "y" not in events[1].properties
        assert [event.properties["line"] for event in events] == [2, 5]

    def test_other_delimiters(self, stage: Stage) -> None:
        """Semicolons and tabs separate too."""
        options = ("--event", "e", "--id", "registered=who", "--timestamp", "at")
        semicolons = stage.write("a.csv", "who;at\nj;1\n")
        assert stage.run("import", semicolons, *options, "--delimiter", ";").code == 0
        assert stage.run("import", stage.write("a.tsv", "who\tat\nj\t2\n"), *options).code == 0
        assert sorted(event.timestamp for event in stage.events) == [1.0, 2.0]

    def test_json_lines(self, stage: Stage) -> None:
        """Values of JSON stay what they are; what is not there is left out."""
        text = '{"who": 7, "at": 1.5, "n": [1, {"a": null}]}\n\n{"who": "j", "at": "1700000000"}'
        assert stage.run("import", stage.write("a.jsonl", text), *LINE_OPTIONS).code == 0
        by_time = sorted(stage.events, key=lambda event: event.timestamp)
        assert [event.customer_ids["registered"] for event in by_time] == ["7", "j"]
        assert by_time[0].properties["n"] == [1, {}]
        assert "n" not in by_time[1].properties

    def test_times_and_texts(self, stage: Stage) -> None:
        """Times may be milliseconds; a number can be kept as a text."""
        text = '{"who": "j", "at": 1500, "n": 7}\n{"who": "j", "at": "x", "n": 7}\n{"who": "j", "at": 1, "n": {}}'
        more = ("--timestamp-format", "milliseconds", "--line-number", "line")
        options = [*LINE_OPTIONS[:-1], "n=n:text", *more]
        assert stage.run("import", stage.write("a.jsonl", text), *options, "--json").json["bad"] == 2
        assert (stage.events[0].timestamp, stage.events[0].properties["n"]) == (1.5, "7")

    def test_empty_file(self, stage: Stage) -> None:
        """A file without lines is soon done."""
        assert stage.run("import", stage.write("a.jsonl", ""), *LINE_OPTIONS, "--json").json["lines"] == 0


class TestBadLines:
    def test_they_are_kept_with_the_reason(self, stage: Stage) -> None:
        """What can't be an event goes to a file, by number; all others are tracked."""
        texts = [
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
        outcome = stage.run("import", stage.write("a.jsonl", "\n".join(texts)), *LINE_OPTIONS, "--json")
        assert outcome.code == 3
        assert (outcome.json["lines"], outcome.json["tracked"], outcome.json["bad"]) == (13, 2, 11)
        bad = bad_lines(stage.folder / "a.jsonl.bad.jsonl")
        assert [each["line"] for each in bad] == [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13]
        assert [each["text"] for each in bad[:3]] == texts[1:4]
        reasons = [each["reason"] for each in bad]
        assert reasons[0].startswith("it is no JSON: Expecting property name")
        assert reasons[3] == "who: it is missing"
        assert reasons[4] == "at: it is missing"
        assert "may be a date or seconds" in reasons[5]
        assert reasons[8].startswith("properties.n: must take less than 16384 bytes")
        assert stage.properties("n") == [1, 2]

    def test_bad_bytes_and_rows(self, stage: Stage) -> None:
        """Foreign encodings, short rows and wrong types are bad lines, not the end."""
        path = stage.folder / "a.csv"
        path.write_bytes(b"who,at,n\nj,1,one\nj,2,\xff\nj,3\nj,4,5\nj,5,6,7\nj,6,\n")
        outcome = stage.run("import", path, *LINE_OPTIONS[:-1], "n=n:integer", "--bad", stage.folder / "bad", "--json")
        assert outcome.code == 3
        reasons = {each["line"]: each["reason"] for each in bad_lines(stage.folder / "bad")}
        assert reasons[2] == "n: 'one' is no integer"
        assert reasons[3].startswith("it is no UTF-8: byte 0xff")
        assert reasons[4] == "it has 2 columns instead of 3"
        assert reasons[6] == "it has 4 columns instead of 3"
        assert sorted(event.timestamp for event in stage.events) == [4.0, 6.0]

    def test_numbers(self, stage: Stage) -> None:
        """A number is what JSON knows as one; an empty one is left out."""
        text = "who,at,n\nj,1,1.50\nj,2,-2e3\nj,3,\nj,4,inf\nj,5,1_0\nj,6,7\n"
        outcome = stage.run("import", stage.write("a.csv", text), *LINE_OPTIONS[:-1], "n=n:number", "--json")
        assert outcome.json["bad"] == 2
        by_time = sorted(stage.events, key=lambda event: event.timestamp)
        assert [event.properties.get("n") for event in by_time] == [1.5, -2000.0, None, 7]

    def test_endless_lines(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        """A line that is too long is passed over without being held, and the next is read."""
        monkeypatch.setattr("exponea_async.cli.importer.reader.MAX_LINE", 100)
        path = stage.write("a.jsonl", f"{'x' * 1050}\n{lines(1)}{'y' * 500}")
        outcome = stage.run("import", path, *LINE_OPTIONS, "--json")
        assert (outcome.json["tracked"], outcome.json["bad"]) == (1, 2)
        assert [len(each["text"]) for each in bad_lines(stage.folder / "a.jsonl.bad.jsonl")] == [100, 100]

    def test_rejections_are_counted(self, stage: Stage) -> None:
        """What the platform refuses is told, and where to look for it."""
        stage.fault("reject", times=2)
        outcome = stage.run("import", stage.write("a.jsonl", lines(5)), *LINE_OPTIONS, "--json")
        assert outcome.code == 3
        assert (outcome.json["delivered"], outcome.json["rejected"]) == (3, 2)
        assert "queue dead" in outcome.err


class TestJournal:
    def test_second_import_does_nothing(self, stage: Stage) -> None:
        """What is finished is not done again."""
        path = stage.write("a.jsonl", lines(10))
        assert stage.run("import", path, *LINE_OPTIONS).code == 0
        requests = stage.sandbox.request_count
        outcome = stage.run("import", path, *LINE_OPTIONS)
        assert outcome.code == 0
        assert "--again imports it once more" in outcome.out
        assert stage.run("import", path, *LINE_OPTIONS, "--json").json["already"] is True
        assert stage.sandbox.request_count == requests

    def test_again_changes_nothing(self, stage: Stage) -> None:
        """The platform removes all of a second import as duplicates, and old bad lines are not told twice."""
        path = stage.write("a.jsonl", lines(1200) + "bad\n")
        assert stage.run("import", path, *LINE_OPTIONS).code == 3
        before = stage.events
        assert stage.run("import", path, *LINE_OPTIONS, "--again", "--json").json["delivered"] == 1200
        assert stage.events == before
        assert stage.sandbox.engine.duplicates == 1200
        assert len(bad_lines(stage.folder / "a.jsonl.bad.jsonl")) == 1

    @pytest.mark.parametrize("what", ["file", "project", "mapping"])
    def test_journal_of_another_import(self, stage: Stage, what: str) -> None:
        """A place in another file, for another project, or with other columns is not gone on from."""
        path = stage.write("a.jsonl", lines(3))
        stage.run("import", path, *LINE_OPTIONS)
        if what == "file":
            stage.write("a.jsonl", lines(4))
        more = {"file": (), "project": ("--project-token", "other"), "mapping": ("--line-number", "line")}[what]
        outcome = stage.run("import", path, *LINE_OPTIONS, *more)
        assert outcome.code == 2
        assert f"({what} differs)" in outcome.err
        assert stage.run("import", path, *LINE_OPTIONS, *more, "--journal", stage.folder / "other").code == 0

    def test_other_default_properties(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        """With other default properties, lines sent again would be no duplicates, so it is another import."""
        path = stage.write("a.jsonl", lines(3))
        stage.run("import", path, *LINE_OPTIONS)
        monkeypatch.setenv("EXPONEA_DEFAULT_PROPERTIES", '{"currency": "USD"}')
        assert stage.run("import", path, *LINE_OPTIONS).code == 2

    @pytest.mark.parametrize("text", ["", "{}", "[]", '{"version": 1, "about": {}, "place": {"far": 1}}'])
    def test_no_journal(self, stage: Stage, text: str) -> None:
        """A file that is no journal is neither read nor replaced."""
        stage.write("a.jsonl.journal", text)
        outcome = stage.run("import", stage.write("a.jsonl", lines(3)), *LINE_OPTIONS)
        assert outcome.code == 2
        assert (stage.folder / "a.jsonl.journal").read_text() == text

    def test_journal_that_cannot_be_written(self, stage: Stage) -> None:
        """Without a journal nothing is tracked."""
        path = stage.write("a.jsonl", lines(3))
        outcome = stage.run("import", path, *LINE_OPTIONS, "--journal", stage.folder / "no" / "journal")
        assert outcome.code == 2
        assert "--journal and --bad name other files" in outcome.err
        assert not stage.events

    def test_death_in_the_middle(self, stage: Stage) -> None:
        """After kill -9, the same command goes on, and each line is in the books exactly once."""
        count = 6000
        text = lines(count).splitlines(keepends=True)
        text[10:10] = ["bad\n"]
        path = stage.write("a.jsonl", "".join(text))
        # Answers get lost, and after a while there are none: the import can't be over before it is killed.
        stage.fault("drop_after", every=7)
        stage.fault("status", status=503, after=40)
        journal = stage.folder / "a.jsonl.journal"
        for part in (1, 2):
            enough = part * path.stat().st_size // 4
            with stage.start("import", path, *LINE_OPTIONS) as process:
                until(lambda enough=enough: _offset(journal) > enough)  # type: ignore[misc]
                process.kill()
                process.communicate()
            assert process.returncode == -signal.SIGKILL
            _end_leases(stage.folder / "queue.sqlite")
        assert 0 < len(stage.events) < count
        stage.sandbox.faults.clear()
        outcome = stage.run("import", path, *LINE_OPTIONS, "--json")
        assert 0 < outcome.json["resumed_at"] <= count + 1
        assert outcome.json["lines"] < count
        assert outcome.json["finished"] is True
        assert stage.properties("n") == list(range(count))
        assert len(bad_lines(stage.folder / "a.jsonl.bad.jsonl")) == 1
        assert _place(journal)["tracked"] == count
        assert stage.run("queue", "stats", "--json").json["waiting"] == 0

    def test_file_that_grows(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        """A file that changes while it is read is not taken for finished."""
        path = stage.write("a.jsonl", lines(3))
        true = Lines.__next__

        def grow(each: Lines) -> Line:
            if path.read_text() == lines(3):
                stage.write("a.jsonl", lines(4))
            return true(each)

        monkeypatch.setattr(Lines, "__next__", grow)
        outcome = stage.run("import", path, *LINE_OPTIONS)
        assert outcome.code == 2
        assert "has changed while it was read" in outcome.err

    def test_interruption(self, stage: Stage) -> None:
        """Ctrl-C tells where it was, and the same command goes on there."""
        stage.fault("status", status=503)
        path = stage.write("a.jsonl", lines(600))
        with stage.start("import", path, *LINE_OPTIONS) as process:
            until(lambda: (stage.folder / "a.jsonl.journal").exists() and stage.sandbox.request_count)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate()
        assert process.returncode == 130
        assert "the same command goes on there" in err
        assert "Traceback" not in err
        stage.sandbox.faults.clear()
        assert stage.run("import", path, *LINE_OPTIONS).code == 0
        assert stage.properties("n") == list(range(600))

    def test_wrong_key_ends_it(self, stage: Stage) -> None:
        """A project that refuses the key is not waited for; when it is right, the same command goes on."""
        stage.fault("status", status=401)
        path = stage.write("a.jsonl", lines(30))
        outcome = stage.run("import", path, *LINE_OPTIONS, "--json")
        assert outcome.code == 4
        assert outcome.json["finished"] is False
        assert "is paused: HTTP 401" in outcome.err
        stage.sandbox.faults.clear()
        assert stage.run("import", path, *LINE_OPTIONS).code == 0
        assert stage.properties("n") == list(range(30))


def _place(journal: Path) -> dict[str, Any]:
    place: dict[str, Any] = json.loads(journal.read_text())["place"]
    return place


def _offset(journal: Path) -> int:
    return int(_place(journal)["offset"]) if journal.exists() else 0


def _end_leases(queue: Path) -> None:
    """Let the time pass after which the records that a dead process had in hand fall due again."""
    with closing(sqlite3.connect(queue)) as file, file:
        file.execute("UPDATE taken SET due = 0")


class TestQueue:
    def test_it_waits_for_room(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        """A file that is longer than the queue is read as there is room, and no setting makes it lose any."""
        monkeypatch.setattr("exponea_async.cli.importer.job.DEPTH", 100)
        monkeypatch.setattr("exponea_async.cli.importer.job.CHUNK", 50)
        monkeypatch.setattr("exponea_async.cli.importer.deliveries.MANY", 60)
        monkeypatch.setenv("EXPONEA_QUEUE_WHEN_FULL", "drop_oldest")
        monkeypatch.setenv("EXPONEA_FLUSH_MODE", "MANUAL")
        outcome = stage.run("import", stage.write("a.jsonl", lines(1000)), *LINE_OPTIONS, "--json")
        assert outcome.json["delivered"] == 1000
        assert stage.properties("n") == list(range(1000))
        assert PROJECT in stage.sandbox.engine.projects()


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
    def test_wrong_usage(self, stage: Stage, args: tuple[str, ...]) -> None:
        """What can't work is refused before anything is done."""
        stage.write("a.jsonl", lines(1))
        stage.write("a.doc", lines(1))
        stage.write("a.csv", "who,at\nj,1\n")
        stage.write("twice.csv", "who,at,n,n\n")
        stage.write("empty.csv", "")
        files = sorted(stage.folder.iterdir())
        outcome = stage.run("import", *args, *LINE_OPTIONS)
        assert outcome.code == 2
        assert sorted(stage.folder.iterdir()) == files

    def test_time_is_needed(self, stage: Stage) -> None:
        """Without a time from the file, lines sent twice would not be duplicates."""
        path = stage.write("a.jsonl", lines(1))
        assert stage.run("import", path, "--event", "e", "--id", "registered=who").code == 2
