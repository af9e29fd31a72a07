"""A node as a scenario sees it: the vocabulary of the NixOS test driver, with the same names and meanings.

What differs from NixOS is only how a command gets in and how power and plug are pulled: subclasses say that
(`container`, `virtual`). States are waited for by looking again and again until a deadline; a wait that
fails tells the last output and the end of the node's journal.
"""

import shlex
import shutil
import time
from pathlib import Path

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT = ["env", "-i", f"PATH={PATH}", "HOME=/root", "USER=root", "LANG=C.UTF-8", "TERM=dumb", "PAGER=cat"]


class MachineError(AssertionError):
    """A node did not do what the scenario requires."""


class Machine:
    # How often a state that is waited for is looked at.
    poll_seconds = 0.2

    def __init__(self, name: str, address: str, log):
        self.name = name
        self.address = address
        self._log = log

    # What a kind of node must know.

    def start(self, allow_reboot: bool = False) -> None:
        """Switches the node on; the first command waits until it has booted."""
        raise NotImplementedError

    def is_up(self) -> bool:
        raise NotImplementedError

    def crash(self) -> None:
        """Cuts the power: everything on the node ends at this instant, its disk stays as it is."""
        raise NotImplementedError

    def shutdown(self) -> None:
        """Switches off in order and waits until the node is off."""
        raise NotImplementedError

    def reboot(self) -> None:
        """Asks for an orderly reboot; the next command waits until the node is back."""
        raise NotImplementedError

    def block(self) -> None:
        """Pulls the network cable."""
        raise NotImplementedError

    def unblock(self) -> None:
        raise NotImplementedError

    def send_monitor_command(self, command: str) -> str:
        """`stop` holds the whole node still, `cont` lets it go on, as in qemu's monitor."""
        raise NotImplementedError

    def connect(self) -> None:
        """Waits until the node has booted far enough to take commands."""
        raise NotImplementedError

    def copy_from_host(self, source: str, target: str) -> None:
        raise NotImplementedError

    def copy_from_machine(self, source: str, target_dir: str = "") -> None:
        raise NotImplementedError

    def journal(self, lines: int) -> str:
        """The last lines of the node's journal, also when it is off."""
        raise NotImplementedError

    def _run(self, argv: list[str], timeout: float) -> tuple[int, str, str]:
        """Runs a program on the node: status, standard output, standard error."""
        raise NotImplementedError

    # The driver's words.

    def log(self, text: str) -> None:
        self._log(f"{self.name}: {text}")

    def execute(
        self, command: str, check_return: bool = True, check_output: bool = True, timeout: int | None = 900
    ) -> tuple[int, str]:
        status, out, err = self._shell(command, timeout)
        if err.strip():
            self.log(f"  stderr: {err.strip()}")
        return status, out

    def _shell(self, command: str, timeout: int | None) -> tuple[int, str, str]:
        self.connect()
        limit = timeout or 900
        started = time.monotonic()
        argv = [*ENVIRONMENT, "timeout", "-k", "5", str(limit), "bash", "-c", f"set -euo pipefail; {command}"]
        status, out, err = self._run(argv, limit + 15)
        self.log(f"[{status}] {time.monotonic() - started:.2f}s  {command}")
        return status, out, err

    def succeed(self, *commands: str, timeout: int | None = None) -> str:
        output = ""
        for command in commands:
            status, out, err = self._shell(command, timeout)
            if status != 0:
                raise self.failure(f"`{command}` failed with status {status}", out + err)
            output += out
        return output

    def fail(self, *commands: str, timeout: int | None = None) -> str:
        output = ""
        for command in commands:
            status, out, err = self._shell(command, timeout)
            if status == 0:
                raise self.failure(f"`{command}` succeeded and should not have", out + err)
            output += out
        return output

    def wait_until_succeeds(self, command: str, timeout: int = 900) -> str:
        return self._wait_for_status(command, timeout, wanted=True)

    def wait_until_fails(self, command: str, timeout: int = 900) -> str:
        return self._wait_for_status(command, timeout, wanted=False)

    def _wait_for_status(self, command: str, timeout: int, wanted: bool) -> str:
        deadline = time.monotonic() + timeout
        while True:
            left = max(1, int(deadline - time.monotonic()))
            status, out, err = self._shell(command, left)
            if (status == 0) == wanted:
                return out
            if time.monotonic() > deadline:
                verb = "succeed" if wanted else "fail"
                raise self.failure(f"`{command}` did not {verb} within {timeout} s (status {status})", out + err)
            time.sleep(self.poll_seconds)

    def wait_for_file(self, filename: str, timeout: int = 900) -> None:
        self.wait_until_succeeds(f"test -e {shlex.quote(filename)}", timeout)

    def wait_for_open_port(self, port: int, addr: str = "localhost", timeout: int = 900) -> None:
        self.wait_until_succeeds(_probe(addr, port), timeout)

    def wait_for_closed_port(self, port: int, addr: str = "localhost", timeout: int = 900) -> None:
        self.wait_until_fails(_probe(addr, port), timeout)

    def systemctl(self, q: str, user: str | None = None) -> tuple[int, str]:
        if user is not None:
            raise MachineError("the lab has no user managers; name no user")
        return self.execute(f"systemctl {q}")

    def get_unit_info(self, unit: str, user: str | None = None) -> dict[str, str]:
        status, lines = self.systemctl(f"--no-pager show {shlex.quote(unit)}", user)
        if status != 0:
            raise self.failure(f"retrieving the properties of unit {unit} failed with status {status}", lines)
        pairs = (line.split("=", 1) for line in lines.splitlines() if "=" in line)
        return {key: value for key, value in pairs}

    def get_unit_property(self, unit: str, property: str, user: str | None = None) -> str:
        status, lines = self.systemctl(f"--no-pager show {shlex.quote(unit)} --property={property}", user)
        if status != 0 or not lines.startswith(f"{property}="):
            raise self.failure(f"retrieving the property {property} of unit {unit} failed with status {status}", lines)
        return lines.split("=", 1)[1].rstrip("\n")

    def require_unit_state(self, unit: str, require_state: str = "active") -> None:
        state = self.get_unit_property(unit, "ActiveState")
        if state != require_state:
            raise self.failure(f"unit {unit} is {state}, not {require_state}")

    def wait_for_unit(self, unit: str, user: str | None = None, timeout: int = 900) -> None:
        """Waits until the unit is active; fails at once when it failed, or is inactive with no job to change that."""
        deadline = time.monotonic() + timeout
        while True:
            state = self.get_unit_property(unit, "ActiveState", user)
            if state == "active":
                return
            if state == "failed":
                raise self.failure(f"unit {unit} reached state failed", self.systemctl(f"status -n 20 {unit}")[1])
            if state == "inactive" and "No jobs" in self.systemctl("list-jobs --full 2>&1")[1]:
                if self.get_unit_property(unit, "ActiveState", user) == state:
                    raise self.failure(f"unit {unit} is inactive and no job is pending")
            if time.monotonic() > deadline:
                raise self.failure(f"unit {unit} was still {state} after {timeout} s")
            time.sleep(self.poll_seconds)

    def start_job(self, jobname: str, user: str | None = None) -> tuple[int, str]:
        return self.systemctl(f"start {jobname}", user)

    def stop_job(self, jobname: str, user: str | None = None) -> tuple[int, str]:
        return self.systemctl(f"stop {jobname}", user)

    def wait_for_shutdown(self) -> None:
        while self.is_up():
            time.sleep(0.05)

    def failure(self, what: str, output: str = "") -> MachineError:
        text = f"{self.name}: {what}"
        if output.strip():
            text += "\n--- output ---\n" + "\n".join(output.rstrip().splitlines()[-40:])
        return MachineError(text + f"\n--- end of the journal of {self.name} ---\n{self.journal(30)}")


def _probe(address: str, port: int) -> str:
    return f"exec 3<>/dev/tcp/{address}/{port}"


def copy_tree(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
    else:
        shutil.copy2(source, target)
