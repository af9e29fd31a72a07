# nodes: masters=3 agents=3 vm=false
"""A new version replaces the old one instance by instance: at no moment fewer instances run than the strategy allows,
and at the end every instance is of the new version. A restart does the same without a change."""

bring_up_cluster()


def serve(word):
    return f"cd $(mktemp -d) && echo {word} > index.html && {WEB}"


def roll(minimum, maximum, start):
    """Starts a deployment and looks at the tasks until it is over. Returns the tasks at its end."""
    deployment = start()["deploymentId"]

    def over():
        tasks = tasks_of("/web")
        up = [task for task in tasks if task["state"] == "running" and not task.get("ending")]
        counts.append((len(up), len(tasks)))
        return all(each["id"] != deployment for each in ask("GET", "/v2/deployments"))

    counts = []
    eventually("the deployment is over", over)
    assert min(up for up, _ in counts) >= minimum, f"too few ran: {counts}"
    assert max(there for _, there in counts) <= maximum, f"too many were there: {counts}"
    return wait_running("/web", 4)


with subtest("version one runs"):
    app = web_app(instances=4, cmd=serve("one"), upgradeStrategy={"minimumHealthCapacity": 0.5, "maximumOverCapacity": 0.25})
    deploy(app)
    one = wait_running("/web", 4)
    assert [fetch(task).strip() for task in one] == ["one"] * 4

with subtest("version two takes its place, never below two and never above five"):
    two = roll(2, 5, lambda: change("/web", {"cmd": serve("two")}))
    assert [fetch(task).strip() for task in two] == ["two"] * 4
    assert not set(ids(one)) & set(ids(two))
    assert len({task["version"] for task in two}) == 1 and two[0]["version"] != one[0]["version"]

with subtest("without leave to stop any first, the full number runs all the time"):
    change("/web", {"upgradeStrategy": {"minimumHealthCapacity": 1.0, "maximumOverCapacity": 1.0}})
    wait_running("/web", 4)
    three = roll(4, 8, lambda: change("/web", {"cmd": serve("three")}))
    assert [fetch(task).strip() for task in three] == ["three"] * 4

with subtest("a restart replaces every instance and keeps the definition"):
    restarted = roll(4, 8, lambda: ask("POST", "/v2/apps//web/restart"))
    assert not set(ids(three)) & set(ids(restarted))
    assert [fetch(task).strip() for task in restarted] == ["three"] * 4

with subtest("the earlier version is remembered and can be had back"):
    versions = ask("GET", "/v2/apps//web/versions")["versions"]
    assert one[0]["version"] in versions and two[0]["version"] in versions, versions
    # With its own, laxer strategy.
    back = roll(2, 5, lambda: change("/web", {"version": two[0]["version"]}))
    assert [fetch(task).strip() for task in back] == ["two"] * 4
