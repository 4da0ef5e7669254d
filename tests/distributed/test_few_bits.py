"""Signs by majority, and rounding by chance."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from exchanges import exchange, random_gradients

from taut.distributed import Memory, QuantisedSGD, SignMajority


def test_signs_by_hand() -> None:
    memories: list[Memory] = [{}, {}, {}]
    gradients = [{"p": torch.tensor(values)} for values in ([4.0, -2.0], [2.0, -2.0], [-3.0, 9.0])]
    for rank in exchange(SignMajority(), gradients, memories):
        scale = (3 + 2 + 6) / 3
        assert rank.gradients["p"].tolist() == pytest.approx([scale, -scale])
    assert [memory["p"]["residual"].tolist() for memory in memories] == [[1, 1], [0, 0], [3, 3]]


def test_a_split_vote_gives_zero_and_an_unused_parameter_has_no_vote() -> None:
    split = exchange(SignMajority(), [{"p": torch.tensor([1.0])}, {"p": torch.tensor([-1.0])}])
    assert split[0].gradients["p"].tolist() == [0]
    alone = exchange(SignMajority(), [{"p": torch.tensor([-1.0])}, {"p": torch.tensor([0.0])}])
    assert alone[0].gradients["p"].tolist() == [-0.5]


def test_one_bit_for_each_entry() -> None:
    assert SignMajority().traffic([torch.Size((8000,))], 4).sent(4) == 3 * (1000 + 4)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_rounding_is_right_on_average(bits: Literal[2, 4, 8]) -> None:
    memories: list[Memory] = [{}, {}]
    gradients = random_gradients(2, shapes=((50,),))
    mean = (gradients[0]["p0"] + gradients[1]["p0"]) / 2
    found = torch.stack([exchange(QuantisedSGD(bits), gradients, memories)[0].gradients["p0"] for _ in range(400)])
    step = max(g["p0"].abs().max() for g in gradients) / (2 ** (bits - 1) - 1)
    assert (found.mean(dim=0) - mean).abs().max() < 5 * step / 2 / 2**0.5 / 20  # five standard errors at most
    assert (found - mean).abs().max() <= step


def test_ranks_round_apart_and_steps_too() -> None:
    memories: list[Memory] = [{}, {}]
    same = random_gradients(1, shapes=((100,),)) * 2
    first, second = (exchange(QuantisedSGD(2), same, memories)[0].gradients["p0"] for _ in range(2))
    assert not torch.equal(first, second)
    assert len(first.unique()) > 3  # one rank alone would give three levels
