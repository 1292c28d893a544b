"""`flowtailor workflow ...` on the shipped seed workflows."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from flowtailor.datasets.flows import SHIPPED
from flowtailor.pipelines.cli import main

DATA = Path(__file__).parent / "data"
NAMES = sorted(path.stem for path in SHIPPED.glob("*.json"))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """No run folder in sight: the shipped catalog and space are used."""
    monkeypatch.chdir(tmp_path)


def ask(capsys: pytest.CaptureFixture[str], action: str, file: object, *more: str) -> tuple[int, str, str]:
    code = main(["workflow", action, str(file), *more])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize("name", NAMES)
def test_every_shipped_flow_checks_and_survives_encode_and_decode(
    name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    file = SHIPPED / f"{name}.json"
    assert ask(capsys, "check", file)[0] == 0
    code, words, _ = ask(capsys, "encode", file)
    assert code == 0
    assert words.count("\n") == 1
    (tmp_path / "tokens").write_text(words)
    code, api, _ = ask(capsys, "decode", tmp_path / "tokens")
    assert code == 0
    (tmp_path / "again.json").write_text(api)
    assert ask(capsys, "encode", tmp_path / "again.json")[1] == words


def test_check_prints_one_problem_a_line_and_1(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    api = json.loads((SHIPPED / "plain.json").read_text())
    sampler = next(node for node in api.values() if node["class_type"] == "KSampler")
    sampler["inputs"].update(steps=0, sampler_name="magic")
    (tmp_path / "w.json").write_text(json.dumps(api))
    code, out, _ = ask(capsys, "check", tmp_path / "w.json")
    assert code == 1
    assert len(out.splitlines()) == 2
    assert "value_smaller_than_min" in out
    assert "value_not_in_list" in out


def test_check_reads_the_editor_format(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    assert ask(capsys, "check", DATA / "ui_flow.json")[0] == 0
    text = (DATA / "ui_flow.json").read_text().replace("general.ckpt", "sd15.ckpt")
    (tmp_path / "ui.json").write_text(text)
    code, out, _ = ask(capsys, "check", tmp_path / "ui.json")
    assert code == 1
    assert "sd15.ckpt" in out


def test_show_lists_nodes_after_their_inputs(capsys: pytest.CaptureFixture[str]):
    _, out, _ = ask(capsys, "show", SHIPPED / "plain.json")
    classes = [line.split()[1].split("(")[0] for line in out.splitlines()]
    assert classes.index("CheckpointLoaderSimple") < classes.index("KSampler") < classes.index("SaveImage")


def test_script_prints_a_program(capsys: pytest.CaptureFixture[str]):
    code, out, _ = ask(capsys, "script", SHIPPED / "plain.json")
    assert code == 0
    assert "KSampler(model" in out
    compile(out, "script", "exec")


def test_a_text_can_be_named_as_the_prompt(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    text = (SHIPPED / "plain.json").read_text().replace("{prompt}", "a red apple")
    (tmp_path / "w.json").write_text(text)
    code, _, err = ask(capsys, "encode", tmp_path / "w.json")
    assert code == 2
    assert "a red apple" in err
    assert ask(capsys, "encode", tmp_path / "w.json", "--prompt", "a red apple")[0] == 0


def test_a_pipe_can_be_read_instead_of_a_file():
    command = [sys.executable, "-m", "flowtailor", "workflow", "decode", "-"]
    words = "VAEDecode KSampler CheckpointLoaderSimple CLIPTextEncode CLIPTextEncode EmptySD3LatentImage"
    done = subprocess.run(command, input=words, capture_output=True, text=True, timeout=60, check=True)
    assert any(node["class_type"] == "KSampler" for node in json.loads(done.stdout).values())


@pytest.mark.parametrize(
    ("action", "content", "said"),
    [
        ("check", "nonsense", "not JSON"),
        ("encode", "[]", "workflow: must be a JSON object"),
        ("decode", "KSampler <end>", "word 1"),
        ("decode", "", "word 1"),
        ("show", None, "cannot be read"),
    ],
)
def test_a_broken_file_is_one_line_and_2(
    action: str, content: str | None, said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    file = tmp_path / "w"
    if content is not None:
        file.write_text(content)
    code, _, err = ask(capsys, action, file)
    assert code == 2
    assert said in err
    assert len(err.splitlines()) == 1
