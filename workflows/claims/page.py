"""The page of claims: the paper's tables and figures in its own form, its numbers, the logs' and ours side by side."""

from collections.abc import Sequence
from pathlib import Path

from pipelines.storage import Folder
from workflows.claims import evidence, numbers, paper, setups
from workflows.claims.claim import Claim
from workflows.claims.measures import MEASURES
from workflows.claims.verdict import CITED, NOT_RUN, Verdict, verdict
from workflows.report.page import Html, Right, code, element, page, picture, table

PAGE = "claims.html"
TABLE_1 = {"sparse_coding": "Sparse coding", "sift_fv_2010": "SIFT + FVs", "table1_cnn": "CNN"}
TABLE_2 = {
    "table2_sift_fv": "SIFT + FVs",
    "table2_1cnn": "1 CNN",
    "table2_5cnns": "5 CNNs",
    "table2_1cnn_star": "1 CNN*",
    "table2_7cnns_star": "7 CNNs*",
}
SMALL_TABLES = ("tables_cifar10", "tables_tiny")
SMALL_ROWS = (setups.SPARSE, setups.FISHER, setups.ONE_CNN, setups.FIVE_CNNS, setups.PRETRAINED, setups.SEVEN_CNNS)
IN_PERCENT = "top-1 / top-5 in % (small scale: below)"
FIGURE_1, FIGURE_3 = "relu_6x", "colour_by_column"
Judged = dict[str, Verdict]


def write(root: Path) -> Path:
    """Writes `<root>/claims/claims.html`, from the evidence of the root and that of elsewhere; where it is."""
    judged, wrong = {}, []
    for claim in paper.ALL.values():
        found, unread = evidence.stored(claim, root)
        judged[claim.id] = verdict(claim, found, root)
        wrong += unread
    Folder.at(root / evidence.CLAIMS).write(PAGE, render(judged, wrong).encode())
    return root / evidence.CLAIMS / PAGE


def render(judged: Judged, wrong: Sequence[str] = ()) -> str:
    lead = [
        element("p", "What the paper says, what the authors' logs of 2012 say, and what was measured.", class_="lead"),
        element("p", "Empty cells: nothing was run. A small run never shows a claim about ImageNet.", class_="facts"),
        *(element("p", line, class_="facts") for line in wrong),
    ]
    sections: dict[str, list[Html]] = {
        "Table 1": [_errors(TABLE_1, judged, f"Errors on ILSVRC-2010 test, {IN_PERCENT}.")],
        "Table 2": [_errors(TABLE_2, judged, f"Errors on ILSVRC-2012 validation, {IN_PERCENT}; * pre-trained.")],
        "Tables 1 and 2 at small scale": [_small_table(paper.ALL[name], judged[name]) for name in SMALL_TABLES],
        "Figure 1": _figure_1(judged[FIGURE_1]),
        "Figure 3": _figure_3(judged[FIGURE_3]),
        "Ablations": [_ablations(judged)],
        "Counts": [_counts(judged)],
        "All claims": [_all(judged)],
    }
    return page("The paper, claim by claim", lead, sections)


def _errors(rows: dict[str, str], judged: Judged, caption: str) -> Html:
    """A table of the paper, with the logs' column and ours."""
    claims = {title: paper.ALL[claim] for claim, title in rows.items()}
    cells = [
        (title, Right(claim.paper.text), Right(claim.logged.text), Right(_ours(claim, judged[claim.id])))
        for title, claim in claims.items()
    ]
    return table(["model", "paper", "logs of 2012", "ours"], cells, caption)


def _small_table(claim: Claim, found: Verdict) -> Html:
    """The rows of both tables, as far as they were measured."""
    rows = []
    for name in SMALL_ROWS:
        arm = next((arm for arm in found.evidence["arms"] if arm["name"] == name), None) if found.evidence else None
        errors = [numbers.mean(measure, arm["measures"].get(measure)) if arm else "" for measure in claim.measures]
        pair = found.evidence.pair((setups.ONE_CNN, name), claim.measures[0]) if found.evidence else None
        less = numbers.difference(claim.measures[0], pair) if pair else ""
        rows.append((name, Right(arm["n"] if arm else ""), *map(Right, (*errors, less))))
    caption = (
        f"{claim.small.reduced if claim.small else ''}. Errors in %, ± over seeds, * of the test images (an average is "
        f"one sample); differences of top-1 in points, paired by seed. {claim.says}: {found.text} ({found.why})."
    )
    return table(["model", "runs", "top-1", "top-5", f"less {setups.ONE_CNN}"], rows, caption)


