"""Compressors, one concept a file."""

from taut.distributed._compressors._casting import BFloat16, Float16, NoCompression
from taut.distributed._compressors._top_k import TopK

__all__ = ["BFloat16", "Float16", "NoCompression", "TopK"]
