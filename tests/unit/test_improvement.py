"""The default optimiser's parts: its Gaussian process, the expected improvement, and its moves."""

import moocore
import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial
from scipy.integrate import quad
from scipy.stats import norm
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern

from codesign.optimisers.boxes import boxes_beyond
from codesign.optimisers.cube import Cube, UnitCube
from codesign.optimisers.gaussian_process import GaussianProcess
from codesign.optimisers.improvement import ExpectedImprovement, ObjectiveModel
from codesign.optimisers.optimiser import Problem
from codesign.optimisers.registry import ask
from codesign.space.parameters import Condition

RNG = np.random.default_rng(0)
POINTS = RNG.random((25, 3))
GROUPS = np.arange(3)


def wave(points):
    """Of the first two of three variables."""
    return np.sin(5 * points[:, 0]) + points[:, 1] ** 2


@pytest.fixture(scope="module")
def process():
    return GaussianProcess.fit(POINTS, wave(POINTS), GROUPS)


def test_the_gaussian_process_predicts_as_scikit_learns(process):
    kernel = ConstantKernel(process.scale) * Matern(process.weights**-0.5, nu=2.5)
    other = GaussianProcessRegressor(kernel, alpha=process.noise + 1e-8, optimizer=None)
    other.fit(POINTS, (wave(POINTS) - process.mean) / process.deviation)
    where = RNG.random((40, 3))
    expected, deviation = other.predict(where, return_std=True)
    mean, spread = process.predict(where)
    np.testing.assert_allclose(mean, process.mean + process.deviation * expected, atol=1e-6)
    np.testing.assert_allclose(spread, process.deviation * deviation, rtol=1e-3, atol=1e-6)


def test_the_fit_finds_what_matters(process):
    assert process.weights[2] < process.weights[:2].min() / 5  # the third variable does nothing
    assert process.noise < 0.01
    where = RNG.random((40, 3))
    assert np.corrcoef(process.predict(where)[0], wave(where))[0, 1] > 0.98


def test_no_hyperparameters_near_the_fit_are_likelier(process):
    """The log likelihood and priors of the fit's docstring, written out."""
    values = (wave(POINTS) - wave(POINTS).mean()) / wave(POINTS).std()

    def log_probability(lengths, scale, noise):
        kernel = (ConstantKernel(scale) * Matern(lengths, nu=2.5))(POINTS)
        covariance = kernel + (noise + 1e-8) * np.eye(len(POINTS))
        _, determinant = np.linalg.slogdet(covariance)
        likely = -0.5 * values @ np.linalg.solve(covariance, values) - 0.5 * determinant
        before = norm.logpdf(np.log(lengths), -1.0 + 0.5 * np.log(3), 0.8).sum()
        before += norm.logpdf(np.log(scale), 0.0, 1.0) + norm.logpdf(np.log(noise), -4.5, 1.5)
        return likely + before

    lengths, scale, noise = process.weights**-0.5, process.scale, process.noise
    best = log_probability(lengths, scale, noise)
    for factor in (0.8, 1.25):
        for which in range(3):
            other = lengths * np.where(np.arange(3) == which, factor, 1.0)
            assert log_probability(other, scale, noise) < best
        assert log_probability(lengths, scale * factor, noise) < best
        assert log_probability(lengths, scale, noise * factor) < best


def test_believing_moves_no_mean_and_takes_doubt(process):
    pending, where = RNG.random((3, 3)), RNG.random((20, 3))
    sure = process.believing(pending)
    np.testing.assert_allclose(sure.predict(where)[0], process.predict(where)[0], atol=1e-6)
    assert (sure.predict(where)[1] <= process.predict(where)[1] + 1e-9).all()
    once = process.believing(pending[:1])
    before = process.predict(pending[:1])[1] ** 2
    noise = (process.noise + 1e-8) * process.deviation**2
    # Precisions add.
    np.testing.assert_allclose(
        once.predict(pending[:1])[1] ** 2, 1 / (1 / before + 1 / noise), rtol=1e-4
    )


def models():
    """A speed and an energy that span decades, and an accuracy that does not."""
    speed, energy = np.exp(wave(POINTS)), np.exp(-2 * wave(POINTS) + POINTS[:, 2])
    accuracy = POINTS[:, 0] + 0.3 * wave(POINTS)
    values = np.stack([speed, energy, accuracy], axis=1)
    directions = (True, False, True)
    return values, [
        ObjectiveModel.fit(POINTS, column, GROUPS, maximise=more)
        for column, more in zip(values.T, directions, strict=True)
    ]


