"""The README's code runs as it stands, but for smaller networks."""

import re
from pathlib import Path

import numpy as np

from sklearn_vad.datasets import make_bags

README = Path(__file__).parents[1] / "README.md"
SMALLER = {
    "DDLAnomalyDetector(": "DDLAnomalyDetector(max_epochs=1, hidden_dim=8, ",
    "DAMAnomalyDetector(": "DAMAnomalyDetector(max_epochs=1, n_hidden=8, ",
}


def test_code_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    bags, y = make_bags(20, max_snippets=20, random_state=0)
    (tmp_path / "features").mkdir()
    for name, bag in zip(bags.ids, bags, strict=True):
        np.save(tmp_path / "features" / f"{name}.npy", bag)
    np.savetxt(tmp_path / "video_labels.txt", np.asarray(y), fmt="%d")
    (tmp_path / "ten_crops").mkdir()
    lines = []
    for name, bag, label in zip(bags.ids, bags, y, strict=True):
        np.save(tmp_path / "ten_crops" / f"{name}.npy", np.stack([bag] * 10, axis=1))
        event = "Arson 9 40 -1 -1" if label else "Normal -1 -1 -1 -1"
        lines.append(f"{name}.mp4  {event}")
    (tmp_path / "annotations.txt").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)
    text = README.read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(blocks) == 6
    code = "\n".join(blocks)
    for large, small in SMALLER.items():
        assert large in code
        code = code.replace(large, small)
    events = [(i, 8, 40) for i in np.flatnonzero(y == 1)]
    names = {"snippet": bags[0][0], "events": events}
    exec(compile(code, "README.md", "exec"), names)
    assert 0 <= names["score"] <= 1
    expected = names["snippet_scores"][0]
    np.testing.assert_allclose(names["onnx_scores"][0], expected, atol=1e-5)
    assert [len(s) for s in names["frame_scores"]] == (16 * bags.lengths).tolist()
    assert len(capsys.readouterr().out.split()) >= 5


def test_links_of_the_readme_exist():
    links = re.findall(r"\]\(([^)#:]+)\)", README.read_text(encoding="utf-8"))
    assert len(links) >= 6
    assert [link for link in links if not (README.parent / link).exists()] == []
