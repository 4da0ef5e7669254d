"""`taut inspect` and `taut doctor`: what they print, what they write, what they refuse."""

import importlib.metadata
import json

import pytest
import torch
import typer
from typer.testing import CliRunner

import taut.cli._doctor as doctor_module
import taut.cost._calibrate as calibration
from taut.cli._doctor import doctor, extras, installation_warnings
from taut.cli._inspect import duration, example_inputs, inspect, quantity
from taut.cost import Peaks, Rate
from taut.errors import ArgumentError, StorageError

MODEL = """
import torch

def with_inputs():
    layers = torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4)
    return torch.nn.Sequential(*layers), (torch.ones(3, 16),), ({0: torch.export.Dim("batch", min=2, max=64)},)

def without_inputs():
    return torch.nn.Linear(16, 32)
"""


@pytest.fixture
def host(monkeypatch, tmp_path):
    """A host whose peaks are known, so that nothing is calibrated; a cache and a folder of its own."""

    def measure(threads: int) -> Peaks:
        return Peaks(
            threads=threads,
            flops={"fp32": 1e11 * threads, "int8": 4e11 * threads},
            bandwidth={"l1": 2e11, "dram": 2e10},
            cache_bytes={"l1": 32768},
            dispatch={"eager": 1e-6, "interpreter": 1e-6},
            rates={"linear.fp32": Rate(1e-6, 8e10)},
        )

    monkeypatch.setattr(calibration, "_measure", measure)
    monkeypatch.setenv("TAUT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "network.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(command, *arguments):
    """Run a command; its error is raised here, its output returned."""
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(command)
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def test_inspect_prints_the_operations_and_totals_within_80_columns(host):
    lines = call(inspect, "network.py:with_inputs", "--threads", "1").stdout.splitlines()
    text = "\n".join(lines)
    assert "3 operations, 1 thread(s), s0=3" in text
    assert text.index("linear 3x32") > text.index("measured")
    assert max(map(len, lines)) <= 80
    (total,) = (line for line in lines if line.strip().startswith("total"))
    assert "1.92k" in total  # 3 * 16 * 32 + 3 * 32 * 4 multiply-adds
    assert "676" in total  # 16 * 32 + 32 + 32 * 4 + 4 parameters


def test_inspect_shows_the_slowest_and_counts_the_others(host):
    text = call(inspect, "network.py:with_inputs", "--top", "1").stdout
    assert "2 faster operations are not shown" in text


def test_inspect_writes_every_operation_as_json(host):
    call(inspect, "network.py:with_inputs", "--top", "1", "--threads", "1", "--json", "out.json")
    document = json.loads((host / "out.json").read_text())
    assert [row["op"] for row in document["operations"]] == [
        "aten.linear.default",
        "aten.relu.default",
        "aten.linear.default",
    ]
    first = document["operations"][0]
    assert first["outputs"] == [{"shape": [3, 32], "dtype": "float32"}]
    assert (first["macs"], first["parameters"], first["module_path"]) == (3 * 16 * 32, 16 * 32 + 32, "0")
    assert first["bytes"] == 4 * (3 * 16 + 16 * 32 + 32 + 3 * 32)
    assert first["bound"] in ("compute", "memory", "overhead")
    assert sum(row["share"] for row in document["operations"]) == pytest.approx(1.0)
    assert document["sizes"] == {"s0": 3}
    for name in ("macs", "measured_seconds", "modelled_seconds"):
        assert document["totals"][name] == pytest.approx(sum(row[name] for row in document["operations"]))


def test_json_on_standard_output_stands_there_alone(host):
    result = call(inspect, "network.py:with_inputs", "--json", "-")
    assert json.loads(result.stdout)["model"] == "network-with_inputs"
    assert "operations" in result.stderr


def test_a_file_in_the_way_is_refused_before_any_work(host):
    (host / "out.json").write_text("precious")
    with pytest.raises(ArgumentError, match="--json"):
        call(inspect, "no such model", "--json", "out.json")
    assert (host / "out.json").read_text() == "precious"


def test_a_model_without_example_inputs_asks_for_a_shape(host):
    with pytest.raises(ArgumentError, match="--shape") as raised:
        call(inspect, "network.py:without_inputs")
    assert "--shape 1x3x224x224" in str(raised.value)
    assert "linear 5x32" in call(inspect, "network.py:without_inputs", "--shape", "5x16").stdout


def test_shapes_take_type_and_range_from_the_example():
    example = (torch.tensor([[0, 7]]), torch.ones(1, 2))
    ids, floats = example_inputs(example, ["4x9", "3:bfloat16"])
    assert (ids.shape, ids.dtype, floats.shape, floats.dtype) == ((4, 9), torch.int64, (3,), torch.bfloat16)
    assert 0 <= int(ids.min()) <= int(ids.max()) <= 7
    assert example_inputs(example, []) is example
    (number,) = example_inputs(None, ["scalar:int32"])
    assert (number.shape, number.dtype) == ((), torch.int32)


@pytest.mark.parametrize("text", ["", "3x", "3,4", "axb", "3x4:float31", "3x4:nn", "-1x2"])
def test_a_shape_that_cannot_be_read_is_refused(text):
    with pytest.raises(ArgumentError, match="--shape"):
        example_inputs(None, [text])


def test_each_input_needs_its_shape():
    with pytest.raises(ArgumentError, match="--shape") as raised:
        example_inputs((torch.ones(1), torch.ones(1)), ["3"])
    assert "2 shapes" in str(raised.value)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "."), (7, "7"), (999, "999"), (1000, "1k"), (1234, "1.23k"), (999_999, "1M"), (2.5e9, "2.5G"), (3e12, "3T")],
)
def test_counts_fit_five_characters(value, text):
    assert quantity(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0, "0 us"), (1.234e-6, "1.23 us"), (9.999e-4, "1 ms"), (0.25, "250 ms"), (1.5, "1.5 s")]
)
def test_durations_have_a_fitting_unit(seconds, text):
    assert duration(seconds) == text


