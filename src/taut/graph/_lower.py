"""Lowering: from the nodes of torch.fx to those of the graph."""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping
from typing import Any, Literal

import sympy
import torch
from torch import fx

from taut.errors import ExportError, GraphError
from taut.graph._composite import expand
from taut.graph._policy import resolve
from taut.graph._rewrite import Builder
from taut.graph._symbols import Translation
from taut.graph._table import DROPPED, RENAMED, SCALAR_NAMES, is_identity
from taut.graph._types import Argument, Dim, Graph, Ref, ScalarType, TensorType, Tree, ValueType

_RECURRENT = re.compile(r"taut_capture\.(lstm|gru|rnn_tanh|rnn_relu)\.default")
_LITERALS = (bool, int, float, str, torch.dtype, torch.device, torch.layout, torch.memory_format)


class Lowering:
    """Lowers one fx graph module, and the subgraphs that its control flow uses.

    Args:
        module: the graph module, already functional.
        translation: names the symbols; shared with the regions.
    """

    def __init__(self, module: fx.GraphModule, translation: Translation) -> None:
        self.module = module
        self.translation = translation
        self.builder = Builder()
        self.values: dict[fx.Node, Argument] = {}
        self.origin: dict[str, Any] = {}
        self.sizes: dict[sympy.Basic, Argument] = {}

    def region(self) -> Graph:
        """The module as a region: each placeholder becomes an input."""
        for node in self.module.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = self.builder.input(node.name, self.value_type(node.meta.get("val"), node))
        return self.builder.finish(self.body())

    def body(self) -> Tree:
        """Lower every node that is no placeholder; returns the output structure."""
        for node in self.module.graph.nodes:
            if node.op == "output":
                return _as_tree(self.argument(node.args[0]))
            if node.op == "get_attr":
                attribute = operator.attrgetter(node.target)(self.module)
                if isinstance(attribute, torch.Tensor):
                    self.values[node] = self.builder.constant(attribute, node.target, buffer=True)
            elif node.op == "call_function":
                self.origin = {"module_path": _module_path(node), "source": source_of(node)}
                self.call(node)
        raise GraphError("the exported program has no output")

    def call(self, node: fx.Node) -> None:
        """Lower one call."""
        target = node.target
        if target is operator.getitem:
            whole, index = self.values[node.args[0]], node.args[1]  # pyright: ignore
            self.values[node] = whole[index]  # pyright: ignore
        elif isinstance(target, torch._ops.HigherOrderOperator):
            self.control_flow(node, target.name())
        elif isinstance(target, torch._ops.OpOverload):
            self.operator(node, target)
        elif target in SCALAR_NAMES:
            self.emit(node, SCALAR_NAMES[target], self.arguments(node))
        else:
            raise ExportError(
                f"the exported program calls {getattr(target, '__name__', target)} at {self.where()}, "
                "which a graph cannot hold"
            )

    def operator(self, node: fx.Node, target: torch._ops.OpOverload) -> None:
        """Lower a call of a torch operator."""
        op = str(target)
        args = self.arguments(node)
        keywords = {name: self.argument(value) for name, value in node.kwargs.items()}
        if op in DROPPED:
            return
        composite = expand(self, node, op, args)
        if composite is not None:
            self.values[node] = composite
        elif is_identity(op, args, tuple(keywords)):
            self.values[node] = args[0]
        elif op.startswith(("aten._assert_scalar", "aten._assert_async")):
            holds, *texts = args
            message = str(texts[0]) if texts else "an assertion"
            kind = self.builder.value_type(holds) if isinstance(holds, Ref) else None
            if isinstance(kind, ScalarType) and kind.expression is not None:
                message = f"{kind.expression} ({self.where()})"  # torch's own text names torch's own symbols
            self.builder.add("check", holds, message, outputs=(), **self.origin)
        elif op.startswith("aten.sym_constrain_range"):
            self.range_checks(args, keywords)
        elif op == "aten._native_batch_norm_legit_no_training.default":
            x, weight, bias, mean, variance, momentum, epsilon = args
            args = (x, weight, bias, mean, variance, False, momentum, epsilon, True)
            kind = self.value_type(node.meta["val"][0], node)
            self.values[node] = (self.builder.add("aten.batch_norm.default", *args, outputs=kind, **self.origin),)
        elif op == "aten._native_batch_norm_legit.no_stats":
            x, weight, bias, training, momentum, epsilon = args
            args = (x, weight, bias, None, None, training, momentum, epsilon, True)
            kind = self.value_type(node.meta["val"][0], node)
            self.values[node] = (self.builder.add("aten.batch_norm.default", *args, outputs=kind, **self.origin),)
        else:
            if op.startswith("aten.empty") or op == "aten.new_empty.default":
                keywords.pop("memory_format", None)
            self.torch_operator(node, RENAMED.get(op, op), args, keywords)

    def torch_operator(
        self, node: fx.Node, op: str, args: tuple[Argument, ...], keywords: Mapping[str, Argument]
    ) -> None:
        """Emit a call of a torch operator that the policy allows."""
        recurrent = _RECURRENT.fullmatch(op)
        op = f"aten.{recurrent[1]}.input" if recurrent else op
        try:
            resolve(op)
        except GraphError as error:
            raise ExportError(
                f"the model calls {op} at {self.where()}, which a graph cannot hold: {error.message}",
                fix="replace the operator by a functional one",
            ) from error
        self.emit(node, op, args, keywords)

    def control_flow(self, node: fx.Node, name: str) -> None:
        """Lower a higher-order operator; its graph modules become regions."""
        args = node.args
        if name == "cond":
            modules, rest = args[1:3], (args[0], args[3] if len(args) > 3 else ())
        elif name == "while_loop":
            modules, rest = args[0:2], args[2:4]
        elif name in ("scan", "associative_scan"):
            modules, rest = args[0:1], args[1:]
        elif name in ("map_impl", "map"):
            name, modules, rest = "map", args[0:1], args[1:]
        elif name == "invoke_subgraph":
            modules, rest = args[0:1], (args[2:],)
        else:
            raise ExportError(
                f"the model uses the higher-order operator {name} at {self.where()}, which a graph cannot hold",
                expected="cond, while_loop, scan, associative_scan, map or invoke_subgraph",
            )
        regions = tuple(self.subgraph(module) for module in modules)
        self.emit(node, name, tuple(self.argument(item) for item in rest), regions=regions, sequence=True)

    def subgraph(self, node: object) -> Graph:
        """The region behind a `get_attr` node."""
        assert isinstance(node, fx.Node)
        module = getattr(self.module, str(node.target))
        return Lowering(module, self.translation).region()

    def range_checks(self, args: tuple[Argument, ...], keywords: Mapping[str, Argument]) -> None:
        """Emit the checks behind `torch._check`'s range constraints."""
        bounds = dict(zip(("min", "max"), args[1:], strict=False)) | dict(keywords)
        for name, comparison, sign in (("min", "sym.ge", ">="), ("max", "sym.le", "<=")):
            bound = bounds.get(name)
            if bound is not None:
                holds = self.builder.add(comparison, args[0], bound, outputs=ScalarType("bool"), **self.origin)
                self.builder.add("check", holds, f"a data-dependent size must be {sign} {bound}", outputs=())

    def emit(
        self,
        node: fx.Node,
        op: str,
        args: tuple[Argument, ...],
        keywords: Mapping[str, Argument] | None = None,
        *,
        regions: tuple[Graph, ...] = (),
        sequence: bool = False,
    ) -> None:
        """Append a node; a sequence of outputs becomes a tuple of references."""
        value = node.meta.get("val")
        several = sequence or isinstance(value, (tuple, list))
        values = value if isinstance(value, (tuple, list)) else (value,)
        outputs = tuple(self.value_type(item, node) for item in values)
        ref = self.builder.add(op, *args, outputs=outputs, kwargs=keywords, regions=regions, **self.origin)
        refs = tuple(Ref(ref.node, index) for index in range(len(outputs)))
        self.values[node] = refs if several else ref

    def arguments(self, node: fx.Node) -> tuple[Argument, ...]:
        """The positional arguments."""
        return tuple(self.argument(item) for item in node.args)

    def argument(self, value: object) -> Argument:
        """One argument, nested."""
        if isinstance(value, fx.Node):
            return self.values[value]
        if isinstance(value, (tuple, list)):
            return tuple(self.argument(item) for item in value)
        if value is None or isinstance(value, _LITERALS):
            return value
        raise ExportError(f"an operator at {self.where()} takes {value!r}, which a graph cannot hold")

    def value_type(self, value: Any, node: fx.Node) -> ValueType:
        """The type of a value from what torch.export recorded."""
        if isinstance(value, torch.Tensor):
            if value.layout is not torch.strided:
                raise ExportError(f"{node.name} at {source_of(node)} is a {value.layout} tensor; only dense ones")
            return TensorType(tuple(self.dim(size) for size in value.shape), value.dtype, layout_of(value))
        for kind, plain, symbolic in _SCALARS:
            if isinstance(value, symbolic):
                return ScalarType(kind, self.expression(value.node.expr))
            if isinstance(value, plain):
                return ScalarType(kind, sympy.sympify(value))
        raise ExportError(f"{node.name} at {source_of(node)} has a value of type {type(value).__name__}")

    def expression(self, expression: sympy.Basic) -> sympy.Basic | None:
        """A scalar's expression, where the graph's symbols can say it."""
        try:
            return self.translation(expression)
        except GraphError:
            return None

    def dim(self, size: int | torch.SymInt) -> Dim:
        """One dimension."""
        if isinstance(size, int):
            return size
        expression = self.translation(size.node.expr)
        return int(expression) if isinstance(expression, sympy.Integer) else expression  # pyright: ignore

    def where(self) -> str:
        """Where the current call came from, for messages."""
        return self.origin.get("source") or self.origin.get("module_path") or "an unknown place"


