"""calibrate: fits a critic to a model from a file of pictures and texts, and saves it."""

import sys
import time

from ..output_path import check_output
from . import prune, values
from .checks import check_device, check_file, check_installed, check_separate, model_files
from .errors import UserError
from .streams import complain, say

HELP = "fits a critic, by which prune compares rows and words, to a model"
METHODS = ("whitening", "attention", "cca", "ridge")


def add_arguments(parser) -> None:
    """The model, the pairs, the file to write and the method."""
    add = parser.add_argument
    add("--model", required=True, help="folder or Hugging Face id")
    add(
        "--pairs", required=True, metavar="FILE",
        help="JSON Lines or CSV of image (a path, relative to the file) and text (a caption, or a "
        "question for method attention); a few hundred",
    )  # fmt: skip
    add(
        "--output", required=True, metavar="FILE",
        help="a .safetensors file; mipruner_critic.safetensors in the model's folder is what "
        "--critic auto looks for",
    )  # fmt: skip
    add("--method", choices=METHODS, default=METHODS[0], help=" ")
    add(
        "--layers", type=values.counts_from_0, metavar="N,N",
        help="decoder layers whose attention method attention looks at; the first third of them if "
        "not given",
    )  # fmt: skip
    add("--limit", type=values.count, metavar="N", help="takes the first N pairs only")
    prune.add_machine_options(parser)


def run(arguments) -> None:
    """Fits, saves, and says how well the critic fits."""
    check_file("output", arguments.output, lambda path: check_output(path, ["safetensors"]))
    check_separate({"output": arguments.output}, {"--pairs": [arguments.pairs]})
    if arguments.layers and arguments.method != "attention":
        raise UserError("layers: allowed only with method attention")
    check_installed("torch", "transformers", "PIL")
    from ..critic.pairs import read_pairs

    check_device(arguments.device)
    if not _is_critic(arguments.output):  # one beside the model may be fitted anew
        check_separate({"output": arguments.output}, {"--model": model_files(arguments.model)})
    try:
        pairs = read_pairs(arguments.pairs)[: arguments.limit]
    except (OSError, ValueError) as error:
        raise UserError(error) from error
    check_separate({"output": arguments.output}, {"a picture": [image for image, _ in pairs]})
    start = time.perf_counter()
    critic, warnings = _fit(arguments, pairs)
    seconds = time.perf_counter() - start
    try:
        critic.save(arguments.output)
    except OSError as error:
        raise UserError(str(error).replace("path:", "output:", 1)) from error
    for warning in warnings:
        complain(f"warning: {warning}")
    _print(critic, seconds)
    say(f"critic    {arguments.output}")


def _is_critic(path: str) -> bool:
    from ..critic import Critic

    try:
        Critic.load(path)
    except (FileNotFoundError, ValueError):
        return False
    return True


def _fit(arguments, pairs: list) -> tuple:
    """Loads the model and calibrates: (critic, what the pairs do not bear out)."""
    import warnings

    from tqdm import tqdm

    from ..critic import calibrate
    from .session import Session, quiet

    with quiet(arguments.threads), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", RuntimeWarning)
        session = Session(arguments.model, arguments.dtype, arguments.device)
        bar = tqdm(pairs, desc="pairs", unit="pair", disable=None, leave=False, file=sys.stderr)
        try:
            critic = calibrate(
                session.model, session.processor, bar, arguments.method, layers=arguments.layers
            )
        except (OSError, TypeError, ValueError) as error:
            raise UserError(error) from error
    messages = [str(warning.message) for warning in said]
    ours = [text.removeprefix("calibrate: ") for text in messages if text.startswith("calibrate: ")]
    return critic, ours


def _print(critic, seconds: float) -> None:
    from ..critic import HELD_OUT, METHODS

    held = critic.pairs // HELD_OUT
    say(f"method    {critic.method}, strength {critic.strength:g}")
    say(f"pairs     {critic.pairs - held} fitted, {held} held out, in {seconds:.1f} s")
    say(f"fit       {METHODS[critic.method].measure}:")
    say(f"          {critic.fitted:.3g} fitted, {critic.held_out:.3g} held out")
