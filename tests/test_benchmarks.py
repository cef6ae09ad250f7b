"""
The benchmarks run, write their results as JSON, and two such files can be compared.
"""

import base64
import gzip
import json
import os
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import sink  # noqa: E402 - found only now

#: Programs that measure something, but are too long for `run.py`, with arguments that make them short.
LONG = {"postgres_bloat": ["5000", "5000"]}
#: The parts of other programs, and those that run or compare them.
NO_BENCHMARKS = {"bench", "meters", "results", "run", "compare", "sink", "database"}
PARTS_OF_PEERS = {"peer_clients", "peer_process", "peer_runs", "peer_tables"}
BENCHMARKS = sorted({path.stem for path in (ROOT / "benchmarks").glob("*.py")} - NO_BENCHMARKS - PARTS_OF_PEERS)


def execute(program: str, *arguments: str | Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, f"benchmarks/{program}.py", *map(str, arguments)]
    environment = {**os.environ, **variables}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def row(label: str, figure: str, value: float | None, unit: str, ratio: float | None = None) -> dict[str, Any]:
    return {"label": label, "figure": figure, "value": value, "unit": unit, "ratio": ratio, "target": ""}


def write_results(path: Path, **programs: list[dict[str, Any]]) -> Path:
    benchmarks = {name: {"seconds": 1.0, "status": 0, "rows": rows} for name, rows in programs.items()}
    about = {"at": "2026-11-30 10:00:00", "cores": 2, "python": "3.11.7", "load": 0.5}
    path.write_text(json.dumps({**about, "benchmarks": benchmarks}), encoding="utf-8")
    return path


@pytest.mark.parametrize("program", [each for each in BENCHMARKS if each not in LONG])
def test_each_benchmark_runs_and_its_rows_are_written_as_json(program: str, tmp_path: Path) -> None:
    path = tmp_path / "results.json"

    done = execute("run", program, "--quick", "--json", path)

    assert done.returncode == 0, done.stdout + done.stderr
    written = json.loads(path.read_text(encoding="utf-8"))
    assert written["cores"] > 0
    benchmark = written["benchmarks"][program]
    assert benchmark["status"] == 0
    if "so nothing is measured" not in done.stdout:
        assert benchmark["rows"] != []
    for each in benchmark["rows"]:
        assert each.keys() == row("", "", None, "").keys()
        assert each["figure"] in done.stdout
        assert each["value"] is not None or each["ratio"] is not None


@pytest.mark.parametrize("program", LONG)
def test_each_long_benchmark_runs(program: str) -> None:
    done = execute(program, *LONG[program])

    assert done.returncode == 0, done.stdout + done.stderr


def test_a_benchmark_that_fails_is_named_and_the_others_run(tmp_path: Path) -> None:
    path = tmp_path / "results.json"

    done = execute("run", "missing", "imports", "--quick", "--json", path)

    assert done.returncode == 1
    assert "failed: missing" in done.stderr
    benchmarks = json.loads(path.read_text(encoding="utf-8"))["benchmarks"]
    assert benchmarks["missing"]["status"] != 0
    assert benchmarks["imports"]["rows"] != []


def test_peers_says_which_peer_is_not_known() -> None:
    done = execute("peers", "--only", "ours,unknown")

    assert done.returncode == 2
    assert "got unknown" in done.stderr


def test_peers_says_why_a_peer_is_not_measured(tmp_path: Path) -> None:
    (tmp_path / "segment").mkdir()
    (tmp_path / "segment" / "__init__.py").write_text('raise ImportError("it is broken")', encoding="utf-8")
    folders = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])

    done = execute("peers", "--quick", "--only", "segment", "--tables", "1,3", PYTHONPATH=folders)

    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.strip().startswith("Segment")]
    assert [row.split(maxsplit=1)[1] for row in rows] == ["not measured: ImportError: it is broken"] * 2


# Comparing


