"""A lab's process tree: namespaces of its own, and nothing left behind whatever ends it.

    keeper      in the machine's namespaces: waits, passes signals on, clears up afterwards
     └ init     PID 1 of the lab's PID namespace: reaps; the kernel ends everything below when it ends
        └ body  what the caller wants done, in the lab's mount, network and PID namespace

The keeper killed by force takes init along (parent-death signal), and init takes all nodes along. Mounts and links
vanish with the namespaces. What can stay are empty cgroup directories and the lab's state directory: the keeper
removes them, and the next lab removes those of a keeper that was killed. A state directory is known to be
abandoned when nobody holds the lock in it.
"""

import ctypes
import errno
import fcntl
import os
import shutil
import signal
import sys
import time
import traceback
from contextlib import contextmanager
from pathlib import Path

from .host import CACHE, LabError

STATE = CACHE / "labs"
CGROUP_PREFIX = "drover-lab-"

CLONE_NEWNS, CLONE_NEWNET, CLONE_NEWPID = 0x00020000, 0x40000000, 0x20000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REC, MS_SLAVE = 0x2, 0x4, 0x8, 0x4000, 0x80000
PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)


class Interrupted(BaseException):
    """The lab was asked to end. No handler for ordinary errors may swallow it."""


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise LabError(f"{what}: {os.strerror(number)}")


def mount(source: str, target: str, kind: str | None, flags: int = 0, options: str = "") -> None:
    encoded = [text.encode() if text is not None else None for text in (source, target, kind)]
    _check(_libc.mount(*encoded, ctypes.c_ulong(flags), options.encode()), f"mount {kind or ''} on {target}")


