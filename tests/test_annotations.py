"""Readers of annotations: values counted by hand, and what every error says."""

import copy
import json
import pickle
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from sklearn_vad import Bags, FrameLabels
from sklearn_vad.datasets import (
    Annotations,
    load_concatenated_frame_labels,
    load_csv_annotations,
    load_shanghaitech_annotations,
    load_split,
    load_ucf_crime_annotations,
    load_xd_violence_annotations,
)


@pytest.fixture
def write(tmp_path):
    """Write a text file and return its path."""

    def write(text, name="file.txt"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def make(events=((2, 4),), labels=(1, 0), **more):
    """Return annotations of an anomalous video "a" and a normal one "b"."""
    words = [("Arson",) if label else ("Normal",) for label in labels]
    return Annotations(["a", "b"], words, labels, [events, []], **more)


def error(part):
    return pytest.raises(ValueError, match=re.escape(part))


def all_events(ann):
    return [events.tolist() for events in ann.events]


# --------------------------------------------------------------------------
# The container
# --------------------------------------------------------------------------
def test_columns():
    ann = make(n_frames=[9, 5])
    assert ann.ids.tolist() == ["a", "b"]
    assert ann.categories == [("Arson",), ("Normal",)]
    assert ann.video_labels.tolist() == ann.y.tolist() == [1, 0]
    assert all_events(ann) == [[[2, 4]], []]
    assert ann.events[1].shape == (0, 2)
    assert ann.n_frames.tolist() == [9, 5]
    assert ann.events_known.tolist() == [True, True]
    assert (len(ann), ann.shape) == (2, (2,))
    assert repr(ann) == "Annotations(n_videos=2, n_anomalous=1, n_events=1)"


def test_annotations_do_not_change():
    given_events = np.array([[2, 4]])
    ann = make(given_events)
    given_events[:] = 0
    assert all_events(ann)[0] == [[2, 4]]
    with pytest.raises(AttributeError, match="ids"):
        ann.ids = ["c", "d"]
    for column in (ann.video_labels, ann.ids, ann.events[0], ann.events_known):
        with pytest.raises(ValueError, match="read-only"):
            column[0] = 1
    ann.y[:] = 0  # an array of one's own, as torch and scikit-learn like it
    assert ann.y.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (slice(1, None), ["b"]),
        ([1, 0, 1], ["b", "a", "b"]),
        (np.array([False, True]), ["b"]),
        (-1, ["b"]),
        ([], []),
        ((np.array([1]), Ellipsis), ["b"]),
    ],
    ids=str,
)
def test_index(key, expected):
    part = make(n_frames=[9, 5])[key]
    assert isinstance(part, Annotations)
    assert part.ids.tolist() == expected
    assert part.n_frames.tolist() == [{"a": 9, "b": 5}[i] for i in expected]
    assert len(part.events) == len(part.categories) == len(part.y) == len(expected)
    assert make()[key].n_frames is None


def test_bad_index():
    for key in (2, "a", [[0]], np.array([True]), None):
        with pytest.raises(IndexError):
            make()[key]


def test_scikit_learn_splits_annotations():
    train, test = train_test_split(make(), random_state=0, test_size=1)
    assert sorted([*train.ids, *test.ids]) == ["a", "b"]
    assert isinstance(train, Annotations)


def test_copies():
    ann = make(n_frames=[9, 5])
    for twin in (pickle.loads(pickle.dumps(ann)), copy.deepcopy(ann)):
        assert twin.ids.tolist() == ["a", "b"]
        assert all_events(twin) == all_events(ann)
        assert twin[:1].frame_labels().masks[0].sum() == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ids": ["a", "a"]}, "ids must differ, got 'a' twice"),
        ({"categories": [("Arson",)]}, "got 1 categories for 2 videos"),
        ({"categories": ["Arson", ("Normal",)]}, "video 0 (id 'a') are 'Arson'"),
        ({"categories": [("Arson",), ()]}, "video 1 (id 'b') are (), expected one or"),
        ({"video_labels": [1, 2]}, "video 1 (id 'b') is 2, expected 0 or 1"),
        ({"video_labels": [[1], [0]]}, "video 0 (id 'a') is [1], expected 0 or 1"),
        ({"video_labels": [1]}, "got 1 video_labels for 2 videos"),
        ({"video_labels": [0, 0]}, "video 0 (id 'a') is normal, but has events"),
        ({"events": [[(4, 2)], []]}, "(id 'a') are [[4, 2]], expected 0 <= start"),
        ({"events": [[(3, 3)], []]}, "(id 'a') are [[3, 3]], expected 0 <= start"),
        ({"events": [[(-1, 3)], []]}, "(id 'a') are [[-1, 3]], expected 0 <= start"),
        ({"events": [[2, 4], []]}, "(id 'a') have shape (2,), expected (n_events, 2)"),
        ({"events": [[(2.5, 4)], []]}, "(id 'a') have dtype float64, expected whole"),
        ({"n_frames": [9, 0]}, "video 1 (id 'b') has 0 frames, expected 1 or more"),
        ({"n_frames": [9]}, "n_frames has shape (1,), expected one number for each"),
        ({"n_frames": [9.0, 5.0]}, "n_frames has dtype float64, expected whole"),
        ({"events_known": [True]}, "got 1 events_known for 2 videos"),
        ({"events_known": [1, 1]}, "events_known has dtype int64, expected bool"),
    ],
    ids=str,
)
def test_bad_columns(change, message):
    columns = {
        "ids": ["a", "b"],
        "categories": [("Arson",), ("Normal",)],
        "video_labels": [1, 0],
        "events": [[(2, 4)], []],
    }
    with error(message):
        Annotations(**columns | change)


