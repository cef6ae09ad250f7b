"""
The tables of `peers.py`, as text or in Markdown, and the ratios of this SDK to its peers.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import bench
import results as results_of_run
from peer_clients import DRIVER, KINDS, OURS

Results = dict[str, Any]
#: A label, a figure, a ratio and a target.
Target = tuple[str, str, str, str]
OWN = (OURS, "power")


class Column(NamedTuple):
    """The title of a column, the name of its figure, and its format."""

    title: str
    name: str
    form: str

    def show(self, figures: Results) -> str:
        """Return the text in the cell."""
        return self.form.format(figures[self.name])


FULL = [
    Column("calls", "calls", "{:,.0f}/s"),
    Column("end to end", "end", "{:,.0f}/s"),
    Column("CPU/event", "cpu", "{:.0f} us"),
    Column("lag p99", "p99", "{:.1f} ms"),
    Column("lag max", "max", "{:.0f} ms"),
    Column("RSS, opened", "opened", "+{:.0f} MB"),
    Column("RSS, then", "growth", "+{:.0f} MB"),
    Column("events/request", "size", "{:.0f}"),
    Column("lost", "lost", "{:,.0f}"),
]
PACED = [
    Column("CPU/event", "gross", "{:.0f} us"),
    Column("net", "net", "{:.0f} us"),
    Column("lag p99", "p99", "{:.2f} ms"),
    Column("lag max", "max", "{:.0f} ms"),
    Column("arrived, median", "half", "{:.2f} s"),
    Column("arrived, p99", "most", "{:.2f} s"),
    Column("events/request", "size", "{:.0f}"),
    Column("lost", "lost", "{:,.0f}"),
]
#: The columns that the driver alone has.
OF_THE_DRIVER = {"CPU/event", "lag p99", "lag max"}


def losses_of(figures: Results, what: str, kind: str) -> str:
    """Return how many events were lost at an end of the process."""
    if "error" in figures[what]:
        return f"not measured: {figures[what]['error']}"
    lost, finally_lost = figures[what]["lost"], figures[what]["finally"]
    return f"{finally_lost:,} ({lost:,} arrived after the next start)" if kind in OWN else f"{finally_lost:,}"


def outage_of(figures: Results, total: int) -> str:
    """Return how many events arrived after the outage, and when."""
    outage = figures["outage"]
    if "error" in outage:
        return f"not measured: {outage['error']}"
    when = f" within {outage['after']:.0f} s" if outage["delivered"] else ""
    return f"{outage['delivered']:,} of {total:,}{when}"


class Output:
    """Prints tables; the figures are also recorded as rows of a benchmark."""

    def __init__(self, *, markdown: bool, extent: dict[str, Any]) -> None:
        self.markdown = markdown
        self.extent = extent

    def table(self, title: str, columns: Iterable[str], rows: list[list[str]]) -> None:
        """Print a table, whose first column is the name of the client; a row may consist of a reason only."""
        print(f"\n{title}\n")
        lines = [["", *columns], *rows]
        if self.markdown:
            lines.insert(1, ["---", *["---:" for _ in lines[0][1:]]])
            for line in lines:
                print(f"| {' | '.join(line).replace(' us', ' µs')} |")
        else:
            complete = [line for line in lines if len(line) == len(lines[0])]
            widths = [max(len(line[at]) for line in complete) for at in range(len(lines[0]))]
            widths[0] = max(len(line[0]) for line in lines)
            for line in lines:
                cells = [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=False)]
                print(f"  {'   '.join([line[0].ljust(widths[0]), *cells])}".rstrip())
        print()

    def figures(self, title: str, short: str, columns: list[Column], results: Results) -> None:
        """Print a table of figures, and record each of them."""
        rows = []
        for kind, figures in results.items():
            name = KINDS.get(kind, DRIVER).name
            if "error" in figures:
                rows.append([name, f"not measured: {figures['error']}"])
                continue
            shown = [each for each in columns if kind != "driver" or each.title in OF_THE_DRIVER]
            rows.append([name, *[each.show(figures) if each in shown else "" for each in columns]])
            for each in shown:
                bench.record(f"{short}: {name}: {each.title}", each.show(figures))
        self.table(title, [each.title for each in columns], rows)

    def full(self, results: Results) -> None:
        """Print the first table."""
        extent = self.extent
        self.figures(
            f"Full speed: {extent['total']:,} events from 200 tasks, then a flush; medians of {extent['rounds']}",
            "full speed",
            FULL,
            results,
        )
        peers = measured(results)
        ours = results.get(OURS, {})
        if not peers or "calls" not in ours:
            return
        rows = []
        for name, title, form, best, target in (
            ("calls", "calls", "{:,.0f}/s", max, "target 1.0"),
            ("end", "end to end", "{:,.0f}/s", max, "target 1.3"),
            ("cpu", "CPU per event", "{:.0f} us", min, "target under 0.7"),
        ):
            peer = best(peers, key=lambda kind: results[kind][name])
            best_of_peers = KINDS[peer].name, results[peer][name]
            rows.append(against(f"full speed: {title}, against the best peer", ours[name], form, best_of_peers, target))
        rows += [
            ("full speed: event-loop lag, 99th percentile", f"{ours['p99']:.2f} ms", "", "target under 8"),
            ("full speed: event-loop lag, maximum", f"{ours['max']:.2f} ms", "", "target under 25"),
        ]
        self.targets(rows)

    def targets(self, rows: list[Target]) -> None:
        """Print what this SDK reaches, with durability=process."""
        if self.markdown:
            self.table("This SDK, durability=process", ["", "ratio", "target"], [list(row) for row in rows])
            for row in rows:
                results_of_run.add(*row)
        else:
            for row in rows:
                bench.row(*row)

    def paced(self, results: Results) -> None:
        """Print the second table, once for each rate."""
        for rate, figures in results.items():
            seconds = self.extent["seconds"]
            short = f"{int(rate):,}/s"
            title = f"At a fixed rate: {short} from 50 callers for {seconds:g} s; net is without the driver"
            self.figures(title, short, PACED, figures)
            ours, segment = figures.get(OURS, {}), figures.get("segment", {})
            rows = []
            if "net" in ours and "net" in segment:
                rows.append(
                    against(
                        f"{short}: CPU net", ours["net"], "{:.0f} us", ("Segment", segment["net"]), "target under 1.0"
                    )
                )
            if "net" in ours:
                rows += [
                    (f"{short}: event-loop lag, 99th percentile", f"{ours['p99']:.2f} ms", "", "target under 1.5"),
                    (f"{short}: call to arrival, 99th percentile", f"{ours['most']:.2f} s", "", "target under 0.6"),
                ]
                self.targets(rows)

    def losses(self, results: Results) -> None:
        """Print the third table."""
        extent = self.extent
        columns = [
            f"lost at a normal exit, of {extent['left']:,}",
            f"lost at kill -9, of {extent['killed']:,}",
            "delivered after 15 s of 503",
        ]
        rows = []
        for kind, figures in results.items():
            name = KINDS[kind].name
            if "error" in figures["left"]:
                rows.append([name, f"not measured: {figures['left']['error']}"])
                continue
            ends = [losses_of(figures, what, kind) for what in ("left", "killed")]
            rows.append([name, *ends, outage_of(figures, extent["outage"])])
            for what, label in (("left", "normal exit"), ("killed", "kill -9")):
                if "error" not in figures[what]:
                    bench.record(f"lost at {label}: {name}", f"{figures[what]['finally']} lost")
            if "error" not in figures["outage"]:
                missing = extent["outage"] - figures["outage"]["delivered"]
                bench.record(f"not delivered after 503: {name}", f"{missing} lost")
        self.table("What is lost, with the default settings and without a flush", columns, rows)


def measured(results: Results) -> list[str]:
    """Return the peers that were measured and lost nothing."""
    return [kind for kind, figures in results.items() if kind not in OWN and not figures.get("lost", 1)]


def against(label: str, own: float, form: str, peer: tuple[str, float], target: str) -> Target:
    """Return the ratio of a figure to that of a peer."""
    name, other = peer
    return label, form.format(own), f"{own / other:.2f}" if other > 0 else "", f"{target} ({name} {form.format(other)})"
