"""Latency of MiniLM, one sentence a call, at sequence lengths 8, 32 and 128, against the runtimes people deploy it on.

Ours is what `taut.optimize` makes of the model in this process for each length and thread count (with one thread it
sees one core), and beside it fixed recipes. The peers are torch eager, onnxruntime (float32, and dynamic int8 with
scales a channel, each also "fused" by onnxruntime's optimiser for BERT, which finds GELU and layer normalisation in
this graph but not attention) and OpenVINO (float32, and its own choice of precision, bfloat16 where the host has it;
int8, which needs nncf, was not run). All have static shapes, full graph optimisation, the same token ids and as many
threads as the cell says; what is not installed is named as not run. Inside the timing is one call from ids to sentence
vector, Python included. Pairs are interleaved and timed by wall clock; with two threads blocks last 20 ms, so that the
idle workers of one runtime, which spin for a moment, hardly reach into the time of another. Quality is the cosine to
eager, least and mean, on real text that `taut.optimize` has not seen. The whole takes about nine minutes on two cores;
figures are written after each cell.

    python -m benchmarks.minilm_latency [--quick] [--budget SECONDS] [--json FILE] [--profile]
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from examples import minilm
from torch import Tensor

import taut
from benchmarks._openvino import load_openvino
from taut.errors import TautError
from taut.graph import Graph, Interpreter, capture
from taut.stats import available_cores, compare, fingerprint, quietness
from taut.transform import apply_recipe

LENGTHS = (8, 32, 128)
ROWS = 64  # sentences of each length that decide what the job keeps
UNSEEN = 16  # further ones, from which quality is taken
FUSED = {"model_type": "bert", "num_heads": 12, "hidden_size": 384}  # for onnxruntime's optimiser
RECIPES = {f"taut {label}": ("merge_parallel_linear", name) for label, name in
           (("w8a8", "int8_linear"), ("w4a8", "w4a8_linear"), ("w4a4", "w4a4_linear"))}  # fmt: skip
FIRST, LAST = 101, 102  # token ids that a sentence begins and ends with

Arm = Callable[[Tensor, Tensor], Any]


def sentences(length: int) -> list[tuple[Tensor, Tensor]]:
    """Rows (1, length) of token ids and masks of ones, cut from running text."""
    batches = minilm.data()["inputs"]
    stream = torch.cat([ids[mask.bool()] for ids, mask in batches])  # pyright: ignore[reportGeneralTypeIssues]
    words = stream[(stream != FIRST) & (stream != LAST)]
    rows = words[: len(words) // (length - 2) * (length - 2)].view(-1, length - 2)[: ROWS + UNSEEN]
    ends = [torch.full((len(rows), 1), token) for token in (FIRST, LAST)]
    whole = torch.cat([ends[0], rows, ends[1]], 1)
    return [(ids[None], torch.ones_like(ids[None])) for ids in whole]


def onnxruntime_arm(model: Path, threads: int) -> Arm:
    """A session as its documentation recommends for latency."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    return lambda *inputs: session.run(None, {n: x.numpy() for n, x in zip(names, inputs, strict=True)})[0]


def openvino_arm(model: Path, threads: int, precision: str | None) -> Arm:
    """A compiled model; its own choice of precision without one."""
    openvino = load_openvino()

    hints: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    if precision:
        hints["INFERENCE_PRECISION_HINT"] = precision
    compiled = openvino.Core().compile_model(openvino.convert_model(model), "CPU", hints)
    request = compiled.create_infer_request()
    return lambda *inputs: request.infer([x.numpy() for x in inputs], share_inputs=True, share_outputs=True)[0]


def export_models(network: torch.nn.Module, sample: tuple[Tensor, Tensor], folder: Path) -> dict[str, Path]:
    """The model as torch exports it for onnxruntime, by the name of the arm; once for each folder."""
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process
    from onnxruntime.transformers.optimizer import optimize_model

    names = ("fp32", "int8", "fp32 fused", "int8 fused")
    made = {f"onnxruntime {name}": folder / f"{name}.onnx" for name in names}
    if folder.exists():
        return made
    folder.mkdir()
    plain, quantised, fused, fused_quantised = made.values()
    prepared = folder / "prepared.onnx"
    with warnings.catch_warnings(), contextlib.redirect_stdout(None):
        warnings.simplefilter("ignore")
        torch.onnx.export(network, sample, plain, dynamo=True, external_data=False)
        optimize_model(str(plain), opt_level=1, **FUSED).save_model_to_file(str(fused))
    quant_pre_process(plain, prepared, skip_symbolic_shape=True)  # which fails on this model; shapes are static
    for source, target in ((prepared, quantised), (fused, fused_quantised)):
        quantize_dynamic(source, target, per_channel=True, weight_type=QuantType.QInt8)
    return made


