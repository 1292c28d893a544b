"""Models that were installed after the training: they enter the run, are tried, and change nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import conftest
import pandas as pd
import pytest
import tiny_refine
import torch
from tiny_refine import Faked, complete_run, inputs_of

from flowtailor.datasets.store import Store
from flowtailor.errors import FlowtailorError
from flowtailor.models.policy import Policy
from flowtailor.pipelines import catalog, collect, refine, rounds, sft
from flowtailor.pipelines import newcomers as newcomers_file
from flowtailor.pipelines.catalog import World, compatible, read_world
from flowtailor.pipelines.config import Config
from flowtailor.pipelines.known import read_known
from flowtailor.pipelines.newcomers import admit, finish, newcomers
from flowtailor.pipelines.rounds import Round
from flowtailor.pipelines.stage import Run, is_done, record
from flowtailor.workflows.space import Space

config, faked = tiny_refine.config, tiny_refine.faked  # fixtures


@pytest.fixture
def larger(monkeypatch: pytest.MonkeyPatch) -> World:
    """What the engine offers after another checkpoint was installed, whose name comes first."""
    key = ("CheckpointLoaderSimple", "ckpt_name")
    monkeypatch.setitem(conftest.INSTALLED, key, ["a_watercolour.ckpt", *conftest.INSTALLED[key]])
    catalog = conftest.saved_catalog("0.3.75")
    return World("comfyui-0.3.75", catalog, Space.default(catalog))


def test_a_new_model_is_tried_until_it_has_rows(
    config: Config,
    faked: Faked,
    larger: World,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(refine, "look", lambda config: larger)
    run, word = Run(config), "ckpt_name=a_watercolour.ckpt"
    faked.fail_at = "fit"
    with pytest.raises(KeyboardInterrupt):
        refine.take_in(config)
    faked.fail_at = ""
    refine.take_in(config)
    assert f"refine: new: {word}" in capsys.readouterr().out
    learned = Store(run.path("dataset")).rows()
    tried = learned.loc[[word in text.split() for text in learned["tokens"]]]
    assert json.loads(run.path("refine/summary.json").read_text())["picked"]["new"] == 2
    assert tried["prompt"].nunique() >= 2
    kept = {name: inputs for name, inputs in inputs_of(config).items() if name != "policy/score_conditioned"}
    assert all(is_done(run, name, inputs) for name, inputs in kept.items())
    assert not run.path("policy/score_conditioned").exists()  # it was an adapter on the former policy
    assert [call for call in faked.calls if call != "render"] == ["fit", "teach", "train 1"]
    assert run.path("policy/sft/taught").is_file()
    done = len(faked.calls)
    refine.take_in(config)
    assert "refine: new: nothing" in capsys.readouterr().out
    assert len(faked.calls) == done


def test_a_model_that_came_with_another_engine_is_not_taken_in(
    config: Config, faked: Faked, larger: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pictures could not be compared with the run's."""
    monkeypatch.setattr(refine, "look", lambda config: replace(larger, engine="comfyui-0.30.0"))
    with pytest.raises(FlowtailorError, match=r"is comfyui-0\.30\.0 now.*rows are of comfyui-0\.3\.75"):
        refine.take_in(config)
    assert not faked.calls
    assert not Run(config).path(newcomers_file.ADMITTED).exists()


def test_the_catalog_of_a_trained_run_is_left_to_refine(
    config: Config, larger: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "look", lambda config: larger)
    before = Run(config).path("catalog.json").read_text()
    with pytest.raises(FlowtailorError, match=r"ckpt_name=a_watercolour\.ckpt: .*refine --new-models"):
        catalog.write_catalog(config)
    assert Run(config).path("catalog.json").read_text() == before


def test_a_round_that_was_killed_while_it_took_its_place_is_finished(
    config: Config, faked: Faked, larger: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refine, "look", lambda config: larger)
    run, whole = Run(config), rounds._promote_rows

    def killed(one: Round) -> None:
        whole(one)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(rounds, "_promote_rows", killed)
        refine.take_in(config)
    assert not run.path("policy/sft/taught").exists()
    done = len(faked.calls)
    refine.take_in(config)
    assert len(faked.calls) == done
    assert run.path("policy/sft/taught").is_file()
    assert json.loads(run.path("policy/grpo/refined.json").read_text()) == {"round": 1}
    assert is_done(run, "refine/round-1", Round(config, 1).inputs(), output="refine/round-1/summary.json")
    assert not Round(config, 1).own.path(rounds.PROMOTING).exists()


