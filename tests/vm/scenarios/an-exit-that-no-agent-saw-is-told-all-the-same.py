# nodes: masters=3 agents=3 vm=false
"""Tasks exit at the moment at which their agent is killed, while it is down, and while it cannot reach a master: each exit
status is told, as it was, and nothing runs a second time. Promise 1.

The runs of six jobs wait for a file on their node, all at once, and each ends in its own way.
"""

bring_up_cluster()
node = agents[0]

# job -> how it ends, the result that is told, and how the process ended
ENDS = {
    "good": ("exit 0", "finished", {"exitCode": 0}),
    "three": ("exit 3", "failed", {"exitCode": 3}),
    "many": ("exit 255", "failed", {"exitCode": 255}),
    "segv": ("kill -SEGV $$", "failed", {"signal": 11}),
    "kill": ("kill -KILL $$", "failed", {"signal": 9}),
    "term": ("kill -TERM $$", "failed", {"signal": 15}),
}
node.succeed("mkdir -p /run/gate")

for job, (end, _, _) in ENDS.items():
    wait = "echo begun $MESOS_TASK_ID; while [ ! -e /run/gate/open ]; do sleep 0.02; done"
    definition = {"name": job, "command": f"{wait}; {end}", "schedule": "R/2040-01-01T00:00:00Z/P1D", "retries": 0}
    here = [["hostname", "EQUALS", node.name]]
    ask("POST", "/v1/scheduler/iso8601", {**definition, "constraints": here, "cpus": 0.05, "mem": 16})


def run_all():
    """Starts a run of each job and waits until all wait at the gate; returns the runs."""
    node.succeed("rm -f /run/gate/open")
    for job in ENDS:
        ask("PUT", f"/v1/scheduler/job/{job}")

    def waiting():
        runs = {job: ask("GET", f"/drover/v1/jobs/{job}")["job"]["live"][0] for job in ENDS}
        for job, run in runs.items():
            assert f"begun {run['task']}" in journal(node, f"DROVER_JOB={job}"), run
        return runs

    return eventually("a run of each job waits", waiting)


def require_told(runs):
    for job, (_, result, exit) in ENDS.items():

        def told(job=job):
            last = ask("GET", f"/drover/v1/jobs/{job}")["job"].get("last")
            return last and last["id"] == runs[job]["id"] and last

        last = eventually(f"the end of {runs[job]['id']} is told", told)
        assert last["result"] == result, last
        assert {key: last.get(key) for key in ("exitCode", "signal") if last.get(key) is not None} == exit, last
    eventually("no unit is left", lambda: not task_units(node))


KILL_AGENT = "systemctl kill --signal=KILL droverd-agent.service"
OPEN = "touch /run/gate/open"

for what, commands in {
    "the agent is killed, and at once all exit": f"{KILL_AGENT}; {OPEN}",
    "all exit, and at once the agent is killed": f"{OPEN}; {KILL_AGENT}",
    "they exit while the agent is stopped": f"systemctl stop droverd-agent.service; {OPEN}",
}.items():
    with subtest(what):
        runs = run_all()
        node.succeed(commands)
        if "stop" in commands:
            running_still = "systemctl list-units --plain --no-legend --state=running 'drover-*.service' | grep ."
            node.wait_until_fails(running_still, timeout=SOON)
            node.succeed("systemctl start droverd-agent.service")
        require_told(runs)
        wait_node(node, "up")

with subtest("they exit while no master can be reached, and the agent is killed before it can tell"):
    runs = run_all()
    for master in masters:
        cut(master, node)
    node.succeed(OPEN)
    ended = [f"{run['task']} is TASK_{ENDS[job][1].upper()}" for job, run in runs.items()]
    eventually("the agent knows of each end", lambda: all(end in daemon_journal(node, "agent") for end in ended))
    node.succeed(KILL_AGENT)
    heal()
    require_told(runs)
    wait_node(node, "up")

with subtest("nothing ran twice"):
    begun = [line for job in ENDS for line in job_journal(job)]
    assert len(begun) == len(set(begun)) == 4 * len(ENDS), begun
    for job in ENDS:
        ask("DELETE", f"/v1/scheduler/job/{job}")
