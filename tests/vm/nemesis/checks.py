"""Judges what was recorded. Every fault it tells is a proof: the promise, and the records that contradict each other.

Input are plain lists and dictionaries, so that histories made up by a test are judged like real ones.
"""

import math
import re
from collections import Counter, defaultdict

import linear
from history import clock
from work import HEALTH_MIN, Job

TERMINAL = {"finished", "failed", "killed", "error", "lost", "dropped", "gone", "gone-by-operator", "unknown"}

# A decision was made on a state at most that much older than the time in its command, by the masters' one clock.
DECISION_SECONDS = 30


# Registers and the set.


def registers(operations: list[dict]) -> list[str]:
    """Every register is linearizable."""
    histories = defaultdict(list)
    for op in operations:
        if op["key"].startswith(("app ", "job ")) and op["outcome"] != "fail":
            histories[op["key"]].append(op)
    faults = []
    for key, ops in sorted(histories.items()):
        verdict = linear.check([as_op(op) for op in ops])
        if not verdict.good:
            faults.append(unexplained(key, ops, verdict))
    return faults


def as_op(op: dict) -> linear.Op:
    known = op["outcome"] == "ok"
    return linear.Op(
        op["begin"],
        op["end"] if known else None,
        op["op"],
        op.get("value"),
        op.get("did", True) if known else None,
        tell(op),
    )


def unexplained(key: str, ops: list[dict], verdict: linear.Verdict) -> str:
    stuck = verdict.stuck
    near = [op for op in ops if op["begin"] <= stuck.end and (op["end"] >= stuck.begin - 15 or op["outcome"] == "info")]
    lines = "\n".join(f"      {tell(op)}" for op in sorted(near, key=lambda op: op["begin"]))
    return (
        f"register {key} is not linearizable: nothing explains\n      {stuck.line}\n"
        f"    it may have held {', '.join(verdict.values)}; what was near:\n{lines}"
    )


def tell(op: dict) -> str:
    what = f"{op['op']} {op.get('value')!r}" + (f" did={op['did']}" if "did" in op else "")
    said = f" ({op['said']})" if op.get("said") else ""
    return f"{clock(op['begin'])} – {clock(op['end'])} {op['client']} via {op.get('through')}: {what} → {op['outcome']}{said}"


def the_set(operations: list[dict]) -> list[str]:
    """What was acknowledged is in every list that was asked for later; what was deleted is in none."""
    ops = [op for op in operations if op["key"] == "set"]
    adds = {op["value"]: op for op in ops if op["op"] == "add"}
    removes = {op["value"]: op for op in ops if op["op"] == "remove"}
    faults = []
    for op in ops:
        if op["op"] == "remove" and op.get("absent") and adds[op["value"]]["outcome"] == "ok":
            faults.append(
                f"an acknowledged element was not there to be removed:\n      {tell(adds[op['value']])}\n      {tell(op)}"
            )
        if op["op"] != "list" or op["outcome"] != "ok":
            continue
        there = set(op["value"])
        shown = tell(op | {"value": f"{len(there)} elements"})
        for element, add in adds.items():
            remove = removes.get(element)
            must = (
                add["outcome"] == "ok"
                and add["end"] < op["begin"]
                and (remove is None or remove["begin"] > op["end"] or remove["outcome"] == "fail")
            )
            removed = remove is not None and remove["outcome"] == "ok" and remove["end"] < op["begin"]
            may = add["outcome"] != "fail" and add["begin"] < op["end"] and not removed
            if must and element not in there:
                faults.append(f"an acknowledged element is missing:\n      {tell(add)}\n      {shown}")
            if element in there and not may:
                why = tell(remove) if removed else tell(add)
                faults.append(f"an element is there that must not be:\n      {why}\n      {shown}")
        for element in there - adds.keys():
            faults.append(f"{element} is there, and nobody added it:\n      {shown}")
    return faults


# Jobs.

RUN = re.compile(r"(?P<job>[^@]+)@(?P<ms>\d+)")
TASK = re.compile(r"ct:(?P<ms>\d+):(?P<attempt>\d+):(?P<job>[^:]+):")


