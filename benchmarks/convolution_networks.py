"""Convolutional networks at batch 1, one thread, against the runtimes of today, and each kernel against the peak.

ResNet-20 with its published weights on images of CIFAR-10's size, MobileNetV2 at 224 x 224, GoogLeNet's Inception
module 3a; weights of the latter two are random, batch norm is folded in all before any arm sees them. Shapes are static
for every arm, inputs in torch's usual layout; eager runs in both layouts, its channels-last input converted outside of
the timing.

    python -m benchmarks.convolution_networks [--quick] [--only CASE...] [--peers PEER...] [--json FILE]
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from examples import resnet20
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from benchmarks import _compiled_peers as peers_of
from benchmarks._compiled_peers import Arm, Inputs, collect, compile_ours, our_arms, python_arm, validate, versus
from benchmarks._kernel_profile import print_profile
from benchmarks._networks import inception_block, mobile_network


def residual_network() -> nn.Module:
    """ResNet-20, batch norm folded."""
    network = resnet20.model()
    for module in network.modules():
        for convolution, norm in (("conv1", "bn1"), ("conv2", "bn2")):
            if hasattr(module, norm):
                folded = fuse_conv_bn_eval(getattr(module, convolution), getattr(module, norm))
                setattr(module, convolution, folded)
                setattr(module, norm, nn.Identity())
    return network.requires_grad_(False)


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "resnet20": (residual_network, (1, 3, 32, 32)),
    "mobilenetv2": (mobile_network, (1, 3, 224, 224)),
    "inception": (inception_block, (1, 192, 28, 28)),
}


def channels_last_arm(network: nn.Module) -> Arm:
    """Eager with weights and inputs whose channels lie next to each other."""
    plain = python_arm("", copy.deepcopy(network).to(memory_format=torch.channels_last))  # pyright: ignore[reportCallIssue]

    def bind(inputs: Inputs) -> tuple[Callable[[], object], Callable[[], Tensor]]:
        return plain.bind(tuple(x.contiguous(memory_format=torch.channels_last) for x in inputs))

    return Arm("torch eager channels_last", bind)


def measure(case: str, folder: Path, options: argparse.Namespace) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The pairs of one network, and its kernels."""
    build, shape = CASES[case]
    network = build()
    example = (torch.randn(shape),)
    model = compile_ours(network, example, None)
    ours = our_arms(model)["taut"]
    path = folder / f"{case}.onnx"

    def onnx() -> Path:
        return peers_of.export_onnx(network, example, None, path)

    peers, absent = collect(
        {
            "torch eager": lambda: python_arm("torch eager", network),
            "torch eager channels_last": lambda: channels_last_arm(network),
            "onnxruntime": lambda: peers_of.onnxruntime_arm(onnx()),
            "openvino": lambda: peers_of.openvino_arm(onnx()),
            "torch.compile": lambda: peers_of.compiled_arm(network, example, dynamic=False),
            "torch.compile frozen": lambda: peers_of.compiled_arm(network, example, dynamic=False, freezing=True),
        },
        options,
    )
    peers_of.print_absent(absent)
    samples = [(torch.randn(shape),) for _ in range(peers_of.BOUND_INPUTS)]
    validate([ours, *peers.values()], network, samples[:2])
    rows = [versus(case, ours, peer, samples, options) for peer in peers.values()]
    return rows, print_profile(case, model, samples[0])


def main() -> None:
    options = peers_of.parse(__doc__, tuple(CASES))
    with peers_of.benchmark(options) as (document, folder):
        document["kernels"] = []
        for case in options.only:
            print(case)
            rows, kernels = measure(case, folder, options)
            peers_of.print_best(rows)
            document["rows"] += rows
            document["kernels"] += kernels


if __name__ == "__main__":
    main()
