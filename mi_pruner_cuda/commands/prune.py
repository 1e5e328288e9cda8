"""prune: answers a question about pictures with a part of their visual tokens."""

import contextlib
import functools
import importlib.util
import json
import warnings
from dataclasses import dataclass, field

from .. import defaults
from .._checks import ESTIMATORS
from ..output_path import check_output
from ..whole_file import write_file
from . import values
from .checks import check_device, check_file, check_installed, check_separate, model_files
from .errors import UserError
from .streams import complain, say

HELP = "answers a question about pictures with a part of their visual tokens"


@dataclass
class Result:
    """What run_prompt found. full: the answer without pruning, where it was asked for."""

    session: object
    pictures: list
    pruned: object
    full: object | None = None
    files: list[str] = field(default_factory=list)


def add_arguments(parser) -> None:
    """What says which model, pictures and question; and what demo shares."""
    parser.add_argument("--model", required=True, help="folder or Hugging Face id")
    parser.add_argument(
        "--image", required=True, action="append", type=values.file, metavar="FILE",
        help="may be given several times",
    )  # fmt: skip
    parser.add_argument("--question", required=True, type=values.words, metavar="TEXT")
    parser.add_argument(
        "--compare", action="store_true", help="also answers with all visual tokens"
    )
    parser.add_argument(
        "--repeat", type=values.count, default=1, metavar="N",
        help="times the median of N calls; above 1, or with --compare, one to warm up comes first",
    )  # fmt: skip
    parser.add_argument(
        "--plot", type=values.file, metavar="FILE", help="writes a picture of what was kept"
    )
    parser.add_argument(
        "--report", type=values.file, metavar="FILE",
        help="writes an HTML page of it, with a slider over keep",
    )  # fmt: skip
    parser.add_argument(
        "--json", type=values.file, metavar="FILE", help="writes answers, scores and times"
    )
    add_options(parser, keep="0.25", new_tokens=64)


def add_options(parser, keep: str, new_tokens: int) -> None:
    """The options of pruning and answering."""
    add = parser.add_argument
    add(
        "--keep", type=values.keep, default=keep,
        help="a ratio with a point (0.25; 1.0 is all), a count without (64; 1 is one token), or "
        "mass:SHARE, as many as hold that share of the information",
    )  # fmt: skip
    add(
        "--redundancy", type=values.not_negative,
        help=f"weight of overlap, >= 0 (default: {defaults.REDUNDANCY:g}; 0 with mass:SHARE)",
    )  # fmt: skip
    add(
        "--coverage", type=values.share,
        help="share of the kept tokens that is spread evenly over the image, 0 to 1 (default: "
        f"{defaults.COVERAGE:g}; 0 with mass:SHARE)",
    )  # fmt: skip
    add(
        "--temperature", type=values.positive, default=defaults.TEMPERATURE,
        help="of the softmax, > 0",
    )  # fmt: skip
    add("--estimator", choices=ESTIMATORS, default=defaults.ESTIMATOR, help=" ")
    add(
        "--critic", type=values.file, metavar="FILE",
        help="what calibrate wrote, to compare rows and words by; auto: the one beside the model",
    )  # fmt: skip
    add(
        "--budget", choices=("per-image", "per-crop", "pooled"), default="per-image",
        help="what shares --keep: an image, each crop of one, or all images together",
    )  # fmt: skip
    add("--positions", choices=("original", "renumbered"), default="original", help=" ")
    add("--max-new-tokens", type=values.count, default=new_tokens, metavar="N", help=" ")
    add_machine_options(parser)


def add_machine_options(parser) -> None:
    """What the model is loaded as, and what it runs on."""
    add = parser.add_argument
    add("--dtype", choices=("auto", "float32", "float16", "bfloat16"), default="auto", help=" ")
    add("--device", default="cpu", help="of torch")
    add("--threads", type=values.count, help="of torch on the CPU")


def run(arguments) -> None:
    """Answers, writes what was asked for, and prints."""
    critic = [] if arguments.critic in (None, "auto") else [arguments.critic]
    check_plot("plot", arguments.plot)
    for option, endings in (("report", ["htm", "html"]), ("json", None)):
        path = getattr(arguments, option)
        if path is not None:
            check_file(option, path, functools.partial(check_output, endings=endings))
    check_separate(
        {option: getattr(arguments, option) for option in _WRITERS},
        {"--image": arguments.image, "--critic": critic, "--model": model_files(arguments.model)},
    )
    result = run_prompt(arguments, arguments.image, arguments.model, arguments.compare)
    written, mistakes = write_outputs(_WRITERS, arguments, result)
    with mistakes_told(mistakes):
        say(f"question  {arguments.question}")
        if result.full is not None:
            say(f"answer    {result.full.text}   (all tokens)")
        say(f"answer    {result.pruned.text}")
        print_numbers(result, arguments)
        for line in written:
            say(line)


def check_plot(option: str, path: str | None) -> None:
    """Refuses what cannot become a picture before a model is loaded for it."""
    if path is None:
        return
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError(f"{option}: needs matplotlib: pip install 'mi_pruner_cuda[plot]'")
    from ..plotting import check_writable

    check_file(option, path, check_writable)


