"""chronos-python 1.2.1 against a running cluster: every call the client has, and what it makes of the answers.

    pip install chronos-python==1.2.1
    python tests/clients/chronos_python.py http://127.0.0.1:7070

Only jobs whose names begin with `client-test-` are touched, and all of them are removed at the end.
"""

import sys
import time
from urllib.parse import urlsplit

import chronos

PREFIX = "client-test-"
PATIENCE = 60


def wait_for(what, condition):
    """Returns the first truthy value of `condition`."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.1)
    raise AssertionError(f"{what}: not within {PATIENCE} s")


def job(name, **more):
    return {
        "name": PREFIX + name,
        "command": "true",
        "owner": "",
        "disabled": False,
        "schedule": "R0/2014-01-01T00:00:00Z/PT60M",
        "cpus": 0.1,
        "mem": 32,
        **more,
    }


def child(name, *parents):
    definition = job(name, parents=[PREFIX + parent for parent in parents])
    del definition["schedule"]
    return definition


def names(client):
    return sorted(each["name"] for each in client.list() if each["name"].startswith(PREFIX))


def refused(call):
    try:
        call()
    except (chronos.ChronosAPIError, chronos.MissingFieldError, chronos.OneOfViolationError):
        return True
    return False


def main(address):
    client = chronos.connect([urlsplit(address).netloc])
    for name in names(client):
        client.delete(name)

    client.add(job("a"))
    client.add(child("b", "a"))
    assert names(client) == [PREFIX + "a", PREFIX + "b"]
    found = client.search(name=PREFIX + "a")
    assert [each["name"] for each in found] == [PREFIX + "a"], found
    listed = {each["name"]: each for each in client.list()}
    assert listed[PREFIX + "b"]["parents"] == [PREFIX + "a"]
    assert "schedule" not in listed[PREFIX + "b"]

    client.update(job("a", description="changed"))
    listed = {each["name"]: each for each in client.list()}
    assert listed[PREFIX + "a"]["description"] == "changed"

    assert client.job_stat(PREFIX + "a")["histogram"]["count"] == 0
    graph = client.scheduler_graph()
    assert f"link,{PREFIX}a,{PREFIX}b" in graph, graph
    for stat in ("99th", "98th", "95th", "75th", "median", "mean"):
        times = getattr(client, f"scheduler_stat_{stat}")()
        assert {"jobNameLabel": PREFIX + "a", "time": 0.0} in times, (stat, times)

    client.run(PREFIX + "a")
    wait_for("the run succeeds", lambda: {each["name"]: each for each in client.list()}[PREFIX + "a"]["successCount"] == 1)
    wait_for("and releases the child", lambda: {each["name"]: each for each in client.list()}[PREFIX + "b"]["successCount"] == 1)

    client.update(job("a", command="sleep 600"))
    client.run(PREFIX + "a")
    client.delete_tasks(PREFIX + "a")

    assert refused(lambda: client.add({**job("x"), "name": PREFIX + "has spaces"}))
    assert refused(lambda: client.add(job("x", schedule="whenever")))
    assert refused(lambda: client.add(child("x", "x")))
    assert refused(lambda: client.run(PREFIX + "unknown"))
    assert names(client) == [PREFIX + "a", PREFIX + "b"], "a refusal stores nothing"

    client.delete(PREFIX + "b")
    client.delete(PREFIX + "a")
    assert names(client) == []
    print("chronos-python: every call works")


if __name__ == "__main__":
    main(sys.argv[1])
