"""
``exponea-async completion``: print a script with which a shell completes commands and options.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from exponea_async.cli.options import Commands, add_parser
from exponea_async.cli.terminal import Exit, UsageError

SHELLS = ("bash", "zsh", "fish")
#: The placeholders of options whose values are files.
FILES = ("FILE", "PATH")

DESCRIPTION = """\
  bash: exponea-async completion bash > ~/.local/share/bash-completion/completions/exponea-async
  zsh:  exponea-async completion zsh > ~/.zfunc/_exponea-async   (a folder that is in fpath before compinit)
  fish: exponea-async completion fish > ~/.config/fish/completions/exponea-async.fish

Print the script again after an update. The shell does not start the program to complete a word. The command needs the
extra 'cli': pip install 'exponea-async[cli]'
"""


def register(commands: Commands) -> None:
    """Add the command."""
    parser = add_parser(commands, "completion", "print a script that completes commands in a shell", DESCRIPTION)
    parser.add_argument("shell", choices=SHELLS, help="the shell")
    parser.set_defaults(run=run)


async def run(args: argparse.Namespace) -> int:
    """Print the script."""
    shtab = _import_shtab()
    for action in _actions(args.program):
        if action.type is Path or action.metavar in FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined] # where shtab looks for it
    # Not made printable: it is a script, made of our own help.
    print(shtab.complete(args.program, args.shell), end="")
    return Exit.DONE


def _import_shtab() -> ModuleType:
    try:
        import shtab  # noqa: PLC0415 - only this command needs it
    except ImportError:
        raise UsageError(
            "completion", "the package shtab is missing", "Install it: pip install 'exponea-async[cli]'."
        ) from None
    return shtab


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Return the arguments of a program and of all its commands."""
    for action in parser._actions:  # noqa: SLF001 - argparse has no public access to them
        yield action
        if isinstance(action.choices, dict):
            for command in action.choices.values():
                yield from _actions(command)
