"""The networks of `quantised_accuracy` with their test data, calibration data and scores."""

from __future__ import annotations

import io
import os
import random
import re
import tarfile
from pathlib import Path

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from benchmarks._accuracy_arms import Forward, Score, Task
from taut.errors import DataError
from taut.graph import capture

_DATA = Path(__file__).parents[2] / "shared" / "data"

_TOKENS_AT_ONCE = 4096
_IMAGES_AT_ONCE = 250
_CALIBRATION_SENTENCES = 513
_CALIBRATION_IMAGES = 256


def sentence_task(quick: bool) -> Task:
    """MiniLM on pairs of sentences; batches hold sentences of one length, so that nothing is padding."""
    os.environ.update(STS_FILES="201[234]/*.tsv", STS_PAIRS="100000")
    from examples import minilm

    network, example, dynamic = minilm.model()
    folder = Path(os.environ.get("STS_DIR", _DATA / "text" / "sts"))
    pairs = minilm.pairs()
    files = [
        f"{file.parent.name}/{file.name}"
        for file in sorted(folder.glob(os.environ["STS_FILES"]))
        for _ in file.open(encoding="utf-8")
    ]
    names = np.unique(files)
    if quick:
        chosen = range(0, len(pairs), 10)
        pairs, files = [pairs[index] for index in chosen], [files[index] for index in chosen]
    sentences = sorted({text for _, *both in pairs for text in both})
    row = {text: index for index, text in enumerate(sentences)}
    first, second = (torch.tensor([row[str(pair[side])] for pair in pairs]) for side in (1, 2))
    labels = np.array([score for score, _, _ in pairs])
    batches = _same_length(minilm, sentences)

    def evaluate(forward: Forward) -> np.ndarray:
        vectors = torch.empty(len(sentences), 384)
        for rows, ids in batches:
            vectors[rows] = _padded_pair(forward, ids)
        return (vectors[first] * vectors[second]).sum(1).double().numpy()

    def pooled(cosines: np.ndarray, chosen: np.ndarray) -> float:
        return 100 * _spearman(cosines[chosen], labels[chosen])

    def by_file(cosines: np.ndarray, chosen: np.ndarray) -> float:
        of = np.array(files)[chosen]
        parts = [chosen[of == name] for name in names]
        return float(np.mean([100 * _spearman(cosines[part], labels[part]) for part in parts if len(part) > 2]))

    calibration = _same_length(minilm, _calibration_sentences())
    inputs = [(ids, torch.ones_like(ids)) for _, ids in calibration if len(ids) > 1]
    graph = capture(network, example, dynamic_shapes=dynamic)
    layers = {name: module for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    metrics: dict[str, Score] = {"pooled": pooled, "mean of files": by_file}
    skip = ("words", "positions", "token_types")
    return Task("minilm", network, graph, layers, inputs, metrics, len(pairs), evaluate, skip)


def image_task(name: str, quick: bool) -> Task:
    """A residual network on test images, batch norm folded."""
    from examples import resnet20, resnet56

    os.environ["CIFAR10_IMAGES"] = "1000" if quick else "10000"
    example = resnet20 if name == "resnet20" else resnet56
    network = _folded(example.model())
    given = example.data()
    images, labels = given["inputs"][0], np.asarray(given["labels"])

    def evaluate(forward: Forward) -> np.ndarray:
        parts = [forward(part).argmax(1) for part in images.split(_IMAGES_AT_ONCE)]
        return (torch.cat(parts).numpy() == labels).astype(np.float64)

    calibration = [(part,) for part in _training_images(_CALIBRATION_IMAGES).split(64)]
    dynamic = {"images": {0: torch.export.Dim("images", min=2, max=4096)}}
    graph = capture(network, calibration[0], dynamic_shapes=dynamic)
    layers = {
        path: module
        for path, module in network.named_modules()
        if isinstance(module, nn.Conv2d) and module.in_channels >= 16
    }

    def accuracy(right: np.ndarray, chosen: np.ndarray) -> float:
        return 100 * float(right[chosen].mean())

    return Task(name, network, graph, layers, calibration, {"accuracy": accuracy}, len(images), evaluate, ("linear",))


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(stats.rankdata(a), stats.rankdata(b))[0, 1])


