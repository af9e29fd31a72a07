"""What a benchmark found: told on the screen, kept in target/bench, written into docs/benchmarks.md."""

import json
import statistics
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
KEPT = REPO / "target/bench"
PAGE = REPO / "docs/benchmarks.md"
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"


@dataclass(frozen=True)
class Ratio:
    """One figure that has a target. `at_most` says on which side of the target is good."""

    name: str
    value: float
    target: float
    meaning: str
    at_most: bool = False

    @property
    def is_met(self) -> bool:
        return self.value <= self.target if self.at_most else self.value >= self.target

    @property
    def line(self) -> str:
        missed = "" if self.is_met else "  MISSED"
        return f"{self.name} ratio={number(self.value)} target={'<' if self.at_most else ''}{number(self.target)}{missed}"


@dataclass
class Table:
    title: str
    columns: list[str]
    rows: list[list[str]] = field(default_factory=list)

    def add(self, *cells) -> None:
        self.rows.append([cell if isinstance(cell, str) else number(cell) for cell in cells])


@dataclass
class Report:
    name: str
    ratios: list[Ratio] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    machine: dict = field(default_factory=dict)
    seconds: float = 0
    when: str = ""

    def tell(self) -> None:
        for table in self.tables:
            print(f"\n{table.title}")
            rows = [table.columns, *table.rows]
            widths = [max(len(row[at]) for row in rows) for at in range(len(table.columns))]
            for row in rows:
                print("  " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths)))
        print()
        for note in self.notes:
            print(note)
        for ratio in self.ratios:
            print(ratio.line)

    def keep(self) -> None:
        self.when = time.strftime("%Y-%m-%d")
        KEPT.mkdir(parents=True, exist_ok=True)
        (KEPT / f"{self.name}.json").write_text(json.dumps(asdict(self), indent=1) + "\n")


def kept(name: str) -> Report | None:
    path = KEPT / f"{name}.json"
    if not path.exists():
        return None
    raw = json.loads(path.read_text())
    ratios = [Ratio(**ratio) for ratio in raw.pop("ratios")]
    tables = [Table(**table) for table in raw.pop("tables")]
    return Report(ratios=ratios, tables=tables, **raw)


def write_page(names: list[str]) -> None:
    """Puts what is kept between the page's two marks; what is written by hand around them stays."""
    reports = [report for report in map(kept, names) if report]
    lines = []
    if reports:
        lines += ["| Benchmark | Ratio | Target | Meaning |", "|---|---|---|---|"]
        for ratio in [ratio for report in reports for ratio in report.ratios]:
            side = "at most" if ratio.at_most else "at least"
            missed = "" if ratio.is_met else ", missed"
            lines.append(f"| `{ratio.name}` | {number(ratio.value)} | {side} {number(ratio.target)}{missed} | {ratio.meaning} |")
    for report in reports:
        lines += ["", f"### {report.name}", "", f"`./bench {report.name}`, {report.when}, {report.seconds:.0f} s."]
        for table in report.tables:
            lines += ["", f"{table.title}:", "", f"| {' | '.join(table.columns)} |", "|" + "---|" * len(table.columns)]
            lines += [f"| {' | '.join(row)} |" for row in table.rows]
        if report.notes:
            lines += ["", *[f"- {note}" for note in report.notes]]
    machines = {json.dumps(report.machine, sort_keys=True): report.machine for report in reports}
    for machine in machines.values():
        lines += ["", "Measured on: " + "; ".join(f"{key} {value}" for key, value in machine.items()) + "."]
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(before + BEGIN + "\n" + "\n".join(lines).strip() + "\n" + END + after)


def number(value: float) -> str:
    """Three figures that mean something."""
    if value != value:
        return "?"
    if value == int(value) and abs(value) < 1e6 or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"


def spread(values: list[float]) -> str:
    """The median, and between what the rounds lay."""
    return f"{number(statistics.median(values))} ({number(min(values))}–{number(max(values))})"
