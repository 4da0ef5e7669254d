"""The thin immutable graph: capture, rewrite, run on ATen, count, print, save."""

from taut.graph._capture import capture
from taut.graph._codec import (
    decode_argument,
    decode_graph,
    decode_tree,
    encode_argument,
    encode_graph,
    encode_tree,
)
from taut.graph._cost import OperationCost, graph_cost, operation_cost
from taut.graph._document import read_document, read_tensors, write_document, write_tensors
from taut.graph._format import format_graph
from taut.graph._guards import requested_from
from taut.graph._hash import cost_key, structural_hash
from taut.graph._infer import infer_types
from taut.graph._inputs import InputChecker, bind_sizes
from taut.graph._interpreter import Interpreter
from taut.graph._plan import Plan, PlanStep
from taut.graph._policy import is_torch_operator, resolve
from taut.graph._rewrite import Builder, eliminate_dead_code, rewrite
from taut.graph._storage import load_graph, save_graph
from taut.graph._symbols import evaluate, symbol
from taut.graph._trips import trip_count
from taut.graph._types import (
    Argument,
    Dim,
    Graph,
    Guard,
    Node,
    Ref,
    ScalarType,
    SymbolRange,
    TensorType,
    Tree,
    ValueType,
    content_hash,
    map_tree,
)
from taut.graph._validate import validate

__all__ = [
    "Argument",
    "Builder",
    "Dim",
    "Graph",
    "Guard",
    "InputChecker",
    "Interpreter",
    "Node",
    "OperationCost",
    "Plan",
    "PlanStep",
    "Ref",
    "ScalarType",
    "SymbolRange",
    "TensorType",
    "Tree",
    "ValueType",
    "bind_sizes",
    "capture",
    "content_hash",
    "cost_key",
    "decode_argument",
    "decode_graph",
    "decode_tree",
    "eliminate_dead_code",
    "encode_argument",
    "encode_graph",
    "encode_tree",
    "evaluate",
    "format_graph",
    "graph_cost",
    "infer_types",
    "is_torch_operator",
    "load_graph",
    "map_tree",
    "operation_cost",
    "read_document",
    "read_tensors",
    "requested_from",
    "resolve",
    "rewrite",
    "save_graph",
    "structural_hash",
    "symbol",
    "trip_count",
    "validate",
    "write_document",
    "write_tensors",
]
