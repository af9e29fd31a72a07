"""marathon-python 0.13.0 against a running cluster.

The client builds an object out of every answer and fails on any key it does not know, so it tells whether what drover sends
is what Marathon sent.

    pip install marathon==0.13.0
    python tests/clients/marathon_python.py http://127.0.0.1:7070

Works on a cluster without agents; with one that is up, tasks are run and killed too. Only apps below /client-test are
touched, and all of them are removed at the end.
"""

import collections
import collections.abc
import sys
import threading
import time

# The client is older than Python 3.10, which took this name away.
collections.Iterable = collections.abc.Iterable

import marathon  # noqa: E402
import requests  # noqa: E402
from marathon.models import MarathonApp  # noqa: E402
from marathon.models.app import MarathonUpgradeStrategy  # noqa: E402

GROUP = "/client-test"
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


def refused(error, status, call):
    try:
        call()
    except error as told:
        assert told.status_code == status, told
        return told
    raise AssertionError(f"{status} was expected")


class Events:
    """Collects the event stream in the background, through the client's own parser."""

    def __init__(self, address):
        self.seen = []
        self.failure = None
        self.attached = threading.Event()
        self.client = marathon.MarathonClient(address)
        threading.Thread(target=self._read, daemon=True).start()
        assert self.attached.wait(PATIENCE), "no event_stream_attached"

    def _read(self):
        try:
            for event in self.client.event_stream():
                self.seen.append(event)
                self.attached.set()
        except Exception as error:  # noqa: BLE001 - told to the main thread, whatever it is
            self.failure = error

    def kinds(self):
        assert self.failure is None, self.failure
        return [event.event_type for event in self.seen]


def deployments(client):
    return [each for each in client.list_deployments() if any(app.startswith(GROUP) for app in each.affected_apps)]


def settle(client):
    """Deployments end by themselves; without an agent those that scale up never do."""
    wait_for("deployments end", lambda: not deployments(client))


def check_definitions(client, has_agent):
    app = MarathonApp(
        id=f"{GROUP}/web",
        cmd="sleep 600",
        cpus=0.1,
        mem=32,
        instances=0,
        env={"A": "1"},
        labels={"tier": "front"},
        constraints=[("hostname", "LIKE", ".*")],
        upgrade_strategy=MarathonUpgradeStrategy(minimum_health_capacity=0.5, maximum_over_capacity=0.5),
        user="root",
        kill_selection="OLDEST_FIRST",
        task_kill_grace_period_seconds=5,
        accepted_resource_roles=["*"],
        dependencies=["../other"],
    )
    created = client.create_app(app.id, app)
    assert created.id == f"{GROUP}/web" and created.instances == 0 and created.tasks_running == 0, created
    settle(client)
    assert client.list_apps(cmd="SLEEP", app_id="client-test", label="tier==front")[0].id == created.id

    shown = client.get_app(created.id, embed_tasks=True, embed_counts=True, embed_deployments=True, embed_readiness=True,
                           embed_last_task_failure=True, embed_failures=True, embed_task_stats=True)
    assert shown.env == {"A": "1"} and shown.dependencies == ["/other"], shown
    assert shown.networks == [{"mode": "host"}] and 10000 <= shown.port_definitions[0].port <= 20000
    assert shown.upgrade_strategy.minimum_health_capacity == 0.5

    # What was read is written back whole, and changes nothing.
    before = client.get_app(created.id).version
    result = client.update_app(created.id, client.get_app(created.id))
    assert result["deploymentId"] and client.get_app(created.id).version == before

    client.update_app(created.id, MarathonApp(env={"B": "2"}))
    settle(client)
    assert client.get_app(created.id).env == {"B": "2"}
    client.update_apps([MarathonApp(id=created.id, labels={"tier": "back"}), MarathonApp(id=f"{GROUP}/db", cmd="x", instances=0)])
    settle(client)
    assert client.get_app(f"{GROUP}/db").cmd == "x"
    assert client.restart_app(created.id)["deploymentId"]
    settle(client)

    versions = client.list_versions(created.id)
    assert len(versions) == 4 and versions == sorted(versions, reverse=True), versions
    first = client.get_version(created.id, versions[-1])
    assert first.env == {"A": "1"}
    assert client.rollback_app(created.id, versions[-1])["deploymentId"]
    settle(client)
    assert client.get_app(created.id).env == {"A": "1"}

    refused(marathon.exceptions.ConflictError, 409, lambda: client.create_app(app.id, app))
    refused(marathon.NotFoundError, 404, lambda: client.get_app(f"{GROUP}/none"))
    bad = MarathonApp(cmd="x", instances=-1, cpus=-1)
    told = refused(marathon.MarathonHttpError, 422, lambda: client.create_app(f"{GROUP}/bad", bad))
    assert {detail["path"] for detail in told.error_details} == {"/instances", "/cpus"}, told.error_details

    groups = client.get_group(GROUP)
    assert {app.id for app in groups.apps} == {f"{GROUP}/db", created.id}
    assert any(group.id == GROUP for group in client.list_groups())
    if not has_agent:
        # Waits for a machine that never comes: seen in the queue, and locked meanwhile.
        client.scale_app(created.id, instances=1)
        item = wait_for("it is queued", lambda: [item for item in client.list_queue() if item.app.id == created.id])[0]
        assert item.count == 1 and item.delay.overdue and item.app.id == created.id, item
        assert client.list_queue(embed_last_unused_offers=True)
        told = refused(marathon.exceptions.ConflictError, 409, lambda: client.scale_app(created.id, instances=2))
        deployment = deployments(client)[0]
        assert deployment.affected_apps == [created.id] and "locked" in told.error_message, told
        back = client.delete_deployment(deployment.id)
        assert back["deploymentId"] != deployment.id
        settle(client)
        assert client.get_app(created.id).instances == 0


