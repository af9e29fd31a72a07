"""Root file systems for nodes, built by mmdebstrap once and cached; and the tools and kernel of emulated machines.

A cached root is read-only to the lab: each node writes to an overlay of its own. Its name carries a digest of
everything it is made from, so a change here builds a new one and nothing stale is ever booted.
"""

import fcntl
import hashlib
import os
import shutil
from pathlib import Path

from . import host
from .host import CACHE, LabError, step

# systemd version a user asks for -> the Debian release that carries it.
RELEASES = {"252": "bookworm", "257": "trixie"}

PACKAGES = [
    "systemd", "systemd-sysv", "dbus", "iproute2", "python3", "curl", "ca-certificates", "libsystemd0", "procps",
    "nftables", "kmod",
]  # fmt: skip

# Timers and services of a whole machine that only make noise on a node of a lab. Its console and its
# container's absent hardware are handled by conditions in the units themselves.
MASKED = [
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service",
    "fstrim.timer", "console-getty.service", "getty.target", "systemd-timesyncd.service", "systemd-networkd.service",
    "systemd-networkd-wait-online.service", "systemd-resolved.service", "systemd-pstore.service",
    "systemd-homed.service", "systemd-userdbd.socket",
]  # fmt: skip

# The address stands in a file per node, so that a node that boots again by itself finds it again.
NETWORK_UNIT = """\
[Unit]
Description=Address of this node on the lab's network
DefaultDependencies=no
After=local-fs.target
Before=network.target
Wants=network.target

[Service]
Type=oneshot
RemainAfterExit=yes
EnvironmentFile=/etc/lab-network
ExecStart=/bin/sh -ec 'ip link set lo up; \\
  for link in host0 eth0; do [ ! -e /sys/class/net/$link ] || break; done; \\
  ip address replace $ADDRESS/24 dev $link; ip link set $link up'

[Install]
WantedBy=multi-user.target
"""

JOURNALD = "[Journal]\nStorage=persistent\nSystemMaxUse=128M\nRateLimitBurst=0\n"

# What an emulated machine is driven by: a root shell that reads one command after another from a virtio port.
SHELL_UNIT = """\
[Unit]
Description=Root shell for the lab
DefaultDependencies=no
After=basic.target
ConditionVirtualization=vm

[Service]
ExecStart=/usr/bin/python3 /usr/lib/lab-shell.py
Restart=always
RestartSec=100ms
# The shell is of the lab, not of the machine: what it starts must not fall to the first full memory or to a limit.
OOMScoreAdjust=-1000
TasksMax=infinity
KillMode=process

[Install]
WantedBy=multi-user.target
"""

SHELL_PROGRAM = '''\
"""Reads a line of JSON {"id", "argv"}, runs it, answers a line {"id", "status", "out", "err"}; many at a time."""
import glob, json, subprocess, sys, threading

# No udev here that would make /dev/virtio-ports/lab.
names = {open(path).read().strip(): path.split("/")[-2] for path in glob.glob("/sys/class/virtio-ports/*/name")}
port = open(f"/dev/{names['lab']}", "r+b", buffering=0)
lock = threading.Lock()


def answer(request):
    done = subprocess.run(request["argv"], stdin=subprocess.DEVNULL, capture_output=True)
    reply = {
        "id": request["id"],
        "status": done.returncode,
        "out": done.stdout.decode(errors="replace"),
        "err": done.stderr.decode(errors="replace"),
    }
    data = json.dumps(reply).encode() + b"\\n"
    with lock:
        while data:
            data = data[port.write(data) :]


with lock:
    port.write(b'{"id": 0, "status": 0, "out": "", "err": ""}\\n')
pending = b""
while True:
    piece = port.read(65536)
    if not piece:
        sys.exit(0)
    pending += piece
    *lines, pending = pending.split(b"\\n")
    for line in lines:
        if line.strip():
            threading.Thread(target=answer, args=(json.loads(line),), daemon=True).start()
'''


def release_of(systemd: str) -> str:
    if systemd not in RELEASES:
        raise LabError(f"no root has systemd {systemd}; there are {', '.join(RELEASES)}")
    return RELEASES[systemd]


def node_root(systemd: str) -> Path:
    """The root file system all nodes of this systemd version stand on; built if it is not there yet."""
    release = release_of(systemd)
    recipe = [release, *PACKAGES, *MASKED, NETWORK_UNIT, JOURNALD, SHELL_UNIT, SHELL_PROGRAM, "1"]
    return _cached(f"{release}-{_digest(recipe)}", lambda target: _build_node_root(release, target))