def run_prompt(arguments, images: list, model: str, compare: bool) -> Result:
    """Loads the model and answers.

    Args:
        arguments: those of add_options, and question and repeat.
        images: files or pictures.
        model: folder or id.
        compare: answers with all tokens as well. Both are then timed after a call to warm up, as
            otherwise the first would pay for the second.
    """
    pictures = _pictures(images)
    check_installed("torch", "transformers")
    from .session import Session, quiet

    check_device(arguments.device)
    pruning = {
        name: getattr(arguments, name)
        for name in (
            "keep", "redundancy", "coverage", "temperature", "estimator", "positions", "budget",
        )
    }  # fmt: skip
    pruning["critic"] = _critic(arguments.critic)
    pruning["explain"] = bool(getattr(arguments, "report", None))
    with quiet(arguments.threads):
        session = Session(model, arguments.dtype, arguments.device)
        inputs = session.prompt(pictures, arguments.question)
        how = (arguments.max_new_tokens, arguments.repeat, compare or arguments.repeat > 1)
        ways = [None, pruning] if compare else [pruning]
        *full, pruned = session.answer(inputs, *how, ways)
    return Result(session, pictures, pruned, full[0] if full else None, [str(i) for i in images])


def print_numbers(result: Result, arguments) -> None:
    """Tokens and times, with what was timed."""
    report, pruned, full = result.pruned.report, result.pruned, result.full
    repeat = arguments.repeat
    for entry in report:
        if len(report) > 1 or not entry.reason.startswith("pruned"):
            say(f"image {entry.image}   {entry}")
    before, after = report.tokens_before, report.tokens_after
    say(f"tokens    {before} -> {after} ({100 * after / max(1, before):.3g} % kept)")
    if arguments.critic:
        say(f"critic    {report[0].critic or 'none beside the model'}")
    say(f"selection {1e3 * pruned.selection:.2f} ms, part of the prefill")
    unpruned = (None, None) if full is None else (full.first_token, full.whole)
    say(f"prefill   {_milliseconds(pruned.first_token, unpruned[0])}, with the image encoder")
    say(f"generate  {_milliseconds(pruned.whole, unpruned[1])}, prefill and all new tokens")
    calls = "one call" if repeat == 1 else f"median of {repeat} calls"
    how = f"{calls}, {'cold' if repeat == 1 and full is None else 'after one to warm up'}"
    say(f"timed     {how}; prefill ends with the first token chosen")


def write_outputs(writers: dict, arguments, result: Result) -> tuple[list[str], list[str]]:
    """Writes every file that was asked for, also after one that cannot be written.

    Args:
        writers: by option, what the file is called and a function(path, arguments, result).

    Returns:
        (lines that name the files, mistakes).
    """
    lines, mistakes = [], []
    for option, (name, write) in writers.items():
        path = getattr(arguments, option)
        if path is None:
            continue
        try:
            write(path, arguments, result)
            lines.append(f"{name:<9} {path}")
        except OSError as error:
            mistakes.append(str(error).replace("path:", f"{option}:", 1))
    return lines, mistakes


@contextlib.contextmanager
def mistakes_told(mistakes: list[str]):
    """What could not be written does not keep the answer from being printed; then it is told."""
    try:
        yield
    finally:
        if mistakes:
            raise UserError("; ".join(mistakes))


def write_plot(path: str, arguments, result: Result) -> None:
    """Draws the report over the pictures."""
    from ..plotting import plot

    _draw(plot, path, arguments, result)


def write_report(path: str, arguments, result: Result) -> None:
    """The same as a page to look around in."""
    from ..html_page import write_html

    _draw(write_html, path, arguments, result)


def _draw(draw, path: str, arguments, result: Result) -> None:
    """draw: plot or write_html. Each warning becomes a line."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        draw(
            result.pictures, result.pruned.report, path,
            question=arguments.question, answer=result.pruned.text,
            processor=result.session.processor,
        )  # fmt: skip
    for warning in said:
        complain(f"warning: {warning.message}")


def write_json(path: str, arguments, result: Result) -> None:
    """Everything that was printed, and the scores behind it."""
    from .. import __version__

    redundancy, coverage = defaults.choice(arguments.keep, arguments.redundancy, arguments.coverage)
    content = {
        "version": __version__,
        "model": arguments.model,
        "question": arguments.question,
        "keep": str(arguments.keep),
        "redundancy": redundancy,
        "coverage": coverage,
        "temperature": arguments.temperature,
        "estimator": arguments.estimator,
        "budget": arguments.budget,
        "positions": arguments.positions,
        "critic": arguments.critic,
        "repeat": arguments.repeat,
        "tokens_before": result.pruned.report.tokens_before,
        "tokens_after": result.pruned.report.tokens_after,
        "pruned": _answer(result.pruned),
        "full": None if result.full is None else _answer(result.full),
        "images": [
            {"file": file, **entry.to_dict()}
            for file, entry in zip(result.files, result.pruned.report, strict=True)
        ],
    }
    write_file(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


_WRITERS = {
    "json": ("numbers", write_json),
    "plot": ("picture", write_plot),
    "report": ("page", write_report),
}


def _pictures(images: list) -> list:
    check_installed("PIL")
    from ..picture import to_picture

    try:
        return [to_picture(image) for image in images]
    except (OSError, ValueError) as error:
        raise UserError(error) from error


def _critic(given: str | None):
    """What attach takes, with a file read."""
    if given in (None, "auto"):
        return given
    from ..critic import Critic

    try:
        return Critic.load(given)
    except (FileNotFoundError, ValueError) as error:
        raise UserError(error) from error


def _milliseconds(pruned: float, full: float | None) -> str:
    text = f"{1e3 * pruned:.1f} ms"
    return text if full is None else f"{text} pruned, {1e3 * full:.1f} ms with all tokens"


def _answer(answer) -> dict:
    return {
        "answer": answer.text,
        "selection_ms": 1e3 * answer.selection,
        "prefill_ms": 1e3 * answer.first_token,
        "generate_ms": 1e3 * answer.whole,
    }
