# nodes: masters=3 agents=3 vm=false
"""Killing the agent by force touches no task: the same processes run on, and the agent takes all of them over again.

Promise 1. Fifty tasks run on one node; before and after, systemd must name the same invocations and processes.
"""

bring_up_cluster()
node = agents[0]

with subtest("fifty tasks run on one node"):
    deploy(sleeper("/many", 50, constraints=[["hostname", "LIKE", node.name]]))
    tasks = wait_running("/many", 50, timeout=120)
    before = unit_facts(node)
    assert len(before) == 50 and all(pid != "0" for _, pid in before.values()), before

with subtest("the agent is killed by force and comes back by itself"):
    agent_pid = node.get_unit_property("droverd-agent.service", "MainPID")
    node.succeed("systemctl kill --signal=KILL droverd-agent.service")
    eventually(
        "a new agent is there",
        lambda: node.get_unit_property("droverd-agent.service", "MainPID") not in ("0", agent_pid)
        and node.get_unit_property("droverd-agent.service", "ActiveState") == "active",
    )

with subtest("no task restarted"):
    unchanged(unit_facts(node), before)
    wait_node(node, "up")
    unchanged(invocations(wait_running("/many", 50)), invocations(tasks))
    unchanged(unit_facts(node), before)

with subtest("the new agent governs the old tasks: it can end them, and it notices their death"):
    victim = tasks[0]
    node.succeed(f"systemctl kill --signal=KILL '{victim['unit']}'")
    eventually("the death is noticed", lambda: victim["id"] not in ids(running("/many")))
    after = wait_running("/many", 50)
    assert len(set(ids(after)) - set(ids(tasks))) == 1

with subtest("a stopped and started agent is the same to the tasks"):
    kept = unit_facts(node)
    node.succeed("systemctl stop droverd-agent.service")
    unchanged(unit_facts(node), kept)
    node.succeed("systemctl start droverd-agent.service")
    wait_node(node, "up")
    unchanged(invocations(wait_running("/many", 50)), invocations(after))
    unchanged(unit_facts(node), kept)

with subtest("and the cluster still ends them all when asked"):
    change("/many", {"instances": 0})
    eventually("no unit is left", lambda: not task_units(node))
