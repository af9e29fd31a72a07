# nodes: masters=3 agents=3 vm=false
"""With every master gone tasks keep running, and what happens to them meanwhile is told when the masters are back. A
power cut of all of them loses no acknowledged write. Promise 4."""

bring_up_cluster()

with subtest("an app runs, and one more write is acknowledged just before the cut"):
    deploy(web_app())
    tasks = wait_running("/web", 3)
    deploy(sleeper("/last", 0, labels={"written": "just before"}))
    for master in masters:
        cut_power(master)

with subtest("tasks keep running and answering"):
    for task in tasks:
        node = machine_of(task)
        assert node.get_unit_property(task["unit"], "InvocationID") == task["invocationId"].replace("-", "")
        node.wait_until_succeeds(f"curl --silent --show-error --fail --max-time 10 http://{task['node']}:{task['ports'][0]}/", timeout=20)

with subtest("one dies with nobody to hear of it"):
    victim = tasks[0]
    machine_of(victim).succeed(f"systemctl kill --signal=KILL '{victim['unit']}'")

with subtest("the agents wait and stay"):
    for agent in agents:
        agent.require_unit_state("droverd-agent.service")

with subtest("the masters return and know everything"):
    for master in masters:
        power_on(master)
    wait_whole()
    assert ask("GET", "/v2/apps//last")["app"]["labels"] == {"written": "just before"}

with subtest("the death is made good, the others were never touched"):
    eventually("the death is known", lambda: victim["id"] not in ids(tasks_of("/web")))
    after = wait_running("/web", 3)
    untouched = {task["id"]: task["invocationId"] for task in tasks if task is not victim}
    assert untouched.items() <= invocations(after).items(), (untouched, after)
    failure = ask("GET", "/v2/apps//web")["app"]["lastTaskFailure"]
    assert failure["taskId"] == victim["id"], failure
