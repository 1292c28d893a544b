"""`flowtailor refine`: render what the policy designs, fit the ensemble again, go on with GRPO.

A round draws designs of the guided policy for the training prompts and renders those that the ensemble is
unsure of and those that the policy says most (`picks.py`). It fits the ensemble again on all rows and goes
on from the adapter. Before and after, designs for validation prompts are rendered, which nothing learns
from, to tell what the round has brought.

A round works in a run folder of its own, `refine/round-N`, from a copy of what it started with (`start/`);
only when it has finished do its rows, ensemble and policies take their places in the run, so that an
interrupted round leaves the run as it was and goes on later. Pictures that any of these folders knows
are not rendered again. Workflows that are held out stay so: they are not picked.

With `--new-models` a round also tries what was installed since (`newcomers.py`), and SFT goes on before GRPO
does: a new word is about as likely as the others, whatever the prompt, and GRPO would seldom hear it where it
is worth something.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from flowtailor.errors import FlowtailorError

from ..datasets.rows import unscored, weighted_score
from ..datasets.store import Store
from ..workflows.space import Space
from . import fit_reward, grpo, sft
from .catalog import compatible, look, read_world
from .config import Config
from .engines import render
from .known import FILE as KNOWN
from .newcomers import admit, finish, newcomers
from .picks import judge, pick
from .proposals import Proposer
from .provenance import fingerprint
from .renders import rendered_rows
from .rounds import LINEAGE, STARTS, Round, begin, lineage, promote
from .stage import Run, is_done, read_json_lines, stage_output, write_json
from .trained import load_designer, load_ensemble, need

if TYPE_CHECKING:
    from ..models.designing import Designer
    from ..models.reward import RewardEnsemble

PARTS = ("dataset/rows", *STARTS)
PICKS = "designs/picks.parquet"  # in the round's folder: the rows to learn from


def run_stage(config: Config, *, dry_run: bool = False) -> None:
    """Make the rounds that are not up to date, at least one; with `dry_run` say what they would take.

    A round that another one went on from stays as it is.
    """
    if not dry_run:
        finish(config)
    for number in range(1, max(1, config.refine.rounds) + 1):
        one = Round(config, number)
        last = lineage(one.run.dir)
        if number < last:
            print(f"{one.name}: stays as it is, round {last} went on from it", flush=True)
            continue
        if number == last and is_done(one.run, one.name, one.inputs(), output=f"{one.name}/summary.json"):
            continue
        print(describe(one), flush=True)
        if not dry_run:
            refine(one)


def take_in(config: Config, *, dry_run: bool = False) -> None:
    """`--new-models`: one more round, which tries what was installed since; none where all was tried."""
    run = Run(config)
    need(run.dir, *PARTS)
    if not dry_run:
        finish(config)
    world = compatible(config, look(config))
    words = newcomers(run, world.space)
    print(f"refine: new: {', '.join(words) or 'nothing'}", flush=True)
    if not words:
        return
    if world.engine != run.engine():
        raise FlowtailorError(
            f"the engine is {world.engine} now, and the run's rows are of {run.engine()}: what is new cannot "
            "be compared with them; go back to that version, or start a new run (run.name)"
        )
    one = Round(config, lineage(run.dir) + 1)
    print(describe(one, words), flush=True)
    if not dry_run:
        admit(config, world)
        refine(one, words)


def describe(one: Round, new: Sequence[str] = ()) -> str:
    """What a round would take, in which the words `new` are tried."""
    config, refine = one.config, one.config.refine
    judged = 2 * config.prompts.validation * refine.validation_designs
    return (
        f"{one.name}: {config.prompts.train} prompts with {refine.draws} designs each, at most "
        f"{refine.renders} of them rendered to learn from and {judged} of validation prompts to judge by; "
        f"then the ensemble again{f', {refine.sft_steps} steps of SFT' if new else ''} and "
        f"{refine.grpo_steps} steps of GRPO"
    )


def refine(one: Round, new: Sequence[str] = ()) -> None:
    """Make one round, in which the words `new` are tried; what an interrupted one had finished stays."""
    run, own, config = one.run, one.own, one.config
    need(run.dir, *PARTS)
    if not config.prompts.validation:
        raise FlowtailorError(
            "prompts.validation = 0: refine judges itself on validation prompts; set it above 0"
        )
    started = time.monotonic()
    begin(one)
    if not new:  # an attempt that took in new models may have left a policy of its own
        shutil.rmtree(own.path("policy/sft"), ignore_errors=True)
    _, space = read_world(one.start)
    before, picks = draw(one, space, new)
    learn, judged = own.dataset, Store(own.path("validation"))
    known = _known(one)
    on_engines = partial(render, label="refine")
    rendered_rows(config, picks, learn, known=(), render=on_engines, label=f"{one.name}, to learn from")
    rows_before = rendered_rows(config, before, judged, known=known, render=on_engines, label=one.name)
    fit_reward.run_stage(own.config)
    if new:
        teach(one)
    go_on(one)
    after = answer_again(one, space)
    rows_after = rendered_rows(config, after, judged, known=known, render=on_engines, label=one.name)
    write_json(own.path("summary.json"), summarise(one, rows_before, rows_after, picks))
    promote(one, time.monotonic() - started)
    print(_told(one), flush=True)


def draw(one: Round, space: Space, new: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows to render: the policy's designs for validation prompts, and the picks for training prompts."""
    config, own = one.config, one.own
    _bring_up_to_date(own.dataset, one.run.dataset.rows(), config.scorers.weights)
    inputs = one.inputs() | {"reward": None, "grpo": None, "new": list(new)}
    if not is_done(own, "designs", inputs):
        with stage_output(own, "designs", inputs) as folder:
            proposer = Proposer(one, space, *_load(one.start, one.start, space))
            proposer.answers().to_parquet(folder / "before.parquet", index=False)
            candidates, trials = proposer.candidates(new)
            picks = pick(candidates, config.refine.renders, trials)
            picks.to_parquet(folder / Path(PICKS).name, index=False)
    before, picks = (pd.read_parquet(own.path(file)) for file in ("designs/before.parquet", PICKS))
    reasons = ", ".join(f"{count} {why}" for why, count in picks["why"].value_counts().items()) or "none"
    print(f"{one.name}: {len(picks)} designs picked ({reasons}), {len(before)} to judge by", flush=True)
    return before, picks


