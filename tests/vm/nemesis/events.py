"""Followers of the event stream, which go on where they were over every fault.

The stream's id is the index in the replicated log, and resuming after one misses nothing: so all followers, at whichever
masters, must have seen the same events at the same indexes, as far as none of them was told to `resync`.
"""

import http.client
import json
import random
import threading

import web

# The masters say something at least every ten seconds.
SILENCE_SECONDS = 25


class Segment:
    """What one follower saw without being told of a gap: every entry after `after`, up to the last one in `entries`."""

    def __init__(self, follower: str, after: int):
        self.follower = follower
        self.after = after
        self.entries: list[tuple[int, list[dict]]] = []

    @property
    def upto(self) -> int:
        return self.entries[-1][0] if self.entries else self.after


class Follower:
    """Follows at one master, or at any if `master` is None."""

    def __init__(self, name: str, cluster, after: int, stop: threading.Event, master=None):
        self.name = name
        self.segments = [Segment(name, after)]
        self.resyncs = 0
        self.connections = 0
        self._cluster = cluster
        self._stop = stop
        self._master = master
        self._chance = random.Random(name)
        self.failure: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def position(self) -> int:
        return self.segments[-1].upto

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                master = self._master or self._chance.choice(self._cluster.masters)
                try:
                    self._follow(master.address)
                except (OSError, http.client.HTTPException):
                    # Cut off: go on from where we were, after a moment.
                    pass
                self._stop.wait(0.5)
        except BaseException as problem:
            self.failure = problem

    def _follow(self, address: str) -> None:
        connection = http.client.HTTPConnection(address, web.PORT, timeout=SILENCE_SECONDS)
        try:
            connection.request("GET", "/drover/v1/events", headers={"Last-Event-ID": str(self.position)})
            response = connection.getresponse()
            if response.status != 200:
                return
            self.connections += 1
            frames = Frames()
            while not self._stop.is_set():
                line = response.readline()
                if not line:
                    return
                entry = frames.take(line.decode().rstrip("\r\n"))
                if entry:
                    self._note(*entry)
                if self._master is None and self._chance.random() < 0.001:
                    # The one that wanders changes masters now and then without need.
                    return
        finally:
            connection.close()

    def _note(self, index: int, events: list[dict]) -> None:
        if any(event is RESYNC for event in events):
            self.resyncs += 1
            self.segments.append(Segment(self.name, index))
        else:
            self.segments[-1].entries.append((index, events))


RESYNC: dict = {"type": "resync"}


class Frames:
    """Puts the lines of a stream together: an entry is all frames up to the one that carries the id."""

    def __init__(self):
        self._events: list[dict] = []
        self._id: int | None = None
        self._kind = ""
        self._data = ""

    def take(self, line: str) -> tuple[int, list[dict]] | None:
        if line:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "id":
                self._id = int(value)
            elif name == "event":
                self._kind = value
            elif name == "data":
                self._data = value
            return None
        kind, data, index = self._kind, self._data, self._id
        self._kind, self._data, self._id = "", "", None
        if kind:
            self._events.append(RESYNC if kind == "resync" else json.loads(data))
        if index is None:
            return None
        events, self._events = self._events, []
        return index, events


def merged(segments: list[Segment]) -> tuple[dict[int, list[dict]], list[str], list[tuple[int, int]]]:
    """All entries by index; what contradicts the promise; and the stretches of the log that nobody saw."""
    entries: dict[int, list[dict]] = {}
    seen_by: dict[int, str] = {}
    faults = []
    for segment in segments:
        before = segment.after
        for index, events in segment.entries:
            if index <= before:
                faults.append(f"{segment.follower} was told of index {index} after index {before}")
            before = max(before, index)
            if any(event["index"] != index for event in events):
                faults.append(f"{segment.follower}: an event of another index within {index}: {events}")
            if index not in entries:
                entries[index], seen_by[index] = events, segment.follower
            elif entries[index] != events:
                faults.append(f"index {index}: {seen_by[index]} saw {entries[index]}, and {segment.follower} saw {events}")
    for segment in segments:
        own = {index for index, _ in segment.entries}
        missed = [index for index in entries if segment.after < index <= segment.upto and index not in own]
        for index in sorted(missed)[:5]:
            faults.append(f"{segment.follower} was not told of index {index}, which {seen_by[index]} saw: {entries[index]}")
    return entries, faults, _unseen(segments)


def _unseen(segments: list[Segment]) -> list[tuple[int, int]]:
    stretches = sorted((segment.after, segment.upto) for segment in segments if segment.entries)
    gaps, reached = [], stretches[0][0] if stretches else 0
    for after, upto in stretches:
        if after > reached:
            gaps.append((reached, after))
        reached = max(reached, upto)
    return gaps
