# What scenarios say to a cluster. This text stands before every scenario, in the lab and in a NixOS VM test alike, so it
# uses the words of the NixOS test driver and Python's standard library alone. The runner puts before it: `masters` and
# `agents`, the lists of machines that the scenario's header asks for, and `MASTER_SETTINGS` and `AGENT_SETTINGS`, the texts
# of node/master.toml and node/agent.toml.

import json
import shlex
import time

API = "http://127.0.0.1:7070"

# How long a cluster may take over what it promises to do at once; machines of a test share few CPUs.
SOON = 60


def eventually(what, check, timeout=SOON):
    """Looks again and again until check() answers something true, and returns that. An assertion that fails in
    check(), or a request that is not answered, means not yet."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            answer = check()
            if answer:
                return answer
            last = repr(answer)
        except (AssertionError, OSError, ValueError, LookupError) as problem:
            last = str(problem)
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what}; the last look said: {last}")
        time.sleep(0.25)


def unchanged(after, before):
    """Requires that two maps say the same; tells what differs if they do not."""
    gone = {key: before[key] for key in before if key not in after}
    new = {key: after[key] for key in after if key not in before}
    other = {key: (before[key], after[key]) for key in before if key in after and before[key] != after[key]}
    assert not (gone or new or other), f"gone: {gone}; new: {new}; changed: {other}"


# Requests.


def request(machine, method, path, body=None, data_command=None):
    """One HTTP request made on the machine to its own API. Returns the status and the body, decoded if it is JSON.
    Status 0: nobody answered. `body` is sent as JSON, or as it is when it is a string already; `data_command` is
    a shell command whose output is sent."""
    send = ""
    if data_command is not None:
        send = "--data-binary @-"
    elif body is not None:
        text = body if isinstance(body, str) else json.dumps(body)
        data_command = f"printf %s {shlex.quote(text)}"
        send = "--data-binary @-"
    curl = (
        f"curl --silent --show-error --max-time 20 --request {method} --header 'Content-Type: application/json' "
        f"--header 'Accept: application/json' --write-out '\\n%{{http_code}}' {send} {shlex.quote(API + path)}"
    )
    _, out = machine.execute(f"{data_command} | {curl} 2>&1" if data_command else f"{curl} 2>&1")
    text, _, status = out.rpartition("\n")
    try:
        answer = json.loads(text) if text.strip() else None
    except ValueError:
        answer = text
    return int(status) if status.strip().isdigit() else 0, answer


def api(machine, method, path, body=None):
    """A request that must succeed: its answer."""
    status, answer = request(machine, method, path, body)
    assert 200 <= status < 300, f"{method} {path} on {machine.name}: {status} {answer}"
    return answer


def ask(method, path, body=None, timeout=SOON):
    """A request to whichever master answers, tried again while the cluster has no leader."""

    def attempt():
        seen = []
        for master in masters:
            if master.name in powered_off:
                continue
            status, answer = request(master, method, path, body)
            if status not in (0, 502, 503):
                return [(status, answer)]
            seen.append(f"{master.name}: {status} {answer}")
        raise AssertionError("; ".join(seen) or "every master is off")

    status, answer = eventually(f"{method} {path} is answered", attempt, timeout)[0]
    assert 200 <= status < 300, f"{method} {path}: {status} {answer}"
    return answer


# The cluster.

powered_off = set()

# When the scenario began, by each machine's own clock: what stands in a journal from before is another scenario's.
began = {}


def cut_power(machine):
    machine.crash()
    powered_off.add(machine.name)


def power_on(machine):
    machine.start()
    powered_off.discard(machine.name)


def write_file(machine, path, text):
    machine.succeed(f"mkdir -p $(dirname {path}) && printf %s {shlex.quote(text)} > {path}")


def config_of(machine):
    text = f'name = "{machine.name}"\n'
    if machine in masters:
        text += "[master]\n" + MASTER_SETTINGS
    if machine in agents:
        seeds = ", ".join(f'"{master.name}:7071"' for master in masters)
        text += f'[agent]\nmasters = [{seeds}]\nattributes = {{ rack = "{"ab"[agents.index(machine) % 2]}" }}\n'
        text += AGENT_SETTINGS.replace("[", "[agent.", 1)
    return text


def configure(machine):
    """Writes drover.toml, unless the machine's own configuration brought one (a NixOS test's does)."""
    if machine.execute("test -e /etc/drover/drover.toml")[0] != 0:
        write_file(machine, "/etc/drover/drover.toml", config_of(machine))


def join(machine, role):
    """Gives the machine an identity from the running cluster and starts the role."""
    other = [master for master in masters if master is not machine or len(masters) == 1][0]
    token = other.succeed(f"drover token create --role {role}").split()[-1]
    advertise = f"--advertise {machine.name}:7071" if role == "master" else ""
    machine.succeed(
        f"drover node join --token {token} --master {other.name}:7071 --role {role} --name {machine.name} {advertise}"
    )
    machine.succeed(f"systemctl start droverd-{role}")


def bring_up_cluster():
    """A cluster of the masters and agents of the header, with nothing on it. A cluster that an earlier scenario left
    is taken over and emptied."""
    start_all()
    powered_off.clear()
    note_beginning()
    if masters[0].execute("test -e /var/lib/droverd/master/pki/identity.json")[0] == 0:
        empty_cluster()
        return
    for machine in masters + agents:
        configure(machine)
    first = masters[0]
    first.succeed(f"drover cluster init --name {first.name} --advertise {first.name}:7071")
    first.succeed("systemctl start droverd-master")
    eventually("the first master leads", lambda: api(first, "GET", "/drover/v1/status")["leader"])
    for master in masters[1:]:
        join(master, "master")
    for agent in agents:
        join(agent, "agent")
    wait_whole()


def bring_up_machine():
    """One machine that is master and agent, with nothing on it."""
    start_all()
    note_beginning()
    only = masters[0]
    if only.execute("systemctl is-active --quiet droverd-standalone.service")[0] != 0:
        only.succeed("systemd-run --unit=droverd-standalone --property=Restart=always droverd standalone")
        only.wait_for_open_port(7070, timeout=SOON)
    empty_cluster()


def note_beginning():
    for machine in masters + agents:
        began[machine.name] = machine.succeed("date +%s.%N").strip()


def wait_whole(timeout=SOON):
    """Waits until every machine of the header takes part."""

    def whole():
        seen = ask("GET", "/drover/v1/status")
        roles = sorted(master["role"] for master in seen["masters"])
        assert roles == ["follower"] * (len(masters) - 1) + ["leader"], seen["masters"]
        assert seen["agents"] == {"up": len(agents), "unreachable": 0}, seen["agents"]
        return True

    eventually("all masters vote and all agents are up", whole, timeout)


def empty_cluster():
    """Takes away every app and every job and waits until no task is left, in the API and on the nodes."""
    wait_whole()
    for job in ask("GET", "/drover/v1/jobs")["jobs"]:
        ask("DELETE", f"/v1/scheduler/job/{job['name']}")
    for app in ask("GET", "/v2/apps")["apps"]:
        ask("DELETE", f"/v2/apps{app['id']}?force=true")
    eventually("no task is left", lambda: not ask("GET", "/drover/v1/tasks")["tasks"])
    for agent in agents:
        eventually(f"no unit is left on {agent.name}", lambda agent=agent: not task_units(agent))


def status():
    return ask("GET", "/drover/v1/status")


def wait_for_leader(other_than=None, timeout=SOON):
    """Waits until the masters that are on agree on a leader (another one, if asked) and returns its machine."""

    def agreed():
        names = set()
        for master in masters:
            if master.name not in powered_off:
                seen = api(master, "GET", "/drover/v1/status")["leader"]
                assert seen, f"{master.name} knows no leader"
                names.add(seen["name"])
        assert len(names) == 1, f"the masters see different leaders: {names}"
        assert other_than is None or names != {other_than.name}, f"{names} still leads"
        return [master for master in masters if master.name in names]

    return eventually("the masters agree on a leader", agreed, timeout)[0]


def leader():
    return wait_for_leader()


def leader_by(machine):
    """The name of whom this master itself holds for the leader; `None` if it knows none."""
    seen = api(machine, "GET", "/drover/v1/status?stale")["leader"]
    return seen and seen["name"]


def wait_led_by_other(old):
    """Waits until the masters but `old` agree on a leader that is one of them, and returns its machine."""
    others = [master for master in masters if master is not old]

    def agreed():
        names = {leader_by(master) for master in others}
        assert len(names) == 1 and names <= {master.name for master in others}, names
        return [master for master in others if master.name in names]

    return eventually(f"the others follow another than {old.name}", agreed)[0]


def kill_leader():
    """Cuts the leader's power and returns its machine."""
    machine = leader()
    cut_power(machine)
    return machine


