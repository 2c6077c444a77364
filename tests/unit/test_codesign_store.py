import json
import re
import warnings
from importlib.metadata import version

import pytest

from accelerators import ConfigError
from codesign import Constraints, load_study
from codesign.study.same_search import FIXED, NUMBERS_OF, check_same_search
from codesign.study.store import study_place
from tests.small_search import small_search, table
from workloads.traces.judged import Judged


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    directory = tmp_path_factory.mktemp("short")
    return directory / "study.journal", small_search(directory, trials=6)


def test_study_lies_in_a_directory_or_a_file(tmp_path):
    assert study_place(tmp_path) == tmp_path / "study.journal"
    assert study_place(tmp_path / "mine.journal") == tmp_path / "mine.journal"


@pytest.mark.parametrize("lines_kept", [1, 2, 3, *range(4, 24, 3)])
def test_every_torn_tail_is_mended(short, tmp_path, lines_kept):
    path, whole = short
    lines = path.read_bytes().splitlines(keepends=True)
    torn = tmp_path / "study.journal"
    torn.write_bytes(b"".join(lines[:lines_kept]) + lines[lines_kept % len(lines)][:17])
    before = torn.read_bytes()
    if lines_kept == 1:
        with pytest.raises(ConfigError, match="without specification"):
            load_study(torn)
    else:  # reading does not need it mended
        assert len(load_study(torn).trials) <= 6
    assert torn.read_bytes() == before
    assert table(small_search(tmp_path, trials=6, resume=True)) == table(whole)
    assert all(json.loads(line) for line in torn.read_text().splitlines())


def test_a_study_is_not_overwritten(short):
    path, _ = short
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="must not exist, got a study; go on with it by --resume"):
        small_search(path, trials=6)
    assert path.read_bytes() == before


def test_resume_needs_a_study(tmp_path):
    with pytest.raises(ConfigError, match="must be a study to go on with, got none"):
        small_search(tmp_path, resume=True)
    with pytest.raises(ConfigError, match="got no such file"):
        load_study(tmp_path)


def test_another_search_is_refused(short):
    path, _ = short
    with pytest.raises(ConfigError) as caught:
        small_search(path, resume=True, seed=3, batch=2)
    assert "the seed must be 0, got 3" in str(caught.value)
    assert "the batch must be 4, got 2" in str(caught.value)


def test_another_optimiser_or_limit_is_refused(short):
    path, _ = short
    with pytest.raises(ConfigError) as caught:
        small_search(path, resume=True, optimiser="tpe", constraints=Constraints(area_mm2=3))
    assert "the optimiser must be 'gp', got 'tpe'" in str(caught.value)
    assert "the constraints must be {}, got {'area_mm2': 3}" in str(caught.value)


def test_another_workload_or_space_is_refused(short, monkeypatch):
    import tests.small_search

    path, _ = short
    monkeypatch.setattr(tests.small_search, "IMAGES", 5)
    with pytest.raises(ConfigError, match=r"the workload .* must be what it was"):
        small_search(path, resume=True)
    monkeypatch.undo()
    monkeypatch.setattr(tests.small_search, "KEPT", ("array.columns",))
    with pytest.raises(ConfigError, match="the design space must be what it was"):
        small_search(path, resume=True)


def test_a_search_goes_on_that_began_before_there_was_a_later_unit(short):
    begun = json.loads(json.dumps(dict(short[1].specification)))
    earlier = json.loads(json.dumps(begun))
    assert earlier["space"]["base"].pop("address_list") is None
    check_same_search("out", earlier, begun)
    earlier["space"]["base"]["clock_hz"] *= 2
    with pytest.raises(ConfigError, match="the design space must be what it was"):
        check_same_search("out", earlier, begun)


def test_another_score_or_judged_output_is_refused():
    def of(quality="score", **workload):
        fixed = dict.fromkeys(FIXED) | {"quality": quality, "versions": dict.fromkeys(NUMBERS_OF)}
        return fixed | {"workload": workload}

    def judged(output, names=("logits", "boxes"), dimension=None):
        said = Judged(output=output, names=names, classes_dimension=dimension)
        return json.loads(json.dumps(said.provenance))

    same = [
        (of(score="a.py:f"), of(score="a.py:f")),
        (of("accuracy", score="f1"), of("accuracy", score="f1")),
        (of(**judged("logits")), of(**judged("logits"))),
        (of(), of(**judged("logits"))),  # before there was a choice, the first was judged
    ]
    for stored, given in same:
        check_same_search("out", stored, given)
    other = [
        (of(score="a.py:f"), of(score="a.py:g"), "the score must be 'a.py:f' .* got 'a.py:g'"),
        (of(**judged("logits")), of(**judged("boxes")), "judged output must be 'logits'"),
        (of(), of(**judged("boxes")), "judged output must be 'logits' .* got 'boxes'"),
        (of(), of(**judged("", ("",), -1)), "dimension of its classes must be None, got -1"),
        (of(**judged("", ("",), -1)), of(), "dimension of its classes must be -1 .* got None"),
    ]
    for stored, given, message in other:
        with pytest.raises(ConfigError, match=message):
            check_same_search("out", stored, given)


def without_checksums(path):
    """The steps of a study, as they were written before there were checksums."""
    steps = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: step[key] for key in step if key != "crc32"} for step in steps]


def rewritten(path, directory, change):
    """A copy of a study without checksums, its specification changed."""
    steps = without_checksums(path)
    (specification,) = (
        step["user_attr"]["specification"]
        for step in steps
        if "specification" in step.get("user_attr", {})
    )
    change(specification)
    (directory / path.name).write_text("".join(json.dumps(step) + "\n" for step in steps))
    return directory


def test_another_format_is_refused(short, tmp_path):
    path, _ = short
    study = rewritten(path, tmp_path, lambda stored: stored.update(format_version=1))
    for use in (load_study, lambda path: small_search(path, trials=6, resume=True)):
        with pytest.raises(ConfigError, match="format_version must be 2, got 1; use the version"):
            use(study)


def test_going_on_with_other_packages_warns(short, tmp_path):
    path, whole = short
    now = version("torch")
    study = rewritten(path, tmp_path, lambda stored: stored["versions"].update(torch="1.0"))
    with pytest.warns(UserWarning, match=rf"with torch 1\.0 \(now {re.escape(now)}\):"):
        assert table(small_search(study, trials=6, resume=True)) == table(whole)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        small_search(path, trials=6, resume=True)


def test_two_searches_do_not_share_a_study(tmp_path):
    def second_search(trial, finished, trials):
        with pytest.raises(ConfigError, match="must not be in use, got a search that is running"):
            small_search(tmp_path, resume=True)
        assert len(load_study(tmp_path).trials) == finished  # looking is allowed

    small_search(tmp_path, trials=2, on_progress=second_search)


@pytest.mark.parametrize("content", ["<html>\n</html>\n", '{"a": 1}\n[]\n', "[1, 2]\n{}\n"])
def test_a_foreign_file_is_refused(tmp_path, content):
    path = tmp_path / "study.journal"
    path.write_text(content)
    with pytest.raises(ConfigError, match="damaged or foreign"):
        load_study(path)
    with pytest.raises(ConfigError, match="damaged or foreign"):
        small_search(path, resume=True)
    assert path.read_text() == content
