"""Recurrent layers as ONNX's LSTM and GRU, and single cells as their formulas."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from taut.export._products import linear
from taut.export._registry import converts, unsupported
from taut.export._values import Value
from taut.export._writer import Operand, Writer

# Where ONNX wants each of torch's gates: LSTM i f g o -> i o f c; GRU r z n -> z r h.
_GATES = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2)}


@converts("lstm.input")
def _lstm(w: Writer, x: Value, states: Sequence[Value], *rest: object) -> tuple[str, ...]:
    return _layers(w, "lstm", x, states, *rest)  # pyright: ignore[reportArgumentType]


@converts("gru.input")
def _gru(w: Writer, x: Value, state: Value, *rest: object) -> tuple[str, ...]:
    return _layers(w, "gru", x, (state,), *rest)  # pyright: ignore[reportArgumentType]


def _layers(
    w: Writer, kind: str, x: Value, states: Sequence[Value], parameters: Sequence[Value], biases: bool, count: int,
    dropout: float, training: bool, both: bool, batch_first: bool,
) -> tuple[str, ...]:  # fmt: skip
    directions, each = 1 + both, 4 if biases else 2
    if x.rank != 3 or len(parameters) != count * directions * each:
        unsupported(w.node, "only batches of sequences without projections map", fix="add the batch dimension")
    result: Operand = w.emit("Transpose", x, perm=[1, 0, 2]) if batch_first else x
    last: list[tuple[str, ...]] = []
    for layer in range(count):
        start = layer * directions * each
        own = [parameters[start + index * each : start + (index + 1) * each] for index in range(directions)]
        weights = [_reordered(w, kind, [group[index] for group in own]) for index in range(each)]
        bias = w.emit("Concat", *weights[2:], axis=1) if biases else None
        begin, end = w.integers([layer * directions]), w.integers([(layer + 1) * directions])
        initial = [w.emit("Slice", state, begin, end, w.integers([0])) for state in states]
        hidden = int(own[0][1].shape[1])  # pyright: ignore[reportArgumentType]
        outputs = w.emit_several(
            kind.upper(),
            (result, weights[0], weights[1], bias, None, *initial),
            1 + len(states),
            hidden_size=hidden,
            direction="bidirectional" if both else "forward",
            linear_before_reset=1 if kind == "gru" else None,
        )
        moved = w.emit("Transpose", outputs[0], perm=[0, 2, 1, 3])  # (T, directions, N, H) -> (T, N, directions, H)
        result = w.emit("Reshape", moved, w.integers([0, 0, -1]))
        last.append(outputs[1:])
    sequence = w.emit("Transpose", result, perm=[1, 0, 2]) if batch_first else w.name(result)
    final = [part[0] if count == 1 else w.emit("Concat", *part, axis=0) for part in zip(*last, strict=True)]
    return (sequence, *final)


def _reordered(w: Writer, kind: str, parts: Sequence[Value]) -> str:
    """One parameter of every direction with its gates in ONNX's order: (directions, gates * H, ...)."""
    tensors = [part.tensor for part in parts]
    known = [tensor for tensor in tensors if tensor is not None]
    if len(known) < len(tensors):
        unsupported(w.node, "its weights are computed", fix="use weights that are parameters")
    order = _GATES[kind]
    gates = [tensor.unflatten(0, (len(order), -1))[list(order)].flatten(0, 1) for tensor in known]
    return w.initialiser(torch.stack(gates))


@converts("lstm_cell")
def _lstm_cell(
    w: Writer, x: Value, states: Sequence[Value], wx: Value, wh: Value, bx: Value | None, bh: Value | None
) -> tuple[str, str]:
    total = w.emit("Add", linear(w, x, wx, bx), linear(w, states[0], wh, bh))
    write, forget, new, read = w.emit_several("Split", (total,), 4, axis=-1, num_outputs=4)
    kept = w.emit("Mul", w.emit("Sigmoid", forget), states[1])
    cell = w.emit("Add", kept, w.emit("Mul", w.emit("Sigmoid", write), w.emit("Tanh", new)))
    return w.emit("Mul", w.emit("Sigmoid", read), w.emit("Tanh", cell)), cell


@converts("gru_cell")
def _gru_cell(w: Writer, x: Value, state: Value, wx: Value, wh: Value, bx: Value | None, bh: Value | None) -> str:
    x_reset, x_update, x_new = w.emit_several("Split", (linear(w, x, wx, bx),), 3, axis=-1, num_outputs=3)
    h_reset, h_update, h_new = w.emit_several("Split", (linear(w, state, wh, bh),), 3, axis=-1, num_outputs=3)
    reset = w.emit("Sigmoid", w.emit("Add", x_reset, h_reset))
    update = w.emit("Sigmoid", w.emit("Add", x_update, h_update))
    new = w.emit("Tanh", w.emit("Add", x_new, w.emit("Mul", reset, h_new)))
    return w.emit("Add", new, w.emit("Mul", update, w.emit("Sub", state, new)))
