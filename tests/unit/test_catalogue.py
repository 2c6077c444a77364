"""The catalogue of techniques, and how a command line names one or several."""

import csv
from dataclasses import replace
from importlib import resources

import pytest
from typer.testing import CliRunner

from accelerators import Accelerator, ConfigError, preset
from codesign.cli.app import app
from codesign.space.technique_lookup import find_technique
from codesign.space.technique_parameters import usual_fields
from codesign.space.techniques import searched
from simulator import (
    DroppedColumns,
    Eva2,
    LeaderReuse,
    LshReuse,
    NoReuse,
    PerLayer,
    Technique,
    Together,
    techniques,
)
from tests.builders import convolution_layer

ENTRIES = sorted(techniques())
# What must be given on the command line; nobody can know it beforehand.
GIVEN = {
    "cached_answers": ["layers=conv2,fc3"],
    "clockwork": ["rates=layer3.*=2,layer4.*=4"],
    "dropped_tokens": ["first_layer=blocks.3", "dropped=1,2"],
}


def _published():
    file = resources.files("simulator") / "data" / "published_techniques.csv"
    return {row["technique"] for row in csv.DictReader(file.read_text("utf-8").splitlines())}


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_says_what_it_is(name):
    entry = techniques()[name]
    assert entry.name == name and name == name.lower() and "+" not in name and "." not in name
    texts = (entry.title, entry.grain, entry.rule, entry.evidence, entry.source)
    assert all(text and text == text.strip() for text in texts)
    assert {*entry.published} <= _published()
    assert {*entry.choices} | {*entry.start} <= {*entry.fields}
    assert {*entry.own} <= {*entry.choices}
    for choices in entry.choices.values():
        assert len({*choices}) == len(choices) > 0


@pytest.mark.parametrize("name", [name for name in ENTRIES if techniques()[name].policy])
def test_an_entry_starts(name):
    entry = techniques()[name]
    given = GIVEN.get(name, [])
    if given:
        with pytest.raises(ConfigError, match=rf"technique {name} must be given .*add --set"):
            find_technique(name)
    made = find_technique(name, given)
    assert type(made) is entry.policy
    for of, value in entry.start.items():
        assert getattr(made, of) == value


@pytest.mark.parametrize("name", sorted(searched()))
def test_what_a_search_may_choose_has_usual_settings(name):
    assert {*techniques()[name].choices} <= {*usual_fields(techniques()[name])}


def test_settings_are_of_the_technique_that_has_them():
    made = find_technique("leaders", ["tolerance=0.3", "leaders.length=32"])
    assert isinstance(made, LeaderReuse) and (made.tolerance, made.length) == (0.3, 32)
    pair = find_technique("leaders+dropped_columns", ["fraction=0.5", "tolerance=0.1"])
    assert isinstance(pair, Together) and isinstance(pair.second, DroppedColumns)
    assert (pair.first.tolerance, pair.second.fraction) == (0.1, 0.5)
    three = find_technique("leaders+lsh+dropped_columns", ["lsh.length=32"])
    assert isinstance(three.second, Together) and three.second.first.length == 32
    assert isinstance(three.second.first, LshReuse) and three.first.length == 64


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        ("leader", [], r"--technique must be of .*leaders.*got 'leader'; use 'leaders'"),
        ("tome", [], "--technique tome must be one that decides on a trace.*not built here yet"),
        ("leaders", ["tolerence=1"], r"--set must name a field of leaders.*'tolerence'; use 'tol"),
        ("leaders+lsh", ["length=8"], r"--set length must say of which.*leaders.length=8 or .*lsh"),
        ("leaders", ["tolerance=0.1", "tolerance=0.2"], "--set tolerance must be given once"),
        ("leaders", ["tolerance"], "--set must be FIELD=VALUE"),
        ("leaders", ["tolerance=wide"], "--set tolerance must be given numbers"),
    ],
)
def test_what_is_none_is_told(text, settings, message):
    with pytest.raises(ConfigError, match=message):
        find_technique(text, settings)


