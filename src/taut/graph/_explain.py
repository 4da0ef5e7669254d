"""Says in the user's terms why torch.export refused a model, and which dimensions it fixed."""

from __future__ import annotations

import linecache
import re
import traceback
from typing import Any

import torch
from torch.export import ExportedProgram

from taut.errors import ArgumentError, ExportError

_ADVICE: tuple[tuple[str, str], ...] = (
    (
        r"specialized it to be a constant|Constraints violated|not all values of .* satisfy",
        "a Python loop, `int(...)` or a comparison over that size fixes it to the traced value: replace the loop by a "
        "whole-tensor operation, nn.LSTM/nn.GRU, or torch's while_loop, or leave the dimension out of dynamic_shapes",
    ),
    (
        r"Could not guard on data-dependent|data-dependent|Could not extract specialized integer|GuardOnDataDependent",
        "the program branches on a value that is known only at run time: use torch.cond or torch.where for the branch, "
        "or promise a range with torch._check(size <= limit)",
    ),
    (
        r"FunctionalTensor|aliasing|Higher order ops",
        "inside a branch or a loop body return new tensors (`.clone()`), and create constant tensors outside of it",
    ),
    (
        r"dynamic_shapes|Detected mismatch between the structure of",
        "give dynamic_shapes the structure of the arguments, one entry an argument, e.g. ({0: Dim('batch', min=2)},)",
    ),
)
_FALLBACK = (
    "run torch.export.draft_export(model, args) for a full diagnosis; replace the named operation by a traceable one, "
    "or leave dimensions out of dynamic_shapes"
)


def explain_failure(error: Exception) -> ExportError:
    """The error to raise for what torch.export raised: the operator, the user's line, and what to try."""
    text = str(error)
    operator, (line, code) = _operator(text), _user_line(error, text)
    where = f" at {line}" if line else ""
    what = f" in {operator}" if operator else ""
    fixed = re.search(r"marked (\S+) as dynamic but your code specialized it to be a constant \((\d+)\)", text)
    said = _first_line(text)
    if fixed:
        dim = re.sub(r"L\['(\w+)'\]\.size\(\)\[(\d+)\]", r"\2 of \1", fixed[1])
        said = f"dimension {dim} was requested dynamic, but the model's code fixes it to {fixed[2]}"
    fix = next((advice for pattern, advice in _ADVICE if re.search(pattern, text)), _FALLBACK)
    if code:
        said += f"; the line is: {code}"
    return ExportError(f"torch.export refused the model{what}{where}: {said}", fix=fix)


def _first_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    chosen = lines[0] if lines else "no message"
    return chosen if len(chosen) <= 300 else chosen[:297] + "..."


def _operator(text: str) -> str:
    found = re.search(r"\b(aten[.:]{1,2}[\w.]+|torch\.ops\.[\w.]+)", text)
    return found[1].rstrip(".").replace("::", ".") if found else ""


def _user_line(error: BaseException, text: str) -> tuple[str, str]:
    """The place and the text of the innermost line of the user's own code: from the traceback, else the message."""
    installed = (torch.__file__.rsplit("torch", 1)[0].replace("\\", "/"), "/taut/graph/")
    frames: list[tuple[str, str]] = []
    current: BaseException | None = error
    while current is not None and not frames:
        rows = traceback.extract_tb(current.__traceback__)
        frames = [(row.filename, str(row.lineno)) for row in rows]
        frames = [row for row in frames if _is_users(row[0], installed)]
        current = current.__cause__ or current.__context__
    mentioned = [row for row in re.findall(r'File "([^"]+)", line (\d+)', text) if _is_users(row[0], installed)]
    chosen = mentioned or frames
    if not chosen:
        return "", ""
    filename, number = chosen[-1]
    code = linecache.getline(filename, int(number)).strip()[:100]
    return f"{filename.rsplit('/', 1)[-1]}:{number}", code


def _is_users(filename: str, installed: tuple[str, ...]) -> bool:
    path = filename.replace("\\", "/")
    return not path.startswith("<") and not any(part in path for part in installed) and "/lib/python" not in path


def specialised_dimensions(program: ExportedProgram, dynamic_shapes: Any) -> list[str]:
    """A sentence for each dimension that was requested dynamic and that tracing fixed all the same.

    A `Dim` with a name raises instead; this is for `Dim.AUTO`, which torch.export fixes silently.
    """
    if dynamic_shapes is None:
        return []
    arguments = dynamic_shapes.values() if isinstance(dynamic_shapes, dict) else dynamic_shapes
    wanted = [leaf for argument in arguments for leaf in _shape_leaves(argument)]
    users = program.graph_signature.user_inputs
    inputs = [node for node in program.graph.nodes if node.op == "placeholder" and node.name in users]
    if len(wanted) != len(inputs):
        return []
    notes = []
    for node, request in zip(inputs, wanted, strict=True):
        shape = getattr(node.meta.get("val"), "shape", ())
        for dim, hint in request.items():
            if not -len(shape) <= dim < len(shape):
                raise ArgumentError(
                    "dynamic_shapes", {dim: hint}, expected=f"dimensions of {node.name}, which has {len(shape)}"
                )
            size = shape[dim]
            if _is_dynamic(hint) and (isinstance(size, int) or size.node.expr.is_number):
                notes.append(f"{node.name} dimension {dim} was requested dynamic; tracing fixed it to {size}")
    return notes


def _is_dynamic(hint: object) -> bool:
    return hint is not None and not isinstance(hint, int) and "STATIC" not in str(hint)


def _shape_leaves(tree: Any) -> list[dict[int, Any]]:
    """The requests for each tensor in order; an entry without requests gives an empty dictionary."""
    if _is_hint(tree):
        return [{}]
    if isinstance(tree, dict) and all(isinstance(key, int) for key in tree):
        return [tree]
    if isinstance(tree, (tuple, list)) and tree and all(_is_hint(item) for item in tree):
        return [dict(enumerate(tree))]
    children = tree.values() if isinstance(tree, dict) else tree
    return [leaf for child in children for leaf in _shape_leaves(child)]


def _is_hint(item: object) -> bool:
    return (
        item is None or isinstance(item, (int, torch.export.Dim)) or type(item).__name__ in ("_DimHint", "DerivedDim")
    )
