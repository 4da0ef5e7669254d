"""Keeps recurrent layers whole through torch.export, which would unroll them over the traced length."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_OPTIONS = "bool has_biases, int num_layers, float dropout, bool train, bool bidirectional, bool batch_first"
_LIBRARY = torch.library.Library("taut_capture", "DEF")


def _define(name: str) -> torch._ops.OpOverload:
    state, results = ("Tensor[] hx", 3) if name == "lstm" else ("Tensor hx", 2)
    returns = ", ".join(["Tensor"] * results)
    _LIBRARY.define(f"{name}(Tensor input, {state}, Tensor[] params, {_OPTIONS}) -> ({returns})")

    def shapes(
        x: torch.Tensor,
        hx: Any,
        params: Sequence[torch.Tensor],
        has_biases: bool,
        num_layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool,
    ) -> tuple[torch.Tensor, ...]:
        states = list(hx) if isinstance(hx, (list, tuple)) else [hx]
        width = states[0].shape[-1] * (2 if bidirectional else 1)
        return (x.new_empty(*x.shape[:-1], width), *(torch.empty_like(state) for state in states))

    _LIBRARY.impl(name, getattr(torch.ops.aten, name).input, "CPU")
    torch.library.register_fake(f"taut_capture::{name}", shapes, lib=_LIBRARY)
    return getattr(torch.ops.taut_capture, name).default


_WHOLE: dict[object, torch._ops.OpOverload] = {
    getattr(torch, name): _define(name) for name in ("lstm", "gru", "rnn_tanh", "rnn_relu")
}


class KeepRecurrent(TorchFunctionMode):
    """While active, a recurrent layer over a padded batch is traced as one operator."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Replace the call of a recurrent layer; pass every other on."""
        whole = _WHOLE.get(func)
        padded = len(args) > 3 and isinstance(args[3], bool)
        return (whole if whole is not None and padded else func)(*args, **(kwargs or {}))