# --------------------------------------------------------------------------
# Frame labels
# --------------------------------------------------------------------------
@st.composite
def videos(draw):
    """Draw (events, n_frames) where every event begins inside its video."""
    n_frames = draw(st.integers(1, 60))
    starts = st.integers(0, n_frames - 1)
    events = draw(st.lists(st.tuples(starts, st.integers(1, 80)), max_size=4))
    return [(start, start + length) for start, length in events], n_frames


@settings(deadline=None)
@given(st.lists(videos(), min_size=1, max_size=5), st.randoms())
def test_frame_labels_are_those_of_a_slow_loop(drawn, random):
    events, n_frames = zip(*drawn, strict=True)
    ids = [f"v{i}" for i in range(len(drawn))]
    labels = [int(len(e) > 0) for e in events]
    ann = Annotations(ids, [("X",)] * len(ids), labels, events, n_frames)
    y = ann.frame_labels(snippet_length=7.5)
    assert isinstance(y, FrameLabels)
    assert y.snippet_length.tolist() == [7.5] * len(ids)
    assert y.video_labels.tolist() == labels == ann.y.tolist()
    expected = [[any(a <= f < b for a, b in e) for f in range(n)] for e, n in drawn]
    assert [m.tolist() for m in y.masks] == expected
    # The order of the ids asked for, not that of the annotations.
    order = list(range(len(ids)))
    random.shuffle(order)
    aligned = ann.align([ids[i] for i in order])
    assert [m.tolist() for m in aligned.frame_labels().masks] == [
        expected[i] for i in order
    ]


def test_given_frame_counts_come_before_those_of_the_file():
    y = make(n_frames=[9, 5]).frame_labels([3, 7], snippet_length=[1, 2])
    assert y.n_frames.tolist() == [3, 7]
    assert y.masks[0].tolist() == [False, False, True]  # the event is cut
    assert y.snippet_length.tolist() == [1, 2]


def test_frame_labels_without_frame_counts():
    with error("pass n_frames, one number per video, such as 16 * bags.lengths"):
        make().frame_labels()
    with error("video 1 (id 'b') has 0 frames, expected 1 or more"):
        make().frame_labels([5, 0])
    with error("n_frames has shape (3,), expected one number for each of 2 videos"):
        make().frame_labels([5, 5, 5])


def test_event_outside_its_video():
    ann = make([(2, 4), (7, 9)])
    with error(
        "video 0 (id 'a') has 7 frames, but an event outside of them (one from 7"
    ):
        ann.frame_labels([7, 5])
    assert ann.frame_labels([8, 5]).masks[0].sum() == 3  # one frame inside is enough
    y = ann.frame_labels([7, 5], outside="drop")
    assert y.masks[0].tolist() == [0, 0, 1, 1, 0, 0, 0]
    with error("video 0 (id 'a') has 2 frames, but all events outside of them"):
        ann.frame_labels([2, 5], outside="drop")
    with error("outside must be 'raise' or 'drop', got 'ignore'"):
        ann.frame_labels([7, 5], outside="ignore")


def test_weak_labels_give_no_frame_labels():
    ann = make(events=[], n_frames=[9, 5], events_known=[False, False])
    with error("video 0 (id 'a') is anomalous (Arson), but its video label is all"):
        ann.frame_labels()
    assert not ann[1:].frame_labels().masks[0].any()  # a normal video has no event


def test_anomalous_video_without_events():
    words = ["Arson", "Robbery", "Robbery", "Normal", "Arson", "Arson"]
    events = [[(0, 2)], [], [], [], [], [], []]
    labels = [1, 1, 1, 0, 1, 1, 1]
    words = [(word,) for word in words] + [("X", "Y")]
    ann = Annotations(list("abcdefg"), words, labels, events, [5] * 7)
    with pytest.raises(ValueError, match="whole") as caught:
        ann.frame_labels()
    assert str(caught.value) == (
        "video 1 (id 'b') is anomalous (Robbery), but has no anomalous frame, expected"
        " some; so it is with 5 of 6 anomalous videos, whole categories among them:"
        " Robbery (2 videos)"
    )
    with pytest.raises(ValueError, match=r"\(id 'e'\).* 1 of 2 anomalous videos$"):
        ann[[0, 4]].frame_labels()
    with error("video 1 (id 'g') is anomalous (X/Y), but"):
        ann[[0, 6]].frame_labels()


# --------------------------------------------------------------------------
# Align
# --------------------------------------------------------------------------
def bags_of(*ids):
    return Bags.from_list([np.ones((1, 2))] * len(ids), ids=ids or None)


def test_align_finds_videos_by_id():
    ann = make(n_frames=[9, 5])
    aligned = ann.align(bags_of("b", "a"))
    assert aligned.ids.tolist() == ["b", "a"]
    assert aligned.y.tolist() == [0, 1]
    assert aligned.n_frames.tolist() == [5, 9]
    assert aligned.categories == [("Normal",), ("Arson",)]
    assert all_events(aligned) == [[], [[2, 4]]]
    assert ann.align(bags_of("b")).ids.tolist() == ["b"]  # "a" has no bag


