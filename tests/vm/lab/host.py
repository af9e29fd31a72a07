"""What the lab needs of the machine it runs on: root, some Debian packages, a build of drover. And how it talks.

Nothing here touches a service or the network set-up of the machine: packages are refused that would, and
/etc/resolv.conf is compared before and after.
"""

import fcntl
import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

REPO = Path(__file__).resolve().parents[3]
CACHE = Path(os.environ.get("DROVER_LAB_CACHE", "/var/cache/drover-lab"))
# How cargo builds what the nodes run: with every check compiled in, unless speed is what is looked at.
PROFILE = os.environ.get("DROVER_LAB_PROFILE", "lab")

# program -> Debian package; a program already there is taken whatever it came from.
CONTAINER_TOOLS = {
    "mmdebstrap": "mmdebstrap",
    "systemd-nspawn": "systemd-container",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "journalctl": "systemd",
}
BUILD_TOOLS = {"pkg-config": "pkg-config", "cc": "gcc"}

# A package that would change how this machine finds names or networks is never worth a lab.
UNWANTED = {"systemd-resolved", "resolvconf", "openresolv", "network-manager", "dnsmasq", "libnss-resolve"}


class LabError(Exception):
    """Something the lab cannot go on from; the text says what to do."""


def say(text: str) -> None:
    print(text, flush=True)


@contextmanager
def step(text: str):
    """Says what is going on, and again every ten seconds while it goes on, and how long it took."""
    started = time.monotonic()
    done = threading.Event()
    say(f"  … {text}")

    def remind():
        while not done.wait(10):
            say(f"  … {text} ({time.monotonic() - started:.0f} s)")

    reminder = threading.Thread(target=remind, daemon=True)
    reminder.start()
    try:
        yield
    finally:
        done.set()
        reminder.join()
    took = time.monotonic() - started
    if took > 2:
        say(f"    done in {took:.1f} s: {text}")


def run(*argv: str, **kwargs) -> str:
    """Runs a program to its end and returns what it printed; its failure is a LabError with its last words."""
    result = subprocess.run(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", **kwargs
    )
    if result.returncode != 0:
        tail = "\n".join(result.stdout.splitlines()[-20:])
        raise LabError(f"{' '.join(argv)} ended with status {result.returncode}:\n{tail}")
    return result.stdout


def require_root() -> None:
    if os.geteuid() != 0:
        raise LabError("the lab makes namespaces, mounts and cgroups: run it as root")


def require_tools(tools: dict[str, str]) -> None:
    """Installs the Debian packages of the programs that are missing."""
    search = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"
    os.environ["PATH"] = search
    missing = sorted({package for program, package in tools.items() if not shutil.which(program, path=search)})
    install_packages(missing)


def install_packages(packages: list[str]) -> None:
    if not packages:
        return
    if not shutil.which("apt-get"):
        raise LabError(f"missing: {', '.join(packages)} (Debian names). On NixOS use the VM tests of the flake instead.")
    apt = ["apt-get", "-y", "--no-install-recommends", "-o", "Dpkg::Options::=--force-confold"]
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    resolv = _read("/etc/resolv.conf")
    with step(f"installing {' '.join(packages)}"):
        try:
            plan = run(*apt, "-s", "install", *packages, env=environment)
        except LabError:
            run("apt-get", "update", env=environment)
            plan = run(*apt, "-s", "install", *packages, env=environment)
        coming = {line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")}
        if coming & UNWANTED:
            raise LabError(f"installing {' '.join(packages)} would bring {', '.join(sorted(coming & UNWANTED))}: not done")
        try:
            run(*apt, "install", *packages, env=environment)
        except LabError:
            # The lists may be older than the archive.
            run("apt-get", "update", env=environment)
            run(*apt, "install", *packages, env=environment)
    if _read("/etc/resolv.conf") != resolv:
        Path("/etc/resolv.conf").write_bytes(resolv or b"")
        raise LabError(f"installing {' '.join(packages)} changed /etc/resolv.conf; it was put back")


def _read(path: str) -> bytes | None:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        return None


def binaries() -> tuple[Path, Path]:
    """droverd and drover as the nodes get them."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", REPO / "target")) / PROFILE
    return target / "droverd", target / "drover"


def next_droverd() -> Path:
    """droverd as it will be one version from now: what `build_next` makes."""
    return binaries()[0].parent / "next/droverd"


def stripped(binary: Path) -> Path:
    """The binary without debugging information, for where its size costs time."""
    small = binary.with_suffix(".stripped")
    if not small.exists() or small.stat().st_mtime < binary.stat().st_mtime:
        run("strip", "--strip-debug", "-o", str(small), str(binary))
    return small


def build_drover(*more: str) -> None:
    """Brings both binaries, and what else cargo is told, up to date; cargo itself knows whether there is anything to do."""
    require_tools(BUILD_TOOLS)
    if subprocess.run(["pkg-config", "--exists", "libsystemd"]).returncode != 0:
        install_packages(["libsystemd-dev"])
    if not shutil.which("cargo"):
        raise LabError("cargo is missing: install Rust 1.95 or newer (https://rustup.rs), or put cargo on the PATH")
    started = time.monotonic()
    say(f"  … building droverd and drover (cargo, profile {PROFILE})")
    cargo("-p", "droverd", "-p", "drover", *more)
    say(f"    built in {time.monotonic() - started:.1f} s")


def build_next() -> None:
    """Makes the droverd that is one version ahead (the feature `next-version`), beside the one of today. Cargo puts both into one
    place, so this comes before `build_drover`, and only once at a time."""
    started = time.monotonic()
    say("  … building droverd as it will be one version from now")
    target = next_droverd()
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        cargo("-p", "droverd", "-p", "drover", "--features", "droverd/next-version")
        # Its own file: nodes of another run may have the one before open.
        unfinished = target.with_suffix(".new")
        shutil.copy2(binaries()[0], unfinished)
        unfinished.rename(target)
    say(f"    built in {time.monotonic() - started:.1f} s")


def cargo(*words: str) -> None:
    argv = ["cargo", "build", "--profile", PROFILE, *words]
    if not sys.stderr.isatty():
        argv.insert(2, "--quiet")
    if subprocess.run(argv, cwd=REPO).returncode != 0:
        raise LabError("drover does not build; cargo says why above")
