# nodes: masters=3 agents=3 vm=false
"""A request's id leads from the client through every master to the deployment, the deployment to its tasks, and a task's id
through the journals of master and agent, from the decision to the acknowledged status. Meanwhile the metrics of masters and
agents tell what happened: a start, a refusal, a change of leaders. A node that has its most tasks says so."""

LOUD = "[Service]\nEnvironment=DROVER_LOG=info,openraft=off,drover_master=debug,drover_agent=debug\n"


def metrics(machine, port):
    """Series -> value, as this machine tells them."""
    page = machine.succeed(f"curl --silent --show-error --fail --max-time 10 http://127.0.0.1:{port}/metrics")
    series = {}
    typed = set()
    for line in page.splitlines():
        if line.startswith("# TYPE "):
            typed.add(line.split()[2])
        elif line and not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            series[name] = float(value)
            bare = name.split("{")[0]
            family = [bare] + [bare.removesuffix(end) for end in ("_bucket", "_sum", "_count")]
            assert any(each in typed for each in family), f"{name} has no type"
    return series


def of_master(machine):
    return metrics(machine, 7070)


def of_agent(machine):
    return metrics(machine, 7072)


def told(field, value, machines):
    """What the daemons of these machines said with that field, in order of time."""
    lines = []
    for machine in machines:
        options = f"--quiet --no-pager --output=json --since=@{began[machine.name]} _COMM=droverd"
        for line in machine.succeed(f"journalctl {options} {shlex.quote(f'{field}={value}')}").splitlines():
            entry = json.loads(line)
            lines.append((int(entry["__REALTIME_TIMESTAMP"]), machine.name, entry["MESSAGE"], entry))
    return sorted(lines, key=lambda line: line[0])


bring_up_cluster()

with subtest("every hand-over is in the journal"):
    for machine in masters:
        write_file(machine, "/run/systemd/system/droverd-master.service.d/loud.conf", LOUD)
    for machine in agents:
        write_file(machine, "/run/systemd/system/droverd-agent.service.d/loud.conf", LOUD)
    for machine in set(masters + agents):
        machine.succeed("systemctl daemon-reload && systemctl try-restart 'droverd-*.service'")
    wait_whole()

with subtest("metrics of masters and agents move when an app starts"):
    chief = leader()
    follower = [master for master in masters if master is not chief][0]
    before = {agent.name: of_agent(agent) for agent in agents}
    applied = of_master(chief)["drover_master_raft_applied_index"]
    answer = follower.succeed(
        f"curl --silent --show-error --fail --include --header 'X-Request-Id: the-story.1' --header 'Content-Type: application/json' "
        f"--data {shlex.quote(json.dumps(sleeper('/story', 3)))} {API}/v2/apps"
    )
    assert "x-request-id: the-story.1" in answer.lower(), answer
    tasks = wait_running("/story", 3)

    def counted():
        seen = of_master(chief)
        assert seen['drover_master_tasks{state="running"}'] == 3 and seen["drover_master_apps"] == 1, seen
        assert seen["drover_master_raft_applied_index"] > applied
        assert seen['drover_master_leader_commands_total{command="launch-task",outcome="applied"}'] >= 3
        assert seen["drover_master_agents_connected"] == len(agents)
        assert seen["drover_master_cpus_allocated_cores"] > 0
        assert seen["drover_master_raft_is_leader"] == 1 and of_master(follower)["drover_master_raft_is_leader"] == 0
        lagging = [name for name in seen if name.startswith("drover_master_raft_replication_lag_entries{")]
        assert len(lagging) == len(masters) - 1, lagging
        for agent in agents:
            mine, then = of_agent(agent), before[agent.name]
            count = len([task for task in tasks if task["node"] == agent.name])
            made = 'drover_agent_starts_total{outcome="made"}'
            assert mine[made] - then.get(made, 0) == count, (agent.name, mine[made], count)
            assert mine["drover_agent_start_seconds_count"] - then["drover_agent_start_seconds_count"] == count
            assert mine['drover_agent_tasks{state="running"}'] == count
            assert mine["drover_agent_session_connected"] == 1 and mine["drover_agent_bus_connected"] == 1
            assert mine["drover_agent_ledger_append_seconds_count"] > then["drover_agent_ledger_append_seconds_count"]
            assert mine["drover_agent_unacknowledged_statuses"] == 0
        return True

    eventually("the numbers are those of what runs", counted)

