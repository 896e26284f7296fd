"""`alexnet claims`: what the paper says, and what stored evidence says of it; `alexnet reproduce`: makes evidence."""

import argparse
import json
import sys
from typing import TYPE_CHECKING

from workflows.commands import compare
from workflows.commands.given import Given, given
from workflows.config import UsageError
from workflows.console import table, tell

if TYPE_CHECKING:
    from workflows.claims.claim import Claim, Setup
    from workflows.studies.comparison import Comparison


def claims(args: argparse.Namespace) -> None:
    """All claims in a table, or the story of one; with --html the page of them."""
    from workflows.claims import paper
    from workflows.commands import claims_told as told

    root = args.root.absolute()
    if args.html:
        from workflows.claims import page

        tell(f"page: {page.write(root)}")
        return
    if args.claim:
        _tell_one(paper.named(args.claim), args)
        return
    judged, wrong = told.judged(paper.ALL.values(), root)
    if args.json:
        _tell_json([told.as_json(claim, found, root) for claim, found in judged])
        return
    rows = [told.HEADING, *(told.row(claim, found) for claim, found in judged)]
    tell(*table(rows), *told.LEGEND, *(f"note: {line}" for line in wrong))


def _tell_one(claim: "Claim", args: argparse.Namespace) -> None:
    from workflows.commands import claims_told as told

    root = args.root.absolute()
    judged, wrong = told.judged([claim], root)
    (_, found) = judged[0]
    if args.json:
        _tell_json(told.as_json(claim, found, root))
    else:
        tell(*told.story(claim, found, root), *(f"note: {line}" for line in wrong))


def _tell_json(found: object) -> None:
    tell(*json.dumps(found, indent=1, ensure_ascii=False).split("\n"))


def reproduce(args: argparse.Namespace) -> int | None:
    """Runs what is missing of a claim's comparison, and writes its evidence; with --plan says what is missing."""
    from workflows.claims import paper
    from workflows.claims.claim import comparison_name
    from workflows.commands import claims_told as told

    claim = paper.named(args.claim)
    at, setup = _chosen(claim, args.at)
    args.recipe, args.config = setup.recipe, None
    args.settings = [f"{key}={value}" for key, value in setup.settings.items()] + args.settings
    here = given(args)
    comparison = setup.comparison(comparison_name(claim.id, at), here.config, args.seeds or setup.seeds)
    if not args.plan:
        return _make(claim, at, here, comparison)
    if not args.json:
        tell(f"{claim.id} at {at} scale: {setup.reduced or 'the data and network of the paper'}", *told.costs(setup))
    compare.plan(here, comparison)
    return None


def _make(claim: "Claim", at: str, here: Given, comparison: "Comparison") -> int | None:
    from workflows.claims.keeping import keep

    summary = compare.make(here, comparison, lambda summary: keep(claim, at, comparison, summary, here.root))
    if any(row["state"] == "done" for row in summary["runs"]):
        _tell_one(claim, here.args)
    for one in summary["failed"]:
        tell(f"failed: {one['arm']}, seed {one['seed']}: {one['reason']}", file=sys.stderr)
    return compare.FAILED if summary["failed"] else None


def _chosen(claim: "Claim", asked: str | None) -> tuple[str, "Setup"]:
    """The scale that is asked for, else small; a full run is begun only by its name."""
    setup = claim.setup(asked or "small")
    if setup:
        return asked or "small", setup
    if claim.full:
        raise UsageError(f"{claim.id} can be measured at full scale alone: --at full (with --plan: what it takes)")
    if claim.small:
        raise UsageError(f"{claim.id} has no --at {asked}: use --at small")
    how = "it is computed" if claim.fact else claim.note
    raise UsageError(f"there is nothing to run for {claim.id}: {how}")
