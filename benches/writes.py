"""Committed writes a second of three masters, against three members of Debian's etcd with the same promise.

Both clusters run on the loopback device of one machine, with their data in one directory, and are up all the time; rounds
alternate between them. Each client has a connection to the leader, sends a write of about 256 bytes, waits until it is
acknowledged (on the disks of a majority, and applied), and sends the next. drover gets redefinitions of a job through
Chronos' API over HTTP/1.1, checked and planned like any other; etcd gets puts over gRPC, its native interface.
"""

import http.client
import json
import statistics
import subprocess
import time
from pathlib import Path

import machine
from lab import host
from report import Ratio, Report, Table, number, spread

TARGETS = {1: 1.0, 32: 1.0, 256: 5.0}
ROUNDS = 5
SECONDS = 2.0
# Jobs that lie in the state beside those that are written, to see what a larger state costs.
MORE_JOBS = 5000


def prepare() -> list:
    machine.etcd()
    return []


class Cluster:
    """Three processes, and which of them leads."""

    def __init__(self, name: str, directory: Path):
        self.name = name
        self.directory = directory / name
        self.directory.mkdir()
        self.processes: list[subprocess.Popen] = []

    def start(self, argv: list) -> None:
        log = open(self.directory / f"log{len(self.processes)}", "w")
        self.processes.append(subprocess.Popen([*map(str, argv)], stdin=subprocess.DEVNULL, stdout=log, stderr=log))

    def cpu_seconds(self) -> float:
        return sum(machine.cpu_seconds(process.pid) for process in self.processes)

    def fail(self, why: str) -> None:
        logs = "\n".join(f"{path.name}: {path.read_text()[-2000:]}" for path in sorted(self.directory.glob("log*")))
        raise host.LabError(f"{self.name}: {why}\n{logs}")

    def wait(self, what: str, check):
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                if answer := check():
                    return answer
            except (OSError, http.client.HTTPException, ValueError):
                pass
            time.sleep(0.05)
        self.fail(f"not within 30 s: {what}")


