"""Time from a node's power cut to its instances running elsewhere, three nodes at default settings.

The floor is the configured `agent_timeout` (15 s): a node is given up when it was silent for so long, and its last sign of
life is up to a heartbeat (3 s) older than the cut. The app asks for no further delay.
"""

import statistics
import time

import cluster
from report import Ratio, Report, Table, spread

# Default `agent_timeout`, seconds.
FLOOR = 15.0
TARGET = 1.1
# Instances, spread over three nodes, and how often.
CASES = [(3, 2), (30, 2), (150, 2)]


def prepare() -> list:
    return cluster.hold_roots()


def measure(enclosure) -> Report:
    nodes = cluster.Cluster(enclosure, 1, 3)
    report = Report("nodeloss")
    table = Table("Seconds from the cut", ["instances lost", "times", "first replaced", "all replaced"])
    every = []
    turn = 0
    for instances, times in CASES:
        nodes.deploy("/lost", instances, constraints=[["hostname", "GROUP_BY"]])
        firsts, alls, lost_at_once = [], [], set()
        for _ in range(times):
            node = nodes.agents[turn % len(nodes.agents)]
            turn += 1
            lost, first, last = lose(nodes, node, instances)
            lost_at_once.add(lost)
            firsts.append(first)
            alls.append(last)
        every += alls
        table.add("–".join(map(str, sorted(lost_at_once))), str(times), spread(firsts), spread(alls))
    report.tables.append(table)
    median = statistics.median(every)
    report.ratios.append(Ratio("nodeloss", median / FLOOR, TARGET, f"{median:.1f} s until all lost instances run elsewhere, over agent_timeout ({FLOOR:g} s)", True))
    return report


def lose(nodes, node, instances: int) -> tuple[int, float, float]:
    """Cuts a node's power: how many instances it had, and when the first and the last of them ran elsewhere."""
    before = nodes.running("/lost")
    left = {task["id"] for task in before if task["node"] != node.name}
    nodes.story.cut_power(node)
    began = time.monotonic()
    first = None

    def replaced() -> bool:
        nonlocal first
        there = [task for task in nodes.running("/lost") if task["node"] != node.name]
        if first is None and any(task["id"] not in left for task in there):
            first = time.monotonic() - began
        return len(there) >= instances

    nodes.wait("all instances run elsewhere", replaced, 120)
    last = time.monotonic() - began
    nodes.story.power_on(node)
    nodes.story.wait_whole()
    # Instances go back to where there is room for the next round: scaled anew, they spread.
    nodes.deploy("/lost", 0, constraints=[["hostname", "GROUP_BY"]])
    nodes.deploy("/lost", instances, constraints=[["hostname", "GROUP_BY"]])
    return len(before) - len(left), first, last
