# nodes: masters=3 agents=3 vm=false timeout=600
"""With 500 tasks on one node PID 1 takes seconds to read its units anew or to execute itself anew: no task notices, the node
is never held to be dead, and what happens meanwhile is noticed. The same when the bus begins anew. Promise 1."""

bring_up_cluster()
node = agents[0]
COUNT = 500
restarts = node.get_unit_property("droverd-agent.service", "NRestarts")

with subtest("500 tasks run on one node"):
    here = [["hostname", "LIKE", node.name]]
    deploy(sleeper("/many", COUNT, constraints=here, cpus=0.005, mem=1))
    tasks = wait_running("/many", COUNT, timeout=240)
    before = unit_facts(node)
    assert len(before) == COUNT, len(before)

disturbances = {
    "PID 1 reads its units anew": "systemctl daemon-reload",
    "PID 1 executes itself anew": "systemctl daemon-reexec",
    "the bus begins anew": "systemctl kill --signal=KILL dbus.service",
}
for what, command in disturbances.items():
    with subtest(what):
        took = node.succeed(f"began=$(date +%s%N); {command} >&2; echo $((($(date +%s%N) - began) / 1000000))")
        log.log(f"{took.strip()} ms")
        unchanged(unit_facts(node), before)
        victim = running("/many")[0]
        node.succeed(f"systemctl kill --signal=KILL '{victim['unit']}'")
        eventually("a death afterwards is noticed", lambda victim=victim: victim["id"] not in ids(running("/many")))
        tasks = wait_running("/many", COUNT)
        after = unit_facts(node)
        kept = {unit: facts for unit, facts in before.items() if unit != victim["unit"]}
        unchanged({unit: facts for unit, facts in after.items() if unit in kept}, kept)
        assert len(after) == COUNT, len(after)
        before = after

with subtest("the node was never held to be dead, and its agent is the one that began"):
    for master in masters:
        said = daemon_journal(master, "master")
        assert "does not answer" not in said, [line for line in said.splitlines() if "does not answer" in line]
    assert node.get_unit_property("droverd-agent.service", "NRestarts") == restarts

with subtest("they all end when asked"):
    change("/many", {"instances": 0})
    eventually("no unit is left", lambda: not task_units(node), timeout=120)
