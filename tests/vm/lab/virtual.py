"""A node that is an emulated machine: its own kernel, pure cgroup version 2, every controller enforced.

qemu emulates in software, so everything takes several times longer than in a container; it is for what a
container cannot prove. The machine boots a Debian cloud kernel with an initramfs made here, which lays what
the node was furnished with (name, addresses, unit files, binaries) over the disk. Commands go through a virtio port to
a root shell service that every node root carries (`roots`).
"""

import gzip
import json
import os
import shutil
import socket
import stat
import subprocess
import time
import uuid
from pathlib import Path

from . import host, roots
from .enclosure import mount
from .host import LabError, run, step
from .machine import ENVIRONMENT, Machine
from .node import furnish

BOOT_SECONDS = 300
MEMORY_MIB = 1536
DISK = "4G"
MODULES = ["virtio_blk", "virtio_pci", "virtio_net"]

INIT = """\
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mkdir -p /proc /sys /dev /root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for module in /modules/*; do insmod "$module"; done
while [ ! -b /dev/vda ]; do sleep 0.1; done
mount -t ext4 /dev/vda /root
[ -e /root/etc/lab-network ] || cp -a /payload/. /root/
mount --move /dev /root/dev
umount /proc /sys
exec switch_root /root /sbin/init
"""


class Emulator:
    """qemu, its kernel and its images, as this lab sees them; made once per lab."""

    def __init__(self, lab):
        self.root = roots.emulator_root()
        self._hold = roots.hold(self.root)
        self.images = host.CACHE / "images"
        self.images.mkdir(parents=True, exist_ok=True)
        # Only this mount namespace sees these.
        for source, target in {"/dev": "dev", "/proc": "proc", str(host.CACHE): "lab"}.items():
            mount(source, str(self.root / target), None, MS_BIND | MS_REC)
        self.kernel = next((self.root / "kernel/boot").glob("vmlinuz-*"))
        self.version = self.kernel.name.removeprefix("vmlinuz-")

    def path(self, path: Path) -> str:
        """A path of the cache as the programs in the emulator's root see it."""
        return f"/lab/{path.relative_to(host.CACHE)}"

    def argv(self, *argv: str) -> list[str]:
        return ["chroot", str(self.root), *argv]

    def image(self, base: Path) -> Path:
        """The disk a node starts from: the cached root in an ext4 image. No node writes to it."""
        image = self.images / f"{base.name}.ext4"
        if not image.exists():
            unfinished = image.with_suffix(".unfinished")
            with step(f"making the disk image {image.name}"):
                with open(unfinished, "wb") as file:
                    file.truncate(4 << 30)
                run(*self.argv("mkfs.ext4", "-q", "-F", "-d", self.path(base), self.path(unfinished)))
                unfinished.rename(image)
            self._drop_orphans()
        return image

    def _drop_orphans(self) -> None:
        """Removes images of roots that an older recipe made and that are gone."""
        for image in self.images.glob("*.ext4"):
            if not (host.CACHE / "roots" / image.stem).exists():
                image.unlink()

    def initramfs(self) -> bytes:
        """busybox and the drivers for the disk and the network."""
        archive = Archive()
        archive.file("init", INIT.encode(), 0o755)
        archive.file("bin/busybox", (self.root / "bin/busybox").read_bytes(), 0o755)
        listing = []
        for module in MODULES:
            needed = run(*self.argv("modprobe", "-d", "/kernel/usr", "-S", self.version, "--show-depends", module))
            for line in needed.splitlines():
                word, *path = line.split()
                if word == "insmod" and path[0] not in listing:
                    listing.append(path[0])
        for number, path in enumerate(listing):
            name = Path(path).name
            data = subprocess.run(self.argv("xz", "-dc", path), check=True, capture_output=True).stdout
            archive.file(f"modules/{number:02}-{name.removesuffix('.xz')}", data, 0o644)
        return gzip.compress(archive.bytes(), compresslevel=1)


MS_BIND, MS_REC = 0x1000, 0x4000


