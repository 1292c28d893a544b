"""Adds runs' rows to those that ship: scores and seconds, without the pictures.

    python benchmarks/ship_rows.py runs/studio                # writes datasets/data: studio.parquet, a card
    python benchmarks/ship_rows.py runs/studio runs/studio-study --changed sharpness

The rows of an unfinished collection are as good: who begins with them renders the rest. Seconds are those of
the first run's machine at its usual pace. Hours are of several machines, none of which is always as fast, so
that every stretch of twenty rows of an hour has a pace of its own; and a row that is still far from what its
workflow usually takes (an engine was reading a checkpoint) is told as usual. What a changed scorer said of
rows that no run has is forgotten; the other scorers' word still counts.
"""

from __future__ import annotations

from functools import reduce
from pathlib import Path

import numpy as np
import pandas as pd
import script
from scipy.sparse import csr_array, diags_array, eye_array
from scipy.sparse.linalg import spsolve

from flowtailor.datasets.card import STUDIO_LICENCES, dataset_card
from flowtailor.datasets.rows import score_column
from flowtailor.datasets.shipped import SHIPPED, read_rows, write_rows
from flowtailor.datasets.store import Store
from flowtailor.errors import FlowtailorError, told_in_one_line

FILE = SHIPPED / "studio.parquet"
FACTS = {
    "Pairs": "the studio profile's plan; 80 prompts x 60 workflows x 2 seeds, all with all "
    "(docs/STUDIO_STUDY.md); what teachers and policies designed, workflows unlike all that were known, and "
    "held-out prompts to judge by (docs/EXPERIMENTS.md)",
    "Licences": STUDIO_LICENCES,
    "Scores": "a row that is older than a scorer has no score of it",
}
STRETCH = 20  # rows drawn after one another, which share a pace
ROUNDS = 30  # of reweighting; the paces then stand still
CLOSE = 1e-5  # of the logarithm; nearer than that a row counts no more
FLOOR = 1e-6  # of the normal equations, which leave a constant between workflows and paces open
UNUSUAL = 0.3  # of the logarithm; renders of one workflow scatter by 0.06


def main() -> None:
    parser = script.parser(__doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="the folder of a run")
    parser.add_argument("--changed", nargs="+", default=[], metavar="SCORER", help="that are new since")
    arguments = parser.parse_args()
    parts = [drawn(run) for run in arguments.runs]
    if FILE.exists():
        forgotten = {score_column(name): np.nan for name in arguments.changed}
        parts.append(read_rows(str(FILE)).assign(**forgotten))
    rows = reduce(joined, parts)
    write_rows(rows, FILE)
    card = dataset_card(
        rows.assign(image=None), name="the studio", license="mit", facts=FACTS, files=FILE.name
    )
    FILE.with_name("README.md").write_text(card)
    print(f"{FILE}: {len(rows)} rows, {FILE.stat().st_size / 1e6:.1f} MB")


def drawn(run: Path) -> pd.DataFrame:
    """The rows that a run drew itself: those of a head start ship already."""
    rows = Store(run / "dataset").settled()
    rows = rows.loc[rows["image"].notna() | rows["error_type"].notna()]
    if rows.empty:
        raise FlowtailorError(f"{run}: has drawn no rows; collect some with flowtailor collect")
    return rows


def joined(rows: pd.DataFrame, shipped: pd.DataFrame) -> pd.DataFrame:
    """All rows, the run's where both have one; all seconds at the run's usual pace."""
    others = shipped.loc[~shipped["row_id"].isin(rows["row_id"])]
    both = pd.concat([rows, others], ignore_index=True)
    ours = pd.Series(both.index < len(rows), both.index)
    stretch = stretches(both["created_at"], ours)
    log_r = at_the_runs_pace(both["seconds"].map(np.log), both["tokens"], stretch, ours)
    usual_r = log_r.groupby(both["tokens"]).transform("median")
    return both.assign(seconds=log_r.mask((log_r - usual_r).abs() > UNUSUAL, usual_r).map(np.exp))


def stretches(created_at: pd.Series, ours: pd.Series) -> pd.Series:
    """A name for the stretch in which each row was drawn, the run's own (`ours`) apart from the others."""
    hour = ours.map({True: "run ", False: "other "}) + created_at.str[:13]
    place = created_at.groupby(hour).rank(method="first").astype(int) - 1
    return hour + " " + (place // STRETCH).astype(str)


def at_the_runs_pace(log_r: pd.Series, tokens: pd.Series, stretch: pd.Series, ours: pd.Series) -> pd.Series:
    """Logarithms of seconds as they would be at the pace of the run's median row.

    Each is what its workflow takes and the pace of its stretch, by least absolute deviations (least squares,
    reweighted): a stretch of one workflow tells nothing of what that takes, a few rows that were drawn among
    others do. Does not know the pace of a stretch that shares no workflow with the run, nor by way of others.
    """
    told_r = log_r.notna().to_numpy()
    (workflow_r, workflows), (stretch_r, stretches) = pd.factorize(tokens), pd.factorize(stretch)
    places = np.concatenate([workflow_r, len(workflows) + stretch_r])
    sums = csr_array((np.ones(len(places)), (np.tile(np.arange(len(log_r)), 2), places)))
    measured, weight_r = log_r.fillna(0.0).to_numpy(), told_r.astype(float)
    floor = FLOOR * eye_array(len(workflows) + len(stretches))  # what no row tells stays at 0
    for _ in range(ROUNDS):
        weighted = sums.T @ diags_array(weight_r)
        parts = np.asarray(spsolve((weighted @ sums + floor).tocsc(), weighted @ measured))
        weight_r = told_r / np.maximum(np.abs(measured - sums @ parts), CLOSE)
    pace_r = pd.Series(parts[len(workflows) + stretch_r], log_r.index)
    return log_r - pace_r + pace_r[ours].median()


if __name__ == "__main__":
    with told_in_one_line("ship"):
        main()
