"""`alexnet compare`: makes a comparison, says what it would take, or shows one that is stored."""

import argparse
import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.storage import redacted
from workflows.commands import verbs
from workflows.commands.given import Given, given, program
from workflows.config import UsageError
from workflows.console import Console, duration, table, tell

if TYPE_CHECKING:
    from workflows.engine.plan import Planned
    from workflows.studies.comparison import Comparison, Member

FAILED = 1
STATES = ("stored", "begun", "missing")  # of runs, in a plan
MAKES = ("vary", "arm", "seeds", "name", "jobs", "plan")  # options that make no sense with a stored one
LEGEND = "±: standard error over seeds; * one seed, so from the test images"


def compare(args: argparse.Namespace) -> int | None:
    """Makes the comparison that is asked for, or shows stored ones; fails where a run failed."""
    if not (args.vary or args.arm):
        _show(args)
        return None
    if args.comparison:
        raise UsageError(
            f"compare {args.comparison} shows a stored comparison; to make one of that name, --name {args.comparison}"
        )
    here = given(args)
    comparison = _asked_for(here)
    if args.plan:
        plan(here, comparison)
        return None
    summary = make(here, comparison)
    _tell(summary, here.root, args.json)
    return FAILED if summary["failed"] else None


def _asked_for(here: Given) -> "Comparison":
    from workflows.studies import arms
    from workflows.studies.comparison import Comparison

    args = here.args
    found = arms.arms(args.vary, args.arm)
    name = arms.require_name(args.name or arms.default_name(here.config.recipe, args.vary, found))
    comparison = Comparison(name, here.config, found, tuple(range(args.seeds or 1)))
    assert comparison.members, "arms and seeds are there"
    return comparison


def make(here: Given, comparison: "Comparison", also: Callable[[dict], list[Path]] = lambda summary: []) -> dict:
    """Runs what is missing of it; the summary, of which `also` keeps what else is to go to MLflow."""
    from workflows.compute.on_ray import OnRay
    from workflows.studies.running import How, compare

    args, console = here.args, Console()

    def check(planned: dict["Member", dict[str, "Planned"]]) -> None:
        warnings = {_checked(member, steps) for member, steps in planned.items()}
        here.announce(console)
        for warning in sorted(warnings - {""}):
            console.say(f"warning: {warning}")
        args.stage = None  # stages run from here on: what stops them names the command that goes on

    how = How(
        console=console,
        compute=lambda config, console: OnRay(config.ray, console.say, debug=args.debug),
        check=check,
        take_lock=args.take_lock,
        command=redacted(shlex.join([*program(), *sys.argv[1:]])),
        jobs=args.jobs or 1,
        debug=args.debug,
        also=also,
    )
    return compare(comparison, here.root, how)


def _checked(member: "Member", steps: dict[str, "Planned"]) -> str:
    """What there is to say of GPUs that its training will not use; UsageError where it cannot be run."""
    due = {name for name, step in steps.items() if step.state != "CACHED"}
    try:
        verbs.require_possible(list(steps.values()), due, member.config)
        return verbs.idle_gpus(member.config) if "train" in due else ""
    except UsageError as error:
        raise UsageError(f"arm {member.arm.name}: {error}") from error


def plan(here: Given, comparison: "Comparison") -> None:
    """What is stored and what is missing, and how long that takes by the rates measured here."""
    rows = _planned(here, comparison)
    here.announce(Console())
    if here.args.json:
        tell(*json.dumps(rows, indent=1).split("\n"))
        return
    cells = [[row["arm"], *(str(row[state]) for state in STATES), _expected(row)] for row in rows]
    tell(*table([["arm", *STATES, "expected"], *cells]))
    if any(row["waits"] for row in rows):
        tell(f"ingest or stats come first: `{here.command('plan')}` says how long they take")
    missing = sum(row["begun"] + row["missing"] for row in rows)
    known = sum(row["seconds"] or 0 for row in rows)
    untimed = sum(row["untimed"] for row in rows)
    if not missing:
        tell("nothing to do: every run is stored")
        return
    said = f"{missing} runs are missing" if missing > 1 else "1 run is missing"
    less = f", and {untimed} of a kind that was not timed here yet" if untimed else ""
    tell(f"{said}: {duration(known)}, one after the other{less}" if known else f"{said}; none was timed here yet")


