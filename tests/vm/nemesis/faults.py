"""What the nemesis can do to a cluster: one function per kind of fault. Given the cluster and chance it chooses a victim,
and returns what to do to it and how to undo that; or None when it makes no sense now.

What a fault may not do is take the disks of a majority of the masters: no promise holds then. All may lose their power.
"""

import random
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass

import web
from lab.host import LabError, run

LEADER_ODDS = 0.5


@dataclass
class Fault:
    """`heal` may be called again and again until it succeeds; None when there is nothing to undo."""

    victim: str
    begin: Callable[[], object]
    heal: Callable[[], object] | None = None
    # How long it lasts, at least and at most.
    seconds: tuple[float, float] = (3, 20)
    # Nodes that no other such fault may touch meanwhile.
    holds: tuple[str, ...] = ()
    # Whether whoever leads at its beginning cannot lead on.
    hits_leader: bool = False


def a_master(cluster, chance: random.Random):
    """A master that commands run on, often the leader; and whether it leads."""
    leader = cluster.leader()
    if leader is not None and cluster.usable(leader) and chance.random() < LEADER_ODDS:
        return leader, True
    usable = [master for master in cluster.masters if cluster.usable(master)]
    master = chance.choice(usable) if usable else None
    return master, master is not None and master is leader


def an_agent(cluster, chance):
    usable = [agent for agent in cluster.agents if cluster.usable(agent)]
    return chance.choice(usable) if usable else None


# Daemons.


def kill_master(cluster, chance):
    master, leads = a_master(cluster, chance)
    return master and Fault(master.name, lambda: kill(cluster, master, "droverd-master"), hits_leader=leads)


def kill_agent(cluster, chance):
    agent = an_agent(cluster, chance)
    return agent and Fault(agent.name, lambda: kill(cluster, agent, "droverd-agent"))


def kill(cluster, machine, unit, signal="KILL"):
    return cluster.on(machine, f"systemctl kill --signal={signal} {unit}.service")


def pause_master(cluster, chance):
    master, leads = a_master(cluster, chance)
    return master and paused(cluster, master, "droverd-master", leads)


def pause_agent(cluster, chance):
    agent = an_agent(cluster, chance)
    return agent and paused(cluster, agent, "droverd-agent", False)


def paused(cluster, machine, unit, leads):
    def go_on():
        if cluster.usable(machine):
            kill(cluster, machine, unit, "CONT")

    return Fault(machine.name, lambda: kill(cluster, machine, unit, "STOP"), go_on, (2, 45), (machine.name,), leads)


def restart_leader(cluster, chance):
    leader = cluster.leader()
    if leader is None or not cluster.usable(leader):
        return None
    return Fault(leader.name, lambda: cluster.on(leader, "systemctl restart --no-block droverd-master"), hits_leader=True)


def rolling_restart(cluster, chance):
    if any(not cluster.usable(machine) for machine in cluster.machines):
        return None

    def restart():
        for role, machines in (("master", cluster.masters), ("agent", cluster.agents)):
            for machine in machines:
                cluster.on(machine, f"systemctl restart --no-block droverd-{role}")
                time.sleep(1.5)

    return Fault("every node", restart, hits_leader=True)


# Nodes.


def power_cut_of_a_master(cluster, chance):
    master, leads = a_master(cluster, chance)
    return master and dark(cluster, [master], (2, 30), leads)


def power_cut_of_an_agent(cluster, chance):
    agent = an_agent(cluster, chance)
    return agent and dark(cluster, [agent], (2, 50), False)


