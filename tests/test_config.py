"""The configuration: shipped files load, mistakes are one clear line."""

import ast
from pathlib import Path

import pytest

from flowtailor.errors import FlowtailorError
from flowtailor.models.reward_net import MAX_WORDS
from flowtailor.pipelines.config import Config
from flowtailor.pipelines.config_file import CONFIGS, load_config

SHIPPED = sorted(path.stem for path in CONFIGS.glob("*.toml"))


def test_there_is_a_quickstart():
    assert "quickstart" in SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_config_loads_by_its_name(name: str):
    assert load_config(name).run.name


def test_overrides_parse_values_like_toml_and_bare_words_as_text():
    config = load_config(
        None, ["grpo.steps=3", "run.name=mine", "scorers.weights={alignment=1.0}", "grpo.trl.loss_type=grpo"]
    )
    assert config.grpo.steps == 3
    assert config.run.name == "mine"
    assert config.scorers.weights == {"alignment": 1.0}
    assert config.grpo.trl == {"loss_type": "grpo"}


def test_no_workflow_may_be_longer_than_the_reward_reads():
    assert load_config(None, [f"space.max_tokens={MAX_WORDS}"]).space.max_tokens == MAX_WORDS
    with pytest.raises(FlowtailorError, match=r"space\.max_tokens = 257"):
        load_config(None, [f"space.max_tokens={MAX_WORDS + 1}"])


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("grpo.stepps=3", r"grpo\.stepps: unknown config key; did you mean grpo\.steps\?"),
        ("zzz.x=3", "zzz: unknown config key; there are collect, design, engine"),
        ("zzz=3", "must read section.key=value"),
        ("grpo=3", "must read section.key=value"),
        ("grpo.steps=many", "grpo.steps = 'many'"),
        ("grpo", "must read section.key=value"),
        ("run.name.x=1", "run.name"),
        ("reward.members=0", "reward.members = 0"),
        ("grpo.num_generations=1", "grpo.num_generations = 1"),
        (
            "sft.trl.gradient_checkpointing=true",
            "keeps no cache, by which .* leave it out",
        ),
        ("scorers.weights={}", "must have a positive sum"),
        (
            "scorers.weights={alignment = 1.0, sharpness = -0.5}",
            r"weights\.sharpness = -0\.5: .*greater than 0",
        ),
        ("evaluate.guidance_sweep=[1.0, 11.0]", r"guidance_sweep\.1 = 11\.0: .*less than or equal to 10"),
        ("serve.port=99999", "serve.port = 99999: .*less than or equal to 65535"),
        ("serve.replicas=0", "serve.replicas = 0"),
        ("serve.max_batch_size=0", "serve.max_batch_size = 0"),
        ("serve.max_queued_requests=0", "serve.max_queued_requests = 0"),
        ("serve.batch_wait_s=-1", "serve.batch_wait_s = -1"),
        ('engine.kind="urls"', "needs urls"),
        ("run.root=s3://bucket/runs", r"run\.root: 's3://bucket/runs' is a URL, .*; mount it"),
    ],
)
def test_a_wrong_override_is_named(override: str, said: str):
    with pytest.raises(FlowtailorError, match=said):
        load_config(None, [override])


def test_files_are_found_from_other_folders_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As Ray's workers work in one of their own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.csv").touch()
    (tmp_path / "flows").mkdir()
    (tmp_path / "comfyui").mkdir()
    given = ["prompts.file=mine.csv", "space.flows=flows", 'engine.kind="checkout"', "engine.path=comfyui"]
    config = load_config(None, given)
    assert config.prompts.file == str(tmp_path / "mine.csv")
    assert config.space.flows == str(tmp_path / "flows")
    assert config.engine.path == tmp_path / "comfyui"
    assert config.sft.base == "smollm2-135m-instruct"  # a name, no file


def test_a_folder_may_be_named_from_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "flows").mkdir()
    assert load_config(None, ["space.flows=~/flows"]).space.flows == str(tmp_path / "flows")
    assert load_config(None, ["space.flows=~nobody-here/flows"]).space.flows == "~nobody-here/flows"


def test_a_missing_config_names_the_shipped_ones():
    with pytest.raises(FlowtailorError, match="quickstart"):
        load_config("no-such-config")


def test_broken_toml_is_named(tmp_path: Path):
    file = tmp_path / "c.toml"
    file.write_text("[run\n")
    with pytest.raises(FlowtailorError, match="not valid TOML"):
        load_config(file)


def test_an_override_below_a_value_of_the_file_is_named(tmp_path: Path):
    file = tmp_path / "c.toml"
    file.write_text('[run]\nname = "mine"\n')
    with pytest.raises(FlowtailorError, match=r"run\.name is no section"):
        load_config(file, ["run.name.x=1"])


def test_a_config_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Config().run.name = "other"  # pyright: ignore


def test_a_changed_copy_keeps_all_else():
    config = load_config(None, ["grpo.steps=3", "sft.batch_size=2"])
    changed = config.changed(sft={"steps": 7}, run={"name": "other"})
    differing = {
        "sft": {**config.sft.model_dump(), "steps": 7},
        "run": {**config.run.model_dump(), "name": "other"},
    }
    assert changed.model_dump() == {**config.model_dump(), **differing}
    assert config.sft.steps != 7


@pytest.mark.parametrize("file", ["config.py", "config_file.py"])
def test_the_config_modules_stay_light(file: str):
    """They are read before anything heavy: neither torch nor ray nor pyarrow at import."""
    tree = ast.parse((CONFIGS.parent / file).read_text())
    roots = {
        (node.module or "").split(".")[0]
        if isinstance(node, ast.ImportFrom)
        else node.names[0].name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert not roots & {"torch", "ray", "pyarrow", "transformers"}