def test_align_takes_ids_and_paths(tmp_path):
    ann = make()
    names = ["x/b.npy", "C:\\data\\a.mp4", tmp_path / "a.MP4.npy", "b"]
    assert ann.align(names).ids.tolist() == ["b", "a", "a", "b"]
    assert ann.align(np.array(["b", "a"])).ids.tolist() == ["b", "a"]
    named = Annotations(["Arson/a.mp4"], [("Arson",)], [1], [[(0, 1)]])
    assert named.align(["a"]).y.tolist() == [1]


def test_align_knows_crops():
    ann = make()
    assert ann.align(bags_of("a__0", "b__10", "a__9")).ids.tolist() == ["a", "b", "a"]
    both = Annotations(["c", "c__1"], [("X",)] * 2, [0, 1], [[], [(0, 1)]])
    assert both.align(["c__1", "c__2", "c"]).y.tolist() == [1, 0, 0]


def test_align_errors():
    ids = [f"Abuse{i:03d}_x264" for i in range(20)]
    ann = Annotations(ids, [("Abuse",)] * 20, [1] * 20, [[(0, 1)]] * 20)
    with error(
        "2 of 3 bags have no annotation: bag 1 (id 'Abuse007', nearest:"
        " 'Abuse007_x264'), bag 2 (id '???'); expected ids among those of the 20"
    ):
        ann.align(bags_of(ids[0], "Abuse007", "???"))
    with error("(id '4'), ...; expected"):
        ann.align(["1", "3", "4", "5"])
    with error("the bags have no ids, and videos are found by id, never by position"):
        ann.align(Bags.from_list([np.ones((1, 2))]))
    with pytest.raises(TypeError, match="id 0 has type ndarray, expected a text"):
        ann.align([np.ones((1, 2))])
    with pytest.raises(TypeError, match="a list with one id per video, got str"):
        ann.align("Abuse001_x264")
    with error("'x/' names no video, expected a file name"):
        ann.align(["x/"])


# --------------------------------------------------------------------------
# UCF-Crime
# --------------------------------------------------------------------------
OFFICIAL = """\
Arson022_x264.mp4  Arson  3500  4000  -1  -1
Fighting003_x264.mp4  Fighting  1  10  21  30  \t
Normal_Videos_872_x264.mp4  Normal  -1  -1  -1  -1
"""
WITH_LENGTHS = """\
Arson/Arson022_x264.mp4 8640 Arson 3500 4000 -1 -1
Fighting/Fighting003_x264.mp4 25 Fighting 1 10 21 30 24 25
Testing_Normal_Videos_Anomaly/Normal_Videos_872_x264.mp4 530 Normal -1 -1 -1 -1
"""


def test_ucf_crime(write):
    ann = load_ucf_crime_annotations(write(OFFICIAL))
    assert ann.ids.tolist() == [
        "Arson022_x264",
        "Fighting003_x264",
        "Normal_Videos_872_x264",
    ]
    assert ann.categories == [("Arson",), ("Fighting",), ("Normal",)]
    assert ann.y.tolist() == [1, 1, 0]
    assert all_events(ann) == [[[3499, 4000]], [[0, 10], [20, 30]], []]
    assert ann.n_frames is None
    assert ann.events_known.all()


def test_ucf_crime_with_lengths(write):
    ann = load_ucf_crime_annotations(write(WITH_LENGTHS))
    assert ann.n_frames.tolist() == [8640, 25, 530]
    assert all_events(ann)[1] == [[0, 10], [20, 30], [23, 25]]
    y = ann.frame_labels()
    assert [int(m.sum()) for m in y.masks] == [501, 15, 0]


@pytest.mark.parametrize(
    ("first_frame", "end_included", "expected", "n_anomalous"),
    [
        (1, True, [3499, 4000], 501),  # Sultani et al.
        (0, False, [3500, 4000], 500),  # VadCLIP, DAM
        (0, True, [3500, 4001], 501),  # RTFM
        (1, False, [3499, 3999], 500),
    ],
)
def test_conventions(write, first_frame, end_included, expected, n_anomalous):
    options = {"first_frame": first_frame, "end_included": end_included}
    ann = load_ucf_crime_annotations(write(OFFICIAL), **options)
    assert all_events(ann)[0] == [expected]
    mask = ann[:1].frame_labels([8640]).masks[0]
    assert mask.sum() == n_anomalous
    assert mask.argmax() == expected[0]
    ann = load_xd_violence_annotations(write("x_label_G-0-0 3500 4000"), **options)
    assert all_events(ann) == [[expected]]
    ann = load_csv_annotations(write("video,label,start,end\nx,1,3500,4000"), **options)
    assert all_events(ann) == [[expected]]


@pytest.mark.parametrize(
    "load",
    [load_ucf_crime_annotations, load_xd_violence_annotations, load_csv_annotations],
)
@pytest.mark.parametrize(
    "options", [{"first_frame": 2}, {"first_frame": None}, {"end_included": "yes"}]
)
def test_unknown_convention(write, load, options):
    with error("expected 0 or 1, and a bool"):
        load(write(""), **options)


