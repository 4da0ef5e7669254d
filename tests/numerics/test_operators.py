"""The operators: what they compute, how they export, and what they refuse."""

import pytest
import torch
from torch import Tensor, nn

from taut.errors import ArgumentError
from taut.kernels import int8_linear, pack_int8_linear
from taut.numerics import FORMATS, encode

operators = torch.ops.taut


def buffers_of(x: Tensor, name: str) -> list[Tensor]:
    return list(encode(x, name).buffers.values())


@pytest.mark.parametrize("name", FORMATS)
def test_decode_and_embedding_give_the_decoded_numbers(name: str) -> None:
    table = torch.randn(11, 40, generator=torch.Generator().manual_seed(0))
    values = encode(table, name).decode()
    assert torch.equal(operators.decode(buffers_of(table, name), name, [11, 40]), values)
    indices = torch.tensor([[3, 0, 10], [3, 3, 7]])
    assert torch.equal(operators.encoded_embedding(indices, buffers_of(table, name), name, [11, 40]), values[indices])
    assert operators.encoded_embedding(indices[:0], buffers_of(table, name), name, [11, 40]).shape == (0, 3, 40)


def test_a_table_of_one_entry() -> None:
    table = torch.randn(1, 40)
    for name in ("int8-tensor", "vsq4-v16-s4", "nvfp4"):
        found = operators.encoded_embedding(torch.zeros(5, dtype=torch.int32), buffers_of(table, name), name, [1, 40])
        assert torch.equal(found, encode(table, name).decode().expand(5, 40))


@pytest.mark.parametrize("name", ["vsq4-v16-s4", "int8-channel", "mxfp4", "vsq4-v16-f16"])
def test_fake_quantise_is_encode_and_decode_slice_by_slice(name: str) -> None:
    x = torch.randn(2, 5, 24, 3, generator=torch.Generator().manual_seed(0))
    chooser = "closest" if name == "vsq4-v16-s4" else "max"
    along = operators.fake_quantise(x, name, 2)
    for batch in range(2):
        rows = x[batch].transpose(1, 2).reshape(15, 24)
        expected = encode(rows, name, chooser=chooser).decode().view(5, 3, 24).transpose(1, 2)
        assert torch.equal(along[batch], expected)
    assert torch.equal(operators.fake_quantise(x, name, -2), along)


def test_fake_quantise_is_what_the_int8_kernel_does_to_its_inputs() -> None:
    x = torch.randn(7, 33, generator=torch.Generator().manual_seed(4))
    identity, scales = pack_int8_linear(torch.eye(33))
    quantised = int8_linear(x, identity, scales)
    torch.testing.assert_close(quantised, operators.fake_quantise(x, "int8-channel", 1), rtol=1e-6, atol=0)


def test_a_row_that_is_not_finite_becomes_nan_and_no_other() -> None:
    x = torch.randn(4, 32)
    x[1, 3], x[2, 4] = torch.nan, torch.inf
    for name in ("vsq4-v16-s4", "int8-channel", "mxfp8-e4m3"):
        result = operators.fake_quantise(x, name, 1)
        assert result[1:3].isnan().all()
        assert torch.equal(result[[0, 3]], operators.fake_quantise(x[[0, 3]], name, 1))


def test_dtype_is_kept() -> None:
    assert operators.fake_quantise(torch.randn(3, 16).bfloat16(), "vsq4-v16-s4", 1).dtype == torch.bfloat16


def test_opcheck() -> None:
    table = torch.randn(6, 20)
    given = buffers_of(table, "q4_0")
    torch.library.opcheck(operators.decode.default, (given, "q4_0", [6, 20]))
    torch.library.opcheck(operators.encoded_embedding.default, (torch.tensor([1, 5]), given, "q4_0", [6, 20]))
    torch.library.opcheck(operators.fake_quantise.default, (table, "vsq4-v16-s4", 1))


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        for place, buffer in enumerate(buffers_of(torch.randn(12, 20), "vsq4-v16-s4")):
            self.register_buffer(f"part{place}", buffer)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.get_buffer(f"part{place}") for place in range(3)]
        weight = operators.decode(parts, "vsq4-v16-s4", [12, 20])
        return nn.functional.linear(operators.fake_quantise(x, "vsq4-v16-s4", -1), weight)


def test_a_layer_exports_with_a_dynamic_batch() -> None:
    layer = Layer()
    program = torch.export.export(layer, (torch.randn(4, 20),), dynamic_shapes=({0: torch.export.Dim("n", min=2)},))
    x = torch.randn(9, 20)
    torch.testing.assert_close(program.module()(x), layer(x))


def test_refusals_come_before_any_work() -> None:
    table = torch.randn(6, 20)
    given = buffers_of(table, "vsq4-v16-s4")
    with pytest.raises(ArgumentError, match="buffers"):
        operators.decode(given[:2], "vsq4-v16-s4", [6, 20])
    with pytest.raises(ArgumentError, match="codes"):
        operators.decode(given, "vsq4-v16-s4", [6, 2000])
    with pytest.raises(ArgumentError, match="format"):
        operators.decode(given, "vsq4-v16", [6, 20])
    with pytest.raises(ArgumentError, match="indices"):
        operators.encoded_embedding(torch.tensor([6]), given, "vsq4-v16-s4", [6, 20])
    with pytest.raises(ArgumentError, match="indices"):
        operators.encoded_embedding(torch.tensor([-1]), given, "vsq4-v16-s4", [6, 20])
    with pytest.raises(ArgumentError, match="dim"):
        operators.fake_quantise(table, "vsq4-v16-s4", 2)
    with pytest.raises(ArgumentError, match="floating"):
        operators.fake_quantise(table.long(), "vsq4-v16-s4", 1)
