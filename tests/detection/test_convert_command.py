"""``python -m detection.convert`` says what it used, and refuses in one line."""

import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from detection import convert
from detection.convert import read_weights
from tests.common.samples import SAMPLES
from tests.common.writers import numbered
from tests.detection.helpers import CONFIGS, LEWEL_PREFIX, save_lewel, shape_state


def run_main(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[object, str, str]:
    with pytest.raises(SystemExit) as exit_:
        convert.main(words)
    return exit_.value.code, *capsys.readouterr()


def test_the_command_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    online, target = shape_state("resnet18"), numbered("resnet18")
    online = {k: v for k, v in online.items() if not k.endswith("num_batches_tracked")}
    torch.save(SAMPLES["MoCo v2"].write(online, target), tmp_path / "in.pth")
    words = [str(tmp_path / "in.pth"), str(tmp_path / "out.pkl")]
    assert run_main(words, capsys) == (0, f"""\
MoCo v2, method MoCo v2: resnet18, online network
  used       100  module.encoder_q.
  ignored    120  module.encoder_k
  ignored      4  module.encoder_k.fc
  ignored      4  module.encoder_q.fc
  ignored      1  module.queue
  ignored      1  module.queue_ptr
  missing     20  BatchNorm counters, which nothing reads
100 of 120 backbone tensors written to {words[1]}
""", "")  # fmt: skip
    assert run_main([*words, "--online"], capsys)[0] == 0
    code, out, err = run_main([*words, "--target"], capsys)
    assert (code, err) == (0, "") and "resnet18, target network" in out
    assert "120 of 120 backbone tensors" in out and "ignored    100  module.encoder_q\n" in out
    written = pickle.loads((tmp_path / "out.pkl").read_bytes())
    assert written["model"]["stem.conv1.weight"].max() == 1  # the target's
    assert (written["method"], written["network"]) == ("MoCo v2", "target")


@pytest.mark.parametrize("words", [["in.pth", "out.pkl"], ["--help"]])
def test_it_ends_quietly_where_nobody_reads_it(tmp_path: Path, words: list[str]) -> None:
    save_lewel(tmp_path / "in.pth", shape_state("resnet18"), LEWEL_PREFIX)
    reader, writer = os.pipe()
    os.close(reader)
    run = subprocess.run(
        [sys.executable, "-m", "detection.convert", *words], cwd=tmp_path, stdout=writer,
        stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(CONFIGS.parent)},
    )  # fmt: skip
    os.close(writer)
    assert (run.returncode, run.stderr) == (141, "")  # as the shell reports SIGPIPE
    assert len(words) == 1 or read_weights(tmp_path / "out.pkl").architecture == "resnet18"


def test_wrong_words_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_lewel(tmp_path / "in.pth", shape_state("resnet18"), LEWEL_PREFIX)
    words = [str(tmp_path / "in.pth"), str(tmp_path / "out.pkl")]
    for wrong in (
        [str(tmp_path / "nothing"), words[1]], [*words, "--online", "--target"], [*words, "--taget"]
    ):  # fmt: skip
        code, out, err = run_main(wrong, capsys)
        assert (code, out, err.count("\n")) == (2, "", 1) and err.startswith("error: ")
    for wrong in (words[:1], [*words, "more"]):  # in tyro's words
        assert run_main(wrong, capsys)[:2] == (2, "")


def test_a_target_that_is_not_there_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(SAMPLES["SimSiam"].write(shape_state("resnet18"), {}), tmp_path / "in.pth")
    words = [str(tmp_path / "in.pth"), str(tmp_path / "out.pkl"), "--target"]
    code, out, err = run_main(words, capsys)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "SimSiam" in err and "leave --target out" in err
    assert not (tmp_path / "out.pkl").exists()


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("folder", "folder is a folder; give the file to write, not its folder."),
        ("file/x.pkl", "file is a file where .*file/x.pkl needs a folder; choose another place."),
        ("file/more/x.pkl", "file is a file where .*file/more/x.pkl needs a folder; choose"),
        ("/proc/x.pkl", r"/proc/x.pkl cannot be written \(.*\); choose another place."),
    ],
)
def test_an_output_that_cannot_be_written_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], output: str, message: str
) -> None:
    torch.save(SAMPLES["MoCo v2"].write(*[numbered("resnet18")] * 2), tmp_path / "in.pth")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("kept")
    words = [str(tmp_path / "in.pth"), str(tmp_path / output)]
    code, out, err = run_main(words, capsys)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert re.search(message, err)
    assert (tmp_path / "file").read_text() == "kept" and not [*(tmp_path / "folder").iterdir()]
