"""What a shell may complete where argparse knows no choices: keys, values of keys and recipes."""

import typing

from workflows import config
from workflows.recipes import RECIPES


def keys(prefix: str, **given: typing.Any) -> list[str]:
    """Configuration keys, for `config KEY`."""
    return [key.name for key in config.keys().values() if key.name.startswith(prefix)]


def settings(prefix: str, **given: typing.Any) -> list[str]:
    """KEY= for `--set`, and KEY=VALUE where the key takes one of a few values."""
    key, has_value, _ = prefix.partition("=")
    if not has_value:
        return [f"{found}=" for found in keys(prefix)]
    known = config.keys().get(key)
    return [f"{key}={value}" for value in _choices(known.type if known else str)]


def comparisons(prefix: str, parsed_args: typing.Any = None, **given: typing.Any) -> list[str]:
    """Names of those stored under the root."""
    from workflows.studies import stored

    root = getattr(parsed_args, "root", None)
    return [name for name in stored.names(root.absolute()) if name.startswith(prefix)] if root else []


def recipes(prefix: str, **given: typing.Any) -> list[str]:
    return [name for name in RECIPES if name.startswith(prefix)]


def claims(prefix: str, **given: typing.Any) -> list[str]:
    """Ids of the paper's claims."""
    from workflows.claims.paper import ALL

    return [claim for claim in ALL if claim.startswith(prefix)]


def reproducible(prefix: str, **given: typing.Any) -> list[str]:
    """Those that there is something to run for."""
    from workflows.claims.paper import ALL

    return [claim for claim in claims(prefix) if ALL[claim].full or ALL[claim].small]


def _choices(kind: typing.Any) -> tuple:
    if kind is bool:
        return "true", "false"
    return typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else ()
