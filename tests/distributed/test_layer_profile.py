"""Profiles of layers: the published files to the last parameter, and nothing but typed errors for broken ones."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_advice import profile

from taut.distributed import BUCKET_CAPS, Cluster, LayerProfile, explore, read_layer_profiles
from taut.errors import ArgumentError, ArtefactError, TautError, TruncatedError

PROFILES = Path(__file__).parents[2].parent / "shared" / "data" / "schedules" / "deeppool"
SMALL = """
#config avg(ms)
  conv2d{"in_channels":3,"kernel_size":[1,3],"out_channels":8,"padding":0,"stride":1}[4][3,8,8]   0.300   100   200
  ReLU2d{"inplace":true,"kernel_size":1,"padding":0,"stride":1}[4][8,8,8]   0.030   10   20
  linear{"bias":true,"in_features":512,"out_features":10}[4]512   0.060   20   40
  SUM(avg)  0.390

  linear{"bias":false,"in_features":512,"out_features":10}[2][512]   0.030   10   20
  sum:  0.03
"""


def read(folder: Path, text: str) -> list[LayerProfile]:
    path = folder / "device.prof"
    path.write_text(text)
    return read_layer_profiles(path)


def test_a_profile_is_a_training_step(tmp_path: Path) -> None:
    first, second = read(tmp_path, SMALL)
    assert (first.name, first.batch, len(first.layers), first.split) == ("device", 4, 3, True)
    job = first.workload()
    assert [tuple(shape) for shape in job.shapes] == [(10,), (10, 512), (8,), (8, 3, 1, 3)]
    assert job.ready == pytest.approx([40e-6, 40e-6, 260e-6, 260e-6])
    assert (job.backward, job.other) == pytest.approx((260e-6, 130e-6))
    assert [tuple(shape) for shape in second.workload().shapes] == [(10, 512)]


def test_where_a_file_has_totals_only_two_thirds_are_backward(tmp_path: Path) -> None:
    line = 'linear{"in_features":5,"out_features":10}[2][5] '
    for times in ("3.0", "3.0 2.9 3.1 3.2"):
        (found,) = read(tmp_path, f"{line}{times}\nsum: 3.0\n")
        assert not found.split
        assert (found.workload().backward, found.workload().other) == pytest.approx((2e-3, 1e-3))


@pytest.mark.parametrize(
    ("old", "new", "error", "message"),
    [
        ("conv2d", "conv3d", ArtefactError, "line 3: a layer of unknown kind conv3d"),
        ('"in_channels":3', '"in_channels":0', ArtefactError, "line 3: in_channels is 0"),
        ('"in_channels":3', '"in_channels":true', ArtefactError, "in_channels is True"),
        ('"in_channels":3', '"in_channels":1e3', ArtefactError, "in_channels is 1000.0"),
        ('"in_channels":3,', "", ArtefactError, "in_channels is None"),
        ('"in_channels":3,', '"in_channels":3', ArtefactError, "line 3: Expecting"),
        ("[1,3]", "[1,3,3]", ArtefactError, "kernel_size"),
        ("[4][3,8,8]", "[0][3,8,8]", ArtefactError, "a batch of 0"),
        ("[4][3,8,8]", "[3,8,8]", ArtefactError, "neither a layer nor a sum"),
        ("0.300   100   200", "0.300   100", ArtefactError, "2 figures"),
        ("0.300   100   200", "nan   100   200", ArtefactError, "no time: 'nan'"),
        ("0.300   100   200", "-0.300   100   200", ArtefactError, "no time"),
        ("0.300   100   200", "0.300   0.1   0.2", ArtefactError, "0.3 ms in all"),
        ("  SUM(avg)  0.390\n", "", TruncatedError, "line 7: the block of batch 4 ends without its sum"),
        ("  SUM(avg)  0.390", "  SUM(avg)  0.790", TruncatedError, "line 6: a sum of 0.79 ms under 3 layers"),
        ("  sum:  0.03\n", "", TruncatedError, "without the sum of a block"),
        ("SUM(avg)  0.390", "SUM(avg)  1e999", ArtefactError, "no time"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, old: str, new: str, error: type[Exception], message: str) -> None:
    assert old in SMALL
    with pytest.raises(error) as raised:
        read(tmp_path, SMALL.replace(old, new))
    assert message in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"# nothing\n", b"\xff\xfe", b"sum: 0.0\n", b"{" * 100_000])
def test_what_is_no_profile_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "device.prof"
    path.write_bytes(content)
    with pytest.raises(ArtefactError):
        read_layer_profiles(path)
    with pytest.raises(ArtefactError, match="cannot be read"):
        read_layer_profiles(tmp_path)


def test_layers_without_parameters_or_time_are_no_training_step(tmp_path: Path) -> None:
    (idle,) = read(tmp_path, 'linear{"in_features":5,"out_features":10}[2][5] 0.0 0 0\nsum: 0.0\n')
    (empty,) = read(tmp_path, "prepOut{}[2][5] 3.0 1000 2000\nsum: 3.0\n")
    for found in (idle, empty):
        with pytest.raises(ArgumentError, match="some of both"):
            found.workload()


@settings(max_examples=150)
@given(data=st.data())
def test_no_change_of_a_file_is_more_than_a_typed_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(SMALL.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content)))
        end = data.draw(st.integers(start, min(len(content), start + 12)))
        pieces = st.one_of(st.binary(max_size=6), st.sampled_from([b"9" * 30, b"[", b"}", b"\n", b"sum: ", b"null"]))
        content[start:end] = data.draw(pieces)
    path = tmp_path_factory.getbasetemp() / "fuzzed.prof"
    path.write_bytes(bytes(content))
    try:
        found = [one.workload() for one in read_layer_profiles(path)]
    except TautError:
        return
    for job in found:
        assert 0 < job.backward < math.inf
        assert list(job.ready) == sorted(job.ready)
        assert job.elements > 0


@pytest.mark.skipif(not PROFILES.is_dir(), reason="the published profiles are not on this machine")
@pytest.mark.parametrize(
    ("name", "blocks", "batch", "layers", "elements"),
    [
        ("A100_vgg.prof", 9, 64, 37, 138_357_544),  # VGG-16
        ("A100_wrn.prof", 8, 32, 39, 126_886_632),  # Wide ResNet-101-2 but for the normalisation after its stem
        ("A100_inception.prof", 23, 64, 107, None),
        ("vitLayerGpuProfileA100.txt", 8, 128, 15, None),
        ("vggLayerGpuProfileA100.txt", 8, 128, 22, 138_357_544),
        ("resnetLayerGpuProfileA100V2.txt", 24, 128, 37, None),
        ("wrnLayerGpuProfileA100V2.txt", 10, 32, 39, 126_886_632),
    ],
)
def test_the_published_profiles(name: str, blocks: int, batch: int, layers: int, elements: int | None) -> None:
    found = read_layer_profiles(PROFILES / name)
    assert (len(found), found[0].batch, len(found[0].layers)) == (blocks, batch, layers)
    assert elements is None or found[0].workload().elements == elements
    assert found[0].split == name.endswith(".prof")


@pytest.mark.skipif(not PROFILES.is_dir(), reason="the published profiles are not on this machine")
def test_a_published_profile_answers_what_ifs() -> None:
    job = read_layer_profiles(PROFILES / "A100_vgg.prof")[1].workload()
    found = explore(job, Cluster(16, 10e9 / 8), profile(encode=1e-10), names=["top-k 0.1 %", "PowerSGD rank 4"])
    assert found.recommendation.best.verdict == "helps"
    assert found.recommendation.best.bucket_bytes in BUCKET_CAPS
    # 15/16 of 2 * 553 MB at 1.25 GB/s are 830 ms, and the backward pass takes 40.
    assert 10 < found.required.estimate < 30
