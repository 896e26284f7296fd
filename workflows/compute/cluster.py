"""The Ray cluster that `ray.address` names: where it is, and whether Ray answers there."""

import os
from pathlib import Path
from typing import NamedTuple

from workflows.config import UsageError

PATIENCE_S = 5.0
AUTO = "auto"
IS_ALIVE = "/ray.rpc.NodeInfoGcsService/CheckAlive"  # a cluster behind a token asks for it, and so is known


class Cluster(NamedTuple):
    """Where Ray answers, as HOST:PORT, and whether it wants a token (None: not known)."""

    where: str
    wants_token: bool | None


def found(address: str) -> str:
    """HOST:PORT of the cluster; for `auto` of the one that RAY_ADDRESS or a `ray start` on this machine names.

    Raises:
        UsageError: `auto`, and no cluster is known here; or the address is none.
    """
    where = address if address != AUTO else os.environ.get("RAY_ADDRESS") or _of_this_machine()
    if not where:
        raise UsageError("ray.address=auto, and this machine is no node of a cluster: start one with `ray start`")
    host, _, port = where.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UsageError(f"ray.address={_named(address, where)} is no address: write it as HOST:PORT, or auto")
    return where


def require(address: str) -> Cluster:
    """The cluster, which answers; where none does, Ray itself would try for a minute, and abort.

    Raises:
        UsageError: No Ray cluster answers there within seconds.
    """
    where = found(address)
    if os.environ.get("RAY_USE_TLS", "0") != "0":
        return Cluster(where, wants_token=None)  # its certificates are Ray's to know
    import grpc

    try:
        with grpc.insecure_channel(where, options=[("grpc.enable_http_proxy", 0)]) as channel:
            channel.unary_unary(IS_ALIVE)(b"", timeout=PATIENCE_S)
    except grpc.RpcError as error:
        if error.code() == grpc.StatusCode.UNAUTHENTICATED:
            return Cluster(where, wants_token=True)
        gone = error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
        why = error.details().rpartition(": ")[2] if gone else "something else is there"
        raise UsageError(f"ray.address={_named(address, where)}: no Ray answers ({why}): is it up?") from None
    return Cluster(where, wants_token=False)


def _of_this_machine() -> str:
    """The cluster of this machine's last `ray start`, from where Ray itself keeps it."""
    folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    known = Path(folder) / "ray" / "ray_current_cluster"
    return known.read_text().strip() if known.is_file() else ""


def _named(address: str, where: str) -> str:
    return address if address == where else f"{address} ({where})"
