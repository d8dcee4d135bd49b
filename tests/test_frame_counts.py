"""What the error says when snippets and frames don't belong together."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sklearn_vad.metrics import frame_roc_auc_score
from sklearn_vad.timeline import check_frame_counts, expand_scores


def message(n_snippets, n_frames, snippet_length=16):
    """Return the error's text, or None where the counts fit."""
    n_snippets, n_frames = np.atleast_1d(n_snippets), np.atleast_1d(n_frames)
    lengths = np.broadcast_to(np.asarray(snippet_length, dtype=float), n_frames.shape)
    try:
        check_frame_counts(n_snippets, n_frames, lengths)
    except ValueError as error:
        return str(error)
    return None


GENERAL = (
    "snippet_length must be the number of frames that one snippet covers (about {} "
    "here), and bags and frames must be of the same videos in the same order"
)


def test_crops_concatenated_along_the_snippets():
    text = message([60, 1230], [960, 1970])
    assert text == (
        "video 1 has 1230 snippets, but its 1970 frames fill 123.1 snippets of 16"
        " frames: 10.0 times as many. The crops of the video seem to be concatenated"
        " along its snippets: give them an axis of their own (see the crop layouts of"
        " sklearn_vad.datasets.load_features), for MultiCropDetector, or score one crop"
    )


@given(
    st.sampled_from([5, 10]),
    st.integers(10, 3000),
    st.integers(0, 15),
    st.sampled_from([np.floor, np.ceil]),
)
def test_any_concatenated_crops(n_crops, n_snippets, rest, whole):
    n_frames = 16 * n_snippets + rest
    text = message(n_crops * int(whole(n_frames / 16)), n_frames)
    (ratio,) = re.findall(r"([\d.]+) times as many\. The crops .* concatenated", text)
    assert float(ratio) == pytest.approx(n_crops, rel=0.1)
    assert "snippet_length must" not in text


@pytest.mark.parametrize("ratio", [2, 4, 4.4, 5.6, 7, 8.9, 11.1, 20])
def test_other_ratios_are_not_of_crops(ratio):
    text = message(round(1000 * ratio), 16000)
    assert "crops" not in text
    assert GENERAL.format(f"{16000 / round(1000 * ratio):.1f}") in text


@pytest.mark.parametrize("length", [1, 4, 8, 24, 32, 64])
@pytest.mark.parametrize("whole", [np.floor, np.ceil])
def test_another_length_that_fits_all_videos(length, whole):
    n_frames = np.array([4000, 333, 1001, 20 * length])
    n_snippets = whole(n_frames / length).astype(int)
    general, _, hint = message(n_snippets, n_frames).partition("; a ")
    assert general.endswith(GENERAL.format(f"{n_frames[0] / n_snippets[0]:.1f}"))
    found = re.match(r"snippet_length of about (\d+) would fit", hint).group(1)
    assert ("scores of snippets, not of frames" in hint) == (length == 1)
    assert int(found) == pytest.approx(length, rel=0.02)
    assert message(n_snippets, n_frames, int(found)) is None


def test_no_length_is_suggested_that_one_video_contradicts():
    text = message([2500, 100, 2500], [20000, 1600, 20000])
    assert text == (
        "video 0 has 2500 snippets, but its 20000 frames fill 1250.0 snippets of 16"
        f" frames: {GENERAL.format('8.0')}"
    )


def test_equal_parts_of_videos():
    text = message([32, 32, 32], [512, 4321, 999])
    assert text == (
        "video 1 has 32 snippets, but its 4321 frames fill 270.1 snippets of 16"
        f" frames: {GENERAL.format('135.0')}; for 32 equal parts of each video it is"
        " n_frames / 32"
    )
    assert message(32, 4321, 4321 / 32) is None
    assert message(120, 1600).endswith(GENERAL.format("13.3"))  # one video, no hint


def test_120_rows_of_features_where_the_frames_give_100():
    text = message([100, 120, 100], [1600, 1600, 1600])
    assert text == (
        "video 1 has 120 snippets, but its 1600 frames fill 100.0 snippets of 16"
        f" frames: {GENERAL.format('13.3')}"
    )
    with pytest.raises(ValueError, match=r"video 0 has 120 .*about 13\.3 here"):
        frame_roc_auc_score([np.arange(1600) < 800], [np.linspace(0, 1, 120)])


def test_features_rounded_up_where_the_ground_truth_is_rounded_down():
    """One snippet more than the labels fill, as UR-DMU's own files have it."""
    n_frames = 6 * 16  # of a video of 100 frames
    labels = [[0] * 48 + [1] * 48]
    scores = [[0.1, 0.2, 0.3, 0.7, 0.8, 0.9, 0.0]]
    assert len(scores[0]) == np.ceil(100 / 16)
    assert message(7, n_frames) is None
    assert frame_roc_auc_score(labels, scores) == 1  # the seventh counts nowhere
    (frames,) = expand_scores(scores, [n_frames])
    np.testing.assert_array_equal(frames, np.repeat(scores[0][:6], 16))


@given(st.integers(1, 400), st.integers(1, 400 * 16))
def test_the_beginning_states_both_numbers(n_snippets, n_frames):
    text = message([5, n_snippets], [80, n_frames])
    gap = abs(n_frames / 16 - n_snippets)
    if gap <= 2 or gap <= 0.1 * n_snippets:
        assert text is None
    else:
        assert text.startswith(
            f"video 1 has {n_snippets} snippets, but its {n_frames} frames fill"
            f" {n_frames / 16:.1f} snippets of 16 frames: "
        )
