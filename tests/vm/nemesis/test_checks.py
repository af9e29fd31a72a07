"""The other judges: each takes a good history, and refuses it with one thing changed."""

import unittest

import checks
from calm import tasks_of_ledger
from events import RESYNC, Frames, Segment, merged
from web import outcome
from work import Job

EVERY = Job("every", 5)
TWICE = Job("twice", 5, good_attempt=1)
ALONE = Job("alone", 5, concurrent=False)
AFTER = Job("after", 0, parents=("every", "alone"))
START = 1_000


def log(*events):
    """Entries of one event each, from index 1 on."""
    return {index: [event | {"index": index}] for index, event in enumerate(events, 1)}


def run(job, slot, state, **more):
    return {"type": "run-changed", "job": job, "run": f"{job}@{slot}", "state": state, **more}


def whole(job, slot, end="finished"):
    return [run(job, slot, "queued"), run(job, slot, "active"), run(job, slot, end)]


def task(name, state, node="n4", **more):
    return {"type": "task-changed", "task": name, "state": state, "node": node, **more}


class Slots(unittest.TestCase):
    good = [*whole("every", 1_000_000), *whole("every", 1_005_000), *whole("every", 1_010_000)]

    def judge(self, events, job=EVERY):
        return checks.slots(log(*events), job, START)

    def test_each_slot_once(self):
        self.assertEqual(self.judge(self.good), [])
        retried = [run("every", 1_000_000, state) for state in ("queued", "active", "ending", "queued", "active", "finished")]
        self.assertEqual(self.judge(retried), [])

    def test_what_is_wrong_is_told(self):
        for name, events, word in [
            ("a slot is missing", self.good[:3] + self.good[6:], "never began"),
            ("the first slot is missing", self.good[3:], "never began"),
            ("a slot fires again", self.good + whole("every", 1_005_000), "goes on"),
            ("a second run for a slot has another id", self.good + whole("every", 1_005_001), "no slots"),
            ("a run is given up", [*self.good, *whole("every", 1_015_000, "failed")], "ended as failed"),
            ("a run comes from nowhere", [*self.good, run("every", 1_015_000, "active")], "does not begin in the queue"),
        ]:
            with self.subTest(name):
                self.assertIn(word, " ".join(self.judge(events)))

    def test_a_job_that_must_not_overlap_itself(self):
        overlapping = [run("alone", 1_000_000, "queued"), run("alone", 1_005_000, "queued")]
        self.assertIn("overlap", " ".join(self.judge(overlapping, ALONE)))
        overlapping = [event | {"job": "every", "run": event["run"].replace("alone", "every")} for event in overlapping]
        self.assertEqual(self.judge(overlapping, EVERY), [])


class Attempts(unittest.TestCase):
    first, second = "ct:1000000:0:twice:", "ct:1000000:1:twice:"
    good = [
        task(first, "staging"),
        task(first, "running"),
        task(first, "failed"),
        task(second, "staging"),
        task(second, "finished"),
    ]
    books = {"n4": [(first, 1.0), (second, 2.0)], "n5": []}

    def judge(self, events, books):
        return checks.attempts(log(*events), books, [TWICE])

    def test_each_executed_once(self):
        self.assertEqual(self.judge(self.good, self.books), [])

    def test_what_is_wrong_is_told(self):
        first, second = self.first, self.second
        for name, events, books, word in [
            ("executed twice on a node", self.good, {"n4": [(first, 1.0), (first, 1.5), (second, 2.0)]}, "executed 2 times"),
            ("executed on two nodes", self.good, {**self.books, "n5": [(second, 3.0)]}, "executed 2 times"),
            ("a success that nobody executed", self.good, {"n4": [(first, 1.0)]}, "no node executed"),
            ("a success elsewhere", self.good, {"n4": [(first, 1.0)], "n5": [(second, 2.0)]}, "n5 executed it"),
            ("executed and never launched", self.good[:3], self.books, "nobody launched"),
            ("tried again while it goes on", [*self.good[:2], *self.good[3:]], self.books, "not over"),
            (
                "tried again after a success",
                [*self.good[:2], task(first, "finished"), *self.good[3:]],
                self.books,
                "is finished",
            ),
            ("an end that is none", [*self.good, task(second, "running")], self.books, "goes on"),
            (
                "a failure told as a success",
                [*self.good[:2], task(first, "finished")],
                {"n4": [(first, 1.0)]},
                "fails in that attempt",
            ),
        ]:
            with self.subTest(name):
                self.assertIn(word, " ".join(self.judge(events, books)))