def test_values_that_span_decades_are_taken_in_logarithms():
    values, fitted = models()
    assert [each.logarithmic for each in fitted] == [True, True, False]
    np.testing.assert_allclose(fitted[0].likely(POINTS), values[:, 0], rtol=0.3)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_the_excess_over_a_level_is_its_integral(which):
    _, fitted = models()
    model = fitted[which]
    mean, deviation = (each[0] for each in model.process.predict(POINTS[:1] + 0.05))
    levels = np.array([-0.5, 0.4, 1.3])
    found = model.excess(POINTS[:1] + 0.05, levels)[0]
    for level, excess in zip(levels, found, strict=True):

        def gain(z, level=level):
            value = np.exp(mean + deviation * z) if model.logarithmic else mean + deviation * z
            better = value - level if model.maximise else level - value
            return max(better, 0.0) * norm.pdf(z)

        expected, _ = quad(gain, -9, 9, limit=400)
        assert excess == pytest.approx(expected, rel=1e-4, abs=1e-7)


def test_expected_improvement_is_the_mean_of_improvements():
    values, fitted = models()
    reference = np.array([0.2, 4.0, -1.0])
    improvement = ExpectedImprovement.beyond(
        values[:12], reference, objectives=fitted, constraints=[]
    )
    where = RNG.random((4, 3)) * 1.3  # also outside of what is known
    directions = [True, False, True]

    def volume(points):
        return moocore.hypervolume(points, ref=reference, maximise=directions)

    before = volume(values[:12])
    draws = RNG.standard_normal((6000, 3))
    for point, found in zip(where, improvement(where), strict=True):
        parts = [each.process.predict(point[None]) for each in fitted]
        drawn = np.stack(
            [mean + deviation * z for (mean, deviation), z in zip(parts, draws.T, strict=True)],
            axis=1,
        )
        drawn[:, :2] = np.exp(drawn[:, :2])
        gains = np.array([volume(np.vstack([values[:12], each])) - before for each in drawn])
        error = gains.std() / np.sqrt(len(gains))
        assert abs(found - gains.mean()) < 4 * error + 1e-9


@pytest.mark.parametrize("objectives", [2, 3, 4])
def test_boxes_fill_what_a_front_does_not_beat(objectives):
    """Their volumes above 0 are what moocore's hypervolume leaves of the cube; none overlap."""
    losses = np.round(RNG.random((30, objectives)) * 8 + 1) / 10  # with ties
    reference = np.ones(objectives)
    better, worse = boxes_beyond(losses, reference)
    better = np.maximum(better, 0.0)
    volume = np.prod(np.maximum(worse - better, 0.0), axis=1).sum()
    assert volume == pytest.approx(1 - moocore.hypervolume(losses, ref=reference))
    where = RNG.random((500, objectives))
    inside = ((where[:, None] > better) & (where[:, None] < worse)).all(axis=2).sum(axis=1)
    beaten = (losses[:, None] <= where).all(axis=2).any(axis=0)
    assert (inside == ~beaten).all()


@pytest.mark.parametrize(
    ("distribution", "ends"),
    [
        (IntDistribution(3, 9, step=3), {0.0: 3, 0.4: 6, 1.0: 9}),  # a third of the cube each
        (IntDistribution(1, 100, log=True), {0.0: 1, 1.0: 100}),
        (FloatDistribution(-1.0, 1.0), {0.0: -1.0, 0.5: 0.0}),
        (FloatDistribution(-10.0, 10.0, step=0.5), {0.0: -10.0, 0.5: 0.0, 1.0: 10.0}),
        (FloatDistribution(1e-4, 1.0, log=True), {0.0: 1e-4, 0.5: 1e-2}),  # by the root of 1e4
        (CategoricalDistribution(("a", "b")), {}),
    ],
)
def test_the_cube_holds_every_kind_of_number(distribution, ends):
    cube = UnitCube({"x": distribution})
    for place, value in ends.items():
        found = cube.decode(np.array([place]))["x"]
        assert found == pytest.approx(value, rel=1e-12) and type(found) is type(value)
    for point in RNG.random((50, len(cube))):
        value = cube.decode(point)
        again = cube.decode(cube.point(value))
        same = value if isinstance(value["x"], str) else pytest.approx(value, rel=1e-12)
        assert again == same


def test_a_constraint_weighs_by_its_chance():
    values, fitted = models()
    limit = GaussianProcess.fit(POINTS, POINTS[:, 0] - 0.5, GROUPS)
    reference = np.array([0.2, 4.0, -1.0])
    settings = {"values": values, "reference": reference, "objectives": fitted}
    free = ExpectedImprovement.beyond(**settings, constraints=[])
    bound = ExpectedImprovement.beyond(**settings, constraints=[limit])
    where = RNG.random((30, 3))
    mean, deviation = limit.predict(where)
    weighed = free(where) * norm.cdf(-mean / deviation)
    assert weighed.max() > 1e-12
    np.testing.assert_allclose(bound(where), weighed, rtol=1e-6, atol=1e-25)


