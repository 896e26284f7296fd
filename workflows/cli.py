"""The command `alexnet`: reads argv, picks a recipe, sets keys, and calls plain functions.

Exit codes: 0 done, 1 failed (or stopped), 2 wrong use.
"""

import argparse
import os
import shlex
import signal
import sys
import traceback
from pathlib import Path

from workflows import config as configuration
from workflows import recipes
from workflows.catalog import NAMES, STAGES
from workflows.config import RunConfig, UsageError
from workflows.console import Console, duration, table

DONE, FAILED, WRONG_USE = 0, 1, 2


class Stopped(KeyboardInterrupt):
    """SIGINT or SIGTERM: open runs are closed as KILLED, and the command that resumes is printed."""


def main(argv: list[str] | None = None) -> int:
    """The command line's entry point; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    args = _parser().parse_args(argv)
    _stop_on_signals()
    try:
        return args.act(args) or DONE
    except UsageError as error:
        return _fail(WRONG_USE, str(error))
    except KeyboardInterrupt:
        return _fail(FAILED, "stopped", _resume(argv))
    except (ValueError, OSError) as error:
        notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
        return _fail(FAILED, f"{error}{notes}", _resume(argv))
    except Exception as error:
        traceback.print_exc()
        return _fail(FAILED, f"{type(error).__name__}: {error}", _resume(argv))


def _fail(code: int, what: str, *more: str) -> int:
    print("\n".join([f"alexnet: {what}", *more]), file=sys.stderr)
    return code


def _resume(argv: list[str]) -> str:
    return f"to go on from what is done: {shlex.join([Path(sys.argv[0]).name or 'alexnet', *argv])}"


def _stop_on_signals() -> None:
    def stop(number, frame):
        signal.signal(signal.SIGINT, lambda *_: os._exit(FAILED))  # a second Ctrl-C: at once
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
    common = _common()
    running = argparse.ArgumentParser(add_help=False)
    running.add_argument("--force", action="append", default=[], metavar="STAGE", choices=NAMES, help="run it again")
    running.add_argument("--break-locks", action="store_true", help="take over the lock of another host's process")

    add = verbs.add_parser("run", parents=[common, running], help="all stages, each unless it is done")
    add.add_argument(
        "--from", dest="first", metavar="STAGE", choices=NAMES, default=NAMES[0], help="first stage to run"
    )
    add.add_argument(
        "--until", dest="last", metavar="STAGE", choices=NAMES, default=NAMES[-1], help="last stage to run"
    )
    add.set_defaults(act=_run, stage=None)
    for name in NAMES:
        add = verbs.add_parser(name, parents=[common, running], help=f"the stage {name} alone")
        add.set_defaults(act=_run, stage=name)
    add = verbs.add_parser("status", parents=[common], help="what is there")
    add.add_argument("--json", action="store_true", help="a list of objects, for programs")
    add.set_defaults(act=_status)
    add = verbs.add_parser("config", parents=[common], help="print the resolved configuration, every key with its help")
    add.set_defaults(act=lambda args: print(configuration.dump(_config(args)), end=""))
    verbs.add_parser("recipes", help="the recipes").set_defaults(act=_recipes)
    add = verbs.add_parser("ui", parents=[common], help="serve the MLflow UI on this machine")
    add.add_argument("--port", type=int, default=5000, help="port on 127.0.0.1 (default 5000)")
    add.set_defaults(act=_ui)
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


def _config(args: argparse.Namespace, otherwise_last: bool = True) -> RunConfig:
    """The recipe or file that was named, else the last run's configuration, else demo; then the settings."""
    last = args.root / "config.toml"
    if args.config:
        base = configuration.load(args.config)
    elif args.recipe:
        base = recipes.named(args.recipe)
    elif otherwise_last and last.is_file():
        base = configuration.load(last)
    else:
        base = recipes.demo()
    return configuration.with_values(base, dict(map(configuration.parse_setting, args.settings)))


def _run(args: argparse.Namespace) -> int:
    from workflows import run

    config = _config(args, otherwise_last=args.stage is not None)
    root = args.root.absolute()
    only = [args.stage] if args.stage else NAMES[NAMES.index(args.first) : NAMES.index(args.last) + 1]
    rows = run.run(STAGES, config, root, only=only, force=args.force, break_locks=args.break_locks, console=Console())
    run.remember(config, root)
    print(
        table(
            [["stage", "state", "time", "result"], *([r.stage, r.state, duration(r.seconds), r.result] for r in rows)]
        )
    )
    if all(row.state == "cached" for row in rows):
        print("nothing to do: every stage was done before")
    if rows[-1].stage == "report":
        print(f"report: {rows[-1].path / 'report.html'}")
    print(f"runs:   {Path(sys.argv[0])} ui --root {args.root}")
    return DONE


def _status(args: argparse.Namespace) -> int:
    from workflows.plan import plan
    from workflows.run import as_json

    rows = [_status_row(step) for step in plan(STAGES, _config(args), args.root.absolute())]
    if args.json:
        print(as_json(rows))
        return DONE
    cells = [
        [r["stage"], r["state"], r["key"], r["result"] or "; ".join(r["reasons"]), r["finished"] or ""] for r in rows
    ]
    print(table([["stage", "state", "key", "result", "finished"], *cells]))
    return DONE


def _status_row(step) -> dict:
    record = step.output.record or {}
    return {
        "stage": step.stage.name,
        "state": step.state,
        "key": step.output.key,
        "path": str(step.output.folder),
        "mlflow_run_id": record.get("mlflow_run_id"),
        "seconds": record.get("seconds"),
        "finished": record.get("finished"),
        "result": record.get("result"),
        "reasons": list(step.reasons),
    }


def _recipes(args: argparse.Namespace) -> None:
    for name, recipe in recipes.RECIPES.items():
        print(f"{name}\n    " + "\n    ".join(line.strip() for line in recipe.__doc__.strip().splitlines()))


def _ui(args: argparse.Namespace) -> int:
    from workflows.ui import serve

    return serve(_config(args).tracking, args.root.absolute(), args.port)


if __name__ == "__main__":
    sys.exit(main())
