"""Treasure's ablation and Figure 7 on CamVid: which part of similarity-aware training does what?

Run it with `python studies/016_treasure_terms.py --camvid FOLDER`, with the drives of study 014,
whose trained network it takes if it is in `--out`. Without `--camvid` it explains itself and stops.
ResNet-18 parses scenes; SA-training reuses with H=16, L=8 in all layers but the first. Figure 7's
"threshold on the number of frames used" is read as how many frames are trained on; its score is
under reuse, on frames to choose on.

Answer, of 2026-11-22 (8 epochs; `--seed 0` and `--seed 1`): reuse in the forward pass does it all.
Mean IoU on 100 frames of the 15 Hz drive, at 74 to 75 % removed:

- The network trained dense has 51.7 without reuse and 37.9 under it. Estimating its normalisation
  anew under reuse, on 64 frames, without training: 46.2. More epochs without reuse: 39.0 and 38.1.
- Trained under reuse: 51.2 and 49.9 without any term, 50.1 and 50.0 with R1, 50.6 and 49.7 with
  R2, 51.0 and 50.7 with both: the seed counts as much as the terms. At the paper's lambda these
  move what is removed by at most 0.5 points (74.5 to 75.0 %); tenfold, they remove 77.4 and 77.7 %
  and cost 3 to 4 more points. The paper has 20 % removed with R1 alone, 33 % with R2, and about
  50 % with both.
- Figure 7 (seed 0): after 8 epochs 38.4 with 46 frames, 38.8 with 92, 40.7 with 184 and 40.2 with
  366: more frames help, as in the paper, up to half of what there is.
"""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from paper_tables import show
from plotly.subplots import make_subplots
from streets import (
    LAMBDA,
    Settings,
    Streets,
    add_options,
    dense_network,
    kept,
    normalised,
    plan,
    policy_of,
    scenes,
    traced,
    trained,
    tried,
    uniform,
)
from torch import nn

from workloads.writing import write_atomically

OUT = Path(__file__).parent / "out" / "treasure"
NETWORK = "resnet18_scenes"
# H and L of training, and those that are tried afterwards.
TRAINED_WITH = (16, 8)
UNIFORM = (TRAINED_WITH, (8, 8), (12, 8), (20, 8), (24, 8))
# Weights of R1 and R2; None is training without reuse in the forward pass.
TERMS: Mapping[str, tuple[float, float] | None] = {
    "no reuse, no terms": None,
    "reuse alone": (0, 0),
    "R1, within frames": (LAMBDA, 0),
    "R2, between frames": (0, LAMBDA),
    "R1 and R2": (LAMBDA, LAMBDA),
    "R1 and R2, tenfold": (10 * LAMBDA, 10 * LAMBDA),
}
# Every so-manieth clip is learned from.
STEPS = (8, 4, 2, 1)


def settings_of(model: nn.Module, streets: Streets, hashes: int, length: int) -> Settings:
    """One H and L in all layers but the first."""
    return uniform(traced(model, streets, streets.train, 2), hashes, length)


def judged(model: nn.Module, streets: Streets, frames: int, judged: int) -> dict[str, Any]:
    """All H and L on the frames to choose on, those of training on the frames to judge on."""
    given = [settings_of(model, streets, *each) for each in UNIFORM]
    return {
        "points": [tried(model, streets, streets.choose, frames, each) for each in given],
        "judged": tried(model, streets, streets.judge, judged, given[0]),
    }


