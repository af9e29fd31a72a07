"""Clients that read and write registers, and keep a set, through any master; what they saw is judged by `linear` and `checks`.

A register is an app without instances whose label, or a disabled job whose description, holds a value. All values are
different. Apps are created and deleted too: both look before they change, which makes them compare-and-set. Nothing is
forced: a change refused because a deployment holds the app had no effect.

A register is left for a new one after a while, or when too many answers were lost: short histories are judged quickly.
"""

import random
import threading

import web
from history import History

# Operations, and lost answers, after which a register is left.
OPERATIONS_MAX = 150
LOST_MAX = 10

READ_SECONDS = 8
NEVER = "R1/2100-01-01T00:00:00Z/P1D"


class Register:
    """A family of registers, one at a time; several clients share it."""

    def __init__(self, family: str):
        self.family = family
        self._lock = threading.Lock()
        self._number = 0
        self._count = 0
        self._lost = 0
        self.left: list[str] = []

    def key(self) -> str:
        with self._lock:
            if self._count >= OPERATIONS_MAX or self._lost >= LOST_MAX:
                self.left.append(self._name())
                self._number, self._count, self._lost = self._number + 1, 0, 0
            self._count += 1
            return self._name()

    def lost_one(self) -> None:
        with self._lock:
            self._lost += 1

    def _name(self) -> str:
        return f"{self.family}-{self._number}"


class Client:
    """What all clients have in common: a thread that goes on until told to stop, and a choice of masters."""

    def __init__(self, name: str, cluster, history: History, stop: threading.Event, seed: int):
        self.name = name
        self.cluster = cluster
        self.history = history
        self.stop = stop
        self.chance = random.Random(f"{seed} {name}")
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.failure: BaseException | None = None
        self._turn = threading.Lock()

    def rest(self) -> None:
        """Returns when the operation under way is over; none begins until `go_on`."""
        self._turn.acquire()

    def go_on(self) -> None:
        self._turn.release()

    def _run(self) -> None:
        try:
            while not self.stop.is_set():
                with self._turn:
                    self.step()
                self.stop.wait(self.chance.uniform(*self.pause))
        except BaseException as problem:
            # A client that cannot go on is a fault of the test: the run says so and fails.
            self.failure = problem

    pause = (0.05, 0.3)

    def step(self) -> None:
        raise NotImplementedError

    def send(self, record: dict, method: str, path: str, body=None, timeout: float = 12):
        """Sends to some master and notes the outcome; returns status and answer, both None when there are none."""
        master = self.chance.choice(self.cluster.masters)
        record["through"] = master.name
        try:
            status, answer = web.request(master.address, method, path, body, timeout)
        except web.NotSent as problem:
            record.update(outcome="fail", said=str(problem))
        except web.NoAnswer as problem:
            record.update(outcome="info", said=str(problem))
        else:
            record.update(outcome=web.outcome(status, answer), status=status)
            if status >= 300:
                record["said"] = answer if isinstance(answer, str) else (answer or {}).get("message", "")
            return status, answer
        return None, None


class AppRegister(Client):
    """Writes, creates, deletes and reads apps."""

    def __init__(self, register: Register, *rest):
        super().__init__(*rest)
        self.register = register
        self._number = 0

    def step(self) -> None:
        key = self.register.key()
        op = self.chance.choices(["read", "write", "create", "delete"], [5, 3, 1, 1])[0]
        self._number += 1
        value = f"{self.name}.{self._number}"
        path = f"/v2/apps/nemesis/{key}"
        app = {"id": f"/nemesis/{key}", "cmd": "true", "instances": 0, "labels": {"value": value}}
        with self.history.operation(self.name, op, key=f"app {key}") as record:
            if op == "read":
                status, answer = self.send(record, "GET", path, timeout=READ_SECONDS)
                if status == 200:
                    record["value"] = answer["app"]["labels"]["value"]
                elif status == 404:
                    record.update(outcome="ok", value=None)
                else:
                    record["outcome"] = "fail"
                return
            if op != "delete":
                record["value"] = value
            if op == "write":
                self.send(record, "PUT", path, app)
            elif op == "create":
                status, answer = self.send(record, "POST", "/v2/apps", app)
                record["did"] = status is not None and status < 300
                if status == 409 and "already exists" in answer.get("message", ""):
                    record["outcome"] = "ok"
            else:
                status, _ = self.send(record, "DELETE", path)
                record["did"] = status is not None and status < 300
                if status == 404:
                    record["outcome"] = "ok"
        if record["outcome"] == "info":
            self.register.lost_one()


class JobRegister(Client):
    """Writes, deletes and reads jobs."""

    def __init__(self, register: Register, *rest):
        super().__init__(*rest)
        self.register = register
        self._number = 0

    def step(self) -> None:
        key = self.register.key()
        op = self.chance.choices(["read", "write", "delete"], [5, 4, 1])[0]
        self._number += 1
        value = f"{self.name}.{self._number}"
        with self.history.operation(self.name, op, key=f"job {key}") as record:
            if op == "read":
                status, answer = self.send(record, "GET", f"/v1/scheduler/job/{key}", timeout=READ_SECONDS)
                if status == 200:
                    record["value"] = answer["description"]
                elif status == 400:
                    record.update(outcome="ok", value=None)
                else:
                    record["outcome"] = "fail"
                return
            if op == "write":
                record["value"] = value
                self.send(record, "POST", "/v1/scheduler/iso8601", idle_job(key, value))
            else:
                status, _ = self.send(record, "DELETE", f"/v1/scheduler/job/{key}")
                record["did"] = status is not None and status < 300
                if status == 400:
                    record["outcome"] = "ok"
        if record["outcome"] == "info":
            self.register.lost_one()


def idle_job(name: str, description: str = "") -> dict:
    return {"name": name, "command": "true", "schedule": NEVER, "disabled": True, "description": description}


class SetKeeper(Client):
    """Adds each element once, takes some away again, and reads the whole set. Elements are jobs."""

    pause = (0.2, 0.8)

    def __init__(self, *rest):
        super().__init__(*rest)
        self._added: list[str] = []
        self._number = 0

    def step(self) -> None:
        op = self.chance.choices(["add", "remove", "list"], [5, 3, 2])[0]
        if op == "add":
            self._number += 1
            element = f"element-{self.name}-{self._number}"
            with self.history.operation(self.name, "add", key="set", value=element) as record:
                self.send(record, "POST", "/v1/scheduler/iso8601", idle_job(element))
            self._added.append(element)
        elif op == "remove" and self._added:
            element = self._added.pop(self.chance.randrange(len(self._added)))
            with self.history.operation(self.name, "remove", key="set", value=element) as record:
                status, _ = self.send(record, "DELETE", f"/v1/scheduler/job/{element}")
                if status == 400:
                    # It is not there: its add was lost, or an earlier repeat of this took it.
                    record.update(outcome="fail", absent=True)
        else:
            with self.history.operation(self.name, "list", key="set") as record:
                status, answer = self.send(record, "GET", "/v1/scheduler/jobs/summary", timeout=READ_SECONDS)
                if status == 200:
                    names = [job["name"] for job in answer["jobs"]]
                    record["value"] = sorted(name for name in names if name.startswith("element-"))
                else:
                    record["outcome"] = "fail"
