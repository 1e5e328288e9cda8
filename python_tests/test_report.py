"""ImageReport, Report and Part: what they say of themselves, as text, JSON and a table."""

import ctypes
import json

import numpy as np
import pandas
import pytest
import torch
from c_library import load
from hypothesis import given
from hypothesis import strategies as st

from mi_pruner_cuda.huggingface.report import ImageReport, Part, Report
from mi_pruner_cuda.keep_hash import keep_hash

LIBRARY = load()
NAN, INF = float("nan"), float("inf")


def picture(**changes):
    """Two crops of 2 x 2 tokens, of which the second has a row break after each row."""
    values = {
        "item": 1, "image": 0, "tokens_before": 10, "tokens_after": 4, "reason": "pruned",
        "indices": torch.tensor([0, 5, 6, 9]),
        "scores": torch.tensor([0.5, -INF, 0.25, 0.125, 1.0, 2.0, NAN, 0.0, 0.75, NAN]),
        "query": [7, 8, 9], "query_source": "the prompt", "seconds": 0.0015,
        "parts": (
            Part(0, (2, 2), 2, (0.0, 0.0, 0.5, 1.0), name="crop 1"),
            Part(4, (2, 2), 3, (0.5, 0.0, 1.0, 1.0), name="crop 2"),
        ),
        "words": ["red", " ball", "?"],
        "speaks_for": torch.tensor([0, -1, 1, 2, 0, 1, -1, 2, 0, -1]),
    }  # fmt: skip
    return ImageReport(**{**values, **changes})


def video():
    parts = tuple(Part(2 * f, (1, 2), 2, frame=f, name=f"frame {f}") for f in range(2))
    return ImageReport(
        item=1, image=1, tokens_before=4, tokens_after=1, reason="pruned", grid=(2, 1, 2),
        indices=torch.tensor([3]), scores=torch.tensor([0.5, 0.25, 0.125, 1.0]), kind="video",
        parts=parts, seconds=0.002,
    )  # fmt: skip


TEXT = ImageReport(0, None, 0, 0, "no image in the prompt")


# ---- parts ----


@given(st.integers(0, 9), st.integers(1, 5), st.integers(1, 5), st.integers(0, 2))
def test_a_part_counts_its_tokens_by_rows(first, h, w, gap):
    tokens = Part(first, (h, w), w + gap).tokens
    assert tokens.dtype == torch.int64 and tokens.shape == (h, w)
    for row in range(h):
        for column in range(w):
            assert tokens[row, column] == first + row * (w + gap) + column


# ---- keep_hash ----


@given(st.integers(0, 2**31), st.data())
def test_keep_hash_is_the_c_librarys(rows, data):
    kept = sorted(data.draw(st.sets(st.integers(0, max(0, min(rows, 2**31) - 1)), max_size=20)))
    array = (ctypes.c_int32 * len(kept))(*kept)
    expected = LIBRARY.mipruner_keep_hash(ctypes.c_int64(rows), array, ctypes.c_int32(len(kept)))
    assert keep_hash(rows, kept) == expected


def test_keep_hash_of_a_report_is_of_its_rows():
    assert picture().keep_hash == keep_hash(10, [0, 5, 6, 9])
    assert keep_hash(10, [0, 5, 6, 9]) != keep_hash(11, [0, 5, 6, 9])
    assert TEXT.keep_hash == keep_hash(0, [])
    whole = ImageReport(0, 0, 3, 3, "kept all: keep = 1.0")  # without indices: all
    assert whole.keep_hash == keep_hash(3, [0, 1, 2])


# ---- text ----


def test_text():
    assert str(picture()) == (
        "item 1, image 0: 10 -> 4 tokens in 1.50 ms, pruned, query: 3 tokens, the prompt"
    )
    assert str(video()) == "item 1, video 1: 4 (2 x 1 x 2) -> 1 tokens in 2.00 ms, pruned"
    assert str(TEXT) == "item 0: no image in the prompt"
    assert str(Report([TEXT, video()])).splitlines() == [str(TEXT), str(video())]
    assert str(Report()) == "no prefill yet"


def test_totals():
    report = Report([TEXT, picture(), video()])
    assert (report.tokens_before, report.tokens_after) == (14, 5)


# ---- JSON ----


