"""A lab: a bridge, names and addresses, and the nodes on it. Made inside an enclosure."""

from pathlib import Path

from . import host
from .container import Container
from .enclosure import Enclosure, mount
from .host import run
from .machine import Machine
from .virtual import Emulator

BRIDGE = "lab0"
NETWORK = "10.77.0"
OWN_ADDRESS = f"{NETWORK}.254"


class Lab:
    def __init__(self, enclosure: Enclosure, base: Path, log, output: Path, in_memory: bool = True):
        """`base` is the cached root the nodes stand on, `output` where copies from nodes go. Nodes' disks are memory of
        this mount namespace unless it matters what a disk takes: they outlive a node's crash and end with the lab."""
        self.enclosure = enclosure
        self.base = base
        self.output = output
        self.bridge = BRIDGE
        self.machines: list[Machine] = []
        self.names: dict[str, str] = {}
        self.nodes_directory = enclosure.directory / "nodes"
        self._log = log
        self._emulator: Emulator | None = None
        self._has_next = False
        if not self.nodes_directory.exists():
            self.nodes_directory.mkdir()
            if in_memory:
                mount("tmpfs", str(self.nodes_directory), "tmpfs", 0, "size=75%,mode=755")
            self._make_network()

    @property
    def programs(self) -> dict[str, Path]:
        """What nodes get of drover: where it is on a node, and where here."""
        programs = {f"/usr/bin/{path.name}": path for path in host.binaries() if path.exists()}
        if self._has_next:
            programs["/usr/lib/drover-next/droverd"] = host.next_droverd()
        return programs

    def _make_network(self) -> None:
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", BRIDGE, "type", "bridge")
        run("ip", "address", "add", f"{OWN_ADDRESS}/24", "dev", BRIDGE)
        run("ip", "link", "set", BRIDGE, "up")

    def make_nodes(self, count: int, kind=Container, has_next: bool = False) -> list[Machine]:
        """Makes n1…nN, switched off; if asked, with the droverd of one version from now beside the other."""
        self._has_next = has_next
        self.names = {f"n{number}": f"{NETWORK}.{number}" for number in range(1, count + 1)}
        self.machines = [kind(name, address, self._log, self) for name, address in self.names.items()]
        return self.machines

    def emulator(self) -> Emulator:
        if self._emulator is None:
            self._emulator = Emulator(self)
        return self._emulator

    def start_all(self) -> None:
        for machine in self.machines:
            machine.start()

    def discard_nodes(self) -> None:
        for machine in self.machines:
            machine.discard()
        self.machines = []