def emulator_root() -> Path:
    """A root with qemu, mkfs.ext4 and busybox to chroot into, and /kernel with an unpacked Debian cloud kernel.

    The machine's own package set stays out of it: a qemu tool from elsewhere would collide with Debian's.
    """
    packages = ["qemu-system-x86", "qemu-utils", "busybox-static", "e2fsprogs", "kmod", "xz-utils"]
    return _cached(f"emulator-{_digest([*packages, KERNEL_HOOK, '1'])}", lambda target: _build_emulator(packages, target))


KERNEL_HOOK = (
    'chroot "$1" sh -ec \'cd /var/tmp && apt-get download "$(apt-cache depends linux-image-cloud-amd64'
    " | sed -n \"s/.*Depends: \\(linux-image-[^ ]*\\).*/\\1/p\" | head -n 1)\""
    " && mkdir /kernel /lab && dpkg-deb -x linux-image-*.deb /kernel && rm linux-image-*.deb"
    " && depmod -b /kernel/usr \"$(ls /kernel/usr/lib/modules)\"'"
)


def _build_node_root(release: str, target: Path) -> None:
    _mmdebstrap(release, PACKAGES, target)
    units = target / "etc/systemd/system"
    for name in MASKED:
        (units / name).unlink(missing_ok=True)
        (units / name).symlink_to("/dev/null")
    wanted = units / "multi-user.target.wants"
    wanted.mkdir(parents=True, exist_ok=True)
    for name, text in {"lab-network.service": NETWORK_UNIT, "lab-shell.service": SHELL_UNIT}.items():
        (units / name).write_text(text)
        (wanted / name).symlink_to(f"/etc/systemd/system/{name}")
    (target / "usr/lib/lab-shell.py").write_text(SHELL_PROGRAM)
    conf = target / "etc/systemd/journald.conf.d"
    conf.mkdir(parents=True, exist_ok=True)
    (conf / "lab.conf").write_text(JOURNALD)
    (target / "etc/systemd/system.conf.d").mkdir(exist_ok=True)
    # A unit that ignores SIGTERM must not make a reboot in a test wait for a minute and a half.
    (target / "etc/systemd/system.conf.d/lab.conf").write_text("[Manager]\nDefaultTimeoutStopSec=20s\n")
    (target / "var/log/journal").mkdir(exist_ok=True)
    (target / "etc/resolv.conf").unlink(missing_ok=True)
    (target / "etc/resolv.conf").write_text("# Nodes of a lab know each other by /etc/hosts and nothing else.\n")
    # mmdebstrap leaves a machine id of its own; every node gets its own when it is made.
    (target / "etc/machine-id").unlink(missing_ok=True)


def _build_emulator(packages: list[str], target: Path) -> None:
    _mmdebstrap("trixie", packages, target, f"--customize-hook={KERNEL_HOOK}")


def _mmdebstrap(release: str, packages: list[str], target: Path, *extra: str) -> None:
    host.run(
        "mmdebstrap", "--variant=minbase", "--quiet", "--mode=root", f"--include={','.join(packages)}",
        "--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*", "--aptopt=Acquire::Languages \"none\"",
        *extra, release, str(target), os.environ.get("DROVER_LAB_MIRROR", "http://deb.debian.org/debian"),
    )  # fmt: skip


def _digest(parts: list[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def _cached(name: str, build) -> Path:
    """The cached directory of this name; made aside and renamed, so that a half-made one is never found."""
    roots = CACHE / "roots"
    roots.mkdir(parents=True, exist_ok=True)
    root = roots / name
    if root.exists():
        return root
    with open(roots / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.exists():
            host.require_tools(host.CONTAINER_TOOLS)
            unfinished = roots / f"{name}.unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)
            with step(f"building the root file system {name}"):
                build(unfinished)
            unfinished.rename(root)
            _drop_older(roots, name)
    return root


def _drop_older(roots: Path, name: str) -> None:
    """Removes what an older recipe of the same root left, unless a lab that still runs stands on it."""
    kind = name.rsplit("-", 1)[0]
    for other in roots.glob(f"{kind}-*"):
        if other.name.startswith(name) or not other.is_dir():
            continue
        with open(roots / f"{other.name}.lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            shutil.rmtree(other)
            (roots / f"{other.name}.lock").unlink()


def hold(root: Path):
    """Keeps a cached root from being dropped while the returned file is open."""
    lock = open(root.parent / f"{root.name}.lock", "w")
    fcntl.flock(lock, fcntl.LOCK_SH)
    return lock
