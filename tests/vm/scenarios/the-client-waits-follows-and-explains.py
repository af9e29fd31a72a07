# nodes: masters=3 agents=3 vm=false
"""What `drover` says is what happens: it waits for what it changes, exits as documented, follows journals across the loss of
a leader to the end of a run, and explains what has no place."""

bring_up_cluster()

# On an agent, so that no loss of a master takes the client along.
here = agents[0]
ADDRESSES = ",".join(f"{master.name}:7070" for master in masters)


def drover(words, code=0):
    """Runs the client; returns what it put on standard output, and what on standard error."""
    status, out = here.execute(f"drover --addr {ADDRESSES} {words} 2> /tmp/said")
    said = here.succeed("cat /tmp/said")
    assert status == code, f"drover {words}: exit {status}, not {code}\n{out}\n{said}"
    return out, said


def in_background(words, name):
    """Starts the client; its output, talk, process id and exit code go to files /tmp/NAME.{out,said,pid,code}."""
    here.succeed(f"rm -f /tmp/{name}.*")
    client = f"drover --addr {ADDRESSES} {words} > /tmp/{name}.out 2> /tmp/{name}.said"
    command = f"{client} & echo $! > /tmp/{name}.pid; wait $!; echo $? > /tmp/{name}.code"
    here.succeed(f"setsid sh -c {shlex.quote(command)} < /dev/null > /dev/null 2>&1 &")


def file_of(name):
    return here.execute(f"cat /tmp/{name} 2> /dev/null")[1]


with subtest("apply waits until all of it is up, and says each instance"):
    write_file(
        here,
        "/tmp/shop/web.toml",
        'id = "/shop/web"\ncmd = "while sleep 0.2; do echo tick; done"\ninstances = 3\ncpus = 0.01\nmem = 8\n',
    )
    write_file(
        here,
        "/tmp/shop/jobs.json",
        json.dumps([
            {"name": "report", "parents": ["etl"], "command": "true"},
            {
                "name": "etl",
                "schedule": "R/2040-01-01T00:00:00Z/P1D",
                "command": "for n in 1 2 3 4 5 6 7 8 9 10 11 12; do echo line $n; sleep 1; done; exit 3",
                "retries": 0,
            },
        ]),
    )
    out, said = drover("apply -f /tmp/shop -o json")
    done = json.loads(out)
    assert (done["outcome"], done["apps"]) == ("settled", [{"id": "/shop/web", "instances": 3}]), done
    assert "created /shop/web, 3 instances" in said and "[3/3] shop_web." in said and "created job report" in said, said
    assert len(running("/shop/web")) == 3
    assert "unchanged /shop/web" in drover("apply -f /tmp/shop")[1]

with subtest("names may be short, and ambiguous ones are not guessed"):
    assert len(json.loads(drover("tasks list --app web -o json")[0])["tasks"]) == 3
    _, said = drover("tasks stop shop_web", code=4)
    assert said.count("because: task shop_web.") == 3, said
    drover("status web")
    drover("apps show /shop/wbe", code=4)

with subtest("what fits nowhere is told within the time given, for each node"):
    here.succeed("sed 's/mem = 8/mem = 99000/' /tmp/shop/web.toml > /tmp/big.toml")
    _, said = drover("apps deploy -f /tmp/big.toml --timeout 3s", code=5)
    assert all(agent.name in said for agent in agents) and "mem: 99000 MiB needed" in said, said
    assert "mem: 99000 MiB needed" in drover("why web", code=3)[0]
    _, said = drover("apps scale web=1 --timeout 3s", code=1)
    assert "--force" in said, said
    drover("apps rollback web --force")
    assert len(running("/shop/web")) == 3

with subtest("a program that keeps failing is given up, with what it said last"):
    here.succeed("sed 's/while.*done/echo no such cache; exit 7/' /tmp/shop/web.toml > /tmp/broken.toml")
    _, said = drover("apps deploy -f /tmp/broken.toml --timeout 60s", code=6)
    assert "no such cache" in said and "exited with status 7" in said, said
    drover("apps rollback web --force")
    assert len(running("/shop/web")) == 3

with subtest("a run and its journal are followed across the loss of the leader, to its exit code"):
    run = drover("jobs run etl -o name")[0].strip()
    in_background(f"logs -f {run} --raw", "run")
    in_background("logs -f /shop/web -o jsonl", "app")
    eventually("its first lines are there", lambda: "line 2" in file_of("run.out") and "tick" in file_of("app.out"))
    old = kill_leader()
    wait_for_leader(other_than=old)
    eventually("the run is over", lambda: file_of("run.code").strip())
    assert file_of("run.code").strip() == "3", file_of("run.said")
    assert file_of("run.out").splitlines() == [f"line {n}" for n in range(1, 13)], file_of("run.out")
    assert "ended: exit 3" in file_of("run.said"), file_of("run.said")
    seen = len(file_of("app.out").splitlines())
    eventually("the app's journal goes on", lambda: len(file_of("app.out").splitlines()) > seen + 5)
    lines = file_of("app.out").splitlines()
    assert len(set(lines)) == len(lines), "no line is shown twice"
    here.succeed("kill -INT $(cat /tmp/app.pid)")
    eventually("^C ends it", lambda: file_of("app.code").strip() == "130")

with subtest("the next run is waited for, with its exit code"):
    out, said = drover("jobs run etl --wait -o json", code=3)
    assert json.loads(out)["run"]["exitCode"] == 3, out
    assert "running on" in said, said

with subtest("with one master of three left nothing is decided, and the client says so"):
    other = kill_leader()
    _, said = drover("nodes list", code=69)
    assert said.startswith("error: ") and "\ntry: " in said, said
    drover("masters list --stale")
    power_on(old)
    power_on(other)
    wait_whole()

with subtest("what is deleted is gone, and asks first"):
    drover("apps delete /shop/web", code=2)
    drover("apps delete /shop/web --yes")
    assert not tasks_of("/shop/web")
    drover("jobs delete etl --yes", code=2)
    drover("jobs delete report --yes")
    drover("jobs delete etl --yes")
    assert drover("jobs list -o name")[0] == ""
