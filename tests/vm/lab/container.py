"""A node that is a container: systemd as PID 1 in namespaces of its own, started by systemd-nspawn.

It boots in a second or two. What it cannot do on a machine that binds the controllers to cgroup version 1, and so
is never asked here: enforce limits on CPU, memory and processes (`virtual` can).
"""

import os
import shutil
import signal
import subprocess
import time
import uuid
from pathlib import Path

from .enclosure import mount, remove_cgroup
from .host import LabError, run
from .machine import ENVIRONMENT, Machine, copy_tree
from .node import furnish

# Joins the node's cgroups as itself, then becomes nspawn: nobody else is ever moved.
ENTER_CGROUPS = 'while [ "$1" != -- ]; do echo 0 > "$1/cgroup.procs"; shift; done; shift; exec "$@"'

BOOT_SECONDS = 90
NSPAWN_REBOOT = 133


class Container(Machine):
    def __init__(self, name: str, address: str, log, lab):
        super().__init__(name, address, log)
        self.lab = lab
        self.home = lab.nodes_directory / name
        self.root = self.home / "root"
        self.cgroups = [cgroup / name for cgroup in lab.enclosure.cgroups]
        self._nspawn = None
        self._leader = 0
        self._booted = False
        self._disks: dict[str, Path] = {}
        self._make()

    def _make(self) -> None:
        for directory in ("upper", "work", "root"):
            (self.home / directory).mkdir(parents=True)
        options = f"lowerdir={self.lab.base},upperdir={self.home}/upper,workdir={self.home}/work"
        mount("overlay", str(self.root), "overlay", 0, options)
        furnish(self.root, self, self.lab.names)
        machine_id = uuid.uuid4().hex
        (self.root / "etc/machine-id").write_text(machine_id + "\n")

    def give_disk(self, path: str, megabytes: int) -> None:
        """Puts a file system of its own, of this size, at `path` of a node that is not on yet. Like the rest of the
        node's disk it outlives a crash."""
        disk = self.home / "disks" / path.strip("/").replace("/", "-")
        disk.mkdir(parents=True)
        mount("tmpfs", str(disk), "tmpfs", 0, f"size={megabytes}m,mode=755")
        self._disks[path] = disk

    def disk_at(self, path: str) -> Path:
        """Where a disk that was given is to be seen from outside, whether the node is on or off."""
        return self._disks[path]

    # Power.

    def start(self, allow_reboot: bool = False) -> None:
        if self.is_up():
            return
        for cgroup in self.cgroups:
            remove_cgroup(cgroup)
            cgroup.mkdir()
        programs = [f"--bind-ro={path}:{place}" for place, path in self.lab.programs.items()]
        disks = [f"--bind={disk}:{path}" for path, disk in self._disks.items()]
        argv = [
            "sh", "-ec", ENTER_CGROUPS, "enter", *map(str, self.cgroups), "--",
            "systemd-nspawn", "--quiet", "--register=no", "--keep-unit", f"--directory={self.root}",
            f"--machine={self.name}", f"--hostname={self.name}", f"--network-bridge={self.lab.bridge}",
            "--console=pipe", "--link-journal=no", "--resolv-conf=off", "--timezone=off", *programs, *disks, "--boot",
        ]  # fmt: skip
        with open(self.home / "console", "ab") as console:
            self._nspawn = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                env={"PATH": os.environ["PATH"], "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            )
        self._forget_boot()
        self.log("switched on")

    def is_up(self) -> bool:
        return self._nspawn is not None and self._nspawn.poll() is None

    def crash(self) -> None:
        if not self.is_up():
            return
        self._thaw()
        self.log("power cut")
        # PID 1 of the node dies, and the kernel ends everything else in its namespace with it.
        os.kill(self._find_leader(), signal.SIGKILL)
        self._nspawn.wait(30)

    def shutdown(self) -> None:
        if not self.is_up():
            return
        self.connect()
        self.log("switched off")
        # SIGRTMIN+4 is systemd's "power off"; signal.SIGRTMIN is the C library's, which is the same.
        os.kill(self._find_leader(), signal.SIGRTMIN + 4)
        self._await_end()

    def _await_end(self) -> None:
        try:
            self._nspawn.wait(60)
        except subprocess.TimeoutExpired:
            raise self.failure("did not go down within 60 s", self.console_tail()) from None

    def reboot(self) -> None:
        self.connect()
        self.log("reboots")
        # What ctrl-alt-del is to a machine.
        os.kill(self._find_leader(), signal.SIGINT)
        self._await_end()
        self.start_again_if_asked()

    def start_again_if_asked(self) -> None:
        """With --keep-unit nspawn leaves a reboot to whoever started it, and says so by its status."""
        if self._nspawn is not None and self._nspawn.poll() == NSPAWN_REBOOT:
            self.start()

    def _forget_boot(self) -> None:
        self._leader = 0
        self._booted = False

    # Getting in.

    def connect(self) -> None:
        if self._booted and self.is_up() and os.path.exists(f"/proc/{self._leader}/ns/pid"):
            return
        self.start_again_if_asked()
        if not self.is_up():
            raise LabError(f"{self.name} is off; start() it first")
        self._forget_boot()
        deadline = time.monotonic() + BOOT_SECONDS
        while not self._has_booted(deadline):
            if not self.is_up():
                raise LabError(f"{self.name} did not boot:\n{self.console_tail()}")
            if time.monotonic() > deadline:
                raise LabError(f"{self.name} did not boot within {BOOT_SECONDS} s:\n{self.console_tail()}")
            time.sleep(0.05)
        self._booted = True

    def _has_booted(self, deadline: float) -> bool:
        leader = self._find_leader()
        if not leader or not os.path.exists(f"/proc/{leader}/root/run/dbus/system_bus_socket"):
            return False
        argv = [*ENVIRONMENT, "systemctl", "is-system-running", "--wait"]
        _, out, _ = self._run(argv, max(1, deadline - time.monotonic()))
        return out.strip() in ("running", "degraded")

    def _find_leader(self) -> int:
        """The node's PID 1 as the lab numbers it."""
        if not self._leader:
            self._leader = leader_below(self._nspawn.pid)
        return self._leader

    def _run(self, argv: list[str], timeout: float) -> tuple[int, str, str]:
        try:
            done = subprocess.run(
                ["nsenter", "--target", str(self._leader), "--all", "--", *argv],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=timeout,
            )
        except subprocess.TimeoutExpired as expired:
            return 124, (expired.stdout or b"").decode(errors="replace"), "no answer from the node"
        return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")

    # Network, pause, files.

    @property
    def link(self) -> str:
        return f"vb-{self.name}"

    def block(self) -> None:
        self.connect()
        self.log("cable pulled")
        run("ip", "link", "set", self.link, "down")

    def unblock(self) -> None:
        self.log("cable plugged in")
        run("ip", "link", "set", self.link, "up")

    def send_monitor_command(self, command: str) -> str:
        states = {"stop": "1", "cont": "0"}
        if command not in states:
            raise LabError(f"the lab's monitor knows {', '.join(states)}; not {command}")
        self.log("held still" if command == "stop" else "goes on")
        freezer = self._freezer()
        (freezer / "cgroup.freeze").write_text(states[command])
        deadline = time.monotonic() + 10
        while f"frozen {states[command]}" not in (freezer / "cgroup.events").read_text():
            if time.monotonic() > deadline:
                raise LabError(f"{self.name} does not {command}")
            time.sleep(0.01)
        return ""

    def _freezer(self) -> Path:
        return next(cgroup for cgroup in self.cgroups if (cgroup / "cgroup.freeze").exists())

    def _thaw(self) -> None:
        (self._freezer() / "cgroup.freeze").write_text("0")

    def copy_from_host(self, source: str, target: str) -> None:
        copy_tree(Path(source), self.root / target.lstrip("/"))

    def copy_from_machine(self, source: str, target_dir: str = "") -> None:
        path = Path(source)
        copy_tree(self.root / source.lstrip("/"), self.lab.output / target_dir / path.name)

    def journal(self, lines: int, *more: str) -> str:
        argv = ["journalctl", "--no-pager", "-q", "-o", "short-precise", "-n", str(lines), *more]
        if self.is_up() and self._booted:
            status, out, err = self._run([*ENVIRONMENT, *argv], 20)
            if status == 0:
                return out
        done = subprocess.run(
            [*argv, f"--directory={self.root}/var/log/journal"], stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        return done.stdout or done.stderr or self.console_tail()

    def console_tail(self) -> str:
        try:
            return "\n".join((self.home / "console").read_text(errors="replace").splitlines()[-30:])
        except FileNotFoundError:
            return ""

    def discard(self) -> None:
        """Ends the node and everything it wrote."""
        if self.is_up():
            leader = self._find_leader()
            self._thaw()
            if leader:
                os.kill(leader, signal.SIGKILL)
            else:
                self._nspawn.kill()
            self._nspawn.wait(30)
        for mounted in (self.root, *self._disks.values()):
            run("umount", "--lazy", str(mounted))
        shutil.rmtree(self.home)
        for cgroup in self.cgroups:
            remove_cgroup(cgroup)


def leader_below(nspawn: int) -> int:
    """nspawn's child that is systemd in a PID namespace of its own; 0 if it is not there yet."""
    own = os.readlink("/proc/self/ns/pid")
    try:
        for child in Path(f"/proc/{nspawn}/task/{nspawn}/children").read_text().split():
            if os.readlink(f"/proc/{child}/ns/pid") != own and Path(f"/proc/{child}/comm").read_text() == "systemd\n":
                return int(child)
    except OSError:
        # A process that ended while being looked at is not the leader.
        pass
    return 0


def leader_of(name: str) -> int:
    """The PID 1 of the node of this name; for a process that entered the lab from outside."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[0].endswith(b"systemd-nspawn") and f"--machine={name}".encode() in words:
                return leader_below(int(entry.name))
    return 0