def slots(entries: dict[int, list[dict]], job: Job, first_slot: int) -> list[str]:
    """Each slot from the first one to the newest begins one run, and only one; runs of a job that must not overlap itself
    do not; and no run is given up."""
    faults = []
    live: set[str] = set()
    begun: dict[str, int] = {}
    done: dict[str, str] = {}
    for index in sorted(entries):
        for event in entries[index]:
            if event["type"] != "run-changed" or event.get("job") != job.name:
                continue
            run, state = event["run"], event["state"]
            if run in done:
                faults.append(f"run {run} was over ({done[run]}) and goes on at index {index}: {event}")
            if run not in begun:
                if state != "queued":
                    faults.append(f"run {run} does not begin in the queue at index {index}: {event}")
                if live and not job.concurrent:
                    faults.append(
                        f"run {run} of a job that must not overlap itself begins at index {index} while {sorted(live)} live"
                    )
            begun.setdefault(run, index)
            live.add(run)
            if state not in ("queued", "active", "ending"):
                done[run] = state
                live.discard(run)
                if state != "finished":
                    faults.append(f"run {run} ended as {state} at index {index}: {event}")
    if job.parents or not begun:
        return faults
    slots = sorted(int(RUN.fullmatch(run)["ms"]) for run in begun)
    step = job.seconds * 1000
    off = [slot for slot in slots if (slot - first_slot * 1000) % step]
    if off:
        faults.append(f"job {job.name} has runs for times that are no slots, a second run for one: {off}")
    missing = sorted(set(range(first_slot * 1000, slots[-1] + 1, step)) - set(slots))
    if missing:
        faults.append(f"job {job.name}: slots that never began a run: {missing} of {first_slot * 1000}…{slots[-1]}")
    return faults


def attempts(entries: dict[int, list[dict]], books: dict[str, list[tuple[str, float]]], jobs: list[Job]) -> list[str]:
    """No task was executed twice; an attempt follows one that ended badly, and only such; a success was really executed,
    where the masters believe it was; nothing was executed that nobody launched."""
    faults = []
    executed = Counter(task for lines in books.values() for task, _ in lines)
    where = {task: node for node, lines in books.items() for task, _ in lines}
    for task, count in executed.items():
        if count > 1:
            places = [f"{node} at {at}" for node, lines in books.items() for each, at in lines if each == task]
            faults.append(f"task {task} was executed {count} times: {', '.join(places)}")
    ended: dict[str, str] = {}
    launched: set[str] = set()
    wanted = {job.name: job for job in jobs}
    for index in sorted(entries):
        for event in entries[index]:
            if event["type"] != "task-changed":
                continue
            task, state = event["task"], event["state"]
            is_new = task not in launched
            launched.add(task)
            if task in ended:
                faults.append(f"task {task} was over ({ended[task]}) and goes on at index {index}: {event}")
            if state in TERMINAL:
                ended[task] = state
            found = TASK.fullmatch(task)
            if not found or found["job"] not in wanted:
                continue
            attempt, job = int(found["attempt"]), wanted[found["job"]]
            if is_new and attempt > 0:
                before = f"ct:{found['ms']}:{attempt - 1}:{found['job']}:"
                if before in launched and ended.get(before) in (None, "finished", "killed"):
                    faults.append(
                        f"task {task} is staged at index {index}, and the attempt before it is {ended.get(before) or 'not over'}"
                    )
            if state == "finished":
                if attempt < job.good_attempt:
                    faults.append(f"task {task} is told to have succeeded, and its program fails in that attempt: {event}")
                if task not in executed:
                    faults.append(f"task {task} is told to have succeeded, and no node executed it: index {index}: {event}")
                elif where[task] != event["node"]:
                    faults.append(f"task {task} succeeded on {event['node']}, and {where[task]} executed it")
    for task in executed.keys() - launched:
        faults.append(f"task {task} was executed on {where[task]}, and nobody launched it")
    return faults


def dependents(entries: dict[int, list[dict]], job: Job) -> list[str]:
    """A dependent job starts when every parent has succeeded since it last started, and not otherwise."""
    faults = []
    counts = dict.fromkeys(job.parents, 0)
    begun, live = set(), set()
    last = 0
    for index in sorted(entries):
        for event in entries[index]:
            if event["type"] != "run-changed":
                continue
            if event["job"] in counts and event["state"] == "finished":
                counts[event["job"]] += 1
                last = index
            if event["job"] != job.name:
                continue
            if event["run"] not in begun:
                begun.add(event["run"])
                if not all(counts.values()):
                    faults.append(
                        f"run {event['run']} begins at index {index}, and since the last start "
                        f"its parents succeeded {counts} times"
                    )
                counts = dict.fromkeys(job.parents, 0)
            live.add(event["run"])
            if event["state"] not in ("queued", "active", "ending"):
                live.discard(event["run"])
    if all(counts.values()) and not live:
        faults.append(f"job {job.name} did not start after its parents had succeeded {counts} times, lastly at index {last}")
    return faults


