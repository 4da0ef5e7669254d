"""A realistic report: an encoder with twelve candidates, two-line reasons and long module paths."""

from __future__ import annotations

from taut.optimize._report import (
    Baseline,
    Candidate,
    Comparison,
    DataSummary,
    Interval,
    Layer,
    Metric,
    ModelSummary,
    OperatorTime,
    Quality,
    Recipe,
    RecipeStep,
    Report,
    SizeBytes,
    Verdict,
)


def comparison(
    ratio: float, low: float, high: float, verdict: Verdict, *, baseline_seconds: float = 0.0123
) -> Comparison:
    return Comparison(
        ratio=ratio,
        low=low,
        high=high,
        confidence=0.95,
        verdict=verdict,
        pairs=48,
        baseline_seconds=baseline_seconds,
        candidate_seconds=baseline_seconds / ratio,
        clock="wall",
    )


def quality(candidate: float, low: float, high: float, *, within_limit: bool = True) -> Quality:
    return Quality(
        baseline=0.82031,
        candidate=candidate,
        change=Interval(low=low, high=high, confidence=0.95),
        within_limit=within_limit,
    )


def candidates() -> list[Candidate]:
    same = quality(0.82031, -0.0001, 0.0001)
    return [
        Candidate(
            name="threads",
            title="Thread count",
            options={"threads": 2},
            status="kept",
            reason="1.71 times faster on 2 threads than on 1, interval 1.66 to 1.76.",
            predicted=1.9,
            comparison=comparison(1.71, 1.66, 1.76, "faster", baseline_seconds=0.0211).model_copy(
                update={"baseline_threads": 1, "candidate_threads": 2}
            ),
            quality=same,
            change_summary="2 intra-operator threads",
        ),
        Candidate(
            name="int8_linear",
            title="int8 linear layers",
            options={
                "minimum_macs": 65536,
                "activation": "per_token",
                "skip": ["encoder.layer.0.attention.self.query"],
            },
            on_top_of=("threads",),
            status="kept",
            reason="1.92 times faster, interval 1.86 to 1.98; the quality change of −0.0014 lies within the limit "
            "of 0.0041.",
            predicted=2.6,
            comparison=comparison(1.92, 1.86, 1.98, "faster"),
            quality=quality(0.8189, -0.0035, 0.0006),
            change_summary="35 of 36 linear layers; 81 % of the MACs",
        ),
        Candidate(
            name="fold",
            title="Fold BatchNorm and linear chains",
            status="not_applicable",
            reason="The graph holds no BatchNorm and no two linear layers without a non-linearity between them.",
        ),
        Candidate(
            name="channels_last",
            title="Channels-last layout",
            status="not_applicable",
            reason="No convolution in the graph.",
        ),
        Candidate(
            name="bf16",
            title="bfloat16",
            on_top_of=("threads",),
            status="rejected",
            reason="0.83 times the speed, interval 0.81 to 0.85: the conversions around 74 layer norms and softmaxes "
            "cost more than the products save at this sequence length.",
            predicted=1.6,
            comparison=comparison(0.83, 0.81, 0.85, "slower"),
            quality=quality(0.8199, -0.0009, 0.0002),
            change_summary="112 of 148 nodes",
        ),
        Candidate(
            name="int8_linear",
            title="int8 linear layers, per-tensor activations",
            options={"activation": "per_tensor"},
            on_top_of=("threads",),
            status="rejected",
            reason="Quality fell by 0.0311 (interval −0.0398 to −0.0224), past the limit of 0.0041, though it is "
            "1.97 times faster.",
            predicted=2.7,
            comparison=comparison(1.97, 1.90, 2.04, "faster"),
            quality=quality(0.7892, -0.0398, -0.0224, within_limit=False),
            change_summary="36 of 36 linear layers",
        ),
        Candidate(
            name="fuse_attention",
            title="Fused attention",
            on_top_of=("threads", "int8_linear"),
            status="rejected",
            reason="No evidence: the interval 0.988 to 1.009 holds 1 after 120 pairs, and the budget for it was spent.",
            predicted=1.05,
            comparison=comparison(0.999, 0.988, 1.009, "no evidence", baseline_seconds=0.0064),
            quality=same,
        ),
        Candidate(
            name="bf16",
            title="bfloat16 for what is left",
            options={"only": "matmul"},
            on_top_of=("threads", "int8_linear"),
            status="rejected",
            reason="0.97 times the speed, interval 0.96 to 0.99.",
            predicted=1.12,
            comparison=comparison(0.972, 0.958, 0.986, "slower", baseline_seconds=0.0064),
            quality=quality(0.8187, -0.0038, 0.0006),
        ),
        Candidate(
            name="torch_compile",
            title="torch.compile",
            options={"mode": "max-autotune-no-cudagraphs", "dynamic": True},
            on_top_of=("threads",),
            status="peer",
            reason="Measured as a peer: the bundle cannot hold compiled code.",
            comparison=comparison(1.24, 1.19, 1.29, "faster"),
            quality=same,
        ),
        Candidate(
            name="prune_heads",
            title="Prune attention heads",
            options={"fraction": 0.25},
            on_top_of=("threads", "int8_linear"),
            status="rejected",
            reason="The quality check refused it before timing: 0.6120 against 0.8203.",
            predicted=1.08,
            quality=quality(0.612, -0.23, -0.18, within_limit=False),
        ),
        Candidate(
            name="low_rank",
            title="Low-rank linear layers",
            options={"rank": 96},
            on_top_of=("threads", "int8_linear"),
            status="not_tried",
            reason="The budget of 300 s was spent; predicted gain 1.03 was the smallest left.",
            predicted=1.03,
        ),
        Candidate(
            name="embedding_int8",
            title="int8 embedding table",
            status="not_tried",
            reason="Its goal is size; this job's goal is latency.",
            predicted=1.0,
        ),
    ]


