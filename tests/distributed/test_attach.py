"""Trainings over Gloo, in processes: `attach` on DistributedDataParallel and on sharded modules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from processes import run_processes
from scenarios import STEPS, run, same
from test_compressors import EVERY, named
from training import batches, loss_of, network, optimiser, parameters, train_each

from taut.distributed import (
    BFloat16,
    Compressor,
    Float16,
    Gradient,
    LocalCommunicator,
    Memory,
    SparseAllReduce,
    Threshold,
    TopK,
    attach,
    run_ranks,
)
from taut.errors import ArgumentError

RESUMED = ("TopK", "RandomK", "PowerSGD", "SparseAllReduce")


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.slow)])
def ranks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[dict[str, Any]]]:
    """What each rank has found, but for the last, which is killed at the end and tells nothing."""
    size: int = request.param
    found = run_processes(size, run, tmp_path_factory.mktemp("ranks"), size, EVERY, True)
    assert found[-1] is None
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield found[:-1]
    torch.set_num_threads(threads)


def reference(size: int, step: Callable[[Gradient, LocalCommunicator, Memory], None]) -> dict[str, torch.Tensor]:
    """The same training without DistributedDataParallel, on threads; `step` exchanges one gradient."""

    def work(communicator: LocalCommunicator) -> dict[str, torch.Tensor]:
        memory: Memory = {}
        model = models[communicator.rank]
        descent = optimiser(model)
        for batch in batches(communicator.rank, STEPS):
            descent.zero_grad()
            loss_of(model(batch)).backward()
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    assert parameter.grad is not None
                    step(Gradient(name, parameter.grad), communicator, memory)
            descent.step()
        return parameters(model)

    models = [network() for _ in range(size)]
    return run_ranks(size, work)[0]


@pytest.mark.parametrize("compressor", [c for c in EVERY if not isinstance(c, SparseAllReduce)], ids=named)
def test_training_is_that_of_the_compressor_alone(compressor: Compressor, ranks: list[dict[str, Any]]) -> None:
    """Buckets, their change after the first step, the thread and Gloo leave no trace."""
    size = len(ranks) + 1
    if size > 2 and isinstance(compressor, Threshold):
        pytest.skip("Gloo adds up in another order, and an estimate near an entry falls on either side of it")
    expected = reference(size, lambda gradient, c, memory: compressor.exchange([gradient], c, memory))
    trained = ranks[0]["every"][repr(compressor)]["parameters"]
    for name, tensor in expected.items():
        if size == 2:
            assert torch.equal(trained[name], tensor)
        elif isinstance(compressor, Float16 | BFloat16):  # Gloo adds up in another order, and in 16 bits
            torch.testing.assert_close(trained[name], tensor, rtol=0.02, atol=1e-3)
        else:
            torch.testing.assert_close(trained[name], tensor)


def test_top_k_by_hand(ranks: list[dict[str, Any]]) -> None:
    residuals: dict[tuple[int, str], torch.Tensor] = {}

    def step(gradient: Gradient, communicator: LocalCommunicator, memory: Memory) -> None:
        key = (communicator.rank, gradient.name)
        whole = (residuals.get(key, 0) + gradient.tensor).flatten()
        kept = max(1, round(0.1 * whole.numel()))
        mask = torch.zeros_like(whole).index_fill(0, whole.abs().topk(kept).indices, 1)
        residuals[key] = (whole * (1 - mask)).view(gradient.tensor.shape)
        sent = whole * mask / communicator.size
        communicator.all_reduce(sent)
        gradient.tensor.copy_(sent.view(gradient.tensor.shape))

    trained = ranks[0]["every"][repr(TopK(0.1))]["parameters"]
    for name, tensor in reference(len(ranks) + 1, step).items():
        torch.testing.assert_close(trained[name], tensor)


def test_ranks_end_with_the_same_bits(ranks: list[dict[str, Any]]) -> None:
    for found in ranks[1:]:
        for name, trained in ranks[0]["every"].items():
            assert same(trained["parameters"], found["every"][name]["parameters"]), name
        for name in ("plain", "uneven"):
            assert same(ranks[0][name], found[name])
        assert same(ranks[0]["levels"]["parameters"], found["levels"]["parameters"])


def test_without_compression_it_is_plain_data_parallel(ranks: list[dict[str, Any]]) -> None:
    assert same(ranks[0]["every"]["NoCompression()"]["parameters"], ranks[0]["plain"])


def test_float16_is_the_hook_of_torch(ranks: list[dict[str, Any]]) -> None:
    assert same(ranks[0]["every"]["Float16()"]["parameters"], ranks[0]["torch float16"])


def test_statistics_count_what_was_sent(ranks: list[dict[str, Any]]) -> None:
    size = len(ranks) + 1
    shapes = [parameter.shape for parameter in network().parameters()]
    elements = sum(shape.numel() for shape in shapes)
    for compressor in EVERY[:3]:
        statistics = ranks[0]["every"][repr(compressor)]["statistics"]
        assert statistics.steps == STEPS
        assert statistics.sent_per_step == pytest.approx(compressor.traffic(shapes, size).sent(size))
        assert statistics.dense == pytest.approx(STEPS * 2 * (size - 1) / size * 4 * elements)
    assert ranks[0]["every"]["Float16()"]["statistics"].ratio == pytest.approx(0.5)


def test_memory_is_kept_by_parameter(ranks: list[dict[str, Any]]) -> None:
    memory = ranks[0]["every"][repr(TopK(0.1))]["memory"]
    assert {name: kept["residual"].shape for name, kept in memory.items()} == {
        name: parameter.shape for name, parameter in network().named_parameters()
    }


def test_bfloat16_gradients_have_float32_residuals(ranks: list[dict[str, Any]]) -> None:
    found = ranks[0]["bfloat16 gradients"]
    assert {parameter.dtype for parameter in found["parameters"].values()} == {torch.bfloat16}
    assert {kept["residual"].dtype for kept in found["memory"].values()} == {torch.float32}


def test_nothing_is_lost_for_parameters_that_are_not_always_used(ranks: list[dict[str, Any]]) -> None:
    found = ranks[0]["unused"]
    assert found["names"] == ["even.bias", "even.weight", "trunk.bias", "trunk.weight"]
    for name, total in found["given"].items():
        torch.testing.assert_close(found["kept"][name], total)


@pytest.mark.parametrize("name", ["gradient_as_bucket_view", "static_graph"])
def test_options_of_data_parallel_change_nothing(name: str, ranks: list[dict[str, Any]]) -> None:
    assert same(ranks[0]["options"][name], ranks[0]["every"][repr(TopK(0.1))]["parameters"])


def test_channels_last_weights_stay_so_and_ranks_agree(ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        for layout, trained in found["channels last"].items():
            assert same(trained, ranks[0]["channels last"][layout])
    weight = ranks[0]["channels last"]["torch.channels_last"]["1.weight"]
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_accumulated_steps_are_exchanged_once(ranks: list[dict[str, Any]]) -> None:
    found = ranks[0]["accumulation"]
    for name, tensor in found["apart"].items():
        torch.testing.assert_close(tensor, found["joint"][name])


@pytest.mark.parametrize("place", range(4), ids=RESUMED)
def test_a_run_taken_up_from_a_checkpoint_has_the_same_bits(place: int, ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        name, runs = list(found["resumed"].items())[place]
        assert name.startswith(RESUMED[place])
        assert same(runs["through"], runs["again"])


def test_a_warm_up_goes_on_from_a_checkpoint(ranks: list[dict[str, Any]]) -> None:
    assert same(ranks[0]["resumed deep"]["through"], ranks[0]["resumed deep"]["again"])


def test_rank_zero_decides_on_levels(ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        decided = found["levels"]["decided"]
        assert [epoch["0.weight"] for epoch in decided] == [0, 1, 0]
        assert [epoch["2.weight"] for epoch in decided] == [1, 1, 1]
        assert found["levels"]["seen"] == sorted(name for name, _ in network().named_parameters())
        assert found["levels"]["memory"]["2.weight"]["right factor"].shape[1] == 1
        assert found["levels"]["memory"]["4.weight"]["right factor"].shape[1] == 3


def test_a_decision_that_does_not_fit_is_an_error_on_all_ranks(ranks: list[dict[str, Any]]) -> None:
    kinds = [found["levels"]["returned"][0][0] for found in ranks]
    assert kinds == ["ArgumentError"] + ["CommunicationError"] * (len(ranks) - 1)


@pytest.mark.parametrize(
    ("case", "kind", "parts"),
    [
        ("twice", "ArgumentError", ["nothing is attached"]),
        ("hooked", "ArgumentError", ["one for life"]),
        ("unwrapped", "ArgumentError", ["Sequential", "DistributedDataParallel"]),
        ("different", "ArgumentError", ["rank 0: TopK(ratio=0.1", "rank 1: TopK(ratio=0.2"]),
        ("different kinds", "ArgumentError", ["rank 0: Float16()", "rank 1: TopK(ratio=0.1"]),
        ("different buckets", "ArgumentError", ["bucket_cap_mb", "rank 0: 0.5, rank 1: 1.5"]),
        ("one refuses", "CommunicationError", ["rank 1 cannot take part", "nothing is attached"]),
        ("no levels", "ArgumentError", ["one compressor"]),
        ("no controller", "ArgumentError", ["a controller"]),
        ("no compressor", "ArgumentError", ["top_k"]),
        ("class", "ArgumentError", ["TopK"]),
        ("complex", "ArgumentError", ["parameter weight", "complex64"]),
        ("in the exchange", "KernelError", ["the kernel refused"]),
        ("in a static graph", "KernelError", ["the kernel refused"]),
    ],
)
def test_errors_say_what_is_wrong(case: str, kind: str, parts: list[str], ranks: list[dict[str, Any]]) -> None:
    raised, text = ranks[0]["errors"][case]
    assert raised == kind
    for part in parts:
        assert part in text


def test_one_rank_trains_as_without_us(ranks: list[dict[str, Any]]) -> None:
    assert ranks[0]["one rank"] == {"sent": 0.0, "same": True}


def test_sharded_modules_train_like_whole_ones(ranks: list[dict[str, Any]]) -> None:
    sharded = ranks[0]["sharded"]
    for name in ("NoCompression()", repr(TopK(1.0))):
        for parameter, tensor in sharded["None"]["parameters"].items():
            torch.testing.assert_close(sharded[name]["parameters"][parameter], tensor)
    for parameter, tensor in sharded["None"]["parameters"].items():
        torch.testing.assert_close(sharded["BFloat16()"]["parameters"][parameter], tensor, rtol=0.05, atol=0.01)
    for name, found in sharded.items():
        if name not in ("None", "refused", "frozen"):
            assert found["statistics"].steps == STEPS
            assert all(tensor.isfinite().all() for tensor in found["parameters"].values())


def test_sharded_modules_send_less_when_compressed(ranks: list[dict[str, Any]]) -> None:
    sharded = ranks[0]["sharded"]
    assert sharded["Float16()"]["statistics"].ratio == pytest.approx(0.5, rel=0.1)
    assert sharded[repr(TopK(0.2))]["statistics"].ratio == pytest.approx(0.4, rel=0.3)


def test_what_is_frozen_does_not_travel_and_the_state_of_the_rest_fits(ranks: list[dict[str, Any]]) -> None:
    found = ranks[0]["sharded"]["frozen"]
    assert found["steps"] == 3
    assert list(found["kept"]) == ["(root)"]
    assert found["elements"] <= found["kept"]["(root)"] < found["elements"] + 64  # padded to equal shards


def test_low_rank_is_refused_on_shards_with_the_reason(ranks: list[dict[str, Any]]) -> None:
    kind, text = ranks[0]["sharded"]["refused"]
    assert kind == "ArgumentError"
    assert "flat shards" in text
    assert "DistributedDataParallel" in text


def test_a_killed_rank_is_an_error_on_the_others(ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        kind, text = found["killed"]
        assert kind == "CommunicationError"
        assert "checkpoint" in text


def test_a_module_that_is_not_wrapped_is_refused_without_a_process_group() -> None:
    with pytest.raises(ArgumentError, match="Sequential"):
        attach(network(), TopK(0.1))


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return run_processes(2, train_each, tmp_path_factory.mktemp("long"), EVERY, 1000)


@pytest.mark.slow
@pytest.mark.parametrize("compressor", EVERY, ids=named)
def test_a_thousand_steps(compressor: Compressor, long: list[dict[str, Any]]) -> None:
    first, second = (found[repr(compressor)] for found in long)
    assert same(first["parameters"], second["parameters"])
    assert first["statistics"].steps == 1000
    assert first["loss"] < 0.5  # 1.1 before