REQUIREMENTS = [
    "torch<2.14,>=2.13",
    "numpy>=2.0",
    'scikit-learn>=1.5; extra == "demo"',
    'mkdocs<2,>=1.6; extra == "docs"',
    'mkdocstrings[python]>=0.29; extra == "docs"',
    'taut[demo,docs]; extra == "dev"',
    'pytest>=8.3; extra == "dev"',
]


def test_an_extra_lists_what_it_lacks_through_the_extras_that_it_includes():
    found = {row["name"]: row["missing"] for row in extras(REQUIREMENTS, {"mkdocs": "1.6", "pytest": "9.0"})}
    assert found == {
        "demo": ["scikit-learn"],
        "docs": ["mkdocstrings"],
        "dev": ["mkdocstrings", "scikit-learn"],
    }


@pytest.mark.parametrize(
    ("torch_version", "fits"),
    [("2.13.0", True), ("2.13.0+cpu", True), ("2.13.7", True), ("2.14.0", False), ("2.12.1", False), ("3.0", False)],
)
def test_a_torch_that_does_not_fit_is_reported(torch_version, fits):
    found = installation_warnings({"torch": torch_version, "numpy": "2.4.1"}, REQUIREMENTS)
    assert [warning.split(" ")[0] for warning in found] == ([] if fits else ["torch"])


@pytest.mark.parametrize("name", ["nvidia-cublas-cu12", "cuda-bindings", "triton", "pytorch-triton", "cupy-cuda12x"])
def test_cuda_packages_are_reported(name):
    (warning,) = installation_warnings({"torch": "2.13.0", name: "1.0"}, REQUIREMENTS)
    assert name in warning


@pytest.mark.parametrize("name", ["barracuda", "tritonclient", "nvidious"])
def test_packages_with_similar_names_are_not_reported(name):
    assert installation_warnings({"torch": "2.13.0", name: "1.0"}, REQUIREMENTS) == []


def test_doctor_prints_the_findings_within_80_columns(host):
    lines = call(doctor).stdout.splitlines()
    text = "\n".join(lines)
    assert max(map(len, lines)) <= 80
    for expected in ("int8 Gop/s", "DRAM GB/s", "linear.fp32", "scalar"):
        assert expected in text


def test_doctor_writes_its_findings_as_json(host):
    findings = json.loads(call(doctor, "--json", "-").stdout)
    assert findings["versions"]["torch"] == importlib.metadata.version("torch")
    assert [entry["threads"] for entry in findings["peaks"]] == sorted({1, torch.get_num_threads()})
    assert findings["isa"]["active"] in findings["isa"]["available"]
    assert {"demo", "dev", "docs"} <= {extra["name"] for extra in findings["extras"]}


def test_doctor_reports_a_cache_that_cannot_be_written_instead_of_failing(host, monkeypatch):
    (host / "cache").write_text("in the way")
    text = " ".join(call(doctor).stdout.split())
    assert "warning the peaks could not be kept" in text


def test_doctor_reports_what_spoils_the_environment(host, monkeypatch):
    monkeypatch.setattr(doctor_module, "_installed", lambda: {"torch": "2.13.0", "nvidia-nccl-cu12": "2.0"})
    assert "nvidia-nccl-cu12" in call(doctor).stdout


def test_json_in_a_missing_folder_is_a_storage_error(host):
    with pytest.raises(StorageError, match="absent"):
        call(doctor, "--json", "absent/out.json")
