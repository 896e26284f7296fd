"""The command `alexnet`: the only place that reads argv, and the one that turns errors into lines and exit codes.

Exit codes: 0 done, 1 failed (or stopped), 2 wrong use.
"""

import argparse
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

# What is ours is imported once signals are ours: a Ctrl-C meanwhile is one line too.

DONE, FAILED, WRONG_USE = 0, 1, 2


class Stopped(KeyboardInterrupt):
    """SIGINT, SIGTERM or SIGHUP: open runs are closed as KILLED, and the command that resumes is printed."""


def main(argv: list[str] | None = None) -> int:
    """The command line's entry point; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    args = argparse.Namespace(act=None, debug="--debug" in argv, root=None)
    try:
        stop_on_signals()
        code = _act(argv, args)
    except KeyboardInterrupt:
        return _fail(FAILED, "stopped", *_trace(args), *_resume(args, argv))
    return code if _runs_stages(args) else _unless_lost(code)


def _act(argv: list[str], args: argparse.Namespace) -> int:
    """Parses the arguments into `args` and does what they say; the exit code."""
    from workflows import failures, streams
    from workflows.config import UsageError

    streams.guard()
    try:
        _completed(_parser()).parse_args(argv, args)
        return args.act(args) or DONE
    except SystemExit as end:  # argparse has printed its help
        return int(end.code or DONE)
    except UsageError as error:
        return _fail(WRONG_USE, str(error), *getattr(error, "__notes__", ()), before=_trace(args))
    except Exception as error:
        before = _trace(args) or failures.keep_trace(error, args.root)
        return _fail(FAILED, failures.line(error), *_resume(args, argv), before=before)


def _fail(code: int, what: str, *more: str, before: Sequence[str] = ()) -> int:
    from workflows.console import tell

    tell(*before, f"alexnet: {what}", *more, file=sys.stderr)
    return code


def _trace(args: argparse.Namespace) -> list[str]:
    """With --debug, the trace of what is being handled."""
    return traceback.format_exc().rstrip().splitlines() if args.debug else []


def _runs_stages(args: argparse.Namespace) -> bool:
    return "stage" in args  # which one, or None for all


def _resume(args: argparse.Namespace, argv: list[str]) -> list[str]:
    """The line that resumes, for what runs stages."""
    if not _runs_stages(args):
        return []
    from workflows.commands.given import program

    return [f"to go on from what is done: {shlex.join([*program(), *argv])}"]


def _unless_lost(code: int) -> int:
    """The code of a command that is only there to print; 1 where what it printed was lost."""
    from workflows.streams import lost_output

    lost = lost_output()
    return code if code or lost is None else _fail(FAILED, f"cannot write to standard output: {lost.strerror}")


def stop_on_signals() -> None:
    """The first signal is raised as Stopped; then SIGINT ends the process at once and the others are ignored.

    A hangup that is ignored already, as by `nohup`, stays ignored.
    """
    hangup = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)

    def stop(number, frame):
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second Ctrl-C ends us at once, whatever we wait for
        for later in (signal.SIGTERM, *hangup):
            signal.signal(later, signal.SIG_IGN)  # a second one would end the closing of runs
        raise Stopped

    for first in (signal.SIGINT, signal.SIGTERM, *hangup):
        signal.signal(first, stop)


class _Parser(argparse.ArgumentParser):
    """Wrong use is a UsageError: one line, like all that is wrong."""

    def error(self, message: str) -> NoReturn:
        from workflows.config import UsageError

        raise UsageError(f"{message}; `{self.prog} --help` says what there is")


def _parser() -> _Parser:
    from pipelines.names import SPLITS
    from workflows.commands import completion, verbs
    from workflows.commands.claims import claims, reproduce
    from workflows.commands.compare import compare
    from workflows.config import BASELINES
    from workflows.workflow import OF_A_RUN, STAGES

    parser = _Parser(
        prog="alexnet",
        description="ImageNet from raw archives to a tracked, reproducible AlexNet.",
        epilog="exit codes: 0 done, 1 failed or stopped (the command that resumes is printed), 2 wrong use",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and the commit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    debug, common, running, json = _debug(), _common(), _running(), _json()

    def command(name: str, act, what: str, *parents: _Parser) -> _Parser:
        added = commands.add_parser(name, parents=[*parents, debug], help=what, description=what)
        added.set_defaults(act=act)
        return added

    add = command("run", verbs.run, "run all stages, each unless it is done", common, running)
    add.add_argument(
        "--from", dest="first", metavar="STAGE", choices=OF_A_RUN, default=OF_A_RUN[0], help="first stage to run"
    )
    add.add_argument(
        "--until", dest="last", metavar="STAGE", choices=OF_A_RUN, default=OF_A_RUN[-1], help="last stage to run"
    )
    add.set_defaults(stage=None)
    for stage in (stage for stage in STAGES if not stage.command):
        reach = ", and before it what it needs" if stage.optional else " alone"
        command(stage.name, verbs.run, f"run the stage {stage.name}{reach}", common, running).set_defaults(
            stage=stage.name
        )
    add = command("baseline", verbs.run, "what features made by hand come to on the same images", common, running)
    add.add_argument(
        "stage",
        metavar="BASELINE",
        choices=BASELINES,
        help="fisher or sparse: Fisher vectors or sparse codes of dense descriptors",
    )
    command("plan", verbs.plan, "say what would run, why, how long and how large", common, json)
    command("status", verbs.status, "say what is there", common, json)
    _add_comparing(command("compare", compare, "run arms with seeds, and say how they differ", common))
    _add_claims(command("claims", claims, "say what the paper claims, and what was measured of it", json))
    _add_reproducing(command("reproduce", reproduce, "run what measures a claim, and keep the evidence"))
    command("verify", verbs.verify, "read all that is finished again, every shard too, against the records", common)
    add = command("clean", verbs.clean, "list what was left half done, and what is named, and remove it", common)
    add.add_argument("outputs", nargs="*", metavar="STAGE/KEY", help="outputs that go whatever their state")
    add.add_argument("--finished", action="store_true", help="also finished outputs that nothing refers to")
    add.add_argument(
        "--older-than", type=float, default=24, metavar="HOURS", help="age of what is half done (default 24)"
    )
    add.add_argument("--yes", action="store_true", help="remove it")
    add = command("ui", verbs.ui, "serve the MLflow UI on this machine", common)
    add.add_argument("--port", type=_port, default=5000, help="port on 127.0.0.1 (default 5000)")
    add = command("predict", verbs.predict, "print the five likeliest classes of images", common, json)
    add.add_argument("images", nargs="+", metavar="IMAGE", help="image files, or folders of them")
    add.add_argument("--model", help="folder of an exported model, or models:/NAME@ALIAS (default: the last trained)")
    add = command("search", verbs.search, "find the stored images that the network finds most like yours", common, json)
    add.add_argument("images", nargs="+", metavar="IMAGE", help="image files, or folders of them")
    add.add_argument("--split", choices=SPLITS, default="train", help="images that are looked through (default train)")
    add.add_argument("--top", type=_count, metavar="N", default=6, help="answers to each image (default 6)")
    add.add_argument(
        "--codes", type=_count, metavar="BITS", help="by codes of so many bits (`alexnet codes`), not features"
    )
    add.add_argument("--open", action="store_true", help="show the picture of the answers")
    add = command("bench", verbs.bench, "time ours and the peers in one run")
    add.add_argument("what", choices=("ingest", "loader", "scale", "trainer"))
    add.add_argument("--images", help="folder or tar of images, as ingest.source (default: generated ones)")
    add.add_argument("--json", metavar="FILE", help="where to write the figures")
    add.add_argument("--repeats", type=int, help="turns of each part, of which the median counts")
    add.add_argument("--seconds", type=float, help="length of each turn, s")
    command("doctor", verbs.doctor, "see whether this machine fits", common, json)
    add = command("config", verbs.show_config, "print the resolved configuration, every key with its help", common)
    shown = add.add_argument(
        "keys", nargs="*", metavar="KEY", help="these alone, such as train.lr, or a section: train"
    )
    _complete(shown, completion.keys)
    command("recipes", verbs.show_recipes, "list the recipes")
    return parser


def _completed(parser: _Parser) -> _Parser:
    """Answers a shell that completes a line, and ends; else the parser as it is."""
    if "_ARGCOMPLETE" in os.environ:
        import argcomplete

        argcomplete.autocomplete(parser)
    return parser


class _Version(argparse.Action):
    """Read when it is asked for: git takes longer than the rest."""

    def __call__(self, parser, *others):
        from importlib import metadata

        from workflows.console import tell
        from workflows.engine.provenance import code_commit

        tell(f"alexnet {metadata.version('alexnet')}, commit {code_commit()}")
        parser.exit()


def _complete(argument: argparse.Action, complete: Callable[..., list[str]]) -> None:
    """What argcomplete asks for an argument."""
    argument.completer = complete  # type: ignore[attr-defined]


def _common() -> _Parser:
    from workflows.commands import completion

    common = _Parser(add_help=False)
    which = common.add_mutually_exclusive_group()
    recipe = which.add_argument("--recipe", metavar="NAME", help="start from a recipe (`alexnet recipes`)")
    _complete(recipe, completion.recipes)
    which.add_argument("--config", metavar="FILE", type=Path, help="start from a file that `alexnet config` wrote")
    _add_settings(common)
    _add_root(common)
    return common


def _add_settings(add: _Parser) -> None:
    from workflows.commands import completion

    setting = add.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="settings",
        type=_text,
        help="change a key; may be repeated",
    )
    _complete(setting, completion.settings)


def _add_root(add: _Parser) -> None:
    add.add_argument("--root", type=_folder, default=Path("runs"), help="folder of everything kept (default runs)")


def _add_comparing(add: _Parser) -> None:
    """The options of `compare`."""
    from workflows.commands import completion

    stored = add.add_argument("comparison", nargs="?", metavar="NAME", help="show a stored one; without arms, list all")
    _complete(stored, completion.comparisons)
    varied = add.add_argument(
        "--vary",
        action="append",
        default=[],
        metavar="KEY=V,V",
        type=_text,
        help="an arm for each value; repeated, for each combination; a value with commas in [] or quotes",
    )
    _complete(varied, completion.settings)
    add.add_argument(
        "--arm",
        action="append",
        default=[],
        metavar="NAME:KEY=V,KEY=V",
        type=_text,
        help="an arm that sets these keys; with baseline=fisher or baseline=sparse, that baseline and no network",
    )
    add.add_argument("--seeds", type=_count, metavar="N", help="runs of each arm, with the seeds 0 to N-1 (default 1)")
    add.add_argument("--name", metavar="NAME", type=_text, help="what to call it (default: recipe and varied keys)")
    add.add_argument("--jobs", type=_count, metavar="N", help="trainings at once, where there is room (default 1)")
    add.add_argument("--plan", action="store_true", help="say what is stored, what is missing and how long that takes")
    add.add_argument("--json", action="store_true", help="the summary (of --plan and the list: objects), for programs")
    _add_take_lock(add)


def _add_claims(add: _Parser) -> None:
    """The options of `claims`."""
    from workflows.commands import completion

    claim = add.add_argument("claim", nargs="?", metavar="CLAIM", help="tell the whole story of one; without, list all")
    _complete(claim, completion.claims)
    add.add_argument("--html", action="store_true", help="write the page of them, in the paper's own form")
    _add_root(add)


def _add_reproducing(add: _Parser) -> None:
    """The options of `reproduce`."""
    from workflows.commands import completion

    claim = add.add_argument("claim", metavar="CLAIM", help="which one (`alexnet claims`)")
    _complete(claim, completion.reproducible)
    add.add_argument(
        "--at", choices=("full", "small"), help="the paper's own data and network, or a stated reduction (default)"
    )
    add.add_argument("--seeds", type=_count, metavar="N", help="runs of each arm (default: the claim's own number)")
    add.add_argument("--jobs", type=_count, metavar="N", help="trainings at once, where there is room (default 1)")
    add.add_argument("--plan", action="store_true", help="say what is stored, what is missing and how long that takes")
    add.add_argument(
        "--json", action="store_true", help="of --plan: objects, for programs; else as claims CLAIM --json"
    )
    _add_settings(add)
    _add_root(add)
    _add_take_lock(add)


def _running() -> _Parser:
    from workflows.workflow import NAMES

    running = _Parser(add_help=False)
    running.add_argument(
        "--redo",
        action="append",
        default=[],
        metavar="STAGE",
        choices=NAMES,
        help="make it again, and all after it; the old output stays until the new one is finished",
    )
    _add_take_lock(running)
    return running


def _add_take_lock(add: _Parser) -> None:
    add.add_argument(
        "--take-lock", action="store_true", help="go on where a process of another machine holds a lock and is dead"
    )


def _json() -> _Parser:
    json = _Parser(add_help=False)
    json.add_argument("--json", action="store_true", help="a list of objects, for programs")
    return json


def _debug() -> _Parser:
    debug = _Parser(add_help=False)
    debug.add_argument("--debug", action="store_true", help="show the trace of a failure, and what Ray's workers log")
    return debug


def _text(said: str) -> str:
    """What can be written to a file or a database."""
    try:
        said.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"{said!a} is not UTF-8; use a name that is") from None
    return said


def _folder(said: str) -> Path:
    """The path of a folder that is there, or for which there is a place."""
    if not said:
        raise argparse.ArgumentTypeError("it is empty; name a folder")
    path = Path(_text(said))
    nearest = next(parent for parent in path.absolute().parents if os.path.exists(parent))
    if not nearest.is_dir():
        raise argparse.ArgumentTypeError(f"{said} cannot be a folder, since {nearest} is none; name another")
    return path


def _count(said: str) -> int:
    if not said.isdecimal() or int(said) < 1:
        raise argparse.ArgumentTypeError(f"{said} is no number; use 1 or more")
    return int(said)


def _port(said: str) -> int:
    if not said.isdecimal() or not 0 < int(said) < 65536:
        raise argparse.ArgumentTypeError(f"{said} is no port; name one from 1024 to 65535")
    return int(said)


if __name__ == "__main__":
    sys.exit(main())
