# nodes: masters=3 agents=3 vm=false
"""A master and a node lose their power at once, then two nodes at once, then everything: a majority of the masters goes on,
what ran on lost nodes runs elsewhere, what ran nowhere else runs again when the power is back, and no acknowledged write is
lost. Promises 3 and 4."""

bring_up_cluster()
APP = web_app(instances=6, unreachableStrategy={"inactiveAfterSeconds": 1, "expungeAfterSeconds": 2})


def on(machines):
    """The units of the app on these machines that are up."""
    up = "systemctl list-units --plain --no-legend --full --state=active 'drover-web.*.service'"
    return [line.split()[0] for machine in machines for line in machine.succeed(up).splitlines()]


def wait_six(machines):
    """Waits until six run, all of them on these machines, and systemd there has these and no other."""

    def settled():
        up = running("/web")
        assert len(up) == 6 and {task["node"] for task in up} <= {machine.name for machine in machines}, up
        assert sorted(on(machines)) == sorted(task["unit"] for task in up), (on(machines), up)
        return up

    return eventually(f"six instances run on {', '.join(machine.name for machine in machines)}", settled)


with subtest("six instances run, and a client writes"):
    deploy(APP)
    before = wait_running("/web", 6)
    clerk = Clerk(agents[0])
    clerk.wait_for_writes()

with subtest("the leader and a node crash at once: what ran there runs elsewhere, the rest is left alone"):
    lost = [leader(), agents[2]]
    for machine in lost:
        cut_power(machine)
    wait_for_leader(other_than=lost[0])
    clerk.wait_for_writes()
    moved = wait_six(agents[:2])
    stayed = {task["id"]: task["invocationId"] for task in before if task["node"] != agents[2].name}
    assert stayed.items() <= invocations(moved).items(), (stayed, moved)
    for machine in lost:
        power_on(machine)
    wait_whole()
    unchanged(invocations(wait_six(agents)), invocations(moved))

with subtest("two nodes crash at once: the third carries everything"):
    for agent in agents[1:]:
        cut_power(agent)
    moved = wait_six(agents[:1])
    for agent in agents[1:]:
        power_on(agent)
    wait_whole()
    unchanged(invocations(wait_six(agents)), invocations(moved))

with subtest("the power of all machines is cut, and comes back: everything acknowledged is there, and all of it runs again"):
    clerk.wait_for_writes()
    for machine in masters + agents:
        cut_power(machine)
    for machine in masters + agents:
        power_on(machine)
    wait_whole()
    again = wait_six(agents)
    assert not set(ids(again)) & set(ids(moved)), "these tasks ended with the power"
    for task in again:
        assert "Directory listing" in fetch(task)
    clerk.stop()
