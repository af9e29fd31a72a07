"""What every node gets when it is made: its name, its address, its peers' names, and drover's unit files."""

from pathlib import Path

from . import host

# Where a file of units/ goes on a machine, by what it is.
HOMES = {
    ".service": "usr/lib/systemd/system",
    ".slice": "usr/lib/systemd/system",
    ".socket": "usr/lib/systemd/system",
    ".target": "usr/lib/systemd/system",
    ".timer": "usr/lib/systemd/system",
    ".path": "usr/lib/systemd/system",
    ".rules": "usr/share/polkit-1/rules.d",
    ".catalog": "usr/lib/systemd/catalog",
}
# Where a .conf goes is told by its path: units/sysusers.d/drover.conf, units/drover.sysusers.conf, …
CONF_HOMES = {
    "sysusers": "usr/lib/sysusers.d",
    "tmpfiles": "usr/lib/tmpfiles.d",
    "dbus": "usr/share/dbus-1/system.d",
}


def furnish(root: Path, node, names: dict[str, str], accounts: bool = True) -> None:
    _write(root / "etc/hostname", f"{node.name}\n")
    _write(root / "etc/lab-network", f"ADDRESS={node.address}\n")
    hosts = ["127.0.0.1 localhost", "::1 localhost", *(f"{address} {name}" for name, address in names.items())]
    _write(root / "etc/hosts", "\n".join(hosts) + "\n")
    (root / "etc/drover").mkdir(parents=True, exist_ok=True)
    for source in unit_files():
        _write(root / home_of(source), source.read_text())
        if source.suffix == ".service":
            # Enabled as a package would; each is skipped until its node has an identity.
            wants = root / "etc/systemd/system/multi-user.target.wants"
            wants.mkdir(parents=True, exist_ok=True)
            (wants / source.name).symlink_to(f"/{home_of(source)}")
    if accounts:
        # They exist before the first boot, as a package's post-install would have made them.
        host.run("chroot", str(root), "systemd-sysusers")


def unit_files() -> list[Path]:
    units = host.REPO / "units"
    return sorted(path for path in units.rglob("*") if path.is_file() and home_of(path) is not None)


def home_of(source: Path) -> str | None:
    """Where a file of units/ belongs, relative to the root; None for what is not installed (a README)."""
    if source.suffix in HOMES:
        # A drop-in directory keeps its name.
        parent = f"{source.parent.name}/" if source.parent.name.endswith(".d") else ""
        return f"{HOMES[source.suffix]}/{parent}{source.name}"
    if source.suffix in (".conf", ".sysusers", ".tmpfiles"):
        path = str(source.relative_to(host.REPO))
        for word, home in CONF_HOMES.items():
            if word in path:
                return f"{home}/{source.stem.removesuffix('.' + word)}.conf"
    return None


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
