"""The other ranks of a process group, and the ways on which messages of any lengths get to them."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Generic, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist

from taut.distributed._shared_memory import SharedMemory, join_near
from taut.distributed._traffic import HEADER_BYTES, parse_header, write_header
from taut.errors import CommunicationError

_T = TypeVar("_T")
_LEAST_ROOM = 2**16
_FIRST_WINDOW = 2**14  # bytes that a connection sends before the first answer
_MOST_ALONE = 2**17  # bytes up to which a message has ended before its connection has seen what was lost


class Row(NamedTuple):
    """What a rank has sent.

    Attributes:
        entries: how many.
        message: (HEADER_BYTES + bytes or more,) uint8, which begins with the message.
        lent: whether it is valid only until the exchange has ended.
    """

    entries: int
    message: torch.Tensor
    lent: bool

    @property
    def content(self) -> torch.Tensor:
        """The bytes behind the header."""
        return self.message[HEADER_BYTES : HEADER_BYTES + parse_header(self.message)[0]]


class Peers:
    """The other ranks of a group.

    Ranks that are all on this host share memory, see `join_near`. Else, over Gloo a message takes one round: a receiver
    knows from earlier messages how much room to offer, and the message says how long it is; only one that has outgrown
    that room is announced first. Other backends want to know the lengths, and get them in a round of their own.
    """

    def __init__(self, group: dist.ProcessGroup) -> None:
        # The dictionary of all groups must not keep this one alive.
        self._shared = weakref.ref(group)
        self._rank, self._ranks = dist.get_rank(group), dist.get_world_size(group)
        self._room = [_LEAST_ROOM] * self._ranks if dist.get_backend(group) == "gloo" else None
        self._near: SharedMemory | None = None
        self._near_known = self._room is None or self._ranks == 1

    @property
    def _group(self) -> dist.ProcessGroup | None:
        return self._shared()

    def room(self, size: int, values: torch.Tensor, *, network: bool = False) -> torch.Tensor:
        """(size or more,) uint8 for the message of the next exchange, on the device of its values."""
        near = self._near if values.device.type == "cpu" and not network else None
        draft = near.draft(size) if near is not None else None
        return draft if draft is not None else values.new_empty(size, dtype=torch.uint8)

    def exchange(
        self,
        message: torch.Tensor,
        form: int,
        own: _T,
        take: Callable[[Row], _T],
        describe: Callable[[int], str],
        *,
        network: bool = False,
    ) -> list[_T]:
        """Give a message to every rank; what the others give is taken as it arrives.

        Args:
            message: (HEADER_BYTES + bytes,) uint8, with its header.
            form: of the entries, as in the header; the same on all ranks.
            own: stands for this rank's in the result.
            take: what makes the result of each other rank's.
            describe: a form in words.
            network: to share no memory.

        Returns:
            By rank.

        Raises:
            CommunicationError: the forms differ, or a rank cannot be reached.
            Exception: what `take` has raised, once all messages have arrived.
        """
        taken = _Taken(self._rank, self._ranks, form, own, take)
        if not self._near_known and not network:
            limit = time_out(self._group, message.device) or dist.default_pg_timeout
            self._near = join_near(self._rank, self._tell, limit.total_seconds())
            self._near_known = True
        if self._near is not None and not network:
            self._near.exchange(message, taken)
        elif self._ranks > 1:
            self._send_all(message, taken)
        return taken.results(describe)

    def _tell(self, text: bytes) -> list[bytes]:
        message = torch.empty(HEADER_BYTES + len(text), dtype=torch.uint8)
        write_header(message, 0, 0)
        message[HEADER_BYTES:] = torch.tensor(list(text), dtype=torch.uint8)
        taken = _Taken(self._rank, self._ranks, 0, text, lambda row: bytes(row.content.tolist()))
        self._send_all(message, taken)
        return taken.results(str)

    def _send_all(self, message: torch.Tensor, taken: _Taken) -> None:
        """Give a message to every rank over the network."""
        header = message[:HEADER_BYTES]
        if self._room is None:
            found = message.new_empty(self._ranks * HEADER_BYTES)
            dist.all_gather_single(found, header, group=self._group)
            self._send(message, [_size(one) for one in found.cpu().split(HEADER_BYTES)], taken)
            return
        room, own = self._room, message.numel()
        sizes = [0] * self._ranks

        def arrived(rank: int, row: torch.Tensor) -> None:
            sizes[rank] = _size(row)
            if sizes[rank] <= room[rank]:
                taken(rank, row)

        fits = own <= room[self._rank]
        self._send(message if fits else header, room, arrived)
        sizes[self._rank] = own
        # Sender and receiver have seen the same messages, so that both come to the same room.
        self._room = [max(old, 2 * size) for old, size in zip(room, sizes, strict=True)]
        late = [size if size > old else 0 for size, old in zip(sizes, room, strict=True)]
        if any(late):
            self._send(message, late, taken)

    def _send(self, tensor: torch.Tensor, rooms: Sequence[int], arrived: Callable[[int, torch.Tensor], None]) -> None:
        """Give a tensor to every other rank that has room; rooms: for the message of each rank, 0 for none."""
        # Each rank begins with its next neighbour, so that no link carries the messages of all at once.
        order = [step % self._ranks for step in range(self._rank + 1, self._rank + self._ranks)]
        received = {rank: tensor.new_empty(rooms[rank]) for rank in reversed(order) if rooms[rank]}
        targets = order if rooms[self._rank] else []
        if self._room is None:
            operations = [
                *(dist.P2POp(dist.irecv, row, group=self._group, group_peer=rank) for rank, row in received.items()),
                *(dist.P2POp(dist.isend, tensor, group=self._group, group_peer=rank) for rank in targets),
            ]
            for work in dist.batch_isend_irecv(operations) if operations else ():
                work.wait()
            for rank, row in received.items():
                arrived(rank, row)
            return
        # Who receives says so first: behind a message of its own the word would have to wait for the link.
        receiving = {rank: dist.irecv(row, group=self._group, group_src=rank) for rank, row in received.items()}
        sending: list[dist.Work | None] = []
        for step, rank in enumerate(targets):
            # Several at once make each other's packets be lost, and what is lost at the end of a message is sent again
            # only after a time-out. All ranks send in the same steps, so that one message has arrived about when one
            # has left.
            before = (self._rank - step) % self._ranks
            waits = before in receiving and _FIRST_WINDOW < tensor.numel() <= _MOST_ALONE
            if waits:
                _wait(receiving.pop(before))
            sending.append(dist.isend(tensor, group=self._group, group_dst=rank))
            if waits:
                arrived(before, received[before])
        for rank, work in receiving.items():
            _wait(work)
            arrived(rank, received[rank])
        for work in sending:
            _wait(work)


class _Taken(Generic[_T]):
    """What an exchange makes of the messages, told of each as it arrives."""

    def __init__(self, rank: int, ranks: int, form: int, own: _T, take: Callable[[Row], _T]) -> None:
        self._results: dict[int, _T] = {rank: own}
        self._forms = [form] * ranks
        self._form = form
        self._take = take
        self._error: Exception | None = None

    def __call__(self, rank: int, message: torch.Tensor, lent: bool = False) -> None:
        _, entries, self._forms[rank] = parse_header(message)
        if self._forms[rank] != self._form or self._error is not None:
            return
        try:
            self._results[rank] = self._take(Row(entries, message, lent))
        except Exception as error:  # the other messages have to be received first
            self._error = error

    def results(self, describe: Callable[[int], str]) -> list[_T]:
        """By rank, once all have arrived."""
        if any(form != self._form for form in self._forms):
            described = ", ".join(f"rank {rank} {describe(form)}" for rank, form in enumerate(self._forms))
            raise CommunicationError(f"messages travel in different forms: {described}", expected="one form")
        if self._error is not None:
            raise self._error
        return [self._results[rank] for rank in range(len(self._forms))]


_PEERS: WeakKeyDictionary[dist.ProcessGroup, Peers] = WeakKeyDictionary()


def peers_of(group: dist.ProcessGroup | None) -> Peers:
    """The other ranks of a group, the default one if None.

    Raises:
        CommunicationError: there is no group.
    """
    shared = group or dist.group.WORLD
    if shared is None:
        raise CommunicationError("no ranks", fix="torch.distributed.init_process_group()")
    found = _PEERS.get(shared)
    if found is None:
        found = _PEERS[shared] = Peers(shared)
    return found


def _size(message: torch.Tensor) -> int:
    """Of a message that begins with this header."""
    return HEADER_BYTES + parse_header(message)[0]


def _wait(work: dist.Work | None) -> None:
    if work is not None:
        work.wait()


def time_out(group: dist.ProcessGroup | None, device: torch.device) -> timedelta | None:
    """How long the ranks of a group wait for each other; None if the backend does not say."""
    options = getattr(group._get_backend(device), "options", None) if group is not None else None
    return getattr(options, "_timeout", None)
