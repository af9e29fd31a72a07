# nodes: masters=3 agents=3 vm=false
"""Bad input is answered with the status and the shape that each dialect's clients know, names every fault at once with its
path, and changes nothing. Promise 7."""

bring_up_cluster()
master = masters[0]


def refused(method, path, body, expected):
    """The body of an answer that must have this status."""
    got, answer = request(master, method, path, body)
    assert got == expected, f"{method} {path} {str(body)[:200]}: {got} {answer}"
    return answer


def paths(answer):
    assert answer["message"] == "Object is not valid", answer
    for detail in answer["details"]:
        assert detail["errors"] and all(isinstance(error, str) and error for error in detail["errors"]), answer
    return {detail["path"] for detail in answer["details"]}


with subtest("what is not JSON is 400 and says where the reader stopped"):
    for text in ['{"id": "/web", ', "not json", "", '{"id": "/web"} trailing']:
        answer = refused("POST", "/v2/apps", text, 400)
        assert answer["message"] == "Invalid JSON" and answer["details"], answer

with subtest("a wrong root or a wrong type names its path"):
    for body in [[], "text", 7]:
        got, answer = request(master, "POST", "/v2/apps", json.dumps(body))
        assert got in (400, 422) and answer["message"], answer
    got, answer = request(master, "POST", "/v2/apps", {"id": "/web", "cmd": "true", "instances": "many"})
    assert got in (400, 422) and "/instances" in {detail["path"] for detail in answer["details"]}, answer

with subtest("every fault of an app is told at once"):
    answer = refused(
        "POST",
        "/v2/apps",
        {
            "id": "/Bad_Name",
            "cmd": "sleep 1",
            "instances": -1,
            "cpus": -0.5,
            "mem": -1,
            "backoffFactor": 0.5,
            "constraints": [["hostname", "NEAR", "n4"]],
            "upgradeStrategy": {"minimumHealthCapacity": 1.5},
        },
        422,
    )
    wanted = {"/id", "/instances", "/cpus", "/mem", "/backoffFactor", "/upgradeStrategy/minimumHealthCapacity"}
    found = paths(answer)
    assert wanted <= found and any(path.startswith("/constraints") for path in found), (wanted - found, answer)

with subtest("nothing to run, or two things to run, is refused"):
    assert paths(refused("POST", "/v2/apps", {"id": "/web"}, 422))
    assert paths(refused("POST", "/v2/apps", {"id": "/web", "cmd": "true", "args": ["true"]}, 422))

with subtest("reserved and root names are refused"):
    for name in ["/", "/web/restart", "/web/tasks", "/-web", "/a/b c"]:
        assert "/id" in paths(refused("POST", "/v2/apps", {"id": name, "cmd": "true"}, 422)), name

with subtest("an environment that no program can be given is refused, variable by variable"):
    variables = {"A=B": "x", "NULL": "a\0b", "GOOD": "y"}
    found = paths(refused("POST", "/v2/apps", {"id": "/web", "cmd": "true", "env": variables}, 422))
    assert found == {"/env/A=B", "/env/NULL"}, found
    long = 'import json; print(json.dumps({"id": "/web", "cmd": "true", "env": {"LONG": "x" * 131072}}))'
    got, answer = request(master, "POST", "/v2/apps", data_command=f"python3 -c {shlex.quote(long)}")
    assert got == 422 and paths(answer) == {"/env/LONG"}, (got, answer)

with subtest("unit properties that are unknown or not a task's to ask for are refused"):
    unit = {"CPUQuota": "fast", "NoSuchThing": "yes", "ExecStart": "/bin/sh", "MemoryMax": "1G"}
    found = paths(refused("POST", "/v2/apps", {"id": "/web", "cmd": "true", "unit": unit}, 422))
    assert {"/unit/CPUQuota", "/unit/NoSuchThing", "/unit/ExecStart"} <= found, found

with subtest("an app that depends on itself is refused"):
    answer = refused("POST", "/v2/apps", {"id": "/web", "cmd": "true", "dependencies": ["/web"]}, 422)
    assert "cyclic" in json.dumps(answer), answer