def test_values_of_several_parts_are_written_with_commas():
    regions = find_technique("regions", ["background=0,3,5"])
    assert regions.background == (0, 3, 5)
    tuned = find_technique("changes", ["thresholds=conv1=0.1,layer2.*=0.2"])
    assert tuned.thresholds == {"conv1": 0.1, "layer2.*": 0.2}
    both = find_technique("clockwork", ["rates=layer3.*=2,layer4.*=4"])
    assert both.rates == "layer3.*=2,layer4.*=4"
    with pytest.raises(ConfigError, match=r"background must be given whole numbers with commas"):
        find_technique("regions", ["background=sky"])
    for odd in ("0.1", "conv1=much", "conv1=0.1,conv1=0.2", "=0.1"):
        with pytest.raises(ConfigError, match=r"thresholds must be given NAME=VALUE with commas"):
            find_technique("changes", [f"thresholds={odd}"])
    with pytest.raises(ConfigError, match=r"cannot be written on a command line"):
        find_technique("dropped_columns", ["columns=conv1=0"])


def test_a_length_that_nobody_gave_is_cut_to_short_rows():
    short, wide = (
        replace(convolution_layer(size=(8, 8), kernel=(3, 3), channels=channels), name=name)
        for name, channels in (("short", 2), ("wide", 16))
    )
    assert short.gemm.k < 64 <= wide.gemm.k
    found = find_technique("leaders", ["tolerance=0.3"], layers=[short, wide], dense=["head"])
    assert isinstance(found, PerLayer)
    assert found.policy_of("short").length == short.gemm.k
    assert found.policy_of("short").tolerance == found.policy_of("wide").tolerance == 0.3
    assert found.policy_of("wide").length == 64 and found.policy_of("head") == NoReuse()
    given = find_technique("leaders", ["length=64"], layers=[short, wide])
    assert given.length == 64
    pair = find_technique("eva2+leaders", layers=[short, wide], dense=["wide"])
    assert isinstance(pair.first, Eva2) and pair.second.policy_of("short").length == short.gemm.k
    pair.check_layers([short, wide])
    one = find_technique("leaders+dropped_columns", layers=[short, wide], dense=["s*"])
    assert one.policies == {"s*": NoReuse()}
    one.check_layers([short, wide])


def test_dense_layers_stand_beside_what_decides_on_layers():
    with pytest.raises(ConfigError, match=r"--layer conv1=dense must go with .* got eva2 alone"):
        find_technique("eva2", dense=["conv1"])


def test_patterns_of_stages_are_looked_for_in_all_layers_also_before_another_technique():
    layer = replace(convolution_layer(size=(8, 8), kernel=(3, 3)), name="deep")
    find_technique("clockwork+leaders", ["rates=d*=2"], layers=[layer]).check_layers([layer])
    with pytest.raises(ConfigError, match=r"pattern 'x\*' must match a layer; layers are deep"):
        find_technique("clockwork+leaders", ["rates=x*=2"], layers=[layer]).check_layers([layer])


def test_a_technique_that_finds_no_layer_says_what_it_needs():
    layer = convolution_layer(size=(8, 8), kernel=(3, 3))
    with pytest.raises(ConfigError, match=r"technique fbs must have a layer.*resnet20_boosted"):
        find_technique("fbs", layers=[layer])


def test_the_base_of_searches_has_every_unit_that_stands_beside_others():
    without = {"lanes", "weight_tables"}
    units = {unit for each in techniques().values() if each.policy for unit in each.units}
    known = {unit for unit in units if unit in Accelerator.parts()}
    assert known - {*preset("every_64x64").units} == without


def test_an_entry_has_a_place_and_a_way():
    given = {"grain": "row", "rule": "r", "evidence": "e", "source": "s", "title": "t"}
    with pytest.raises(ConfigError, match=r"axis must be of rows.*got 'row'.*use 'rows'"):
        Technique(name="mine", axis="row", word="share", how="so", **given)
    with pytest.raises(ConfigError, match=r"\['mine'\]|'mine'.*must have a policy, or say how"):
        Technique(name="mine", axis="rows", word="share", **given)


def test_the_command_lists_and_explains():
    run = CliRunner().invoke
    listed = run(app, ["techniques", "--axis", "columns"])
    assert listed.exit_code == 0 and "dropped_columns" in listed.output
    assert "leaders" not in listed.output.splitlines()[3]
    told = run(app, ["techniques", "leaders"])
    assert told.exit_code == 0 and "Hartigan" in told.output and "tolerance" in told.output
    assert "Ready designs: leader_32x32, every_64x64." in told.output
    assert run(app, ["techniques", "nothing"]).exit_code == 2
    assert run(app, ["techniques", "--axis", "row"]).exit_code == 2
