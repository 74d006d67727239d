"""The kNN benchmark on the embedded data."""

from pathlib import Path

import pytest
import torch

from benchmarks import knn
from pretrain.byol import BYOL


def test_a_row_for_each_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    model = BYOL("resnet18", proj_dim=8, hidden_dim=8)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "byol.pth")
    words = f"--weights none {tmp_path}/byol.pth --data demo --image-size 32 --folds 2 --workers 0"
    with pytest.raises(SystemExit) as ended:
        knn.main(words.split())
    out = capsys.readouterr().out
    assert ended.value.code == 0 and "2-fold kNN of 120 images" in out
    assert out.count(" to ") == 3 and "none" in out and "│ 7 " in out
