"""The machine that benchmarks run on: what it is, what its disk does, and what they need installed."""

import json
import os
import platform
import subprocess
import tempfile
from pathlib import Path

from lab import host

REPO = Path(__file__).resolve().parents[1]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", REPO / "target")) / host.PROFILE
LOAD = TARGET / "drover-load"
BARE_STARTS = TARGET / "examples/bare_starts"
ETCD_PACKAGE = "etcd-server"


def prepare() -> None:
    """Builds what is measured, as it is shipped, and what measures it."""
    host.require_root()
    host.require_tools({**host.CONTAINER_TOOLS, "dpkg-deb": "dpkg"})
    # All at once, so that cargo builds what they share for all of them.
    host.build_drover("-p", "drover-load", "-p", "drover-systemd", "--bins", "--example", "bare_starts")


def etcd() -> Path:
    """Debian's etcd, unpacked beside the lab's roots: nothing is installed, and no service begins."""
    place = host.CACHE / "etcd"
    binary = place / "usr/bin/etcd"
    if not binary.exists():
        place.mkdir(parents=True, exist_ok=True)
        with host.step(f"fetching {ETCD_PACKAGE}"), tempfile.TemporaryDirectory() as fetched:
            # As root and in a directory of root's: apt's own account need not write there.
            argv = ["apt-get", "-o", "APT::Sandbox::User=root", "download", ETCD_PACKAGE]
            try:
                host.run(*argv, cwd=fetched)
            except host.LabError:
                host.run("apt-get", "update")
                host.run(*argv, cwd=fetched)
            [package] = Path(fetched).glob("*.deb")
            host.run("dpkg-deb", "--extract", str(package), str(place))
    return binary


def load(*argv) -> dict:
    """Runs one of the clients of benches/load to its end: what it measured."""
    done = subprocess.run([str(LOAD), *map(str, argv)], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        raise host.LabError(f"{LOAD.name} {' '.join(map(str, argv))} failed: {done.stderr.strip()}")
    return json.loads(done.stdout)


def syncs_per_second(directory: Path, seconds: float = 1.0) -> float:
    return load("disk", "--directory", directory, "--seconds", seconds)["rate"]


def facts() -> dict:
    """What figures depend on, for the report."""
    cpu = next(
        (line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")),
        platform.machine(),
    )
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / (1 << 20)
    return {
        "CPU": f"{os.cpu_count()} × {cpu}",
        "memory": f"{memory:.0f} GiB",
        "kernel": platform.release(),
        "disk": f"{syncs_per_second(host.CACHE):.0f} fdatasyncs of 256 B a second",
    }


def cpu_seconds(pid: int) -> float:
    """What a process has used so far, all its threads, also those that ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
