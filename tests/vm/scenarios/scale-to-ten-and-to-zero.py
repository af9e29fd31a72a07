# nodes: masters=3 agents=3 vm=false
"""Scaling touches only what is added or taken away: the old instances stay the same processes, and zero leaves nothing."""

bring_up_cluster()

with subtest("three instances run"):
    deploy(web_app())
    before = wait_running("/web", 3)

with subtest("ten run, the first three among them untouched"):
    change("/web", {"instances": 10})
    ten = wait_running("/web", 10)
    kept = {task: start for task, start in invocations(ten).items() if task in invocations(before)}
    assert kept == invocations(before), (kept, invocations(before))
    for task in ten:
        assert "Directory listing" in fetch(task)

with subtest("the nodes share them"):
    for agent in agents:
        assert 2 <= len(task_units(agent)) <= 5, (agent.name, task_units(agent))
    assert sum(len(task_units(agent)) for agent in agents) == 10

with subtest("down to four, the youngest go first"):
    change("/web", {"instances": 4})
    four = wait_running("/web", 4)
    assert invocations(before).items() <= invocations(four).items(), (before, four)

with subtest("zero leaves the app and no unit"):
    change("/web", {"instances": 0})
    wait_running("/web", 0)
    for agent in agents:
        eventually(f"{agent.name} has no unit left", lambda agent=agent: not task_units(agent))
    assert ask("GET", "/v2/apps//web")["app"]["instances"] == 0

with subtest("and back to one"):
    change("/web", {"instances": 1})
    assert "Directory listing" in fetch(wait_running("/web", 1)[0])
