"""What a run says at its end: for people, and as JSON."""

import json
from collections import Counter

from history import clock


def write_outages(operations: list[dict]) -> list[tuple[float, float]]:
    """Between which two acknowledgements of writes, of any client, nothing was acknowledged; the longest first."""
    acknowledged = sorted(op["end"] for op in operations if op["op"] not in ("read", "list") and op["outcome"] == "ok")
    gaps = sorted(zip(acknowledged, acknowledged[1:]), key=lambda gap: gap[0] - gap[1])
    return gaps[:5]


def failovers(records: list[dict]) -> list[dict]:
    """After each fault that took the leader away, with a majority left: how long until a write that was begun later was
    acknowledged. Faults that overlap others tell of all of them together."""
    writes = [r for r in records if r["kind"] == "op" and r["op"] not in ("read", "list") and r["outcome"] == "ok"]
    writes.sort(key=lambda op: op["end"])
    found = []
    for fault in records:
        if fault["kind"] == "begun" and fault["hits_leader"] and fault["name"] not in ("power-majority", "power-all"):
            first = next((op["end"] for op in writes if op["begin"] > fault["at"]), None)
            if first is not None:
                found.append(
                    {
                        "fault": fault["name"],
                        "victim": fault["victim"],
                        "at": fault["at"],
                        "seconds": round(first - fault["at"], 2),
                    }
                )
    return sorted(found, key=lambda each: -each["seconds"])


def summary(history, violations: list[dict], facts: dict) -> dict:
    operations = history.of("op")
    by_kind = Counter(f"{op['op']} {op['outcome']}" for op in operations)
    begun = [record for record in history.of("begun")]
    return {
        **facts,
        "seconds": round(history.now(), 1),
        "operations": len(operations),
        "operationsByOutcome": dict(sorted(by_kind.items())),
        "faults": len(begun),
        "faultsByKind": dict(sorted(Counter(record["name"] for record in begun if not record["said"]).items())),
        "faultsThatCameToNothing": dict(sorted(Counter(record["name"] for record in begun if record["said"]).items())),
        "longestWriteOutages": [
            {"from": round(start, 2), "seconds": round(end - start, 2), "faults": during(history, start, end)}
            for start, end in write_outages(operations)
        ],
        "failovers": failovers(history.records)[:5],
        "recoveries": [round(record["seconds"], 1) for record in history.of("recovered")],
        "violations": violations,
    }


def during(history, start: float, end: float) -> list[str]:
    """The faults that were on in that time."""
    healed = {record["number"]: record["at"] for record in history.of("healed")}
    faults = [f for f in history.of("fault") if f["at"] < end and healed.get(f["number"], f["at"] + 3) > start]
    return [f"{fault['name']} ({fault['victim']})" for fault in faults]


def text(report: dict) -> str:
    lines = [
        f"nemesis: systemd {report['systemd']}, {report['masters']} masters, {report['agents']} agents, seed {report['seed']}",
        f"{report['seconds'] / 60:.1f} minutes, {report['operations']} operations, {report['faults']} faults, "
        f"{report['entries']} log entries with events, terms {report['terms']}",
        "",
        "operations by kind and outcome:",
        *columns(report["operationsByOutcome"]),
        "faults by kind:",
        *columns(report["faultsByKind"]),
    ]
    if report["faultsThatCameToNothing"]:
        lines += ["of these kinds some came to nothing:", *columns(report["faultsThatCameToNothing"])]
    lines.append("longest times without an acknowledged write:")
    for outage in report["longestWriteOutages"]:
        lines.append(f"  {outage['seconds']:6.2f} s from {clock(outage['from'])}: {'; '.join(outage['faults']) or 'no fault'}")
    lines.append("longest from the loss of a leader to the next acknowledged write:")
    lines += [
        f"  {each['seconds']:6.2f} s {each['fault']} ({each['victim']}) at {clock(each['at'])}" for each in report["failovers"]
    ]
    lines.append(f"recovered after each storm, in seconds: {', '.join(map(str, report['recoveries'])) or 'never'}")
    lines.append("judged:")
    lines += [f"  {name}: {how}" for name, how in report["judged"].items()]
    lines.append("")
    for violation in report["violations"]:
        lines.append(f"VIOLATION ({violation['promise']}): {violation['what']}")
    lines.append(f"{len(report['violations'])} violations; again with: {report['command']}")
    return "\n".join(lines)


def save(place, report: dict) -> None:
    (place / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    (place / "report.txt").write_text(text(report) + "\n")


def columns(counts: dict[str, int]) -> list[str]:
    return [f"  {count:7d} {name}" for name, count in counts.items()]