class Archive:
    """A cpio archive ("newc"), the form the kernel unpacks an initramfs from."""

    def __init__(self):
        self._parts: list[bytes] = []
        self._made: set[str] = set()

    def file(self, name: str, data: bytes, mode: int) -> None:
        self._entry(name, stat.S_IFREG | mode, data)

    def tree(self, root: Path, at: str) -> None:
        for directory, _, files in os.walk(root):
            for name in files:
                path = Path(directory) / name
                inner = f"{at}/{path.relative_to(root)}"
                if path.is_symlink():
                    self._entry(inner, stat.S_IFLNK | 0o777, os.readlink(path).encode())
                else:
                    self.file(inner, path.read_bytes(), path.stat().st_mode & 0o7777)

    def _entry(self, name: str, mode: int, data: bytes) -> None:
        parent = os.path.dirname(name)
        if not stat.S_ISDIR(mode) and parent and parent not in self._made:
            above = ""
            for segment in parent.split("/"):
                above = f"{above}/{segment}".lstrip("/")
                if above not in self._made:
                    self._made.add(above)
                    self._entry(above, stat.S_IFDIR | 0o755, b"")
        encoded = name.encode() + b"\0"
        numbers = [len(self._parts) + 1, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0]
        header = b"070701" + "".join(f"{number:08X}" for number in numbers).encode()
        self._parts.append(_padded(header + encoded) + _padded(data))

    def bytes(self) -> bytes:
        self._entry("TRAILER!!!", 0, b"")
        return b"".join(self._parts)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)