def test_to_dict_is_json():
    """allow_nan=False: NaN and infinities are no JSON, whatever Python's own reader takes."""
    report = Report([TEXT, picture(), video()])
    read = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert read == report.to_dict()  # no tuples, tensors or keys that JSON would change
    assert (read["tokens_before"], read["tokens_after"]) == (14, 5)
    text, first, second = read["images"]
    assert text["image"] is None and text["scores"] is None and text["parts"] == []
    assert first["indices"] == [0, 5, 6, 9]
    assert first["scores"] == [0.5, None, 0.25, 0.125, 1.0, 2.0, None, 0.0, 0.75, None]
    assert first["speaks_for"] == [0, -1, 1, 2, 0, 1, -1, 2, 0, -1]
    assert first["words"] == ["red", " ball", "?"] and first["query"] == [7, 8, 9]
    assert first["seconds"] == 0.0015 and first["kind"] == "image" and first["grid"] is None
    assert first["parts"][1] == {
        "first": 4, "grid": [2, 2], "stride": 3, "box": [0.5, 0.0, 1.0, 1.0], "frame": 0,
        "name": "crop 2",
    }  # fmt: skip
    assert second["grid"] == [2, 1, 2] and second["kind"] == "video"
    assert int(first["keep_hash"], 16) == picture().keep_hash and len(first["keep_hash"]) == 16


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_scores_of_any_dtype_are_json(dtype):
    report = picture(scores=torch.tensor([0.5, NAN, -INF] + [0.0] * 7, dtype=dtype))
    read = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert read["scores"][:3] == [0.5, None, None]


def test_every_field_is_in_the_dictionary():
    """A field that is added to the report must not be forgotten here."""
    fields = set(ImageReport.__dataclass_fields__) | {"keep_hash"}
    assert set(picture().to_dict()) == fields
    assert set(picture().to_dict()["parts"][0]) == set(Part.__dataclass_fields__)


# ---- the table ----


def rows_of(table):
    return [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]


def test_to_table_has_a_row_per_token():
    table = Report([TEXT, picture(), video()]).to_table()
    assert {len(column) for column in table.values()} == {14}  # none for a prompt without images
    rows = rows_of(table)
    assert rows[0] == {
        "item": 1, "kind": "image", "image": 0, "token": 0, "part": "crop 1", "frame": 0, "row": 0,
        "column": 0, "score": 0.5, "kept": True, "word": "red",
    }  # fmt: skip
    by_token = rows[:10]
    assert [row["token"] for row in by_token] == list(range(10))
    assert [row["kept"] for row in by_token] == [n in (0, 5, 6, 9) for n in range(10)]
    assert [row["score"] for row in by_token] == picture().to_dict()["scores"]
    places = [(row["frame"], row["row"], row["column"]) for row in by_token]
    nowhere = (None, None, None)
    crop = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1)]
    assert places == [*crop, *crop[:2], nowhere, *crop[2:], nowhere]
    assert [row["word"] for row in by_token[:4]] == ["red", None, " ball", "?"]
    assert [(row["frame"], row["column"]) for row in rows[10:]] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert {(row["kind"], row["image"], row["word"]) for row in rows[10:]} == {("video", 1, None)}


def test_to_table_of_what_was_not_scored():
    """Without a tokenizer a word is its token id."""
    report = picture(scores=None, words=[], indices=torch.arange(10), tokens_after=10)
    rows = rows_of(Report([report]).to_table())
    assert {row["score"] for row in rows} == {None} and all(row["kept"] for row in rows)
    assert [row["word"] for row in rows[:4]] == [7, None, 8, 9]
    whole = ImageReport(0, 0, 3, 3, "kept all: keep = 1.0")
    assert all(row["kept"] for row in rows_of(Report([whole]).to_table()))


def test_an_empty_report_is_a_table_of_no_rows():
    assert {len(column) for column in Report().to_table().values()} == {0}


def test_pandas_takes_the_table():
    frame = pandas.DataFrame(Report([picture(), video()]).to_table())
    assert frame.shape == (14, 11)
    assert frame[frame.kept].groupby("kind").size().to_dict() == {"image": 4, "video": 1}
    assert np.isnan(frame.score[1]) and frame.score[5] == 2.0
