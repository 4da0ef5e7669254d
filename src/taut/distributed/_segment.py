"""Memory that a rank shares with the ranks of its host: a file without a name, which ends with its last user."""

from __future__ import annotations

import fcntl
import mmap
import os
import secrets
import weakref

import torch

from taut.kernels import SIGNAL_BYTES, raise_signal

ROOM = 16 * 2**20
"""Bytes of a message that a segment holds at once; a longer one goes in parts."""

_LEAST_RESERVED = 2**16
_CLOSED = slice(SIGNAL_BYTES, SIGNAL_BYTES + 4)
_NONCE_BYTES = 16
_NONCE = slice(16, 16 + _NONCE_BYTES)
_CONTROL_BYTES = mmap.PAGESIZE
_SIZE = _CONTROL_BYTES + 2 * ROOM


class Segment:
    """A signal and two slots; messages take turns in the slots, so that the next is written while the last is read.

    The file is as long as it may ever be, but has memory only where something was written. It cannot be cut off, which
    would end the processes that read it.

    Attributes:
        signal: the number of the last message, for `raise_signal` and `wait_for_signal`.
    """

    def __init__(self, descriptor: int) -> None:
        self._memory = torch.frombuffer(mmap.mmap(descriptor, _SIZE), dtype=torch.uint8)
        self._slots = self._memory[_CONTROL_BYTES:].split(ROOM)
        self.signal = self._memory[:SIGNAL_BYTES].view(torch.int32)
        self._closed = self._memory[_CLOSED].view(torch.int32)

    @property
    def nonce(self) -> bytes:
        """What the owner has drawn, to tell its segment from others."""
        return bytes(self._memory[_NONCE].tolist())

    @property
    def closed(self) -> bool:
        """Whether the owner has said that no message will follow."""
        return bool(self._closed.item())

    def slot(self, number: int) -> torch.Tensor:
        """(ROOM,) uint8, where the message of this number is."""
        return self._slots[number % 2]


class OwnSegment(Segment):
    """The segment that this rank writes.

    Attributes:
        descriptor: of the file, by which processes of the same user find it under `/proc`.

    Raises:
        OSError: the system has no such files, or no memory.
    """

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("taut-exchange", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.descriptor, _SIZE)
            fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
            os.posix_fallocate(self.descriptor, 0, _CONTROL_BYTES)
            super().__init__(self.descriptor)
        except BaseException:
            os.close(self.descriptor)
            raise
        self._memory[_NONCE] = torch.frombuffer(bytearray(secrets.token_bytes(_NONCE_BYTES)), dtype=torch.uint8)
        self._reserved = 0
        self._number = 0
        self.close = weakref.finalize(self, _close, self._closed, self.descriptor, os.getpid())

    def draft(self, size: int) -> torch.Tensor:
        """(ROOM,) uint8, where `write` puts the next message, of so many bytes; to be written there at once.

        Every other rank has to have read the message before the last: it has if it has written as many as this one.

        Raises:
            OSError: there is no memory left.
        """
        if size > self._reserved:
            # Memory that runs out later would end this process, instead of being an error.
            reserved = min(ROOM, max(size, _LEAST_RESERVED))
            for slot in range(2):
                os.posix_fallocate(self.descriptor, _CONTROL_BYTES + slot * ROOM, reserved)
            self._reserved = reserved
        return self.slot(self._number + 1)

    def write(self, content: torch.Tensor) -> int:
        """Say that a message, (at most ROOM,) uint8, is there; returns its number.

        Raises:
            OSError: there is no memory left.
        """
        if content.data_ptr() != self.slot(self._number + 1).data_ptr():
            self.draft(content.numel())[: content.numel()] = content
        self._number += 1
        raise_signal(self.signal, self._number)
        return self._number


def open_segment(process: int, descriptor: int, nonce: bytes) -> Segment:
    """The segment of another process of the same user.

    Raises:
        OSError: it cannot be reached, or is another file.
    """
    found = os.open(f"/proc/{process}/fd/{descriptor}", os.O_RDWR | os.O_CLOEXEC)
    try:
        sealed = fcntl.fcntl(found, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK
        if not sealed or os.fstat(found).st_size != _SIZE:
            raise OSError("no segment")
        segment = Segment(found)
    finally:
        os.close(found)
    if segment.nonce != nonce:
        raise OSError("the segment of another process")
    return segment


def _close(closed: torch.Tensor, descriptor: int, owner: int) -> None:
    if os.getpid() == owner:  # not in a child, which has inherited all of it
        closed.fill_(1)
        os.close(descriptor)
