"""The checker of registers is right: it takes what is possible, refuses what is not, and agrees with a search of all orders."""

import itertools
import random
import unittest

from linear import DEAD, Op, after, check


def w(begin, end, value):
    return Op(begin, end, "write", value)


def r(begin, end, value):
    return Op(begin, end, "read", value)


def new(begin, end, value, did=True):
    return Op(begin, end, "create", value, did)


def gone(begin, end, did=True):
    return Op(begin, end, "delete", None, did)


GOOD = {
    "nothing happened": [],
    "a read before any write sees nothing": [r(0, 1, None)],
    "one after the other": [w(0, 1, "a"), r(2, 3, "a"), w(4, 5, "b"), r(6, 7, "b")],
    "a read that overlaps a write sees either": [w(0, 1, "a"), w(2, 6, "b"), r(3, 4, "b"), r(3, 4, "a")],
    "two writes at once, in either order": [w(0, 5, "a"), w(0, 5, "b"), r(6, 7, "a")],
    "a lost answer, and it was written": [w(0, 1, "a"), w(2, None, "b"), r(3, 4, "a"), r(5, 6, "b"), r(7, 8, "b")],
    "a lost answer, and it was not written": [w(0, 1, "a"), w(2, None, "b"), r(3, 4, "a"), r(50, 60, "a")],
    "written late, over what came later": [w(0, None, "a"), w(1, 2, "b"), r(3, 4, "b"), r(5, 6, "a")],
    "a touch at one instant overlaps": [w(0, 1, "a"), w(1, 2, "b"), r(1, 2, "a")],
    "created once": [new(0, 3, "a"), new(0, 3, "b", False), r(4, 5, "a")],
    "deleted and made again": [new(0, 1, "a"), gone(2, 3), r(4, 5, None), new(6, 7, "b"), r(8, 9, "b")],
    "deleted by somebody whose answer was lost": [new(0, 1, "a"), gone(2, None, None), gone(3, 4, False), new(5, 6, "b")],
    "made by somebody whose answer was lost": [new(0, None, "a", None), new(1, 2, "b", False), r(3, 4, "a")],
    "many lost answers": [w(0, 1, "z"), *[w(2, None, f"v{n}") for n in range(30)], r(3, 4, "v7"), r(5, 6, "v3"), r(7, 8, "v3")],
}

BAD = {
    "a value from nowhere": [r(0, 1, "a")],
    "a stale read": [w(0, 1, "a"), w(2, 3, "b"), r(4, 5, "a")],
    "a stale read of nothing": [w(0, 1, "a"), r(2, 3, None)],
    "an acknowledged write that was lost": [w(0, 1, "a"), w(2, 3, "b"), r(4, 5, "b"), r(6, 7, "a")],
    "a read goes back while a write is under way": [w(0, 1, "a"), w(2, 9, "b"), r(3, 4, "b"), r(5, 6, "a")],
    "two readers see two writes in two orders": [w(0, 9, "a"), w(0, 9, "b"), r(10, 11, "a"), r(12, 13, "b")],
    "a lost answer is written, undone and written again": [
        w(0, 1, "a"),
        w(2, None, "b"),
        r(3, 4, "b"),
        w(5, 6, "c"),
        r(7, 8, "b"),
    ],
    "a lost answer is seen before it was asked for": [w(0, 1, "a"), r(2, 3, "b"), w(4, None, "b")],
    "created twice": [new(0, 1, "a"), new(2, 3, "b")],
    "created twice at once": [new(0, 3, "a"), new(0, 3, "b")],
    "exists and nobody made it": [new(0, 1, "a", False)],
    "deleted twice": [new(0, 1, "a"), gone(2, 3), gone(4, 5)],
    "gone and nobody took it": [new(0, 1, "a"), gone(2, 3, False)],
    "there again after it was deleted": [new(0, 1, "a"), gone(2, 3), r(4, 5, "a")],
    "a repeat undid a delete": [new(0, 1, "a"), gone(2, 3), new(4, 5, "b", False)],
    "many lost answers excuse nothing else": [
        w(0, 1, "z"),
        *[w(2, None, f"v{n}") for n in range(30)],
        r(3, 4, "v7"),
        r(5, 6, "z"),
    ],
}


