"""The study of where similarity lives, on inputs whose similarity is known."""

from importlib import import_module

import numpy as np
import pytest
from PIL import Image

from simulator import LayerSimilarity


@pytest.fixture(scope="module")
def study():
    return import_module("013_where_similarity_lives")


def layers(values):
    return tuple(
        LayerSimilarity(
            layer=f"layer{i}", kind="conv", rows_per_image=4, within_image=value, next_image=None
        )
        for i, value in enumerate(values)
    )


def test_a_scene_and_its_cut(study):
    """Three times one image, then three times its negative: of 5 neighbours, 4 are the same."""
    image = np.linspace(0, 1, 12).reshape(1, 3, 2, 2)
    found = study.of_inputs("cut", np.concatenate([image] * 3 + [1 - image] * 3))
    assert found.correlation_next == pytest.approx((4 - 1) / 5)
    assert found.correlation_any == pytest.approx((6 - 9) / 15)
    negative = float((image * (1 - image)).sum() / (image**2).sum())
    assert found.cosine_next == pytest.approx((4 + negative) / 5)
    assert found.correlation[0, 3] == pytest.approx(-1)


def test_thirds_leave_out_what_is_unknown(study):
    found = layers([0.1, 0.3, None, 0.5, 0.7, 0.9, 0.9])
    assert study.means_of(found, "within_image") == pytest.approx([0.2, 0.6, 0.9])
    assert study.means_of(found, "next_image") == [None, None, None]


def test_photographs_are_cut_to_the_middle(study, tmp_path):
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 16:44] = 255  # more than the middle, for the interpolation at its edges
    for name in ("b.png", "a.jpg", "notes.txt"):
        if name.endswith("txt"):
            (tmp_path / name).write_text("no image")
        else:
            Image.fromarray(wide).save(tmp_path / name)
    found = study.photographs(tmp_path, 5)
    assert found.shape == (2, *study.VIDEO_SIZE, 3)
    assert (found[1] == 1).all()
    with pytest.raises(SystemExit, match="must hold two images"):
        study.photographs(tmp_path, 1)


def test_figure_has_a_panel_for_each(study):
    inputs = [study.of_inputs(name, np.random.default_rng(0).random((4, 5))) for name in "ab"]
    network = study.Network(name="Net on 4 images", cosine=(), correlation=layers([0.5, 0.4]))
    figure = study.draw(inputs, [network])
    assert [trace.type for trace in figure.data] == ["heatmap"] * 2 + ["scatter"] * 2
    assert figure.data[2].y == (0.5, 0.4)
    np.testing.assert_array_equal(np.diagonal(figure.data[0].z), 100)
