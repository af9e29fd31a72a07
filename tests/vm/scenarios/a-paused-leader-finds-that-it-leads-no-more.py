# nodes: masters=3 agents=3 vm=false systemd=252
"""The leader is held still for a while, first its daemon alone, then its whole machine for a minute: another leads; when
the old one goes on it notices that it leads no more before it answers anything, and nothing is done twice. Promise 2."""

bring_up_cluster()
deploy(web_app(instances=3))
tasks = wait_running("/web", 3)
clerk = Clerk(agents[0])
start = start_ticking()
wait_ticking()

with subtest("its daemon is held still, and another leads"):
    old = leader()
    process = old.get_unit_property("droverd-master.service", "MainPID")
    old.succeed("systemctl kill --signal=STOP droverd-master.service")
    new = wait_led_by_other(old)
    written = api(new, "POST", "/v2/apps", sleeper("/meanwhile", 0, labels={"written": "while it was held still"}))
    assert written["id"] == "/meanwhile"

with subtest("the first thing that it answers afterwards is not what it knew before"):
    # Asked from the very moment at which it goes on: nothing, a refusal, or the truth are answers.
    old.succeed("systemctl kill --signal=CONT droverd-master.service")
    for _ in range(20):
        code, answer = request(old, "GET", "/v2/apps//meanwhile")
        assert code in (0, 200, 502, 503), f"stale: {code} {answer}"
        if code == 200:
            assert answer["app"]["labels"] == {"written": "while it was held still"}, answer
    assert process == old.get_unit_property("droverd-master.service", "MainPID"), "it should have gone on, not begun anew"
    wait_whole()
    assert leader() is not old

with subtest("its whole machine is held still for a minute, and another leads"):
    old = leader()
    held_at = int(agents[0].succeed("date +%s"))
    old.send_monitor_command("stop")
    new = wait_led_by_other(old)
    eventually("a minute is over", lambda: int(agents[0].succeed("date +%s")) >= held_at + 60, timeout=90)
    api(new, "PUT", "/v2/apps//meanwhile", {"labels": {"written": "in that minute"}})

with subtest("it goes on as a follower and is as fresh as the others"):
    old.send_monitor_command("cont")
    code, answer = request(old, "GET", "/v2/apps//meanwhile")
    assert code in (0, 502, 503) or answer["app"]["labels"] == {"written": "in that minute"}, f"stale: {code} {answer}"
    wait_whole()
    assert leader() is not old
    assert api(old, "GET", "/v2/apps//meanwhile")["app"]["labels"] == {"written": "in that minute"}

with subtest("nothing was done twice, nothing lost, and no task restarted"):
    unchanged(invocations(wait_running("/web", 3)), invocations(tasks))
    wait_ticking()
    stop_ticking(start)
    clerk.stop()
