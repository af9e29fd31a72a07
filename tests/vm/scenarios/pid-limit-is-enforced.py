# nodes: masters=1 agents=0 vm=true timeout=600
"""A task that starts processes without end is stopped by the kernel at its unit's limit; the machine stays usable."""

bring_up_machine()

with subtest("a fork bomb runs into its limit"):
    deploy(sleeper("/bomb", 1, mem=256, cmd="while :; do sleep infinity & done 2>/dev/null; wait"))
    task = eventually("it runs", lambda: running("/bomb"))[0]
    limit = int(n1.get_unit_property(task["unit"], "TasksMax"))
    assert 0 < limit <= 10000, limit
    group = n1.get_unit_property(task["unit"], "ControlGroup")

    def refused_forks():
        events = n1.succeed(f"cat '/sys/fs/cgroup{group}/pids.events'").split()
        return int(events[events.index("max") + 1]) > 0

    eventually("the kernel refused a process", refused_forks, timeout=180)
    assert int(n1.succeed(f"cat '/sys/fs/cgroup{group}/pids.current'")) <= limit

with subtest("the machine stays usable, and the app can be taken away with all its processes"):
    ask("DELETE", "/v2/apps//bomb?force=true")
    eventually("no unit is left", lambda: not task_units(n1), timeout=180)
    n1.fail("pgrep --exact sleep")
