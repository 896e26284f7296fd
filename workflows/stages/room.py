"""Room on the disk: what cannot end there is not started, or stopped as soon as its size is known."""

from pipelines.storage import Folder
from workflows.config import UsageError
from workflows.console import size
from workflows.engine.estimate import DISK_MARGIN


def require_room(folder: Folder, what: str, wanted_bytes: float) -> None:
    """UsageError where the disk under the folder has too little room for what is still to be written."""
    free = folder.free_bytes()
    if free is not None and free < wanted_bytes * DISK_MARGIN:
        raise UsageError(
            f"{what} will take about {size(wanted_bytes)} and {folder.where()} has {size(free)} free: "
            "make room, or name another disk with --root or --set store=FOLDER"
        )
