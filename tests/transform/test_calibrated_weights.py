"""Calibration: exact in float where it only equalises, better outputs after, and the codes found again."""

import pytest
import torch
from by_hand import by_hand, call, normal, sentences, signal_to_noise

from taut.errors import ArgumentError, DataError
from taut.graph import Interpreter
from taut.numerics import convolution_rows, encode
from taut.transform import calibrate, get_pass

QUANTISE = get_pass("quantise")


def linear(features=64):
    """One linear layer on (N, features)."""

    def body(builder, x):
        weight = builder.constant(normal(48, features), "body.weight")
        return call(builder, "aten.linear.default", x, weight, builder.constant(normal(48, seed=1), "body.bias"))

    return by_hand(body, (32, features))


def correlated(features=64, count=8, seed=0):
    """Batches whose features are correlated, and one of which is thirty times the others."""
    mixing = normal(features, features, seed=2) @ torch.diag(torch.linspace(0.02, 1, features))
    batches = [(normal(32, features, seed=seed + 10 + index) @ mixing,) for index in range(count)]
    for (x,) in batches:
        x[:, 5] *= 30
    return batches


def quality(graph, changed, batches):
    """Signal to noise in dB over all batches."""
    both = [(Interpreter(graph)(*batch), Interpreter(changed)(*batch)) for batch in batches]
    return signal_to_noise(torch.cat([left for left, _ in both]), torch.cat([right for _, right in both]))


def constants(graph, part):
    named = [node for node in graph.nodes if node.op == "constant" and part in str(node.args[1])]
    return {str(node.args[1]): graph.constants[str(node.args[0])] for node in named}


@pytest.mark.parametrize("scheme", ["vsq-w4a4-v16", "vsq-w4a8-v16", "vsq-w3a8-v16", "poc-w4a8", "vsq4-v16-s4"])
def test_calibration_gains_on_inputs_that_it_did_not_see(scheme):
    graph = linear()
    plain = QUANTISE.apply(graph, scheme=scheme).graph
    calibrated = QUANTISE.apply(calibrate(graph, correlated(), scheme), scheme=scheme).graph
    unseen = correlated(seed=100)
    assert quality(graph, calibrated, unseen) > quality(graph, plain, unseen) + 1


def test_the_pass_finds_the_calibrated_codes_again():
    calibrated = calibrate(linear(), correlated(), "vsq-w4a8-v16")
    (weight,) = constants(calibrated, "body.weight").values()
    assert torch.equal(encode(weight, "vsq4-v16-s4").decode(), weight)


def test_weights_alone_are_not_equalised():
    calibrated = calibrate(linear(), correlated(), "vsq4-v16-s4")
    assert [node.op for node in calibrated.nodes if node.op.startswith("aten")] == ["aten.linear.default"]


def test_eight_bit_layers_on_their_kernel_are_only_equalised():
    """That kernel rounds the float weight itself, so that the calibrated graph stays the float graph."""
    graph, batches = linear(), correlated()
    assert quality(graph, calibrate(graph, batches, "poc-w8a8"), batches) > 100


def test_layers_that_read_one_value_share_its_division(encoder):
    calibrated = calibrate(encoder, [sentences(6, 12), sentences(3, 9)], "vsq-w4a4-v16", skip=["embedding", "position"])
    assert len([node for node in calibrated.nodes if node.op == "aten.linear.default"]) == 6
    assert len(constants(calibrated, ".equalise")) == 4  # query, key and value read the same


def test_convolutions_are_rounded_for_their_windows():
    def body(builder, x):
        return call(
            builder,
            "aten.conv2d.default",
            x,
            builder.constant(normal(24, 20, 3, 3), "body.weight"),
            None,
            (2, 1),
            (1, 1),
            (1, 1),
            1,
        )

    graph = by_hand(body, (8, 20, 9, 7))

    def images(seed):
        return (torch.nn.functional.avg_pool2d(normal(8, 20, 11, 9, seed=seed), 3, 1) * 5,)

    batches = [images(seed) for seed in range(8)]
    calibrated = calibrate(graph, batches, "vsq4-v16-s4")
    (weight,) = constants(calibrated, "body.weight").values()
    rows = convolution_rows(weight)
    assert torch.equal(encode(rows, "vsq4-v16-s4").decode(), rows)
    plain = QUANTISE.apply(graph, scheme="vsq4-v16-s4").graph
    after = QUANTISE.apply(calibrated, scheme="vsq4-v16-s4").graph
    unseen = [images(seed) for seed in range(50, 54)]
    assert quality(graph, after, unseen) > quality(graph, plain, unseen) + 1


def test_bad_calibration_data_is_named():
    graph, scheme = linear(), "vsq-w4a8-v16"
    with pytest.raises(DataError, match="no calibration data"):
        calibrate(graph, [], scheme)
    with pytest.raises(DataError, match="batch 1"):
        calibrate(graph, [(normal(32, 64),), (normal(32, 63),)], scheme)
    with pytest.raises(DataError, match="the input of body holds NaN or infinity"):
        calibrate(graph, [(torch.full((32, 64), torch.inf),)], scheme)
    with pytest.raises(ArgumentError, match="coarse scale a row"):
        calibrate(graph, correlated(), "mxfp4")
    with pytest.raises(ArgumentError, match="did you mean"):
        calibrate(graph, correlated(), "vsq-w4a8-16")


@pytest.mark.parametrize("scheme", ["vsq4-v16-s4", "vsq-w4a8-v16"])
def test_the_bias_makes_good_the_mean_error(scheme):
    """On the calibration data itself the mean output of the rounded layer is that of the float layer."""
    graph = linear()
    batches = [(x + 3,) for (x,) in correlated()]
    calibrated = calibrate(graph, batches, scheme)
    whole = torch.cat([Interpreter(graph)(*batch) for batch in batches])
    after = torch.cat([Interpreter(calibrated)(*batch) for batch in batches])
    assert (whole - after).std() > 0.01
    torch.testing.assert_close(after.mean(0), whole.mean(0), rtol=0, atol=1e-4)


def test_a_convolution_without_bias_gets_one():
    def body(builder, x):
        weight = builder.constant(normal(24, 20, 3, 3), "body.weight")
        return call(builder, "aten.conv2d.default", x, weight, None, (1, 1), (1, 1), (1, 1), 1)

    graph = by_hand(body, (8, 20, 9, 7))
    batch = (normal(8, 20, 9, 7).relu(),)
    after = Interpreter(calibrate(graph, [batch], "vsq4-v16-s4"))(*batch)
    torch.testing.assert_close(after.mean((0, 2, 3)), Interpreter(graph)(*batch).mean((0, 2, 3)), rtol=0, atol=1e-4)
