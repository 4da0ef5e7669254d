"""Gradient exchange between the ranks of a training job: compressors, hooks, controllers, and when not to compress."""

from taut.distributed._communicator import Communicator
from taut.distributed._compressor import Compressor, Gradient, Memory
from taut.distributed._controller import Controller
from taut.distributed._traffic import Collective, Message, Traffic

__all__ = [
    "Collective",
    "Communicator",
    "Compressor",
    "Controller",
    "Gradient",
    "Memory",
    "Message",
    "Traffic",
]
