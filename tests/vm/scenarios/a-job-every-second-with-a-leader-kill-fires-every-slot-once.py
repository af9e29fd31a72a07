# nodes: masters=3 agents=3 vm=false
"""A job that is due every second fires every slot exactly once, though the leader loses its power in the middle: none
is forgotten, none runs twice. Promises 2 and 5.

Late slots are wanted one by one here (`epsilon`).
"""

bring_up_cluster()

with subtest("the job fires every second"):
    start = start_ticking()
    eventually("it fired five times", lambda: len(slots_fired()) >= 5)

with subtest("the leader's power is cut, and the job goes on"):
    old = kill_leader()
    wait_for_leader(other_than=old, timeout=10)
    wait_ticking(seconds=15)

with subtest("and once more, without the first one back"):
    power_on(old)
    wait_whole()
    second = kill_leader()
    wait_for_leader(other_than=second, timeout=10)
    wait_ticking(seconds=10)

with subtest("every slot from the first on fired, and none twice"):
    stop_ticking(start)
    power_on(second)
    wait_whole()