def operators() -> list[OperatorTime]:
    rows: list[OperatorTime] = []
    for layer in range(6):
        path = f"encoder.layer.{layer}"
        rows += [
            OperatorTime(
                module_path=f"{path}.intermediate.dense", op="linear", before_seconds=6.1e-4, after_seconds=2.2e-4
            ),
            OperatorTime(module_path=f"{path}.intermediate.intermediate_act_fn", op="gelu", before_seconds=1.9e-4),
            OperatorTime(module_path=f"{path}.output.dense", op="linear", before_seconds=6.4e-4, after_seconds=2.4e-4),
            OperatorTime(
                module_path=f"{path}.attention.self",
                op="scaled_dot_product_attention",
                before_seconds=2.1e-4,
                after_seconds=2.2e-4,
            ),
            OperatorTime(
                module_path=f"{path}.attention.output.LayerNorm",
                op="layer_norm",
                before_seconds=3.1e-5,
                after_seconds=3.0e-5,
            ),
        ]
        rows += [
            OperatorTime(
                module_path=f"{path}.attention.self.{name}", op="linear", before_seconds=1.7e-4, after_seconds=8.1e-5
            )
            for name in ("query", "key", "value")
        ]
    return rows


def layers() -> tuple[Layer, ...]:
    rows = [
        Layer(
            path=f"encoder.layer.{index}.attention.self.query",
            kind="linear",
            format="vsq4-v16-s4",
            runs="kernel",
            elements=147_456,
            bytes_before=589_824,
            bytes_after=79_872,
            sqnr_db=21.3,
            error=3.1e-5,
        )
        for index in range(6)
    ]
    table = Layer(
        path="embeddings.word_embeddings",
        kind="embedding",
        format="float32",
        runs="unchanged",
        elements=11_720_448,
        bytes_before=46_881_792,
        bytes_after=46_881_792,
    )
    return (table, *rows)


def size_report(**changes: object) -> Report:
    """The sample as `taut quantize` would write it."""
    headline = comparison(0.8, 0.79, 0.81, "slower").model_copy(update={"baseline_threads": 1, "candidate_threads": 2})
    return sample_report(**{"job": "quantize", "goal": "size", "layers": layers(), "headline": headline, **changes})


def sample_report(**changes: object) -> Report:
    """The sample, with fields replaced by `changes`."""
    report = Report(
        taut_version="0.1.0",
        created="2026-11-21T09:30:00+00:00",
        status="complete",
        model=ModelSummary(
            name="all-MiniLM-L6-v2 encoder",
            source="examples/sentence_encoder/minilm.py:build_encoder",
            parameters=22_713_216,
            nodes=148,
            macs=1_359_000_000,
        ),
        goal="latency",
        max_drop=0.005,
        budget_seconds=300.0,
        spent_seconds=287.4,
        data=DataSummary(samples=1379, batches=87, source="sts-benchmark/test.csv"),
        metric=Metric(
            name="Spearman correlation",
            higher_is_better=True,
            baseline=0.82031,
            final=0.8189,
            change=Interval(low=-0.0035, high=0.0006, confidence=0.95),
        ),
        baselines=(
            Baseline(threads=1, seconds_per_call=0.0211),
            Baseline(threads=2, seconds_per_call=0.0123, chosen=True),
            Baseline(threads=4, seconds_per_call=0.0139),
        ),
        headline=comparison(1.92, 1.86, 1.98, "faster").model_copy(
            update={"baseline_threads": 2, "candidate_threads": 2}
        ),
        size_bytes=SizeBytes(before=90_852_864, after=58_912_000),
        candidates=tuple(candidates()),
        operators=tuple(operators()),
        host={
            "cpu": "AMD EPYC 9R45, Zen 5",
            "logical_cores": 2,
            "isa": ["avx2", "avx512f", "avx512_vnni", "avx512_bf16"],
            "memory_bytes": 25_769_803_776,
            "versions": {"python": "3.11.9", "torch": "2.13.0+cpu", "numpy": "2.3.1"},
            "turbo": None,
            "load_average": 0.42,
        },
        quietness={"quiet": False, "spread": 0.013, "reason": "load average 0.42 at the start"},
        warnings=("The machine was not quiet: another process took 11 % of a core during the measurements.",),
        recipe=Recipe(
            steps=(
                RecipeStep(name="threads", options={"threads": 2}),
                RecipeStep(name="int8_linear", options={"activation": "per_token"}),
            ),
            threads=2,
            command="taut optimize examples/sentence_encoder/minilm.py:build_encoder "
            "--data sts-benchmark/test.csv --recipe recipe.yaml",
        ),
    )
    return Report.model_validate(report.model_dump() | changes)


def bare_report(**changes: object) -> Report:
    """A report in which everything optional is missing."""
    required: dict[str, object] = {
        "taut_version": "0.1.0",
        "created": "2026-11-21T09:30:00+00:00",
        "status": "complete",
        "model": ModelSummary(name="net", source="net.py:build"),
        "goal": "latency",
    }
    return Report.model_validate(required | changes)
