# nodes: masters=3 agents=3 vm=false
"""Whenever the agent, the bus or an operator strikes, also in the middle of starts: no task is executed twice, none is left over.

Every task says once in the journal that it was executed. The disturbances follow each other faster than an agent settles.
"""

import random

bring_up_cluster()
node = agents[0]
chance = random.Random(20261122)


def unit_of_a_task():
    units = task_units(node)
    return chance.choice(units) if units else "drover-none.service"


by_hand = set()


def restart_by_hand():
    unit = unit_of_a_task()
    by_hand.add(unit)
    node.execute(f"systemctl restart --no-block '{unit}'")


disturbances = {
    "the agent is killed": lambda: node.execute("systemctl kill --signal=KILL droverd-agent.service"),
    "the agent is restarted": lambda: node.execute("systemctl restart --no-block droverd-agent.service"),
    "the bus is killed": lambda: node.execute("systemctl kill --signal=KILL dbus.service"),
    "PID 1 reads its units anew": lambda: node.execute("systemctl daemon-reload"),
    "PID 1 executes itself anew": lambda: node.execute("systemctl daemon-reexec"),
    "an operator stops a task": lambda: node.execute(f"systemctl stop --no-block '{unit_of_a_task()}'"),
    "an operator restarts a task": restart_by_hand,
    "a task dies": lambda: node.execute(f"systemctl kill --signal=SEGV '{unit_of_a_task()}'"),
    "the app is scaled": lambda: ask("PUT", "/v2/apps//often?force=true", {"instances": chance.randint(5, 40)}),
}

with subtest("thirty tasks run, through sixty disturbances"):
    say_so = "echo executed $MESOS_TASK_ID; exec sleep infinity"
    here = [["hostname", "LIKE", node.name]]
    deploy(sleeper("/often", 30, cmd=say_so, constraints=here, backoffSeconds=1, maxLaunchDelaySeconds=1))
    wait_running("/often", 30, timeout=60)
    # The agent more often than anything else: it is whose memory is tried.
    names = sorted(disturbances) + ["the agent is killed"] * 6
    for _ in range(60):
        name = chance.choice(names)
        log.log(name)
        disturbances[name]()

with subtest("then all is as wished, and nothing is left over"):
    ask("PUT", "/v2/apps//often?force=true", {"instances": 30})
    settled = wait_running("/often", 30, timeout=120)
    eventually("the node has these units and no other", lambda: task_units(node) == sorted(task["unit"] for task in settled))
    unchanged(invocations(wait_running("/often", 30)), invocations(settled))

with subtest("no task was executed twice"):
    executed = [line.split()[-1] for line in app_journal("/often") if line.startswith("executed ")]
    assert len(executed) > 30, executed
    # Who restarts a unit by hand executes it again; drover never does.
    twice = {task for task in executed if executed.count(task) > 1}
    assert {f"drover-{task}.service" for task in twice} <= by_hand, (twice, by_hand)
