"""Models whose inputs vary in length, one program for all lengths, one thread, against the runtimes of today.

lstm: 300 -> 512 over T = 8, 27 and 64 steps; encoder: 256 wide, 4 layers, over T = 8, 32 and 128; minilm: the sentences
of STS one a call, each of its own length, microseconds a sentence over a pass through all, each peer with that padding
which serves it best. Outputs are compared with eager at three lengths before anything is timed. Then the encoder runs
100 lengths in random order, which must not build a kernel and must agree with eager.

    python -m benchmarks.dynamic_models [--quick] [--only CASE...] [--peers PEER...] [--json FILE]
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from examples import minilm
from torch import nn
from torch.export import Dim

from benchmarks import _compiled_peers as peers_of
from benchmarks._compiled_peers import Arm, Inputs, collect, compile_ours, our_arms, python_arm, validate, versus
from benchmarks._networks import LoopedRecurrentNetwork, encoder, recurrent_network
from taut._files import cache_directory
from taut.stats import Arm as Timed

LSTM_STEPS = (8, 27, 64)
ENCODER_LENGTHS = (8, 32, 128)
VALIDATED = (5, 31, 100)  # lengths
SWEEP = 100  # lengths in random order
SENTENCES = 96
PASS_BUDGETS = 5  # how much longer a pair of whole passes is timed than a pair of calls
PADDINGS = {"exact": 1, "multiple of 8": 8, "multiple of 16": 16, "multiple of 32": 32, "powers of two": None}
MAX_TOKENS = 128


def measure_lstm(folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    network = recurrent_network()
    example = (torch.randn(8, 1, 300),)
    dynamic = ({0: Dim("steps", min=1, max=512)},)
    ours = our_arms(compile_ours(network, example, dynamic))
    path = folder / "lstm.onnx"

    def onnx() -> Path:
        return peers_of.export_onnx(network, example, dynamic, path, legacy=True)

    peers, absent = collect(
        {
            "torch eager": lambda: python_arm("torch eager", network),
            "onnxruntime": lambda: peers_of.onnxruntime_arm(onnx()),
            "openvino": lambda: peers_of.openvino_arm(onnx()),
            "AOTInductor": lambda: peers_of.inductor_arm(LoopedRecurrentNetwork(network), example, dynamic, folder),
        },
        options,
    )
    absent["torch.compile"] = "it leaves nn.LSTM to eager's operator"
    peers_of.print_absent(absent)
    validate([*ours.values(), *peers.values()], network, [(torch.randn(steps, 1, 300),) for steps in VALIDATED])
    rows = []
    for steps in LSTM_STEPS:
        samples = [(torch.randn(steps, 1, 300),) for _ in range(peers_of.BOUND_INPUTS)]
        rows += [versus(f"lstm T={steps}", ours["taut"], peer, samples, options) for peer in peers.values()]
    return rows


def network_peers(
    network: nn.Module, example: Inputs, dynamic: Any, folder: Path
) -> dict[str, Callable[[], Arm | dict[str, Arm]]]:
    """How the peers of a network without recurrence are built."""
    folder.mkdir()

    def onnx() -> Path:
        return peers_of.export_onnx(network, example, dynamic, folder / "model.onnx")

    return {
        "torch eager": lambda: python_arm("torch eager", network),
        "onnxruntime": lambda: peers_of.onnxruntime_arm(onnx()),
        "openvino": lambda: peers_of.openvino_arm(onnx()),
        "torch.compile": lambda: peers_of.compiled_arm(network, example, dynamic=True),
        "torch.compile frozen": lambda: peers_of.compiled_arm(network, example, dynamic=True, freezing=True),
        "AOTInductor": lambda: peers_of.inductor_arm(network, example, dynamic, folder),
    }


def measure_encoder(folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    network = encoder()
    example = (torch.randn(1, 48, 256),)
    dynamic = ({1: Dim("tokens", min=1, max=512)},)
    ours = our_arms(compile_ours(network, example, dynamic))
    peers, absent = collect(network_peers(network, example, dynamic, folder / "encoder"), options)
    peers_of.print_absent(absent)
    validate([*ours.values(), *peers.values()], network, [(torch.randn(1, length, 256),) for length in VALIDATED])
    rows = []
    for length in ENCODER_LENGTHS:
        samples = [(torch.randn(1, length, 256),) for _ in range(peers_of.BOUND_INPUTS)]
        rows += [versus(f"encoder T={length}", ours["taut"], peer, samples, options) for peer in peers.values()]
    before = kernel_files()
    for length in random.Random(0).choices(range(1, 513), k=SWEEP):
        validate([ours["taut"]], network, [(torch.randn(1, length, 256),)])
    built = len(kernel_files() - before)
    print(f"encoder: {built} kernels built over {SWEEP} lengths from 1 to 512 after compilation")
    rows.append({"case": "encoder sweep", "lengths": SWEEP, "kernels_built": built})
    if built:
        raise SystemExit("kernels were built after compilation")
    return rows


def kernel_files() -> set[tuple[str, int]]:
    """What the cache of kernels, which is this run's own, holds."""
    return {(file.name, file.stat().st_mtime_ns) for file in (cache_directory() / "codegen").iterdir()}


