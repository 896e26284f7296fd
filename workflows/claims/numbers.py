"""Numbers of evidence as they are written: in percent or points with ±, ratios with their interval."""

import math
from typing import Any

from workflows.claims.claim import Claim
from workflows.claims.evidence import Evidence
from workflows.claims.measures import MEASURES
from workflows.studies.words import points

NONE = "–"


def headline(claim: Claim, at: str, evidence: Evidence) -> str:
    """What the verdict rests on, in one number."""
    return number(claim, claim.measured(at)[0], evidence)


def number(claim: Claim, measure: str, evidence: Evidence) -> str:
    """A measure as the claim takes it: the mean of its arm, or the pair's difference or ratio."""
    if claim.kind == "value":
        arms = evidence["arms"]
        return mean(measure, evidence.arm(arms[0]["name"], measure)) if arms else NONE
    found = evidence.pair(claim.pair, measure)
    return ratio(found) if claim.kind == "ratio" else difference(measure, found)


def mean(measure: str, found: dict[str, Any] | None) -> str:
    """`37.47 ± 0.12`: percent where it is a share."""
    if found is None:
        return NONE
    scale, digits = _scale(measure)
    error = "" if found["se"] is None else f" ± {scale * found['se']:.{digits}f}"
    mark = "*" if error and found["se_of"] == "test images" else ""
    return f"{scale * found['mean']:,.{digits}f}{error}{mark}"


def difference(measure: str, found: dict[str, Any] | None) -> str:
    """`+0.31 ± 0.12`: points where it is of shares; * where the error is that of the test images, of one seed."""
    if found is None:
        return NONE
    scale, digits = _scale(measure)
    shown = points(found["difference"]) if scale == 100 else f"{found['difference']:+.{digits}f}".replace("-", "−")
    of_one_seed = found["se_seeds"] is None
    error = found.get("se_images") if of_one_seed else found["se_seeds"]
    return shown + ("" if error is None else f" ± {scale * error:.{digits}f}{'*' if of_one_seed else ''}")


def ratio(found: dict[str, Any] | None) -> str:
    """`5.8 (4.9-6.8)`: the mean of logarithms, and its interval."""
    if found is None:
        return NONE
    ends = found["interval_seeds"]
    interval = f" ({math.exp(ends[0]):.1f}-{math.exp(ends[1]):.1f})" if ends else ""
    return f"{math.exp(found['difference']):.1f}{interval}"


def interval(claim: Claim, measure: str, evidence: Evidence) -> str:
    """`-0.20 to +0.81`: the interval over seeds of the difference that is judged; empty where there is none."""
    found = evidence.pair(claim.pair, measure) if claim.kind == "difference" else None
    if not found or not found["interval_seeds"]:
        return ""
    scale, digits = _scale(measure)
    low, high = (f"{scale * end:+.{digits}f}".replace("-", "−") for end in found["interval_seeds"])
    return f"{low} to {high}"


def _scale(measure: str) -> tuple[int, int]:
    """Factor and digits."""
    return {"%": (100, 2), "epochs": (1, 1), "images/s": (1, 0), "": (1, 3)}[MEASURES[measure].unit]
