"""
The command ``import``: dry runs, timestamps of several formats, corrected lines, customers, and warnings.
"""

import asyncio
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.command_line import CommandLine, Result, command_line
from helpers.environment import Environment, SetConstants

from exponea_async import Configuration, Exponea
from exponea_async.cli.importer import observations

OPTIONS = ("--event", "ping", "--id", "registered=who", "--timestamp", "at", "--property", "n=n")
CUSTOMERS = ("--customers", "--id", "registered=who", "--property", "city=city", "--property", "age=age:integer")
NOW = 1_700_000_000


@pytest.fixture
def cli(tmp_path: Path, environment: Environment) -> Iterator[CommandLine]:
    with command_line(tmp_path, environment) as cli:
        yield cli


def lines(count: int) -> str:
    return "".join(json.dumps({"who": f"c{n % 50}", "at": NOW + n, "n": n}) + "\n" for n in range(count))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class TestDryRun:
    def test_nothing_is_written(self, cli: CommandLine) -> None:
        """A dry run counts the lines, and neither writes a file nor sends anything."""
        path = cli.write("a.jsonl", lines(1200))
        before = files(cli.folder)
        result = cli.run("import", path, *OPTIONS, "--dry-run")
        assert (result.code, result.err) == (0, "")
        facts = dict(line.rsplit(maxsplit=1) for line in result.out.splitlines())
        facts = {name.strip(): value for name, value in facts.items()}
        assert (facts["lines"], facts["valid"], facts["bad"]) == ("1,200", "1,200", "0")
        assert (facts["first timestamp"], facts["last timestamp"]) == ("2023-11-14", "2023-11-14")
        assert (files(cli.folder), cli.sandbox.request_count) == (before, 0)

    def test_invalid_lines(self, cli: CommandLine) -> None:
        """A dry run finds what an import would find, and shows the first invalid lines with their numbers."""
        invalid = ["{", '{"who": "j"}', json.dumps({"who": "j", "at": NOW, "n": "x" * 20_000})]
        path = cli.write("a.jsonl", lines(3) + "\n".join(invalid * 5))
        found = cli.run("import", path, *OPTIONS, "--dry-run", "--json")
        imported = cli.run("import", path, *OPTIONS, "--json")
        assert (found.code, imported.code) == (3, 3)
        assert (found.json["lines"], found.json["valid"], found.json["bad"]) == (18, 3, 15)
        assert (imported.json["tracked"], imported.json["bad"]) == (3, 15)
        errors = {each["line"]: each["reason"] for each in found.json["errors"]}
        assert list(errors) == list(range(4, 14))
        rejected = {each["line"]: each["reason"] for each in entries(cli.folder / "a.jsonl.bad.jsonl")}
        assert errors.items() <= rejected.items()
        shown = cli.run("import", path, *OPTIONS, "--dry-run").err.splitlines()
        at = shown.index(f"exponea-async: line 13: {errors[13]}")
        assert shown[at + 1] == "exponea-async: 5 more lines are invalid"

    @pytest.mark.parametrize(
        ("name", "content", "found"),
        [
            ("a.csv", 'who,at,n\nj,1,2\nk,1,"2\nl,1,2\n', {3: "a quote is not closed"}),
            ("a.csv", 'who,at,n\nj,1,2\nk,1,"2', {3: "a quote is not closed"}),
            ("a.csv", f"who,at,n\n{'k' * 200_000},1,2\nj,1,2\n", {2: "a value must have at most 131,072 characters"}),
            (
                "a.csv",
                "who,at,n\nj,-5,2\nj,1969-12-31,2\nj,0,2\n",
                dict.fromkeys((2, 3), "at: must not be before 1970"),
            ),
            ("a.jsonl", '{"who": "j", "at": -1}\n{"who": "j", "at": 1}\n', {1: "at: must not be before 1970"}),
        ],
    )
    def test_both_agree(self, cli: CommandLine, name: str, content: str, found: dict[int, str]) -> None:
        """A dry run and an import find the same invalid lines, and one that was not corrected stays invalid."""
        path = cli.write(name, content)
        dry = cli.run("import", path, *OPTIONS, "--dry-run", "--json").json
        imported = cli.run("import", path, *OPTIONS, "--json").json
        assert {
            each["line"]: each["reason"].startswith(found[each["line"]]) for each in dry["errors"]
        } == dict.fromkeys(found, True)
        assert (imported["tracked"], imported["delivered"], imported["bad"]) == (1, 1, len(found))

        again = cli.run("import", f"{path}.bad.jsonl", *OPTIONS, "--json").json
        assert (again["tracked"], again["bad"]) == (0, len(found))

    def test_a_pipe(self, cli: CommandLine) -> None:
        """A pipe is refused at once, since it can't be read again after an interruption."""
        path = cli.folder / "a.csv"
        os.mkfifo(path)
        result = cli.run("import", path, *OPTIONS, "--dry-run")
        assert (result.code, "expected a regular file" in result.err) == (2, True)

    def test_a_folder(self, cli: CommandLine) -> None:
        """A folder is refused, also one without a name."""
        for folder in (Path("/"), Path()):
            result = cli.run("import", folder, *OPTIONS, "--format", "csv")
            assert (result.code, "Is a directory" in result.err) == (2, True)

    def test_another_delimiter(self, cli: CommandLine) -> None:
        """Where all columns are one, the delimiter that was probably meant is named."""
        result = cli.run("import", cli.write("a.csv", "who;at\nj;1\n"), *OPTIONS, "--dry-run")
        assert "Pass --delimiter ';'." in result.err

    def test_no_key_is_needed(self, cli: CommandLine, environment: Environment) -> None:
        """A file can be checked before there is a key."""
        environment(EXPONEA_AUTHORIZATION_TOKEN=None)
        assert cli.run("import", cli.write("a.jsonl", lines(3)), *OPTIONS, "--dry-run").code == 0

    def test_a_started_import(self, cli: CommandLine) -> None:
        """A dry run starts at the beginning of the file, whatever was imported, and leaves the journal as it is."""
        path = cli.write("a.jsonl", lines(3))
        cli.run("import", path, *OPTIONS)
        before = files(cli.folder)
        assert cli.run("import", path, *OPTIONS, "--dry-run", "--json").json["valid"] == 3
        assert files(cli.folder) == before

    def test_missing_columns(self, cli: CommandLine) -> None:
        """A column that does not exist is wrong usage."""
        path = cli.write("a.csv", "who,at\nj,1\n")
        assert cli.run("import", path, *OPTIONS, "--dry-run").code == 2