def check_tasks(client):
    name = f"{GROUP}/sleeper"
    client.create_app(name, MarathonApp(cmd="sleep 600", cpus=0.1, mem=32, instances=2))
    settle(client)
    tasks = client.list_tasks(name)
    assert len(tasks) == 2 and all(task.state == "TASK_RUNNING" and len(task.ports) == 1 for task in tasks), tasks
    assert client.get_app(name, embed_tasks=True, embed_task_stats=True).tasks_running == 2

    killed = client.kill_task(name, tasks[0].id)
    assert killed.id == tasks[0].id
    wait_for("it is replaced", lambda: {task.id for task in client.list_tasks(name) if task.state == "TASK_RUNNING"}
             - {task.id for task in tasks} and client.get_app(name).tasks_running == 2)
    assert client.kill_given_tasks([tasks[1].id], scale=True)
    settle(client)
    assert client.get_app(name).instances == 1
    assert len(client.list_tasks()) >= 1
    client.kill_tasks(name)
    wait_for("they are replaced", lambda: client.get_app(name).tasks_running == 1)

    failing = f"{GROUP}/failing"
    client.create_app(failing, MarathonApp(cmd="exit 3", cpus=0.1, mem=32, instances=1))
    failure = wait_for("a failure is told", lambda: client.get_app(failing, embed_last_task_failure=True).last_task_failure)
    assert failure.state == "TASK_FAILED" and failure.task_id, failure
    wait_for("back-off shows in the queue", lambda: any(item.app.id == failing for item in client.list_queue()))
    client.delete_app(failing, force=True)


def clean_up(client):
    for app in client.list_apps():
        if app.id.startswith(f"{GROUP}/"):
            client.delete_app(app.id, force=True)
    wait_for("everything is gone", lambda: not [app for app in client.list_apps() if app.id.startswith(GROUP)])
    settle(client)


def main(address):
    client = marathon.MarathonClient(address)
    nodes = requests.get(f"{address}/drover/v1/nodes", timeout=10).json()["nodes"]
    has_agent = any(node["state"] == "up" for node in nodes)
    assert client.ping() == b"pong"
    info = client.get_info()
    assert info.name == "marathon" and info.elected and client.get_leader()["leader"] == info.leader
    clean_up(client)
    events = Events(address)
    check_definitions(client, has_agent)
    if has_agent:
        check_tasks(client)
    clean_up(client)
    for kind in ["api_post_event", "group_change_success", "deployment_info", "deployment_step_success", "deployment_success",
                 "app_terminated_event"] + (["status_update_event", "instance_changed_event"] if has_agent else []):
        wait_for(f"{kind} is told", lambda kind=kind: kind in events.kinds())
    print(f"marathon-python {'with tasks' if has_agent else 'without tasks'}: {len(events.seen)} events, all answers understood")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:7070")
