"""Whatever a journal or a study file holds: a result, or one error of this program."""

import json
import random
import warnings

import pytest
import tomli_w

from accelerators import ConfigError
from codesign import load_study
from codesign.optimisers.quiet import quiet_optuna
from codesign.report.study_report import StudyReport
from codesign.study.nested import load_nested, nested_search
from codesign.study.plan import StudyPlan
from codesign.study.store import open_study
from tests.fuzzing import mutate_bytes, mutate_json
from tests.small_search import small_search, small_workload

ROUNDS = [120, pytest.param(5000, marks=pytest.mark.slow)]


def steps_of(path):
    """The steps of a journal as they were written before there were checksums."""
    steps = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: step[key] for key in step if key != "crc32"} for step in steps]


def written(steps):
    # As Optuna writes: a lone surrogate is escaped.
    return "".join(json.dumps(step, separators=(",", ":")) + "\n" for step in steps).encode()


def mutated_step(steps, chance):
    """The steps with one of them changed."""
    changed = list(steps)
    at = chance.randrange(len(changed))
    changed[at] = mutate_json(changed[at], chance)
    return changed


def result_or_error(path, open_it, go_on):
    """What can be read can be gone on with; what cannot stays as it is."""
    before = path.read_bytes()
    try:
        open_it(path)
    except ConfigError as error:
        assert str(error)
        with pytest.raises(ConfigError):
            go_on(path)
        assert path.read_bytes() == before
        return 0
    return 1


@pytest.fixture(scope="module")
def journal(tmp_path_factory):
    directory = tmp_path_factory.mktemp("journal")
    small_search(directory, trials=3)
    return directory / "study.journal"


@pytest.fixture
def study(journal, tmp_path):
    """Opens a study and makes its report; opens one to go on with it, as a search does."""
    specification = steps_of(journal)[1]["user_attr"]["specification"]
    reports = random.Random(0)

    def read(path):
        result = load_study(path)
        report = StudyReport(result=result)
        assert report.verdict and (result.front or result.unanswered or not result.trials)
        assert len(result.hypervolume) <= len(result.trials)
        if reports.random() < 0.03:  # a page takes half a second
            report.write(tmp_path / "report" / "report.html")

    def go_on(path):
        with quiet_optuna(), warnings.catch_warnings():  # of other packages than it began with
            warnings.simplefilter("ignore", UserWarning)
            with open_study(path, specification, resume=True):
                pass

    return read, go_on


@pytest.mark.parametrize("rounds", ROUNDS)
def test_any_bytes_of_a_journal(journal, study, tmp_path, rounds):
    chance = random.Random(rounds)
    content, path = journal.read_bytes(), tmp_path / "study.journal"
    old = written(steps_of(journal))
    for number in range(rounds // 3):
        path.write_bytes(mutate_bytes(content if number % 2 else old, chance))
        if path.read_bytes().count(b"\n") > 1:  # else nothing was stored yet, and a resume begins
            result_or_error(path, *study)


@pytest.mark.parametrize("rounds", ROUNDS)
def test_any_steps_of_a_journal(journal, study, tmp_path, rounds):
    chance = random.Random(rounds)
    steps, path = steps_of(journal), tmp_path / "study.journal"
    for _ in range(rounds):
        path.write_bytes(written(mutated_step(steps, chance)))
        result_or_error(path, *study)


@pytest.mark.parametrize("rounds", ROUNDS)
def test_any_steps_of_a_nested_search(tmp_path, rounds):
    workload = small_workload()
    chance = random.Random(rounds)
    path = tmp_path / "nested.journal"
    nested_search(workload, trials=2, storage=path, executor="inline")

    def go_on(path):
        nested_search(workload, trials=2, storage=path, executor="inline", resume=True)

    steps = steps_of(path)
    for _ in range(rounds):
        path.write_bytes(written(mutated_step(steps, chance)))
        result_or_error(path, lambda path: load_nested(path).fronts, go_on)


@pytest.mark.parametrize("rounds", ROUNDS)
def test_any_study_file(tmp_path, rounds):
    chance = random.Random(rounds)
    path, read = tmp_path / "study.toml", 0
    plan = StudyPlan(weights="w.pth", parameters={"array.rows": (8, 16)}).to_dict()
    text = tomli_w.dumps(plan).encode()
    for number in range(2 * rounds):
        if number % 2:
            path.write_bytes(mutate_bytes(text, chance))
        else:
            try:
                path.write_text(tomli_w.dumps(mutate_json(plan, chance)), encoding="utf-8")
            except (TypeError, AttributeError, UnicodeEncodeError):
                continue  # TOML cannot hold it
        try:
            read += isinstance(StudyPlan.load(path), StudyPlan)
        except ConfigError as error:
            assert str(error)
    assert 0 < read < 2 * rounds
