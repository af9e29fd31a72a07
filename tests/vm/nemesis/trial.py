"""A run from the first boot to the verdict: clients and followers begin, storms and calms alternate, everything ends in
order, and what was recorded is judged.
"""

import threading
import time
import traceback
from datetime import datetime
from pathlib import Path

import calm
import checks
import report
import work
from cluster import BOOK, Cluster
from events import Follower, merged
from history import History
from lab.host import say
from nemesis import STORM_SECONDS, Nemesis
from registers import NEVER, AppRegister, JobRegister, Register, SetKeeper

APP_CLIENTS = 3
JOB_CLIENTS = 3


class Trial:
    def __init__(self, enclosure, arguments, place: Path):
        self.arguments = arguments
        self.place = place
        self._log = open(place / "driver.log", "w")
        self.cluster = Cluster(enclosure, arguments.systemd, arguments.masters, arguments.agents, self.log, place)
        self.history = History(place / "history.jsonl")
        self.followers: list[Follower] = []
        self.entries_seen = 0
        self.violations: list[dict] = []
        self.judged: dict[str, str] = {}
        self.terms: set[int] = set()
        # Index -> the master that was first seen there, and the digest of its state.
        self.digests: dict[int, tuple[str, str]] = {}

    def log(self, text: str, show: bool = False) -> None:
        print(f"{time.strftime('%H:%M:%S')} {text}", file=self._log, flush=True)
        if show:
            say(text)

    def run(self) -> int:
        try:
            self._run()
        except calm.NotRecovered as problem:
            self._violate("recovery", str(problem))
        except Exception:
            # Whatever stops the run before its verdict is no success.
            self._violate("the run itself", traceback.format_exc())
        facts = {
            "seed": self.arguments.seed,
            "systemd": self.arguments.systemd,
            "masters": self.arguments.masters,
            "agents": self.arguments.agents,
            "command": self._command(),
            "judged": self.judged,
            "entries": self.entries_seen,
            "terms": f"{min(self.terms, default=0)}…{max(self.terms, default=0)}",
        }
        summary = report.summary(self.history, self.violations, facts)
        report.save(self.place, summary)
        say(report.text(summary))
        if self.violations:
            self._keep_journals()
        return 1 if self.violations else 0

    def _command(self) -> str:
        a = self.arguments
        only = f" --only {','.join(a.only)}" if a.only else ""
        return (
            f"tests/vm/nemesis/run --minutes {a.minutes:g} --seed {a.seed} --systemd {a.systemd} "
            f"--masters {a.masters} --agents {a.agents}{only}"
        )

    def _violate(self, promise: str, what: str) -> None:
        self.violations.append({"promise": promise, "what": what})
        say(f"VIOLATION ({promise}): {what}")

    def _run(self) -> None:
        say("bringing up the cluster")
        self.cluster.bring_up()
        after = calm.holds(self.cluster)[self.cluster.leader().name]["applied"]
        self.ending, self.resting = threading.Event(), threading.Event()
        followers_end = threading.Event()
        masters = [(f"follower at {master.name}", master) for master in self.cluster.masters]
        self.followers = [
            Follower(name, self.cluster, after, followers_end, master)
            for name, master in [*masters, ("follower anywhere", None)]
        ]
        for follower in self.followers:
            follower.thread.start()
        work.begin(self.cluster, self.history)
        shepherd = self._start_clients()
        nemesis = Nemesis(self.cluster, self.history, self.arguments.seed, self.arguments.only)
        self._storms(nemesis, shepherd)
        self._end_work()
        self._wait_for_followers()
        followers_end.set()
        self._judge()

    def _start_clients(self):
        common = (self.cluster, self.history, self.ending, self.arguments.seed)
        apps, jobs = Register("apps"), Register("jobs")
        shepherd = work.Shepherd("shepherd", *common)
        self.clients = [
            *(AppRegister(apps, f"a{number}", *common) for number in range(APP_CLIENTS)),
            *(JobRegister(jobs, f"j{number}", *common) for number in range(JOB_CLIENTS)),
            SetKeeper("s0", *common),
            SetKeeper("s1", *common),
            shepherd,
        ]
        for client in self.clients:
            client.thread.start()
        return shepherd

    def _storms(self, nemesis: Nemesis, shepherd) -> None:
        end = self.history.now() + self.arguments.minutes * 60
        round_number = 0
        while self.history.now() < end:
            round_number += 1
            seconds = nemesis.storm_seconds()
            left = end - self.history.now()
            # What would be left is too short for a storm of its own.
            until = end if left < seconds + STORM_SECONDS[0] / 2 else self.history.now() + seconds
            nemesis.storm(until)
            shepherd.rest()
            try:
                took = calm.recovered(self.cluster)
                self.history.add("recovered", seconds=took, round=round_number)
                faults, operations = len(self.history.of("fault")), len(self.history.of("op"))
                say(
                    f"  {self.history.now() / 60:5.1f} min  round {round_number}: {faults} faults, {operations} operations "
                    f"so far; recovered in {took:.1f} s"
                )
            finally:
                shepherd.go_on()
            self._note_states()

    def _note_states(self) -> None:
        """Masters that have applied the same entries hold the same state."""
        for name, state in calm.holds(self.cluster).items():
            self.terms.add(state["term"])
            other, digest = self.digests.setdefault(state["applied"], (name, state["digest"]))
            if digest != state["digest"]:
                self._violate("one state", f"{other} and {name} hold different states of index {state['applied']}")

    def _end_work(self) -> None:
        """Clients stop; runs that are due finish; then the jobs go, and the cluster becomes idle."""
        self.ending.set()
        for client in self.clients:
            client.thread.join(60)
            if client.failure or client.thread.is_alive():
                raise RuntimeError(f"client {client.name} could not go on: {client.failure or 'it hangs'}") from client.failure
        self._let_jobs_run_out()
        try:
            took = calm.recovered(self.cluster, idle=True)
            self.judged["idle at the end"] = (
                f"after {took:.1f} s: instances as wanted, no other unit, no stray in a ledger, one state on all masters"
            )
        except calm.NotRecovered as problem:
            self._violate("an idle cluster holds what it should", str(problem))
        self._note_states()

    def _let_jobs_run_out(self) -> None:
        """Waits until no slot is overdue, takes the schedules away, and waits for the runs there still are."""
        scheduled = [job for job in work.JOBS if not job.parents]
        self.caught_up = {
            job.name: self._wait("no slot is overdue", lambda job=job: self._next_if_to_come(job)) for job in scheduled
        }
        for job in scheduled:
            status, answer = self.cluster.ask("POST", "/v1/scheduler/iso8601", job.definition(0) | {"schedule": NEVER})
            assert status < 300, (job.name, status, answer)
        self._wait("all runs are over, and dependents had theirs", self._runs_are_over)

    def _next_if_to_come(self, job: work.Job) -> float | None:
        _, answer = self.cluster.ask("GET", f"/drover/v1/jobs/{job.name}")
        following = seconds_of(answer["job"]["next"])
        return following if following > time.time() - 2 else None

    def _runs_are_over(self) -> bool:
        _, answer = self.cluster.ask("GET", "/drover/v1/jobs")
        entries, _, _ = merged([segment for follower in self.followers for segment in list(follower.segments)])
        late = [
            fault for job in work.JOBS if job.parents for fault in checks.dependents(entries, job) if "did not start" in fault
        ]
        return not late and not any(job.get("live") for job in answer["jobs"])

    def _wait(self, what: str, look):
        deadline = time.monotonic() + calm.RECOVERY_SECONDS
        while True:
            if answer := look():
                return answer
            if time.monotonic() > deadline:
                raise calm.NotRecovered(f"not within {calm.RECOVERY_SECONDS} s of healing: {what}")
            time.sleep(0.5)

    def _wait_for_followers(self) -> None:
        """Nothing happens any more: whoever follows has soon seen the last of it."""

        def same():
            return len({follower.position for follower in self.followers}) == 1

        try:
            self._wait("all followers of the event stream have seen the last entry", same)
        except calm.NotRecovered as problem:
            positions = {follower.name: follower.position for follower in self.followers}
            self._violate("event stream", f"{problem}: {positions}")
        for follower in self.followers:
            if follower.failure:
                raise RuntimeError(f"{follower.name} could not go on") from follower.failure

    def _judge(self) -> None:
        say("judging")
        operations = self.history.of("op")
        entries, faults, unseen = merged([segment for follower in self.followers for segment in follower.segments])
        self.entries_seen = len(entries)
        complete = not unseen
        seen = "" if complete else f"; nobody saw {unseen}, so what needs all events is not judged"
        resyncs = sum(follower.resyncs for follower in self.followers)
        connections = sum(follower.connections for follower in self.followers)
        self._settle("event stream", faults, f"{len(entries)} entries, {connections} connections, {resyncs} resyncs{seen}")
        keys = {op["key"] for op in operations if op["key"].startswith(("app ", "job "))}
        judged = [op for op in operations if op["key"] in keys and op["outcome"] != "fail"]
        self._settle("linearizable", checks.registers(operations), f"{len(keys)} registers, {len(judged)} operations")
        self._settle(
            "acknowledged elements", checks.the_set(operations), f"{sum(op['key'] == 'set' for op in operations)} operations"
        )
        if not complete:
            # A run must be judged, or it shows nothing.
            self._violate("the run itself", f"the events of {unseen} were seen by no follower")
            return
        self._judge_jobs(entries)
        for app in work.FLEETS:
            self._settle(
                f"health of {app}", checks.health(entries, app, seconds_of), "every decision to end or launch an instance"
            )

    def _judge_jobs(self, entries: dict) -> None:
        first = {record["name"]: record["first_slot"] for record in self.history.of("job")}
        for job in work.JOBS:
            begun = {
                event["run"]
                for events in entries.values()
                for event in events
                if event.get("job") == job.name and event.get("run")
            }
            if job.parents:
                self._settle(f"runs of {job.name}", checks.dependents(entries, job), f"{len(begun)} runs")
                continue
            faults = checks.slots(entries, job, first[job.name])
            last = f"{job.name}@{int((self.caught_up[job.name] - job.seconds) * 1000)}"
            if last not in begun:
                faults.append(f"job {job.name} says that its next slot is after {last}, and that run never began")
            self._settle(f"slots of {job.name}", faults, f"{len(begun)} runs, each slot once")
        books = {agent.name: book(self.cluster.on(agent, f"cat {BOOK}")[1]) for agent in self.cluster.agents}
        executed = sum(len(lines) for lines in books.values())
        again = sum(":0:" not in task for lines in books.values() for task, _ in lines if task.startswith("ct:"))
        self._settle(
            "executed once",
            checks.attempts(entries, books, work.JOBS),
            f"{executed} executions on the nodes, {again} of them retries",
        )

    def _settle(self, promise: str, faults: list[str], what: str) -> None:
        self.judged[promise] = what if not faults else f"{what}; {len(faults)} violations"
        for fault in faults[:10]:
            self._violate(promise, fault)

    def _keep_journals(self) -> None:
        for machine in self.cluster.machines:
            (self.place / f"{machine.name}.journal").write_text(machine.journal(200000))
        for agent in self.cluster.agents:
            (self.place / f"{agent.name}.book").write_text(self.cluster.on(agent, f"cat {BOOK}")[1])


def book(text: str) -> list[tuple[str, float]]:
    """The tasks that were really executed on a node, and when."""
    return [(line.split()[0], float(line.split()[1])) for line in text.splitlines()]


def seconds_of(time_of_day: str) -> float:
    return datetime.fromisoformat(time_of_day).timestamp()
