"""Activations as the fused operators of oneDNN name them."""

from __future__ import annotations

import dataclasses

from taut.graph import Argument, Graph, Node
from taut.transform._patterns import arguments, only_user

_PLAIN = {
    "aten.relu.default": "relu",
    "aten.sigmoid.default": "sigmoid",
    "aten.tanh.default": "tanh",
    "aten.silu.default": "swish",
    "aten.hardswish.default": "hardswish",
    "aten.hardsigmoid.default": "hardsigmoid",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Activation:
    """An activation: oneDNN's name, its scalars, and the variant of GELU ("none" for the exact one, or "tanh")."""

    name: str = "none"
    scalars: tuple[float, ...] = ()
    algorithm: str | None = None

    @property
    def attributes(self) -> tuple[Argument, ...]:
        """The three arguments of a fused operator."""
        return (self.name, self.scalars, self.algorithm)


def activation(node: Node) -> Activation | None:
    """The node as an activation of its first argument, or None."""
    if node.op in _PLAIN:
        return Activation(_PLAIN[node.op])
    if node.op == "aten.relu6.default":
        return Activation("hardtanh", (0.0, 6.0))
    if node.op == "aten.gelu.default":
        return Activation("gelu", (), str(arguments(node, ("self",)).get("approximate", "none")))
    if node.op == "aten.leaky_relu.default":
        slope = arguments(node, ("self", "negative_slope")).get("negative_slope", 0.01)
        return Activation("leaky_relu", (float(slope),)) if isinstance(slope, (int, float)) else None
    if node.op in ("aten.hardtanh.default", "aten.clamp.default"):
        default = {"min_val": -1.0, "max_val": 1.0} if node.op == "aten.hardtanh.default" else {}
        names = ("self", "min_val", "max_val") if default else ("self", "min", "max")
        given = {**default, **arguments(node, names)}
        low, high = given.get(names[1]), given.get(names[2])
        if isinstance(low, (int, float)) and isinstance(high, (int, float)):
            return Activation("hardtanh", (float(low), float(high)))
    return None


def following_activation(graph: Graph, node: Node) -> tuple[Node, Activation] | None:
    """The activation that is the node's only user, if there is one."""
    user = only_user(graph, node)
    found = None if user is None else activation(user)
    return None if user is None or found is None else (user, found)