def power_cut_of_a_majority(cluster, chance):
    masters = [master for master in cluster.masters if cluster.usable(master)]
    chance.shuffle(masters)
    majority = masters[: len(cluster.masters) // 2 + 1]
    return dark(cluster, majority, (2, 12), True) if majority else None


def power_cut_of_everything(cluster, chance):
    return dark(cluster, [machine for machine in cluster.machines if cluster.usable(machine)], (1, 6), True)


def dark(cluster, machines, seconds, leads):
    def begin():
        for machine in machines:
            cluster.cut_power(machine)

    def heal():
        for machine in machines:
            cluster.power_on(machine)

    names = tuple(machine.name for machine in machines)
    return Fault(", ".join(names), begin, heal, seconds, names, leads)


def hold_a_node_still(cluster, chance):
    machine = chance.choice([machine for machine in cluster.machines if cluster.usable(machine)] or [None])
    if machine is None:
        return None
    leads = cluster.leader() is machine
    return Fault(
        machine.name, lambda: cluster.hold_still(machine), lambda: cluster.let_go(machine), (2, 30), (machine.name,), leads
    )


# Network.


def cut(cluster, pairs, victim, leads=False, seconds=(3, 40)):
    pairs = frozenset(pair for pair in pairs if pair[0] != pair[1])
    return Fault(
        victim,
        lambda: cluster.set_cuts(cluster.cuts | pairs),
        lambda: cluster.set_cuts(cluster.cuts - pairs),
        seconds,
        (),
        leads,
    )


def both_ways(some, others):
    return {(a, b) for a in some for b in others} | {(b, a) for a in some for b in others}


def names(machines):
    return [machine.name for machine in machines]


def partition_of_a_master(cluster, chance):
    """Clients reach it all the same."""
    master, leads = a_master(cluster, chance)
    return master and cut(cluster, both_ways([master.name], names(cluster.machines)), master.name, leads)


def partition_in_halves(cluster, chance):
    everybody = names(cluster.machines)
    chance.shuffle(everybody)
    half, rest = everybody[: len(everybody) // 2], everybody[len(everybody) // 2 :]
    return cut(cluster, both_ways(half, rest), f"{' '.join(sorted(half))} | {' '.join(sorted(rest))}")


def one_way_partition_of_the_leader(cluster, chance):
    leader = cluster.leader()
    if leader is None:
        return None
    others = [name for name in names(cluster.masters) if name != leader.name]
    if chance.random() < 0.5:
        return cut(cluster, {(leader.name, other) for other in others}, f"{leader.name} is not heard", True)
    return cut(cluster, {(other, leader.name) for other in others}, f"{leader.name} hears nothing", True)


def agents_cut_from_the_leader(cluster, chance):
    leader = cluster.leader()
    return leader and cut(cluster, both_ways([leader.name], names(cluster.agents)), leader.name)


def an_agent_cut_off(cluster, chance):
    agent = an_agent(cluster, chance)
    return agent and cut(cluster, both_ways([agent.name], names(cluster.machines)), agent.name, seconds=(3, 60))


def cable_pulled(cluster, chance):
    """Clients do not reach it either."""
    machine = chance.choice([machine for machine in cluster.machines if cluster.usable(machine)] or [None])
    if machine is None:
        return None

    def plug_in():
        if machine.name not in cluster.off:
            machine.unblock()

    return Fault(machine.name, machine.block, plug_in, (2, 30), (machine.name,), cluster.leader() is machine)


def slow_network(cluster, chance):
    machine = chance.choice([machine for machine in cluster.machines if cluster.usable(machine)] or [None])
    if machine is None:
        return None
    kilobits = chance.choice([256, 1000, 4000])

    def begin():
        shape = f"tbf rate {kilobits}kbit burst 16kb latency 500ms"
        run("tc", "qdisc", "replace", "dev", machine.link, "root", *shape.split())

    def heal():
        try:
            run("tc", "qdisc", "del", "dev", machine.link, "root")
        except LabError:
            # The node was switched off meanwhile, and its link is a new one.
            pass

    return Fault(f"{machine.name} at {kilobits} kbit/s", begin, heal, (5, 40), (machine.name,))


# systemd.


def bus_killed(cluster, chance):
    agent = an_agent(cluster, chance)
    return agent and Fault(agent.name, lambda: kill(cluster, agent, "dbus"))


def daemon_reload(cluster, chance):
    agent = an_agent(cluster, chance)
    verb = chance.choice(["daemon-reload", "daemon-reexec"])
    return agent and Fault(f"{agent.name}, {verb}", lambda: cluster.on(agent, f"systemctl {verb}"))


def operator_on_a_unit(cluster, chance):
    """Somebody stops or kills a task's unit by hand. A run that is stopped by hand is not tried again, as its job wants it
    to be here, so runs are only killed."""
    agent = an_agent(cluster, chance)
    if agent is None:
        return None
    _, out = cluster.on(agent, "systemctl list-units --plain --no-legend --full 'drover-*.service'")
    units = sorted(line.split()[0] for line in out.splitlines() if line.strip())
    if not units:
        return None
    unit = chance.choice(units)
    verbs = ["stop --no-block", "kill --signal=TERM", "kill --signal=KILL"]
    verb = chance.choice(verbs if "fleet" in unit else verbs[-1:])
    return Fault(f"{agent.name}, {verb} {unit}", lambda: cluster.on(agent, f"systemctl {verb} {shlex.quote(unit)}"))


# Disks.


def disk_full(cluster, chance):
    """No byte is left where drover writes. What drover then leaves undone it does once there is room again."""
    machine = chance.choice([machine for machine in cluster.machines if cluster.usable(machine)] or [None])
    if machine is None:
        return None
    ballast = machine.disk_at("/var/lib/droverd") / "ballast"

    def begin():
        with open(ballast, "wb") as file:
            try:
                while True:
                    file.write(bytes(1 << 16))
            except OSError:
                # Full to the last byte: what is buffered cannot be written either.
                pass
            try:
                file.close()
            except OSError:
                pass

    return Fault(machine.name, begin, lambda: ballast.unlink(missing_ok=True), (3, 30), (machine.name,))


# Membership.


def a_master_leaves_and_joins_anew(cluster, chance):
    """Only while everybody else is there: what is removed and wiped is one disk less."""
    healthy = all(cluster.usable(machine) for machine in cluster.masters) and not cluster.cuts and not cluster.leaving
    if len(cluster.masters) < 3 or not healthy:
        return None
    master = chance.choice(cluster.masters)

    def leave():
        others = [other for other in cluster.masters if other is not master]
        # From here on it may be gone, now or later: an answer can be lost.
        cluster.leaving.add(master.name)
        try:
            status, answer = web.request(others[0].address, "POST", f"/drover/v1/masters/{master.name}/remove", timeout=30)
        except (web.NotSent, web.NoAnswer) as problem:
            return f"perhaps removed: {problem}"
        return None if status < 300 else f"perhaps removed: {status} {answer}"

    return Fault(master.name, leave, cluster.bring_back, (3, 15), tuple(names(cluster.masters)), cluster.leader() is master)


# How often each comes, against the others.
FAULTS = {
    "kill-master": (kill_master, 4),
    "kill-agent": (kill_agent, 4),
    "pause-master": (pause_master, 3),
    "pause-agent": (pause_agent, 2),
    "restart-leader": (restart_leader, 2),
    "rolling-restart": (rolling_restart, 1),
    "power-master": (power_cut_of_a_master, 3),
    "power-agent": (power_cut_of_an_agent, 3),
    "power-majority": (power_cut_of_a_majority, 1),
    "power-all": (power_cut_of_everything, 1),
    "still-node": (hold_a_node_still, 2),
    "cut-master": (partition_of_a_master, 4),
    "cut-halves": (partition_in_halves, 3),
    "cut-one-way": (one_way_partition_of_the_leader, 3),
    "cut-agents-from-leader": (agents_cut_from_the_leader, 2),
    "cut-agent": (an_agent_cut_off, 2),
    "cable": (cable_pulled, 2),
    "slow": (slow_network, 2),
    "bus": (bus_killed, 2),
    "reload": (daemon_reload, 2),
    "operator": (operator_on_a_unit, 4),
    "disk-full": (disk_full, 2),
    "membership": (a_master_leaves_and_joins_anew, 2),
}
