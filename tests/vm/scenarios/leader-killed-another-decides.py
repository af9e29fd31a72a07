# nodes: masters=3 agents=3 vm=false
"""The leading master loses its power: another decides within seconds, no task notices, no acknowledged write is lost,
and the lost one comes back as a follower. Promise 2."""

bring_up_cluster()

with subtest("an app runs, and a write is acknowledged"):
    deploy(web_app())
    tasks = wait_running("/web", 3)
    deploy(sleeper("/later", 0))

with subtest("the leader's power is cut, and another leads within ten seconds"):
    old = kill_leader()
    new = wait_for_leader(other_than=old, timeout=10)
    log.log(f"{old.name} led, {new.name} leads")

with subtest("nothing was lost, and no task restarted"):
    assert sorted(app["id"] for app in ask("GET", "/v2/apps")["apps"]) == ["/later", "/web"]
    unchanged(invocations(wait_running("/web", 3)), invocations(tasks))
    for task in tasks:
        assert machine_of(task).get_unit_property(task["unit"], "InvocationID") == task["invocationId"].replace("-", "")

with subtest("the new leader decides"):
    change("/web", {"instances": 5})
    five = wait_running("/web", 5)
    assert invocations(tasks).items() <= invocations(five).items()

with subtest("every other master takes any request"):
    for master in masters:
        if master is not old:
            assert len(api(master, "GET", "/v2/apps//web")["app"]["tasks"]) == 5

with subtest("the lost master returns as a follower and catches up"):
    power_on(old)
    wait_whole()
    eventually("it knows the app", lambda: len(api(old, "GET", "/v2/apps//web")["app"]["tasks"]) == 5)

with subtest("the returned master is good for a majority again"):
    other = kill_leader()
    wait_for_leader(other_than=other, timeout=10)
    change("/web", {"instances": 4})
    wait_running("/web", 4)
    power_on(other)
    wait_whole()