class Virtual(Machine):
    poll_seconds = 1.0

    def __init__(self, name: str, address: str, log, lab):
        super().__init__(name, address, log)
        self.lab = lab
        self.emulator = lab.emulator()
        self.home = lab.nodes_directory / name
        self._qemu = None
        self._channel = None
        self._pending = b""
        self._request = 0
        self._booted = False
        self._make()

    def _make(self) -> None:
        self.home.mkdir(parents=True)
        payload = self.home / "payload"
        furnish(payload, self, self.lab.names, accounts=False)
        (payload / "etc/machine-id").write_text(uuid.uuid4().hex + "\n")
        for place, program in self.lab.programs.items():
            (payload / place.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(host.stripped(program), payload / place.lstrip("/"))
        archive = Archive()
        archive.tree(payload, "payload")
        # The kernel unpacks archive after archive; a compressed one first keeps the second aligned by its own padding.
        (self.home / "initramfs").write_bytes(_padded(self.emulator.initramfs()) + archive.bytes())
        shutil.rmtree(payload)
        image = self.emulator.image(self.lab.base)
        inside = self.emulator.path
        run(
            *self.emulator.argv(
                "qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", inside(image), inside(self.home / "disk")
            )
        )
        run("ip", "tuntap", "add", self.link, "mode", "tap")
        run("ip", "link", "set", self.link, "master", self.lab.bridge)

    @property
    def link(self) -> str:
        return f"vb-{self.name}"

    # Power.

    def start(self, allow_reboot: bool = False) -> None:
        if self.is_up():
            return
        inside = self.emulator.path
        for name in ("shell", "monitor"):
            (self.home / name).unlink(missing_ok=True)
        number = int(self.address.rsplit(".", 1)[1])
        run("ip", "link", "set", self.link, "up")
        argv = self.emulator.argv(
            "qemu-system-x86_64", "-name", self.name, "-nodefaults", "-no-user-config", "-display", "none",
            "-machine", "q35", "-accel", _accelerator(), "-cpu", "max", "-smp", "2", "-m", str(MEMORY_MIB),
            "-kernel", f"/kernel/boot/{self.emulator.kernel.name}", "-initrd", inside(self.home / "initramfs"),
            "-append", "console=ttyS0 quiet panic=-1 psi=1 net.ifnames=0 systemd.unified_cgroup_hierarchy=1",
            "-drive", f"file={inside(self.home / 'disk')},if=virtio,format=qcow2",
            "-netdev", f"tap,id=net0,ifname={self.link},script=no,downscript=no",
            "-device", f"virtio-net-pci,netdev=net0,mac=52:54:00:77:00:{number:02x},romfile=",
            "-device", "virtio-serial-pci", "-device", "virtserialport,chardev=shell,name=lab",
            "-chardev", f"socket,id=shell,path={inside(self.home / 'shell')},server=on,wait=off",
            "-monitor", f"unix:{inside(self.home / 'monitor')},server,nowait",
            "-serial", f"file:{inside(self.home / 'console')}",
        )  # fmt: skip
        with open(self.home / "qemu", "ab") as output:
            self._qemu = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        self._channel = None
        self._pending = b""
        self._booted = False
        self.log("switched on (emulated)")

    def is_up(self) -> bool:
        return self._qemu is not None and self._qemu.poll() is None

    def crash(self) -> None:
        if self.is_up():
            self.log("power cut")
            self._qemu.kill()
            self._qemu.wait()

    def shutdown(self) -> None:
        if not self.is_up():
            return
        self.log("switched off")
        self.execute("systemctl poweroff")
        try:
            self._qemu.wait(180)
        except subprocess.TimeoutExpired:
            raise self.failure("did not go down within 180 s", self.console_tail()) from None

    def reboot(self) -> None:
        self.connect()
        self.log("reboots")
        # The shell may be ended before it can answer; the greeting of the next one is what counts.
        self._send(["systemctl", "reboot"])
        self._booted = False

    # Getting in.

    def connect(self) -> None:
        if self._booted and self.is_up():
            return
        if not self.is_up():
            raise LabError(f"{self.name} is off; start() it first. {self._qemu_words()}")
        deadline = time.monotonic() + BOOT_SECONDS
        with step(f"{self.name} boots (emulated)"):
            while self._channel is None:
                self._require_booting(deadline)
                channel = socket.socket(socket.AF_UNIX)
                try:
                    channel.connect(str(self.home / "shell"))
                    self._channel = channel
                except OSError:
                    channel.close()
                    time.sleep(0.05)
            while self._receive(1.0).get("id") != 0:
                self._require_booting(deadline)
            self._booted = True
            argv = [*ENVIRONMENT, "systemctl", "is-system-running", "--wait"]
            self._run(argv, max(1, deadline - time.monotonic()))

    def _require_booting(self, deadline: float) -> None:
        if not self.is_up() or time.monotonic() > deadline:
            raise LabError(f"{self.name} did not boot:\n{self.console_tail()}\n{self._qemu_words()}")

    def _qemu_words(self) -> str:
        path = self.home / "qemu"
        return path.read_text(errors="replace")[-2000:] if path.exists() else ""

    def _run(self, argv: list[str], timeout: float) -> tuple[int, str, str]:
        request = self._send(argv)
        deadline = time.monotonic() + timeout
        while True:
            reply = self._receive(max(0.1, deadline - time.monotonic()))
            if reply.get("id") == request:
                return reply["status"], reply["out"], reply["err"]
            if reply.get("id") == 0:
                return 255, "", "the node rebooted meanwhile"
            if not self.is_up():
                return 255, "", "the node went down meanwhile"
            if time.monotonic() > deadline:
                return 124, "", "no answer from the node"

    def _send(self, argv: list[str]) -> int:
        self._request += 1
        self._channel.settimeout(30)
        self._channel.sendall(json.dumps({"id": self._request, "argv": argv}).encode() + b"\n")
        return self._request

    def _receive(self, timeout: float) -> dict:
        """The next whole line from the node's shell; empty when none came in time."""
        deadline = time.monotonic() + timeout
        while b"\n" not in self._pending:
            left = deadline - time.monotonic()
            if left <= 0:
                return {}
            self._channel.settimeout(left)
            try:
                piece = self._channel.recv(65536)
            except TimeoutError:
                return {}
            if not piece:
                return {}
            self._pending += piece
        line, self._pending = self._pending.split(b"\n", 1)
        try:
            return json.loads(line)
        except ValueError:
            # Half a line, from a shell that a reboot cut short.
            return {}

    # Network, pause, files.

    def block(self) -> None:
        self.log("cable pulled")
        run("ip", "link", "set", self.link, "down")

    def unblock(self) -> None:
        self.log("cable plugged in")
        run("ip", "link", "set", self.link, "up")

    def send_monitor_command(self, command: str) -> str:
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.settimeout(10)
            monitor.connect(str(self.home / "monitor"))
            answer = b""
            for text in ("", command):
                if text:
                    monitor.sendall(text.encode() + b"\n")
                answer = b""
                while not answer.endswith(b"(qemu) "):
                    answer += monitor.recv(4096)
        return answer.decode(errors="replace")

    def copy_from_host(self, source: str, target: str) -> None:
        raise LabError("files get into an emulated machine when it is made; this one is made")

    def copy_from_machine(self, source: str, target_dir: str = "") -> None:
        place = self.lab.output / target_dir / Path(source).name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(self.succeed(f"cat {source}"))

    def journal(self, lines: int, *more: str) -> str:
        if self.is_up() and self._booted:
            argv = [*ENVIRONMENT, "journalctl", "--no-pager", "-q", "-o", "short-precise", "-n", str(lines), *more]
            status, out, _ = self._run(argv, 60)
            if status == 0:
                return out
        return self.console_tail()

    def console_tail(self) -> str:
        path = self.home / "console"
        return "\n".join(path.read_text(errors="replace").splitlines()[-30:]) if path.exists() else ""

    def discard(self) -> None:
        self.crash()
        if self._channel:
            self._channel.close()
        run("ip", "link", "delete", self.link)
        shutil.rmtree(self.home)


def _accelerator() -> str:
    # /dev/kvm may be there and hang a guest, so it is used only where a person says that it works.
    return "kvm" if os.environ.get("DROVER_LAB_KVM") == "1" else "tcg,thread=multi"
