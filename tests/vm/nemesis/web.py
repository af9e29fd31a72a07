"""One HTTP request to one master, with an outcome that tells "not sent" from "unknown"."""

import http.client
import json

PORT = 7070

# A machine of the same network that does not answer within this is off, cut off or held still.
CONNECT_SECONDS = 2


class NotSent(Exception):
    """The request certainly never reached a master."""


class NoAnswer(Exception):
    """The request was sent, and what became of it is unknown."""


def request(address: str, method: str, path: str, body=None, timeout: float = 12) -> tuple[int, object]:
    """The status and the body, decoded if it is JSON."""
    connection = http.client.HTTPConnection(address, PORT, timeout=CONNECT_SECONDS)
    try:
        try:
            connection.connect()
        except OSError as problem:
            raise NotSent(str(problem)) from None
        connection.sock.settimeout(timeout)
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            data = response.read()
        except (OSError, http.client.HTTPException) as problem:
            raise NoAnswer(f"{type(problem).__name__}: {problem}") from None
    finally:
        connection.close()
    try:
        return response.status, json.loads(data) if data else None
    except ValueError:
        return response.status, data.decode(errors="replace")


def outcome(status: int, answer) -> str:
    """Of a write: ok, fail (certainly without effect) or info (unknown)."""
    if status < 300:
        return "ok"
    if status < 500:
        return "fail"
    # Said before the request was handed to anybody (docs/api.md); everything else of that kind may have happened.
    said = json.dumps(answer)
    nobody_led = "Could not determine the current leader" in said or "no master leads at the moment" in said
    return "fail" if status == 503 and nobody_led else "info"
