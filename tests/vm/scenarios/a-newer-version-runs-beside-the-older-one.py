# nodes: masters=3 agents=3 vm=false alone=true next=true systemd=252
"""While a client writes, a job is due every second and an app runs, masters and agents are replaced by a newer version one after
the other, and by the older one again: both work side by side, and no task notices. Once all masters are newer and the cluster's
version is raised, an older one says what to install, and harms nobody. Promises 1, 2, 4 and 5."""

bring_up_cluster()
deploy(sleeper("/calm", 6))
tasks = invocations(wait_running("/calm", 6))
clerk = Clerk(agents[0])
start = start_ticking()


def replace(machines, role, newer):
    """One after the other, each once all of them take part again."""
    for machine in machines:
        run_version(machine, role, newer)
        if role == "agent":
            wait_speaking(machine)
        wait_knowing()


def wait_speaking(agent, version=1):
    """Waits until the agent that runs there now has a session, in this version of the conversation."""
    invocation = agent.succeed("systemctl show --property=InvocationID --value droverd-agent").strip()
    said = f"journalctl --quiet --output=cat _SYSTEMD_INVOCATION_ID={invocation}"
    eventually(
        f"{agent.name} speaks version {version} with the leader",
        lambda: f"which speaks version {version} with this agent" in agent.succeed(said),
    )


def wait_knowing():
    """Waits until everybody takes part and the leader knows what each master knows."""
    wait_whole()
    eventually("what all masters know is known", lambda: None not in known().values())


def known():
    """What each master knows, by its name."""
    return {master["name"]: master.get("knows") for master in ask("GET", "/drover/v1/masters")["masters"]}


def led_by(wanted):
    """Has one of these masters lead."""

    def leads():
        now = leader()
        if now in wanted:
            return True
        now.succeed("systemctl stop droverd-master")
        wait_led_by_other(now)
        now.succeed("systemctl start droverd-master")
        wait_whole()

    eventually("one of them leads", leads)


older = leader()
newer = [master for master in masters if master is not older]

with subtest("newer agents talk to older masters"):
    replace(agents, "agent", True)

with subtest("newer masters beside an older one: either leads, and everybody goes on"):
    replace(newer, "master", True)
    assert known() == {older.name: 1, **{master.name: 2 for master in newer}}, known()
    assert leader() is older, "it led, and none of the others' restarts changed that"
    clerk.wait_for_writes(10)
    led_by(newer)
    clerk.wait_for_writes(10)
    wait_ticking(seconds=2)
    restarts = older.succeed("systemctl show --property=NRestarts --value droverd-master").strip()
    assert restarts == "0", f"the older one stopped by itself, {restarts} times"
    assert status()["version"] == 1

with subtest("the version is not raised while one master does not know it"):
    refused = older.fail("drover cluster raise-version --to 2 --yes 2>&1")
    assert older.name in refused and "install the newer drover there" in refused, refused
    assert status()["version"] == 1

with subtest("and back again"):
    replace(newer, "master", False)
    replace(agents, "agent", False)
    assert set(known().values()) == {1}, known()
    clerk.wait_for_writes(10)

with subtest("all are upgraded, and the version is raised"):
    replace(masters, "master", True)
    for agent in agents:
        run_version(agent, "agent", True)
        wait_speaking(agent, version=2)
    masters[0].succeed("drover cluster raise-version --yes")
    assert status()["version"] == 2
    clerk.wait_for_writes(10)

with subtest("an older master says what to install, and the others go on"):
    machine = [master for master in masters if master is not leader()][0]
    run_version(machine, "master", False)
    eventually("it says so", lambda: "install the newer drover" in daemon_journal(machine, "master"))
    clerk.wait_for_writes(10)

with subtest("a new master that is older is not taken in"):
    other = [master for master in masters if master is not machine][0]
    other.succeed(f"drover masters remove {machine.name} --yes")
    machine.succeed("systemctl stop droverd-master", f"rm -r {STATE}/master")
    join(machine, "master")
    why = f"the cluster is at version 2 and drover on {machine.name} knows versions up to 1"
    eventually("it is told why", lambda: why in daemon_journal(machine, "master"))
    run_version(machine, "master", True)
    wait_knowing()

with subtest("no slot was forgotten or fired twice, no write lost, no task restarted, and the masters agree"):
    unchanged(invocations(wait_running("/calm", 6)), tasks)
    wait_ticking(seconds=2)
    stop_ticking(start)
    clerk.stop()

    def agree():
        held = [api(master, "GET", "/drover/v1/state?stale") for master in masters]
        return len({(each["applied"], each["digest"]) for each in held}) == 1

    eventually("all masters hold the same", agree)
