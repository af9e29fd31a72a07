"""What an agent costs while its tasks only run: memory for each task, and CPU with 500 of them.

A node with its own master runs 0, 100, 250, 500 tasks that do nothing. Once all is settled, the CPU that systemd has
accounted to the agent's unit is read at the beginning and the end of the time, and the agent's memory at the end.
"""

import time

import cluster
from report import Ratio, Report, Table, number

# Tasks, and for how long it is watched; the last case is the one with the target.
CASES = [(0, 15), (100, 15), (250, 15), (500, 61)]
# Of one processor.
CPU_TARGET = 0.01


def prepare() -> list:
    return cluster.hold_roots()


def measure(enclosure) -> Report:
    nodes = cluster.Cluster(enclosure, 1, 1)
    [master], [agent] = nodes.masters, nodes.agents
    report = Report("idle")
    table = Table(
        "Idle, in percent of one processor, and memory",
        ["tasks", "agent CPU %", "its node's PID 1 and bus %", "master CPU %", "agent RSS MiB", "agent PSS MiB", "master PSS MiB"],
    )
    resident = {}
    for tasks, seconds in CASES:
        nodes.deploy("/idle", tasks)
        nodes.wait("nothing is under way", lambda: not nodes.ask("GET", "/v2/apps/idle")["app"]["deployments"])
        # The agent looks at a start once more after it has reported it; a moment later all of that is over.
        time.sleep(3)
        before, began = _used(master, agent), time.monotonic()
        time.sleep(seconds)
        after, took = _used(master, agent), time.monotonic() - began
        share = {who: (after[who] - before[who]) / took for who in before}
        own = cluster.memory(cluster.main_pid(agent, "droverd-agent"))
        masters = cluster.memory(cluster.main_pid(master, "droverd-master"))
        resident[tasks] = own["Pss"]
        table.add(str(tasks), share["agent"] * 100, share["systemd"] * 100, share["master"] * 100,
                  own["Rss"] / (1 << 20), own["Pss"] / (1 << 20), masters["Pss"] / (1 << 20))  # fmt: skip
    most = CASES[-1][0]
    each = (resident[most] - resident[0]) / most / 1024
    report.tables.append(table)
    report.ratios.append(Ratio("idle", share["agent"], CPU_TARGET, f"CPU of an agent with {most} tasks, of one processor", True))
    report.notes.append(f"An agent takes {number(each)} KiB for each task, beside {number(resident[0] / (1 << 20))} MiB of its own.")
    return report


def _used(master, agent) -> dict[str, float]:
    pid1 = int(agent.succeed("cat /proc/1/schedstat").split()[0]) / 1e9
    return {
        "agent": cluster.cpu_seconds(agent, "droverd-agent"),
        "master": cluster.cpu_seconds(master, "droverd-master"),
        "systemd": pid1 + cluster.cpu_seconds(agent, "dbus"),
    }
