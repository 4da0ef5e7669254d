"""Bit for bit what independent implementations give: gfloat and ml_dtypes for MX and NVFP4, gguf for Q4_0 and Q4_K."""

import gfloat
import ml_dtypes
import numpy as np
import pytest
import torch
from gfloat import formats
from gguf import quants

from taut.numerics import encode

DTYPES = {
    "mxfp4": (ml_dtypes.float4_e2m1fn, 2),
    "mxfp6-e2m3": (ml_dtypes.float6_e2m3fn, 2),
    "mxfp6-e3m2": (ml_dtypes.float6_e3m2fn, 4),
    "mxfp8-e4m3": (ml_dtypes.float8_e4m3fn, 8),
    "mxfp8-e5m2": (ml_dtypes.float8_e5m2, 15),
}
BLOCKS = {
    "mxfp4": formats.format_info_mxfp4_e2m1,
    "mxfp6-e2m3": formats.format_info_mxfp6_e2m3,
    "mxfp6-e3m2": formats.format_info_mxfp6_e3m2,
    "mxfp8-e4m3": formats.format_info_mxfp8_e4m3,
    "mxfp8-e5m2": formats.format_info_mxfp8_e5m2,
    "mxint8": formats.format_info_mxint8,
}


def numbers(rows: int, width: int = 64) -> np.ndarray:
    """Blocks of magnitudes 2**-12 to 2**12 with outliers, halves between grid points, zeros and a zero block."""
    generator = np.random.default_rng(7)
    x = generator.standard_normal((rows, width)) * 2.0 ** generator.uniform(-12, 12, (rows, 1))
    x[generator.random(x.shape) < 0.02] *= 30
    x[: rows // 4] = np.round(x[: rows // 4] * 8) / 8
    x[generator.random(x.shape) < 0.02] = 0
    x[-1] = 0
    return x.astype(np.float32)


@pytest.mark.parametrize("name", DTYPES)
def test_microscaling_patterns_are_those_of_ml_dtypes(name: str) -> None:
    dtype, highest_exponent = DTYPES[name]
    x = numbers(400)
    encoded = encode(torch.from_numpy(x), name)
    blocks = x.reshape(400, 2, 32)
    amax = np.abs(blocks).max(2)
    with np.errstate(divide="ignore"):
        exponents = np.where(
            amax == 0, -127, np.clip(np.floor(np.log2(amax.astype(np.float64))) - highest_exponent, -127, 127)
        )
    scaled = blocks / np.exp2(exponents).astype(np.float32)[:, :, None]
    limit = float(ml_dtypes.finfo(dtype).max)
    elements = np.clip(scaled, -limit, limit).astype(dtype)
    scales = encoded.scale_codes()
    assert scales is not None
    assert (scales.numpy() == exponents + 127).all()
    mask = (1 << ml_dtypes.finfo(dtype).bits) - 1
    assert (encoded.codes().numpy() == (elements.view(np.uint8) & mask).reshape(400, 64)).all()
    decoded = elements.astype(np.float32) * np.exp2(exponents).astype(np.float32)[:, :, None]
    assert (encoded.decode().numpy() == decoded.reshape(400, 64)).all()


@pytest.mark.parametrize("name", BLOCKS)
def test_microscaling_values_are_those_of_gfloat(name: str) -> None:
    x = numbers(12)
    if name == "mxint8":  # ours leaves the code -128 unused, as the standard allows
        x[np.abs(x) > 0] = np.abs(x[np.abs(x) > 0])
    decoded = encode(torch.from_numpy(x), name).decode().numpy().reshape(-1, 32)
    info = BLOCKS[name]
    for block, ours in zip(x.reshape(-1, 32).astype(np.float64), decoded, strict=True):
        assert (gfloat.quantize_block(info, block, gfloat.compute_scale_amax) == ours).all()


def test_nvfp4_is_what_ml_dtypes_gives() -> None:
    x = numbers(200)
    encoded = encode(torch.from_numpy(x), "nvfp4")
    f = np.float32
    gamma = np.abs(x).max() / f(6 * 448)
    blocks = x.reshape(200, 4, 16)
    scales = (np.abs(blocks).max(2) / f(6) / gamma).astype(ml_dtypes.float8_e4m3fn)
    step = scales.astype(f) * gamma
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = np.where(step[:, :, None] == 0, np.sign(blocks) * f(0), blocks / step[:, :, None])
    elements = np.clip(scaled, -6, 6).astype(ml_dtypes.float4_e2m1fn)
    assert encoded.gammas() == torch.tensor([gamma])
    stored = encoded.scale_codes()
    assert stored is not None
    assert (stored.numpy() == scales.view(np.uint8)).all()
    values = (elements.astype(f) * scales.astype(f)[:, :, None] * gamma).reshape(200, 64)
    assert (encoded.decode().numpy() == values).all()
    assert ((encoded.codes().numpy() == (elements.view(np.uint8) & 15).reshape(200, 64)) | (values == 0)).all()


def test_fp8_rows_are_what_torch_casts() -> None:
    x = torch.from_numpy(numbers(50))
    for name, dtype in (("fp8-e4m3-channel", torch.float8_e4m3fn), ("fp8-e5m2-channel", torch.float8_e5m2)):
        encoded = encode(x, name, chooser="max")
        highest = torch.finfo(dtype).max
        factors = torch.nan_to_num(torch.tensor(highest) / x.abs().amax(1, keepdim=True), posinf=0.0)
        expected = (x * factors).clamp(-highest, highest).to(dtype)
        assert torch.equal(encoded.codes(), expected.view(torch.uint8))


def test_q4_0_is_byte_for_byte_that_of_gguf() -> None:
    x = numbers(300, 128) * np.float32(2.0**-6)
    encoded = encode(torch.from_numpy(x), "q4_0")
    assert (encoded.buffers["blocks"].numpy() == quants.Q4_0.quantize_rows(x)).all()
    assert (encoded.decode().numpy() == quants.Q4_0.dequantize_rows(encoded.buffers["blocks"].numpy())).all()


def test_q4_k_decodes_as_in_gguf_whatever_the_bytes() -> None:
    from taut.numerics import Encoded, get_format

    bytes_ = np.random.default_rng(0).integers(0, 256, (50, 2 * 144), dtype=np.uint8)
    bytes_[:, [1, 3, 145, 147]] &= 0x3B  # finite float16 scales
    encoded = Encoded(get_format("q4_k"), (50, 512), {"blocks": torch.from_numpy(bytes_)})
    assert (encoded.decode().numpy() == quants.Q4_K.dequantize_rows(bytes_)).all()
    assert torch.equal(encoded.with_codes(encoded.codes()).buffers["blocks"], encoded.buffers["blocks"])


def test_q4_k_is_byte_for_byte_that_of_ggml() -> None:
    # gguf 0.17 reads Q4_K but cannot write it, so the reference is ggml's algorithm in scalar float32 steps.
    x = numbers(6, 256) * np.float32(2.0**-6)
    x[0, :32] = -0.5  # a level vector
    x[1, 32:64] = np.abs(x[1, 32:64]) + 1
    x[2, :32] *= np.float32(1e-4)  # a scale that comes out as 0
    blocks = encode(torch.from_numpy(x), "q4_k").buffers["blocks"].numpy()
    for row in range(6):
        assert (blocks[row] == q4_k_block(x[row])).all()


def q4_k_block(x: np.ndarray) -> np.ndarray:
    f = np.float32
    lines = [fit_line(vector) for vector in x.reshape(8, 32)]
    top = [f(max(0, *(line[place] for line in lines))) for place in (0, 1)]
    sixes = [
        [min(63, int(np.rint(f(63) / top[place] * line[place]))) if top[place] > 0 else 0 for line in lines]
        for place in (0, 1)
    ]
    halves = [np.float16(value / f(63)) for value in top]
    codes = []
    for vector, (_, _, fitted), scale, minimum in zip(x.reshape(8, 32), lines, *sixes, strict=True):
        d, m = f(halves[0]) * f(scale), f(halves[1]) * f(minimum)
        codes.append(np.clip(np.rint((vector + m) / d), 0, 15) if d else fitted)
    packed = np.zeros(12, np.uint8)
    for place, (scale, minimum) in enumerate(zip(*sixes, strict=True)):
        if place < 4:
            packed[place] |= scale
            packed[place + 4] |= minimum
        else:
            packed[place + 4] = (scale & 15) | ((minimum & 15) << 4)
            packed[place - 4] |= (scale >> 4) << 6
            packed[place] |= (minimum >> 4) << 6
    stored = np.array(codes, dtype=np.uint8)
    nibbles = stored[0::2] | (stored[1::2] << 4)
    return np.concatenate([np.array(halves).view(np.uint8), packed, nibbles.flatten()])


def fit_line(x: np.ndarray) -> tuple[np.float32, np.float32, np.ndarray]:
    """Scale, minimum and codes of a vector; every sum runs from the first to the last element."""
    f = np.float32

    def total(terms: np.ndarray) -> np.float32:
        return np.cumsum(terms, dtype=f)[-1]

    weights = np.sqrt(total(x * x) / f(32)) + np.abs(x)
    sum_w, sum_x = total(weights), total(weights * x)
    low, high = min(x.min(), f(0)), x.max()
    if low == high:
        return f(0), -low, np.zeros(32)
    inverse = f(15) / (high - low)
    scale = f(1) / inverse
    best = np.clip(np.rint(inverse * (x - low)), 0, 15).astype(f)
    least = total(weights * (scale * best + low - x) ** 2)
    for step in range(21):
        inverse = (f(-1) + f(0.1) * f(step) + f(15)) / (high - low)
        codes = np.clip(np.rint(inverse * (x - low)), 0, 15).astype(f)
        sum_l, sum_l2, sum_xl = total(weights * codes), total(weights * codes * codes), total(weights * codes * x)
        determinant = sum_w * sum_l2 - sum_l * sum_l
        if determinant > 0:
            new_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant
            new_low = (sum_l2 * sum_x - sum_l * sum_xl) / determinant
            if new_low > 0:
                new_low, new_scale = f(0), sum_xl / sum_l2
            error = total(weights * (new_scale * codes + new_low - x) ** 2)
            if error < least:
                best, least, scale, low = codes, error, new_scale, new_low
    return scale, -low, best