DISTRIBUTIONS = {
    "reuse": CategoricalDistribution((False, True)),
    "hashes": IntDistribution(4, 20),
    "kind": CategoricalDistribution(("a", "b", "c")),
    "share": FloatDistribution(0.0, 2.0),
}
CONDITIONS = {"hashes": Condition(on=("reuse",), values=(True,), otherwise=10)}


def trial(parameters, distributions=DISTRIBUTIONS, values=None):
    state = TrialState.RUNNING if values is None else TrialState.COMPLETE
    return create_trial(state=state, params=parameters, distributions=distributions, values=values)


def test_every_move_leads_to_what_parameters_can_have():
    cube = Cube(DISTRIBUTIONS, CONDITIONS)
    begin = {"reuse": True, "hashes": 7, "kind": "b", "share": 0.5}
    point = cube.encode([trial(begin)])[0]
    assert cube.decode(point) == begin
    near = [cube.decode(each) for each in cube.neighbours(point)]
    assert {each["hashes"] for each in near if each["reuse"]} == {5, 6, 7, 8, 9, 11, 15}
    assert {each["kind"] for each in near} == {"a", "b", "c"}
    for each in near:
        changed = [name for name in begin if each[name] != begin[name]]
        assert len(changed) <= 1 or (not each["reuse"] and each["hashes"] == 10)
    moved = cube.changed(np.repeat(point[None], 300, axis=0), np.random.default_rng(0))
    assert (cube.snapped(moved) == moved).all()
    told = [cube.decode(each) for each in moved]
    assert {each["hashes"] for each in told if not each["reuse"]} == {10}
    assert len({each["hashes"] for each in told if each["reuse"]}) > 5
    assert all(0 <= each["share"] <= 2 for each in told)


def test_the_default_asks_for_no_design_twice():
    """Of 8 designs 6 differ; only the two that were not tried are left to ask for."""
    distributions = {
        "reuse": CategoricalDistribution((False, True)),
        "hashes": IntDistribution(1, 3),
        "kind": CategoricalDistribution(("a", "b")),
    }
    problem = Problem(
        distributions=distributions,
        maximise=(True, True),
        reference_point=(0.0, 0.0),
        conditions={"hashes": Condition(on=("reuse",), values=(True,), otherwise=1)},
    )
    tried = [(True, 1, "a"), (True, 2, "a"), (True, 3, "a"), (False, 1, "a"), (False, 3, "b")]
    trials = [
        trial(dict(zip(distributions, each, strict=True)), distributions, [1.0 + i % 3, 2.0])
        for i, each in enumerate(tried * 3)
    ]
    asked = ask("gp", problem, trials, seed=0).parameters
    assert asked["reuse"] is True and asked["kind"] == "b"


def test_an_objective_sees_what_it_depends_on_alone():
    """The first value is `x` plus noise of `y`: told that it depends on `x`, it ignores `y`."""
    cube = Cube({"x": IntDistribution(0, 9), "y": IntDistribution(0, 9)}, {})
    columns = cube.columns_of({"x"})
    assert columns.tolist() == [0] and cube.columns_of(None).tolist() == [0, 1]
    points = cube.snapped(RNG.random((30, 2)))
    values = points[:, 0] + 0.1 * RNG.standard_normal(30)
    model = ObjectiveModel.fit(points, values, cube.groups, columns=columns, maximise=True)
    one = np.array([[0.35, 0.05], [0.35, 0.95]])
    assert np.ptp(model.likely(one)) == 0
    sure = model.believing(one[:1])
    assert sure.predict(one)[1][0] == sure.predict(one)[1][1] < model.predict(one)[1][0]


def test_sixty_parameters_are_searched():
    """Each of 60 layers has a position on its front: the further, the faster and the less exact."""
    distributions = {f"layer{i}.position": IntDistribution(0, 12) for i in range(60)}
    problem = Problem(
        distributions=distributions, maximise=(True, True), reference_point=(0.0, 0.0)
    )
    rng = np.random.default_rng(1)
    exact = rng.random(60)

    def judged(parameters):
        positions = np.array(list(parameters.values()))
        return [float(positions.sum()), float(12 * exact.sum() - exact @ positions)]

    trials = []
    for _ in range(24):
        parameters = {name: int(rng.integers(13)) for name in distributions}
        trials.append(trial(parameters, distributions, judged(parameters)))

    def volume():
        found = np.array([each.values for each in trials])
        return moocore.hypervolume(found, ref=[0, 0], maximise=[True, True])

    before = volume()
    for number in range(4):
        parameters = ask("gp", problem, trials, seed=number).parameters
        trials.append(trial(parameters, distributions, judged(parameters)))
    assert volume() > 1.05 * before
