"""The engine's models come and go: what a run's rows say stays what it was, or the run says why it cannot."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import conftest
import pytest
import tiny_refine
from tiny_refine import Faked

from flowtailor.datasets.flows import load_seed_flows
from flowtailor.errors import FlowtailorError
from flowtailor.pipelines import catalog, collect, evaluate, sft
from flowtailor.pipelines.catalog import World, compatible, read_world, write_catalog
from flowtailor.pipelines.config import Config
from flowtailor.pipelines.stage import Run, is_done
from flowtailor.workflows.codec import canonical_words, decode
from flowtailor.workflows.space import STUDIO_SPACE, Space

tiny, faked = tiny_refine.config, tiny_refine.faked  # fixtures
LORA = ("LoraLoader", "lora_name")
UPSCALER = ("UpscaleModelLoader", "model_name")

Installed = Callable[[Mapping[tuple[str, str], Sequence[str]]], World]


@pytest.fixture
def config(tiny: Config) -> Config:
    """Of a complete run that would collect a little."""
    return tiny.changed(collect={"flows": 6, "flows_per_prompt": 1})


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, faked: Faked) -> Installed:
    """Lets the engine have other models of some kinds, for every command from then on."""

    def world(models: Mapping[tuple[str, str], Sequence[str]]) -> World:
        for key, names in models.items():
            monkeypatch.setitem(conftest.INSTALLED, key, list(names))
        offered = conftest.saved_catalog("0.3.75")
        return World("comfyui-0.3.75", offered, Space.default(offered))

    @contextmanager
    def engine(config: object) -> Iterator[None]:
        yield None

    def survey(config: Config, client: None) -> World:
        return world({})

    for module in (catalog, collect):
        monkeypatch.setattr(module, "engine", engine)
        monkeypatch.setattr(module, "survey", survey)
    monkeypatch.setattr(collect, "render", partial(faked._render, label="collect"))
    return world


def test_defaults_stay_what_they_were(config: Config, installed: Installed) -> None:
    _, space = read_world(Run(config))
    words = canonical_words(load_seed_flows()["lora"], space)
    more = ["a.safetensors", *conftest.INSTALLED[LORA], "z.safetensors"]
    world = compatible(config, installed({LORA: more}))
    assert decode(words, world.space) == decode(words, space)
    assert {"lora_name=a.safetensors", "lora_name=z.safetensors"} < set(world.space.vocabulary)


@pytest.mark.parametrize("command", [collect.run_stage, write_catalog])
def test_stored_words_mean_the_same_after_a_model_came_that_sorts_first(
    config: Config, installed: Installed, command: Callable[[Config], None]
) -> None:
    _, space = read_world(Run(config))
    shutil.rmtree(Run(config).path("policy"))  # whose words it has to know
    words = canonical_words(load_seed_flows()["lora"], space)
    installed({LORA: ["a.safetensors", *conftest.INSTALLED[LORA]]})
    command(config)
    _, later = read_world(Run(config))
    assert "lora_name=a.safetensors" in later.vocabulary
    assert decode(words, later) == decode(words, space)


def test_a_run_without_rows_takes_the_engine_as_it_is(config: Config, installed: Installed) -> None:
    started = config.changed(run={"name": "started"})
    write_catalog(started)
    installed({LORA: ["a.safetensors", *conftest.INSTALLED[LORA]]})
    write_catalog(started)
    assert "lora_name=a.safetensors" not in read_world(Run(started))[1].vocabulary  # the default now


@pytest.mark.parametrize("before", [["u.pth"], ["u.pth", "v.pth"]])
def test_words_do_not_turn_to_another_model_where_the_only_one_is_replaced(
    config: Config, installed: Installed, before: list[str]
) -> None:
    catalog.write_world(Run(config), installed({UPSCALER: before}))
    with pytest.raises(FlowtailorError, match=r"model_name = 'u\.pth'.*'v\.pth'; install it again"):
        compatible(config, installed({UPSCALER: ["v.pth"]}))


def test_a_text_under_a_known_name_does_not_change(
    config: Config, installed: Installed, tmp_path: Path
) -> None:
    edited = tmp_path / "space.toml"
    edited.write_text(re.sub(r'(detailed = ")', r"\1very ", STUDIO_SPACE.read_text(), count=1))
    assert edited.read_text() != STUDIO_SPACE.read_text()
    other = config.changed(space={"file": str(edited)})
    with pytest.raises(FlowtailorError, match=r"text=detailed = '.*that is what the run's designs mean"):
        compatible(other, installed({}))


def test_a_collection_is_not_up_to_date_in_the_world_of_another_configuration(
    config: Config, installed: Installed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edited = tmp_path / "space.toml"
    edited.write_text(STUDIO_SPACE.read_text().replace("max_nodes = 24", "max_nodes = 20"))
    other = config.changed(space={"file": str(edited)})
    collect.run_stage(config)
    write_catalog(config)
    capsys.readouterr()
    collect.run_stage(config)
    assert "collect: up to date" in capsys.readouterr().out
    write_catalog(other)
    collect.run_stage(config)
    assert "0 to render" in capsys.readouterr().out
    assert Run(config).path("space.toml").read_text() == STUDIO_SPACE.read_text()


def test_a_picture_in_the_engine_s_input_folder_puts_nothing_out_of_date(
    config: Config, installed: Installed
) -> None:
    collect.run_stage(config)
    tiny_refine.accept(config)
    installed({("LoadImage", "image"): ["a picture that somebody loaded.png"]})
    write_catalog(config)
    run = Run(config)
    assert is_done(run, "collect", collect.stage_inputs(config), output="dataset")
    assert all(is_done(run, name, inputs) for name, inputs in tiny_refine.inputs_of(config).items())


def test_rows_with_a_model_that_was_removed_are_left_out_of_what_can_be_designed(
    config: Config, installed: Installed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installed({UPSCALER: [name for name in conftest.INSTALLED[UPSCALER] if name != "studio_x2.safetensors"]})
    write_catalog(config)
    _, space = read_world(Run(config))
    shown: list[tuple[str, ...]] = []

    def train(config: Config, worker: object, setup: dict[str, Any], name: str, folder: Path) -> None:
        shutil.copytree(Run(config).path(setup["part"]), folder, dirs_exist_ok=True)
        shown.extend(example.tokens for example in setup["examples"])

    monkeypatch.setattr(sft, "train_in_ray", train)
    sft.run_stage(config.changed(sft={"steps": 8, "score_conditioned_steps": 8, "variants": 60}))
    shown += [tuple(text.split()) for text in evaluate.gather(Run(config), space).rows["tokens"]]
    assert all(decode(words, space) for words in shown)
    told = capsys.readouterr().out
    assert told.count("whose workflows the space no longer holds (model_name=studio_x2.safetensors)") == 1
