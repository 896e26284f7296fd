"""What a command line gives a command: the configuration, where it comes from, and the places of the outputs."""

import argparse
import os
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from pipelines.storage import redacted
from workflows import config as configuration
from workflows import recipes
from workflows.config import LAST, RunConfig, UsageError
from workflows.console import Console
from workflows.engine.outputs import Places, places


@dataclass(frozen=True)
class Given:
    """A command line, resolved.

    Attributes:
        config: The recipe or file that was named, else the configuration of the last run in the root, else demo's;
            with the settings of the command line. All paths in it are absolute.
        origin: Where that comes from, in words.
        is_named: Whether a recipe or file was named.
    """

    args: argparse.Namespace
    config: RunConfig
    origin: str

    @property
    def root(self) -> Path:
        return self.args.root.absolute()

    @property
    def is_named(self) -> bool:
        return bool(self.args.config or self.args.recipe)

    def places(self, may_write: bool = False) -> Places:
        return places(self.config, self.root, may_write)

    def announce(self, console: Console) -> None:
        """The first line that the user sees, once it is clear that the command can do what it was asked for."""
        console.say(f"configuration: {self.config.recipe}, {self.origin}")

    def command(self, *verb: str) -> str:
        """This command line with another verb, of a word or more: the same recipe or file, settings and root."""
        chosen = [f"--{name}={given}" for name in ("recipe", "config") if (given := getattr(self.args, name))]
        chosen += [f"--set={setting}" for setting in self.args.settings]
        return shlex.join([*program(), *verb, *chosen, *self._root()])

    def ui(self) -> str:
        return shlex.join([*program(), "ui", *self._root()])

    def _root(self) -> list[str]:
        return [] if self.args.root == Path("runs") else [f"--root={self.args.root}"]


def given(args: argparse.Namespace) -> Given:
    """The command line, resolved.

    Raises:
        UsageError: No such recipe or file, keys or values that do not fit, a root that is no folder.
    """
    if args.root.exists() and not args.root.is_dir():
        raise UsageError(f"--root {args.root} is no folder; name one")
    base, origin = _base(args)
    new = dict(map(configuration.parse_setting, args.settings))
    config = configuration.with_absolute_paths(configuration.with_values(base, new), Path.cwd())
    if args.settings:
        origin += f"; {redacted(', '.join(args.settings))}"
    return Given(args, config, origin)


def _base(args: argparse.Namespace) -> tuple[RunConfig, str]:
    last = args.root / LAST
    if args.config:
        config = configuration.load(args.config)
        try:
            recipes.named(config.recipe)  # or runs and models would be named after what is none
        except UsageError as error:
            raise UsageError(f"{args.config}: {error}") from None
        return configuration.with_absolute_paths(config, args.config.parent), f"{args.config}"
    if args.recipe:
        return recipes.named(args.recipe), "the recipe"
    if last.is_file():
        base, unfit = _last(last)
        less = f" without {', '.join(unfit)}, which this version does not know" if unfit else ""
        return base, f"as in the last run ({last}){less}"
    return recipes.demo(), "the recipe"


def _last(path: Path) -> tuple[RunConfig, tuple[str, ...]]:
    try:
        return configuration.load_known(path)
    except UsageError as error:
        raise UsageError(f"{error}: name the --recipe or the --config of this root, or remove the file") from error


def program() -> list[str]:
    """How this program was called."""
    called = sys.argv[0]
    if not os.access(called, os.X_OK):
        return [sys.executable, "-m", "workflows.cli"] if called.endswith("cli.py") else ["alexnet"]
    return ["alexnet"] if shutil.which("alexnet") == called else [called]
