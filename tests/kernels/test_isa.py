"""Which instruction set runs."""

import pytest

from taut.errors import KernelError
from taut.kernels import active_isa, available_isas, force


def test_scalar_is_always_available_and_the_last_is_active() -> None:
    assert available_isas()[0] == "scalar"
    assert active_isa() == available_isas()[-1]


def test_force_holds_within_the_block_and_ends_with_it() -> None:
    before = active_isa()
    for isa in available_isas():
        with force(isa):
            assert active_isa() == isa
        assert active_isa() == before


def test_force_ends_when_the_block_raises() -> None:
    before = active_isa()
    with pytest.raises(RuntimeError), force("scalar"):
        raise RuntimeError
    assert active_isa() == before


@pytest.mark.parametrize("isa", ["", "sse9", "SCALAR"])
def test_an_unavailable_isa_is_refused_and_names_the_available_ones(isa: str) -> None:
    with pytest.raises(KernelError) as caught, force(isa):
        pass
    assert "scalar" in str(caught.value)
    assert active_isa() == available_isas()[-1]
