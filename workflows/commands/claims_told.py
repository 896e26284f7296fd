"""Claims as the command line tells them: a line of the table, the whole story, or an object for programs."""

import shlex
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from workflows.claims import evidence, made_of, numbers
from workflows.claims.claim import ATS, Claim, Numbers, Setup
from workflows.claims.evidence import Evidence
from workflows.claims.measures import MEASURES
from workflows.claims.verdict import Verdict, verdict
from workflows.commands.given import program
from workflows.console import duration, table
from workflows.studies.statistics import LEVEL

WIDTH = 80
HEADING = ["claim", "paper", "log", "ours", "scale", "verdict"]
LEGEND = (
    "top-1 errors in %, differences in points; ± over seeds, * of the test images",
    "small: a stated reduction, which shows a sign at most; `alexnet claims CLAIM`",
)


def judged(chosen: Iterable[Claim], root: Path) -> tuple[list[tuple[Claim, Verdict]], list[str]]:
    """Their verdicts, and what is wrong with files of evidence."""
    found, wrong = [], []
    for claim in chosen:
        known, unread = evidence.stored(claim, root)
        found.append((claim, verdict(claim, known, root)))
        wrong += unread
    return found, wrong


def row(claim: Claim, found: Verdict) -> list[str]:
    return [claim.id, _first(claim.paper), _first(claim.logged), found.ours, found.at or "–", found.word]


def _first(said: Numbers) -> str:
    """The first of its numbers."""
    return said.text.partition(" / ")[0] or "–"


def as_json(claim: Claim, found: Verdict, root: Path) -> dict[str, Any]:
    setups = {at: setup for at in ATS if (setup := claim.setup(at))}
    return {
        "claim": claim.id,
        "section": claim.section,
        "says": claim.says,
        "kind": claim.kind,
        "paper": {"text": claim.paper.text, "values": list(claim.paper.values)},
        "logged": {"text": claim.logged.text, "values": list(claim.logged.values)},
        "measures": list(claim.measures),
        "ours": found.ours,
        "interval": found.interval(claim),
        "scale": found.at,
        "verdict": found.text,
        "why": found.why,
        "evidence": _where(found),
        "measured_elsewhere": bool(found.evidence and not found.evidence.is_ours),
        "setups": {
            at: {
                "command": command(claim, at, root),
                "reduced": setup.reduced,
                "trainings": setup.trainings(),
                "baselines": setup.baselines(),
                "hours": {device: round(hours, 1) for device, hours in setup.hours().items()},
                "setup": made_of.digest_of(made_of.made_of(comparison)),
            }
            for at, setup in setups.items()
            if (comparison := claim.comparison(at))
        },
    }


def command(claim: Claim, at: str, root: Path) -> str:
    """What measures it, into this root."""
    into = "" if root == Path("runs").absolute() else f" --root {shlex.quote(str(root))}"
    return f"{shlex.join(program())} reproduce {claim.id} --at {at} --set ingest.source=FOLDER{into}"


def _where(found: Verdict) -> str:
    """The file of evidence, from the current folder where it is under it."""
    if found.evidence is None:
        return ""
    path, here = found.evidence.path, Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def story(claim: Claim, found: Verdict, root: Path) -> list[str]:
    """All that is known of a claim."""
    lines = [f"{claim.id} ({_section(claim)})", *_wrapped(f"{claim.says}.", "  ", "  ")]
    lines += [f"paper    {claim.paper.text}"]
    lines += [f"log      {claim.logged.text}"] if claim.logged.text else []
    lines += [f"ours     {found.ours}{f' at {found.at} scale' if found.evidence else ''}"]
    lines += _wrapped(f"verdict  {found.text}: {found.why}")
    if found.evidence:
        lines += _of_evidence(claim, found, found.evidence)
    lines += _wrapped(f"note     {claim.note}") if claim.note and claim.kind != "cited" else []
    for at in ATS:
        if setup := claim.setup(at):
            lines += [
                "",
                f"{at}: {command(claim, at, root)}",
                *_wrapped(setup.reduced or "the paper's own data and network", "  ", "  "),
            ]
            lines += [f"  arms of {setup.recipe}: {', '.join(setup.arms)}; {setup.seeds} seeds"]
            lines += [f"  measured: {', '.join(MEASURES[name].title for name in claim.measured(at))}", *costs(setup)]
    return lines


def _section(claim: Claim) -> str:
    return f"section {claim.section}" if claim.section[0].isdigit() else claim.section


def _wrapped(text: str, indent: str = " " * 9, first: str = "") -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=indent, break_long_words=False)


def costs(setup: Setup) -> list[str]:
    """One line for each device."""
    count = setup.trainings()
    baselines = f" and {setup.baselines()} baselines" if setup.baselines() else ""
    trainings = f"{count} training{'s' if count > 1 else ''}{baselines}"
    return [f"  cost: {trainings}, about {duration(3600 * h)} of {device}" for device, h in setup.hours().items()]


def _of_evidence(claim: Claim, found: Verdict, facts: Evidence) -> list[str]:
    measured = claim.measured(found.at)
    rows = [["", "runs", *(MEASURES[name].title for name in measured[:2])]]
    for arm in facts["arms"]:
        cells = (numbers.mean(name, arm["measures"].get(name)) for name in measured[:2])
        rows.append([arm["name"], str(arm["n"]), *cells])
    setup, interval = claim.setup(found.at), found.interval(claim)
    lines = ["", *table(rows)]
    lines += _wrapped(f"measured on {setup.reduced}", "") if setup and setup.reduced else []
    lines += [f"{LEVEL:.0%} interval of the difference, over seeds: {interval}"] if interval else []
    devices = ", ".join(facts["devices"])
    lines += _wrapped(
        f"made by commit {', '.join(facts['codes'])} on {facts['machine']} ({devices}), "
        f"{duration(3600 * facts['hours'])} of training, {facts['date'][:10]}; "
        f"data {', '.join(digest[:8] for digest in facts['manifests'])}",
        "",
    )
    lines += [f"evidence: {_where(found)}{'' if facts.is_ours else ' (measured elsewhere)'}"]
    return lines + [f"note: {line}" for line in facts["notes"]]
