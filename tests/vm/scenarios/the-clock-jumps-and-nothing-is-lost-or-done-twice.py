# nodes: masters=1 agents=0 vm=true timeout=600 systemd=252
"""The clock of a machine that is master and agent is set an hour forward, and later an hour back: no task is given up or
restarted, no slot fires twice, of the slots that were jumped over only the newest fires, and what is made afterwards works,
also after the daemon began anew. Promises 2, 3 and 5.

Only a machine with a kernel of its own has a clock of its own."""

HOUR = 3600
SLOTS_APART = 5

bring_up_machine()
# Its journal is read whole: "since" means little to a clock that jumps.
began.clear()
deploy(sleeper("/rest", 5, unreachableStrategy={"inactiveAfterSeconds": 0, "expungeAfterSeconds": 0}))
before = invocations(wait_running("/rest", 5))


def clock():
    return int(n1.succeed("date +%s"))


def jump(seconds):
    """Sets the clock, as an operator does. Steady clocks of the machine go on as they were."""
    n1.succeed(f"date --utc --set=@$(( $(date +%s) + {seconds} ))")


def make_job(name):
    """A job that is due every few seconds; it makes up for slots that are at most two of them late."""
    begin = n1.succeed("date --utc --date=@$(( $(date +%s) + 3 )) +%Y-%m-%dT%H:%M:%SZ").strip()
    definition = {"name": name, "command": "echo slot $MESOS_TASK_ID", "cpus": 0.05, "mem": 16, "concurrent": True}
    schedule = {"schedule": f"R/{begin}/PT{SLOTS_APART}S", "epsilon": f"PT{2 * SLOTS_APART}S"}
    ask("POST", "/v1/scheduler/iso8601", {**definition, **schedule})


def wait_fired(name, count):
    return eventually(f"{name} has fired {count} times", lambda: len(slots_fired(name)) >= count and slots_fired(name))


def nothing_restarted():
    unchanged(invocations(wait_running("/rest", 5)), before)


def steps(slots):
    return [later - earlier for earlier, later in zip(slots, slots[1:])]


with subtest("set an hour forward: no task is given up, and the job goes on at the newest slot that is due"):
    make_job("ahead")
    seen = len(wait_fired("ahead", 2))
    jump(HOUR)
    slots = wait_fired("ahead", seen + 5)
    long = [step for step in steps(slots) if step > SLOTS_APART]
    assert all(step == SLOTS_APART for step in steps(slots) if step not in long), slots
    assert len(long) == 1 and HOUR - 3 * SLOTS_APART <= long[0] <= HOUR + SLOTS_APART, steps(slots)
    nothing_restarted()

with subtest("its daemon begins anew in the later time, and nothing restarts"):
    n1.succeed("systemctl restart droverd-standalone")
    wait_fired("ahead", len(slots_fired("ahead")) + 2)
    nothing_restarted()

with subtest("set back: no slot fires a second time, and what is made now works"):
    slots = slots_fired("ahead")
    jump(-HOUR)
    make_job("back")
    wait_fired("back", 5)
    assert all(step == SLOTS_APART for step in steps(slots_fired("back"))), slots_fired("back")
    again = slots_fired("ahead")
    assert len(set(again)) == len(again), f"a slot fired twice: {again}"
    assert max(again) <= max(slots) + 2 * SLOTS_APART, f"{again} after {slots}"
    change("/rest", {"instances": 6})
    after = invocations(wait_running("/rest", 6))
    assert before.items() <= after.items(), (before, after)

with subtest("its daemon begins anew in the earlier time, and nothing restarts"):
    n1.succeed("systemctl restart droverd-standalone")
    wait_fired("back", len(slots_fired("back")) + 2)
    unchanged(invocations(wait_running("/rest", 6)), after)
