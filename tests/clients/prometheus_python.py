"""Prometheus' own parsers, the strict one of OpenMetrics among them, read a master's page, and it tells what docs/metrics.md says."""

import pathlib
import re
import sys
import urllib.request

from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_prometheus

API = sys.argv[1]
DOCUMENT = pathlib.Path(__file__).parents[2] / "docs/metrics.md"
ROW = re.compile(r"^\| `(?P<name>[a-z0-9_]+)` \| (?P<kind>\w+) \| (?P<labels>.*?) \| (?P<help>.*) \|$", re.M)


def page(accept):
    request = urllib.request.Request(f"{API}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return answer.headers["Content-Type"], answer.read().decode()


def told(families):
    """Family -> kind, help and the labels of its series, as the parser understood them."""
    return {
        family.name: (family.type, family.documentation, {label for sample in family.samples for label in sample.labels} - {"le"})
        for family in families
    }


expected = {}
for row in ROW.finditer(DOCUMENT.read_text()):
    if not row["name"].startswith("drover_agent_"):
        name = row["name"].removesuffix("_total") if row["kind"] == "counter" else row["name"]
        expected[name] = (row["kind"], row["help"], set(re.findall(r"`(\w+)`", row["labels"])))
assert len(expected) > 50, len(expected)

for accept, kind, read in [
    ("*/*", "text/plain; version=0.0.4", read_prometheus),
    ("application/openmetrics-text; version=1.0.0", "application/openmetrics-text; version=1.0.0", read_openmetrics),
]:
    content_type, text = page(accept)
    assert content_type.startswith(kind), content_type
    seen = told(read(text))
    assert set(seen) == set(expected), (set(seen) ^ set(expected))
    for name, (what, about, labels) in expected.items():
        assert seen[name][:2] == (what, about), (name, seen[name], what, about)
        # A family without series tells no labels.
        assert seen[name][2] in (labels, set()), (name, seen[name], labels)
    print(f"ok: {len(seen)} families as {kind}")
