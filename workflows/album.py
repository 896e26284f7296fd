"""The report's figures as they are drawn: each becomes a PNG in a folder and a picture in the page."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from pipelines.storage import Folder
from workflows.figures import png
from workflows.open_run import FinishedRun
from workflows.page import Html, picture

PX_PER_IN = 104  # in the page


@dataclass(frozen=True)
class Album:
    """A run and the folder where its figures go."""

    run: FinishedRun
    folder: Path

    def add(self, name: str, figure: Figure, caption: Any, alt: str) -> Html:
        """Saves the figure as NAME.png and returns it as a picture; `alt` describes it to those who cannot see it."""
        content = png(figure)
        Folder.at(self.folder).publish(f"{name}.png", lambda file: file.write(content))
        return picture(content, caption, alt, round(PX_PER_IN * figure.get_figwidth()))
