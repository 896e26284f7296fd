"""What is kept once a claim's runs are made: evidence, of the kernels their picture, and the page of all claims."""

from pathlib import Path
from typing import Any

from pipelines.storage import Folder
from workflows.claims import evidence, measures, page
from workflows.claims.claim import Claim
from workflows.claims.paper import measured_with
from workflows.studies.comparison import Comparison


def keep(claim: Claim, at: str, comparison: Comparison, summary: dict[str, Any], root: Path) -> list[Path]:
    """Writes it, also of the other claims that the same runs measure, and returns the files; none without any run."""
    if not any(row["state"] == "done" for row in summary["runs"]):
        return []
    files = []
    for one in measured_with(claim, at):
        files.append(evidence.write(evidence.gather(one, at, comparison, summary, root), root))
        if "colour_differs" in one.measured(at):
            files.append(_picture(one, at, comparison, summary, root))
    return [*files, page.write(root)]


def _picture(claim: Claim, at: str, comparison: Comparison, summary: dict[str, Any], root: Path) -> Path:
    """The paper's Figure 3, of the first run that was made."""
    from workflows.report import figures_net
    from workflows.report.figures import png

    first, *_ = evidence.runs_of(comparison, summary, root).values()
    name = evidence.file_name(claim.id, at, "png")
    Folder.at(root / evidence.CLAIMS).write(name, png(figures_net.conv1_kernels(measures.conv1_columns(first))))
    return root / evidence.CLAIMS / name