class Drover(Cluster):
    def __init__(self, directory: Path):
        super().__init__("drover", directory)
        droverd, drover = host.binaries()

        def home(at: int) -> Path:
            home = self.directory / f"m{at}"
            home.mkdir()
            (home / "drover.toml").write_text(
                f'name = "m{at}"\ndata_dir = "{home}/data"\n[master]\napi_listen = "127.0.0.1:{7070 + at * 10}"\n'
                f'cluster_listen = "127.0.0.1:{7071 + at * 10}"\nadvertise = "127.0.0.1:{7071 + at * 10}"\n'
            )
            return home

        first = home(0)
        host.run(str(drover), "cluster", "init", "--data-dir", f"{first}/data", "--name", "m0", "--advertise", "127.0.0.1:7071")
        self.start([droverd, "--config", first / "drover.toml", "master"])
        self.wait("the first master leads", lambda: ask(7070, "GET", "/drover/v1/status")["leader"])
        for at in (1, 2):
            where = home(at)
            said = host.run(str(drover), "--addr", "http://127.0.0.1:7070", "token", "create", "--role", "master")
            token = next(word for word in said.split() if word.startswith("drover1."))
            host.run(
                str(drover), "node", "join", "--token", token, "--master", "127.0.0.1:7071", "--role", "master",
                "--data-dir", f"{where}/data", "--name", f"m{at}", "--advertise", f"127.0.0.1:{7071 + at * 10}",
            )  # fmt: skip
            self.start([droverd, "--config", where / "drover.toml", "master"])
        self.wait("three masters vote", self._is_whole)

    def _is_whole(self) -> bool:
        masters = ask(7070, "GET", "/drover/v1/masters")["masters"]
        return sorted(master["role"] for master in masters) == ["follower", "follower", "leader"]

    def leader(self) -> str:
        leader = ask(7070, "GET", "/drover/v1/status")["leader"]["address"]
        return f"127.0.0.1:{int(leader.rpartition(':')[2]) - 1}"

    def add_jobs(self, count: int) -> None:
        host, port = self.leader().split(":")
        connection = http.client.HTTPConnection(host, int(port))
        for number in range(count):
            job = {"name": f"more-{number}", "command": "exec true", "schedule": "R/2099-01-01T00:00:00Z/P1D", "disabled": True}
            connection.request("POST", "/v1/scheduler/iso8601", json.dumps(job), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            if answer.status != 204:
                self.fail(f"job {number} was refused: {answer.status} {answer.read()!r}")
            answer.read()


class Etcd(Cluster):
    def __init__(self, directory: Path):
        super().__init__("etcd", directory)
        members = ",".join(f"e{at}=http://127.0.0.1:{2380 + at * 10}" for at in range(3))
        for at in range(3):
            client, peer = (f"http://127.0.0.1:{port + at * 10}" for port in (2379, 2380))
            self.start([
                machine.etcd(), "--name", f"e{at}", "--data-dir", self.directory / f"e{at}", "--logger", "zap",
                "--listen-client-urls", client, "--advertise-client-urls", client,
                "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", members,
            ])  # fmt: skip
        self.wait("three members agree", self.leader)

    def leader(self) -> str | None:
        leaders = set()
        own = {}
        for at in range(3):
            status = ask(2379 + at * 10, "POST", "/v3/maintenance/status", {})
            own[status["header"]["member_id"]] = f"127.0.0.1:{2379 + at * 10}"
            leaders.add(status.get("leader"))
        return own.get(leaders.pop()) if len(leaders) == 1 else None


def ask(port: int, method: str, path: str, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, None if body is None else json.dumps(body), {"Content-Type": "application/json"})
    return json.loads(connection.getresponse().read())


def measure(enclosure) -> Report:
    host.run("ip", "link", "set", "lo", "up")
    clusters = [Drover(enclosure.directory), Etcd(enclosure.directory)]
    rates: dict = {}
    disk = []

    def write(cluster: Cluster, clients: int, kind: str) -> None:
        used = cluster.cpu_seconds()
        found = machine.load(
            "writes", "--to", cluster.name, "--address", cluster.leader(), "--clients", clients, "--seconds", SECONDS
        )
        # The warm-up's writes are not counted and cost as much as others.
        writes = found["rate"] * (SECONDS + 0.5)
        found["cpu_us"] = (cluster.cpu_seconds() - used) / writes * 1e6
        rates.setdefault((kind, clients), []).append(found)

    for _ in range(ROUNDS):
        disk.append(machine.syncs_per_second(enclosure.directory, 0.5))
        for clients in TARGETS:
            for cluster in clusters:
                write(cluster, clients, cluster.name)
    drover = clusters[0]
    drover.add_jobs(MORE_JOBS)
    large = f"drover, {MORE_JOBS} more jobs"
    for clients in TARGETS:
        for _ in range(2):
            write(drover, clients, large)

    report = Report("writes")
    table = Table(
        "Acknowledged writes a second: median of the rounds, and between what they lay",
        ["clients", "cluster", "writes/s", "p50 ms", "p99 ms", "CPU µs a write"],
    )

    def middle(kind: str, clients: int, key: str) -> float:
        return statistics.median(found[key] for found in rates[kind, clients])

    for clients, target in TARGETS.items():
        for kind in ("drover", "etcd", large):
            found = rates[kind, clients]
            latency = [number(middle(kind, clients, key) / 1000) for key in ("p50_us", "p99_us")]
            table.add(str(clients), kind, spread([each["rate"] for each in found]), *latency, middle(kind, clients, "cpu_us"))
        # Each round has its own ratio: what disturbed the machine meanwhile disturbed both.
        pairs = zip(rates["drover", clients], rates["etcd", clients])
        ratios = [ours["rate"] / theirs["rate"] for ours, theirs in pairs]
        meaning = f"writes a second with {clients} clients, over etcd's; rounds {number(min(ratios))}–{number(max(ratios))}"
        report.ratios.append(Ratio(f"writes-{clients}", statistics.median(ratios), target, meaning))
    report.tables.append(table)
    report.notes.append(f"The disk alone, one writer: {spread(disk)} fdatasyncs of 256 bytes a second.")
    version = subprocess.run([machine.etcd(), "--version"], capture_output=True, text=True).stdout.split("\n")[0]
    report.machine["etcd"] = version.partition(":")[2].strip()
    return report