_SCALARS: tuple[tuple[Literal["bool", "int", "float"], type, Any], ...] = (
    ("bool", bool, torch.SymBool),
    ("int", int, torch.SymInt),
    ("float", float, torch.SymFloat),
)


def layout_of(tensor: torch.Tensor) -> Literal["contiguous", "channels_last"]:
    """The layout: "channels_last" for a 4-D tensor stored so and not also contiguous, else "contiguous"."""
    if tensor.dim() != 4 or tensor.stride(1) != 1:
        return "contiguous"
    width = tensor.stride(3)
    known = isinstance(width, int) and isinstance(tensor.shape[1], int) and tensor.shape[1] > 1
    return "channels_last" if known and width == tensor.shape[1] else "contiguous"


def source_of(node: fx.Node) -> str:
    """The user's innermost frame that is no part of torch, as "file.py:line", or ""."""
    frames = re.findall(r'File "([^"]+)", line (\d+)', node.meta.get("stack_trace") or "")
    users = [frame for frame in frames if not re.search(r"(^|/)torch/", frame[0]) and not frame[0].startswith("<")]
    return f"{users[-1][0].replace(chr(92), '/').rsplit('/', 1)[-1]}:{users[-1][1]}" if users else ""


def _module_path(node: fx.Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    paths = [entry[0] for entry in stack.values()]
    known = [path for path in paths if not path.startswith("_empty_nn_module_stack")]  # torch's own placeholder
    path = re.sub(r"\['?([^'\]]*)'?\]", r".\1", known[-1]) if known else ""
    path = re.sub(r"L\.?self\.?|_modules\.|^L\.", "", path)
    return re.sub(r"@\d+$", "", path).strip(".")


def _as_tree(value: Argument) -> Tree:
    return value  # pyright: ignore - an output structure of torch.export holds values and plain literals
