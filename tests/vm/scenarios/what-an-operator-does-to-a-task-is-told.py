# nodes: masters=3 agents=3 vm=false
"""What an operator does to a task with systemctl is noticed, told as what it was, and answered by the app's or the job's own
policy: stop, kill, restart, freeze and thaw. Promise 6."""

bring_up_cluster()
node = agents[0]
here = [["hostname", "LIKE", node.name]]
deploy(sleeper("/shop", 2, constraints=here, backoffSeconds=1, backoffFactor=1))
wait_running("/shop", 2)

# what is done -> how it is told
ENDS = {
    "systemctl stop": ("TASK_KILLED", "stopped on the node"),
    "systemctl kill --signal=TERM": ("TASK_FAILED", "ended by SIGTERM, which drover did not send"),
    "systemctl kill --signal=KILL": ("TASK_FAILED", "ended by SIGKILL, which drover did not send"),
}
for command, (state, words) in ENDS.items():
    with subtest(f"{command} ends a task: it is told as that, another takes its place, the neighbour stays"):
        victim, neighbour = wait_running("/shop", 2)
        node.succeed(f"{command} '{victim['unit']}'")
        eventually("it is gone from the API", lambda victim=victim: victim["id"] not in ids(tasks_of("/shop")))
        failure = ask("GET", "/v2/apps//shop")["app"]["lastTaskFailure"]
        assert failure["taskId"] == victim["id"] and failure["state"] == state and words in failure["message"], failure
        after = invocations(wait_running("/shop", 2))
        assert after[neighbour["id"]] == neighbour["invocationId"], (after, neighbour)
        eventually("its unit is gone", lambda victim=victim: victim["unit"] not in task_units(node))

with subtest("systemctl restart makes another start of the unit, which is not the task's: it is ended, and another takes its place"):
    victim, neighbour = wait_running("/shop", 2)
    # The agent may be quick enough to end it while systemctl still waits for the start, which is told as a failure then.
    node.execute(f"systemctl restart '{victim['unit']}'")
    eventually("it is gone from the API", lambda: victim["id"] not in ids(tasks_of("/shop")))
    failure = ask("GET", "/v2/apps//shop")["app"]["lastTaskFailure"]
    assert failure["taskId"] == victim["id"] and failure["state"] == "TASK_KILLED", failure
    settled = wait_running("/shop", 2)
    eventually("the node has these units and no other", lambda: task_units(node) == sorted(task["unit"] for task in settled))
    assert invocations(settled)[neighbour["id"]] == neighbour["invocationId"], (settled, neighbour)

with subtest("systemctl freeze changes nothing else: the task stays, the agent governs the others"):
    frozen, neighbour = wait_running("/shop", 2)
    facts = unit_facts(node)
    node.succeed(f"systemctl freeze '{frozen['unit']}'")
    assert node.get_unit_property(frozen["unit"], "FreezerState") == "frozen"
    node.succeed("systemctl restart droverd-agent.service")
    wait_node(node, "up")
    unchanged(unit_facts(node), facts)
    unchanged(invocations(wait_running("/shop", 2)), invocations([frozen, neighbour]))
    change("/shop", {"instances": 3})
    three = invocations(wait_running("/shop", 3))
    assert invocations([frozen, neighbour]).items() <= three.items(), three

with subtest("thawed it goes on as it was; and a frozen one can be ended"):
    node.succeed(f"systemctl thaw '{frozen['unit']}'")
    assert node.get_unit_property(frozen["unit"], "FreezerState") == "running"
    unchanged(invocations(wait_running("/shop", 3)), three)
    node.succeed(f"systemctl freeze '{frozen['unit']}'")
    ask("DELETE", f"/v2/apps//shop/tasks/{frozen['id']}")
    eventually("it is gone from the API", lambda: frozen["id"] not in ids(tasks_of("/shop")))
    settled = wait_running("/shop", 3)
    eventually("the node has these units and no other", lambda: task_units(node) == sorted(task["unit"] for task in settled))

with subtest("a run that is stopped on the node is cancelled and not tried again; one that is killed is tried again"):
    job = {"name": "report", "command": "exec sleep infinity", "schedule": "R/2040-01-01T00:00:00Z/P1D", "retryDelay": "PT1S"}
    at = [["hostname", "EQUALS", node.name]]
    ask("POST", "/v1/scheduler/iso8601", {**job, "retries": 1, "cpus": 0.05, "mem": 16, "constraints": at})

    def attempt(number):
        tasks = ask("GET", "/drover/v1/tasks?job=report")["tasks"]
        return [task for task in tasks if task["attempt"] == number and task["state"] == "running"]

    ask("PUT", "/v1/scheduler/job/report")
    first = eventually("it runs", lambda: attempt(0))[0]
    node.succeed(f"systemctl kill --signal=KILL '{first['unit']}'")
    second = eventually("it is tried again", lambda: attempt(1))[0]
    node.succeed(f"systemctl stop '{second['unit']}'")
    last = eventually("it is over", lambda: ask("GET", "/drover/v1/jobs/report")["job"].get("last"))
    assert (last["result"], last["attempt"]) == ("killed", 1) and "stopped on the node" in last["message"], last
    ask("DELETE", "/v1/scheduler/job/report")
