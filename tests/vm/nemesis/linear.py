"""Whether what clients saw of a register could have happened one operation after another, each at some moment between its
beginning and its end: linearizability, by Lowe's just-in-time search.

Walks through the beginnings and ends in order of time and keeps every situation the register may be in: its value, and
which of the operations under way have taken effect already. At an operation's end it must have taken effect: situations
in which it has not are continued by whatever is under way until it has, or die. When all are dead, nothing explains what
was seen.

An operation with an unknown outcome stays under way for ever and may never take effect. Between two situations that differ
only in such operations, the one in which fewer took effect can do all that the other can, so the other is dropped. And of
those that would do the very same, the first goes first: two values that nobody ever read are the same to everybody.
That keeps the search small, however many answers were lost.
"""

from dataclasses import dataclass, replace

# No value: the thing does not exist.
NONE = None

# Nothing that the register may hold.
DEAD = object()

# A value that was written and that no read has seen.
UNSEEN = "a value that nobody read"


@dataclass(frozen=True)
class Op:
    """One operation of a client. `end` is None when its outcome is unknown. Operations that certainly had no effect are
    left out by the caller, and so are reads without an answer."""

    begin: float
    end: float | None
    # write: sets. create: sets what does not exist. delete: takes away. read: saw `value`.
    kind: str
    value: str | None = None
    # Of create and delete: whether the answer was that it did it (and not that it exists already, or does not). None when
    # the outcome is unknown.
    did: bool | None = True
    line: str = ""


def after(op: Op, value):
    """The register's value after the operation took effect on `value`; DEAD when it cannot have been answered so."""
    match op.kind:
        case "write":
            return op.value
        case "read":
            return value if value == op.value else DEAD
        case "create":
            if op.did is None:
                return op.value if value is NONE else value
            return DEAD if op.did != (value is NONE) else (op.value if op.did else value)
        case "delete":
            if op.did is None:
                return NONE
            return DEAD if op.did != (value is not NONE) else NONE
    raise ValueError(op.kind)


@dataclass(frozen=True)
class Verdict:
    """`stuck` is the first operation whose answer nothing explains; `values` is what the register may have held then."""

    stuck: Op | None = None
    values: tuple = ()

    @property
    def good(self) -> bool:
        return self.stuck is None


def check(ops: list[Op], initial=NONE) -> Verdict:
    """Judges the whole history of one register."""
    ops = _without_names_of_the_unseen(ops)
    moments = [(op.begin, 0, number) for number, op in enumerate(ops)]
    # Of two at the same instant the beginning counts as earlier: they overlap.
    moments += [(op.end, 1, number) for number, op in enumerate(ops) if op.end is not None]
    optional = frozenset(number for number, op in enumerate(ops) if op.end is None)
    under_way: set[int] = set()
    situations = {(initial, frozenset())}
    for _, is_end, number in sorted(moments):
        if not is_end:
            under_way.add(number)
            continue
        reached = _bring_about(number, situations, under_way, ops, optional)
        if not reached:
            return Verdict(ops[number], tuple(sorted({str(value) for value, _ in situations})))
        situations = reached
        under_way.discard(number)
    return Verdict()


def _bring_about(number: int, situations: set, under_way: set[int], ops: list[Op], optional: frozenset) -> set:
    """Every situation, without useless ones, in which operation `number` has taken effect; it is left out of their sets."""
    reached = Best(optional)
    seen = Best(optional)
    front = [situation for situation in situations if seen.add(*situation)]
    while front:
        following = []
        for value, done in front:
            if number in done:
                reached.add(value, done - {number})
                continue
            for other in _distinct(under_way - done, ops, optional):
                changed = after(ops[other], value)
                if changed is not DEAD and seen.add(changed, done | {other}):
                    following.append((changed, done | {other}))
        # Those with fewer steps come first, so that a better situation is mostly known before a worse one.
        front = following
    return reached.situations()


def _without_names_of_the_unseen(ops: list[Op]) -> list[Op]:
    seen = {op.value for op in ops if op.kind == "read"}
    return [op if op.value in seen or op.kind in ("read", "delete") else replace(op, value=UNSEEN) for op in ops]


def _distinct(numbers: set[int], ops: list[Op], optional: frozenset) -> list[int]:
    """Without those that may never take effect and would do the same as another one."""
    alike = {}
    for number in sorted(numbers):
        alike.setdefault((ops[number].kind, ops[number].value) if number in optional else number, number)
    return list(alike.values())


class Best:
    """Situations of which none can do less than another: see the head of this file."""

    def __init__(self, optional: frozenset):
        self._optional = optional
        self._known: dict = {}

    def add(self, value, done: frozenset) -> bool:
        """Whether it was worth keeping."""
        by_choice = done & self._optional
        others = self._known.setdefault((value, done - by_choice), [])
        if any(other <= by_choice for other in others):
            return False
        others[:] = [other for other in others if not by_choice <= other]
        others.append(by_choice)
        return True

    def situations(self) -> set:
        return {(value, must | may) for (value, must), choices in self._known.items() for may in choices}
