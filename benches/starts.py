"""Task starts a second of one agent, against a bare loop of StartTransientUnit on the same node.

The agent starts an app's instances as it does for anybody: the master places them, the agent puts each on record, asks
systemd, hears of the unit, reports. The bare loop asks systemd for units with the same properties in the same slices, as
many at a time, and does nothing else; the agent is stopped meanwhile. The time of both is taken by PID 1's own clock, from
the first unit that leaves "inactive" to the last that becomes "active".
"""

import statistics
import time

import cluster
import machine
from report import Ratio, Report, Table, number, spread

TARGET = 0.8
# As many as an agent has under way: STARTS_MAX of daemon/core/src/node.rs.
AT_ONCE = 8
# Units that are there already, and how many are started on top; and how often.
CASES = [(0, 100, 4), (0, 300, 4), (200, 300, 3), (500, 300, 3)]
LEDGER = "/var/lib/droverd/agent/ledger"


def prepare() -> list:
    return cluster.hold_roots()


def measure(enclosure) -> Report:
    # A node that is silent because its agent is stopped is not to be given up.
    nodes = cluster.Cluster(enclosure, 1, 1, 'agent_timeout = "1h"\n')
    [agent] = nodes.agents
    agent.copy_from_host(str(machine.BARE_STARTS), "/usr/local/bin/bare_starts")
    report = Report("starts")
    table = Table(
        "Starts a second by PID 1's clock: median of the rounds, and between what they lay",
        ["units there", "started", "agent", "bare loop", "ratio", "wish to all known running, s", "agent's CPU ms a start",
         "PID 1's, by the agent", "PID 1's, bare"],
    )  # fmt: skip
    ratios = {}
    for there, count, rounds in CASES:
        nodes.deploy("/there", there)
        agents, bares, whole, costs, pid1s, pid1_bares = [], [], [], [], [], []
        for _ in range(rounds):
            rate, seconds, cost, pid1 = by_agent(nodes, agent, count)
            agents.append(rate)
            whole.append(seconds)
            costs.append(cost)
            pid1s.append(pid1)
            rate, pid1 = bare(nodes, agent, count)
            bares.append(rate)
            pid1_bares.append(pid1)
        each = [ours / theirs for ours, theirs in zip(agents, bares)]
        ratios[there, count] = each
        table.add(str(there), str(count), spread(agents), spread(bares), spread(each), statistics.median(whole),
                  statistics.median(costs), statistics.median(pid1s), statistics.median(pid1_bares))  # fmt: skip
    for (there, count), each in ratios.items():
        name = f"starts-{count}" + (f"-on-{there}" if there else "")
        meaning = f"{count} starts beside {there} units, over the bare loop's rate; rounds {number(min(each))}–{number(max(each))}"
        report.ratios.append(Ratio(name, statistics.median(each), TARGET, meaning))
    report.tables.append(table)
    report.machine["systemd"] = agent.succeed("systemctl --version").split()[1]
    report.notes.append("Master, agent, PID 1, the bus and the tasks share the machine's processors in this figure.")
    return report


def by_agent(nodes, agent, count: int) -> tuple[float, float, float, float]:
    used, pid1 = cluster.cpu_seconds(agent, "droverd-agent"), pid1_seconds(agent)
    began = time.monotonic()
    nodes.deploy("/bench", count)
    seconds = time.monotonic() - began
    cost = (cluster.cpu_seconds(agent, "droverd-agent") - used) / count * 1000
    pid1 = (pid1_seconds(agent) - pid1) / count * 1000
    rate = rate_of(agent, "drover-bench.*", count)
    nodes.deploy("/bench", 0)
    return rate, seconds, cost, pid1


def bare(nodes, agent, count: int) -> tuple[float, float]:
    agent.succeed("systemctl stop droverd-agent")
    pid1 = pid1_seconds(agent)
    agent.succeed(f"bare_starts {LEDGER} {count} {AT_ONCE}")
    pid1 = (pid1_seconds(agent) - pid1) / count * 1000
    rate = rate_of(agent, "drover-bare.*", count)
    agent.succeed("systemctl stop 'drover-bare.*'", "systemctl start droverd-agent")
    nodes.wait("the agent is back", lambda: nodes.ask("GET", "/drover/v1/status")["agents"]["up"] == 1)
    return rate, pid1


def rate_of(agent, pattern: str, count: int) -> float:
    shown = agent.succeed(f"systemctl show --property=InactiveExitTimestampMonotonic,ActiveEnterTimestampMonotonic '{pattern}'")
    times = {"InactiveExitTimestampMonotonic": [], "ActiveEnterTimestampMonotonic": []}
    for line in shown.split():
        key, _, value = line.partition("=")
        times[key].append(int(value))
    began, ended = times.values()
    if len(began) != count or min(ended) == 0:
        raise machine.host.LabError(f"{len(began)} units of {pattern} are there instead of {count}, or one does not run")
    return count / (max(ended) - min(began)) * 1e6


def pid1_seconds(agent) -> float:
    return int(agent.succeed("cat /proc/1/schedstat").split()[0]) / 1e9
