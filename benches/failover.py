"""Time from the leader's end to the first new commit, three masters at default settings.

The leader's process is killed (SIGKILL), or its node's power is cut, so that no connection is closed. From that moment on
a client per surviving master writes until one write is acknowledged. Beside it stands what cannot be undercut: the silence
after which a follower stands for election.
"""

import http.client
import statistics
import threading
import time

import cluster
from lab import host
from report import Ratio, Report, Table, spread

# Default `election_timeout`, seconds.
ELECTION_TIMEOUT = 1.0
TARGET = 2.0
KILLS = CUTS = 7
JOBS = 2000


def prepare() -> list:
    return cluster.hold_roots()


def measure(enclosure) -> Report:
    nodes = cluster.Cluster(enclosure, 3, 1)
    report = Report("failover")
    table = Table("Seconds to the first new commit: median, and between what they lay", ["leader", "jobs in the state", "times", "seconds"])
    killed = [after(nodes, kill) for _ in range(KILLS)]
    table.add("killed", "0", str(KILLS), spread(killed))
    cut = [after(nodes, power_cut) for _ in range(CUTS)]
    table.add("power cut", "0", str(CUTS), spread(cut))
    for number in range(JOBS):
        nodes.ask("POST", "/v1/scheduler/iso8601", cluster.disabled_job(f"job-{number}"))
    more = [after(nodes, kill) for _ in range(3)]
    table.add("killed", str(JOBS), "3", spread(more))
    report.tables.append(table)
    for name, seconds in (("failover-kill", killed), ("failover-cut", cut)):
        median = statistics.median(seconds)
        meaning = f"seconds to the first new commit; {median / ELECTION_TIMEOUT:.2f} of the election timeout"
        report.ratios.append(Ratio(name, median, TARGET, meaning, True))
    report.notes.append(f"The limit: followers stand for election {ELECTION_TIMEOUT:g} to {ELECTION_TIMEOUT * 4 / 3:.2g} s after the last heartbeat.")
    return report


def kill(nodes, leader) -> None:
    leader.succeed("kill -9 $(systemctl show --property=MainPID --value droverd-master)")


def power_cut(nodes, leader) -> None:
    nodes.story.cut_power(leader)


def all_follow(nodes) -> bool:
    """Whether the leader hears from all others, and they have all it has. One that is only a member is no help yet."""
    masters = nodes.ask("GET", "/drover/v1/masters")["masters"]
    followers = [master for master in masters if master["role"] == "follower"]
    near = [master for master in followers if master.get("lag") == 0 and master.get("seenAgoMs", 9999) < 500]
    return len(near) == 2


def after(nodes, end) -> float:
    """Ends the leader; the seconds until a write is acknowledged. Then makes the cluster whole again."""
    nodes.story.wait_whole()
    nodes.wait("every master follows", lambda: all_follow(nodes))
    leader = nodes.leader()
    survivors = [master for master in nodes.masters if master is not leader]
    committed = threading.Event()
    times = []
    # Making a process on the node, or finding its leader's pid, takes a moment: what is measured begins when it is done.
    end(nodes, leader)
    began = time.monotonic()

    def write(master) -> None:
        while not committed.is_set() and time.monotonic() < began + 30:
            try:
                status, _ = cluster.request(master.address, "POST", "/v1/scheduler/iso8601", cluster.disabled_job("probe"))
            except (OSError, http.client.HTTPException):
                status = 0
            if status == 204:
                times.append(time.monotonic() - began)
                committed.set()
            else:
                # A refusal comes at once; asking again at once would only keep the masters busy.
                committed.wait(0.01)

    writers = [threading.Thread(target=write, args=(master,), daemon=True) for master in survivors]
    for writer in writers:
        writer.start()
    if not committed.wait(30):
        raise host.LabError("nothing was committed within 30 s of the leader's end")
    if end is power_cut:
        nodes.story.power_on(leader)
    for writer in writers:
        writer.join(40)
    return times[0]
