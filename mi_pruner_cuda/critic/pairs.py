"""Files of pictures and texts."""

import csv
import io
import json
from pathlib import Path

_FIELDS = ("image", "text")


def read_pairs(path) -> list[tuple[Path, str]]:
    """(picture's path, text) of every line of a JSON Lines or CSV file.

    Args:
        path: .jsonl or .json, an object {"image": .., "text": ..} a line, or .csv with a header
            that names these columns; further fields are ignored. Pictures are relative to the
            file's folder. What comes through a pipe has no ending and no folder: it is JSON Lines
            if it begins with "{", else CSV, and pictures are relative to the current folder.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is of another kind, or a line lacks a field; the message names the line.
    """
    path = Path(path)
    piped = path.exists() and not path.is_file() and not path.is_dir()
    if not piped and path.suffix.lower() not in _READERS:
        raise ValueError(
            f"pairs: got {path.name!r}, allowed are files ending {', '.join(_READERS)}"
        )
    if not piped and not path.is_file():
        raise FileNotFoundError(f"pairs: there is no file {path}")
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"pairs: {path} is not UTF-8 text") from error
    ending = path.suffix.lower()
    if piped:
        ending = ".jsonl" if text.lstrip().startswith("{") else ".csv"
    folder = Path() if piped else path.parent
    found = []
    for number, line in _READERS[ending](text):
        for field in _FIELDS:
            value = line.get(field) if isinstance(line, dict) else None
            if not isinstance(value, str) or not value.strip():
                raise ValueError(
                    f"pairs: line {number} of {path} has no {field}, allowed is a text"
                )
        if not _is_unicode(line["text"]):
            raise ValueError(
                f"pairs: line {number} of {path} has half a surrogate pair in text, allowed is a "
                "text of whole characters"
            )
        found.append((folder / line["image"], line["text"].strip()))
    if not found:
        raise ValueError(f"pairs: {path} has no pairs")
    return found


def _json_lines(text: str):
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"pairs: line {number} is not JSON: {error}") from error


def _csv_lines(text: str):
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        for line in reader:
            yield reader.line_num, line
    except csv.Error as error:
        raise ValueError(f"pairs: no CSV behind line {reader.line_num}: {error}") from error


_READERS = {".jsonl": _json_lines, ".json": _json_lines, ".csv": _csv_lines}


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
