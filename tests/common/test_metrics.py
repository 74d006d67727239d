"""A resumed run's ``metrics.jsonl`` has every step once, in order."""

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from common.metrics import MetricsLog, read_lines, rewind


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 40))
def test_a_killed_and_resumed_log_equals_an_uninterrupted_one(
    tmp_path_factory: object, reached: int, checkpoint: int, cut: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "metrics.jsonl"  # type: ignore[attr-defined]
    checkpoint = min(checkpoint, reached)
    first = MetricsLog(path, 0)
    for step in range(reached):
        first.write({"step": step, "loss": step / 2})
    first.close()
    text = path.read_bytes()  # the kill: a line may be cut anywhere after the checkpoint
    whole = len("".join(text.decode().splitlines(keepends=True)[:checkpoint]))
    path.write_bytes(text[: max(whole, len(text) - cut)])
    second = MetricsLog(path, checkpoint)
    for step in range(checkpoint, 31):
        second.write({"step": step, "loss": step / 2})
    second.close()
    assert read_lines(path) == [{"step": step, "loss": step / 2} for step in range(31)]


def test_rewind_keeps_lines_of_other_kinds(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"iteration": i}) + "\n" for i in (19, 39, 59)))
    rewind(path, "iteration", 40)
    assert [row["iteration"] for row in read_lines(path)] == [19, 39]


def test_a_start_from_nothing_drops_what_came_before_the_first_step(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": -1, "knn": 30}\n{"step": 0, "loss": 1}\n')
    rewind(path, "step", 0)
    assert read_lines(path) == []
