"""Training the float weights for their formats: the quantised graph comes closer, and nothing else changes."""

import pytest
import torch
from by_hand import normal, sentences

from taut.errors import ArgumentError, DataError
from taut.graph import Interpreter
from taut.transform import fine_tune, get_pass, measure_sensitivity

BATCHES = [sentences(5, 11), sentences(4, 12)]


def error(graph, reference, batches, **options):
    """Squared error over squared size of the outputs once the graph is quantised."""
    after = Interpreter(get_pass("quantise").apply(graph, **options).graph)
    wanted = [Interpreter(reference)(*batch).double() for batch in batches]
    noise = sum(
        float((after(*batch).double() - want).square().sum()) for batch, want in zip(batches, wanted, strict=True)
    )
    return noise / sum(float(want.square().sum()) for want in wanted)


@pytest.mark.parametrize("scheme", ["int3-channel", "vsq-w3a8-v16"])
def test_an_encoder_comes_closer_than_rounding_alone(encoder, scheme):
    made = fine_tune(encoder, BATCHES, scheme, steps=25)
    assert made.before == pytest.approx(error(encoder, encoder, BATCHES, scheme=scheme))
    assert made.after == pytest.approx(error(made.graph, encoder, BATCHES, scheme=scheme))
    assert made.after < made.before / 2
    assert len(made.losses) == 25
    unseen = [sentences(6, 10)]
    assert error(made.graph, encoder, unseen, scheme=scheme) < error(encoder, encoder, unseen, scheme=scheme)


def test_the_codes_that_were_trained_are_those_that_are_stored(residual):
    """The last loss is taken before the last step, which the schedule makes tiny."""
    made = fine_tune(residual, [(normal(8, 3, 16, 16),)], "int3-channel", minimum_features=8, steps=20)
    assert made.after == pytest.approx(made.losses[-1], rel=0.2)
    assert made.after < made.before / 2


def test_only_the_named_weights_change(encoder):
    options = {"scheme": "float32", "layers": ["up=int3-channel"]}
    made = fine_tune(encoder, BATCHES, "float32", layers=options["layers"], steps=10)
    before, after = (
        {str(node.args[1]): graph.constants[str(node.args[0])] for node in graph.nodes if node.op == "constant"}
        for graph in (encoder, made.graph)
    )
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"up.weight"}
    assert not any(tensor.requires_grad for tensor in made.graph.constants.values())
    table = measure_sensitivity(made.graph, BATCHES, ["int3-channel"], skip=["query", "key", "value", "out", "down"])
    assert next(e.error for e in table.entries if (e.layer, e.scheme) == ("up", "int3-channel")) < 1e-9


def test_what_does_not_help_is_dropped(encoder):
    made = fine_tune(encoder, BATCHES, "int8-channel", steps=1, learning_rate=1.0)
    assert made.graph is encoder
    assert made.after == made.before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"steps": 0}, "steps"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"scheme": "float32"}, "quantises a linear layer"),
        ({"scheme": "int3-chanel"}, "int3-channel"),
        ({"layers": ["upp=q4_0"]}, r"did you mean up\?"),
    ],
)
def test_wrong_requests_are_named(encoder, options, said):
    with pytest.raises(ArgumentError, match=said):
        fine_tune(encoder, BATCHES, **{"scheme": "int3-channel", **options})


def test_wrong_data_is_named(encoder):
    with pytest.raises(DataError, match="batch 0"):
        fine_tune(encoder, [(normal(3, 9), normal(3, 9))], "int3-channel")
