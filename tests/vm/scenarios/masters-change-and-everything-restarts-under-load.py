# nodes: masters=3 agents=3 vm=false timeout=420
"""While a client writes, a job is due every second and an app runs: masters are taken out and added, the leader among them,
and every daemon is restarted, one after the other. Every acknowledged write stays, every slot fires once, no task notices.
Promises 1, 2, 4 and 5."""

bring_up_cluster()
deploy(web_app(instances=6))
tasks = invocations(wait_running("/web", 6))
clerk = Clerk(agents[0])
start = start_ticking()
wait_ticking()


def take_out(machine):
    other = [master for master in masters if master is not machine][0]

    def is_out():
        known = {master["name"]: master["role"] for master in api(other, "GET", "/drover/v1/masters")["masters"]}
        if machine.name in known:
            # A leader that takes itself out may not be there any more to answer; to ask again is what the client says then.
            other.execute(f"drover masters remove {machine.name} --yes")
        return machine.name not in known and "leader" in known.values()

    eventually(f"{machine.name} is out, and another leads", is_out)


for who, choose in {"a follower": lambda: [each for each in masters if each is not leader()][0], "the leader": leader}.items():
    with subtest(f"{who} is taken out, and the two others go on"):
        machine = choose()
        take_out(machine)
        eventually("it knows", lambda machine=machine: "not a member of its cluster any more" in daemon_journal(machine, "master"))
        clerk.wait_for_writes()
        wait_ticking()

    with subtest("it joins anew, and knows everything"):
        machine.succeed("systemctl stop droverd-master", f"rm -r {STATE}/master")
        join(machine, "master")
        wait_whole()
        clerk.wait_for_writes()

with subtest("every master is restarted, one after the other"):
    for machine in masters:
        machine.succeed("systemctl restart droverd-master")
        wait_whole()
    clerk.wait_for_writes()

with subtest("every agent is restarted, one after the other"):
    for machine in agents:
        machine.succeed("systemctl restart droverd-agent")
        wait_whole()
    clerk.wait_for_writes()
    wait_ticking()

with subtest("no slot was forgotten or fired twice, no write lost, and no task restarted"):
    unchanged(invocations(wait_running("/web", 6)), tasks)
    stop_ticking(start)
    clerk.stop()
