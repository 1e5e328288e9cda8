"""bench/llama_model.py, which writes the model of the speed table."""

import dataclasses
import sys
from pathlib import Path

import pytest
from gguf import GGUFReader

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

import llama_model


def _run(monkeypatch, *arguments) -> None:
    monkeypatch.setattr(sys, "argv", ["llama_model.py", *map(str, arguments)])
    llama_model.main()


def _values(path: Path) -> dict:
    return {name: field.contents() for name, field in GGUFReader(path).fields.items()}


def test_it_is_the_model_of_the_table():
    shape = llama_model._SHAPE
    assert (shape.columns, shape.layers) == (1024, 24)
    attention = 2 * shape.columns * (shape.columns + shape.kv_heads * shape.head)
    layer = attention + 3 * shape.columns * shape.feed_forward
    parameters = shape.layers * layer + 2 * shape.pieces * shape.columns
    assert round(parameters / 1e6) == 430


def test_it_writes_a_pair(monkeypatch, llama_source, tmp_path, capsys):
    small = dataclasses.replace(llama_model._SHAPE, layers=1, feed_forward=64, pieces=300)
    monkeypatch.setattr(llama_model, "_SHAPE", small)
    folder = tmp_path / "made" / "here"
    _run(monkeypatch, "--llama-source", llama_source, "--type", "q8_0", folder)
    assert "model.gguf" in capsys.readouterr().out
    model, vision = (_values(folder / name) for name in ("model.gguf", "mmproj.gguf"))
    assert model["llama.embedding_length"] == vision["clip.vision.projection_dim"] == 1024
    side = vision["clip.vision.image_size"] // vision["clip.vision.patch_size"]
    assert side**2 == 576


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--llama-source", "absent"], "--llama-source: got absent, which has no folder models"),
        (["--seed", "-1"], "--seed: got -1, allowed is 0 or more"),
        (["--type", "q3"], "--type: invalid choice"),
    ],
)
def test_bad_arguments_are_named(monkeypatch, llama_source, tmp_path, capsys, arguments, words):
    with pytest.raises(SystemExit):
        _run(monkeypatch, "--llama-source", llama_source, *arguments, tmp_path / "out")
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
