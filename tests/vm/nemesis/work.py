"""The work of the cluster under test: apps that are rolled and scaled, and jobs that fire every few seconds.

Each task writes a line into the book of its node when it really runs, before anything else: what the masters believe is
compared with that. A retry is announced by the attempt in the task's id.
"""

import time
from dataclasses import dataclass

from cluster import BOOK
from registers import Client

OPEN_BOOK = {"ReadWritePaths": BOOK.rsplit("/", 1)[0]}
SIGN = f"echo $MESOS_TASK_ID $(date +%s.%N) >> {BOOK}"

# Share of the instances that must stay up while versions change, and how many more there may be.
HEALTH_MIN = 0.5
OVER_MAX = 0.5


@dataclass(frozen=True)
class Job:
    """A job of the run, and what follows from its policies."""

    name: str
    seconds: int
    concurrent: bool = True
    # The attempt that succeeds; those before it fail.
    good_attempt: int = 0
    works: str = ""
    parents: tuple[str, ...] = ()

    def definition(self, first_slot: int) -> dict:
        fails = f'; test "$CHRONOS_JOB_RUN_ATTEMPT" -ge {self.good_attempt}' if self.good_attempt else ""
        works = f"; {self.works}" if self.works else ""
        job = {
            "name": self.name,
            "command": SIGN + works + fails,
            # Long enough that no slot is ever passed over for being late, and so many retries that no run is given up.
            "epsilon": "PT5H",
            "retries": 100,
            "retryDelay": "PT1S",
            "concurrent": self.concurrent,
            "cpus": 0.01,
            "mem": 16,
            "disk": 0,
            "unit": OPEN_BOOK,
        }
        if self.parents:
            return job | {"parents": list(self.parents)}
        begin = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(first_slot))
        return job | {"schedule": f"R/{begin}/PT{self.seconds}S"}


JOBS = [
    Job("every-2", 2),
    Job("every-5-twice", 5, good_attempt=1),
    Job("alone-7", 7, concurrent=False, works="sleep 1"),
    Job("after-both", 0, parents=("every-5-twice", "alone-7")),
]

# Apps and their instances at the start.
FLEETS = {"/fleet/steady": 3, "/fleet/rolling": 4}


def fleet(app: str, instances: int) -> dict:
    return {
        "id": app,
        "cmd": f"{SIGN}; exec sleep infinity",
        "instances": instances,
        "cpus": 0.01,
        "mem": 16,
        "portDefinitions": [],
        "backoffSeconds": 1,
        "maxLaunchDelaySeconds": 1,
        "upgradeStrategy": {"minimumHealthCapacity": HEALTH_MIN, "maximumOverCapacity": OVER_MAX},
        "unit": OPEN_BOOK,
    }


def begin(cluster, history) -> None:
    """Puts everything in place."""
    for app, instances in FLEETS.items():
        status, answer = cluster.ask("PUT", f"/v2/apps{app}", fleet(app, instances))
        assert status < 300, (app, status, answer)
    first_slot = int(time.time()) + 3
    for job in JOBS:
        kind = "dependency" if job.parents else "iso8601"
        status, answer = cluster.ask("POST", f"/v1/scheduler/{kind}", job.definition(first_slot))
        assert status < 300, (job.name, status, answer)
        history.add("job", name=job.name, first_slot=first_slot, seconds=job.seconds)


class Shepherd(Client):
    """Rolls and scales the apps. Nothing is forced: what a deployment holds stays as it is."""

    pause = (1.0, 5.0)

    def __init__(self, *rest):
        super().__init__(*rest)
        self._version = 0

    def step(self) -> None:
        app = self.chance.choice(list(FLEETS))
        if app == "/fleet/rolling" and self.chance.random() < 0.7:
            self._version += 1
            with self.history.operation(self.name, "roll", key=app) as record:
                self.send(record, "PUT", f"/v2/apps{app}", {"env": {"VERSION": str(self._version)}})
        else:
            with self.history.operation(self.name, "scale", key=app, value=self.chance.randint(1, 6)) as record:
                self.send(record, "PUT", f"/v2/apps{app}", {"instances": record["value"]})