def compare(tmp_path: Path, old: list[dict[str, Any]], new: list[dict[str, Any]], *arguments: str) -> list[str]:
    files = write_results(tmp_path / "old.json", track=old), write_results(tmp_path / "new.json", track=new)
    done = execute("compare", *files, *arguments)
    assert done.returncode == 0, done.stderr
    return [line.strip() for line in done.stdout.splitlines() if line.startswith("  track")]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (row("calls", "100/s", 100, "/s"), row("calls", "200/s", 200, "/s"), "2.00  better"),
        (row("calls", "100/s", 100, "/s"), row("calls", "50/s", 50, "/s"), "0.50  worse"),
        (row("lag", "1 ms", 1, "ms"), row("lag", "2 ms", 2, "ms"), "2.00  worse"),
        (row("lag", "2 ms", 2, "ms"), row("lag", "1 ms", 1, "ms"), "0.50  better"),
        (row("lag", "2.0 ms", 2, "ms"), row("lag", "2.1 ms", 2.1, "ms"), "1.05"),
    ],
)
def test_a_change_above_the_threshold_is_marked(
    old: dict[str, Any], new: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    (line,) = compare(tmp_path, [old], [new])

    assert line.endswith(f" {expected}")


def test_the_threshold_can_be_set(tmp_path: Path) -> None:
    rows = [row("calls", "100/s", 100, "/s")], [row("calls", "108/s", 108, "/s")]

    assert compare(tmp_path, *rows, "--threshold", "0.05")[0].endswith("1.08  better")
    assert compare(tmp_path, *rows, "--threshold", "0.10")[0].endswith("1.08")
    assert compare(tmp_path, *rows, "--threshold", "0.10", "--marked") == []


def test_ratios_are_compared_where_both_have_one(tmp_path: Path) -> None:
    (line,) = compare(tmp_path, [row("calls", "100/s", 100, "/s", 0.5)], [row("calls", "40/s", 40, "/s", 0.5)])

    assert line.split() == ["track:", "calls", "100/s", "(0.50)", "40/s", "(0.50)", "1.00"]


def test_rows_of_the_same_label_are_compared_in_their_order(tmp_path: Path) -> None:
    old = [row("calls", "10/s", 10, "/s"), row("calls", "20/s", 20, "/s")]
    new = [row("calls", "10/s", 10, "/s"), row("calls", "60/s", 60, "/s")]

    first, second = compare(tmp_path, old, new)

    assert first.endswith(" 1.00")
    assert second.endswith(" 3.00  better")


def test_rows_that_only_one_file_has_are_named(tmp_path: Path) -> None:
    lines = compare(tmp_path, [row("before", "1 ms", 1, "ms")], [row("after", "1 ms", 1, "ms")])

    assert [line.split()[-1] for line in lines] == ["new", "gone"]


def test_figures_that_are_no_numbers_or_of_other_units_are_not_compared(tmp_path: Path) -> None:
    old = [row("pair", "1 : 2", None, ""), row("size", "1 MB", 1, "MB"), row("lost", "0 lost", 0, "lost")]
    new = [row("pair", "3 : 4", None, ""), row("size", "900 KB", 900, "KB"), row("lost", "5 lost", 5, "lost")]

    lines = compare(tmp_path, old, new)

    assert [line.split()[-1] for line in lines] == ["4", "KB", "lost"]


# The sink


@pytest.fixture
def recorder() -> Iterator[sink.Recorder]:
    with sink.recording() as recorder:
        yield recorder


def send(recorder: sink.Recorder, body: bytes, **headers: str) -> int:
    return httpx.post(f"{recorder.url}/v1/batch", content=body, headers=headers).status_code


@pytest.mark.parametrize(
    ("encoding", "compress"), [("identity", bytes), ("gzip", gzip.compress), ("deflate", zlib.compress)]
)
def test_the_sink_counts_different_events_in_compressed_requests(
    recorder: sink.Recorder, encoding: str, compress: Any
) -> None:
    for body in (b'["sku-1", "sku-2"]', b'["sku-2", "sku-3"]'):
        assert send(recorder, compress(body), **{"Content-Encoding": encoding}) == 200

    assert recorder.count() == 3
    assert recorder.report()["sizes"] == [2, 2]


def test_the_sink_reads_the_encoded_events_of_snowplow(recorder: sink.Recorder) -> None:
    event = base64.urlsafe_b64encode(b'{"item_id": "sku-7"}').decode()

    send(recorder, json.dumps({"data": [{"e": "ue", "ue_px": event}]}).encode())

    assert recorder.count() == 1


def test_the_sink_tells_when_an_event_was_sent_and_arrived(recorder: sink.Recorder) -> None:
    sent = round(time.time(), 6)

    send(recorder, f'{{"item_id":"sku-5-{sent:.6f}"}}'.encode())

    ((number, reported, arrived),) = recorder.report()["events"]
    assert (number, reported) == (5, sent)
    # Clocks of two processes on one machine.
    assert arrived >= sent - 1


def test_the_sink_keeps_nothing_while_it_responds_with_503(recorder: sink.Recorder) -> None:
    recorder.respond_with(503)
    assert send(recorder, b"sku-1") == 503
    recorder.respond_with(200)
    assert send(recorder, b"sku-2") == 200

    report = recorder.report()
    assert [event[0] for event in report["events"]] == [2]
    assert report["refused"] == 1


def test_the_sink_responds_to_each_command_of_this_sdk(recorder: sink.Recorder) -> None:
    commands = json.dumps({"commands": [{"command_id": "a"}, {"command_id": "b"}]}, separators=(",", ":"))

    response = httpx.post(f"{recorder.url}/track/v2/projects/bench/batch", content=commands).json()

    assert [result["command_id"] for result in response["results"]] == ["a", "b"]
