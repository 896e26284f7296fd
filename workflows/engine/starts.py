"""Where the weights lie that training starts from: a folder, models:/NAME@ALIAS, or RECIPE@newest of the same root."""

from pipelines.storage import Folder
from workflows.config import RunConfig, UsageError
from workflows.engine.outputs import Places
from workflows.folders import MODELS

NEWEST = "@newest"


def starting_folder(config: RunConfig, places: Places) -> Folder:
    """The folder of the exported model that `train.init_from` names, which need not be there.

    Raises:
        UsageError: No such model in the registry, or no finished training of that recipe.
    """
    name = config.train.init_from
    if name.startswith("models:/"):
        return _registered(name, config, places)
    if name.endswith(NEWEST) and "/" not in name:
        return _newest_of(name.removesuffix(NEWEST), name, places)
    return Folder.at(name)


def _registered(name: str, config: RunConfig, places: Places) -> Folder:
    from workflows.tracking.server import registered_files

    if config.tracking.uri == "off":
        raise UsageError(f"train.init_from={name}: tracking.uri=off keeps no registry; name a folder")
    return Folder.at(registered_files(config.tracking, places.root, name))


def _newest_of(recipe: str, name: str, places: Places) -> Folder:
    for output, record in places.finished("train"):
        if record.get("recipe") == recipe:
            return output.folder.child(MODELS["last"])
    raise UsageError(
        f"train.init_from={name}: no training of the recipe {recipe} is finished under {places.root}: run "
        f"`alexnet run --recipe {recipe}` there first"
    )
