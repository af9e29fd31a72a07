"""After a storm everything is healed, and the cluster recovers: within a bound all is as wished, on the real nodes too, and
all masters hold the same state.
"""

import json
import time

from lab.host import LabError
from work import FLEETS

# How long a cluster may take to recover, on a machine that is busy with other things as well.
RECOVERY_SECONDS = 300


class NotRecovered(Exception):
    """The bound has passed; the text says what was not as it should be."""


def recovered(cluster, within: float = RECOVERY_SECONDS, idle: bool = False) -> float:
    """Waits until all is as wished, and returns how long that took. With `idle` nothing else may be there either, and the
    masters must have caught up to the last entry."""
    began = time.monotonic()
    while True:
        try:
            # A removal whose answer was lost may show as late as now.
            cluster.bring_back()
            everybody_takes_part(cluster)
            apps_are_as_wished(cluster, idle)
            if idle:
                same_state(cluster)
                ledgers_hold_what_runs(cluster)
            # All masters agree on who they are: nothing is on its way any more that could change it.
            cluster.leaving.clear()
            return time.monotonic() - began
        except (AssertionError, TimeoutError, LookupError, OSError, LabError) as problem:
            last = str(problem) or repr(problem)
        if time.monotonic() - began > within:
            raise NotRecovered(f"not within {within} s of healing: {last}")
        time.sleep(0.5)


def everybody_takes_part(cluster) -> None:
    _, seen = cluster.ask("GET", "/drover/v1/status", within=5)
    roles = sorted(master["role"] for master in seen["masters"])
    assert roles == ["follower"] * (len(cluster.masters) - 1) + ["leader"], f"masters are {seen['masters']}"
    silent = [master for master in seen["masters"] if (master.get("seenAgoMs") or 0) > 5000]
    assert not silent, f"masters do not answer their leader: {silent}"
    assert seen["agents"] == {"up": len(cluster.agents), "unreachable": 0}, f"agents are {seen['agents']}"


def apps_are_as_wished(cluster, idle: bool) -> None:
    """Exactly so many instances as wanted, by drover's word and by systemd's."""
    _, answer = cluster.ask("GET", "/drover/v1/tasks", within=5)
    tasks = [task for task in answer["tasks"] if idle or task.get("app")]
    for app in FLEETS:
        _, found = cluster.ask("GET", f"/v2/apps{app}", within=5)
        wanted, states = found["app"]["instances"], [task["state"] for task in tasks if task.get("app") == app]
        assert states == ["running"] * wanted, f"{app} wants {wanted} and has {states}"
        assert not found["app"]["deployments"], f"{app} is being deployed"
    for agent in cluster.agents:
        wanted = sorted(task["unit"] for task in tasks if task["node"] == agent.name)
        there = units(cluster, agent)
        there = sorted(unit for unit in there if idle or "fleet" in unit)
        assert there == wanted, f"{agent.name} has units {there}, and the masters know of {wanted}"
        active = units(cluster, agent, "active")
        assert set(wanted) <= set(active), f"{agent.name}: of {wanted} only {active} are active"


def units(cluster, agent, state: str = "") -> list[str]:
    only = f"--state={state}" if state else "--all"
    status, out = cluster.on(agent, f"systemctl list-units {only} --plain --no-legend --full 'drover-*.service'", timeout=30)
    assert status == 0, f"{agent.name}: systemd does not answer: {out}"
    return [line.split()[0] for line in out.splitlines() if line.strip()]


def holds(cluster) -> dict[str, dict]:
    """What each master that answers holds: the index it has applied, and the digest of its state."""
    seen = {master.name: cluster.seen_by(master, "/drover/v1/state") for master in cluster.masters}
    return {name: state for name, state in seen.items() if state}


def same_state(cluster) -> None:
    states = holds(cluster)
    assert len(states) == len(cluster.masters), f"only {sorted(states)} tell what they hold"
    assert len({state["applied"] for state in states.values()}) == 1, f"they have applied different entries: {states}"
    assert len({state["digest"] for state in states.values()}) == 1, f"they hold different states of one index: {states}"


def ledgers_hold_what_runs(cluster) -> None:
    _, answer = cluster.ask("GET", "/drover/v1/tasks", within=5)
    for agent in cluster.agents:
        wanted = sorted(task["id"] for task in answer["tasks"] if task["node"] == agent.name)
        _, text = cluster.on(agent, "cat /var/lib/droverd/agent/ledger")
        known = tasks_of_ledger(text)
        assert known == wanted, f"the ledger of {agent.name} holds {known}, and the masters know of {wanted}"


def tasks_of_ledger(text: str) -> list[str]:
    """The tasks that an agent's ledger has not forgotten."""
    known: set[str] = set()
    for line in text.splitlines():
        record = json.loads(line)
        match record["record"]:
            case "assigned":
                known |= {task["id"] for task in record["tasks"]}
            case "task":
                known.add(record["id"])
            case "forgotten":
                known.discard(record["task"])
    return sorted(known)
