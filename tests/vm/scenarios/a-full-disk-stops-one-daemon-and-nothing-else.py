# nodes: masters=3 agents=3 vm=false timeout=420
"""The disk of a follower, of the leader or of a node is full, or can only be read: the daemon on it ends and says why, the
others go on, no acknowledged write is lost, tasks are untouched, and it heals by itself when there is room again. Promise 4."""

bring_up_cluster()
node = agents[0]
for machine in masters:
    on_small_disk(machine, "master")
    wait_whole()
on_small_disk(node, "agent")
wait_whole()
deploy(sleeper("/rest", 6, unreachableStrategy={"inactiveAfterSeconds": 300, "expungeAfterSeconds": 600}))
before = invocations(wait_running("/rest", 6))
clerk = Clerk(agents[1])


def follower():
    return [master for master in masters if master is not leader()][0]


def wait_told(machine, role, words):
    eventually(f"{machine.name} says {words!r}", lambda: words in daemon_journal(machine, role))


def wait_shown(machine):
    """Waits until an operator who lists the masters sees that this one is silent, or that it falls behind."""
    other = [master for master in masters if master is not machine][0]

    def is_shown():
        known = {master["name"]: master for master in api(other, "GET", "/drover/v1/masters")["masters"]}
        return known[machine.name]["seenAgoMs"] > 5000 or known[machine.name]["lag"] > 20

    eventually(f"{machine.name} is shown to be silent or behind", is_shown)


for choose in (follower, leader):
    with subtest(f"the disk of a {choose.__name__} is full: it ends and says why, and the others decide"):
        full = choose()
        fill_disk(full)
        wait_told(full, "master", "No space left on device")
        wait_shown(full)
        clerk.wait_for_writes()

    with subtest("there is room again, and it is back by itself"):
        free_disk(full)
        wait_whole()
        clerk.wait_for_writes()

with subtest("the disk of a master can only be read: it ends and says why, and is back when it can be written"):
    broken = leader()
    broken.succeed(f"systemctl stop droverd-master && mount -o remount,ro {STATE} && systemctl start --no-block droverd-master")
    wait_told(broken, "master", "Read-only file system")
    clerk.wait_for_writes()
    broken.succeed(f"mount -o remount,rw {STATE}")
    wait_whole()

with subtest("the disk of a node is full: its agent ends when it has something to note, and no task is touched"):
    units = unit_facts(node)
    fill_disk(node)
    change("/rest", {"instances": 12})
    wait_told(node, "agent", "No space left on device")
    unchanged({unit: facts for unit, facts in unit_facts(node).items() if unit in units}, units)

with subtest("there is room again: it is back by itself, and takes the new tasks"):
    free_disk(node)
    wait_node(node, "up")
    after = invocations(wait_running("/rest", 12))
    assert before.items() <= after.items(), (before, after)

with subtest("the disk of a node can only be read: the same"):
    units = unit_facts(node)
    node.succeed(f"systemctl stop droverd-agent && mount -o remount,ro {STATE} && systemctl start --no-block droverd-agent")
    wait_told(node, "agent", "Read-only file system")
    unchanged(unit_facts(node), units)
    node.succeed(f"mount -o remount,rw {STATE}")
    wait_node(node, "up")
    unchanged(invocations(wait_running("/rest", 12)), after)

with subtest("nothing acknowledged was lost"):
    clerk.stop()
    for machine in masters:
        off_small_disk(machine, "master")
        wait_whole()
    off_small_disk(node, "agent")
    wait_whole()
    unchanged(invocations(wait_running("/rest", 12)), after)
