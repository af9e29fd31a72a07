"""Strikes again and again, several faults at once, each for a while; then heals everything and sees the cluster recover.

A storm and the calm after it make a round. The seed decides what is tried when and for how long; which node is hit depends
on who leads at that moment, too.
"""

import heapq
import random
import time

from faults import FAULTS, Fault
from lab.host import LabError

STORM_SECONDS = (60, 110)
# Between the beginnings of two faults.
PAUSE_SECONDS = (1, 9)
AT_ONCE_MAX = 3
# What is healed has to succeed within this, however busy the machine is.
HEAL_SECONDS = 300


class Nemesis:
    def __init__(self, cluster, history, seed: int, only: list[str] | None = None):
        self.cluster = cluster
        self.history = history
        self._chance = random.Random(f"{seed} nemesis")
        self._kinds = {name: FAULTS[name] for name in only or FAULTS}
        # When to heal, a number against ties, the kind, the fault.
        self._open: list[tuple[float, int, str, Fault]] = []
        self._count = 0

    def storm(self, until: float) -> None:
        """Strikes until that time of the history, and heals what it did."""
        while self.history.now() < until:
            self._heal_what_is_due()
            if len(self._open) < AT_ONCE_MAX:
                self._strike()
            wait = self.history.now() + self._chance.uniform(*PAUSE_SECONDS)
            while self.history.now() < min(wait, until):
                self._heal_what_is_due()
                time.sleep(0.1)
        self.heal_all()

    def storm_seconds(self) -> float:
        return self._chance.uniform(*STORM_SECONDS)

    def heal_all(self) -> None:
        while self._open:
            self._heal(heapq.heappop(self._open))

    def _strike(self) -> None:
        kind = self._chance.choices(list(self._kinds), [weight for _, weight in self._kinds.values()])[0]
        fault = self._kinds[kind][0](self.cluster, self._chance)
        held = {name for *_, other in self._open for name in other.holds}
        if fault is None or held & set(fault.holds):
            return
        self._count += 1
        began = self.history.now()
        seconds = self._chance.uniform(*fault.seconds) if fault.heal else 0
        self.history.add(
            "fault",
            number=self._count,
            name=kind,
            victim=fault.victim,
            seconds=round(seconds, 1),
            hits_leader=fault.hits_leader,
        )
        self.cluster.log(f"nemesis: {kind}: {fault.victim}, {seconds:.0f} s")
        try:
            said = fault.begin()
        except (LabError, AssertionError, TimeoutError, OSError) as problem:
            # A node that is busy dying of an earlier fault: what was done of this one is undone all the same.
            said = f"not all of it: {problem}"
        came_to_nothing = said if isinstance(said, str) else ""
        facts = {"victim": fault.victim, "hits_leader": fault.hits_leader and not came_to_nothing, "said": came_to_nothing}
        self.history.add("begun", number=self._count, name=kind, **facts)
        if fault.heal:
            heapq.heappush(self._open, (began + seconds, self._count, kind, fault))

    def _heal_what_is_due(self) -> None:
        while self._open and self._open[0][0] <= self.history.now():
            self._heal(heapq.heappop(self._open))

    def _heal(self, due: tuple[float, int, str, Fault]) -> None:
        _, number, kind, fault = due
        deadline = time.monotonic() + HEAL_SECONDS
        while True:
            try:
                fault.heal()
                break
            except Exception as problem:
                # A master that joins needs a leader, and others may be away still: they are healed first.
                if self._open:
                    self._heal(heapq.heappop(self._open))
                elif time.monotonic() > deadline:
                    raise RuntimeError(f"{kind} of {fault.victim} cannot be healed: {problem}") from problem
                time.sleep(0.5)
        self.history.add("healed", number=number, name=kind, victim=fault.victim)
        self.cluster.log(f"nemesis: {kind}: {fault.victim} healed")