with subtest("one grep by request: where it came in, where it was decided, which deployment it began"):
    story = told("DROVER_REQUEST_ID", "the-story.1", masters)
    assert any(name == follower.name and "handing the request to the leader" in line for _, name, line, _ in story), story
    began_by = [entry for _, name, line, entry in story if name == chief.name and "begins" in line]
    assert len(began_by) == 1, story
    deployment = began_by[0]["DROVER_DEPLOYMENT_ID"]
    launched = {entry.get("DROVER_TASK_ID") for _, _, line, entry in told("DROVER_DEPLOYMENT_ID", deployment, masters) if line.startswith("launch")}
    assert launched == set(ids(tasks)), (launched, ids(tasks))

with subtest("one grep by task: proposed, launched, assigned, started, running, acknowledged, on both sides"):
    for task in tasks:
        agent = machine_of(task)
        story = told("DROVER_TASK_ID", task["id"], masters + agents)
        words = [
            (chief.name, "proposing: launch"),
            (chief.name, "launch "),
            (chief.name, "is assigned to"),
            (agent.name, "is assigned"),
            (agent.name, "starting "),
            (agent.name, "is TASK_RUNNING"),
            (chief.name, "is TASK_RUNNING on record, acknowledged"),
            (agent.name, "is acknowledged"),
        ]
        for machine, word in words:
            found = [entry for _, name, line, entry in story if name == machine and word in line]
            assert found, f"{machine} does not say {word!r} of {task['id']}: {[line[:3] for line in story]}"
            about = {entry.get("DROVER_AGENT_ID") for entry in found}
            assert len(about) == 1 and None not in about, f"{word!r} names {about}"
        orders = [[line for _, name, line, _ in story if name == where] for where in (chief.name, agent.name)]
        for lines, where in zip(orders, (chief.name, agent.name)):
            # The acknowledgement of TASK_STARTING comes before that of TASK_RUNNING, which is the one that is looked for.
            # The launch is told by the leader loop and the assignment by the agent's session; which speaks first is nobody's promise.
            ordered = [word for machine, word in words if machine == where and word != "launch "]
            at = [max(n for n, line in enumerate(lines) if word in line) for word in ordered]
            assert at == sorted(at), (where, at, lines)

with subtest("a refusal is counted by the limit that was in the way"):
    status_code, _ = request(follower, "POST", "/v2/apps", data_command="head -c 5000000 /dev/zero")
    assert status_code == 413, status_code
    assert of_master(follower)['drover_master_limit_refusals_total{limit="body"}'] >= 1

with subtest("a node that has its most tasks is given no more, and why says so"):
    for agent in agents:
        text = agent.succeed("cat /etc/drover/drover.toml")
        write_file(agent, "/run/before.toml", text)
        write_file(agent, "/etc/drover/drover.toml", text + "\n[agent.limits]\ntasks = 2\n")
        agent.succeed("systemctl restart droverd-agent.service")
    wait_whole()
    change("/story?force=true", {"instances": 8})

    def full():
        running_now = running("/story")
        assert len(running_now) == 2 * len(agents), len(running_now)
        reasons = json.dumps(ask("GET", "/drover/v1/why/apps/story"))
        assert reasons.count("tasks: it has 2 already, the most it takes") >= len(agents), reasons
        assert of_master(leader())["drover_master_leader_waiting_tasks"] == 8 - 2 * len(agents)
        return True

    eventually("each node has two, and two find no place", full)
    for agent in agents:
        agent.succeed("cat /run/before.toml > /etc/drover/drover.toml && systemctl restart droverd-agent.service")
    wait_running("/story", 8)

with subtest("a change of leaders is counted by the masters that saw it"):
    changes = {master.name: of_master(master)["drover_master_raft_leader_changes_total"] for master in masters}
    lost = kill_leader()
    chief = wait_for_leader(other_than=lost)
    for master in masters:
        if master is not lost:
            seen = of_master(master)["drover_master_raft_leader_changes_total"]
            assert seen > changes[master.name], (master.name, seen, changes)
    power_on(lost)
    wait_whole()
    eventually("the agents are with the new leader", lambda: of_master(chief)["drover_master_agents_connected"] == len(agents))

with subtest("the machines are left as they were"):
    for machine in set(masters + agents):
        machine.succeed("rm -f /run/systemd/system/droverd-*.service.d/loud.conf && systemctl daemon-reload")
        machine.succeed("systemctl try-restart 'droverd-*.service'")
    wait_whole()
