"""What the stored evidence says of a claim. Computed whenever it is asked for, never written down.

A small run never shows a claim: it says whether the sign agrees there. What was measured for another setup than the
claim's of today, or by runs that the root's comparison no longer has, is out of date and says why.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workflows.claims.claim import ATS, Claim
from workflows.claims.evidence import Evidence, keys_of
from workflows.claims.made_of import differences, digest_of, made_of
from workflows.claims.numbers import headline, interval
from workflows.config import UsageError
from workflows.studies import stored

SHOWN, NOT_SHOWN, CONTRADICTED = "shown", "not shown", "contradicted"
NOT_RUN, OUT_OF_DATE, CITED = "not run", "out of date", "cited"
AGREES, DISAGREES, NOT_TOLD = "sign agrees", "sign disagrees", "not told apart"
MISSING = 0.01  # of the test images may be, damaged as they come
AT_SMALL_SCALE = " at small scale"
_SMALL = {SHOWN: AGREES, CONTRADICTED: DISAGREES, NOT_SHOWN: NOT_TOLD}


@dataclass(frozen=True)
class Verdict:
    """What can be said of a claim.

    Attributes:
        word: One of those above; a small run's without the words that every small run's ends with.
        why: What it rests on, or why it is out of date.
        at: full or small; empty where nothing was run.
        ours: The number that it rests on, as it is written.
    """

    word: str
    why: str
    at: str = ""
    ours: str = "–"
    evidence: Evidence | None = None

    @property
    def text(self) -> str:
        return self.word + (AT_SMALL_SCALE if self.word in _SMALL.values() else "")

    def interval(self, claim: Claim) -> str:
        """Of the difference that is judged, over seeds; empty where there is none."""
        return interval(claim, claim.measured(self.at)[0], self.evidence) if self.evidence else ""


def verdict(claim: Claim, found: Mapping[str, Evidence], root: Path) -> Verdict:
    """Of a claim's evidence by scale: the full run's before the small one's, what holds today before what does not."""
    if claim.kind == "cited":
        return Verdict(CITED, claim.note)
    if claim.fact:
        return of_fact(claim, claim.fact())
    all_of_them = [of_evidence(claim, at, found[at], root) for at in ATS if at in found]
    current = [one for one in all_of_them if one.word not in (OUT_OF_DATE, NOT_RUN)]
    return next(iter([*current, *all_of_them]), Verdict(NOT_RUN, "nothing is stored of it"))


def of_fact(claim: Claim, value: float) -> Verdict:
    """There is no chance in a count: it is the paper's, up to its rounding, or it is not."""
    ours = f"{value:,.0f}"
    said = claim.paper.values
    if not said or claim.tolerance is None:
        return Verdict(SHOWN, "computed; the paper gives no number", "full", ours)
    off = abs(value - said[0])
    return Verdict(
        SHOWN if off <= claim.tolerance else CONTRADICTED,
        f"computed: {off:,.0f} from the paper's {claim.paper.text}, of which {claim.tolerance:,.0f} is rounding",
        "full",
        ours,
    )


def of_evidence(claim: Claim, at: str, evidence: Evidence, root: Path) -> Verdict:
    ours = headline(claim, at, evidence)
    if reason := why_out_of_date(claim, at, evidence, root):
        return Verdict(OUT_OF_DATE, reason, at, ours, evidence)
    word, why = {"value": _value, "difference": _difference, "ratio": _ratio}[claim.kind](claim, at, evidence)
    return Verdict(_SMALL.get(word, word) if at == "small" else word, why, at, ours, evidence)


