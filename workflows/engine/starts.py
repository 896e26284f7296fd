"""Models that a configuration names: folders, models:/NAME@ALIAS, RECIPE@newest or a baseline of the same root."""

from pipelines.storage import Folder
from workflows.config import BASELINES, RunConfig, UsageError
from workflows.engine.outputs import Places
from workflows.folders import MODELS

NEWEST = "@newest"


def model_folder(said: str, name: str, config: RunConfig, places: Places) -> Folder:
    """The folder of the exported model of this name, which need not be there; `said` begins what is wrong with it.

    Raises:
        UsageError: No such model in the registry, or no finished training of that recipe.
    """
    if name.startswith("models:/"):
        return _registered(said, name, config, places)
    if name.endswith(NEWEST) and "/" not in name:
        return _newest_of(said, name.removesuffix(NEWEST), places)
    return Folder.at(name)


def _registered(said: str, name: str, config: RunConfig, places: Places) -> Folder:
    from workflows.tracking.server import registered_files

    if config.tracking.uri == "off":
        raise UsageError(f"{said}: tracking.uri=off keeps no registry; name a folder")
    return Folder.at(registered_files(config.tracking, places.root, name))


def _newest_of(said: str, recipe: str, places: Places) -> Folder:
    if recipe in BASELINES:
        return _newest_baseline(said, recipe, places)
    for output, record in places.finished("train"):
        if record.get("recipe") == recipe:
            return output.folder.child(MODELS["last"])
    raise UsageError(
        f"{said}: no training of the recipe {recipe} is finished under {places.root}: run "
        f"`alexnet run --recipe {recipe}` there first"
    )


def _newest_baseline(said: str, name: str, places: Places) -> Folder:
    for output, _ in places.finished(name):
        return output.folder
    raise UsageError(f"{said}: no baseline {name} is finished under {places.root}: run `alexnet baseline {name}` first")
