# nodes: masters=3 agents=3 vm=false timeout=420 systemd=252
"""What a power cut can leave at the end of a log or a ledger is repaired. What it cannot leave, a flipped byte in the middle
of a log, a snapshot or a ledger, is refused with words that say what to do; and what they say works. Promise 4."""

bring_up_cluster()
RAFT = f"{STATE}/master/raft"
LEDGER = f"{STATE}/agent/ledger"
node = agents[0]
patience = {"inactiveAfterSeconds": 300, "expungeAfterSeconds": 600}
deploy(sleeper("/rest", 6, constraints=[["hostname", "MAX_PER", "2"]], unreachableStrategy=patience))
before = wait_running("/rest", 6)
clerk = Clerk(agents[1])
clerk.wait_for_writes()


def flip(machine, path, at):
    """Changes one byte of a file, `at` being where in it, from 0 to 1."""
    program = (
        f"import os; path = {path!r}; at = int(os.path.getsize(path) * {at}); file = open(path, 'r+b'); file.seek(at); "
        "byte = file.read(1)[0]; file.seek(at); file.write(bytes([byte ^ 0x20])); file.flush(); os.fsync(file.fileno())"
    )
    machine.succeed(f"python3 -c {shlex.quote(program)}")


def newest_segment(machine):
    return machine.succeed(f"ls {RAFT}/wal-* | tail -n 1").strip()


def damage(machine, role, *harm):
    """Does harm to the files of a daemon that is not running, and starts it again."""
    machine.succeed(f"systemctl stop droverd-{role}")
    for action in harm:
        action()
    machine.execute(f"systemctl start --no-block droverd-{role}")


def wait_told(machine, role, *words):
    """Waits until the daemon has said all of this."""
    eventually(f"{machine.name} says {words}", lambda: all(word in daemon_journal(machine, role) for word in words))


def join_anew(machine):
    """What a master that refuses its log asks for, word by word."""
    other = [master for master in masters if master is not machine][0]
    machine.succeed("systemctl stop droverd-master")
    other.succeed(f"drover masters remove {machine.name} --yes")
    machine.succeed(f"rm -r {RAFT} {STATE}/master/pki")
    join(machine, "master")
    wait_whole()


with subtest("a log whose last write was cut short is repaired, and its master takes part again"):
    torn = leader()
    damage(torn, "master", lambda: torn.succeed(f"printf '\\377dw\\376E\\0\\0\\0\\377\\3\\0\\0half a frame' >> {newest_segment(torn)}"))
    wait_told(torn, "master", "cutting off a write that was not complete")
    wait_whole()
    clerk.wait_for_writes()

with subtest("a log with a flipped byte in the middle is refused, and its master joins anew as it is told to"):
    broken = leader()
    damage(broken, "master", lambda: flip(broken, newest_segment(broken), 0.5))
    wait_told(broken, "master", "is corrupt at byte", "drover masters remove", "let it join again")
    clerk.wait_for_writes()
    join_anew(broken)
    clerk.wait_for_writes()

with subtest("a snapshot with a flipped byte is refused, and its master joins anew"):
    broken = masters[2]
    eventually("it has a snapshot", lambda: broken.execute(f"test -e {RAFT}/snapshot")[0] == 0)
    damage(broken, "master", lambda: flip(broken, f"{RAFT}/snapshot", 0.5))
    wait_told(broken, "master", "snapshot is corrupt at byte", "the checksum is wrong", "drover masters remove")
    clerk.wait_for_writes()
    join_anew(broken)
    clerk.wait_for_writes()

with subtest("an agent's ledger whose last write was cut short is repaired, and no task is touched"):
    units = unit_facts(node)
    damage(node, "agent", lambda: node.succeed(f"printf '{{\"record\":\"stat' >> {LEDGER}"))
    wait_told(node, "agent", "the ledger's end was torn")
    wait_node(node, "up")
    unchanged(unit_facts(node), units)
    unchanged(invocations(wait_running("/rest", 6)), invocations(before))

with subtest("a ledger with a damaged line in the middle is refused, and nothing is started on account of it"):
    damage(node, "agent", lambda: node.succeed(f"sed -i '2s/{{/\\[/' {LEDGER}"))
    wait_told(node, "agent", "is damaged in the middle of the ledger", "move the file away")
    unchanged(unit_facts(node), units)

with subtest("what it says works: what runs is taken over, what ended meanwhile is lost, and runs anew under another name"):
    kept, ended = [task for task in before if task["node"] == node.name]
    node.succeed("systemctl stop droverd-agent", f"systemctl stop '{ended['unit']}'")
    node.succeed(f"mv {LEDGER} {LEDGER}.damaged", "systemctl start droverd-agent")
    eventually("the end is told", lambda: ended["id"] not in ids(tasks_of("/rest")))
    after = invocations(wait_running("/rest", 6))
    stayed = {task["id"]: task["invocationId"] for task in before if task is not ended}
    assert stayed.items() <= after.items(), (stayed, after)
    assert unit_facts(node)[kept["unit"]] == units[kept["unit"]], (unit_facts(node), units)

with subtest("the agent governs what it has taken over: its end is told"):
    node.succeed(f"systemctl kill --signal=KILL '{kept['unit']}'")
    eventually("the end is told", lambda: kept["id"] not in ids(tasks_of("/rest")))
    failure = ask("GET", "/v2/apps//rest")["app"]["lastTaskFailure"]
    assert failure["taskId"] == kept["id"] and "SIGKILL" in failure["message"], failure
    wait_running("/rest", 6)

with subtest("nothing acknowledged was lost"):
    clerk.stop()
