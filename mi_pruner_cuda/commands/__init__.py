"""The command line: one file per command, and main, which finds the command and reports mistakes.

A command module has HELP, add_arguments(parser) and run(arguments). It loads torch, transformers
and matplotlib in run only, so that --help and wrong arguments are answered at once. run writes the
files that were asked for before it prints anything.
"""

import argparse
import sys

from . import calibrate, demo, info, models, prune
from .errors import UserError
from .streams import OutputLost, complain, discard, escaping, flush, say

_COMMANDS = {
    "demo": demo, "prune": prune, "calibrate": calibrate, "models": models, "info": info,
}  # fmt: skip
EXIT_MISTAKE = 2  # the user can put it right; 1 is left to exceptions with their traceback
EXIT_INTERRUPTED = 130  # as shells call the end by SIGINT
EXIT_CLOSED_PIPE = 141  # and by SIGPIPE


def main(argv: list[str] | None = None, prog: str = "mipruner") -> int:
    """Runs one command.

    Args:
        argv: the arguments behind the program's name; None takes those of the process.
        prog: what the user called, for help and mistakes.

    Returns:
        The exit status: 0, 2 for a mistake told in one line, 130 after Ctrl-C, 141 where the reader
        of standard output left before the end.
    """
    with escaping():
        ran, flushed = _status(_run, argv, prog), _status(flush)
        return ran or flushed


def _run(argv: list[str] | None, prog: str) -> None:
    arguments = _parser(prog).parse_args(argv)
    arguments.run(arguments)


def _status(step, *given) -> int:
    try:
        step(*given)
    except UserError as error:
        complain(f"error: {error}")
        return EXIT_MISTAKE
    except OutputLost as error:
        discard(sys.stdout)
        if error.closed:
            return EXIT_CLOSED_PIPE
        complain(f"error: {error}")
        return EXIT_MISTAKE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return 0


class _Parser(argparse.ArgumentParser):
    """Wrong arguments are one line, like every other mistake, and so is a help that gets lost."""

    def error(self, message: str):
        raise UserError(f"{message} (see {self.prog} --help)")

    def print_help(self, file=None):
        if file is not None:
            return super().print_help(file)
        say(self.format_help().rstrip("\n"))
        flush()


class _Defaults(argparse.ArgumentDefaultsHelpFormatter):
    """Says the default of every option that has one."""

    def _get_help_string(self, action):
        return action.help if action.default is None else super()._get_help_string(action)


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=prog,
        description="Keeps the visual tokens that carry information about the question.",
    )
    commands = parser.add_subparsers(title="commands", metavar=" | ".join(_COMMANDS), required=True)
    for name, module in _COMMANDS.items():
        command = commands.add_parser(
            name,
            help=module.HELP,
            description=module.HELP,
            formatter_class=_Defaults,
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser
