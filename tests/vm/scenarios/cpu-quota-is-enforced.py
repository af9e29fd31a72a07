# nodes: masters=1 agents=0 vm=true timeout=600
"""An app that never sleeps gets the CPU time it asked for and not more."""

bring_up_machine()

with subtest("an app that spins is held at a quarter of a CPU"):
    deploy(sleeper("/spins", 1, cpus=0.25, cmd="while :; do :; done"))
    task = wait_running("/spins", 1)[0]

    def sample():
        """CPU seconds used so far, and the clock, both of the node itself."""
        out = n1.succeed(f"systemctl show --property=CPUUsageNSec --value '{task['unit']}'; cut -d ' ' -f 1 /proc/uptime")
        used, clock = out.split()
        return int(used) / 1e9, float(clock)

    used_before, before = sample()
    used_after, after = eventually("ten seconds passed on the node", lambda: sample()[1] >= before + 10 and sample())
    share = (used_after - used_before) / (after - before)
    log.log(f"it got {share:.2f} CPUs of the 0.25 it asked for")
    assert 0.05 <= share <= 0.32, share

with subtest("it was held back by the kernel, not by chance"):
    group = n1.get_unit_property(task["unit"], "ControlGroup")
    periods = dict(line.split() for line in n1.succeed(f"cat '/sys/fs/cgroup{group}/cpu.stat'").splitlines())
    assert int(periods["nr_throttled"]) > 10, periods