def test_encodings_and_line_ends(write):
    plain = load_ucf_crime_annotations(write(OFFICIAL))
    windows = b"\xef\xbb\xbf" + OFFICIAL.replace("\n", "\r\n\r\n").encode()
    for text in (windows, OFFICIAL.rstrip(), "\n\n" + OFFICIAL + "\n \n"):
        ann = load_ucf_crime_annotations(write(text))
        assert ann.ids.tolist() == plain.ids.tolist()
        assert all_events(ann) == all_events(plain)
    table = "\ufeffvideo,label\r\nStraße.mp4,0\r\n".encode()
    assert load_csv_annotations(write(table)).ids.tolist() == ["Straße"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.mp4 Arson", "too few fields, expected video [n_frames] category start end"),
        ("a.mp4", "too few fields, expected"),
        ("a.mp4 12 Arson", "too few fields, expected"),
        ("a.mp4 Arson 1", "too few fields, expected"),
        ("a.mp4 Arson 1 2 3", "got 3 numbers of events, expected video [n_frames]"),
        ("a.mp4 Arson 1 2.5", "'2.5' is no whole number, expected video"),
        ("a.mp4 Arson 1 2_5", "'2_5' is no whole number, expected video"),
        ("a.mp4 Arson 1 __import__('os')", "is no whole number"),
        ("a.mp4 Arson 0 5", "begins at frame 0, expected 1 or more with first_frame=1"),
        ("a.mp4 Arson 9 5", "goes from frame 9 to 5, expected its end behind"),
        ("a.mp4 Arson -1 5", "an event begins at frame -1, expected 1 or more"),
        ("a.mp4 Arson 5 -1", "goes from frame 5 to -1"),
        ("a.mp4 Normal 5 9", "a normal video has an event, expected -1 -1 only"),
        ("a.mp4 0 Arson 1 5", "n_frames is 0, expected 1 or more"),
        ("x/Arson022_x264.avi Arson 1 5", "'Arson022_x264' occurs twice, expected one"),
        (".mp4 Arson 1 5", "'.mp4' names no video"),
    ],
)
def test_bad_lines_of_ucf_crime(write, line, message):
    path = write(OFFICIAL + "\n" + line + "\n")
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        load_ucf_crime_annotations(path)
    said = str(caught.value)
    assert said.startswith(f"{str(path)!r}, line 5: ")
    assert said.endswith(f"; the line is {line!r}")


def test_one_frame_events(write):
    path = write("a Arson 7 7")
    assert all_events(load_ucf_crime_annotations(path)) == [[[6, 7]]]
    with error("goes from frame 7 to 7, expected its end behind its start (end_inc"):
        load_ucf_crime_annotations(path, end_included=False)


def test_lengths_for_some_videos_only(write):
    with error("has no n_frames for 'b', expected them for all videos or for none"):
        load_ucf_crime_annotations(write("a 9 Arson 1 2\nb Arson 1 2"))
    with error("has no n_frames for 'b', expected them"):
        load_csv_annotations(write("video,label,n_frames\na,0,7\nb,0,"))


def test_unreadable_files(write, tmp_path):
    for load in (load_ucf_crime_annotations, load_csv_annotations, load_split):
        with error("expected a text in UTF-8"):
            load(tmp_path / "nothing.txt")
        with error("expected a text in UTF-8"):
            load(tmp_path)
        with error("expected a text in UTF-8"):
            load(write("Stra\xdfe 1 2".encode("latin-1")))
    for load in (load_ucf_crime_annotations, load_xd_violence_annotations, load_split):
        with error("names no video, expected one or more"):
            load(write("\n \n"))


def test_a_category_lost_in_the_ground_truth_is_found(write):
    """As in a ground truth that is in use: 52,844 of 84,343 anomalous frames."""
    text = "".join(f"Robbery{i}.mp4 90 Robbery -1 -1 -1 -1\n" for i in range(5))
    ann = load_ucf_crime_annotations(write(WITH_LENGTHS + text))
    with error("whole categories among them: Robbery (5 videos)"):
        ann.frame_labels()


# --------------------------------------------------------------------------
# XD-Violence
# --------------------------------------------------------------------------
XD = """\
v=38GQ9L2meyE__#1_label_B6-0-0 26 80 210 288
Bad.Boys.1995__#01-11-55_01-12-40_label_G-B2-B6.mp4 157 180
"""


def test_xd_violence(write):
    ann = load_xd_violence_annotations(write(XD))
    assert ann.ids.tolist() == [
        "v=38GQ9L2meyE__#1_label_B6-0-0",
        "Bad.Boys.1995__#01-11-55_01-12-40_label_G-B2-B6",
    ]
    assert ann.categories == [
        ("Car accident",),
        ("Explosion", "Shooting", "Car accident"),
    ]
    assert all_events(ann) == [[[26, 80], [210, 288]], [[157, 180]]]
    assert ann.n_frames is None
    assert [int(m.sum()) for m in ann.frame_labels([300, 180]).masks] == [132, 23]


