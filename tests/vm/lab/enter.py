"""Runs a command on a node of a running lab: the second half, which runs inside the lab's namespaces.

Called as `python3 -m lab.enter NODE ARGV…` by `./try shell` and by whoever follows the hint of `tests/vm/run --keep`.
"""

import os
import sys

from .container import leader_of
from .machine import ENVIRONMENT


def main() -> None:
    node, *argv = sys.argv[1:]
    leader = leader_of(node)
    if not leader:
        sys.exit(f"lab: {node} is off, or there is no such node")
    terminal = os.environ.get("TERM", "dumb")
    environment = [f"TERM={terminal}" if word.startswith("TERM=") else word for word in ENVIRONMENT]
    os.execvp("nsenter", ["nsenter", "--target", str(leader), "--all", "--", *environment, *argv])


if __name__ == "__main__":
    main()
