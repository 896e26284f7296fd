"""The process of one run among several at once: its order comes by standard input, and it stops where that ends."""

import os
import pickle
import signal
import sys
import threading

from workflows import failures
from workflows.compute.on_ray import OnRay
from workflows.console import Console, tell
from workflows.engine.run import run
from workflows.studies.parallel import FAILED, Order
from workflows.workflow import STAGES


def main() -> int:
    order: Order = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_stop_at_the_end_of_input, daemon=True).start()
    try:
        _run(order)
    except KeyboardInterrupt:
        return 1
    except Exception as error:  # whatever it was: the comparison names it
        tell(*failures.keep_trace(error, order.root), f"{FAILED}{failures.line(error)}")
        return 1
    return 0


def _run(order: Order) -> None:
    run(
        STAGES,
        order.config,
        order.root,
        only=order.stages,
        take_lock=order.take_lock,
        console=Console(),
        compute=lambda config, console: OnRay(config.ray, console.say, debug=order.debug, sharers=order.sharers),
        remembered=order.remembered,
    )


def _stop_at_the_end_of_input() -> None:
    while os.read(0, 4096):  # not by a buffer, which the interpreter could not close while we wait
        pass
    os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # heard also where we were started without it
    code = main()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # while the interpreter ends nobody would catch it
    sys.exit(code)