class Dependents(unittest.TestCase):
    both = [*whole("every", 1), *whole("alone", 2)]

    def test_after_both_and_only_then(self):
        child = whole("after", 3)
        self.assertEqual(checks.dependents(log(*self.both, *child), AFTER), [])
        self.assertIn("its parents succeeded", checks.dependents(log(*self.both[:3], *child, *self.both[3:]), AFTER)[0])
        self.assertIn("its parents succeeded", checks.dependents(log(*self.both, *child, *whole("after", 4)), AFTER)[0])
        self.assertIn("did not start", checks.dependents(log(*self.both), AFTER)[0])


class Health(unittest.TestCase):
    @staticmethod
    def app(instances):
        return {"type": "app-changed", "app": "/a", "at": 0.0, "message": f"version 2026, {instances} instances wanted"}

    @staticmethod
    def change(name, state, at, message=""):
        return task(name, state, app="/a", at=at, message=message)

    def running(self, *names):
        return [self.change(name, state, 1.0) for name in names for state in ("staging", "running")]

    def judge(self, *events):
        return checks.health(log(*events), "/a", lambda at: at)

    def test_the_minimum_stays_up(self):
        four = [self.app(4), *self.running("a", "b", "c", "d")]
        end = [self.change(name, "running", 100.0, checks.REPLACED) for name in "abc"]
        self.assertEqual(self.judge(*four, *end[:2]), [])
        self.assertIn("less than", self.judge(*four, *end)[0])
        # An instance that fell away by itself in the moment of the decision was up when it was made.
        lost = self.change("d", "failed", 99.9)
        self.assertEqual(self.judge(*four, lost, *end[:2]), [])
        # But not when it had long been away.
        lost = self.change("d", "failed", 10.0)
        self.assertIn("less than", self.judge(*four, lost, *end[:2])[0])
        # What an operator takes away is not drover's doing.
        gone = [self.change(name, "killed", 50.0) for name in "abcd"]
        self.assertEqual(self.judge(*four, *gone), [])
        # A leader knows what it, or its predecessor, told to end.
        later = self.change("c", "running", 100.5, checks.REPLACED)
        self.assertIn("less than", self.judge(*four, *end[:2], later)[0])

    def test_no_instance_too_many(self):
        two = [self.app(2), *self.running("a", "b")]
        self.assertEqual(self.judge(*two), [])
        self.assertIn("2 are wanted", self.judge(*two, self.change("c", "staging", 2.0))[0])
        self.assertEqual(self.judge(*two, self.change("b", "unreachable", 2.0), self.change("c", "staging", 2.0)), [])
        self.assertEqual(self.judge(*two, self.app(2), self.change("c", "staging", 2.0)), [])


def op(begin, end, op, value=None, outcome="ok", key="set", **more):
    return {"begin": begin, "end": end, "op": op, "value": value, "outcome": outcome, "key": key, "client": "c", **more}


class Sets(unittest.TestCase):
    def test_acknowledged_is_there_and_removed_is_gone(self):
        good = [
            op(0, 1, "add", "x"),
            op(0, 9, "add", "y", "info"),
            op(2, 3, "list", ["x"]),
            op(4, 5, "remove", "x"),
            op(6, 7, "list", ["y"]),
        ]
        self.assertEqual(checks.the_set(good), [])
        for name, bad, word in [
            ("lost", [good[0], op(2, 3, "list", [])], "missing"),
            ("back again", [*good[:4], op(6, 7, "list", ["x"])], "must not be"),
            ("not asked for", [op(0, 1, "list", ["z"])], "nobody added"),
            ("refused and there", [op(0, 1, "add", "x", "fail"), op(2, 3, "list", ["x"])], "must not be"),
            ("before its time", [op(0, 1, "list", ["x"]), op(2, 3, "add", "x")], "must not be"),
            ("not there to be removed", [good[0], op(2, 3, "remove", "x", "fail", absent=True)], "not there to be removed"),
            ("a removal that failed took it", [good[0], op(2, 3, "remove", "x", "fail"), op(4, 5, "list", [])], "missing"),
        ]:
            with self.subTest(name):
                self.assertIn(word, " ".join(checks.the_set(bad)))


