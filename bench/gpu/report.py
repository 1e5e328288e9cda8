"""The report of a check as Markdown."""

from gpu import timings

COLUMNS = (
    "N / D / M / K", "ours us", "target us", "ours, called us", "eager graph us", "eager us",
    "eager / ours", "reference us", "GB/s", "of a copy", "score error", "same rows",
)  # fmt: skip

NOTE = (
    "bfloat16, medians per call, inputs rotated so that the L2 cache is cold. `ours` and `eager "
    "graph` are CUDA graphs replayed, the others calls from Python; `eager` is PyTorch in float32 "
    "as one writes it, `reference` is mi_pruner_cuda.reference. Eager / ours compares the graphs; "
    "eager greedy waits for the device at every step and cannot be captured, so there its calls "
    "are compared with our graph. GB/s counts the rows once, and the results."
)
DRY_NOTE = (
    "Dry run, no GPU figure: tiny shapes on the CPU, plain calls in place of graph replay, to show "
    "that the check itself works."
)


def markdown(report):
    lines = ["# GPU check", "", verdict(report), ""]
    lines += [f"- {name}: {value}" for name, value in report["environment"].items()]
    lines += ["", "| part | result | seconds | |", "|---|---|---|---|"]
    for part in report["parts"]:
        summary = part["summary"].replace("|", "\\|").replace("\n", " ")
        lines.append(f"| {part['name']} | {part['state']} | {part['seconds']:.0f} | {summary} |")
    found = next((p["data"] for p in report["parts"] if p["name"] == "timings"), {})
    if found.get("rows"):
        lines += ["", *timing_table(found, report["dry_run"])]
    return "\n".join(lines) + "\n"


def verdict(report):
    def names(state):
        return ", ".join(p["name"] for p in report["parts"] if p["state"] == state)

    failed, missing = names("failed"), names("not available")
    words = f"Failed: {failed}." if failed else "No part failed."
    words += f" Not available, so not checked: {missing}." if missing else ""
    return f"{words} {DRY_NOTE}" if report["dry_run"] else words


def timing_table(found, dry_run):
    if dry_run:
        return dry_table(found)
    lines = [NOTE]
    if found.get("copy_gb_s"):
        lines += ["", f"A large device-to-device copy moved {found['copy_gb_s']:.0f} GB/s."]
    lines += ["", f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    lines += [f"| {' | '.join(cells(row, found.get('copy_gb_s')))} |" for row in found["rows"]]
    few = [r["name"] for r in found["rows"] if 0 < r.get("samples", 0) < timings.SAMPLES]
    if few:
        lines += ["", f"Fewer than {timings.SAMPLES} samples of ours: {', '.join(few)}."]
    return lines


def dry_table(found):
    """Times of tiny shapes on a CPU would only mislead: correctness alone."""
    lines = [f"| N / D / M / K | {DRY_NOTE.split(':')[0].lower()} | score error | same rows |"]
    lines += ["|---|---|---|---|"]
    for row in found["rows"]:
        name, *_, error, same = cells(row, None)
        lines.append(f"| {name} | {'ran' if row.get('ours_us') else 'failed'} | {error} | {same} |")
    return lines


def cells(row, copy_gb_s):
    def show(name, digits=1):
        return "-" if row.get(name) is None else f"{row[name]:.{digits}f}"

    ratio = rate = share = "-"
    ours = row.get("ours_us")
    eager = row.get("eager_graph_us") or row.get("eager_us")
    if ours and eager:
        ratio = f"{eager / ours:.1f}x"
    if ours and not row["redundancy"]:
        gb_s = row["bytes"] / ours / 1e3
        rate = f"{gb_s:.0f}"
        share = f"{gb_s / copy_gb_s:.0%}" if copy_gb_s else "-"
    error = "-" if row.get("score_error") is None else f"{row['score_error']:.1e}"
    same = "-" if row.get("same_rows") is None else f"{row['same_rows']}/{row['k']}"
    return [
        row["name"], show("ours_us"), show("target_us", 0), show("ours_called_us"),
        show("eager_graph_us"), show("eager_us"), ratio, show("reference_us", 0), rate, share,
        error, same,
    ]  # fmt: skip
