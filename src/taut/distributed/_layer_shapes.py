"""The parameters of a layer, from what a profile says of its settings."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

Shapes: TypeAlias = tuple[tuple[int, ...], ...]

_EXPANSION = 4  # of a bottleneck block
_BASE_WIDTH = 64
_MOST = 2**20  # of a single setting
_MOST_ELEMENTS = 2**31 - 1


def parameter_shapes(kind: str, settings: Mapping[str, Any]) -> Shapes:
    """Shapes of the parameters of a layer, in the order of the forward pass.

    Args:
        kind: of the layer.
        settings: of the layer, by name.

    Raises:
        ValueError: the kind is unknown, or a setting is missing or out of range.
    """
    build = _KINDS.get(kind)
    if build is None:
        raise ValueError(f"a layer of unknown kind {kind}; known are {', '.join(sorted(_KINDS))}")
    shapes = build(settings)
    for shape in shapes:
        if math.prod(shape) > _MOST_ELEMENTS:
            raise ValueError(f"a parameter of shape {shape}, of more than 2^31 elements")
    return shapes


def _nothing(settings: Mapping[str, Any]) -> Shapes:
    return ()


def _convolution(settings: Mapping[str, Any]) -> Shapes:
    kernel = settings.get("kernel_size")
    sides = kernel if isinstance(kernel, list) and len(kernel) == 2 else [kernel] * 2
    out, into = _whole(settings, "out_channels"), _whole(settings, "in_channels")
    return (out, into, *(_checked("kernel_size", side) for side in sides)), (out,)


def _linear(settings: Mapping[str, Any]) -> Shapes:
    out = _whole(settings, "out_features")
    weight = (out, _whole(settings, "in_features"))
    return (weight, (out,)) if settings.get("bias", True) else (weight,)


def _bottleneck(settings: Mapping[str, Any]) -> Shapes:
    """Three convolutions, each with the scale and shift of a batch normalisation, and one beside them at a change."""
    into, planes, groups = (_whole(settings, name) for name in ("inplanes", "planes", "groups"))
    inner = planes * _whole(settings, "base_width") // _BASE_WIDTH * groups
    out = _EXPANSION * planes
    if inner < 1:
        raise ValueError(f"base_width {settings['base_width']} leaves no channels")
    shapes = _normalised(inner, into, 1) + _normalised(inner, inner // groups, 3) + _normalised(out, inner, 1)
    return shapes + _normalised(out, into, 1) if "downsampleParams" in settings else shapes


def _normalised(out: int, into: int, kernel: int) -> Shapes:
    return (out, into, kernel, kernel), (out,), (out,)


def _patches(settings: Mapping[str, Any]) -> Shapes:
    """A projection of image patches, the class token and the positions."""
    width, patch, image, channels = (_whole(settings, name) for name in ("dim", "patch_dim", "img_dim", "in_channels"))
    tokens = (image // patch) ** 2 + 1
    return (width, patch * patch * channels), (width,), (1, 1, width), (tokens, width)


def _attention(settings: Mapping[str, Any]) -> Shapes:
    """Queries, keys and values, the projection of the heads, and a layer normalisation."""
    width, head, heads = (_whole(settings, name) for name in ("dim", "dim_head", "heads"))
    return (3 * head * heads, width), (width, head * heads), (width,), (width,)


def _feed_forward(settings: Mapping[str, Any]) -> Shapes:
    """Two linear layers and a layer normalisation."""
    width, inner = _whole(settings, "dim"), _whole(settings, "dim_linear_block")
    return (inner, width), (inner,), (width, inner), (width,), (width,), (width,)


def _whole(settings: Mapping[str, Any], name: str) -> int:
    return _checked(name, settings.get(name))


def _checked(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MOST:
        raise ValueError(f"{name} is {value!r}, not a whole number from 1 to {_MOST}")
    return value


_KINDS: Mapping[str, Callable[[Mapping[str, Any]], Shapes]] = {
    "conv2d": _convolution,
    "linear": _linear,
    "ResnetBottleneck": _bottleneck,
    "prep": _patches,
    "TransBlockA": _attention,
    "TransBlockB": _feed_forward,
} | dict.fromkeys(
    ("ReLU1d", "ReLU2d", "adAvgPool2d", "avgPool2d", "concat", "flatten", "maxPool2d", "prepOut"), _nothing
)