class TestTimestamps:
    def times(self, cli: CommandLine, content: str, *options: str) -> list[float]:
        result = cli.run("import", cli.write("a.csv", content), *OPTIONS[:-2], *options, "--line-number", "line")
        assert result.code == 0, result.err
        return [event.timestamp for event in sorted(cli.events, key=lambda event: event.properties["line"])]

    def test_several_units(self, cli: CommandLine) -> None:
        """One file may have seconds, milliseconds, microseconds and ISO 8601."""
        values = ["1700000000", "1700000000000", "1700000000000000", "1700000000.25", "2023-11-14T22:13:20Z", "1e3"]
        content = "".join(f"j,{value}\n" for value in ["at", *values[:-1]]).replace("j,at", "who,at")
        assert self.times(cli, content) == [NOW, NOW, NOW, NOW + 0.25, NOW]

    def test_a_column_with_the_format(self, cli: CommandLine) -> None:
        """A column may name the format of each timestamp; where it is empty, that of all counts."""
        content = "who,at,unit\nj,1500,ms\nj,1500,s\nj,1500000,us\nj,19700102,%Y%m%d\nj,1970-01-01,iso\nj,2,\n"
        more = ("--timestamp-format-column", "unit", "--timestamp-format", "seconds")
        assert self.times(cli, content, *more) == [1.5, 1500, 1.5, 86_400, 0, 2]

    @pytest.mark.parametrize("unit", ["microseconds", "us", "µs"])
    def test_microseconds(self, cli: CommandLine, unit: str) -> None:
        """All timestamps may be in microseconds."""
        assert self.times(cli, "who,at\nj,1500000\n", "--timestamp-format", unit) == [1.5]

    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            ("20240501", "may be a date or seconds"),
            ("202405011200", "may be a date or seconds"),
            ("20240501120000", "may be a date or seconds"),
            ("1700000000000000000", "too large for all"),
            ("x", "UNIX seconds or an ISO 8601 date"),
        ],
    )
    def test_unclear_timestamps(self, cli: CommandLine, value: str, reason: str) -> None:
        """A number that may be a date, or has none of the units, is invalid."""
        path = cli.write("a.csv", f"who,at,n\nj,{value},1\n")
        assert reason in cli.run("import", path, *OPTIONS, "--dry-run", "--json").json["errors"][0]["reason"]

    def test_unknown_format_in_the_column(self, cli: CommandLine) -> None:
        """A format that does not exist makes its line invalid."""
        path = cli.write("a.csv", "who,at,n,unit\nj,1,1,weeks\n")
        result = cli.run("import", path, *OPTIONS, "--timestamp-format-column", "unit", "--dry-run", "--json")
        assert "got the format 'weeks'" in result.json["errors"][0]["reason"]

    def test_journal(self, cli: CommandLine) -> None:
        """With another column for the format it is another import."""
        path = cli.write("a.csv", "who,at,n,unit\nj,1,1,s\n")
        assert cli.run("import", path, *OPTIONS).code == 0
        assert cli.run("import", path, *OPTIONS, "--timestamp-format-column", "unit").code == 2


