"""What an idle cluster sends: bytes and packets a second, and what it writes, which is nothing.

Three masters and 1, 3, 6 agents with a few tasks each, at default settings. The counters of every node's port of the bridge
are read at the beginning and the end of the time; each packet is counted once, where it leaves its node. Beside it stand the
entries that the log grew by.
"""

import json
import re
import time

import cluster
from lab import host
from report import Ratio, Report, Table

# Agents, and seconds of watching.
CASES = [(1, 30), (3, 61), (6, 30)]
AGENTS = CASES[-1][0]


def prepare() -> list:
    return cluster.hold_roots()


def measure(enclosure) -> Report:
    nodes = cluster.Cluster(enclosure, 3, AGENTS)
    report = Report("idletraffic")
    table = Table(
        "Idle, three masters",
        ["agents", "seconds", "KiB/s", "packets/s", "of it between masters KiB/s", "packets/s", "each agent, both ways B/s", "log entries"],
    )
    entries = 0
    nodes.deploy("/idle", 3 * AGENTS)
    for agent in nodes.agents[CASES[0][0] :]:
        agent.succeed("systemctl stop droverd-agent")
    for agents, seconds in CASES:
        for agent in nodes.agents[:agents]:
            agent.succeed("systemctl start droverd-agent")
        nodes.wait(f"{agents} agents are up", lambda: nodes.ask("GET", "/drover/v1/status")["agents"]["up"] == agents)
        nodes.wait("all is settled", lambda: settled(nodes), 120)
        grown, share = watch(nodes, nodes.agents[:agents], seconds)
        entries += grown
        table.add(str(agents), str(seconds), *share, str(grown))
    report.tables.append(table)
    report.ratios.append(Ratio("idletraffic", entries, 0, "log entries appended while idle", True))
    return report


def settled(nodes) -> bool:
    before = log_end(nodes)
    time.sleep(2)
    return log_end(nodes) == before and not nodes.ask("GET", "/v2/deployments")


def watch(nodes, agents, seconds: float) -> tuple[int, list[float]]:
    chosen = nodes.masters + agents
    end, before, began = log_end(nodes), {node.name: sent(node) for node in chosen}, time.monotonic()
    time.sleep(seconds)
    after, took = {node.name: sent(node) for node in chosen}, time.monotonic() - began
    rates = {name: [(now - then) / took for now, then in zip(after[name], before[name])] for name in before}
    heard = {agent.name: rates[agent.name] for agent in agents}
    whole = [sum(rate[at] for rate in rates.values()) for at in range(4)]
    # What agents send and get is all that masters exchange with anybody but each other.
    by_agents = [sum(rate[at] for rate in heard.values()) for at in range(4)]
    both_ways = [by_agents[0] + by_agents[2], by_agents[1] + by_agents[3]]
    between = [whole[0] - both_ways[0], whole[1] - both_ways[1]]
    share = [whole[0] / 1024, whole[1], between[0] / 1024, between[1], both_ways[0] / len(agents)]
    return log_end(nodes) - end, share


def sent(node) -> list[int]:
    """Bytes and packets that a node sent, and that were sent to it, by its port of the bridge."""
    [link] = json.loads(host.run("ip", "-statistics", "-json", "link", "show", "dev", node.link))
    counters = link["stats64"]
    return [counters[way][what] for way in ("rx", "tx") for what in ("bytes", "packets")]


def log_end(nodes) -> int:
    """The index of the last entry of the leader's log."""
    _, told = cluster.request(nodes.leader().address, "GET", "/metrics", accept="text/plain")
    return int(float(re.search(rb"^drover_master_raft_log_index (\S+)$", told, re.M)[1]))