def _padded_pair(forward: Forward, ids: Tensor) -> Tensor:
    """The vectors of sentences; a single one is doubled, as the captured graph takes two or more."""
    whole = ids if len(ids) > 1 else ids.expand(2, -1).contiguous()
    return forward(whole, torch.ones_like(whole))[: len(ids)]


def _same_length(minilm, sentences: list[str]) -> list[tuple[list[int], Tensor]]:
    tokens = [encoding.ids for encoding in minilm._tokenizer().encode_batch(sentences)]
    groups: dict[int, list[int]] = {}
    for index, ids in enumerate(tokens):
        groups.setdefault(len(ids), []).append(index)
    batches = []
    for length, group in sorted(groups.items()):
        size = max(2, _TOKENS_AT_ONCE // length)
        batches += [group[start : start + size] for start in range(0, len(group), size)]
    return [(rows, torch.tensor([tokens[row] for row in rows])) for rows in batches]


def _calibration_sentences() -> list[str]:
    """Equal shares of encyclopaedia, newspaper and laptop reviews: one kind of text alone shifts cosines of others."""
    texts = {}
    for name in ("wikitext2/valid.txt", "ptb/ptb.valid.txt", "trees/train.txt"):
        path = _DATA / "text" / name
        if not path.is_file():
            raise DataError(f"no calibration text at {path}", fix="put the data set's file there")
        texts[name] = path.read_text(encoding="utf-8")
    wikitext, treebank, reviews = texts.values()
    kinds = (
        [f"{part.strip()} ." for part in wikitext.replace("\n", " ").split(" . ") if "=" not in part],
        [line.strip() for line in treebank.splitlines() if " N" not in line],
        [" ".join(re.findall(r"[^\s()]+", line)[1:]) for line in reviews.splitlines()],  # of trees in brackets
    )
    draw = random.Random(0)
    found = []
    for kind in kinds:
        usable = [_written(text) for text in kind if 20 < len(text) < 200 and "<unk>" not in text]
        found += draw.sample(usable, _CALIBRATION_SENTENCES // len(kinds))
    return found


def _written(text: str) -> str:
    """Tokenised text with its punctuation where writers put it."""
    text = re.sub(r" @([-,.])@ ", r"\1", text).replace(" n't", "n't").replace(" 's", "'s")
    return re.sub(r" ([.,;:!?)])", r"\1", text).replace("( ", "(")


def _training_images(count: int) -> Tensor:
    from PIL import Image

    with tarfile.open(Path(os.environ.get("CIFAR10_ARCHIVE", _DATA / "cifar10-jpeg.tar.gz"))) as archive:
        members = sorted(item.name for item in archive if item.name.startswith("train/") and item.isfile())
        chosen = set(random.Random(0).sample(members, count))
        found = []
        for item in archive:
            content = archive.extractfile(item) if item.name in chosen else None
            if content is not None:
                found.append(np.array(Image.open(io.BytesIO(content.read())).convert("RGB")))
    pixels = torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).float() / 255
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return ((pixels - mean[:, None, None]) / deviation[:, None, None]).contiguous()


def _folded(network: nn.Module) -> nn.Module:
    """The network with each batch norm in the convolution before it."""
    for module in network.modules():
        for index in ("1", "2"):
            convolution, norm = getattr(module, f"conv{index}", None), getattr(module, f"bn{index}", None)
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, f"conv{index}", fuse_conv_bn_eval(convolution, norm))
                setattr(module, f"bn{index}", nn.Identity())
    return network.eval().requires_grad_(False)