with subtest("nothing of all this was stored"):
    assert ask("GET", "/v2/apps")["apps"] == []
    assert ask("GET", "/drover/v1/tasks")["tasks"] == []

with subtest("a circle of two apps is refused at the one that closes it"):
    deploy(sleeper("/first", 0))
    deploy(sleeper("/second", 0, dependencies=["/first"]))
    answer = refused("PUT", "/v2/apps//first", {"dependencies": ["/second"]}, 422)
    assert "cyclic" in json.dumps(answer), answer
    assert not ask("GET", "/v2/apps//first")["app"].get("dependencies")

with subtest("a name that is taken is 409"):
    answer = refused("POST", "/v2/apps", sleeper("/first", 1), 409)
    assert "/first" in answer["message"] and "already exists" in answer["message"], answer
    assert ask("GET", "/v2/apps//first")["app"]["instances"] == 0

with subtest("what no node could ever hold is accepted, waits, and says why for each node"):
    deploy(sleeper("/huge", 1, cpus=1000))
    why = eventually("it waits", lambda: ask("GET", "/drover/v1/why/apps/huge")["waiting"])
    assert {node["node"] for node in why[0]["nodes"]} == {agent.name for agent in agents}, why
    assert "cpu" in json.dumps(why).lower(), why
    assert not tasks_of("/huge")

with subtest("unknown things are 404 in Marathon's words"):
    for path, word in [("/v2/apps//nowhere", "/nowhere"), ("/v2/deployments/none", "none")]:
        method = "DELETE" if "deployments" in path else "GET"
        assert word in refused(method, path, None, 404)["message"]

with subtest("a body beyond the limit is 413 and not read to its end"):
    got, _ = request(master, "POST", "/v2/apps", data_command="head --bytes=8000000 /dev/zero | tr '\\0' ' '")
    assert got == 413, got

with subtest("jobs: Chronos' statuses, with a sentence"):
    for path, body, expected in [
        ("/v1/scheduler/iso8601", "not json", (400, 500)),
        ("/v1/scheduler/iso8601", {"name": "two words", "command": "true", "schedule": "R//PT1M"}, (400,)),
        ("/v1/scheduler/iso8601", {"name": "j", "command": "true", "schedule": "every minute"}, (400,)),
        ("/v1/scheduler/iso8601", {"name": "j", "command": "true", "schedule": "R//PT0S"}, (400,)),
        ("/v1/scheduler/dependency", {"name": "j", "command": "true", "parents": []}, (400, 500)),
        ("/v1/scheduler/dependency", {"name": "j", "command": "true", "parents": ["j"]}, (400,)),
    ]:
        got, answer = request(master, "POST", path, body)
        assert got in expected and answer["message"] and answer["status"], (path, body, got, answer)
    assert ask("GET", "/v1/scheduler/jobs") == []
    # A set of jobs may be posted in any order, so only what closes a circle is refused.
    ask("POST", "/v1/scheduler/dependency", {"name": "first", "command": "true", "parents": ["second"]})
    got, answer = request(master, "POST", "/v1/scheduler/dependency", {"name": "second", "command": "true", "parents": ["first"]})
    assert got == 400 and answer["message"], answer
    assert [job["name"] for job in ask("GET", "/v1/scheduler/jobs")] == ["first"]
    got, answer = request(master, "GET", "/v1/scheduler/job/nobody")
    assert got == 400 and "nobody" in answer["message"], answer

with subtest("drover's own API: a problem with a code and a way out"):
    got, answer = request(master, "GET", "/drover/v1/why/apps/nowhere")
    assert got == 404 and answer["error"] and answer["code"], answer
    got, answer = request(master, "GET", "/drover/v1/nothing-here")
    assert got == 404 and answer["error"] and answer["code"], answer
    got, answer = request(master, "POST", "/drover/v1/tokens", {"role": "king"})
    assert got in (400, 422) and answer["error"] and answer["code"], answer

with subtest("through all of this nothing died"):
    for machine in masters:
        assert machine.get_unit_property("droverd-master.service", "NRestarts") == "0"
