# nodes: masters=1 agents=0 vm=true timeout=600
"""A task that starts processes without end is stopped by the kernel at its unit's limit, and its end says so; the machine
stays usable."""

bring_up_machine()

with subtest("every task has a limit, asked for or not"):
    deploy(sleeper("/quiet", 1))
    quiet = wait_running("/quiet", 1)[0]
    assert n1.get_unit_property(quiet["unit"], "TasksMax") == "4096"

with subtest("a fork bomb runs into its limit and lives on, refused"):
    # The shell ends itself when it cannot fork; a python that goes on trying does not.
    bomb = "import os, time\nwhile True:\n  try:\n    os.fork() or time.sleep(1e6)\n  except BlockingIOError:\n    time.sleep(0.1)\n"
    deploy(sleeper("/bomb", 1, mem=256, args=["python3", "-c", bomb], cmd=None, unit={"TasksMax": "50"}))
    task = wait_running("/bomb", 1)[0]
    group = n1.get_unit_property(task["unit"], "ControlGroup")

    def refused_forks():
        return int(n1.succeed(f"cat '/sys/fs/cgroup{group}/pids.events'").split()[1])

    eventually("the kernel refused a process", lambda: refused_forks() > 0)
    assert int(n1.succeed(f"cat '/sys/fs/cgroup{group}/pids.current'")) == 50

with subtest("the neighbour and the machine never noticed"):
    unchanged(invocations(wait_running("/quiet", 1)), invocations([quiet]))
    n1.succeed("true")

with subtest("the bomb can be taken away with all its processes"):
    ask("DELETE", "/v2/apps//bomb?force=true")
    eventually("no unit is left but the neighbour's", lambda: task_units(n1) == [quiet["unit"]])
    n1.fail(f"test -e '/sys/fs/cgroup{group}'")

with subtest("a program that gives up at its limit is told why it died"):
    deploy(sleeper("/gives-up", 1, cmd="for i in $(seq 60); do sleep 60 & done; wait", unit={"TasksMax": "20"}, backoffSeconds=60))

    def failure():
        return ask("GET", "/v2/apps//gives-up")["app"].get("lastTaskFailure")

    told = eventually("its end is told", failure)
    assert "TasksMax" in told["message"], told
