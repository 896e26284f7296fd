"""The report's figures as they are drawn: each becomes a PNG in a folder and a picture in the page."""

from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from pipelines.storage import Folder
from workflows.report.figures import png
from workflows.report.finished_run import FinishedRun
from workflows.report.page import Html, picture

PX_PER_IN = 104  # in the page


@dataclass(frozen=True)
class Album:
    """A run and the folder where its figures go."""

    run: FinishedRun
    folder: Folder

    def add(self, name: str, figure: Figure, caption: Any, alt: str) -> Html:
        """Saves the figure as NAME.png and returns it as a picture; `alt` describes it to those who cannot see it."""
        return saved(self.folder, name, figure, caption, alt)


def saved(folder: Folder, name: str, figure: Figure, caption: Any, alt: str) -> Html:
    """The same without a run."""
    content = png(figure)
    folder.write(f"{name}.png", content)
    return picture(content, caption, alt, round(PX_PER_IN * figure.get_figwidth()))
