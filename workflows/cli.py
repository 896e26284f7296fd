"""The command `alexnet`: the only place that reads argv, and the one that turns errors into lines and exit codes.

Exit codes: 0 done, 1 failed (or stopped), 2 wrong use.
"""

import argparse
import os
import shlex
import signal
import sys
import traceback
from pathlib import Path

from workflows import commands
from workflows.catalog import NAMES
from workflows.config import UsageError
from workflows.console import tell

DONE, FAILED, WRONG_USE = 0, 1, 2


class Stopped(KeyboardInterrupt):
    """SIGINT or SIGTERM: open runs are closed as KILLED, and the command that resumes is printed."""


def main(argv: list[str] | None = None) -> int:
    """The command line's entry point; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    args = _parser().parse_args(argv)
    stop_on_signals()
    try:
        return args.act(args) or DONE
    except UsageError as error:
        return _fail(WRONG_USE, str(error))
    except BrokenPipeError:  # `alexnet … | head`: whoever read has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except KeyboardInterrupt:
        return _fail(FAILED, "stopped", *_resume(args, argv))
    except (ValueError, OSError) as error:
        notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
        return _fail(FAILED, f"{error}{notes}", *_resume(args, argv))
    except Exception as error:
        tell(*traceback.format_exc().splitlines(), file=sys.stderr)
        return _fail(FAILED, f"{type(error).__name__}: {error}", *_resume(args, argv))


def _fail(code: int, what: str, *more: str) -> int:
    tell(f"alexnet: {what}", *more, file=sys.stderr)
    return code


def _resume(args: argparse.Namespace, argv: list[str]) -> list[str]:
    """The line that resumes, for what runs stages."""
    if args.act is not commands.run:
        return []
    return [f"to go on from what is done: {shlex.join([*commands.program(), *argv])}"]


def stop_on_signals() -> None:
    """The first signal is raised as Stopped; then SIGINT ends the process at once and SIGTERM is ignored."""

    def stop(number, frame):
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second Ctrl-C ends us at once, whatever we wait for
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would end the closing of runs
        raise Stopped

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="alexnet",
        description="ImageNet from raw archives to a tracked, reproducible AlexNet.",
        epilog="exit codes: 0 done, 1 failed or stopped (the command that resumes is printed), 2 wrong use",
    )
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    common, running, json = _common(), _running(), _json()

    def command(name: str, act, what: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, parents=list(parents), help=what, description=what)
        added.set_defaults(act=act)
        return added

    add = command("run", commands.run, "run all stages, each unless it is done", common, running)
    add.add_argument(
        "--from", dest="first", metavar="STAGE", choices=NAMES, default=NAMES[0], help="first stage to run"
    )
    add.add_argument(
        "--until", dest="last", metavar="STAGE", choices=NAMES, default=NAMES[-1], help="last stage to run"
    )
    add.set_defaults(stage=None)
    for name in NAMES:
        command(name, commands.run, f"run the stage {name} alone", common, running).set_defaults(stage=name)
    command("plan", commands.plan, "say what would run, why, how long and how large", common, json)
    command("status", commands.status, "say what is there", common, json)
    command("verify", commands.verify, "read every shard again and compare it with the manifest", common)
    add = command(
        "clean", commands.clean, "list what may go (left half done, and what is named), and remove it", common
    )
    add.add_argument("outputs", nargs="*", metavar="STAGE/KEY", help="outputs that go whatever their state")
    add.add_argument("--finished", action="store_true", help="also finished outputs that nothing refers to")
    add.add_argument(
        "--older-than", type=float, default=24, metavar="HOURS", help="age of what is half done (default 24)"
    )
    add.add_argument("--yes", action="store_true", help="remove it")
    add = command("ui", commands.ui, "serve the MLflow UI on this machine", common)
    add.add_argument("--port", type=int, default=5000, help="port on 127.0.0.1 (default 5000)")
    add = command("predict", commands.predict, "print the five likeliest classes of images", common, json)
    add.add_argument("images", nargs="+", metavar="IMAGE", help="image files, or folders of them")
    add.add_argument("--model", help="folder of an exported model, or models:/NAME@ALIAS (default: the last trained)")
    add = command("bench", commands.bench, "time ours and the peers in one run")
    add.add_argument("what", choices=("ingest", "loader", "trainer"))
    add.add_argument("--images", help="folder or tar of images, as ingest.source (default: generated ones)")
    add.add_argument("--json", metavar="FILE", help="where to write the figures")
    add.add_argument("--repeats", type=int, help="turns of each part, of which the median counts")
    add.add_argument("--seconds", type=float, help="length of each turn, s")
    command("doctor", commands.doctor, "see whether this machine fits", common, json)
    command("config", commands.show_config, "print the resolved configuration, every key with its help", common)
    command("recipes", commands.show_recipes, "list the recipes")
    return parser


def _common() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    which = common.add_mutually_exclusive_group()
    which.add_argument("--recipe", metavar="NAME", help="start from a recipe (`alexnet recipes`)")
    which.add_argument("--config", metavar="FILE", type=Path, help="start from a file that `alexnet config` wrote")
    common.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="settings", help="change a key; may be repeated"
    )
    common.add_argument("--root", type=Path, default=Path("runs"), help="folder of everything kept (default runs)")
    return common


def _running() -> argparse.ArgumentParser:
    running = argparse.ArgumentParser(add_help=False)
    running.add_argument(
        "--redo",
        action="append",
        default=[],
        metavar="STAGE",
        choices=NAMES,
        help="make it again, and all after it; the old output stays until the new one is finished",
    )
    running.add_argument(
        "--take-lock", action="store_true", help="go on where a process of another machine holds a lock and is dead"
    )
    return running


def _json() -> argparse.ArgumentParser:
    json = argparse.ArgumentParser(add_help=False)
    json.add_argument("--json", action="store_true", help="a list of objects, for programs")
    return json


if __name__ == "__main__":
    sys.exit(main())