def _bring_up_to_date(store: Store, collected: pd.DataFrame, scorers: Iterable[str]) -> None:
    """Add what was collected, and drawn or scored again, since an earlier attempt at the round."""
    missing = store.missing(collected, scorers)
    taken = missing["row_id"].isin(store.rows()["row_id"])
    store.append(missing[~(taken & unscored(missing, scorers))])


def teach(one: Round) -> None:
    """SFT from the policy of the start, taught by the new ensemble; what it had designed stays new to it."""
    own, start = one.own, one.start.path("policy/sft")
    again = {"base": str(start.resolve()), "steps": one.config.refine.sft_steps}
    sft.train_part(own.config.changed(sft=again), own, "policy/sft")
    shutil.copyfile(start / KNOWN, own.path("policy/sft") / KNOWN)


def go_on(one: Round) -> None:
    """GRPO from the adapter of the start against the new ensemble; the log goes on as well."""
    config, own = one.taught.config, one.own
    start = one.start.path("policy/grpo")
    inputs = grpo.stage_inputs(config, own) | {
        "policy": one.taught.path("policy/sft/model.safetensors"),
        "rows": None,
        "start": start / "adapter_model.safetensors",
        "steps": config.refine.grpo_steps,
    }
    if is_done(own, "policy/grpo", inputs):
        return
    with stage_output(own, "policy/grpo", inputs) as folder:
        grpo.train_adapter(
            config.changed(grpo={"steps": config.refine.grpo_steps}),
            own.path("reward"),
            f"refine-{fingerprint(inputs)[:12]}",
            folder,
            start=start,
            seed=one.number,
        )
        earlier, later = (read_json_lines(place / "log.jsonl") for place in (start, folder))
        (folder / "log.jsonl").write_text("".join(json.dumps(e) + "\n" for e in joined(earlier, later)))
        write_json(folder / LINEAGE, {"round": one.number})


def joined(earlier: list[dict[str, Any]], later: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Two logs as one, whose steps count on."""
    last = earlier[-1]["step"] if earlier else 0
    steps = ("step", "audit_step")
    return earlier + [e | {name: e[name] + last for name in steps if name in e} for e in later]


def answer_again(one: Round, space: Space) -> pd.DataFrame:
    """Rows of the new policy's designs for validation prompts."""
    own = one.own
    inputs = {"policy": own.path("policy/grpo"), **one.inputs()}
    if not is_done(own, "after", inputs):
        with stage_output(own, "after", inputs) as folder:
            proposer = Proposer(one, space, *_load(one.taught, own, space))
            proposer.answers().to_parquet(folder / "after.parquet", index=False)
    return pd.read_parquet(own.path("after/after.parquet"))


def summarise(one: Round, before: pd.DataFrame, after: pd.DataFrame, picks: pd.DataFrame) -> dict[str, Any]:
    """`summary.json`: the round's numbers on rendered validation prompts, and what they cost."""
    from ..models.reward import RewardEnsemble

    own, weights = one.own, one.config.scorers.weights
    old, new = (RewardEnsemble.load(run.path("reward")) for run in (one.start, own))

    def foreseen(rows: pd.DataFrame, ensemble: RewardEnsemble) -> pd.DataFrame:
        predictions = ensemble.predict_rows(rows)
        mean_r, std_r = predictions.score(weights)
        return rows.assign(score=weighted_score(rows, weights), predicted=mean_r, std=std_r)

    learned = own.dataset.rows()
    mine = learned.loc[learned["row_id"].isin(picks["row_id"])]
    return {
        "round": one.number,
        "picked": {str(why): int(count) for why, count in picks["why"].value_counts().items()},
        "failed": int(mine["error_type"].notna().sum()),
        "judged": len(set(before["row_id"]) | set(after["row_id"])),
        "rows": len(learned),
        "grpo_steps": one.config.refine.grpo_steps,
        **judge(foreseen(before, old), foreseen(before, new), foreseen(after, new)),
    }


def _load(taught: Run, own: Run, space: Space) -> tuple[Designer, RewardEnsemble]:
    """The adapter of `own` on the SFT policy of `taught`, and the ensemble of `own`."""
    return load_designer(taught, space, adapter=own.path("policy/grpo")), load_ensemble(own)


def _known(one: Round) -> list[Store]:
    """Where pictures of validation prompts may be already: the collection, the audits, earlier rounds."""
    earlier = (f"refine/round-{number}/validation" for number in range(1, one.number))
    return [Store(one.run.path(place)) for place in ("dataset", "policy/audit", *earlier)]


def _told(one: Round) -> str:
    """The round in one line."""
    summary = json.loads(one.own.path("summary.json").read_text())

    def change(name: str) -> str:
        values = [summary[side][name] for side in ("before", "after")]
        return " -> ".join("-" if value is None else f"{value[0]:.3f}" for value in values)

    return (
        f"{one.name}: on validation prompts the rendered score went {change('score')}, the ensemble's rank "
        f"correlation {change('spearman_within_prompt')}, predicted less rendered {change('bias')}"
    )