class Tables(unittest.TestCase):
    def test_what_is_possible_is_taken(self):
        for name, history in GOOD.items():
            with self.subTest(name):
                self.assertTrue(check(history).good, check(history))

    def test_what_is_impossible_is_refused(self):
        for name, history in BAD.items():
            with self.subTest(name):
                self.assertFalse(check(history).good)


def possible(ops):
    """The definition, word by word: some of those with unknown outcome and all others, in some order that respects time."""
    must = [op for op in ops if op.end is not None]
    may = [op for op in ops if op.end is None]
    for count in range(len(may) + 1):
        for chosen in itertools.combinations(may, count):
            for order in itertools.permutations(must + list(chosen)):
                late = any(b.end is not None and b.end < a.begin for a, b in itertools.combinations(order, 2))
                value = None
                for op in order if not late else ():
                    value = after(op, value)
                    if value is DEAD:
                        break
                if not late and value is not DEAD:
                    return True
    return False


def any_history(chance, count):
    """Operations with any answers whatever: few of them are possible."""
    ops = []
    for number in range(count):
        begin = chance.randrange(12)
        end = None if chance.random() < 0.25 else begin + 1 + chance.randrange(6)
        kind = chance.choice(["write", "read", "read", "create", "delete"])
        value = f"v{number}" if kind != "read" else chance.choice([None, *[f"v{n}" for n in range(count)]])
        did = None if end is None else chance.random() < 0.6
        if kind in ("write", "read"):
            did = True
        if kind == "read" and end is None:
            end = begin + 1
        ops.append(Op(begin, end, kind, value, did))
    return ops


def true_history(chance, clients, count):
    """What clients see of a real register: each operation takes effect at one instant between its begin and its end."""
    value, ops, free_at = None, [], [0.0] * clients
    instant = 0.0
    for number in range(count):
        instant += chance.random()
        client = min(range(clients), key=lambda each: free_at[each])
        begin = max(free_at[client], instant - chance.random() * 3)
        instant = max(instant, begin)
        end = instant + chance.random() * 3
        kind = chance.choice(["write", "read", "read", "create", "delete"])
        lost = kind != "read" and chance.random() < 0.1
        new_value, did, seen = f"v{number}", True, value
        takes_effect = not lost or chance.random() < 0.5
        if kind in ("create", "delete"):
            did = (value is None) == (kind == "create")
        if takes_effect:
            if kind == "write" or (kind == "create" and did):
                value = new_value
            elif kind == "delete" and did:
                value = None
        ops.append(Op(begin, None if lost else end, kind, seen if kind == "read" else new_value, None if lost else did))
        free_at[client] = end
    return ops


class Generated(unittest.TestCase):
    def test_it_agrees_with_the_definition(self):
        chance, verdicts = random.Random(1), {True: 0, False: 0}
        for _ in range(800):
            ops = any_history(chance, chance.randrange(1, 6))
            expected = possible(ops)
            verdicts[expected] += 1
            self.assertEqual(check(ops).good, expected, ops)
        # Both happen, or this proves little.
        self.assertGreater(min(verdicts.values()), 100, verdicts)

    def test_it_takes_every_true_history(self):
        for seed in range(40):
            ops = true_history(random.Random(seed), 4, 100)
            self.assertTrue(check(ops).good, f"seed {seed}")

    def test_it_refuses_a_true_history_with_one_stale_read(self):
        refused = 0
        for seed in range(40):
            chance = random.Random(seed)
            ops = true_history(chance, 3, 60)
            last = max(op.end for op in ops if op.end is not None)
            # Two more in a row: a write, and a read that does not see it.
            ops += [Op(last + 1, last + 2, "write", "new"), Op(last + 3, last + 4, "read", chance.choice(["v3", None]))]
            lost_v3 = any(op.value == "v3" and op.end is None for op in ops)
            # A lost operation may take effect as late as that.
            if lost_v3 or any(op.kind == "delete" and op.end is None for op in ops):
                continue
            refused += 1
            self.assertFalse(check(ops).good, f"seed {seed}")
        self.assertGreater(refused, 3)


if __name__ == "__main__":
    unittest.main()