def test_xd_violence_with_normal_videos(write):
    videos = [
        "x/A.Beautiful.Mind.2001__#00-25-20_00-29-20_label_A__0.npy",
        "x/A.Beautiful.Mind.2001__#00-25-20_00-29-20_label_A__1.npy",
        "v=38GQ9L2meyE__#1_label_B6-0-0__0",
        "v=training__#1_label_B4-B5-0",
    ]
    ann = load_xd_violence_annotations(write(XD), videos=videos)
    assert ann.ids.tolist()[2:] == [
        "A.Beautiful.Mind.2001__#00-25-20_00-29-20_label_A",
        "v=training__#1_label_B4-B5-0",
    ]
    assert ann.categories[2:] == [("Normal",), ("Riot", "Abuse")]
    assert ann.y.tolist() == [1, 1, 0, 1]
    assert ann.events_known.tolist() == [True, True, True, False]
    aligned = ann.align(videos[:3])
    assert aligned.y.tolist() == [0, 0, 1]
    assert [int(m.sum()) for m in aligned.frame_labels([9, 9, 290]).masks] == [
        0,
        0,
        132,
    ]
    with error("video 3 (id 'v=training__#1_label_B4-B5-0') is anomalous (Riot/Abuse)"):
        ann.frame_labels([999] * 4)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("x__#1 1 2", "the name 'x__#1' has no category, expected one such as"),
        ("x_label_B3-0-0 1 2", "'B3-0-0', expected A, or some of B1, B2, B4, B5, B6"),
        ("x_label_A-B1 1 2", "has the categories 'A-B1', expected A, or some of"),
        ("x_label_0-0 1 2", "has the categories '0-0', expected A, or some of"),
        ("x_label_A 1 2", "a normal video (label_A) has an event, expected none"),
        ("x_label_B1", "got 0 numbers of events, expected video start end"),
        ("x_label_B1 1 2 3", "got 3 numbers of events, expected video start end"),
        ("x_label_B1 1 b", "'b' is no whole number"),
        ("x_label_B1 -1 5", "an event begins at frame -1, expected 0 or more"),
        ("x_label_B1 5 5", "goes from frame 5 to 5"),
        ("v=38GQ9L2meyE__#1_label_B6-0-0.mp4 1 2", "occurs twice, expected one line"),
    ],
)
def test_bad_lines_of_xd_violence(write, line, message):
    path = write(XD + line)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        load_xd_violence_annotations(path)
    assert str(caught.value).startswith(f"{str(path)!r}, line 3: ")
    assert str(caught.value).endswith(f"; the line is {line!r}")


def test_bad_names_of_more_xd_violence_videos(write):
    with error("the name 'no_category' has no category"):
        load_xd_violence_annotations(write(XD), videos=["no_category"])
    with pytest.raises(TypeError, match="a list with one id per video, got str"):
        load_xd_violence_annotations(write(XD), videos="x_label_A")


# --------------------------------------------------------------------------
# ShanghaiTech
# --------------------------------------------------------------------------
@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.lists(st.booleans(), min_size=1, max_size=30), min_size=1, max_size=3)
)
def test_masks_come_back_as_they_were(tmp_path_factory, masks):
    folder = tmp_path_factory.mktemp("masks")
    dtypes = (bool, np.int64, np.float32)
    for i, (mask, dtype) in enumerate(zip(masks, dtypes, strict=False)):
        np.save(folder / f"0{i}_0014.npy", np.array(mask, dtype=dtype))
    ann = load_shanghaitech_annotations(folder)
    assert ann.ids.tolist() == [f"0{i}_0014" for i in range(len(masks))]
    assert ann.y.tolist() == [int(any(mask)) for mask in masks]
    assert [m.tolist() for m in ann.frame_labels().masks] == masks


def test_shanghaitech(tmp_path):
    np.save(tmp_path / "03_0031.npy", np.zeros(4, dtype=np.int8))
    np.save(tmp_path / "01_0014.npy", np.array([1, 1, 0, 1], dtype=np.int8))
    (tmp_path / "readme.txt").write_text("other files are left alone")
    ann = load_shanghaitech_annotations(tmp_path, normal_videos={"05_001.avi": 7})
    assert ann.ids.tolist() == ["01_0014", "03_0031", "05_001"]
    assert all_events(ann) == [[[0, 2], [3, 4]], [], []]
    assert ann.n_frames.tolist() == [4, 4, 7]
    assert ann.categories == [("Anomalous",), ("Normal",), ("Normal",)]
    with error("'01_0014' of normal_videos has a mask in the folder"):
        load_shanghaitech_annotations(tmp_path, normal_videos={"01_0014": 7})
    with error("video 2 (id '05_001') has 0 frames, expected 1 or more"):
        load_shanghaitech_annotations(tmp_path, normal_videos={"05_001": 0})


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([0, 2]), "holds 2 at frame 1, expected 0 or 1"),
        (np.array([0.5, 1]), "holds 0.5 at frame 0, expected 0 or 1"),
        (np.array([0, np.nan]), "holds nan at frame 1, expected 0 or 1"),
        (np.zeros((2, 3)), "holds an array (2, 3), expected one of numbers"),
        (np.zeros(0), "holds an array (0,), expected one of numbers"),
        (np.array(["0"]), "holds an array (1,), expected one of numbers"),
        (np.array([None]), "pickles are never opened"),
    ],
    ids=str,
)
def test_bad_masks(tmp_path, array, message):
    path = tmp_path / "01_0014.npy"
    np.save(path, array)
    with error(message) as caught:
        load_shanghaitech_annotations(tmp_path)
    assert repr(str(path)) in str(caught.value)
    with error(message):
        load_concatenated_frame_labels(path, ["a"], [2])


