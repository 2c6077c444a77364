"""Journals and databases that are damaged or somebody else's: one error, and nothing is written."""

import json
import os
import shutil
import sqlite3
import stat

import optuna
import pytest

from accelerators import ConfigError
from codesign import Constraints, load_study
from codesign.study.nested import load_nested, nested_search
from tests.older_formats import report_of_format_2
from tests.small_search import small_search, small_workload, table

TRIALS = 6


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    directory = tmp_path_factory.mktemp("whole")
    return directory / "study.journal", small_search(directory, trials=TRIALS)


def resume(directory, trials=TRIALS, **settings):
    return small_search(directory, trials=trials, resume=True, **settings)


def refused(path, match="damaged or foreign", **settings):
    """Neither a report nor a resume takes the file, and it stays as it is."""
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=match):
        load_study(path)
    with pytest.raises(ConfigError, match=match):
        resume(path, **settings)
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def without_checksums(content):
    """A journal as it was written before there were checksums."""
    steps = [json.loads(line) for line in content.splitlines()]
    steps = [{key: step[key] for key in step if key != "crc32"} for step in steps]
    return [json.dumps(step, separators=(",", ":")).encode() + b"\n" for step in steps]


def test_every_line_has_a_checksum_of_all_before_it(whole):
    path, _ = whole
    lines = path.read_bytes().splitlines(keepends=True)
    assert all(b',"crc32":"' in line for line in lines)


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: lines[::-1],
        lambda lines: lines[:3] + lines[4:],
        lambda lines: lines[:4] + lines[3:4] + lines[4:],
        lambda lines: [lines[0], b"\n", *lines[1:]],
        lambda lines: [b"\xef\xbb\xbf" + lines[0], *lines[1:]],
        lambda lines: [line.replace(b"\n", b"\r\n") for line in lines],
        lambda lines: [*lines[:2], b"[" * 100_000 + b"\n"],
        lambda lines: [*lines[:3], b"not JSON\n"],
        lambda lines: [*lines, b"half a line of somebody else"],
        lambda lines: [b"\0" * 4096],
        lambda lines: [b"\0" * 100, *lines],
        lambda lines: lines * 2,
        lambda lines: without_checksums(b"".join(lines))[::-1],
        lambda lines: [*lines, *without_checksums(b"".join(lines))[-1:]],
        lambda lines: [b'{"op_code":0,"wor'],
    ],
)  # fmt: skip
def test_another_order_and_other_lines_are_found(whole, tmp_path, change):
    path = tmp_path / "study.journal"
    path.write_bytes(b"".join(change(whole[0].read_bytes().splitlines(keepends=True))))
    refused(path)


def test_a_changed_byte_is_found_with_its_trial(whole, tmp_path):
    path = tmp_path / "study.journal"
    content = whole[0].read_bytes()
    place = content.index(b'"utilization":0.', content.index(b'"trial_id":1')) + 17
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    refused(path, match=r"\(trial 1\): its checksum must be")


def test_what_a_power_cut_leaves_is_cut_off(whole, tmp_path):
    path = tmp_path / "study.journal"
    lines = whole[0].read_bytes().splitlines(keepends=True)
    for rest in (b"\0" * 500, lines[-1][:30] + b"\0" * 70, lines[-1][:5]):
        path.write_bytes(b"".join(lines[:-2]) + rest)
        assert len(load_study(path).trials) == TRIALS
        assert table(resume(path)) == table(whole[1])


def test_another_studys_journal_is_not_added_to(tmp_path):
    path = tmp_path / "study.journal"
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
    study = optuna.create_study(study_name="somebody's", storage=storage)
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    refused(path, match="must be of the study 'codesign'")


def test_studies_of_before_there_were_checksums_go_on(whole, tmp_path):
    path = tmp_path / "study.journal"
    lines = without_checksums(whole[0].read_bytes())
    # A resume of those days said again which study it was.
    path.write_bytes(b"".join([*lines[:5], lines[0], *lines[5:-4]]))
    assert table(resume(path)) == table(whole[1])
    content = path.read_bytes()
    assert b'"crc32"' in content
    # A line with a checksum vouches for those before it.
    path.write_bytes(content.replace(b'"origin":"sampler"', b'"origin":"neighbour"', 1))
    refused(path, match="its checksum must be")


def test_studies_whose_reports_have_names_of_before_go_on(whole, tmp_path):
    steps = [json.loads(line) for line in without_checksums(whole[0].read_bytes())]
    records = [step["user_attr"].get("evaluation") for step in steps if "user_attr" in step]
    measured = [record for record in records if record and record["summary"]]
    for record in measured:
        record["summary"] = report_of_format_2(record["summary"])
    assert len(measured) > 2
    path = tmp_path / "study.journal"
    path.write_text("".join(json.dumps(step, separators=(",", ":")) + "\n" for step in steps))
    assert table(load_study(path)) == table(whole[1]) == table(resume(path))