def entries(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def correct(path: Path, corrections: dict[int, Any]) -> None:
    """Replace the values or the text of the entries with these line numbers."""
    found = entries(path)
    for entry in found:
        if entry["line"] in corrections:
            entry["values" if "values" in entry else "text"] = corrections[entry["line"]]
    path.write_text("".join(f"{json.dumps(entry)}\n" for entry in found))


class TestCorrectedLines:
    OPTIONS = (*OPTIONS[:-1], "n=n:integer", "--line-number", "line", "--delimiter", ";", "--format", "csv")

    def test_csv(self, cli: CommandLine) -> None:
        """The file of invalid lines is imported with the same options, once it is corrected."""
        path = cli.folder / "a.csv"
        path.write_bytes(b"who;at;n\nj;1;one\nj;2\nj;3;3\nj;4;\xff\n")
        assert cli.run("import", path, *self.OPTIONS).code == 3
        bad = cli.folder / "a.csv.bad.jsonl"
        assert [each["line"] for each in entries(bad)] == [2, 3, 5]
        assert entries(bad)[0]["values"] == {"who": "j", "at": "1", "n": "one"}
        correct(bad, {2: {"who": "j", "at": "1", "n": 1, "comment": "was one"}, 3: "j;2;2", 5: "j;4;4"})
        assert cli.run("import", bad, *self.OPTIONS).code == 0
        assert cli.properties("n") == [1, 2, 3, 4]
        assert cli.properties("line") == [2, 3, 4, 5]

    def test_json_lines(self, cli: CommandLine) -> None:
        """Lines of JSON are corrected as objects, or as text where they were no JSON."""
        path = cli.write("a.jsonl", '{"who": "j", "at": "x", "n": {"deep": [1]}}\n{"who": "j", "at": 2, "n": 2\n')
        cli.run("import", path, *OPTIONS)
        bad = cli.folder / "a.jsonl.bad.jsonl"
        assert entries(bad)[0]["values"]["n"] == {"deep": [1]}
        correct(bad, {1: {"who": "j", "at": 1, "n": 1}, 2: '{"who": "j", "at": 2, "n": 2}'})
        assert cli.run("import", bad, *OPTIONS).code == 0
        assert cli.properties("n") == [1, 2]

    def test_columns(self, cli: CommandLine) -> None:
        """The same holds for columns separated by blanks, and for columns that were named by an option."""
        path = cli.write("a.txt", "j 1\nj 2 2\n")
        options = (*OPTIONS, "--columns", "who,at,n", "--format", "columns")
        cli.run("import", path, *options)
        bad = cli.folder / "a.txt.bad.jsonl"
        correct(bad, {1: "j 1 1"})
        assert cli.run("import", bad, *options).code == 0
        assert cli.properties("n") == ["1", "2"]

    def test_what_is_not_corrected(self, cli: CommandLine) -> None:
        """Lines that are still invalid go to another file, with their numbers in the first file."""
        path = cli.folder / "a.csv"
        path.write_bytes(b"who;at;n\nj;1;one\nj;2\nj;4;\xff\n")
        cli.run("import", path, *self.OPTIONS)
        bad = cli.folder / "a.csv.bad.jsonl"
        before = bad.read_bytes()
        assert cli.run("import", bad, *self.OPTIONS, "--json").json["bad"] == 3
        assert cli.events == []
        again = entries(cli.folder / "a.csv.bad.jsonl.bad.jsonl")
        assert [each["line"] for each in again] == [2, 3, 4]
        assert [each.get("values", each.get("text")) for each in again] == [
            each.get("values", each.get("text")) for each in entries(bad)
        ]
        assert "stands for bytes that are not UTF-8" in again[2]["reason"]
        assert again[1]["layout"] == {"format": "csv", "columns": ["who", "at", "n"], "delimiter": ";"}
        assert bad.read_bytes() == before

    @pytest.mark.parametrize(
        "change",
        [
            {"text": 7},
            {"text": ""},
            {"text": "j;1;1", "layout": {"format": "csv"}},
            {"text": "j;1;1", "layout": {"format": "csv", "columns": ["who"], "delimiter": ";"}},
            {"values": []},
        ],
    )
    def test_wrong_corrections(self, cli: CommandLine, change: dict[str, Any]) -> None:
        """A correction that makes no sense is an invalid line, not the end of the import."""
        good = {"line": 1, "reason": "odd", "values": {"who": "j", "at": 1, "n": 1}}
        wrong = {"line": 2, "reason": "odd", **change}
        path = cli.write("bad.jsonl", f"{json.dumps(good)}\n{json.dumps(wrong)}\n[]\n")
        result = cli.run("import", path, *OPTIONS, "--json")
        assert (result.json["tracked"], result.json["bad"]) == (1, 2)

    def test_a_file_of_the_first_version(self, cli: CommandLine) -> None:
        """A file that only has texts, as the first version of the package wrote it, is imported, too."""
        entry = {"line": 9, "reason": "odd", "text": '{"who": "j", "at": 1, "n": 1}'}
        path = cli.write("old.bad.jsonl", f"{json.dumps(entry)}\n")
        assert cli.run("import", path, *OPTIONS, "--line-number", "line").code == 0
        assert cli.properties("line") == [9]

    def test_they_go_with_the_queue(self, cli: CommandLine) -> None:
        """The file is deleted with all other data of customers, whatever its lines look like."""
        path = cli.write("a.jsonl", '{"who": "j", "at": "x", "n": 1}\n')
        cli.run("import", path, *OPTIONS)
        assert "values" in entries(cli.folder / "a.jsonl.bad.jsonl")[0]
        asyncio.run(Exponea.clear_local_customer_data(Configuration.from_env()))
        assert not [*cli.folder.glob("*.bad.jsonl")]


class TestCustomers:
    def test_properties(self, cli: CommandLine) -> None:
        """Each line sets properties of a customer; an empty number changes nothing, and no event is tracked."""
        path = cli.write("a.csv", "who,city,age\nj,Prague,30\nk,Brno,\nj,Vienna,31\n")
        result = cli.run("import", path, *CUSTOMERS, "--json")
        assert (result.code, result.json["delivered"]) == (0, 3)
        found = {each.ids["registered"]: each.properties for each in cli.sandbox.engine.customers()}
        assert found == {("j",): {"city": "Vienna", "age": 31}, ("k",): {"city": "Brno"}}
        assert cli.events == []

    def test_the_last_line_counts(self, cli: CommandLine) -> None:
        """Of many updates of one customer the last one in the file counts, however the platform orders a batch."""
        content = "".join(f"j,{n},{n}\n" for n in range(1300))
        assert cli.run("import", cli.write("a.csv", f"who,city,age\n{content}"), *CUSTOMERS).code == 0
        (customer,) = cli.sandbox.engine.customers()
        assert customer.properties == {"city": "1299", "age": 1299}

    def test_invalid_lines(self, cli: CommandLine) -> None:
        """Lines that the client refuses are invalid, the others are imported."""
        rows = [{"who": "j", "city": "Brno"}, {"who": "-", "city": "x"}, {"who": "k", "city": "x" * 20_000}]
        path = cli.write("a.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
        assert cli.run("import", path, *CUSTOMERS, "--dry-run", "--json").json["bad"] == 2
        result = cli.run("import", path, *CUSTOMERS, "--json")
        assert (result.json["tracked"], result.json["bad"]) == (1, 2)

    def test_continued(self, cli: CommandLine) -> None:
        """An import of customers is not that of events, and is not repeated once it is finished."""
        path = cli.write("a.jsonl", '{"who": "j", "at": 1, "n": 1, "city": "Brno"}\n')
        assert cli.run("import", path, *CUSTOMERS).code == 0
        assert cli.run("import", path, *CUSTOMERS, "--json").json["already"] is True
        assert cli.run("import", path, *OPTIONS).code == 2

    @pytest.mark.parametrize("more", [("--timestamp", "at"), ("--event", "ping")])
    def test_options_of_events(self, cli: CommandLine, more: tuple[str, str]) -> None:
        """An update of a customer has neither a timestamp nor a type."""
        path = cli.write("a.jsonl", '{"who": "j", "at": 1}\n')
        assert cli.run("import", path, *CUSTOMERS, *more).code == 2


class TestWarnings:
    def test_similar_ids(self, cli: CommandLine) -> None:
        """Ids that differ only in case or blanks are reported once each, with an example."""
        names = ["Jane@x.com", "jane@x.com", "JANE@x.com", "a b", "ab", "k"]
        content = "".join(json.dumps({"who": name, "at": NOW}) + "\n" for name in names)
        result = cli.run("import", cli.write("a.jsonl", content), *OPTIONS)
        assert result.code == 0
        assert "warning: ids that differ only in case or blanks, and are different customers: 2, such as " in result.err
        assert "'jane@x.com' in line 2 and 'Jane@x.com' before it" in result.err
        assert len(cli.events) == 6

    def test_timestamps(self, cli: CommandLine) -> None:
        """Timestamps beyond tomorrow, and those of a wrong unit, are reported and imported."""
        times = [NOW, time.time() + 3600, time.time() + 3 * 86_400, NOW / 1000]
        content = "".join(json.dumps({"who": "j", "at": at}) + "\n" for at in times)
        result = cli.run("import", cli.write("a.jsonl", content), *OPTIONS, "--json")
        assert (result.code, result.json["warnings"]["future"], result.json["warnings"]["early"]) == (0, 1, 1)
        assert "later than tomorrow: 1, such as " in result.err
        assert "in line 3" in result.err
        assert "before 1980, as of a wrong unit: 1, such as 1970-01-20 in line 4" in result.err
        assert len(cli.events) == 4

    def test_equal_events(self, cli: CommandLine) -> None:
        """Lines whose events are equal are reported, since the platform stores one of them; line numbers help."""
        path = cli.write("a.jsonl", lines(2) + lines(2))
        assert self.warnings(cli.run("import", path, *OPTIONS, "--dry-run", "--json"))["equal_events"] == 2
        result = cli.run("import", path, *OPTIONS, "--dry-run", "--json", "--line-number", "line")
        assert self.warnings(result)["equal_events"] == 0

    def test_limits(self, cli: CommandLine, set_constants: SetConstants) -> None:
        """Beyond a limit nothing more is remembered, and the command says so."""
        path = cli.write("a.jsonl", lines(10))
        assert self.warnings(cli.run("import", path, *OPTIONS, "--dry-run", "--json"))["all_compared"] is True
        set_constants(observations, MAX_IDS=5)
        result = cli.run("import", path, *OPTIONS, "--dry-run", "--json")
        assert self.warnings(result)["all_compared"] is False
        assert "only the first 5 ids" in result.err

    @staticmethod
    def warnings(result: Result) -> dict[str, Any]:
        found: dict[str, Any] = result.json["warnings"]
        return found