def missing(*packages: str) -> str | None:
    """Why an arm cannot run, if a package it needs is not installed."""
    absent = [name for name in packages if importlib.util.find_spec(name) is None]
    return f"{', '.join(absent)} not installed" if absent else None


@contextlib.contextmanager
def cores(count: int) -> Iterator[None]:
    """Let this thread, and threads that it starts, use so many cores only; torch as many threads."""
    before, threads = os.sched_getaffinity(0), torch.get_num_threads()
    try:
        os.sched_setaffinity(0, sorted(before)[:count])
        torch.set_num_threads(count)
        yield
    finally:
        os.sched_setaffinity(0, before)
        torch.set_num_threads(threads)


def our_arms(
    network: torch.nn.Module, rows: list[tuple[Tensor, Tensor]], threads: int, budget: float
) -> tuple[dict[str, Arm], dict[str, str], dict[str, list[str]]]:
    """Ours by name, why some are not there, and the passes of each."""
    graph = capture(network, rows[0])
    with cores(threads):
        result = taut.optimize(network, rows[0], data={"inputs": rows}, budget=budget)
    arms: dict[str, Arm] = {"taut optimize": result.session}
    passes = {"taut optimize": [step.name for step in result.report.recipe.steps]}
    absent: dict[str, str] = {}
    for name, steps in RECIPES.items():
        try:
            changed, _ = apply_recipe(graph, [(step, {}) for step in steps])
        except TautError as error:
            absent[name] = error.message
            continue
        arms[name], passes[name] = Interpreter(changed), list(steps)
    return arms, absent, passes


def peer_arms(
    network: torch.nn.Module, sample: tuple[Tensor, Tensor], threads: int, folder: Path
) -> tuple[dict[str, Arm], dict[str, str]]:
    """The peers by name, and why some are not there."""
    arms: dict[str, Arm] = {"torch eager": network}
    absent: dict[str, str] = {}
    reason = missing("onnx", "onnxscript", "onnxruntime")
    if reason:
        return arms, dict.fromkeys(("onnxruntime", "openvino fp32", "openvino"), reason)
    models = export_models(network, sample, folder)
    for name, model in models.items():
        arms[name] = onnxruntime_arm(model, threads)
    for name, precision in (("openvino fp32", "f32"), ("openvino", None)):
        if reason := missing("openvino"):
            absent[name] = reason
        else:
            arms[name] = openvino_arm(models["onnxruntime fp32"], threads, precision)
    absent["openvino int8"] = missing("nncf") or "nncf has to calibrate it, which this benchmark does not do"
    return arms, absent


def cosines(
    arms: dict[str, Arm], network: torch.nn.Module, rows: list[tuple[Tensor, Tensor]]
) -> dict[str, tuple[float, float]]:
    """Least and mean cosine to eager of each arm."""
    torch.set_num_threads(1)  # quality needs no speed, and workers of several runtimes hinder each other
    wanted = torch.cat([network(*row) for row in rows])
    found = {}
    for name, arm in arms.items():
        made = torch.cat([torch.as_tensor(arm(*row)).clone().float() for row in rows])
        values = torch.nn.functional.cosine_similarity(made, wanted)
        found[name] = (float(values.min()), float(values.mean()))
    return found


def measure_cell(
    network: torch.nn.Module, length: int, threads: int, options: argparse.Namespace, folder: Path
) -> dict[str, Any]:
    """Every arm at one length and thread count: the job against each peer, then each recipe against the best peer."""
    every = sentences(length)
    rows, unseen = every[:-UNSEEN], every[-UNSEEN:]
    ours, absent, passes = our_arms(network, rows, threads, options.budget)
    peers, missing_peers = peer_arms(network, rows[0], threads, folder / str(length))
    quality = cosines({**ours, **peers}, network, unseen)
    ids, mask = rows[0]
    torch.set_num_threads(threads)

    def versus(peer: str, mine: str) -> dict[str, Any]:
        result = compare(
            lambda: peers[peer](ids, mask),
            lambda: ours[mine](ids, mask),
            budget=options.pair_budget,
            min_block=0.003 if threads == 1 else 0.02,
        )
        return {
            "peer": peer,
            "ours": mine,
            "peer_seconds": result.baseline_seconds,
            "our_seconds": result.candidate_seconds,
            "ratio": result.ratio,
            "low": result.low,
            "high": result.high if result.has_interval else None,
            "confidence": result.confidence,
            "verdict": result.verdict,
            "pairs": result.pairs,
        }

    pairs = [versus(peer, "taut optimize") for peer in peers]
    best = min(pairs, key=lambda pair: pair["peer_seconds"])["peer"]
    pairs += [versus(best, mine) for mine in ours if mine != "taut optimize"]
    return {
        "length": length,
        "threads": threads,
        "best_peer": best,
        "pairs": pairs,
        "cosine": quality,
        "passes": passes,
        "not_run": {**absent, **missing_peers},
    }


