"""Rewrites that make a graph cheaper, and the record of what each changed."""

from taut.transform._catalogue import PASSES, apply_recipe, check_order, get_pass
from taut.transform._needs import missing_needs
from taut.transform._protocol import Applicability, Change, Pass, Replacement

__all__ = [
    "PASSES",
    "Applicability",
    "Change",
    "Pass",
    "Replacement",
    "apply_recipe",
    "check_order",
    "get_pass",
    "missing_needs",
]
