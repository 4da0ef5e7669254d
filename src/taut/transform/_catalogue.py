"""The passes by name, their order, and the application of a whole recipe."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence

from taut.errors import ArgumentError
from taut.graph import Graph
from taut.transform._protocol import Change, Pass

_WHERE = {
    "fold_batch_norm": ("_fold_batch_norm", "FoldBatchNorm"),
    "fold_linear_chain": ("_fold_linear_chain", "FoldLinearChain"),
    "merge_parallel_linear": ("_merge_parallel_linear", "MergeParallelLinear"),
    "channels_last": ("_channels_last", "ChannelsLast"),
    "quantise": ("quantisation._quantise", "Quantise"),
    "int8_linear": ("quantisation._passes", "Int8Linear"),
    "w4a8_linear": ("quantisation._passes", "W4A8Linear"),
    "w4a4_linear": ("quantisation._passes", "W4A4Linear"),
    "int8_convolution": ("quantisation._passes", "Int8Convolution"),
    "w4a8_convolution": ("quantisation._passes", "W4A8Convolution"),
    "quantised_embedding": ("quantisation._passes", "QuantisedEmbedding"),
    "bfloat16": ("_bfloat16", "Bfloat16"),
    "fuse_linear": ("_fuse_linear", "FuseLinear"),
    "fuse_convolution": ("_fuse_convolution", "FuseConvolution"),
}


class _Catalogue(Mapping[str, Pass]):
    """Imports a pass when it is asked for."""

    def __init__(self) -> None:
        self._made: dict[str, Pass] = {}

    def __getitem__(self, name: str) -> Pass:
        if name not in self._made:
            module, kind = _WHERE[name]
            self._made[name] = getattr(importlib.import_module(f"taut.transform.{module}"), kind)()
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_WHERE)

    def __len__(self) -> int:
        return len(_WHERE)


PASSES: Mapping[str, Pass] = _Catalogue()
"""Every pass by name, in an order that satisfies all `after` (conflicts aside); each is imported on first use."""


def get_pass(name: str) -> Pass:
    """The pass of that name.

    Raises:
        ArgumentError: if there is none; the message lists the names.
    """
    if name not in PASSES:
        raise ArgumentError("pass", name, expected=f"one of: {', '.join(PASSES)}")
    return PASSES[name]


def check_order(names: Sequence[str]) -> None:
    """Check that the passes may stand in one recipe, in this order.

    Raises:
        ArgumentError: for an unknown or repeated name, a pass before one that it has to follow, or a conflict.
    """
    for position, name in enumerate(names):
        current, earlier = get_pass(name), names[:position]
        if name in earlier:
            raise ArgumentError("recipe", list(names), expected="each pass once", fix=f"remove the second {name}")
        for later in names[position + 1 :]:
            if later in current.after:
                fix = f"put {later} before {name}"
                raise ArgumentError("recipe", list(names), expected=f"{name} after {later}", fix=fix)
        for other in earlier:
            if other in current.conflicts or name in get_pass(other).conflicts:
                expected, fix = f"{other} and {name} not together", f"remove {other} or {name}"
                raise ArgumentError("recipe", list(names), expected=expected, fix=fix)


def apply_recipe(graph: Graph, steps: Sequence[tuple[str, Mapping[str, object]]]) -> tuple[Graph, list[Change]]:
    """Apply passes one after the other.

    Args:
        graph: the captured graph.
        steps: name and options of each pass.

    Returns:
        The last graph, and the record of each step.

    Raises:
        ArgumentError: if the order is wrong (see `check_order`) or an option is.
        EmptyChangeError: if a step changes nothing.
    """
    check_order([name for name, _ in steps])
    changes: list[Change] = []
    for name, options in steps:
        changes.append(get_pass(name).apply(graph, **options))
        graph = changes[-1].graph
    return graph, changes
