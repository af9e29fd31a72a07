# nodes: masters=3 agents=3 vm=false
"""A task that dies is started again, each time after a longer wait, on any node; the API tells how it died; and an
operator can end the wait."""

bring_up_cluster()

with subtest("a task that exits 3 is tried again and again, with growing gaps"):
    deploy(sleeper("/dies", 1, cmd="date +start=%s.%N; exit 3", backoffSeconds=1, backoffFactor=2, maxLaunchDelaySeconds=60))

    def starts():
        return sorted(float(line[6:]) for line in app_journal("/dies") if line.startswith("start="))

    times = eventually("it started five times", lambda: len(starts()) >= 5 and starts())
    gaps = [later - earlier for earlier, later in zip(times, times[1:])]
    # 1, 2, 4 and 8 seconds at least, and not much more than those.
    for number, gap in enumerate(gaps[:4]):
        assert 2**number - 0.1 <= gap <= 2**number + 6, gaps

with subtest("the last failure is told with its exit code"):
    failure = ask("GET", "/v2/apps//dies")["app"]["lastTaskFailure"]
    assert failure["state"] == "TASK_FAILED" and "3" in failure["message"], failure
    why = ask("GET", "/drover/v1/why/apps/dies")
    assert "back-off" in why["summary"] and "next attempt" in why["waiting"][0]["held"], why

with subtest("the queue tells the wait, and an operator ends it"):
    item = eventually("it waits", lambda: ask("GET", "/v2/queue")["queue"])[0]
    assert item["app"]["id"] == "/dies" and not item["delay"]["overdue"] and item["delay"]["timeLeftSeconds"] > 0, item
    count = len(starts())
    ask("DELETE", "/v2/queue//dies/delay")
    eventually("it started at once", lambda: len(starts()) > count, timeout=8)

with subtest("a task that is killed by a signal is told as such, and one that lives ends the back-off"):
    # The deployment that made the app is not over: nothing of it ever stayed up.
    change("/dies?force=true", {"cmd": "exec sleep infinity"})
    task = wait_running("/dies", 1)[0]
    machine_of(task).succeed(f"systemctl kill --signal=SEGV '{task['unit']}'")
    eventually("another took its place", lambda: ids(running("/dies")) not in ([], [task["id"]]))
    failure = ask("GET", "/v2/apps//dies")["app"]["lastTaskFailure"]
    assert failure["taskId"] == task["id"] and "SEGV" in failure["message"], failure
