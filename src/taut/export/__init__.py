"""Graphs in the formats of other runtimes."""

from taut.export._file import export_onnx

__all__ = ["export_onnx"]
