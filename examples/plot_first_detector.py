"""
A first detector
================

x
"""

import matplotlib.pyplot as plt

from sklearn_vad import MILRankingAnomalyDetector
from sklearn_vad.datasets import make_bags

bags, y = make_bags(20, random_state=0)
MILRankingAnomalyDetector(max_epochs=1, random_state=0).fit(bags, y)
plt.plot([1,2])
