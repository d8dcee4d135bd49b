"""Frames and crops of video files, decoded one after the other by PyAV."""

import os
import warnings

import numpy as np
import torch


# --------------------------------------------------------------------------
# Videos
# --------------------------------------------------------------------------
class UnreadableVideoError(Exception):
    """What is wrong with a video file; the file's name is added by who knows it."""


def needs_extra(what, error):
    return ImportError(f"{what}: {error}; pip install 'sklearn_vad[video]'")


def import_av():
    try:
        import av
    except ImportError as error:
        raise needs_extra("decoding videos", error) from error
    return av


class Video:
    """One video file, decoded from its first frame to its last.

    While it is read, it counts its frames (`n_frames`) and learns its rate
    (`fps`, None where the file does not say).
    """

    def __init__(self, path):
        self.path = path
        self.n_frames = 0
        self.fps = None

    def pictures(self, shorter_side, offsets, stride):
        """Yield ``(frame number, RGB picture)`` of the frames that snippets need."""
        av = import_av()
        resizer = av.video.reformatter.VideoReformatter()
        try:
            # An absolute path is never taken for a URL.
            with av.open(os.path.abspath(self.path), metadata_errors="ignore") as file:
                frames = wanted_frames(self._decode(file), offsets, stride)
                for number, frame in frames:
                    yield number, to_picture(frame, shorter_side, resizer)
        except av.FFmpegError as error:
            after = f" after {self.n_frames} frames" if self.n_frames else ""
            raise UnreadableVideoError(f"{error.strerror}{after}") from error

    def _decode(self, file):
        stream = find_stream(file)
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = torch.get_num_threads()
        self.fps = float(stream.average_rate) if stream.average_rate else None
        for frame in file.decode(stream):
            if frame.is_corrupt:
                raise UnreadableVideoError(f"frame {self.n_frames} is damaged")
            self.n_frames += 1
            yield frame
        if self.n_frames == 0:
            raise UnreadableVideoError("it holds no frames")
        self._compare_with_duration(stream, file)

    def _compare_with_duration(self, stream, file):
        """Warn when the file promises more frames than it holds.

        A file of some formats, Matroska among them, may end anywhere without
        an error. A duration may be an estimate, so this is none either.
        """
        if stream.duration is not None:
            seconds = float(stream.duration * stream.time_base)
        else:
            seconds = (file.duration or 0) / 1e6
        promised = seconds * (self.fps or 0)
        if promised - self.n_frames > max(2, 0.1 * promised):
            warnings.warn(
                f"video {self.path!r} has {self.n_frames} frames, its duration of"
                f" {seconds:.1f} s promises about {promised:.0f}: is it truncated?",
                stacklevel=2,
            )


def find_stream(file):
    """Return the main video stream; the cover picture of a song is none."""
    is_cover = import_av().stream.Disposition.attached_pic
    stream = file.streams.best("video")
    if stream is None or stream.disposition & is_cover:
        kinds = sorted({other.type for other in file.streams}) or ["nothing"]
        raise UnreadableVideoError(f"no video stream in it, but {', '.join(kinds)}")
    if stream.codec_context is None:
        raise UnreadableVideoError("no decoder for the codec of its video stream")
    return stream


def wanted_frames(frames, offsets, stride):
    """Number the frames; yield the ones that snippets need, and the last one."""
    held = None
    for number, frame in enumerate(frames):
        held = number, frame
        if any(number >= o and (number - o) % stride == 0 for o in offsets):
            yield held
            held = None
    if held is not None:
        yield held


def to_picture(frame, shorter_side, resizer):
    """Return a frame as RGB array, resized and turned as its file says."""
    scale = shorter_side / min(frame.width, frame.height)
    width, height = (round(side * scale) for side in (frame.width, frame.height))
    resized = resizer.reformat(
        frame, width=width, height=height, format="rgb24", interpolation="BILINEAR"
    )
    return np.rot90(resized.to_ndarray(), k=round(frame.rotation / 90))


def cut_crops(picture, size, kind):
    """Cut the crops out of a picture.

    Parameters
    ----------
    picture : ndarray of shape (height, width, 3)
    size : int
    kind : {"center", "five", "ten"}

    Returns
    -------
    crops : ndarray of shape (1 or 5 or 10, size, size, 3)
        The centre; the corners top left, top right, bottom left, bottom right;
        the mirror images of these five.
    """
    bottom, right = picture.shape[0] - size, picture.shape[1] - size
    places = [(bottom // 2, right // 2)]
    if kind != "center":
        places += [(0, 0), (0, right), (bottom, 0), (bottom, right)]
    crops = np.stack([picture[y : y + size, x : x + size] for y, x in places])
    if kind == "ten":
        crops = np.concatenate([crops, crops[:, :, ::-1]])
    return crops


# --------------------------------------------------------------------------
# Snippets
# --------------------------------------------------------------------------
def frame_offsets(snippet_length, n_seen):
    """Return which frames of a snippet are seen: the middles of equal parts."""
    return [(2 * i + 1) * snippet_length // (2 * n_seen) for i in range(n_seen)]


def snippet_windows(items, offsets, stride):
    """Yield the items of each snippet, in order.

    Snippet i has the items of the frames ``i * stride + offsets``. There is one
    for every start within the video; frames past the end are the last frame.

    Parameters
    ----------
    items : iterable of (int, object)
        Frame numbers, ascending, and what to group; the last frame of the video
        is among them.
    offsets : list of int
    stride : int

    Yields
    ------
    window : list of object
        As many as `offsets`.
    """
    held, start = {}, 0
    for number, item in items:
        held[number] = item
        while number >= start + offsets[-1]:
            yield [held[start + o] for o in offsets]
            start += stride
            first = start + offsets[0]
            held = {n: kept for n, kept in held.items() if n >= first}
    while start <= number:
        yield [held.get(start + o, item) for o in offsets]
        start += stride
