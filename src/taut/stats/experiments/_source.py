"""A fingerprint of an experiment's code, to notice that it changed under the same name."""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path


def source_fingerprint(experiment: object) -> str | None:
    """Hash of the code that an experiment reaches within the file of its class, or None where there is no such file.

    Comments, layout and the rest of the file, such as the study's counts, do not change it. Code in other files does
    not either: it is a help to notice a change, no proof that there was none.
    """
    kind = type(experiment)
    code = getattr(getattr(kind, "run", None), "__code__", None)
    try:
        module = ast.parse(Path(code.co_filename).read_bytes())  # pyright: ignore[reportOptionalMemberAccess]
    except (AttributeError, OSError, SyntaxError, ValueError, RecursionError):
        return None
    binding: dict[str, list[int]] = {}
    for index, statement in enumerate(module.body):
        for name in _bound(statement):
            binding.setdefault(name, []).append(index)
    reached: set[int] = set()
    names = [kind.__qualname__.partition(".")[0]]
    while names:
        for index in set(binding.get(names.pop(), ())) - reached:
            reached.add(index)
            names += [node.id for node in ast.walk(module.body[index]) if isinstance(node, ast.Name)]
    if not reached:
        return None
    text = "\n".join(ast.unparse(module.body[index]) for index in sorted(reached))
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def _bound(statement: ast.stmt) -> set[str]:
    """The names that a statement of a module defines, those within an `if` or `try` included."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {statement.name}
    names: set[str] = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
    return names
