"""The studio study in words, tables and a picture; every number comes from the rows.

Axis suffixes: P prompts, W workflows, S seeds of a prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from choosing import (
    different_bests,
    different_bests_by_chance,
    gain_over_fixed,
    helped,
    pareto_front,
)
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from variance import Effects, interaction_ratio, over_prompts, shares

from flowtailor.datasets.rows import weighted_score
from flowtailor.errors import FlowtailorError
from flowtailor.markdown import markdown_table
from flowtailor.models.metrics import noise_ceiling
from flowtailor.pipelines.statistics import Interval, bootstrap_mean
from flowtailor.workflows.codec import canonical_words
from flowtailor.workflows.counterfactual import LEFT_OUT, counterfactuals
from flowtailor.workflows.graph import Workflow
from flowtailor.workflows.space import Space
from flowtailor.workflows.summary import summary

WEIGHTED = "weighted score"
PAUSE_S = 120.0  # a longer gap between blocks of rows was no rendering
HARM = 0.1  # of the score; a prompt that loses more was better off without
TITLE = "# Does the workflow matter? A study of the studio"
VARIANCE = """\
Shares of the variance of one picture's score with 95% intervals over prompts (unbiased components of a
random effects analysis of variance). *Seed* is what a seed does to all workflows of its prompt alike, *noise*
what it does to each alone. F is the mean square of the interaction over that of the noise, 1 on average where
all prompts rank the workflows alike. The ceiling is the rank correlation within a prompt that a perfect
prediction would reach against pictures of one seed."""
CHOOSING = """\
The best workflow of each prompt is chosen on one seed and measured on the other, both ways round, against the
best fixed workflow chosen on the same seed, in standard deviations of the score over all pictures. A workflow
counts as a different best if it wins 5% of the prompts on one seed and on the other scores no less over them
than the best fixed one; *by chance* is the same count with the interaction taken out of the scores."""
SECONDS = """\
Fixed workflows that no other beats in score and seconds at once (median seconds; those of a workflow are
uncertain by some 15% where the machine was not always as fast):"""
KINDS = """\
The best workflow of a kind against the best of all others, both chosen per prompt on one seed and measured on
the other: the share of prompts that the kind helps (one half: no difference), by how many standard deviations
over all prompts, and how much longer it takes than the others do on average."""
PARTS = f"""\
What one part does: a workflow against the same one without it, where the study has both; mean over seeds,
intervals over prompts. *Harmed* are prompts that lose more than {HARM:g}."""
MONTAGE = """\
For the first 48 prompts by alphabet, from left to right: a picture of the best workflow, of the worst one,
and the drawing that the prompt was made from, which no workflow has seen."""


class Part(NamedTuple):
    """What one workflow of a study has and another has not, or has as `change`."""

    component: str
    change: str
    with_w: int
    without_w: int


@dataclass(frozen=True)
class Study:
    """The rows as arrays whose axes have the same order everywhere."""

    scores: dict[str, np.ndarray]  # score_PWS of the weighted score and of each scorer; a failed render: 0
    seconds_W: np.ndarray  # median: the first picture with a model takes longer
    flows: list[Workflow]
    parts: list[Part]
    weights: dict[str, float]
    engine: str
    failed: int
    engines: int
    drawn: int  # pictures, besides the rows that were taken over
    drawn_per_s: float  # by the clock, with scoring

    @classmethod
    def of(cls, rows: pd.DataFrame, weights: Mapping[str, float], space: Space, *, engines: int) -> Study:
        """From rows of the dataset; FlowtailorError where they are not all prompts with all workflows."""
        rows = rows.sort_values(["prompt", "workflow_key", "seed"])
        prompts, workflows = rows["prompt"].nunique(), rows["workflow_key"].nunique()
        seeds = rows.groupby(["prompt", "workflow_key"]).size()
        if seeds.nunique() != 1 or len(seeds) != prompts * workflows:
            raise FlowtailorError(
                "not every prompt was rendered with every workflow on as many seeds; "
                "the same command renders what is missing"
            )
        shape = (prompts, workflows, -1)
        values = {WEIGHTED: weighted_score(rows, weights)}
        values |= {name: weighted_score(rows, {name: 1.0}) for name in weights}
        drawn = rows[rows["image"].notna()]
        stamps = pd.Series(pd.to_datetime(drawn["created_at"].unique())).sort_values()
        gaps = stamps.diff().dt.total_seconds()
        busy_s = gaps[gaps < PAUSE_S].sum()
        flows = [Workflow.loads(text) for text in rows["workflow"].iloc[: workflows * seeds.iloc[0]].unique()]
        return cls(
            scores={name: value_r.reshape(shape) for name, value_r in values.items()},
            seconds_W=np.nanmedian(rows["seconds"].to_numpy(dtype=float).reshape(shape), axis=(0, 2)),
            flows=flows,
            parts=_parts_of(flows, space),
            weights=dict(weights),
            engine=str(rows["engine"].iloc[0]),
            failed=int(rows["error_type"].notna().sum()),
            engines=engines,
            drawn=len(drawn),
            drawn_per_s=len(drawn) / busy_s if busy_s else float("nan"),
        )


def _parts_of(flows: Sequence[Workflow], space: Space) -> list[Part]:
    """The parts by which two of the workflows differ, and nothing else does."""
    words_W = [canonical_words(flow, space) for flow in flows]
    place = {words: w for w, words in enumerate(words_W)}
    return [
        Part(part.component, part.change, w, place[part.tokens])
        for w, words in enumerate(words_W)
        for part in counterfactuals(words, space)
        if part.tokens in place
    ]


def report(study: Study, picture: str, montage: str) -> str:
    """The whole report as Markdown; `picture` and `montage` are paths as the page names them."""
    prompts, workflows, seeds = study.scores[WEIGHTED].shape
    weights = ", ".join(f"{weight:g} {name}" for name, weight in study.weights.items())
    rate = f", {study.drawn} of them drawn for it at {study.drawn_per_s:.2f}/s on {study.engines} engines"
    facts = (
        f"{prompts} prompts x {workflows} workflows x {seeds} seeds = {study.scores[WEIGHTED].size} pictures "
        f"of `{study.engine}`{'' if np.isnan(study.drawn_per_s) else rate}; "
        f"{study.failed} failed and count as 0. The weighted score is {weights}. "
        "Written by `benchmarks/studio_study.py`."
    )
    parts = [
        TITLE,
        facts,
        f"![Shares of variance; score against seconds]({picture})",
        "## Where the variance comes from",
        VARIANCE,
        _variance(study),
        "## Choosing for the prompt",
        CHOOSING,
        _choosing(study),
        "## Quality against seconds",
        SECONDS,
        _front(study),
        KINDS,
        _kinds(study),
        PARTS,
        _parts(study),
        "## Pictures",
        MONTAGE,
        f"![Best, worst and original of each prompt]({montage})",
    ]
    return "\n\n".join(parts) + "\n"


def _variance(study: Study) -> str:
    def statistic(score_PWS: np.ndarray) -> dict[str, float]:
        # As a logarithm: a ratio's interval over prompts is not symmetric, and ends above 0.
        return {**shares(score_PWS), "log F": float(np.log(interaction_ratio(score_PWS)))}

    lines = []
    for name, score_PWS in study.scores.items():
        found = over_prompts(score_PWS, statistic)
        percents = [_scaled(found[source], 100).told("{:.1f}") for source in Effects._fields]
        ratio = Interval(*np.exp(found["log F"]).tolist())
        lines.append([name, *percents, ratio.told("{:.2f}"), f"{_ceiling(score_PWS):.2f}"])
    return markdown_table(["", *(f"{source} %" for source in Effects._fields), "F", "ceiling"], lines)


def _choosing(study: Study) -> str:
    lines = []
    for name, score_PWS in study.scores.items():
        deviation = float(score_PWS.std())
        gain = bootstrap_mean(gain_over_fixed(score_PWS) / deviation)
        counts = different_bests(score_PWS), different_bests_by_chance(score_PWS)
        lines.append([name, f"{deviation:.3f}", gain.told("{:.2f}"), *(f"{count:.1f}" for count in counts)])
    head = ["", "standard deviation", "gain of choosing", "different bests", "by chance"]
    return markdown_table(head, lines)


def _front(study: Study) -> str:
    score_PW = study.scores[WEIGHTED].mean(axis=2)
    lines = []
    for w in pareto_front(score_PW.mean(axis=0), study.seconds_W):
        score = bootstrap_mean(score_PW[:, w]).told("{:.3f}")
        lines.append([f"{study.seconds_W[w]:.2f}", score, summary(study.flows[w])])
    return markdown_table(["seconds", "score", "workflow"], lines)


def _kinds(study: Study) -> str:
    score_PWS = study.scores[WEIGHTED]
    of_flow = [set(kinds(flow)) for flow in study.flows]
    lines = []
    for kind in sorted(set().union(*of_flow)):
        with_W = np.array([kind in names for names in of_flow])
        if with_W.all():
            continue
        share, gain = helped(score_PWS, with_W)
        longer_s = np.nanmean(study.seconds_W[with_W]) - np.nanmean(study.seconds_W[~with_W])
        gained = _scaled(gain, 1 / float(score_PWS.std())).told("{:.2f}")
        helps = _scaled(share, 100).told("{:.0f}")
        lines.append([kind, str(with_W.sum()), helps, gained, f"{longer_s:+.2f}"])
    return markdown_table(["kind", "workflows", "helps % of prompts", "gain", "seconds"], lines)


def _parts(study: Study) -> str:
    score_PW = study.scores[WEIGHTED].mean(axis=2)
    lines = []
    for part in study.parts:
        gain_P = score_PW[:, part.with_w] - score_PW[:, part.without_w]
        longer_s = study.seconds_W[part.with_w] - study.seconds_W[part.without_w]
        lines.append(
            [
                part.component if part.change == LEFT_OUT else f"{part.component} for {part.change}",
                summary(study.flows[part.without_w]),
                bootstrap_mean(gain_P).told("{:+.3f}"),
                f"{np.mean(gain_P > 0):.0%}",
                f"{np.mean(gain_P < -HARM):.0%}",
                f"{longer_s:+.2f}",
            ]
        )
    return markdown_table(["part", "added to", "gain", "better", "harmed", "seconds"], lines, "llrrrr")


def kinds(flow: Workflow) -> Iterator[str]:
    """What a workflow does beyond the plainest one, and which checkpoints it draws with."""
    classes = [node.class_type for node in flow.nodes.values()]
    if any("Upscale" in name and "Loader" not in name for name in classes):
        yield "upscaling"
    if sum("KSampler" in name for name in classes) > 1:
        yield "second pass"
    if any("Lora" in name for name in classes):
        yield "LoRA"
    for node in flow.nodes.values():
        for name in ("ckpt_name", "unet_name"):
            if name in node.inputs:
                yield f"checkpoint {Path(str(node.inputs[name])).stem}"


def plot(study: Study, path: Path) -> None:
    """Shares of variance as bars beside score against seconds with the front."""
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.2])
    start = np.zeros(len(study.scores))
    each = [shares(score_PWS) for score_PWS in study.scores.values()]
    for source in Effects._fields:
        width = np.array([100 * max(share[source], 0.0) for share in each])
        left.barh(list(study.scores), width, left=start, label=source)
        start += width
    left.invert_yaxis()
    left.set_xlabel("share of the variance of one picture's score, %")
    left.legend(ncols=3, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    score_W = study.scores[WEIGHTED].mean(axis=(0, 2))
    second_W = np.array(["second pass" in kinds(flow) for flow in study.flows])
    for chosen_W, label in ((~second_W, "one pass"), (second_W, "second pass")):
        right.scatter(study.seconds_W[chosen_W], score_W[chosen_W], s=22, label=label)
    front = pareto_front(score_W, study.seconds_W)
    right.plot(study.seconds_W[front], score_W[front], color="0.4", drawstyle="steps-post", label="front")
    right.set_xlabel("seconds a picture")
    right.set_ylabel("mean score")
    right.legend(frameon=False)
    figure.savefig(path, dpi=120)


def _ceiling(score_PWS: np.ndarray) -> float:
    prompt_PWS, workflow_PWS, _ = np.indices(score_PWS.shape)
    return noise_ceiling(prompt_PWS.ravel(), workflow_PWS.ravel(), score_PWS.ravel())


def _scaled(interval: Interval, factor: float) -> Interval:
    return Interval(*(factor * number for number in interval))
