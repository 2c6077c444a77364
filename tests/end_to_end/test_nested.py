"""A nested search on a real Ray, and the joint search on its fronts, few images first."""

from typer.testing import CliRunner

from accelerators import preset
from codesign import DesignSpace, load_nested, load_workload, nested_search, search
from codesign.cli.app import app
from tests.small_search import small_workload, table
from tests.unit.test_nested import table as nested_table

IMAGES = 4


def test_command_finds_a_front_for_each_layer(on_ray, tmp_path):
    net = tmp_path / "net.py"
    net.write_text(
        "import torch\n"
        "class Net(torch.nn.Sequential):\n"
        "    def __init__(self):\n"
        "        super().__init__(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(),\n"
        "            torch.nn.Conv2d(4, 8, 3), torch.nn.AdaptiveAvgPool2d(1),\n"
        "            torch.nn.Flatten(), torch.nn.Linear(8, 10))\n"
    )
    command = ["nested", "--model", f"{net}:Net", "--inputs", "digits", "--images", str(IMAGES)]
    command += ["--trials", "3", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, (done.output, done.exception)
    found = load_nested(tmp_path / "out")
    assert [len(each.trials) for each in found.layers] == [3, 3]
    page = (tmp_path / "out" / "nested.html").read_text()
    for each in found.layers:
        assert f"\n{each.layer}\n" in done.stdout and f"<h2>{each.layer}</h2>" in page
        assert f"{each.front[-1].values['compression']:.1f}" in done.stdout
    workload = load_workload(model=f"{net}:Net", inputs="digits", images=IMAGES)
    again = nested_search(workload, trials=3, storage=tmp_path / "inline", executor="inline")
    assert nested_table(again) == nested_table(found)
    refused = CliRunner().invoke(app, command)
    assert refused.exit_code == 2 and "go on with it by --resume" in refused.stderr


def test_joint_search_on_fronts_is_the_same_at_any_number_of_workers(on_ray, tmp_path):
    workload = small_workload()
    found = nested_search(workload, trials=9, storage=tmp_path / "nested", executor="ray")
    space = DesignSpace.from_fronts(workload.trace, preset("reuse_16x16"), found.fronts)
    settings = {"trials": 8, "first_images": 2}
    two = search(workload, space, storage=tmp_path / "two", workers=2, **settings)
    one = search(workload, space, storage=tmp_path / "one", executor="inline", **settings)
    assert table(two) == table(one)
    assert [trial.images for trial in two.trials] == [trial.images for trial in one.trials]
    assert {trial.state for trial in two.trials} == {"complete"}
    assert two.front and all(trial.images == 6 for trial in two.front)