def test_unreadable_masks(tmp_path):
    with error("names no video, expected one or more"):
        load_shanghaitech_annotations(tmp_path / "nowhere")
    path = tmp_path / "01_0014.npy"
    np.save(path, np.zeros(100))
    path.write_bytes(path.read_bytes()[:-8])
    with error("cannot read"):
        load_shanghaitech_annotations(tmp_path)
    with path.open("wb") as file:
        np.savez(file, gt=np.zeros(3))
    with error("cannot read"):
        load_shanghaitech_annotations(tmp_path)
    path.write_bytes(b"")
    with error("cannot read"):
        load_shanghaitech_annotations(tmp_path)


# --------------------------------------------------------------------------
# CSV
# --------------------------------------------------------------------------
def test_csv(write):
    ann = load_csv_annotations(
        write(
            "n_frames,Video, category ,label,start,end\n"
            "100,x/a.mp4,Fighting,1,30,90\n"
            '50,"b, the second.mp4",,0,,\n'
            "\n"
            "100,a.avi,Shooting,1,5,6\n"
            "100,a.avi,Fighting,1,95,200\n"
        )
    )
    assert ann.ids.tolist() == ["a", "b, the second"]
    assert ann.categories == [("Fighting", "Shooting"), ("Normal",)]
    assert ann.y.tolist() == [1, 0]
    assert all_events(ann) == [[[30, 90], [5, 6], [95, 200]], []]
    assert ann.n_frames.tolist() == [100, 50]
    assert [int(m.sum()) for m in ann.frame_labels().masks] == [66, 0]


def test_csv_of_weak_labels(write):
    ann = load_csv_annotations(write("label,video\n1,a\n0,b\n"))
    assert ann.y.tolist() == [1, 0]
    assert ann.categories == [("Anomalous",), ("Normal",)]
    assert ann.events_known.tolist() == [False, False]
    assert ann.n_frames is None
    with error("video 0 (id 'a') is anomalous (Anomalous), but its video label is all"):
        ann.frame_labels([5, 5])
    known = load_csv_annotations(write("label,video,start,end\n1,a,,\n0,b,,\n"))
    assert known.events_known.all()
    with error("video 0 (id 'a') is anomalous (Anomalous), but has no anomalous frame"):
        known.frame_labels([5, 5])


@pytest.mark.parametrize(
    ("start", "end", "fps", "expected"),
    [
        ("0", "1", 25, [0, 25]),
        ("0.1", "0.3", 30, [3, 9]),  # 0.1 * 30 is a little more than 3
        ("0.5", "2", 25, [13, 50]),
        ("10", "20.02", 29.97, [300, 600]),
        ("1.001", "1.002", 25, [25, 26]),  # never less than a frame
    ],
)
def test_seconds(write, start, end, fps, expected):
    path = write(f"video,label,start,end\na,1,{start},{end}\n")
    ann = load_csv_annotations(path, unit="seconds", fps=fps)
    assert all_events(ann) == [[expected]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unit": "minutes"}, "got unit='minutes', fps=None, first_frame=0"),
        ({"fps": 25}, "expected unit='frames' without fps, or unit='seconds' with"),
        ({"unit": "seconds", "fps": 25, "first_frame": 1}, "first_frame=1"),
        ({"unit": "seconds", "fps": 25, "end_included": True}, "end_included=True"),
        ({"unit": "seconds"}, "needs fps > 0, frames per second; got None"),
        ({"unit": "seconds", "fps": 0}, "needs fps > 0, frames per second; got 0"),
        ({"unit": "seconds", "fps": np.inf}, "needs fps > 0"),
        ({"unit": "seconds", "fps": np.nan}, "needs fps > 0"),
    ],
    ids=str,
)
def test_bad_units(write, options, message):
    with error(message):
        load_csv_annotations(write("video,label,start,end\na,1,1,2\n"), **options)


@pytest.mark.parametrize(
    "header",
    [
        "label,start,end",
        "video,start,end",
        "video,label,start",
        "video,label,end",
        "video,label,start,end,fps",
        "video,label,label",
        "video;label",
        "",
    ],
)
def test_bad_headers(write, header):
    path = write(header + "\na,1,1,2\n")
    with error("expected video,label[,start,end][,category][,n_frames]") as caught:
        load_csv_annotations(path)
    assert str(caught.value).startswith(f"{str(path)!r}, line 1: got the columns")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("b,2,1,2,X,9", "the label is '2', expected 0 or 1"),
        ("b,,1,2,X,9", "the label is '', expected 0 or 1"),
        ("b,1,1,,X,9", "only one of start and end is given, expected both or none"),
        ("b,1,,2,X,9", "only one of start and end is given, expected both or none"),
        ("b,0,1,2,X,9", "a video with label 0 has an event, expected none"),
        ("b,1,1,2.5,X,9", "'2.5' is no whole number, expected a whole frame"),
        ("b,1,2,1,X,9", "an event goes from frame 2 to 1"),
        ("b,1,-2,1,X,9", "an event begins at frame -2, expected 0 or more"),
        ("b,1,1,2,X,0", "n_frames is 0, expected 1 or more"),
        ("b,1,1,2,X,many", "'many' is no whole number, expected n_frames"),
        ("b,1,1,2,X", "5 values, expected 6: video,label,start,end,category,n_frames"),
        (",1,1,2,X,9", "'' names no video"),
        ("a,1,1,2,X,9", "the event occurs twice, expected one row per event"),
        ("a,1,,,X,9", "'a' occurs twice, expected one row, or one per event"),
        ("a,0,,,X,9", "'a' occurs twice, expected one row, or one per event"),
        ("a,1,4,5,X,8", "8 frames, expected 9 as in the row before"),
    ],
)
def test_bad_rows(write, row, message):
    path = write(f"video,label,start,end,category,n_frames\na,1,1,2,X,9\n\n{row}\n")
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        load_csv_annotations(path)
    assert str(caught.value).startswith(f"{str(path)!r}, line 4: ")
    assert str(caught.value).endswith(f"; the line is {row!r}")


