"""What `plan` says of the rates: a line for every epoch from which on something changes."""

from model.networks import parameter_names
from model.schedules import Phase, phases, starts
from workflows.config import RunConfig, require_schedule
from workflows.console import table


def lines(config: RunConfig) -> list[str]:
    """The schedule of a run as a table; a sentence where only the run will tell. UsageError: it does not fit."""
    train = config.train
    require_schedule(config.net, train)
    if train.schedule == "plateau":
        return [
            f"learning rate {train.lr:g}, / 10 after {train.patience} epochs without a lower validation error, "
            f"not before epoch {train.min_epochs} and at most three times"
        ]
    rows = phases(train, parameter_names(config.net))
    has_light = any(row.light is not None for row in rows)
    heading = ["epoch", *rows[0].rates, *["light"] * has_light]
    cells = [[f"{row.epoch:g}", *map(_rate, row.rates.values()), *_light(row, config) * has_light] for row in rows]
    never = [epoch for epoch in starts(train) if epoch >= 1 + train.epochs]
    ending = [f"train.epochs={train.epochs:g} ends before the change of epoch {never[0]:g}"] if never else []
    return ["the learning rate, from the start of an epoch on:", *table([heading, *cells]), *ending]


def _rate(value: float) -> str:
    return f"{value:.3g}" if value else "frozen"


def _light(row: Phase, config: RunConfig) -> list[str]:
    return [f"{config.loader.lighting_coeff if row.light is None else row.light:g}"]
