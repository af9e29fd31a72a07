# nodes: masters=3 agents=3 vm=false
"""Who knows systemd finds what they expect on a node: tasks among the units, a tree of slices that follows ownership,
a journal that can be asked by app; and what they do with systemctl is noticed and answered. Promise 6 as well: what
they did is what the API tells."""

bring_up_cluster()
node = agents[0]
here = [["hostname", "LIKE", node.name]]

with subtest("tasks are units with a description"):
    deploy(sleeper("/shop/web", 2, cmd="echo hello from $MESOS_TASK_ID; exec sleep infinity", constraints=here))
    tasks = wait_running("/shop/web", 2)
    units = sorted(task["unit"] for task in tasks)
    assert task_units(node) == units
    for unit in units:
        assert "/shop/web" in node.get_unit_property(unit, "Description")
        assert node.get_unit_property(unit, "ActiveState") == "active"

with subtest("slices follow ownership"):
    for unit in units:
        assert node.get_unit_property(unit, "Slice") == "drover-apps-shop-web.slice"
    assert node.get_unit_property("drover-apps-shop-web.slice", "Slice") == "drover-apps-shop.slice"
    tree = node.succeed("systemd-cgls --no-pager --full --unit drover.slice")
    for word in ["drover-apps.slice", "drover-apps-shop.slice", "drover-apps-shop-web.slice", units[0], "sleep infinity"]:
        assert word in tree, tree

with subtest("the journal can be asked by app and by task"):
    lines = journal(node, "DROVER_APP=/shop/web")
    assert sorted(lines) == sorted(f"hello from {task['id']}" for task in tasks), lines
    one = journal(node, f"DROVER_TASK={tasks[0]['id']}")
    assert one == [f"hello from {tasks[0]['id']}"], one
    assert node.succeed(f"journalctl --no-pager --output=cat --unit '{tasks[0]['unit']}' _TRANSPORT=stdout").splitlines() == one

with subtest("systemctl stop on a task is noticed, told as an operator's doing, and answered with another instance"):
    node.succeed(f"systemctl stop '{tasks[0]['unit']}'")
    eventually("it is gone from the API", lambda: tasks[0]["id"] not in ids(tasks_of("/shop/web")))
    replaced = wait_running("/shop/web", 2)
    assert tasks[1]["id"] in ids(replaced)
    failure = ask("GET", "/v2/apps//shop/web")["app"]["lastTaskFailure"]
    assert failure["taskId"] == tasks[0]["id"] and "stopped on the node" in failure["message"], failure

with subtest("systemctl restart of the agent touches no task"):
    before = unit_facts(node)
    node.succeed("systemctl restart droverd-agent.service")
    wait_node(node, "up")
    unchanged(unit_facts(node), before)
    wait_running("/shop/web", 2)

with subtest("a daemon-reload and a daemon-reexec of PID 1 change nothing"):
    node.succeed("systemctl daemon-reload")
    node.succeed("systemctl daemon-reexec")
    unchanged(unit_facts(node), before)
    node.succeed(f"systemctl kill --signal=KILL '{replaced[0]['unit']}'")
    eventually("deaths are still noticed", lambda: replaced[0]["id"] not in ids(tasks_of("/shop/web")))
    wait_running("/shop/web", 2)

with subtest("a run of a job is a unit of its job's slice, and its output is found by run"):
    ask("POST", "/v1/scheduler/iso8601", {"name": "report", "command": "echo counted; sleep 5", "schedule": "R0//PT1H", "cpus": 0.1, "mem": 16})
    ask("PUT", "/v1/scheduler/job/report")
    run = eventually("it runs", lambda: ask("GET", "/drover/v1/tasks?job=report")["tasks"])[0]
    worker = machine_of(run)
    eventually("its unit is there", lambda: worker.get_unit_property(run["unit"], "Slice") == "drover-jobs-report.slice")
    eventually("its output is there", lambda: job_journal("report") == ["counted"])
    lines = journal(worker, f"DROVER_RUN={run['run']}")
    assert lines == ["counted"], lines
    eventually("it is over, and leaves no unit", lambda: run["unit"] not in task_units(worker))
    last = ask("GET", "/drover/v1/jobs/report")["job"]["last"]
    assert last["result"] == "finished" and last["exitCode"] == 0, last
