# nodes: masters=1 agents=0 vm=false
"""One machine and no configuration: `droverd standalone` is master and agent, runs an app and a job, and a kill of
it touches no task."""

start_all()


def start_standalone():
    n1.succeed("systemd-run --unit=droverd-standalone --property=Restart=always --property=RestartSec=1s droverd standalone")
    n1.wait_for_open_port(7070, timeout=SOON)


with subtest("it starts without any configuration"):
    n1.fail("test -e /etc/drover/drover.toml")
    start_standalone()
    eventually("its agent is up", lambda: status()["agents"] == {"up": 1, "unreachable": 0})

with subtest("it serves this machine alone"):
    n1.fail("curl --silent --max-time 5 http://$(getent ahostsv4 n1 | awk '{print $1; exit}'):7070/ping")

with subtest("an app runs"):
    deploy(web_app(instances=2))
    tasks = wait_running("/web", 2)
    for task in tasks:
        # A task runs as soon as its process does; the program in it takes another moment to listen.
        n1.wait_until_succeeds(f"curl --silent --fail --max-time 10 http://127.0.0.1:{task['ports'][0]}/", timeout=20)

with subtest("a job runs"):
    ask("POST", "/v1/scheduler/iso8601", {"name": "hello", "command": "echo hello", "schedule": "R3//PT1S", "cpus": 0.1, "mem": 16})
    eventually("it ran three times", lambda: job_journal("hello") == ["hello"] * 3)

with subtest("the client shows it all"):
    screen = n1.succeed("drover status")
    assert "/web" in n1.succeed("drover apps list") and "hello" in n1.succeed("drover jobs list"), screen

with subtest("killed by force it returns, and no task restarted"):
    before = unit_facts(n1)
    old = n1.get_unit_property("droverd-standalone.service", "MainPID")
    n1.succeed("systemctl kill --signal=KILL droverd-standalone.service")
    eventually("it is back", lambda: n1.get_unit_property("droverd-standalone.service", "MainPID") not in ("0", old))
    unchanged(invocations(wait_running("/web", 2)), invocations(tasks))
    unchanged(unit_facts(n1), before)