class Registers(unittest.TestCase):
    def test_what_certainly_failed_has_no_effect(self):
        key = "app a-0"
        good = [op(0, 1, "write", "x", key=key), op(2, 3, "write", "y", "fail", key=key), op(4, 5, "read", "x", key=key)]
        self.assertEqual(checks.registers(good), [])
        self.assertIn("not linearizable", checks.registers([*good, op(6, 7, "read", "y", key=key)])[0])
        lost = op(2, 3, "write", "y", "info", key=key)
        self.assertEqual(checks.registers([good[0], lost, op(6, 7, "read", "y", key=key)]), [])


class Streams(unittest.TestCase):
    def segment(self, follower, after, *indexes):
        segment = Segment(follower, after)
        segment.entries = [(index, [{"index": index, "type": "x"}]) for index in indexes]
        return segment

    def test_every_follower_sees_the_same(self):
        entries, faults, unseen = merged([self.segment("a", 0, 1, 3, 4, 6), self.segment("b", 2, 3, 4)])
        self.assertEqual((sorted(entries), faults, unseen), ([1, 3, 4, 6], [], []))
        for name, segments, word in [
            ("a gap", [self.segment("a", 0, 1, 3, 4), self.segment("b", 0, 1, 4)], "not told of index 3"),
            ("twice", [self.segment("a", 0, 1, 1)], "after index 1"),
            ("backwards", [self.segment("a", 0, 3, 1)], "after index 3"),
            ("again after resuming", [self.segment("a", 5, 5)], "after index 5"),
        ]:
            with self.subTest(name):
                self.assertIn(word, " ".join(merged(segments)[1]))
        other = self.segment("b", 0, 1)
        other.entries[0][1][0]["type"] = "y"
        self.assertIn("b saw", merged([self.segment("a", 0, 1), other])[1][0])
        self.assertEqual(merged([self.segment("a", 0, 1, 3), self.segment("a", 8, 9)])[2], [(3, 8)])

    def test_frames_belong_to_the_id_that_follows(self):
        frames, taken = Frames(), []
        lines = [
            ": hello",
            "",
            "event: x",
            'data: {"a": 1}',
            "",
            "id: 7",
            "event: y",
            'data: {"b": 2}',
            "",
            "id: 9",
            "event: resync",
            "data: {}",
            "",
        ]
        for line in lines:
            taken.append(frames.take(line))
        self.assertEqual([entry for entry in taken if entry], [(7, [{"a": 1}, {"b": 2}]), (9, [RESYNC])])


class Small(unittest.TestCase):
    def test_outcomes(self):
        for status, answer, expected in [
            (200, {}, "ok"),
            (409, {"message": "locked"}, "fail"),
            (503, {"message": "Could not determine the current leader"}, "fail"),
            (503, {"error": "no master leads at the moment: a majority of the masters must be up"}, "fail"),
            (503, {"message": "it is unknown whether it took effect"}, "info"),
            (502, {"message": "the leader does not answer"}, "info"),
            (500, "?", "info"),
        ]:
            self.assertEqual(outcome(status, answer), expected, answer)

    def test_a_ledger_is_read(self):
        lines = [
            '{"record": "opened", "format": 1, "agent": "a"}',
            '{"record": "assigned", "generation": 3, "full": true, "tasks": [{"id": "t1"}, {"id": "t2"}], "removed": []}',
            '{"record": "forgotten", "task": "t1", "at": 1}',
            '{"record": "task", "id": "t3", "task": {}}',
        ]
        self.assertEqual(tasks_of_ledger("\n".join(lines)), ["t2", "t3"])


if __name__ == "__main__":
    unittest.main()
