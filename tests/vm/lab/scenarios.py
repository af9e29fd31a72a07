"""Scenarios: reading their headers, and running them with the globals that the NixOS test driver gives.

A scenario is a file of `tests/vm/scenarios`, named as the sentence that it proves. Its first line is its header, which
can be read without running Python:

    # nodes: masters=3 agents=3 vm=false

masters, agents   how many machines of each kind: n1, n2, … first the masters, then the agents; `agents=0` with one
                  master is a machine that does both
vm                whether the kernel must enforce limits; the lab then takes emulated machines
alone             (optional) `true`: the scenario leaves the machines in a state that others cannot start from
timeout           (optional) seconds it may take, 300 if not said
next              (optional) `true`: machines have the droverd of one version from now too, /usr/lib/drover-next/droverd; the
                  lab alone builds it, so such a scenario is no NixOS VM test
systemd           (optional) `252`: it is not about systemd, so playing it on this version is enough
"""

import ast
import re
import time
import traceback
import unittest
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .host import LabError
from .machine import Machine

DIRECTORY = Path(__file__).resolve().parents[1] / "scenarios"
STORY = Path(__file__).resolve().parents[1] / "story.py"
KEYS = {"masters": int, "agents": int, "timeout": int, "systemd": int, "vm": bool, "alone": bool, "next": bool}


@dataclass(frozen=True)
class Scenario:
    path: Path
    masters: int
    agents: int
    vm: bool
    alone: bool = False
    next: bool = False
    timeout: int = 300
    systemd: int | None = None

    def is_played_on(self, version: str) -> bool:
        return self.systemd is None or str(self.systemd) == version

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def shape(self) -> tuple:
        """Scenarios of one shape can follow each other on the same machines."""
        return self.vm, self.masters, self.agents, self.next

    @property
    def promise(self) -> str:
        return ast.get_docstring(ast.parse(self.path.read_text())) or ""


def read(path: Path) -> Scenario:
    first = path.read_text().split("\n", 1)[0]
    found = re.fullmatch(r"# nodes:((?: [a-z]+=\w+)+)", first)
    if not found:
        raise LabError(f"{path}: the first line must be like `# nodes: masters=3 agents=3 vm=false`")
    values = {}
    for word in found[1].split():
        key, text = word.split("=")
        if key not in KEYS:
            raise LabError(f"{path}: the header knows {', '.join(KEYS)}; not {key}")
        if KEYS[key] is bool and text not in ("true", "false") or KEYS[key] is int and not text.isdigit():
            raise LabError(f"{path}: {key}={text} in the header is not a {KEYS[key].__name__}")
        values[key] = text == "true" if KEYS[key] is bool else int(text)
    missing = [key for key in ("masters", "agents", "vm") if key not in values]
    if missing:
        raise LabError(f"{path}: the header lacks {', '.join(missing)}")
    return Scenario(path, **values)


def read_all() -> list[Scenario]:
    return [read(path) for path in sorted(DIRECTORY.glob("*.py"))]


def prelude(scenario: Scenario) -> str:
    """The lines that stand before the story, as `default.nix` writes them too."""
    names = [f"n{number}" for number in range(1, scenario.masters + scenario.agents + 1)]
    masters, agents = names[: scenario.masters], names[scenario.masters :] or names
    settings = {role: (STORY.parent / f"node/{role}.toml").read_text() for role in ("master", "agent")}
    return (
        f"masters = [{', '.join(masters)}]\nagents = [{', '.join(agents)}]\n"
        f"MASTER_SETTINGS = {settings['master']!r}\nAGENT_SETTINGS = {settings['agent']!r}\n"
    )


def play(scenario: Scenario, machines: list[Machine], log) -> None:
    """Runs the scenario's text on the machines; what it raises is its failure."""
    driver = Driver(machines, log)
    scope = driver.scope()
    for name, text in [("prelude", prelude(scenario)), (str(STORY), STORY.read_text()), (str(scenario.path), None)]:
        text = scenario.path.read_text() if text is None else text
        exec(compile(text, name, "exec"), scope)


class Log:
    """The driver's logger, as far as a scenario may want it."""

    def __init__(self, log):
        self._log = log

    def log(self, message: str) -> None:
        self._log(f"    {message}", show=True)

    info = warning = error = log


class Driver:
    """The global words of the NixOS test driver."""

    def __init__(self, machines: list[Machine], log):
        self.machines = machines
        self._log = log

    def scope(self) -> dict:
        return {
            "__name__": "scenario",
            "machines": self.machines,
            "start_all": self.start_all,
            "subtest": self.subtest,
            "retry": retry,
            "log": Log(self._log),
            "t": unittest.TestCase(),
            **{machine.name: machine for machine in self.machines},
        }

    def start_all(self) -> None:
        for machine in self.machines:
            machine.start()

    @contextmanager
    def subtest(self, name: str):
        started = time.monotonic()
        try:
            yield
        except BaseException:
            self._log(f"    × {name}", show=True)
            raise
        self._log(f"    ✓ {name} ({time.monotonic() - started:.1f} s)", show=True)


def retry(fn, timeout_seconds: int = 900) -> None:
    """Calls fn(False) until it answers true; the last time fn(True), which may say more as it fails."""
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        if fn(False):
            return
        time.sleep(0.2)
    if not fn(True):
        raise AssertionError(f"not true within {timeout_seconds} s")


def story_of(error: BaseException, scenario: Scenario) -> str:
    """What failed, told by the lines of the scenario and the story alone, then the error."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename in (str(scenario.path), str(STORY))
    ]
    lines = [f"      {Path(frame.filename).name}:{frame.lineno}: {frame.line}" for frame in frames]
    return "\n".join([*lines, *("      " + line for line in f"{type(error).__name__}: {error}".splitlines())])