def sentences(count: int) -> list[Inputs]:
    """Token ids and masks of ones, (1, T) each, in random order; a sample of all sentences."""
    encode, read = minilm._tokenizer().encode_batch, minilm.pairs()
    texts = random.Random(0).sample(sorted({text for _, *both in read for text in both}), count)
    rows = [torch.tensor([encoding.ids]) for encoding in encode(texts)]
    return [(ids, torch.ones_like(ids)) for ids in rows]


def padded(sentence: Inputs, multiple: int | None) -> Inputs:
    """A sentence padded to a multiple of tokens, or to the next power of two; at least 8 then."""
    length = sentence[0].shape[1]
    size = max(8, 1 << (length - 1).bit_length()) if multiple is None else -(-length // multiple) * multiple
    extra = size - length
    return tuple(nn.functional.pad(x, (0, extra)) for x in sentence)


def whole_pass(arm: Arm, batches: Sequence[Inputs], name: str) -> Timed:
    """One call: every sentence once."""
    calls = [arm.bind(inputs)[0] for inputs in batches]

    def run() -> None:
        for call in calls:
            call()

    return Timed(run, name)


def best_padding(arm: Arm, batches: Sequence[Inputs]) -> Timed:
    """The pass with that padding which is fastest for this arm, the best of three passes each."""
    passes = [
        whole_pass(arm, [padded(sentence, multiple) for sentence in batches], f"{arm.name}, {name}")
        for name, multiple in PADDINGS.items()
    ]
    seconds: dict[str, list[float]] = {each.name: [] for each in passes}
    for _ in range(4):
        for each in passes:
            start = time.thread_time()
            each.run()
            seconds[each.name].append(time.thread_time() - start)
    return min(passes, key=lambda each: min(seconds[each.name][1:]))


def measure_minilm(folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    network, _, _ = minilm.model()
    batches = sentences(SENTENCES // 4 if options.quick else SENTENCES)
    lengths = sorted(ids.shape[1] for ids, _ in batches)
    print(f"  {len(batches)} sentences, {lengths[0]} to {lengths[-1]} tokens, median {lengths[len(lengths) // 2]}")
    tokens = Dim("tokens", min=2, max=MAX_TOKENS)
    dynamic = ({1: tokens}, {1: tokens})
    example = max(batches, key=lambda sentence: sentence[0].shape[1])
    ours = our_arms(compile_ours(network, example, dynamic))["taut"]
    peers, absent = collect(network_peers(network, example, dynamic, folder / "minilm"), options)
    peers_of.print_absent(absent)
    validate([ours, *peers.values()], network, [batches[0], batches[1], padded(batches[2], 32)])
    mine = whole_pass(ours, batches, "taut")
    case = "minilm STS"
    options = argparse.Namespace(**vars(options) | {"budget": PASS_BUDGETS * options.budget})
    rivals = [best_padding(peer, batches) for peer in peers.values()]
    return [peers_of.versus_timed(case, mine, rival, options, units=len(batches)) for rival in rivals]


CASES = {"lstm": measure_lstm, "encoder": measure_encoder, "minilm": measure_minilm}


def main() -> None:
    options = peers_of.parse(__doc__, tuple(CASES))
    with peers_of.benchmark(options) as (document, folder):
        for case in options.only:
            print(case)
            rows = CASES[case](folder, options)
            peers_of.print_best([row for row in rows if "peer" in row])
            document["rows"] += rows


if __name__ == "__main__":
    main()
