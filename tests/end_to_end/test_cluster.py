"""A search on a Ray cluster of two nodes, where a worker and then a node are killed."""

import json
import subprocess
import sys
from collections import Counter

import pytest

from codesign import load_study
from tests.cluster import ROOT, TRIALS, cluster, key_of, kill, kill_pid, wait_until

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="looks for processes in /proc"
)


# Not `-m`: the workers import what runs there by its name.
MAIN = "from tests.cluster import main; main()"


@pytest.fixture(scope="module")
def two_nodes():
    with cluster(nodes=2) as made:
        yield made


def test_a_killed_worker_and_a_killed_node_cost_their_running_trials_alone(two_nodes, tmp_path):
    log, errors = tmp_path / "log", tmp_path / "errors"
    log.touch()
    with errors.open("w") as file:
        search = subprocess.Popen(
            [sys.executable, "-c", MAIN, two_nodes.address, tmp_path / "study", log],
            cwd=ROOT,
            env=two_nodes.environment,
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
        )

    def steps():
        return [json.loads(line) for line in log.read_text().splitlines()]

    def running():
        """Process of a worker -> the design it is evaluating."""
        found = {}
        for step in steps():
            if step["step"] == "start":
                found[step["pid"]] = step["design"]
            else:
                del found[step["pid"]]
        return found

    def wait_for_both(ends):
        """Until so many evaluations have ended, and both nodes are in the middle of one."""
        wait_until(
            lambda: (
                sum(step["step"] == "end" for step in steps()) >= ends
                and len(running()) - len(lost) == 2
            ),
            [search],
        )

    lost = []
    try:
        wait_for_both(ends=2)
        worker = max(running())
        kill_pid(worker)
        lost.append((worker, running()[worker]))
        wait_for_both(ends=4)
        worker = max(set(running()) - {pid for pid, _ in lost})
        kill(two_nodes.node_of(worker))
        lost.append((worker, running()[worker]))
        packed, _ = search.communicate(timeout=300)
    finally:
        search.kill()
    assert search.returncode == 0, errors.read_text()

    # The workload went to the cluster once, not with each of the tasks.
    assert packed.splitlines()[-1] == "1"  # Ray may have told of the killed worker before
    # Every trial came to its end once, and those that failed or are too large say why.
    trials = load_study(tmp_path / "study").trials
    assert [trial.number for trial in trials] == list(range(TRIALS))
    assert {trial.state for trial in trials} == {"complete", "infeasible", "failed"}
    for trial in trials:
        if trial.state == "failed":
            assert trial.reason.startswith("Traceback") and "AttributeError" in trial.reason
        elif trial.state == "infeasible":
            assert "Constraints.area_mm2 must be at most" in trial.reason
    # Nothing was evaluated again but what ran on the killed worker and on the killed node.
    starts = Counter(step["design"] for step in steps() if step["step"] == "start")
    expected = Counter(key_of(t.parameters) for t in trials if t.repeat_of is None)
    assert starts == expected + Counter(design for _, design in lost)
    assert running() == dict(lost)