def node_state(machine):
    return {node["name"]: node["state"] for node in ask("GET", "/drover/v1/nodes")["nodes"]}[machine.name]


def wait_node(machine, state, timeout=SOON):
    eventually(f"{machine.name} is {state}", lambda: node_state(machine) == state, timeout)


# Apps and tasks.

WEB = "exec python3 -m http.server $PORT0"


def web_app(app="/web", instances=3, **more):
    """A small app that answers HTTP on its first port."""
    return {"id": app, "cmd": WEB, "instances": instances, "cpus": 0.1, "mem": 32, **more}


def sleeper(app, instances, **more):
    """An app that does nothing, cheaply."""
    definition = {"id": app, "cmd": "exec sleep infinity", "instances": instances, "cpus": 0.01, "mem": 8}
    return {**definition, "portDefinitions": [], **more}


def deploy(definition):
    return ask("POST", "/v2/apps", definition)


def change(app, body):
    return ask("PUT", f"/v2/apps{app}", body)


def tasks_of(app):
    return ask("GET", f"/drover/v1/tasks?app={app}")["tasks"]


def running(app):
    return [task for task in tasks_of(app) if task["state"] == "running"]


def wait_running(app, count, timeout=SOON):
    """Waits until exactly so many instances run, nothing else of the app is there, and no deployment is under way."""

    def settled():
        tasks = tasks_of(app)
        states = [task["state"] for task in tasks]
        assert states == ["running"] * count, f"{app}: {states}"
        assert not ask("GET", f"/v2/apps{app}")["app"]["deployments"], f"{app} is being deployed"
        return [tasks]

    return eventually(f"{count} instances of {app} run", settled, timeout)[0]


