"""
A first detector
================

Training knows one label per video; the detector says which snippets are anomalous.

``make_bags`` makes synthetic videos: each is an array of snippets by features, of its
own length. It knows the truth of every frame, but ``fit`` reads only whether a video
holds anything anomalous at all.
"""

from sklearn.model_selection import train_test_split

from sklearn_vad import MILRankingAnomalyDetector
from sklearn_vad.datasets import make_bags

bags, y = make_bags(160, difficulty=0.25, random_state=0)
print(f"{len(bags)} videos of {bags.lengths.min()} to {bags.lengths.max()} snippets,")
print(f"{y.video_labels.sum()} of them anomalous; first video: {bags[0].shape}")

# %%
# Half of the videos train the detector. The split is of whole videos, so that no
# snippet of a test video was ever seen.

train, test = train_test_split(range(len(y)), test_size=0.5, stratify=y, random_state=0)
detector = MILRankingAnomalyDetector(random_state=0).fit(bags[train], y[train])

# %%
# ``score_snippets`` gives one array per video, ``evaluate`` compares them with the
# truth of all frames.

from sklearn_vad.metrics import evaluate

scores = detector.score_snippets(bags[test])
for name, value in evaluate(y[test], scores).items():
    print(f"{name:32}{value:.3f}")

# %%
# The longest anomalous video that the detector has not seen, over time. Nobody ever
# told it when something happens in any video: the shaded frames are for us.

from sklearn_vad.display import ScoreTimelineDisplay

i = max(test, key=lambda i: bags.lengths[i] * y.video_labels[i])
display = ScoreTimelineDisplay.from_estimator(
    detector, bags[i], y.masks[i], name="MIL ranking"
)
_ = display.ax_.set_title(f"{bags.ids[i]}, not seen in training", loc="left")