def print_cell(cell: dict[str, Any]) -> None:
    """Wins and losses alike."""
    print(f"\nlength {cell['length']}, {cell['threads']} thread(s); best peer: {cell['best_peer']}")
    print(f"  taut optimize kept: {' + '.join(cell['passes']['taut optimize']) or 'nothing'}")
    for pair in cell["pairs"]:
        high = "inf" if pair["high"] is None else f"{pair['high']:.3f}"
        mark = {"faster": "win", "slower": "LOSS"}.get(pair["verdict"], "no evidence")
        chosen = "  <- the claim" if (pair["peer"], pair["ours"]) == (cell["best_peer"], "taut optimize") else ""
        print(
            f"  {pair['ours']:14s} {1e3 * pair['our_seconds']:8.3f} ms   {pair['peer']:22s}"
            f" {1e3 * pair['peer_seconds']:8.3f} ms   {pair['ratio']:.3f}x [{pair['low']:.3f}, {high}]"
            f" at {pair['confidence']:.0%}, {pair['pairs']} pairs: {mark}{chosen}",
            flush=True,
        )
    for name, (least, mean) in cell["cosine"].items():
        print(f"  {name:22s} cosine to eager: least {least:.5f}, mean {mean:.5f}")
    for name, reason in cell["not_run"].items():
        print(f"  {name}: not run ({reason})")


def print_profile(graph: Graph, name: str, inputs: tuple[Tensor, Tensor], calls: int = 200) -> None:
    """Where the time of a call goes: median microseconds by operator, and what is outside of operators."""
    run = Interpreter(graph)
    samples: dict[int, list[float]] = {}
    whole: list[float] = []
    for _ in range(calls):
        for node, seconds in run.profile(*inputs).items():
            samples.setdefault(node, []).append(seconds)
        start = time.perf_counter()
        run(*inputs)
        whole.append(time.perf_counter() - start)
    by_operator: dict[str, tuple[int, float]] = {}
    for node, taken in samples.items():
        count, total = by_operator.get(graph.nodes[node].op, (0, 0.0))
        by_operator[graph.nodes[node].op] = (count + 1, total + median(taken))
    inside = sum(total for _, total in by_operator.values())
    length, call = inputs[0].shape[1], median(whole)
    print(f"\n{name}, length {length}: {1e6 * call:.0f} us a call, {1e6 * inside:.0f} us in operators")
    for op, (count, total) in sorted(by_operator.items(), key=lambda item: -item[1][1])[:12]:
        print(f"  {1e6 * total:7.1f} us  {count:3d} x {op}")


def median(values: list[float]) -> float:
    """The middle value."""
    return sorted(values)[len(values) // 2]


def main() -> None:
    """Measure every cell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one second a pair, 20 for each job")
    parser.add_argument("--budget", type=float, help="seconds for each job, by default 40")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--profile", action="store_true", help="only say where our time goes at the first length")
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS, help="sequence lengths")
    parser.add_argument("--threads", type=int, nargs="+", default=(1, 2), help="thread counts")
    options = parser.parse_args()
    options.pair_budget, budget = (1.0, 20.0) if options.quick else (2.5, 40.0)
    options.budget = options.budget or budget
    network, _, _ = minilm.model()
    quiet = quietness()
    print(quiet)
    if options.profile:
        rows = sentences(options.lengths[0])
        graph = capture(network, rows[0])
        torch.set_num_threads(1)
        print_profile(graph, "captured", rows[0])
        for name, steps in RECIPES.items():
            try:
                print_profile(apply_recipe(graph, [(step, {}) for step in steps])[0], name, rows[0])
            except TautError as error:
                print(f"\n{name}: not run ({error.message})")
        return
    cells = []
    with torch.inference_mode(), tempfile.TemporaryDirectory() as folder:
        for threads in options.threads:
            if threads > available_cores():
                print(f"{threads} threads: not run, this process may use {available_cores()} core(s)")
                continue
            for length in options.lengths:
                cells.append(measure_cell(network, length, threads, options, Path(folder)))
                print_cell(cells[-1])
                if options.json:  # after each cell, so that a run that is cut short leaves what it has
                    document = {"fingerprint": fingerprint().to_dict(), "quietness": str(quiet), "cells": cells}
                    options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