def ids(tasks):
    return sorted(task["id"] for task in tasks)


def machine_of(task):
    return [agent for agent in agents if agent.name == task["node"]][0]


def invocations(tasks):
    """Which starts of which units these tasks are; the same before and after means that nothing restarted."""
    return {task["id"]: task["invocationId"] for task in tasks}


def fetch(task, machine=None):
    """What the first port of a task answers, asked from a machine of the cluster."""
    client = machine or masters[0]
    url = f"http://{task['node']}:{task['ports'][0]}/"
    # A task runs as soon as its process does; the program in it takes another moment to listen.
    return client.wait_until_succeeds(f"curl --silent --show-error --fail --max-time 10 {url}", timeout=20)


# Units.


def task_units(machine):
    """The services of drover's tasks that systemd has on the machine, whatever their state."""
    listing = machine.succeed("systemctl list-units --all --plain --no-legend --full 'drover-*.service'")
    return sorted(line.split()[0] for line in listing.splitlines() if line.strip())


def unit_facts(machine):
    """Unit -> its invocation id and main process id, as systemd tells them."""
    listing = machine.succeed("systemctl show --property=Id,InvocationID,MainPID 'drover-*.service'")
    facts = {}
    for block in listing.strip().split("\n\n"):
        pairs = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if pairs.get("Id"):
            facts[pairs["Id"]] = (pairs["InvocationID"], pairs["MainPID"])
    return facts


def journal(machine, *matches):
    """What tasks with these journal fields wrote on the machine since the scenario began, line by line."""
    # PID 1's own lines about a unit carry the unit's fields too; what the task wrote came by its output.
    options = f"--quiet --no-pager --output=cat --since=@{began.get(machine.name, '0')}"
    lines = machine.succeed(f"journalctl {options} _TRANSPORT=stdout {' '.join(shlex.quote(match) for match in matches)}")
    return [line for line in lines.splitlines() if line]


def app_journal(app):
    """Every line that instances of the app wrote, on all agents."""
    return [line for agent in agents for line in journal(agent, f"DROVER_APP={app}")]


def job_journal(job):
    """Every line that runs of the job wrote, on all agents."""
    return [line for agent in agents for line in journal(agent, f"DROVER_JOB={job}")]


