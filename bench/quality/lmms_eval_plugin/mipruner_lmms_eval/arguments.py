"""What --model_args say about pruning, told apart from what they say about the model."""

import difflib
import inspect
from collections.abc import Collection

from mi_pruner_cuda import Mass, attach

# Of attach's parameters, those that the plug-in fills in and those that no text can name.
_NOT_GIVEN = ("model", "tokenizer", "selector", "explain")

KEEP_FORMS = "a ratio such as 0.25, a count such as 64, or mass:0.9"


def option_names() -> tuple[str, ...]:
    """The names of attach's parameters that --model_args may give."""
    return tuple(name for name in inspect.signature(attach).parameters if name not in _NOT_GIVEN)


def split_arguments(given: dict, model_names: Collection[str]) -> tuple[dict | None, dict]:
    """Splits the arguments of a run.

    Args:
        given: name to value, as lmms-eval parses them: numbers are int or float already.
        model_names: the names that the model's own class takes.

    Returns:
        attach's arguments, None where nothing is to be pruned (keep absent or 1.0), and the
        model's.

    Raises:
        TypeError: a name that neither takes, or a pruning argument without keep: a run that was
            meant to prune must not turn out to be the baseline.
        ValueError: keep is none of the forms above.
    """
    ours = option_names()
    for name in given:
        if name not in ours and name not in model_names:
            raise TypeError(_unknown(name, [*ours, *model_names]))
    options = {name: value for name, value in given.items() if name in ours}
    own = {name: value for name, value in given.items() if name not in ours}
    if "keep" not in options:
        if options:
            raise TypeError(
                f"model_args: got {', '.join(options)} without keep; keep={KEEP_FORMS} prunes, "
                "keep=1.0 is the baseline"
            )
        return None, own
    options["keep"] = parse_keep(options["keep"])
    if isinstance(options["keep"], float) and options["keep"] == 1.0:
        return None, own
    if options.get("query") == "none":
        options["query"] = None
    return options, own


def parse_keep(value):
    """attach's keep from one value of --model_args: int and float as they are, mass:SHARE a Mass.

    The integer 1 is one token, the ratio 1.0 all of them, as in attach.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    kind, _, share = str(value).partition(":")
    if kind == "mass":
        try:
            return Mass(float(share))
        except ValueError as error:
            raise ValueError(f"keep: got {value!r}, allowed is {KEEP_FORMS}") from error
    raise ValueError(f"keep: got {value!r}, allowed is {KEEP_FORMS}")


def _unknown(name: str, allowed: list[str]) -> str:
    close = difflib.get_close_matches(name, allowed, 1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"model_args: got {name}, allowed are {', '.join(sorted(allowed))}{hint}"
