# nodes: masters=3 agents=3 vm=false
"""A job that is due every second fires every slot exactly once, though the leader loses its power in the middle: none
is forgotten, none runs twice. Promises 2 and 5.

Late slots are wanted one by one here (`epsilon`); a run's task carries its slot in milliseconds in its id.
"""

bring_up_cluster()


def fired():
    """The slots for which a process really ran, in seconds, with repetitions."""
    slots = []
    for line in job_journal("tick"):
        if line.startswith("slot ct:"):
            milliseconds = int(line.split(":")[1])
            assert milliseconds % 1000 == 0, line
            slots.append(milliseconds // 1000)
    return sorted(slots)


with subtest("the job fires every second"):
    job = {"name": "tick", "command": "echo slot $MESOS_TASK_ID", "schedule": "R//PT1S", "epsilon": "PT5M"}
    start = int(agents[0].succeed("date +%s")) + 3
    begin = agents[0].succeed(f"date --utc --date=@{start} +%Y-%m-%dT%H:%M:%SZ").strip()
    ask("POST", "/v1/scheduler/iso8601", {**job, "schedule": f"R/{begin}/PT1S", "cpus": 0.05, "mem": 16, "concurrent": True})
    eventually("it fired five times", lambda: len(fired()) >= 5)

with subtest("the leader's power is cut, and the job goes on"):
    old = kill_leader()
    cut_at = int(agents[0].succeed("date +%s"))
    wait_for_leader(other_than=old, timeout=10)
    eventually("slots well after the cut fired", lambda: fired()[-1] >= cut_at + 15)

with subtest("and once more, without the first one back"):
    power_on(old)
    wait_whole()
    second = kill_leader()
    cut_at = int(agents[0].succeed("date +%s"))
    wait_for_leader(other_than=second, timeout=10)
    eventually("slots well after the second cut fired", lambda: fired()[-1] >= cut_at + 10)

with subtest("every slot from the first on fired, and none twice"):
    ask("DELETE", "/v1/scheduler/job/tick")
    eventually("its runs are over", lambda: not ask("GET", "/drover/v1/tasks?job=tick")["tasks"])
    slots = fired()
    twice = sorted({slot for slot in slots if slots.count(slot) > 1})
    assert not twice, f"fired more than once: {twice}"
    forgotten = sorted(set(range(start, slots[-1] + 1)) - set(slots))
    assert not forgotten, f"never fired: {forgotten} of {start}..{slots[-1]}"
    log.log(f"{len(slots)} slots, each once")
    power_on(second)
    wait_whole()