def test_a_plain_round_uses_nothing_of_one_that_was_to_take_in_new_models(
    config: Config, faked: Faked, larger: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refine, "look", lambda config: larger)
    run = Run(config)
    faked.fail_at = f"train {config.refine.grpo_steps}"
    with pytest.raises(KeyboardInterrupt):
        refine.take_in(config)
    drawn = set(Round(config, 1).own.dataset.rows()["row_id"])
    faked.fail_at = ""
    refine.run_stage(config)
    assert faked.calls.count("teach") == 1
    assert not run.path("policy/sft/taught").exists()
    assert drawn <= set(run.dataset.rows()["row_id"])  # what was rendered for the former picks is kept


@pytest.fixture
def killed(config: Config, faked: Faked, larger: World, monkeypatch: pytest.MonkeyPatch) -> Config:
    """Of a run whose round was killed between its rows and its policies."""

    def kill(one: Round) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(refine, "look", lambda config: larger)
        patch.setattr(rounds, "_promote_rows", kill)
        refine.take_in(config)
    return config


def test_such_a_round_counts_as_made_by_the_configuration_that_made_it(killed: Config) -> None:
    later = killed.changed(sft={"steps": 7})
    rounds.finish(later)
    assert rounds.lineage(Run(killed).dir) == 1
    assert not is_done(Run(later), "policy/sft", inputs_of(later)["policy/sft"])
    assert is_done(Run(killed), "policy/sft", inputs_of(killed)["policy/sft"])


def test_such_a_round_is_finished_where_one_of_its_results_was_on_its_way(killed: Config) -> None:
    run = Run(killed)
    run.path("reward").rename(run.path(".reward.old"))  # as `stage_output` sets a former output aside
    rounds.finish(killed)
    assert rounds.lineage(run.dir) == 1
    assert run.path("reward").is_dir() and not run.path(".reward.old").exists()


def test_such_a_round_does_not_overwrite_what_was_trained_since(killed: Config) -> None:
    run = Run(killed)
    run.path("policy/sft/trained_anew").touch()
    rounds.finish(killed)
    assert rounds.lineage(run.dir) == 0
    assert run.path("policy/sft/trained_anew").exists()
    assert not Round(killed, 1).own.path(rounds.PROMOTING).exists()


def test_a_round_that_began_before_a_model_was_installed_begins_again(
    config: Config, faked: Faked, larger: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refine, "look", lambda config: larger)
    faked.fail_at = "fit"
    with pytest.raises(KeyboardInterrupt):
        refine.run_stage(config)
    faked.fail_at = ""
    refine.take_in(config)
    one = Round(config, 1)
    assert "ckpt_name=a_watercolour.ckpt" in read_world(one.own)[1].vocabulary
    assert "teach" in faked.calls


