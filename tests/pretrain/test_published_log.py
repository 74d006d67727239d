"""The published log of 100 epochs, against the figures that the project's issues quote of it."""

from importlib.resources import files

import pandas as pd

KNN = """9.07 13.69 19.42 21.45 23.98 24.28 25.76 27.09 28.01 28.15
29.68 31.64 32.40 33.36 33.70 34.44 34.93 35.11 35.18 35.09"""
LOSS = {0: 0.804, 1: 0.785, 2: 0.624, 5: 0.660, 10: 0.663, 20: 0.684, 50: 0.585, 99: 0.308}


def test_its_curves() -> None:
    with (files("pretrain") / "published_log.csv").open() as file:
        table = pd.read_csv(file)
    epochs = table[table["step"].isna()].set_index("epoch")
    knn = epochs["knn20_val_bank"].dropna()
    assert list(knn.round(2)) == [float(value) for value in KNN.split()]
    assert list(knn.index) == list(range(4, 100, 5))  # from 0, as in metrics.jsonl
    assert dict(epochs["loss"].round(3)[list(LOSS)]) == LOSS
    steps = table.dropna(subset="step").set_index("step")["loss"]
    assert (steps[0].round(2), steps[150].round(3)) == (3.97, 0.097)
    assert table["source"].str.contains("LEWEL_B-100ep").all() and set(table["run"]) == {
        "LEWEL_B eman 100"
    }