def _planned(here: Given, comparison: "Comparison") -> list[dict[str, Any]]:
    from contextlib import closing

    from workflows.compute.on_ray import OnRay
    from workflows.engine import estimate
    from workflows.studies.comparison import SHARED, Plans, is_done, require_different

    with closing(OnRay(here.config.ray, Console().say)) as compute:
        plans = Plans(here.root, compute.map)
        planned = {member: plans.of(member) for member in comparison.members}
    require_different(planned)
    rows: dict[str, dict[str, Any]] = {
        arm.name: {"arm": arm.name, **dict.fromkeys(STATES, 0), "seconds": 0.0, "untimed": 0, "waits": False}
        for arm in comparison.arms
    }
    for member, steps in planned.items():
        row = rows[member.arm.name]
        state = "begun" if steps[member.trained_by].state in ("PARTIAL", "CACHED") else "missing"
        row["stored" if is_done(steps) else state] += 1
        row["waits"] |= any(step.state != "CACHED" for name, step in steps.items() if name in SHARED)
        counts = estimate.counts_of(list(steps.values()))
        due = [step for name, step in steps.items() if name not in SHARED and step.state != "CACHED"]
        times = [estimate.predict(step, member.config, plans.places(member), counts).seconds for step in due]
        row["seconds"] += sum(seconds or 0 for seconds in times)
        row["untimed"] += any(seconds is None for seconds in times)
    return list(rows.values())


def _expected(row: dict[str, Any]) -> str:
    parts = [duration(row["seconds"])] if row["seconds"] else []
    parts += [f"{row['untimed']} not timed yet"] if row["untimed"] else []
    return ", ".join(parts)


def _show(args: argparse.Namespace) -> None:
    """The stored comparison that is named, or a table of all."""
    given_too = [name for name in MAKES if getattr(args, name) not in (None, [], False)]
    if given_too:
        raise UsageError(f"--{given_too[0]} needs arms: --vary KEY=VALUE,VALUE or --arm NAME:KEY=VALUE")
    if not args.comparison:
        _list(args)
    else:
        _tell(_stored(args.root.absolute(), args.comparison), args.root.absolute(), args.json)


def _list(args: argparse.Namespace) -> None:
    from workflows.studies import stored

    found = stored.summaries(args.root.absolute())
    if args.json:
        tell(*json.dumps(found, indent=1, ensure_ascii=False).split("\n"))
        return
    if not found:
        raise UsageError(
            f"no comparison is stored under {args.root}; --vary KEY=VALUE,VALUE or --arm NAME:KEY=VALUE makes one"
        )
    cells = [[one["name"], str(len(one["arms"])), *_progress(one), one["finished"][:16]] for one in found]
    tell(*table([["comparison", "arms", "runs", "done", "last run (UTC)"], *cells]))


def _progress(summary: dict[str, Any]) -> tuple[str, str]:
    return str(sum(summary["states"].values())), str(summary["states"].get("done", 0))


def _stored(root: Path, name: str) -> dict[str, Any]:
    from workflows.config import nearest
    from workflows.studies import stored

    if name not in (names := stored.names(root)):
        raise UsageError(f"no comparison {name} under {root}{nearest(name, names)}")
    return stored.summary(root, name)


def _tell(summary: dict[str, Any], root: Path, as_json: bool) -> None:
    from workflows.studies import page
    from workflows.studies.comparison import folder
    from workflows.studies.summary import is_whole
    from workflows.studies.words import warnings

    if as_json:
        tell(*json.dumps(summary, indent=1, ensure_ascii=False).split("\n"))
        return
    tell(*table(_arms(summary)), LEGEND)
    if summary["pairs"]:
        tell("", *table(_pairs(summary)))
        shown = len(summary["arms"]) - 1
        if len(summary["pairs"]) > shown:
            tell(f"against the first arm; the page has all {len(summary['pairs'])} pairs")
    tell(*(f"note: {line}" for line in warnings(summary)))
    if not is_whole(summary) and summary.get("command"):
        tell(f"to go on: {summary['command']}")
    where = folder(root, summary["name"])
    if where.size(page.PAGE) is not None:
        tell(f"page: {where.where(page.PAGE)}")


def _arms(summary: dict[str, Any]) -> list[list[str]]:
    from workflows.studies.results import HEADLINE
    from workflows.studies.words import headline, share

    rows = [["arm", "runs", headline(summary), "images/s", "training"]]
    for arm in summary["arms"]:
        found = arm["measures"]
        rate, seconds = (found[name]["mean"] if name in found else None for name in ("images_per_s", "train_s"))
        cells = ("–" if rate is None else f"{rate:,.0f}", "–" if seconds is None else duration(seconds))
        rows.append([arm["name"], str(arm["n"]), share(found.get(HEADLINE.name)), *cells])
    return rows


def _pairs(summary: dict[str, Any]) -> list[list[str]]:
    """Those with the first arm."""
    from workflows.studies.results import HEADLINE
    from workflows.studies.words import points

    rows = [[f"less {summary['arms'][0]['name']}", "points", "± seeds", "± images", ""]]
    for pair in summary["pairs"][: len(summary["arms"]) - 1]:
        found = pair["measures"].get(HEADLINE.name)
        if found:
            bars = (points(found[name], sign=False) for name in ("se_seeds", "se_images"))
            rows.append([pair["second"], points(found["difference"]), *bars, found["verdict"]])
        else:
            rows.append([pair["second"], "–", "–", "–", pair["note"]])
    return rows
