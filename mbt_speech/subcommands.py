"""Commands that are imported when they are called, so that a help page does not wait for what it lists."""

from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Mapping
from typing import NamedTuple

from .user_errors import OneSentence, require


class Command(NamedTuple):
    """A command of a command line."""

    module: str
    """Full name of a module with `add_arguments(parser)` and, unless those are further commands, `main(args)`; its
    docstring describes the command."""
    help: str
    """One line."""
    extra: str | None = None
    """What the module needs beside a plain installation."""


def add_commands(parser: ArgumentParser, commands: Mapping[str, Command], dest: str) -> None:
    """Adds commands to a parser: `args.main(args)` runs the one that is called, whose name is in `args.<dest>`."""
    subparsers = parser.add_subparsers(
        title="commands", dest=dest, metavar=dest.upper(), required=True, parser_class=_CommandParser
    )
    for name, command in commands.items():
        subparsers.add_parser(name, help=command.help, command=command)


class _CommandParser(OneSentence):
    def __init__(self, *args, command: Command, **kwargs):
        super().__init__(*args, formatter_class=RawDescriptionHelpFormatter, **kwargs)
        self.command = command

    def parse_known_args(self, args=None, namespace=None) -> tuple[Namespace, list[str]]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Parses a command that is called, once its module has been imported."""
        module = require(self.command.module, self.command.extra, f"`{self.prog}`")
        self.description = (module.__doc__ or "").partition("\n\nAxes:")[0]  # a legend for readers of the code
        module.add_arguments(self)
        self.set_defaults(main=getattr(module, "main", None))
        return super().parse_known_args(args, namespace)
