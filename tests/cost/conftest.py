import pytest

from taut.cost import Peaks, Rate

KIB, MIB = 1024, 1024 * 1024


@pytest.fixture
def peaks():
    """Round figures of no real host."""
    return Peaks(
        threads=1,
        flops={"fp32": 1e12, "bf16": 2e12, "int8": 4e12},
        bandwidth={"l1": 1e12, "l2": 5e11, "l3": 2e11, "dram": 5e10},
        cache_bytes={"l1": 32 * KIB, "l2": 1 * MIB, "l3": 32 * MIB},
        dispatch={"interpreter": 1e-6, "eager": 2e-6},
        rates={
            "linear.fp32": Rate(3e-6, 5e11),
            "linear.int8": Rate(1e-6, 2e12),
            "pointwise.fp32": Rate(0.5e-6, 1e10),
            "pooling.fp32": Rate(0.0, 1e9),
        },
    )
