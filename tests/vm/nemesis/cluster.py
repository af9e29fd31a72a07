"""The cluster under test: its machines, what is wrong with each at the moment, and how to reach it.

The nemesis, the samplers and the clients are threads of one process. Clients speak HTTP to the masters' addresses.
Whoever does something on a machine holds that machine's lock, since a machine of the lab belongs to one caller at a time.
"""

import shlex
import threading
import time
from pathlib import Path

import web
from lab import roots, scenarios
from lab.container import Container
from lab.host import LabError
from lab.lab import Lab

# What drover may write on a node: small enough to be filled at once, large enough for its log between snapshots.
DISK_MEGABYTES = 160

# Where tasks keep their books: one line for each thing they did, on the node's own disk.
BOOK = "/var/lib/nemesis/book"


class Cluster:
    def __init__(self, enclosure, systemd: str, masters: int, agents: int, log, output: Path):
        self.lab = Lab(enclosure, roots.node_root(systemd), log, output)
        self.machines = self.lab.make_nodes(masters + agents, Container)
        for machine in self.machines:
            machine.give_disk("/var/lib/droverd", DISK_MEGABYTES)
        shape = scenarios.Scenario(Path("nemesis"), masters, agents, vm=False)
        self.words = scenarios.Driver(self.machines, log).scope()
        for name, text in [("prelude", scenarios.prelude(shape)), (str(scenarios.STORY), scenarios.STORY.read_text())]:
            exec(compile(text, name, "exec"), self.words)
        self.masters = self.words["masters"]
        self.agents = self.words["agents"]
        self.locks = {machine.name: threading.RLock() for machine in self.machines}
        self.off: set[str] = set()
        self.still: set[str] = set()
        # Pairs of names: what the first sends does not reach the second.
        self.cuts: set[tuple[str, str]] = set()
        # Masters whose removal was asked for.
        self.leaving: set[str] = set()
        self.log = log

    def bring_up(self) -> None:
        self.words["bring_up_cluster"]()
        for agent in self.agents:
            agent.succeed(f"mkdir -p -m 0777 /var/lib/nemesis && touch {BOOK} && chmod 0666 {BOOK}")

    def named(self, name: str):
        return next(machine for machine in self.machines if machine.name == name)

    def usable(self, machine) -> bool:
        """Whether commands run on it."""
        return machine.name not in self.off and machine.name not in self.still

    def on(self, machine, command: str, timeout: int = 60) -> tuple[int, str]:
        with self.locks[machine.name]:
            return machine.execute(command, timeout=timeout)

    # The cluster's own word.

    def seen_by(self, machine, path: str, timeout: float = 3):
        """What one master knows itself, without asking the leader; None if it does not answer."""
        try:
            status, answer = web.request(machine.address, "GET", f"{path}?stale", timeout=timeout)
        except (web.NotSent, web.NoAnswer):
            return None
        return answer if status == 200 else None

    def leader(self):
        """The machine that the master of the highest term takes for the leader; None if nobody knows."""
        best = (-1, None)
        for master in self.masters:
            seen = self.seen_by(master, "/drover/v1/status") if self.usable(master) else None
            if seen and seen["leader"] and seen["term"] > best[0]:
                best = (seen["term"], seen["leader"]["name"])
        return next((master for master in self.masters if master.name == best[1]), None)

    def ask(self, method: str, path: str, body=None, within: float = 60):
        """A request to whichever master answers it, asked again until one does. For what may be done twice."""
        deadline = time.monotonic() + within
        said = "every master is off"
        while True:
            for master in self.masters:
                if not self.usable(master):
                    continue
                try:
                    status, answer = web.request(master.address, method, path, body)
                except (web.NotSent, web.NoAnswer) as problem:
                    said = f"{master.name}: {problem}"
                    continue
                if status < 500:
                    return status, answer
                said = f"{master.name}: {status} {answer}"
            if time.monotonic() > deadline:
                raise TimeoutError(f"{method} {path}: {said}")
            time.sleep(0.2)

    # Membership.

    def bring_back(self) -> None:
        """Lets the masters that were removed join anew, with an empty disk. May be called at any time, and again."""
        for master in [master for master in self.masters if master.name in self.leaving]:
            _, answer = self.ask("GET", "/drover/v1/masters", within=5)
            if master.name in {each["name"] for each in answer["masters"]}:
                continue
            # Its disk may go only when it will not be asked for again: the change is on the disks of all others.
            others = [self.seen_by(other, "/drover/v1/masters") for other in self.masters if other is not master]
            if not all(seen and master.name not in {each["name"] for each in seen["masters"]} for seen in others):
                raise LabError(f"{master.name} is removed, and some do not know it yet")
            self._join_anew(master)

    def _join_anew(self, master) -> None:
        status, answer = self.ask("POST", "/drover/v1/tokens", {"role": "master", "ttlSeconds": 600, "uses": 1}, within=5)
        if status != 201:
            raise LabError(f"no token: {status} {answer}")
        leader = self.leader()
        if leader is None:
            raise LabError("nobody leads")
        join = (
            f"drover node join --token {answer['token']} --master {leader.name}:7071 "
            f"--role master --name {master.name} --advertise {master.name}:7071"
        )
        wipe = "systemctl stop droverd-master && rm -rf /var/lib/droverd/master"
        status, out = self.on(master, f"{wipe} && {join} && systemctl start droverd-master")
        if status != 0:
            raise LabError(f"{master.name} cannot join: {out}")

    # Network.

    def set_cuts(self, cuts: set[tuple[str, str]]) -> None:
        """Lets exactly these pairs be cut. Each node drops what it must not hear."""
        touched = {to for _, to in self.cuts ^ cuts}
        self.cuts = set(cuts)
        for name in sorted(touched):
            self.apply_cuts(self.named(name))

    def apply_cuts(self, machine) -> None:
        """To be called again for a node that was switched on: it knows of no cut."""
        if machine.name in self.off:
            return
        silenced = [self.named(source).address for source, to in self.cuts if to == machine.name]
        rules = ""
        if silenced:
            rules = (
                "add table inet nemesis\n"
                "add chain inet nemesis heard { type filter hook input priority -10; }\n"
                f"add rule inet nemesis heard ip saddr {{ {', '.join(sorted(silenced))} }} drop\n"
            )
        script = f"nft delete table inet nemesis 2>/dev/null || true; printf %s {shlex.quote(rules)} | nft -f -"
        # What enters a node from outside is not in its cgroups, so this works on a node held still as well.
        status, out = self.on(machine, script)
        if status != 0:
            raise LabError(f"{machine.name}: the network cannot be cut: {out}")

    # Power.

    def cut_power(self, machine) -> None:
        with self.locks[machine.name]:
            self.off.add(machine.name)
            self.still.discard(machine.name)
            machine.crash()

    def power_on(self, machine) -> None:
        with self.locks[machine.name]:
            if machine.name not in self.off:
                return
            machine.start()
            machine.connect()
            self.off.discard(machine.name)
            self.apply_cuts(machine)

    def hold_still(self, machine) -> None:
        with self.locks[machine.name]:
            self.still.add(machine.name)
            machine.send_monitor_command("stop")

    def let_go(self, machine) -> None:
        with self.locks[machine.name]:
            if machine.name in self.still:
                machine.send_monitor_command("cont")
                self.still.discard(machine.name)