def ablation(streets: Streets, given: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """The network before, and after training with each of the terms."""
    start = dense_network(NETWORK, streets, given.out / NETWORK / "dense").model
    folder = given.out / f"terms_{given.seed}"
    judge = partial(judged, streets=streets, frames=given.frames, judged=given.judged)
    trained_with = settings_of(start, streets, *TRAINED_WITH)
    reuse = policy_of(trained_with)
    anew = normalised(start, streets, trained_with)
    found = {
        "nothing": kept(folder / "before.json", partial(judge, start)),
        "nothing, but normalised anew": kept(folder / "normalised.json", partial(judge, anew)),
    }
    for name, weights in TERMS.items():
        intra, inter = weights or (0, 0)
        aware = plan(
            NETWORK, given.epochs, share=0.5, intra_weight=intra, inter_weight=inter,
            seed=given.seed,
        )  # fmt: skip
        place = folder / name.replace(", ", "_").replace(" ", "_")
        model = trained(
            NETWORK, start, streets, place, aware, reuse=None if weights is None else reuse
        ).model
        found[name] = kept(place / "judged.json", partial(judge, model))
    return found


def frame_thresholds(streets: Streets, given: argparse.Namespace) -> dict[int, list[float]]:
    """Score under reuse after each epoch of SA-training, by the number of frames trained on."""
    start = dense_network(NETWORK, streets, given.out / NETWORK / "dense").model
    reuse = policy_of(settings_of(start, streets, *TRAINED_WITH))
    aware = plan(NETWORK, given.frame_epochs, share=0.5, intra_weight=LAMBDA, inter_weight=LAMBDA)
    every = max(1, len(streets.choose) * streets.choose.length // given.frames)
    chosen = replace(streets.choose, starts=list(streets.choose.starts)[::every])
    found = {}
    for step in STEPS:
        clips = replace(streets.train, starts=list(streets.train.starts)[::step])
        count = len(clips) * clips.length
        folder = given.out / "frames" / str(count)
        trained(
            NETWORK,
            start,
            replace(streets, train=clips),
            folder,
            aware,
            reuse=reuse,
            validation=chosen,
        )
        rows = (folder / "curves.csv").read_text().splitlines()
        column = rows[0].split(",").index(f"validation_{streets.score}")
        found[count] = [float(row.split(",")[column]) for row in rows[1:]]
    return found


def told(found: Mapping[str, Mapping[str, Any]]) -> list[dict[str, object]]:
    """Lines of the ablation's table."""
    original = found["nothing"]["judged"]["dense"]
    return [
        {
            "trained with": name,
            "without reuse": f"{100 * each['judged']['dense']:.1f}",
            "under reuse": f"{100 * each['judged']['score']:.1f}",
            "points lost": f"{100 * (original - each['judged']['score']):.1f}",
            "removed": f"{each['judged']['removed']:.1%}",
            "under reuse, frames to choose on": f"{100 * each['points'][0]['score']:.1f}",
        }
        for name, each in found.items()
    ]


def figure(terms: Mapping[str, Mapping[str, Any]], frames: Mapping[int, list[float]]) -> go.Figure:
    """Score against what is removed by terms, and Figure 7."""
    made = make_subplots(
        rows=1, cols=2,
        subplot_titles=("Ablation: five H in all layers", "Figure 7: frames trained on"),
    )  # fmt: skip
    for name, each in terms.items():
        ordered = sorted((100 * p["removed"], 100 * p["score"]) for p in each["points"])
        made.add_scatter(
            x=[x for x, _ in ordered], y=[y for _, y in ordered], name=name,
            mode="markers+lines", row=1, col=1, legend="legend",
        )  # fmt: skip
    for count, scores in frames.items():
        made.add_scatter(
            x=list(range(1, len(scores) + 1)), y=[100 * each for each in scores],
            name=f"{count} frames", row=1, col=2, legend="legend2",
        )  # fmt: skip
    made.update_xaxes(title_text="removed inputs, %", col=1)
    made.update_xaxes(title_text="epoch of SA-training", dtick=1, col=2)
    made.update_yaxes(title_text="mean IoU under reuse, frames to choose on, %")
    made.update_layout(
        template="plotly_white", height=600, title="ResNet-18 parsing street scenes",
        legend={"x": 0.02, "y": 0.02, "yanchor": "bottom"},
        legend2={"x": 0.98, "y": 0.02, "xanchor": "right", "yanchor": "bottom"},
    )  # fmt: skip
    return made


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_options(parser, OUT)
    parser.add_argument("--epochs", type=int, default=8, help="with each of the terms")
    parser.add_argument("--seed", type=int, default=0, help="of the ablation's training")
    parser.add_argument("--frame-epochs", type=int, default=8, help="of Figure 7; 0 leaves it out")
    parser.add_argument("--frames", type=int, default=32, help="to choose on")
    parser.add_argument("--judged", type=int, default=100, help="frames to judge on")
    return parser.parse_args()


def main() -> None:
    """Train, judge; print and plot."""
    given = arguments()
    if given.camvid is None:
        print(f"{__doc__.partition('Answer')[0]}\ngive --camvid FOLDER", file=sys.stderr)
        sys.exit(2)
    streets = scenes(given.camvid, tuple(given.drives), tuple(given.size))
    terms = ablation(streets, given)
    show(f"Ablation: {NETWORK} on the frames to judge on, H, L = {TRAINED_WITH}", told(terms))
    frames = frame_thresholds(streets, given) if given.frame_epochs else {}
    if frames:
        show(
            "Figure 7: mean IoU under reuse after each epoch, frames to choose on",
            [
                {"frames": count, **{f"{i}": f"{100 * s:.1f}" for i, s in enumerate(scores, 1)}}
                for count, scores in frames.items()
            ],
        )
    path = given.out.with_name("016_treasure_terms.html")
    write_atomically(path, figure(terms, frames).to_html(include_plotlyjs=True))
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
