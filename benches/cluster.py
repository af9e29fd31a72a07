"""A cluster of lab nodes at drover's own defaults, and quick ways to ask it."""

import http.client
import json
import re
import time

import machine
from lab import host, roots, session

SYSTEMD = "252"

# The defaults, but for what makes no sense on one machine: the API answers on the network, and a node promises room for
# all that a benchmark starts.
MASTER_SETTINGS = 'api_listen = "0.0.0.0:7070"\n'
AGENT_SETTINGS = '[resources]\ncpus = 64.0\nmem = "64G"\ndisk = "64G"\nports = ["31000-31999"]\n'


def hold_roots() -> list:
    return [roots.hold(roots.node_root(SYSTEMD))]


class Cluster:
    """Nodes that are up, by the words of `tests/vm/story.py` and some of our own."""

    def __init__(self, enclosure, masters: int, agents: int, master_settings: str = ""):
        # Their disks are this machine's: what a sync costs is part of every figure.
        self.story = session.Session(enclosure, SYSTEMD, masters, agents, lambda *_, **__: None, in_memory=False)
        self.story.words["MASTER_SETTINGS"] = MASTER_SETTINGS + master_settings
        self.story.words["AGENT_SETTINGS"] = AGENT_SETTINGS
        with host.step(f"{masters} masters and {agents} agents come up"):
            self.story.bring_up_cluster()
        self.masters = self.story.masters
        self.agents = self.story.agents

    def ask(self, method: str, path: str, body=None):
        """One request to a master that answers."""
        for master in self.masters:
            if master.name in self.story.powered_off:
                continue
            try:
                status, answer = request(master.address, method, path, body)
            except (OSError, http.client.HTTPException):
                continue
            if status in (502, 503):
                continue
            if status >= 300:
                raise host.LabError(f"{method} {path}: {status} {answer}")
            return answer
        raise host.LabError(f"{method} {path}: no master answers")

    def wait(self, what: str, check, seconds: float = 60):
        """Looks every few milliseconds: what is waited for is often what is measured."""
        deadline = time.monotonic() + seconds
        while not (answer := check()):
            if time.monotonic() > deadline:
                raise host.LabError(f"not within {seconds} s: {what}")
            time.sleep(0.02)
        return answer

    def deploy(self, app: str, instances: int, **more) -> None:
        """Brings an app of programs that do nothing to so many instances; waits until they run and nothing else does."""
        definition = {
            "id": app, "cmd": "exec sleep infinity", "instances": instances, "cpus": 0.01, "mem": 8,
            "portDefinitions": [], **more,
        }  # fmt: skip
        self.ask("PUT", f"/v2/apps{app}", definition)
        self.wait_running(app, instances)

    def running(self, app: str) -> list[dict]:
        return [task for task in self.ask("GET", f"/drover/v1/tasks?app={app}")["tasks"] if task["state"] == "running"]

    def wait_running(self, app: str, instances: int) -> None:
        def settled() -> bool:
            tasks = self.ask("GET", f"/drover/v1/tasks?app={app}")["tasks"]
            return len(tasks) == instances and all(task["state"] == "running" for task in tasks)

        self.wait(f"{instances} instances of {app} run", settled, 120)

    def leader(self):
        name = self.ask("GET", "/drover/v1/status")["leader"]["name"]
        return next(master for master in self.masters if master.name == name)


def request(address: str, method: str, path: str, body=None, timeout: float = 30, accept: str = "application/json"):
    """One request over a connection of its own: the status and the answer."""
    connection = http.client.HTTPConnection(address, 7070, timeout=timeout)
    try:
        headers = {"Content-Type": "application/json", "Accept": accept}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        text = answer.read()
        try:
            return answer.status, json.loads(text) if text.strip() else None
        except ValueError:
            return answer.status, text
    finally:
        connection.close()


def disabled_job(name: str) -> dict:
    """A job that never fires: its definition is a write like any other."""
    return {"name": name, "command": "exec true", "schedule": "R/2099-01-01T00:00:00Z/P1D", "disabled": True}


def main_pid(node, unit: str) -> int:
    """The main process of a node's unit, as the lab numbers it."""
    inside = int(node.get_unit_property(unit, "MainPID"))
    group = node.get_unit_property(unit, "ControlGroup")
    for cgroup in node.cgroups:
        for path in cgroup.glob(f"**{group}/cgroup.procs") if group else []:
            for pid in path.read_text().split():
                found = re.search(r"^NSpid:.*\s(\d+)$", open(f"/proc/{pid}/status").read(), re.M)
                if found and int(found[1]) == inside:
                    return int(pid)
    raise host.LabError(f"{unit} on {node.name} has no process")


def cpu_seconds(node, unit: str) -> float:
    """What a node's unit has used so far, to the microsecond."""
    return int(node.get_unit_property(unit, "CPUUsageNSec")) / 1e9


def memory(pid: int) -> dict[str, int]:
    """Bytes of a process: resident, and its proportional part of what it shares."""
    text = open(f"/proc/{pid}/smaps_rollup").read()
    return {key: int(re.search(rf"^{key}:\s+(\d+) kB", text, re.M)[1]) * 1024 for key in ("Rss", "Pss")}


__all__ = ["Cluster", "cpu_seconds", "disabled_job", "hold_roots", "machine", "main_pid", "memory", "request"]
