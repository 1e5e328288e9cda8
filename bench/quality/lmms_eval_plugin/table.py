"""Prints measured accuracies beside published ones, as a Markdown table.

    python bench/quality/lmms_eval_plugin/table.py --table llava-1.5-7b RESULTS...

RESULTS are result files of lmms-eval (*_results.json) or folders that hold some. Published numbers
and their sources are in published.json. What nobody measured stays empty. The last column is the
mean of the row's scores in per cent of the same source's row with all tokens: sources differ in
prompts and metrics, so that this column compares better than the scores do. MME counts once in it:
as a whole where that is known (perception and cognition), else by perception alone (MME-P).
"""

import argparse
import json
import re
from collections.abc import Iterable
from pathlib import Path

PUBLISHED = Path(__file__).resolve().parent / "published.json"
EMPTY = "—"

# Column: (task, metric, factor to the published unit) of lmms-eval, the first that was run counts.
# Those of one tuple are summed.
TASKS = {
    "GQA": [(("gqa", "exact_match", 100),)],
    "TextVQA": [(("textvqa_val_ocr", "exact_match", 100),), (("textvqa_val", "exact_match", 100),)],
    "ScienceQA": [(("scienceqa_img", "exact_match", 100),)],
    "POPE": [(("pope", "pope_f1_score", 100),)],
    "MME": [(("mme", "mme_perception_score", 1), ("mme", "mme_cognition_score", 1))],
    "MME-P": [(("mme", "mme_perception_score", 1),)],
    "AI2D": [(("ai2d", "exact_match", 100),)],
    "ChartQA": [(("chartqa", "relaxed_overall", 100),)],
    "DocVQA": [(("docvqa_val", "anls", 100),)],
    "MMStar": [(("mmstar", "average", 100),)],
    "OCRBench": [(("ocrbench", "ocrbench_accuracy", 100),)],
    "scenes": [(("mipruner_scenes", "exact_match", 100),)],
}
# Of model_args, those that say what was pruned and how; the plug-in's other options are the same
# for every row unless given.
_NOT_SHOWN = ("keep", "pretrained", "device", "device_map", "dtype", "attn_implementation")


def read_results(paths: Iterable[Path]) -> list[dict]:
    """The rows of result files, those of one way of pruning together.

    Returns:
        {"keep", "method", "source", "scores": {column: score}} each; source is the checkpoint and,
        where only some samples were run, how many.

    Raises:
        ValueError: no file, or two files with the same task and arguments.
    """
    rows: dict[tuple, dict] = {}
    files = sorted({file for path in paths for file in _files(path)})
    if not files:
        raise ValueError("results: got no file that ends in _results.json")
    for file in files:
        result = json.loads(file.read_text())
        arguments = parse_model_args(result["config"]["model_args"])
        keep = _keep(arguments.get("keep", "1.0"))
        source = _source(arguments, result)
        how = "" if _is_all(keep) else _how(arguments)
        row = rows.setdefault(
            (_budget(keep), how, source),  # one token and all of them are equal as numbers
            {"keep": keep, "method": _method(keep, how), "source": source, "scores": {}, "raw": {}},
        )
        for task, metrics in result["results"].items():
            if task in row["raw"]:
                raise ValueError(
                    f"results: {task} with keep={keep} is in {row['raw'][task][0]} and in {file}; "
                    "name the one that counts"
                )
            row["raw"][task] = (file, metrics)
    for row in rows.values():
        metrics = {task: found for task, (_, found) in row.pop("raw").items()}
        row["scores"] = {c: s for c in TASKS if (s := score(c, metrics)) is not None}
    return list(rows.values())


def score(column: str, results: dict[str, dict]) -> float | None:
    """A column's score from lmms-eval's "results" by task; None where it was not measured."""
    for parts in TASKS[column]:
        values = [_value(results.get(task, {}), metric) for task, metric, _ in parts]
        if None not in values:
            return sum(v * part[2] for v, part in zip(values, parts, strict=True))
    return None


