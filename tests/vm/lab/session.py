"""A cluster for a person: up until told otherwise, its API on a port of the machine, its nodes at hand by name.

Used by `./try`. The body of the enclosure is a `Session`; other `./try` commands reach it through a socket in the
lab's directory, and nodes through the lab's namespaces.
"""

import json
import select
import socket
import threading
from pathlib import Path

from . import roots, scenarios
from .container import Container
from .enclosure import STATE, Enclosure
from .host import LabError
from .lab import Lab

API_PORT = 7070
VERBS = ("start", "crash", "shutdown", "reboot", "block", "unblock")


class Session:
    def __init__(self, enclosure: Enclosure, systemd: str, masters: int, agents: int, log, in_memory: bool = True):
        self.lab = Lab(enclosure, roots.node_root(systemd), log, Path("/nonexistent"), in_memory)
        self.machines = self.lab.make_nodes(masters + agents, Container)
        shape = scenarios.Scenario(Path("try"), masters, agents, vm=False)
        # The words of the scenarios, as plain functions.
        self.words = scenarios.Driver(self.machines, log).scope()
        for name, text in [("prelude", scenarios.prelude(shape)), (str(scenarios.STORY), scenarios.STORY.read_text())]:
            exec(compile(text, name, "exec"), self.words)

    def __getattr__(self, name: str):
        """The words of `story.py`: bring_up_cluster, deploy, wait_running, …"""
        try:
            return self.words[name]
        except KeyError:
            raise AttributeError(name) from None

    def serve(self, forwarder: "Forwarder") -> None:
        """Lets the cluster's API answer on a port of the machine."""
        forwarder.serve([machine.address for machine in self.words["masters"]])
        _address_path(self.lab.enclosure.name).write_text(forwarder.address)

    def stay(self) -> None:
        """Keeps the cluster up and does what other `./try` commands ask, until interrupted."""
        path = control_path(self.lab.enclosure.name)
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as control:
            control.bind(str(path))
            control.listen()
            while True:
                ready, _, _ = select.select([control], [], [], 1.0)
                for machine in self.machines:
                    machine.start_again_if_asked()
                if ready:
                    self._obey(control.accept()[0])

    def _obey(self, connection: socket.socket) -> None:
        with connection:
            try:
                connection.settimeout(5)
                request = json.loads(connection.makefile().readline())
                machine = {machine.name: machine for machine in self.machines}.get(request["node"])
                if request["verb"] not in VERBS or machine is None:
                    raise LabError(f"there is no {request['node']} to {request['verb']}")
                getattr(machine, request["verb"])()
                reply = {"done": True}
            except (LabError, AssertionError, OSError, ValueError, KeyError) as problem:
                reply = {"done": False, "because": str(problem)}
            try:
                connection.sendall(json.dumps(reply).encode() + b"\n")
            except OSError:
                # The one who asked has gone; what was asked is done all the same.
                pass


def control_path(lab: str) -> Path:
    return STATE / lab / "control"


def _address_path(lab: str) -> Path:
    return STATE / lab / "address"


def address_of(lab: str) -> str | None:
    """Where the API of a running lab answers on this machine."""
    try:
        return _address_path(lab).read_text()
    except FileNotFoundError:
        return None


def ask(lab: str, verb: str, node: str) -> None:
    """Asks the session of a running lab to do something to a node."""
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(control_path(lab)))
        except OSError as problem:
            raise LabError(f"the lab {lab} does not listen: {problem.strerror}") from None
        connection.sendall(json.dumps({"verb": verb, "node": node}).encode() + b"\n")
        line = connection.makefile().readline()
    reply = json.loads(line) if line else {"done": False, "because": "the lab ended"}
    if not reply["done"]:
        raise LabError(reply["because"])


class Forwarder:
    """Carries connections from a port of the machine to a master in the lab.

    The listening socket is made before the lab's network namespace is, so it stays in the machine's; connections
    to the masters are made inside. Each goes to the first master that takes it, beginning with the one that last did.
    """

    def __init__(self, port: int):
        self.port = port
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._listener.bind(("127.0.0.1", port))
        except OSError as problem:
            raise LabError(f"port {port} of this machine: {problem.strerror}; take another with --port") from None
        self._listener.listen(128)
        self._masters: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def serve(self, masters: list[str]) -> None:
        """Begins to forward, to these addresses; called inside the lab."""
        self._masters = list(masters)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        with client:
            master = self._dial()
            if master is None:
                return
            with master:
                back = threading.Thread(target=_pump, args=(master, client), daemon=True)
                back.start()
                _pump(client, master)
                back.join()

    def _dial(self) -> socket.socket | None:
        for address in list(self._masters):
            try:
                master = socket.create_connection((address, API_PORT), timeout=1)
            except OSError:
                continue
            master.settimeout(None)
            # Next time first the one that answers.
            self._masters.sort(key=lambda each: each != address)
            return master
        return None


def _pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        # Either side hung up; the other is told below.
        pass
    try:
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        # It hung up first.
        pass