def daemon_journal(machine, role):
    """What droverd said on the machine since the scenario began, as one text."""
    since = began.get(machine.name, "0")
    return machine.succeed(f"journalctl --quiet --no-pager --output=cat --since=@{since} --unit=droverd-{role}.service")


# A job that is due every second.


def start_ticking(job="tick"):
    """Makes a job that says its slot every second, late slots one by one; returns its first slot, in seconds."""
    start = int(agents[0].succeed("date +%s")) + 3
    begin = agents[0].succeed(f"date --utc --date=@{start} +%Y-%m-%dT%H:%M:%SZ").strip()
    definition = {"name": job, "command": "echo slot $MESOS_TASK_ID", "cpus": 0.05, "mem": 16, "concurrent": True}
    ask("POST", "/v1/scheduler/iso8601", {**definition, "schedule": f"R/{begin}/PT1S", "epsilon": "PT5M"})
    return start


def slots_fired(job="tick"):
    """The slots for which a process really ran, in seconds, with repetitions. A run's task carries its slot in its id."""
    slots = []
    for line in job_journal(job):
        if line.startswith("slot ct:"):
            milliseconds = int(line.split(":")[1])
            assert milliseconds % 1000 == 0, line
            slots.append(milliseconds // 1000)
    return sorted(slots)


def wait_ticking(job="tick", seconds=5):
    """Waits until slots fire that lie so many seconds after this moment."""
    now = int(agents[0].succeed("date +%s"))
    eventually(f"{job} fires", lambda: slots_fired(job)[-1] >= now + seconds)


def stop_ticking(start, job="tick"):
    """Ends the job and requires that every slot from the first on fired, and none twice."""
    ask("DELETE", f"/v1/scheduler/job/{job}")
    eventually("its runs are over", lambda: not ask("GET", f"/drover/v1/tasks?job={job}")["tasks"])
    slots = slots_fired(job)
    twice = sorted({slot for slot in slots if slots.count(slot) > 1})
    assert not twice, f"fired more than once: {twice}"
    forgotten = sorted(set(range(start, slots[-1] + 1)) - set(slots))
    assert not forgotten, f"never fired: {forgotten} of {start}..{slots[-1]}"
    log.log(f"{len(slots)} slots, each once")


# Load, and whether the cluster keeps its word under it.

CLERK = '''\
"""Makes one app after the other through each of the masters, reads each back through another one, and keeps a book of it."""

import http.client
import itertools
import json
import os
import signal
import sys
import threading

name, masters = sys.argv[1], sys.argv[2:]
ending = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: ending.set())
book = open(f"/var/tmp/{name}.book", "a")
turn = threading.Lock()


def ask(master, method, path, body=None):
    """The status that was answered; 0 if none was."""
    connection = http.client.HTTPConnection(master, 7070, timeout=15)
    try:
        connection.request(method, path, body and json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        return answer.status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def note(**entry):
    with turn:
        book.write(json.dumps(entry) + "\\n")
        book.flush()
        os.fsync(book.fileno())


def write(master, other):
    for number in itertools.count():
        app = f"/{name}/{master}-{number}"
        status = ask(master, "POST", "/v2/apps", {"id": app, "cmd": "true", "instances": 0})
        note(app=app, status=status)
        if 200 <= status < 300:
            note(app=app, seen=ask(other, "GET", f"/v2/apps/{app}"), through=other)
        if ending.wait(0.2):
            return


writers = [threading.Thread(target=write, args=pair) for pair in zip(masters, masters[1:] + masters[:1])]
for writer in writers:
    writer.start()
for writer in writers:
    writer.join()
'''


class Clerk:
    """A client on a machine that writes through every master without pause and remembers what was acknowledged."""

    def __init__(self, machine, name="written"):
        self.machine, self.name = machine, name
        machine.succeed(f": > /var/tmp/{name}.book")
        write_file(machine, f"/var/tmp/{name}.py", CLERK)
        self._start()

    def _start(self):
        through = " ".join(master.name for master in masters)
        self.machine.succeed(f"systemd-run --unit=clerk-{self.name} python3 /var/tmp/{self.name}.py {self.name} {through}")

    def _book(self):
        text = self.machine.succeed(f"cat /var/tmp/{self.name}.book")
        # The machine may have lost its power in the middle of a line.
        return [json.loads(line) for line in text.splitlines() if line.endswith("}")]

    def acknowledged(self):
        return {entry["app"] for entry in self._book() if 200 <= entry.get("status", 0) < 300}

    def wait_for_writes(self, count=30, timeout=SOON):
        """Waits until so many more writes are acknowledged."""
        before = len(self.acknowledged())
        eventually(f"{count} more writes are acknowledged", lambda: len(self.acknowledged()) >= before + count, timeout)

    def stop(self):
        """Ends the writing and requires that every acknowledged write is there, was there whenever it was read, and that no
        refused one is."""
        self.machine.execute(f"systemctl stop clerk-{self.name}.service")
        book = self._book()
        there = {app["id"] for app in ask("GET", "/v2/apps")["apps"]}
        lost = sorted(self.acknowledged() - there)
        assert not lost, f"acknowledged and lost: {lost}"
        refused = {entry["app"] for entry in book if 400 <= entry.get("status", 0) < 500}
        assert not refused & there, f"refused and there all the same: {sorted(refused & there)}"
        stale = [(entry["app"], entry["through"]) for entry in book if entry.get("seen") == 404]
        assert not stale, f"acknowledged, and not seen through another master afterwards: {stale}"
        in_doubt = sum(1 for entry in book if "status" in entry and not 200 <= entry["status"] < 500)
        log.log(f"{len(self.acknowledged())} writes acknowledged, none lost; {in_doubt} not answered or put off")
        self._clear(sorted(app for app in there if app.startswith(f"/{self.name}/")))

    def _clear(self, apps):
        for start in range(0, len(apps), 500):
            names = ",".join(apps[start : start + 500])
            urls = shlex.quote(f"{API}/v2/apps{{{names},}}?force=true")
            leader().succeed(f"curl --silent --output /dev/null --request DELETE {urls}")


# Two versions of drover.

NEWER = "/usr/lib/drover-next/droverd"


def run_version(machine, role, newer):
    """Replaces the droverd of a machine by the one of a version from now, or puts today's back, and restarts it."""
    override = f"/etc/systemd/system/droverd-{role}.service.d/newer.conf"
    if newer:
        start = f"ExecStart={NEWER} {role} --config /etc/drover/drover.toml"
        write_file(machine, override, f"[Service]\nExecStart=\n{start}\n")
    else:
        machine.succeed(f"rm -f {override}")
    machine.succeed("systemctl daemon-reload")
    # Whether it starts is for the scenario to see: a master may rightly refuse to.
    machine.execute(f"systemctl restart droverd-{role}")


# Cables that carry one way only.


def cut(source, target):
    """What source says does not reach target any more; the other way round it still does."""
    address = target.succeed(f"getent ahostsv4 {source.name}").split()[0]
    target.succeed(
        "nft add table inet cuts",
        "nft add chain inet cuts heard '{ type filter hook input priority -300; }'",
        f"nft add rule inet cuts heard ip saddr {address} drop",
    )


def heal():
    """Every cut is mended."""
    for machine in {machine.name: machine for machine in masters + agents}.values():
        if machine.name not in powered_off:
            machine.execute("nft delete table inet cuts")


# Small disks.

STATE = "/var/lib/droverd"


def on_small_disk(machine, role, megabytes=48):
    """Puts the daemons' directory on a file system of its own, with little room."""
    machine.succeed(
        f"systemctl stop droverd-{role}",
        f"cp -a {STATE} /var/tmp/state && mount -t tmpfs -o size={megabytes}m,mode=755 tmpfs {STATE}",
        f"cp -a /var/tmp/state/. {STATE}/ && rm -r /var/tmp/state",
        f"systemctl start droverd-{role}",
    )


def off_small_disk(machine, role):
    """Puts it back on the machine's own."""
    machine.succeed(
        f"systemctl stop droverd-{role}",
        f"cp -a {STATE} /var/tmp/state && umount {STATE}",
        f"cp -a /var/tmp/state/. {STATE}/ && rm -r /var/tmp/state",
        f"systemctl start droverd-{role}",
    )


def fill_disk(machine):
    machine.execute(f"cat /dev/zero > {STATE}/filler")
    machine.fail(f"echo more >> {STATE}/filler")


def free_disk(machine):
    machine.succeed(f"rm {STATE}/filler")