def test_sft_goes_on_from_the_policy_that_the_round_started_with(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, one = [], Round(config, 1)

    def train_part(config: Config, run: Run, name: str) -> None:
        shown.append((config.sft, run.dir, name))
        run.path(name).mkdir(parents=True)
        run.path(f"{name}/known.json").write_text("[]")

    monkeypatch.setattr(sft, "train_part", train_part)
    rounds.begin(one)
    refine.teach(one)
    [(options, place, part)] = shown
    assert (options.base, options.steps) == (str(one.start.path("policy/sft").resolve()), 40)
    assert (place, part) == (one.own.dir, "policy/sft")
    assert read_known(one.own) == read_known(one.run) != []  # its own designs stay new to it


def test_the_first_upscaler_is_tried_though_no_value_says_it(
    faked: Faked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def offered(*upscalers: str) -> World:
        monkeypatch.setitem(conftest.INSTALLED, ("UpscaleModelLoader", "model_name"), list(upscalers))
        catalog = conftest.saved_catalog("0.3.75")
        return World("comfyui-0.3.75", catalog, Space.default(catalog))

    config = complete_run(tmp_path, offered().space, seed=2)  # trials of some seeds are held-out workflows
    monkeypatch.setattr(refine, "look", lambda config: offered("u.pth"))
    refine.take_in(config)
    assert "refine: new: UpscaleModelLoader, ImageUpscaleWithModel\n" in capsys.readouterr().out
    assert json.loads(Run(config).path("refine/summary.json").read_text())["picked"]["new"] == 2
    refine.take_in(config)
    assert "refine: new: nothing" in capsys.readouterr().out


def test_new_models_are_tried_by_turns(config: Config, faked: Faked, monkeypatch: pytest.MonkeyPatch) -> None:
    key = ("CheckpointLoaderSimple", "ckpt_name")
    monkeypatch.setitem(conftest.INSTALLED, key, [*conftest.INSTALLED[key], "u.ckpt", "v.ckpt"])
    catalog = conftest.saved_catalog("0.3.75")
    monkeypatch.setattr(refine, "look", lambda _: World("comfyui-0.3.75", catalog, Space.default(catalog)))
    # Two trials a prompt: one of each model.
    config = config.changed(prompts={"train": 6}, refine={"renders": 12})
    refine.take_in(config)
    picks = pd.read_parquet(Run(config).path("refine/round-1/designs/picks.parquet"))
    tried = [set(text.split()) for text in picks.loc[picks["why"] == "new", "tokens"]]
    assert [sum(f"ckpt_name={model}.ckpt" in words for words in tried) for model in "uv"] == [3, 3]


def test_a_round_that_could_try_nothing_is_refused(
    config: Config, faked: Faked, larger: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refine, "look", lambda config: larger)
    monkeypatch.setattr(newcomers_file, "including", lambda *_, **options: None)
    with pytest.raises(FlowtailorError, match=r"watercolour\.ckpt: no design has a place"):
        refine.take_in(config)
    assert not faked.calls


def test_a_new_word_is_about_as_likely_as_its_siblings(config: Config, larger: World) -> None:
    run = Run(config)
    _, space = read_world(run)
    sft = run.path("policy/sft")
    before = Policy.load(sft, space.vocabulary)
    record(run, "collect", collect.stage_inputs(config), output="dataset", seconds=1.0)
    larger = compatible(config, larger)
    admit(config, larger)
    assert newcomers(run, larger.space) == ["ckpt_name=a_watercolour.ckpt"]  # known, but never tried
    assert all(is_done(run, name, inputs) for name, inputs in inputs_of(config).items())
    assert is_done(run, "collect", collect.stage_inputs(config), output="dataset")
    after = Policy.load(sft, larger.space.vocabulary, {"grpo": run.path("policy/grpo")})
    rows, old = (policy.model.get_input_embeddings().weight for policy in (after, before))
    assert isinstance(rows, torch.Tensor) and isinstance(old, torch.Tensor)
    assert torch.equal(rows[before.columns], old[before.columns])
    siblings = [id_ for word, id_ in before.vocabulary.ids.items() if word.startswith("ckpt_name=")]
    apart = rows[after.vocabulary.ids["ckpt_name=a_watercolour.ckpt"]] - old[siblings].mean(0)
    assert apart.norm() < old[siblings].mean(0).norm()


def test_what_was_cut_short_in_admitting_is_finished(
    config: Config, larger: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was up to date is, or the next `flowtailor run` would train it again."""
    larger, run, whole = compatible(config, larger), Run(config), newcomers_file.write_world

    def killed(place: Run, world: World) -> None:
        if place.dir == run.dir:  # the policy knows the words already
            raise KeyboardInterrupt
        whole(place, world)

    with monkeypatch.context() as patched:
        patched.setattr(newcomers_file, "write_world", killed)
        with pytest.raises(KeyboardInterrupt):
            admit(config, larger)
    later = config.changed(sft={"steps": 7})
    finish(later)
    assert all(is_done(run, name, inputs) for name, inputs in inputs_of(config).items())
    assert not is_done(run, "policy/sft", inputs_of(later)["policy/sft"])  # nobody made it with these steps
    assert read_world(run)[1].vocabulary == larger.space.vocabulary
    assert not run.path(newcomers_file.ADMITTING).exists()