def _ours(claim: Claim, found: Verdict) -> str:
    """All that the claim measures; empty where nothing was run."""
    if found.word in (CITED, NOT_RUN):
        return ""
    if found.evidence is None:
        return found.ours
    return " / ".join(numbers.number(claim, name, found.evidence) for name in claim.measured(found.at)[:2])


def _scale(claim: Claim, found: Verdict) -> str:
    setup = claim.setup(found.at)
    return "" if setup is None or found.evidence is None else setup.reduced or "full"


def _figure_1(found: Verdict) -> list[Html]:
    claim = paper.ALL[FIGURE_1]
    rows = [("6 times sooner", Right(claim.paper.text), Right(""), Right(_ours(claim, found)), found.text)]
    said = table(["claim", "paper", "logs of 2012", "ours", "verdict"], rows, f"{claim.says}.")
    curves = found.evidence["curves"].get("epoch_top1_error", {}) if found.evidence else {}
    if not curves:
        return [said]
    from workflows.report import figures_compare
    from workflows.report.album import PX_PER_IN
    from workflows.report.figures import png

    percent = {arm: [(x, [100 * value for value in y]) for x, y in runs] for arm, runs in curves.items()}
    figure = figures_compare.bands(percent, "training error, %", "epoch")
    caption = f"Training error by epoch, the mean of an arm's runs in their band: {_scale(claim, found)}."
    drawn = picture(png(figure), caption, "Curves of the training error", round(PX_PER_IN * figure.get_figwidth()))
    return [drawn, said]


def _figure_3(found: Verdict) -> list[Html]:
    claim = paper.ALL[FIGURE_3]
    rows = [(claim.says, Right(claim.paper.text), Right(_ours(claim, found)), found.text)]
    caption = "Ours: % of runs whose columns differ in colour / points between the columns' medians of colour."
    said = [table(["claim", "paper", "ours", "verdict"], rows, caption), *_arms_of_figure_3(claim, found)]
    path = found.evidence and found.evidence.path.with_suffix(".png")
    if not path or not path.is_file():
        return said
    caption = f"conv1's kernels by column, of the first run: {_scale(claim, found)}."
    return [picture(path.read_bytes(), caption, "Kernels of conv1 by column", 1040), *said]


def _arms_of_figure_3(claim: Claim, found: Verdict) -> list[Html]:
    """What was tried to find what decides it."""
    if not found.evidence or len(found.evidence["arms"]) < 2:
        return []
    names = claim.measured(found.at)
    rows = [
        (arm["name"], Right(str(arm["n"])), *(Right(numbers.mean(name, arm["measures"].get(name))) for name in names))
        for arm in found.evidence["arms"]
    ]
    heading = ["arm", "runs", *(MEASURES[name].title for name in names)]
    return [table(heading, rows, "What may decide it: the same network in other ways, in %.")]


def _ablations(judged: Judged) -> Html:
    compared = (claim for claim in paper.ALL.values() if claim.kind in ("difference", "ratio"))
    chosen = [claim for claim in compared if claim.id not in SMALL_TABLES]
    rows = []
    for claim in chosen:
        found = judged[claim.id]
        pair = f"{claim.pair[1]} against {claim.pair[0]}"
        numbers_ = (Right(claim.paper.text), Right(claim.logged.text), Right(_ours(claim, found)))
        rows.append((code(claim.id), pair, *numbers_, _scale(claim, found), found.text))
    heading = ["claim", "arms", "paper", "logs of 2012", "ours", "data and network", "verdict"]
    return table(
        heading, rows, "Differences of the second arm less the first, in points, ± over seeds; ratios in times."
    )


def _counts(judged: Judged) -> Html:
    rows = [
        (
            claim.says,
            Right(claim.paper.text),
            Right(claim.logged.text),
            Right(judged[claim.id].ours),
            judged[claim.id].text,
        )
        for claim in paper.ALL.values()
        if claim.fact
    ]
    return table(
        ["count", "paper", "logs of 2012", "computed", "verdict"], rows, "Computed from the network's arithmetic."
    )


def _all(judged: Judged) -> Html:
    rows = []
    for claim in paper.ALL.values():
        found = judged[claim.id]
        where = "" if found.evidence is None else "here" if found.evidence.is_ours else "measured elsewhere"
        rows.append((code(claim.id), claim.section, claim.says, found.text, found.why, where))
    return table(["claim", "section", "says", "verdict", "why", "evidence"], rows, "Every claim with its verdict.")
