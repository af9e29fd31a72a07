"""What happened, as it was seen from outside: operations of clients and faults, with the lab's one clock.

Every machine of a lab shares the clock of the machine it runs on, so times of clients, nodes and masters compare.
"""

import json
import threading
import time
from contextlib import contextmanager
from pathlib import Path


class History:
    """Records from many threads; each is also a line of JSON in a file."""

    def __init__(self, path: Path):
        self.records: list[dict] = []
        self.began = time.time()
        self._lock = threading.Lock()
        self._file = open(path, "w")

    def now(self) -> float:
        """Seconds since the beginning."""
        return time.time() - self.began

    def add(self, kind: str, **record) -> dict:
        record = {"kind": kind, "at": round(self.now(), 4), **record}
        with self._lock:
            self.records.append(record)
            print(json.dumps(record), file=self._file, flush=True)
        return record

    def of(self, kind: str) -> list[dict]:
        with self._lock:
            return [record for record in self.records if record["kind"] == kind]

    @contextmanager
    def operation(self, client: str, op: str, **what):
        """An operation of a client; the body writes `outcome` (ok, fail: certainly not, info: unknown) and what it saw
        into the dictionary it is given."""
        record = {"client": client, "op": op, **what, "begin": round(self.now(), 6), "outcome": "info"}
        try:
            yield record
        finally:
            record["end"] = round(self.now(), 6)
            self.add("op", **record)


def clock(seconds: float) -> str:
    """A time of the run for people."""
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes):02d}:{rest:05.2f}"
