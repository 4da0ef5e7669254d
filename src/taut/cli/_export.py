"""`taut export`: a bundle for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    bundle: Annotated[Path, typer.Argument(help="A folder written by taut optimize or taut quantize.")],
    onnx: Annotated[Path, typer.Option(help="Write the model as ONNX to this new file, NAME.onnx.")],
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there already.")] = False,
) -> None:
    """Write a bundle's model in the format of another runtime."""
    from taut._files import check_new
    from taut.cli._terminal import results

    if not force:
        check_new(onnx, "--onnx", fix="choose another name, or replace it with --force")
    from taut.export import export_onnx
    from taut.optimize import load

    written = export_onnx(load(bundle).graph, onnx, force=force)
    for path in written:
        results().print(f"{path}: {path.stat().st_size:,} bytes", markup=False, soft_wrap=True)
