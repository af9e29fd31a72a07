# nodes: masters=3 agents=3 vm=false
"""A node loses its power: after the app's own delay its instances run elsewhere. When it returns nothing of them runs
twice. The same for a node that was only cut off, whose tasks went on running meanwhile. Promise 3."""

bring_up_cluster()
DELAY = 3


def instances_on(agent):
    return [unit for unit in task_units(agent) if agent.execute(f"systemctl is-active --quiet '{unit}'")[0] == 0]


def wait_elsewhere(lost, count):
    """Waits until so many run, none of them on the lost node; what is still held to be there does not run in the API's eyes."""

    def settled():
        up = running("/web")
        assert len(up) == count, up
        return all(task["node"] != lost.name for task in up) and [up]

    return eventually(f"{count} instances run elsewhere than on {lost.name}", settled)[0]


def total_units():
    return sum(len(instances_on(agent)) for agent in agents if agent.name not in powered_off)


with subtest("six instances run, some on every node"):
    deploy(web_app(instances=6, unreachableStrategy={"inactiveAfterSeconds": DELAY, "expungeAfterSeconds": 2 * DELAY}))
    tasks = wait_running("/web", 6)
    lost = agents[1]
    there = [task for task in tasks if task["node"] == lost.name]
    assert there, tasks

with subtest("the node's power is cut: its instances run elsewhere, the others are left alone"):
    cut_power(lost)
    wait_node(lost, "unreachable")
    moved = wait_elsewhere(lost, 6)
    stayed = {task["id"]: task["invocationId"] for task in tasks if task["node"] != lost.name}
    assert stayed.items() <= invocations(moved).items(), (stayed, moved)
    assert total_units() == 6

with subtest("the node returns, with nothing of the app on it, and takes work again"):
    power_on(lost)
    wait_node(lost, "up")
    unchanged(invocations(wait_running("/web", 6)), invocations(moved))
    assert total_units() == 6
    change("/web", {"instances": 9})
    nine = wait_running("/web", 9)
    assert [task for task in nine if task["node"] == lost.name], nine

with subtest("the node is cut off, and its tasks go on; instances run elsewhere after the delay"):
    lost.block()
    wait_node(lost, "unreachable")
    elsewhere = wait_elsewhere(lost, 9)
    assert total_units() > 9, "the tasks of the node that is cut off should still run"

with subtest("the node is back: what runs twice is ended within one reconcile, and the survivors are left alone"):
    lost.unblock()
    wait_node(lost, "up")
    eventually("nothing runs twice", lambda: total_units() == 9, timeout=20)
    settled = wait_running("/web", 9)
    on_others = {task["id"]: task["invocationId"] for task in elsewhere if task["node"] != lost.name}
    survivors = set(on_others) & set(invocations(settled))
    for agent in agents:
        units = sorted(task["unit"] for task in settled if task["node"] == agent.name)
        assert instances_on(agent) == units, (agent.name, instances_on(agent), units)
    assert all(on_others[task] == invocations(settled)[task] for task in survivors)
