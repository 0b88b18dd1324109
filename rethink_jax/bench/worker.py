"""One side of a comparison in a process of its own: it reads requests from stdin and answers on stdout.

When it is ready it prints a JSON object about itself, then a number for each line "train", "eval", "peak" or
"memory". While it waits it uses no CPU time, so several can be timed in turns.
"""

import argparse
import json
import resource
import sys
from collections.abc import Callable
from typing import Any

# Marks the lines that are answers; libraries print lines of their own.
MARK = "@"
# Of `ru_maxrss`, in bytes: it is in KiB on Linux, in bytes on macOS.
MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024


def main() -> None:
    """Answers requests until stdin ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", choices=["ours", "torch", "loop"], required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--examples", type=int, required=True)
    parser.add_argument("--batch_size", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args()
    facts, answers = (_ours if options.side == "ours" else _theirs)(options)
    _answer(facts)
    for line in sys.stdin:
        word = line.strip()
        _answer(
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS_UNIT
            if word == "memory"
            else answers[word](options.seconds)
        )


def _ours(options: Any) -> tuple[dict[str, Any], dict[str, Callable[[float], float]]]:
    import jax

    from rethink_jax.bench import ours
    from rethink_jax.distributed import parallel

    parallel.start_cpu_devices()
    side = ours.Side(options.model, options.examples, options.batch_size, options.dtype)
    facts = {
        "parameters": side.parameters,
        "form": side.form,
        "version": f"JAX {jax.__version__}",
        "flops": side.flops,
        "compile_seconds": side.compile_seconds,
        "device": jax.devices()[0].device_kind,
    }
    return facts, {"train": side.train, "eval": side.evaluate, "peak": side.peak}


def _theirs(options: Any) -> tuple[dict[str, Any], dict[str, Callable[[float], float]]]:
    import torch

    from rethink_jax.bench import task, theirs

    size = (options.model, options.examples)
    rate = task.recipe(*size, options.batch_size, options.dtype).optimizer.learning_rate
    version = f"PyTorch {torch.__version__}"
    shared = (options.model, *task.make(*size), options.batch_size, rate)
    if options.side == "loop":
        loop = theirs.Loop(*shared)
        return {"form": "DataLoader", "version": version, "parameters": loop.parameters}, {
            "train": loop.train
        }
    side = theirs.Side(*shared, options.dtype)
    facts = {"parameters": side.parameters, "form": side.form, "version": version}
    return facts, {"train": side.train, "eval": side.evaluate}


def _answer(value: Any) -> None:
    print(MARK + json.dumps(value), flush=True)


if __name__ == "__main__":
    main()