@pytest.mark.parametrize("end", ["1", "0.5", "nan", "inf", "x", "-1"])
def test_bad_seconds(write, end):
    path = write(f"video,label,start,end\na,1,1,{end}\n")
    with error(
        f"an event goes from '1' to {end!r}, expected seconds, 0 <= start < end"
    ):
        load_csv_annotations(path, unit="seconds", fps=25)


def test_csv_with_broken_quotes(write):
    path = write('video,label\na,0\n"b"c,0\n')
    with error("line 3: no row of values between commas"):
        load_csv_annotations(path)


# --------------------------------------------------------------------------
# One array of all frames
# --------------------------------------------------------------------------
@pytest.fixture
def ground_truth(tmp_path):
    """Save 0/1 labels of all frames and return the path."""

    def save(labels, dtype=np.float64):
        np.save(tmp_path / "gt.npy", np.array(labels, dtype=dtype))
        return tmp_path / "gt.npy"

    return save


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.lists(st.booleans(), min_size=1, max_size=40), min_size=1, max_size=5)
)
def test_concatenated_labels_come_apart(tmp_path_factory, masks):
    path = tmp_path_factory.mktemp("gt") / "gt.npy"
    np.save(path, np.concatenate(masks).astype(float))
    ids = [f"v{i}" for i in range(len(masks))]
    y = load_concatenated_frame_labels(
        path, ids, [len(m) for m in masks], snippet_length=8
    )
    assert [m.tolist() for m in y.masks] == masks
    assert y.snippet_length.tolist() == [8] * len(masks)


@pytest.mark.parametrize(
    ("n_entries", "n_frames", "message"),
    [
        (60, [30, 29], "has 60 frames, but the 2 videos have 59: 1 too many, expected"),
        (58, [30, 29], "has 58 frames, but the 2 videos have 59: 1 too few, expected"),
        (48, [47, 30], "29 too few, expected equal numbers; n_frames cut to whole sni"),
        (80, [48, 30], "2 too many, expected equal numbers; n_frames filled up to wh"),
        (64, [65, 16], "17 too few, expected equal numbers; n_frames less one and cut"),
        (32, [320, 320], "; these are 20 times as many: is each crop counted as a"),
        (47, [32, 16], "; all n_frames are multiples of the snippet length, as if"),
    ],
)
def test_lengths_that_do_not_add_up(ground_truth, n_entries, n_frames, message):
    path = ground_truth([0] * n_entries)
    with error(message) as caught:
        load_concatenated_frame_labels(path, ["a", "b"], n_frames)
    assert str(caught.value).startswith(repr(str(path)))
    plain = n_frames == [30, 29]
    assert str(caught.value).endswith("expected equal numbers") == plain


def test_bad_videos_of_concatenated_labels(ground_truth):
    path = ground_truth([0] * 6)
    with error("n_frames has shape (2,), expected one number for each of 1 videos"):
        load_concatenated_frame_labels(path, ["a"], [3, 3])
    with error("ids must differ, got 'a' twice"):
        load_concatenated_frame_labels(path, ["a", "a"], [3, 3])
    with error("video 1 (id 'b') has 0 frames"):
        load_concatenated_frame_labels(path, ["a", "b"], [6, 0])
    with error("n_frames is None, expected one number per video"):
        load_concatenated_frame_labels(path, ["a", "b"], None)
    with error("cannot read"):
        load_concatenated_frame_labels(path.with_name("none.npy"), ["a"], [6])


