# nodes: masters=1 agents=0 vm=true timeout=600
"""An app that is bounded by `CPUQuota=` and never sleeps gets the CPU time of its quota and not more. What `cpus` gives
is a share: it bounds nobody while nobody else wants the CPU."""

bring_up_machine()


def spinner(app, **more):
    return sleeper(app, 1, cpus=0.25, cmd="while :; do :; done", **more)


def share_of(task):
    """How many CPUs the task had over ten seconds, by the node's own accounts and clock."""

    def sample():
        out = n1.succeed(f"systemctl show --property=CPUUsageNSec --value '{task['unit']}'; cut -d ' ' -f 1 /proc/uptime")
        used, clock = out.split()
        return int(used) / 1e9, float(clock)

    used_before, before = sample()
    used_after, after = eventually("ten seconds passed on the node", lambda: sample()[1] >= before + 10 and sample())
    return (used_after - used_before) / (after - before)


with subtest("an app that spins is held at its quota of a quarter of a CPU"):
    deploy(spinner("/bounded", unit={"CPUQuota": "25%"}))
    task = wait_running("/bounded", 1)[0]
    share = share_of(task)
    log.log(f"it had {share:.2f} CPUs")
    assert 0.1 <= share <= 0.3, share

with subtest("it was held back by the kernel, not by chance"):
    group = n1.get_unit_property(task["unit"], "ControlGroup")
    periods = dict(line.split() for line in n1.succeed(f"cat '/sys/fs/cgroup{group}/cpu.stat'").splitlines())
    assert int(periods["nr_throttled"]) > 10, periods

with subtest("without a quota the same app takes what is idle, and keeps its weight"):
    deploy(spinner("/free"))
    free = wait_running("/free", 1)[0]
    assert n1.get_unit_property(free["unit"], "CPUWeight") == "25"
    share = share_of(free)
    log.log(f"it had {share:.2f} CPUs")
    assert share > 0.5, share
