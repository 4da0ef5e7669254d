"""ResNet-20 against eager in both memory layouts: the job's own baseline is the module as its user gives it.

Ours is the stack that the job keeps (fold_batch_norm, bfloat16, fuse_convolution) on all cores; the peer is eager
PyTorch in each layout at each thread count, interleaved in this process. Needs what examples/resnet20.py needs.

    python -m benchmarks.resnet20_layouts [--quick] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from taut.graph import Interpreter, capture
from taut.optimize import load_data, load_model
from taut.stats import Arm, available_cores, compare, fingerprint, quietness
from taut.transform import apply_recipe

STACK = ("fold_batch_norm", "bfloat16", "fuse_convolution")


def main() -> None:
    """Print one line for each layout and thread count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a fifth of the batches")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    batches = load_data("examples/resnet20.py:data", batch_size=32).batches[: 3 if arguments.quick else 16]
    module = load_model("examples/resnet20.py:model").module
    assert isinstance(module, torch.nn.Module)
    graph = capture(module, batches[0], dynamic_shapes=({0: torch.export.Dim.AUTO},))
    ours = Interpreter(apply_recipe(graph, [(name, {}) for name in STACK])[0])
    cores = available_cores()
    rows = []
    for layout in (torch.contiguous_format, torch.channels_last):
        eager = module.eval().to(memory_format=layout)  # pyright: ignore[reportCallIssue]
        inputs = [batch[0].contiguous(memory_format=layout) for batch in batches]

        def run(model=eager, images=inputs) -> None:
            with torch.inference_mode():
                for batch in images:
                    model(batch)

        def run_ours() -> None:
            for batch in batches:
                ours(*batch)

        for threads in sorted({1, cores}):
            result = compare(
                Arm(run, prepare=lambda threads=threads: torch.set_num_threads(threads)),
                Arm(run_ours, prepare=lambda: torch.set_num_threads(cores)),
            )
            print(f"eager {layout}, {threads} thread(s) -> ours, {cores} thread(s): {result.summary()}", flush=True)
            rows.append({"layout": str(layout), "threads": threads} | result.to_dict())
    if arguments.json is not None:
        document = {"host": fingerprint().to_dict(), "quiet": quietness().quiet, "rows": rows}
        arguments.json.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