def test_concatenated_labels_agree_with_annotations(ground_truth):
    path = ground_truth([0, 0, 0, 1, 1, 0, 0, 0, 0])
    words = [("Arson",), ("Arson",), ("Normal",)]
    ann = Annotations(list("abc"), words, [1, 1, 0], [[(0, 1)]] * 2 + [[]])
    lengths = [3, 3, 3]
    options = {"annotations": ann}
    bags = bags_of("c", "b", "x/c.npy")
    y = load_concatenated_frame_labels(path, bags[:2], [3, 6], **options)
    assert y.video_labels.tolist() == [0, 1]
    with error("video 1 (id 'c') is normal, but has anomalous frames; expected none."):
        load_concatenated_frame_labels(path, ["b", "c"], [4, 5], **options)
    with error("video 0 (id 'a') is anomalous (Arson), but has no anomalous frame"):
        load_concatenated_frame_labels(path, ["a", "b", "c"], lengths, **options)
    path = ground_truth([0] * 9)
    with error("whole categories among them: Arson (2 videos)"):
        load_concatenated_frame_labels(path, ["a", "b", "c"], lengths, **options)
    with error("1 of 1 bags have no annotation: bag 0 (id 'd')"):
        load_concatenated_frame_labels(path, ["d"], [9], **options)
    # Weak labels are enough, and are no excuse.
    weak = Annotations(["a"], [("X",)], [1], [[]], events_known=[False])
    with error("video 0 (id 'a') is anomalous (X), but has no anomalous frame"):
        load_concatenated_frame_labels(path, ["a"], [9], annotations=weak)


# --------------------------------------------------------------------------
# Lists of videos
# --------------------------------------------------------------------------
def test_split(write):
    lines = [
        "path,label",
        "/home/x/Abuse/Abuse028_x264__5.npy,Abuse",
        "Testing_Normal_Videos_Anomaly/Normal_Videos_003_x264.mp4",
        "01_0014,1",
        "01_0015 0",
        "C:\\my videos\\a long day.mp4 1",
        "x.MP4.hdf5\t-1",
        "v=8-e__#1_label_B6-0-0",
    ]
    expected = [
        "Abuse028_x264__5",
        "Normal_Videos_003_x264",
        "01_0014",
        "01_0015",
        "a long day",
        "x",
        "v=8-e__#1_label_B6-0-0",
    ]
    assert load_split(write("\r\n".join(lines))) == expected
    assert load_split(write("\n".join(lines[1:]))) == expected


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a long day 1", "expected a path or name, and at most one label behind it"),
        ("b.mp4 1 2", "expected a path or name, and at most one label behind it"),
        ("x/a.npy 0", "'a' occurs twice, expected one line each"),
        ("folder/", "'folder/' names no video"),
    ],
)
def test_bad_lines_of_a_split(write, line, message):
    path = write(f"a.mp4\n{line}\n")
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        load_split(path)
    assert str(caught.value).startswith(f"{str(path)!r}, line 2: ")
    assert str(caught.value).endswith(f"; the line is {line!r}")


def test_header_of_a_split_is_the_first_line_only(write):
    assert load_split(write("a\npath\n")) == ["a", "path"]
    with error("names no video, expected one or more"):
        load_split(write("video,label\n"))


# --------------------------------------------------------------------------
# Real data
# --------------------------------------------------------------------------
def test_official_ucf_crime_annotations(data_dir):
    path = data_dir / "ucf_crime_test_annotations.txt"
    known = json.loads((data_dir / "ucf_crime_videos.json").read_text())
    as_written = load_ucf_crime_annotations(path, first_frame=0, end_included=False)
    assert len(as_written) == 290
    assert as_written.y.sum() == 140
    for video, events, n in zip(
        as_written.ids, as_written.events, as_written.n_frames, strict=True
    ):
        assert known[video]["n_frames"] == n
        assert known[video]["events"] == events.tolist()

    ann = load_ucf_crime_annotations(path)
    starts_earlier = [np.subtract(e, [1, 0]).tolist() for e in as_written.events]
    assert all_events(ann) == starts_earlier
    # One frame more per event, 156 of them.
    counts = [sum(m.sum() for m in a.frame_labels().masks) for a in (as_written, ann)]
    assert counts == [84182, 84338]

    order = np.random.default_rng(0).permutation(290)
    y = ann.align(ann.ids[order]).frame_labels()
    assert (y.video_labels == ann.y[order]).all()
    assert (y.n_frames == ann.n_frames[order]).all()


def test_xd_violence_ground_truth(data_dir, tmp_path):
    with np.load(data_dir / "xd_violence_test_gt.npz") as archive:
        gt, offsets, videos = (archive[k] for k in ("gt", "offsets", "video"))
    np.save(tmp_path / "gt.npy", gt)
    (tmp_path / "none.txt").write_text("x_label_G-0-0 1 2\n")
    # The labels are in the names: with the authors' list they agree.
    ann = load_xd_violence_annotations(tmp_path / "none.txt", videos=videos)
    assert (len(ann), ann.y.sum()) == (801, 501)
    n_frames = np.diff(offsets)
    y = load_concatenated_frame_labels(
        tmp_path / "gt.npy", videos, n_frames, annotations=ann
    )
    assert len(y) == 800
    assert y.n_frames.sum() == 2_330_384
    assert all(
        np.array_equal(mask, gt[a:b] == 1)
        for mask, a, b in zip(y.masks, offsets[:-1], offsets[1:], strict=True)
    )
    with error("1 too few"):
        n_frames[7] += 1
        load_concatenated_frame_labels(tmp_path / "gt.npy", videos, n_frames)


def test_frame_counts_by_id_have_to_be_complete():
    ann = Annotations(["a", "b"], [["N"], ["N"]], [0, 0], [[], []])
    assert ann.frame_labels({"b": 3, "a": 2}).n_frames.tolist() == [2, 3]
    with pytest.raises(ValueError, match=r"n_frames has none for video 1 \(id 'b'\)"):
        ann.frame_labels({"a": 2})