# Apps.

WANTED = re.compile(r"version \S+, (\d+) instances? wanted")
REPLACED = "told to end: a new version replaces it"


class AppState:
    """An app's tasks as the events told them up to some index."""

    def __init__(self):
        self.instances = 0
        # Task -> state, of those that are not over.
        self.tasks: dict[str, str] = {}
        self.ending: set[str] = set()
        # Those launched since the configuration last changed.
        self.current: set[str] = set()

    def running(self) -> set[str]:
        return {task for task, state in self.tasks.items() if state == "running"}

    def copy(self) -> "AppState":
        other = AppState()
        other.instances, other.tasks = self.instances, dict(self.tasks)
        other.ending, other.current = set(self.ending), set(self.current)
        return other


def health(entries: dict[int, list[dict]], app: str, seconds_of) -> list[str]:
    """drover itself never ends a running instance because of a new version when that leaves fewer than the minimum; and it
    never launches one instance too many. What operators, crashes and silent nodes take away is not drover's doing: a decision
    is judged by what drover had on record when it was made, at any moment within DECISION_SECONDS before its command,
    but with everything it had told to end before."""
    faults = []
    now = AppState()
    # (time of the entry, the app's state after it), and what was told to end so far.
    past: list[tuple[float, AppState]] = []
    for index in sorted(entries):
        events = [event for event in entries[index] if event.get("app") == app]
        if not events:
            continue
        before = now.copy()
        replaced: dict[float, set[str]] = defaultdict(set)
        for event in events:
            if event["type"] == "app-changed" and (found := WANTED.fullmatch(event.get("message", ""))):
                if now.instances == int(found[1]):
                    # The shepherd changes either the number or the configuration.
                    now.current.clear()
                now.instances = int(found[1])
            if event["type"] != "task-changed":
                continue
            task, state = event["task"], event["state"]
            if state == "staging" and task not in now.tasks:
                faults += beyond(now, task, app, index)
                now.current.add(task)
            if state in TERMINAL:
                now.tasks.pop(task, None)
                now.ending.discard(task)
                continue
            now.tasks[task] = state
            if event.get("message", "").startswith("told to end: ") and task not in now.ending:
                now.ending.add(task)
                if event["message"] == REPLACED:
                    replaced[seconds_of(event["at"])].add(task)
        for at, victims in replaced.items():
            candidates = [state for time, state in past if time >= at - DECISION_SECONDS] + past_last(past, at)
            candidates.append(before)
            if not any(allows(state, victims, before.ending) for state in candidates):
                faults.append(
                    f"{app}: at index {index} drover ends {sorted(victims)} for a new version, and that leaves less than "
                    f"{HEALTH_MIN:.0%} of {before.instances}: running {sorted(before.running())}, ending {sorted(before.ending)}"
                )
        newest = max(seconds_of(event["at"]) for event in events)
        past.append((newest, now.copy()))
    return faults


def past_last(past, at: float) -> list[AppState]:
    """The newest state from before the window: it is what held when the window began."""
    older = [state for time, state in past if time < at - DECISION_SECONDS]
    return older[-1:]


def allows(state: AppState, victims: set[str], ending: set[str]) -> bool:
    """Whether the victims could be ended on that state, but without what had been told to end already."""
    healthy = state.running() - ending
    left = healthy - victims
    return left == healthy or len(left) >= math.ceil(state.instances * HEALTH_MIN)


def beyond(now: AppState, task: str, app: str, index: int) -> list[str]:
    """Whether one more instance of the present configuration is one too many: what two leaders must not do."""
    active = {each for each in now.current - now.ending if now.tasks.get(each) in ("staging", "starting", "running")}
    if len(active) < now.instances:
        return []
    return [f"{app}: at index {index} {task} is launched beside {sorted(active)}, and {now.instances} are wanted"]
