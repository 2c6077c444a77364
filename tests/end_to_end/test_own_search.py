"""An objective, a policy and parameters of a user's own, from the command line, on a real Ray."""

from typer.testing import CliRunner

from codesign import StudyPlan, load_study
from codesign.cli.app import app
from tests.unit.test_own_search import NAME, OWN, frames

NET = """
import torch

class Net(torch.nn.Sequential):
    def __init__(self):
        super().__init__(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(),
            torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(16, 10))
"""


def test_command_searches_what_is_the_users_own(on_ray, tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "net.py").write_text(NET)
    own, out = tmp_path / "own.py", tmp_path / "out"
    command = ["search", "--model", f"{tmp_path / 'net.py'}:Net", "--inputs", "digits"]
    command += ["--images", "4", "--out", str(out), "--policy", f"{own}:Mine"]
    command += ["--objective", "accuracy", "--objective", f"{own}:Frames"]
    command += ["--parameter", "policy.hashes=4..6"]
    command += ["--parameter", "dram.bandwidth_bytes_per_cycle=8,16"]
    done = CliRunner().invoke(app, [*command, "--trials", "3"])
    assert done.exit_code == 0, (done.output, done.exception)
    plan = StudyPlan.load(out / "study.toml")
    assert plan.objectives == ("accuracy", f"{own}:Frames")
    assert plan.parameters["policy.hashes"] == (4, 5, 6)
    again = ["search", "--out", str(out), "--resume", "--trials", "5"]
    done = CliRunner().invoke(app, again)
    assert done.exit_code == 0, (done.output, done.exception)
    result = load_study(out)
    assert [trial.state for trial in result.trials] == ["complete"] * 5
    assert [trial.values[NAME] for trial in result.trials] == [frames(t) for t in result.trials]
    assert "Best frames" in (out / "report.html").read_text()
    wrong = CliRunner().invoke(app, [*command, "--parameter", "dram.bandwith=1", "--out", "x"])
    assert wrong.exit_code == 2 and "did you mean" in wrong.stderr
