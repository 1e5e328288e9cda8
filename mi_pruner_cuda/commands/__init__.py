"""The command line: one file per command, and main, which finds the command and reports mistakes.

A command module has HELP, add_arguments(parser) and run(arguments). It loads torch, transformers
and matplotlib in run only, so that --help and wrong arguments are answered at once.
"""

import argparse
import sys

from . import calibrate, demo, info, models, prune
from .errors import UserError

_COMMANDS = {
    "demo": demo, "prune": prune, "calibrate": calibrate, "models": models, "info": info,
}  # fmt: skip
EXIT_MISTAKE = 2  # the user can put it right; 1 is left to exceptions with their traceback


def main(argv: list[str] | None = None, prog: str = "mipruner") -> int:
    """Runs one command and returns its exit status: 0, or 2 for a mistake told in one line.

    argv: the arguments; None: this process's. prog: what the user called, for help and mistakes.
    """
    try:
        arguments = _parser(prog).parse_args(argv)
        arguments.run(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_MISTAKE
    return 0


class _Parser(argparse.ArgumentParser):
    """Wrong arguments are one line, like every other mistake."""

    def error(self, message: str):
        raise UserError(f"{message} (see {self.prog} --help)")


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