def evaluation(change):
    """Change what is stored of trial 2."""

    def changed(steps):
        (step,) = (
            s for s in steps if s.get("trial_id") == 2 and "evaluation" in s.get("user_attr", {})
        )
        change(step["user_attr"]["evaluation"])

    return changed


def values(change):
    """Change the values of trial 2."""

    def changed(steps):
        (step,) = (s for s in steps if s.get("trial_id") == 2 and "values" in s)
        step["values"] = change(step["values"])

    return changed


def specification(change):
    return lambda steps: change(steps[1]["user_attr"]["specification"])


def created(change):
    """Change what was asked for as trial 2."""
    return lambda steps: change([s for s in steps if s["op_code"] == 4][2])


DAMAGE = {
    "nan": (values(lambda v: [float("nan"), *v[1:]]), "trial 2: values must be"),
    "700 %": (values(lambda v: [*v[:2], 7.0]), "trial 2: values must be .*accuracy of .* 1, got"),
    "no energy": (values(lambda v: [v[0], 0.0, v[2]]), "trial 2: values must be"),
    "huge": (values(lambda v: [10**400, *v[1:]]), "trial 2: values must be"),
    "two": (values(lambda v: v[:2]), "trial 2: values must be"),
    "faster": (values(lambda v: [2 * v[0], *v[1:]]), "trial 2: speedup must be that of the"),
    "bogus": (evaluation(lambda e: e.update(state="bogus")), "trial 2: state must be one of"),
    "hidden": (
        evaluation(lambda e: e.update(state="infeasible", reason="no")), "trial 2: state must",
    ),
    "later": (evaluation(lambda e: e.update(repeat_of=3)), "trial 2: repeat_of must be an earlier"),
    "images": (evaluation(lambda e: e.update(images=-1)), "trial 2: images must be 6, got -1"),
    "seconds": (evaluation(lambda e: e.update(seconds="1")), "trial 2: seconds must be"),
    "no summary": (evaluation(lambda e: e.pop("summary")), "trial 2: evaluation must have summary"),
    "bound": (
        evaluation(lambda e: e["summary"]["designs"]["reuse"].pop("bound_by")),
        r"trial 2: summary\.designs\.reuse\.bound_by must be text",
    ),
    "cycles": (
        evaluation(lambda e: e["summary"]["designs"]["reuse"].update(cycles=1)),
        r"trial 2: summary\.designs\.reuse\.cycles must be",
    ),
    "ratio": (
        evaluation(lambda e: e["summary"].update(energy_ratio_equal_area=0.5)),
        r"trial 2: summary\.energy_ratio_equal_area must be",
    ),
    "origin": (created(lambda s: s["user_attrs"].pop("origin")), "trial 2: origin must be one of"),
    "off the space": (
        created(lambda s: s["params"].update({"array.columns": 9})),
        r"trial 2.*(array\.columns|line)",
    ),
    "position": (created(lambda s: s["params"].update({"array.rows": 0.5})), "damaged or foreign"),
    "no space": (specification(lambda s: s.pop("space")), r"specification\.space"),
    "no base": (specification(lambda s: s["space"].pop("base")), r"specification\.space.*base"),
    "baseline": (
        specification(lambda s: s["baseline"].update(accuracy=7)), r"specification\.baseline",
    ),
    "optimiser": (specification(lambda s: s.update(optimiser="x")), r"specification\.optimiser"),
    "null": (lambda steps: steps[1]["user_attr"].update(specification=None), "specification"),
    "confirmed": (
        lambda steps: steps.append(steps[1] | {"user_attr": {"confirmed 99": {}}}),
        "confirmed 99: it must be of a complete one of 6 trials",
    ),
    "attribute": (
        lambda steps: steps.append(steps[1] | {"user_attr": {"mine": 1}}), "no attribute 'mine'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_values_that_cannot_be_are_told_with_their_trial(whole, tmp_path, name):
    damage, match = DAMAGE[name]
    steps = [json.loads(line) for line in without_checksums(whole[0].read_bytes())]
    damage(steps)
    path = tmp_path / "study.journal"
    path.write_text("".join(json.dumps(step, separators=(",", ":")) + "\n" for step in steps))
    refused(path, match=match)


def test_a_repeated_key_is_found(whole, tmp_path):
    path = tmp_path / "study.journal"
    lines = without_checksums(whole[0].read_bytes())
    path.write_bytes(b"".join(lines).replace(b'"seconds":', b'"state":"failed","seconds":', 1))
    refused(path, match="a key that is there twice")


def test_what_is_no_file_is_refused_at_once(tmp_path):
    place = tmp_path / "study.journal"
    os.mkfifo(place)
    for use in (load_study, small_search, resume):
        with pytest.raises(ConfigError, match="must be a file, got a device or a pipe"):
            use(place)
    assert stat.S_ISFIFO(place.stat().st_mode)
    place.unlink()
    place.symlink_to("/dev/zero")
    with pytest.raises(ConfigError, match="got a device or a pipe"):
        load_study(place)
    place.unlink()
    place.mkdir()
    for use in (load_study, small_search, resume):
        with pytest.raises(ConfigError, match="must be a file, got a directory"):
            use(place)


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    file = tmp_path_factory.mktemp("database") / "study.db"
    small_search(f"sqlite:///{file}", trials=2)
    return file


def drop_table(file):
    with sqlite3.connect(file) as opened:
        opened.execute("DROP TABLE trial_values")
    opened.close()


def other_tables(file):
    file.unlink()
    with sqlite3.connect(file) as opened:
        opened.execute("CREATE TABLE places (url TEXT)")
    opened.close()


def overwrite(file):
    content = bytearray(file.read_bytes())
    content[3 * 4096 : 9 * 4096] = b"\xff" * 6 * 4096
    file.write_bytes(content)


def change_value(file):
    with sqlite3.connect(file) as opened:
        opened.execute("UPDATE trial_values SET value = 7 WHERE objective = 2")
    opened.close()


def lose_a_trial(file):
    with sqlite3.connect(file) as opened:
        opened.execute("DELETE FROM trials WHERE number = 0")
    opened.close()


@pytest.mark.parametrize(
    "damage", [drop_table, other_tables, overwrite, change_value, lose_a_trial]
)
def test_a_damaged_or_foreign_database_is_not_written_to(database, tmp_path, damage):
    file = tmp_path / "study.db"
    shutil.copy(database, file)
    damage(file)
    before = file.read_bytes()
    url = f"sqlite:///{file}"
    for use in (load_study, lambda url: small_search(url, trials=3, resume=True)):
        with pytest.raises(ConfigError, match="damaged or foreign database"):
            use(url)
    assert file.read_bytes() == before


def test_a_resume_begins_no_study_beside_somebody_elses(tmp_path):
    url = f"sqlite:///{tmp_path / 'study.db'}"
    optuna.create_study(study_name="somebody's", storage=url)
    before = (tmp_path / "study.db").read_bytes()
    with pytest.raises(ConfigError, match="must be a study to go on with, got none"):
        small_search(url, trials=2, resume=True)
    assert (tmp_path / "study.db").read_bytes() == before


@pytest.fixture(scope="module")
def layers(tmp_path_factory):
    directory = tmp_path_factory.mktemp("layers")
    nested_search(small_workload(), trials=2, storage=directory, executor="inline")
    return directory / "nested.journal"


NESTED_DAMAGE = {
    "error": lambda s: s[6].update(values=[-1.0, 2.0]),
    "compression": lambda s: s[6].update(values=[0.1, 0.5]),
    "reason": lambda s: s[5]["user_attr"]["evaluation"].update(reason=3),
    "seconds": lambda s: s[5]["user_attr"]["evaluation"].pop("seconds"),
    "state": lambda s: s[5]["user_attr"]["evaluation"].update(state="failed"),
    "attribute": lambda s: s[4]["user_attrs"].update(x=3),
    "hashes": lambda s: s[4]["params"].update(hashes=99),
    "choices": lambda s: s[1]["user_attr"]["specification"]["parameters"][0].pop("choices"),
    "acquisition": lambda s: s[1]["user_attr"]["specification"].update(acquisition=[1]),
}


@pytest.mark.parametrize("name", NESTED_DAMAGE)
def test_a_damaged_nested_search_is_refused(layers, tmp_path, name):
    steps = [json.loads(line) for line in without_checksums(layers.read_bytes())]
    NESTED_DAMAGE[name](steps)
    path = tmp_path / "nested.journal"
    path.write_text("".join(json.dumps(step) + "\n" for step in steps))
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"damaged or foreign|another study"):
        load_nested(path)
    with pytest.raises(ConfigError):
        nested_search(small_workload(), trials=3, storage=path, resume=True, executor="inline")
    assert path.read_bytes() == before


def test_limits_are_read_back(tmp_path):
    limits = Constraints(area_mm2=1.9, accuracy_loss=0.2)
    result = small_search(tmp_path, trials=5, constraints=limits)
    assert table(load_study(tmp_path)) == table(result)
    path = tmp_path / "study.journal"
    steps = [json.loads(line) for line in without_checksums(path.read_bytes())]
    step = next(s for s in steps if "constraints:area_mm2" in s.get("system_attr", {}))
    step["system_attr"]["constraints:area_mm2"] += 0.5
    path.write_text("".join(json.dumps(each) + "\n" for each in steps))
    with pytest.raises(ConfigError, match="trial 0: constraints:area_mm2 must be"):
        load_study(path)
