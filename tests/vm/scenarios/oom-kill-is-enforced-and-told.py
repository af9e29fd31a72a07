# nodes: masters=1 agents=0 vm=true timeout=600
"""An app that takes more memory than it asked for is ended by the kernel, alone, and the API says that memory was why."""

bring_up_machine()

with subtest("the node says that the kernel enforces memory"):
    assert "memory" in ask("GET", "/drover/v1/nodes")["nodes"][0]["enforces"]

with subtest("an app stays within its memory"):
    deploy(sleeper("/modest", 1, mem=64))
    modest = wait_running("/modest", 1)[0]
    assert n1.get_unit_property(modest["unit"], "MemoryMax") == str(64 << 20)

with subtest("another takes too much and is ended, with the reason told"):
    deploy(sleeper("/greedy", 1, mem=64, cmd="exec python3 -c 'hoard = bytearray(512 << 20)'", backoffSeconds=60))

    def failure():
        return ask("GET", "/v2/apps//greedy")["app"].get("lastTaskFailure")

    told = eventually("its end is told", failure)
    assert told["state"] == "TASK_FAILED" and "memory" in told["message"].lower(), told
    n1.succeed("journalctl --no-pager --dmesg | grep --ignore-case 'memory cgroup out of memory'")

with subtest("the neighbour never noticed"):
    unchanged(invocations(wait_running("/modest", 1)), invocations([modest]))
