"""The reward ensemble: words as features, learning a known function, reward, saving, unknown words."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from flowtailor.datasets.rows import text_hash
from flowtailor.errors import FlowtailorError
from flowtailor.models import metrics
from flowtailor.models.baselines import boosted_trees, ridge, workflow_mean
from flowtailor.models.calibration import Bars
from flowtailor.models.predictions import Predictions
from flowtailor.models.reward import RewardEnsemble
from flowtailor.models.reward_features import WordTable
from flowtailor.models.reward_fit import FitSettings, MemberFit, Scale, bootstrap, targets, training_set
from flowtailor.models.reward_report import report
from flowtailor.models.text import TextEncoder
from flowtailor.models.traits import prompt_traits

from .synthetic_rows import synthetic_prompts, synthetic_rows

SCORERS = ("match", "crisp")
SETTINGS = FitSettings(epochs=30, batch_size=32, learning_rate=2e-3)


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return synthetic_rows()


def prepare(rows: pd.DataFrame):
    """Vocabulary, scale and tensors of the training rows."""
    training = rows[(rows["prompt_split"] == "train") & (rows["workflow_split"] == "train")]
    vocabulary = sorted({word for text in training["tokens"] for word in text.split()})
    scale = Scale.of(targets(training, SCORERS))
    encoder = TextEncoder.load()
    traits = prompt_traits(synthetic_prompts(training), encoder)
    table = WordTable(vocabulary, encoder)
    return vocabulary, scale, training_set(training, SCORERS, table, encoder, scale, traits)


@pytest.fixture(scope="module")
def ensemble(rows) -> RewardEnsemble:
    """Three members fitted on the synthetic rows."""
    vocabulary, scale, data = prepare(rows)
    nets = []
    for member in range(3):
        fit = MemberFit(data, SETTINGS, member)
        while not fit.done:
            fit.run_epoch()
        nets.append(fit.net)
    known = {text_hash(prompt) for prompt in rows.loc[rows["prompt_split"] == "train", "prompt"]}
    ensemble = RewardEnsemble(nets, vocabulary, SCORERS, scale, "minilm-l6", known=known)
    ensemble.calibrate(rows[rows["prompt_split"] == "validation"])
    return ensemble


def predict(ensemble: RewardEnsemble, frame: pd.DataFrame) -> Predictions:
    return ensemble.predict_rows(frame)


def test_a_new_word_is_read_by_its_name_and_number():
    table = WordTable(["steps=8"], TextEncoder.load())
    words = table.read([["steps=8"], ["steps=9", "ckpt_name=brand_new.safetensors", "<end>"]])
    assert words.index_WT.tolist() == [[1, 0], [2, 3]] or words.index_WT.tolist() == [[1, 0], [3, 2]]
    steps8, steps9 = table.features[1], table.features[words.index_WT[1, 0]]
    assert torch.dist(steps8, steps9) < 0.7 * torch.dist(steps8, table.features[words.index_WT[1, 1]])


def test_held_out_prompts_are_ranked_by_what_suits_their_kind(ensemble, rows):
    """The synthetic scores hold a prompt x component interaction, which no per-workflow mean can know."""
    held_out = rows[(rows["prompt_split"] == "test") & (rows["workflow_split"] == "train")]
    prompt, measured = held_out["prompt"].to_numpy(), held_out["score_match"].to_numpy()
    ranked = metrics.spearman_within(prompt, measured, predict(ensemble, held_out).mean[:, 0])
    training = rows[rows["prompt_split"] == "train"]
    guess = workflow_mean(list(training["tokens"]), training["score_match"].to_numpy())
    guessed = guess(list(held_out["prompt"]), list(held_out["tokens"]))
    mean = metrics.spearman_within(prompt, measured, guessed)
    assert ranked > 0.8
    assert ranked > mean + 0.1


def test_rows_that_are_older_than_a_scorer_teach_what_the_others_say(rows):
    """Of two rows in three `crisp` says nothing: `match` is foreseen better than by the others alone."""
    younger = rows.index % 3 == 0
    held_out = rows[(rows["prompt_split"] == "test") & (rows["workflow_split"] == "train")]

    def ranked(frame: pd.DataFrame) -> list[float]:
        vocabulary, scale, data = prepare(frame)
        fit = MemberFit(data, SETTINGS, 0)
        while not fit.done:
            assert np.isfinite(fit.run_epoch())
        foreseen = predict(RewardEnsemble([fit.net], vocabulary, SCORERS, scale, "minilm-l6"), held_out)
        return [
            metrics.spearman_within(
                held_out["prompt"].to_numpy(), held_out[f"score_{name}"].to_numpy(), foreseen.mean[:, i]
            )
            for i, name in enumerate(SCORERS)
        ]

    (match, crisp), (match_alone, crisp_alone) = (
        ranked(rows.assign(score_crisp=rows["score_crisp"].where(younger))),
        ranked(rows[younger]),
    )
    assert match > match_alone
    assert crisp > crisp_alone - 0.05


def test_bars_of_a_scorer_that_no_validation_row_has_stay_as_they_are(ensemble, rows):
    held_out = rows[rows["prompt_split"] == "validation"]
    young = RewardEnsemble(ensemble._nets, ensemble._table.vocabulary, SCORERS, ensemble.scale, "minilm-l6")
    young.calibrate(held_out.assign(score_crisp=np.nan))
    assert young.bars[0] != Bars() == young.bars[1]
    assert young.widths_O[1] == 1 and np.isfinite(young.widths_O).all()


def test_seconds_are_foreseen(ensemble, rows):
    held_out = rows[rows["prompt_split"] == "test"]
    foreseen, seconds = predict(ensemble, held_out), held_out["seconds"].to_numpy()
    assert metrics.median_relative_error(seconds, foreseen.seconds) < 0.25
    assert (seconds <= foreseen.seconds_latest).mean() == pytest.approx(0.95, abs=0.05)


def test_what_a_scorer_has_not_seen_is_filled_with_what_is_foreseen(ensemble, rows):
    some = rows.head(4).assign(error_type=[None, None, "ComfyTimeout", None])
    some["score_crisp"] = [0.25, np.nan, np.nan, np.nan]
    some.loc[some.index[2], "score_match"] = np.nan
    filled = ensemble.filled(some)
    foreseen = predict(ensemble, some).mean[:, SCORERS.index("crisp")]
    assert list(filled["score_crisp"]) == pytest.approx([0.25, foreseen[1], np.nan, foreseen[3]], nan_ok=True)
    pd.testing.assert_series_equal(filled["score_match"], some["score_match"])
    pd.testing.assert_frame_equal(ensemble.filled(filled), filled)


def test_doubt_is_of_workflows_that_were_not_seen_and_is_a_part_of_the_bar(ensemble, rows):
    test_prompts = rows[rows["prompt_split"] == "test"]
    known, unknown = (
        predict(ensemble, test_prompts[test_prompts["workflow_split"] == split])
        for split in ("train", "test")
    )
    assert known.doubt.mean() < unknown.doubt.mean()
    assert (known.doubt < known.std).all()


def test_what_members_disagree_about_a_prompt_that_they_know_is_not_widened(ensemble, rows, monkeypatch):
    training = rows[rows["prompt_split"] == "train"]
    monkeypatch.setattr(ensemble, "bars", [Bars(1.0, 4.0)] * 3)
    known = predict(ensemble, training).std
    monkeypatch.setattr(ensemble, "known", frozenset())
    assert (known < predict(ensemble, training).std).all()


def test_report_compares_splits_and_baselines_and_is_json(ensemble, rows):
    told = report(ensemble, rows, {"match": 3.0, "crisp": 1.0})
    assert set(told) == {"training", "held_out_prompt", "held_out_workflow", "both"}
    numbers = told["held_out_prompt"]
    assert numbers["spearman_within_prompt"] > numbers["ridge_spearman_within_prompt"]
    assert 0.3 < numbers["coverage_68"] <= 1
    json.dumps(told, allow_nan=False)
    assert told["both"]["workflow_mean_spearman_within_prompt"] is None  # constant where all is new


def test_rows_that_are_older_than_a_scorer_are_reported_by_the_others(ensemble, rows):
    older = rows.assign(score_crisp=rows["score_crisp"].where(np.arange(len(rows)) % 3 > 0))
    told = report(ensemble, older, {"match": 3.0, "crisp": 1.0})["held_out_prompt"]
    assert told["rows"] < told["all_rows"]["rows"] == (rows["prompt_split"] == "test").sum() - told_both(rows)
    assert told["all_rows"]["weights"] == {"match": 3.0}
    assert told["all_rows"]["spearman_within_prompt"] > 0.3


def told_both(rows):
    """How many rows are held out by prompt and by workflow."""
    return ((rows["prompt_split"] == "test") & (rows["workflow_split"] == "test")).sum()


def test_ridge_learns_additive_parts():
    tokens = ["A x=1", "A x=2", "B x=1", "B x=2"] * 5
    scores = np.array([3.0, 2.0, 1.0, 0.0] * 5)
    guess = ridge(tokens, scores, penalty=0.01)
    assert guess(["a fox"] * 3, ["A x=2", "B x=1", "C"]) == pytest.approx([2.0, 1.0, 1.5], abs=0.02)


def test_trees_learn_what_suits_which_prompt():
    prompts, tokens = ["a fox", "a red apple"] * 40, ["A x=1", "A x=1", "B x=1", "B x=1"] * 20
    scores = np.array([1.0, 0.0, 0.0, 0.0] * 20)
    guess = boosted_trees(prompts, tokens, scores, TextEncoder.load())
    assert guess(["a fox", "a red apple"], ["A x=1"] * 2) == pytest.approx([1.0, 0.0], abs=0.1)


def test_reward_is_mean_less_doubt_less_time():
    predictions = Predictions(
        mean=np.array([[0.8, 0.4]]),
        std=np.array([[0.5, 0.5]]),
        doubt=np.array([[0.1, 0.2]]),
        seconds=np.array([2.0]),
        seconds_std=np.array([0.1]),
        seconds_latest=np.array([2.2]),
        scorers=SCORERS,
        correlation=np.ones((2, 2)),
    )
    weights = {"match": 3.0, "crisp": 1.0}
    assert predictions.reward(weights, 0.0, 0.0) == pytest.approx([0.7])
    assert predictions.reward(weights, 2.0, 0.1) == pytest.approx([0.7 - 2 * 0.125 - 0.2])
    with pytest.raises(FlowtailorError, match="beauty"):
        predictions.reward({"beauty": 1.0}, 1.0, 0.0)


def test_saved_and_loaded_it_says_the_same(ensemble, rows, tmp_path):
    ensemble.save(tmp_path)
    loaded = RewardEnsemble.load(tmp_path)
    before, after = predict(ensemble, rows[:40]), predict(loaded, rows[:40])
    assert after.scorers == before.scorers
    for name in ("mean", "std", "seconds", "seconds_std", "seconds_latest"):
        np.testing.assert_allclose(getattr(after, name), getattr(before, name), rtol=1e-6)
    (tmp_path / "member-1.safetensors").unlink()
    with pytest.raises(FlowtailorError, match="fit-reward"):
        RewardEnsemble.load(tmp_path)


def test_answers_do_not_depend_on_company(ensemble, rows):
    together = predict(ensemble, rows[:60]).mean
    alone = np.concatenate([predict(ensemble, rows[i : i + 1]).mean for i in range(0, 60, 7)])
    np.testing.assert_allclose(together[::7], alone, atol=1e-5)
    assert ensemble.predict([], []).mean.shape == (0, 2)


def differences(ensemble, rows, one_M, other_M):
    asked = list(rows["prompt"]), [text.split() for text in rows["tokens"]]
    return ensemble.differences(*asked, one_M, other_M)


def test_members_say_apart_what_the_ensemble_says_together(ensemble, rows):
    some, one_M, other_M = rows[:40], np.arange(0, 40, 2), np.arange(1, 40, 2)
    parts = differences(ensemble, some, one_M, other_M)
    together = predict(ensemble, some).mean
    assert parts.scores.shape == (3, 20, 2)
    np.testing.assert_allclose(parts.scores.mean(0), together[one_M] - together[other_M], atol=1e-9)
    none = np.zeros(0, dtype=int)
    assert differences(ensemble, rows[:0], none, none).scores.shape == (3, 0, 2)


def test_a_workflow_differs_from_itself_in_nothing(ensemble, rows):
    same = differences(ensemble, rows[:9], np.arange(9), np.arange(9)).weighted({"match": 1.0})
    for value_M in (same.score, same.score_std, same.seconds, same.seconds_std):
        np.testing.assert_allclose(value_M, 0, atol=1e-3)


def test_the_bar_of_a_difference_covers_what_two_pictures_show(ensemble, rows):
    """On prompts that neither the members nor the bars have seen."""
    held_out = rows[rows["prompt_split"] == "test"].sort_values("prompt", ignore_index=True)
    same = (held_out["prompt"].to_numpy()[1:] == held_out["prompt"].to_numpy()[:-1]).nonzero()[0]
    foreseen = differences(ensemble, held_out, same + 1, same).weighted({"match": 1.0})
    measured = np.diff(held_out["score_match"].to_numpy())[same]
    assert metrics.coverage(measured, foreseen.score, foreseen.score_std) == pytest.approx(0.68, abs=0.15)


def test_the_bootstrap_draws_whole_prompts():
    prompt_N = torch.arange(100).repeat_interleave(3)
    drawn = torch.bincount(bootstrap(prompt_N, seed=1), minlength=300).reshape(100, 3)
    assert (drawn == drawn[:, :1]).all()
    assert int(drawn[:, 0].sum()) == 100
    assert 0.5 < float((drawn[:, 0] > 0).float().mean()) < 0.75


def test_an_interrupted_fit_ends_as_if_it_had_not_been(rows):
    _, _, data = prepare(rows)
    settings = FitSettings(epochs=4, batch_size=64)
    whole = MemberFit(data, settings, 3)
    while not whole.done:
        whole.run_epoch()
    first = MemberFit(data, settings, 3)
    first.run_epoch()
    second = MemberFit(data, settings, 3)
    second.load_state_dict(first.state_dict())
    while not second.done:
        second.run_epoch()
    for left, right in zip(whole.net.parameters(), second.net.parameters(), strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=0)