def why_out_of_date(claim: Claim, at: str, evidence: Evidence, root: Path) -> str:
    """Empty where it is of today's setup and, if it is the root's own, of the runs that its comparison has."""
    comparison = claim.comparison(at)
    if comparison is None:
        return f"nothing measures it at {at} scale any more"
    now = made_of(comparison)
    tested = max((arm["num_images"] for arm in evidence["arms"]), default=0)
    if evidence["setup"] != digest_of(now) and (reason := differences(evidence["made_of"], now)):
        return reason
    setup = claim.setup(at)
    assert setup is not None, "it has a comparison"
    if evidence["runs"] and abs(tested - setup.tested) > MISSING * setup.tested:
        return f"of other data: {tested:,} images were tested, those of the claim are {setup.tested:,}"
    return _why_other_runs(evidence, root) if evidence.is_ours else ""


def _why_other_runs(evidence: Evidence, root: Path) -> str:
    name = evidence["comparison"]
    if name not in stored.names(root):
        return ""  # the folder of the comparison was removed; its evidence stays
    try:
        runs = [run for run in stored.summary(root, name).get("runs", []) if run["state"] == "done"]
    except UsageError as error:
        return str(error)
    same = evidence.runs <= keys_of(runs)
    return "" if same else f"comparison {name} has other runs now: the same `reproduce` takes them up"


def _value(claim: Claim, at: str, evidence: Evidence) -> tuple[str, str]:
    measure = claim.measured(at)[0]
    if not evidence["arms"]:
        return NOT_RUN, "its run is not done"
    mean = evidence.arm(evidence["arms"][0]["name"], measure)
    if mean is None:
        return NOT_RUN, "its run is not done"
    if claim.paper.values[:1] == (1,):
        return (SHOWN if mean["mean"] == 1 else NOT_SHOWN), f"it was so in {mean['mean']:.0%} of {mean['n']} runs"
    if at == "small" or not claim.paper.values:
        return _sign(claim, mean["mean"], mean["interval"], mean["n"])
    assert claim.tolerance is not None, f"{claim.id} is a value"
    off = mean["mean"] - claim.paper.values[0]
    why = f"{100 * abs(off):.2f} points from the paper's, of which {100 * claim.tolerance:g} count as the same"
    return (SHOWN if abs(off) <= claim.tolerance else NOT_SHOWN), why


def _difference(claim: Claim, at: str, evidence: Evidence) -> tuple[str, str]:
    found = evidence.pair(claim.pair, claim.measured(at)[0])
    if found is None:
        return NOT_RUN, "no pair of its runs is done"
    if not claim.sign:
        assert claim.tolerance is not None, f"{claim.id} says that there is no difference"
        why = f"a difference of {100 * claim.tolerance:g} points counts as none"
        return (SHOWN if abs(found["difference"]) <= claim.tolerance else NOT_SHOWN), why
    return _sign(claim, found["difference"], found["interval_seeds"], found["n"], found["significant"])


def _ratio(claim: Claim, at: str, evidence: Evidence) -> tuple[str, str]:
    found = evidence.pair(claim.pair, claim.measured(at)[0])
    if found is None:
        return NOT_RUN, "no pair of its runs came as far"
    word, why = _sign(claim, found["difference"], found["interval_seeds"], found["n"], found["significant"])
    assert claim.within is not None, f"{claim.id} is a ratio"
    least, most = claim.within
    if word == SHOWN and at == "full" and not least <= math.exp(found["difference"]) <= most:
        return NOT_SHOWN, f"the sign agrees; {least:g} to {most:g} times count as the paper's"
    return word, why


def _sign(claim: Claim, value: float, interval: Any, n: int, significant: bool | None = None) -> tuple[str, str]:
    """By whether the interval over seeds leaves out zero, on the claim's side or on the other."""
    from workflows.studies.statistics import SEEDS_TO_TELL

    if n < SEEDS_TO_TELL:
        return NOT_SHOWN, f"{n} of at least {SEEDS_TO_TELL} seeds: not called significant"
    if significant is None:
        significant = interval is not None and not interval[0] <= 0 <= interval[1]
    if not significant:
        return NOT_SHOWN, "its interval over seeds holds zero"
    return (SHOWN if value * claim.sign > 0 else CONTRADICTED), "its interval over seeds leaves out zero"