def render(columns: list[str], rows: list[dict], sources: dict[str, str]) -> str:
    """The Markdown table, by falling budgets, and the list of sources."""
    used = list(dict.fromkeys(row["source"] for row in rows))
    full = {row["source"]: row["scores"] for row in rows if _is_all(row["keep"])}
    lines = [
        "| keep | method | " + " | ".join(columns) + " | % of all tokens | source |",
        "|---|---|" + "---|" * len(columns) + "---|---|",
    ]
    for row in sorted(rows, key=lambda row: _order(row["keep"])):
        cells = [_number(row["scores"].get(column)) for column in columns]
        share = _number(relative(row["scores"], full.get(row["source"], {}), columns))
        number = used.index(row["source"]) + 1
        cells = [_budget(row["keep"]), row["method"], *cells, share, f"[{number}]"]
        lines.append("| " + " | ".join(cells) + " |")
    lines.append("")
    lines += [f"[{i}] {sources.get(name, name)}" for i, name in enumerate(used, 1)]
    return "\n".join(lines)


def relative(scores: dict, full: dict, columns: list[str]) -> float | None:
    """Mean per cent of the unpruned scores; None unless both have the same of the columns."""
    measured, of = (
        {c for c in columns if c in row and not (c == "MME-P" and "MME" in row)}
        for row in (scores, full)
    )
    if not measured or measured != of:
        return None
    return 100 * sum(scores[column] / full[column] for column in measured) / len(measured)


def parse_model_args(text: str | dict) -> dict[str, str]:
    """The name=value pairs that a result file repeats."""
    if isinstance(text, dict):
        return {name: str(value) for name, value in text.items()}
    pairs = re.split(r",(?=\w+=)", text) if text else []  # a value may hold commas itself
    return dict(pair.split("=", 1) for pair in pairs)


def _files(path: Path) -> list[Path]:
    return list(path.rglob("*_results.json")) if path.is_dir() else [path]


def _keep(text: str) -> float | int | str:
    """As in the plug-in: digits alone are a count, other numbers a ratio, the rest is itself."""
    if text.isnumeric():
        return int(text)
    try:
        return float(text)
    except ValueError:
        return text


def _how(arguments: dict[str, str]) -> str:
    shown = {name: value for name, value in arguments.items() if name not in _NOT_SHOWN}
    return ", ".join(f"{name}={value}" for name, value in sorted(shown.items()))


def _method(keep, how: str) -> str:
    if _is_all(keep):
        return "**all tokens, measured**"
    return "**mipruner**" + (f" ({how})" if how else "")


def _source(arguments: dict[str, str], result: dict) -> str:
    name = re.sub(r".*/(?=[^/]+/[^/]+$)", "", arguments.get("pretrained", "?"))
    limit = result["config"].get("limit")
    return f"measured: {name}" + (f", --limit {limit}" if limit else "")


def _value(metrics: dict, metric: str) -> float | None:
    """lmms-eval writes "metric,filter"; a task's only filter may have any name."""
    found = [value for key, value in metrics.items() if key.split(",")[0] == metric]
    return found[0] if found and isinstance(found[0], int | float) else None


def _order(keep) -> tuple:
    """All tokens, then ratios and counts from large to small, then the rest."""
    if isinstance(keep, str):
        return (2, keep)
    return (0, 0) if _is_all(keep) else (1, -keep)


def _is_all(keep) -> bool:
    return isinstance(keep, float) and keep == 1.0


def _budget(keep) -> str:
    return f"{100 * keep:g} %" if isinstance(keep, float) else str(keep)


def _number(value: float | None) -> str:
    """One digit after the point; sums such as MME's as they are."""
    if value is None:
        return EMPTY
    return f"{value:.1f}" if value < 200 else f"{value:.5g}"


def main() -> None:
    published = json.loads(PUBLISHED.read_text())
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", choices=[*published["tables"], "scenes"], required=True)
    parser.add_argument("results", type=Path, nargs="*", help="files, or folders of them")
    args = parser.parse_args()
    table = published["tables"].get(args.table, {"columns": ["scenes"], "rows": []})
    rows = [*table["rows"], *(read_results(args.results) if args.results else [])]
    print(render(table["columns"], rows, published["sources"]))


if __name__ == "__main__":
    main()
