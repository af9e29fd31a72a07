# nodes: masters=3 agents=3 vm=false timeout=480 systemd=252
"""A leader that cannot reach the others, is not heard by them, does not hear them, or has lost all agents: whenever a
majority of the masters can talk to each other the cluster goes on with one leader, acknowledges nothing that it then
loses, fires every slot once, and no task restarts. Promises 2 and 4.

A client writes through every master all the time, a job is due every second, and an app runs.
"""

bring_up_cluster()
deploy(web_app(instances=3, unreachableStrategy={"inactiveAfterSeconds": 300, "expungeAfterSeconds": 600}))
tasks = wait_running("/web", 3)
clerk = Clerk(agents[0])
start = start_ticking()
wait_ticking()


def others(machine):
    return [master for master in masters if master is not machine]


def wait_others_go_on(old):
    wait_led_by_other(old)
    clerk.wait_for_writes()
    wait_ticking()


def wait_one_leads():
    heal()
    wait_whole()
    clerk.wait_for_writes()
    wait_ticking()


with subtest("cut off both ways, the leader gives up, and a majority goes on"):
    old = leader()
    for other in others(old):
        cut(old, other)
        cut(other, old)
    wait_others_go_on(old)
    eventually("the old one calls nobody its leader", lambda: leader_by(old) is None)
    code, answer = request(old, "GET", "/v2/apps")
    assert code in (0, 503), f"a read that nobody confirms was answered: {code} {answer}"
    wait_one_leads()

with subtest("not heard by the other masters, it leads no more, though it hears them"):
    old = leader()
    for other in others(old):
        cut(old, other)
    wait_others_go_on(old)
    wait_one_leads()

with subtest("not hearing the other masters, it decides nothing more, though they hear it"):
    old = leader()
    for other in others(old):
        cut(other, old)
    # They hear its heartbeats, so they need not choose another; what cannot be is that it acknowledges alone.
    eventually("it does not call itself the leader", lambda: leader_by(old) != old.name)
    code, answer = request(old, "POST", "/v2/apps", sleeper("/alone", 0))
    assert code not in (200, 201), answer
    wait_one_leads()

with subtest("cut off from every agent but from no master, it leads on; nothing is decided about the tasks it cannot see"):
    old = leader()
    for agent in agents:
        cut(agent, old)
    for agent in agents:
        wait_node(agent, "unreachable")
    for agent in agents:
        assert task_units(agent), agent.name
    assert api(old, "POST", "/v2/apps", sleeper("/noted", 0))["id"] == "/noted"
    wait_one_leads()

with subtest("no slot was forgotten or fired twice, no write lost, and no task restarted"):
    unchanged(invocations(wait_running("/web", 3)), invocations(tasks))
    stop_ticking(start)
    clerk.stop()
    assert "/alone" not in {app["id"] for app in ask("GET", "/v2/apps")["apps"]}
