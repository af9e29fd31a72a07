# nodes: masters=3 agents=3 vm=false
"""An app of three instances that must not share a host runs on three nodes, as systemd units that answer.

What the API says of an instance (node, unit, invocation, port) is what systemd says of it on that node.
"""

bring_up_cluster()

with subtest("an app is accepted and runs on every node"):
    created = deploy(web_app(constraints=[["hostname", "UNIQUE"]]))
    assert created["id"] == "/web" and created["deployments"], created
    tasks = wait_running("/web", 3)
    assert sorted(task["node"] for task in tasks) == [agent.name for agent in agents], tasks

with subtest("each instance is the unit that the API names, in the slice of its app"):
    for task in tasks:
        node = machine_of(task)
        node.require_unit_state(task["unit"])
        assert node.get_unit_property(task["unit"], "InvocationID") == task["invocationId"].replace("-", "")
        assert node.get_unit_property(task["unit"], "Slice") == "drover-apps-web.slice"
        assert task_units(node) == [task["unit"]]

with subtest("each instance answers on its port, to other nodes as well"):
    for task in tasks:
        assert "Directory listing" in fetch(task, agents[0])

with subtest("the Marathon API says the same on every master"):
    for master in masters:
        app = api(master, "GET", "/v2/apps//web")["app"]
        assert (app["tasksRunning"], app["tasksStaged"]) == (3, 0), app
        assert ids(app["tasks"]) == ids(tasks)

with subtest("a fourth instance has no place, and the cluster says why, for each node"):
    change("/web", {"instances": 4})
    eventually("the fourth instance waits", lambda: ask("GET", "/v2/queue")["queue"])
    why = ask("GET", "/drover/v1/why/apps/web")
    assert {node["node"] for node in why["waiting"][0]["nodes"]} == {agent.name for agent in agents}, why
    assert all(node["reasons"] for node in why["waiting"][0]["nodes"]), why
    assert ids(running("/web")) == ids(tasks)