def end_with_parent() -> None:
    """Has this process asked to end when the one that made it is gone, whatever ended that."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def cgroup_roots() -> list[Path]:
    """The mounted cgroup hierarchies systemd wants: version 2, and name=systemd where version 1 is mounted too."""
    roots = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        kind, super_options = fields[fields.index("-") + 1], fields[-1]
        if kind == "cgroup2" or (kind == "cgroup" and "name=systemd" in super_options.split(",")):
            roots.append(Path(fields[4]))
    if not roots:
        raise LabError("no cgroup2 file system is mounted on this machine; systemd nodes need one")
    return roots


class Enclosure:
    """One lab's place on the machine. `run` is the keeper; it returns what the body returned."""

    def __init__(self, name: str):
        self.name = name
        self.directory = STATE / name
        self.cgroups = [root / f"{CGROUP_PREFIX}{name}" for root in cgroup_roots()]
        self._lock = None

    def claim(self) -> None:
        """Takes the name; fails if a lab of that name runs. Clears up after labs that were killed."""
        with _registry():
            _sweep()
            self.directory.mkdir(exist_ok=True)
            self._lock = open(self.directory / "lock", "a+")
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._lock.close()
                raise LabError(f"a lab named {self.name} is running already") from None
            (self.directory / "pid").write_text(f"{os.getpid()}\n")
        for cgroup in self.cgroups:
            cgroup.mkdir(exist_ok=True)
            _pass_controllers_on(cgroup)

    def run(self, body) -> int:
        """Runs body() inside and returns its status; afterwards nothing of the lab is left."""
        try:
            return self._keep(body)
        finally:
            self.clear()

    def _keep(self, body) -> int:
        init = 0
        asked = False

        def pass_on(*_):
            # Asked once, the body has twenty seconds; asked twice, none.
            nonlocal asked
            if init:
                os.kill(init, signal.SIGKILL if asked else signal.SIGTERM)
            asked = True
            signal.alarm(20)

        handlers = {number: pass_on for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        handlers[signal.SIGALRM] = lambda *_: init and os.kill(init, signal.SIGKILL)
        previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        own_pid_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        try:
            sys.stdout.flush()
            sys.stderr.flush()
            _check(_libc.unshare(CLONE_NEWPID), "unshare the PID namespace")
            init = os.fork()
            if init == 0:
                _init(body)
            if asked:
                os.kill(init, signal.SIGTERM)
            _, status = os.waitpid(init, 0)
            return os.waitstatus_to_exitcode(status)
        finally:
            signal.alarm(0)
            _check(_libc.setns(own_pid_namespace, CLONE_NEWPID), "return to the machine's PID namespace")
            os.close(own_pid_namespace)
            for number, handler in previous.items():
                signal.signal(number, handler)

    def clear(self) -> None:
        with _registry():
            for cgroup in self.cgroups:
                remove_cgroup(cgroup)
            shutil.rmtree(self.directory, ignore_errors=True)
            self._lock.close()


def _init(body) -> None:
    """PID 1 of the lab. Never returns."""
    status = 1
    try:
        # A session of its own: a key pressed in the terminal reaches the keeper alone, which passes it on once.
        os.setsid()
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.alarm(0)
        _check(_libc.unshare(CLONE_NEWNS | CLONE_NEWNET), "unshare the mount and network namespaces")
        mount("none", "/", None, MS_REC | MS_SLAVE)
        mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
        mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
        child = os.fork()
        if child == 0:
            _body(body)
        signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        while True:
            ended, result = os.wait()
            if ended == child:
                status = os.waitstatus_to_exitcode(result)
                break
    except BaseException:
        traceback.print_exc()
    os._exit(status if 0 <= status < 256 else 1)


def _body(body) -> None:
    status = 1
    try:

        def interrupt(*_):
            # Only the first: the body's own clearing up is not interrupted again.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            raise Interrupted

        signal.signal(signal.SIGTERM, interrupt)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        status = body() or 0
    except Interrupted:
        status = 130
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _pass_controllers_on(cgroup: Path) -> None:
    """Lets nodes have the controllers this machine's version 2 tree offers; on a hybrid machine that is next to none."""
    try:
        offered = (cgroup / "cgroup.controllers").read_text().split()
    except FileNotFoundError:
        return
    for controller in offered:
        try:
            (cgroup / "cgroup.subtree_control").write_text(f"+{controller}")
        except OSError:
            # Some controllers refuse for reasons of their own (a thread's real-time class); nodes then lack that one.
            continue


def remove_cgroup(top: Path) -> None:
    """Removes a cgroup directory and everything below. What still runs in it belonged to a lab that is gone."""
    deadline = time.monotonic() + 10
    while top.exists():
        try:
            (top / "cgroup.kill").write_text("1")
        except OSError:
            # Version 1 has no such file; its members are members of the version 2 directory as well.
            pass
        busy = False
        for directory, _, _ in os.walk(top, topdown=False):
            try:
                os.rmdir(directory)
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno != errno.EBUSY or time.monotonic() > deadline:
                    raise
                busy = True
        if busy:
            # The kernel takes a moment to let go of members it has just killed and tells nobody on version 1.
            time.sleep(0.02)


@contextmanager
def _registry():
    """Held while a lab's directory is made, judged or removed, so that none is judged half made."""
    STATE.mkdir(parents=True, exist_ok=True)
    with open(STATE / "registry.lock", "a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def running() -> list[str]:
    """Names of the labs whose keeper lives, the youngest first."""
    with _registry():
        live = [directory for directory in STATE.iterdir() if directory.is_dir() and _is_held(directory)]
    return [directory.name for directory in sorted(live, key=lambda each: -each.stat().st_mtime)]


def inside_argv(name: str) -> list[str]:
    """What to put before a command so that it runs in the namespaces of a running lab."""
    keeper = int((STATE / name / "pid").read_text())
    for child in Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split():
        if os.readlink(f"/proc/{child}/ns/pid") != os.readlink("/proc/self/ns/pid"):
            return ["nsenter", "--target", child, "--mount", "--net", "--pid", "--"]
    raise LabError(f"the lab {name} is not up yet")


def _is_held(directory: Path) -> bool:
    with open(directory / "lock", "a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _sweep() -> None:
    """Removes what labs left whose keeper was killed."""
    for directory in STATE.iterdir():
        if directory.is_dir() and not _is_held(directory):
            for root in cgroup_roots():
                remove_cgroup(root / f"{CGROUP_PREFIX}{directory.name}")
            shutil.rmtree(directory, ignore_errors=True)
