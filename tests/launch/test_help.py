"""Help of all commands: one screen, in no time; and what a mistyped option gets."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from launch.options import CONFIGS

ROOT = CONFIGS.parent
SCRIPTS = sorted(
    path.name
    for path in (ROOT / "launch").glob("*.py")
    if 'if __name__ == "__main__"' in path.read_text()
)
COMMANDS = {
    **{name: [f"launch/{name}"] for name in SCRIPTS},
    "convert": ["-m", "detection.convert"],
    "train_aug": ["-m", "segmentation.train_aug"],
}  # fmt: skip
LINES, COLUMNS = 50, 100
HEAVY = ("torch", "torchvision", "detectron2", "matplotlib", "pandas", "rich", "submitit")


def typed(name: str, *words: str, columns: int = COLUMNS) -> tuple[int, str, str]:
    """Exit status, output and errors of a command, in a process that says what it has imported."""
    found = subprocess.run(
        [sys.executable, "-X", "importtime", *COMMANDS[name], *words],
        cwd=ROOT,
        env=os.environ | {"COLUMNS": str(columns), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    imports = [line for line in found.stderr.splitlines() if line.startswith("import time:")]
    said = [line for line in found.stderr.splitlines() if line not in imports]
    loaded = {line.rpartition("|")[2].strip() for line in imports}
    assert "common.errors" in loaded and not loaded & {*HEAVY}
    return found.returncode, found.stdout, "\n".join(said)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_a_screen_and_imports_nothing_heavy(name: str):
    status, shown, said = typed(name, "--help")
    lines = shown.splitlines()
    assert (status, said) == (0, "")
    assert 5 < len(lines) <= LINES and max(map(len, lines)) <= COLUMNS
    assert lines[0].startswith("usage: ") and "--help-all" in shown


@pytest.mark.parametrize(
    ("name", "word", "nearest"),
    [
        ("pretrain.py", "--epoch", "--epochs"),
        ("pretrain.py", "--epoc", "--epochs"),
        ("pretrain.py", "--leraning-rate", "--lr"),
        ("pretrain.py", "-epochs", "--epochs"),
        ("transfer.py", "--batch=16", "--batch-size"),
        ("linear.py", "--gpus_per_nod", "--gpus-per-node"),
        ("benchmark.py", "--dryrun", "--dry-run"),
        ("results.py", "--output", "--output-dir"),
        ("convert", "--taget", "--target"),
    ],
)
def test_a_mistyped_option_names_the_nearest(name: str, word: str, nearest: str):
    status, shown, said = typed(name, word, "3")
    wrong = word.partition("=")[0]
    assert (status, shown) == (2, "")
    assert said == f"error: unknown option {wrong}; did you mean {nearest}?"


def test_one_like_no_other_is_told_where_all_are():
    said = "error: unknown option --quux; --help-all describes those that there are."
    assert typed("results.py", "--quux") == (2, "", said)


def test_all_options_are_named_on_the_screen_and_described_in_full():
    screen, whole = (typed("pretrain.py", word)[1] for word in ("--help", "--help-all"))
    names = {word for word in whole.split() if word.startswith("--") and word[-1].isalpha()}
    assert len(names) > 50 and names <= set(screen.split()) | {"--no"}
    assert "--queue-size N" in whole and "--queue-size N" not in screen
    assert "a pattern such as train-{000..146}.tar" in " ".join(whole.split())


def test_help_says_units_and_where_a_default_comes_from(tmp_path: Path, monkeypatch):
    settings = tmp_path / "lewel-transfer" / "slurm.toml"
    settings.parent.mkdir()
    settings.write_text('partition = "gpu"\n')
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    shown = typed("pretrain.py", "--help")[1]
    for text in (
        "Minutes between checkpoints inside an epoch (default: 15)",
        "Peak learning rate for that batch (default: the recipe's, scaled)",
        '"demo" (default: IMAGENET_DIR)',
        "Slurm partition (default: gpu, this site's)",
        "Slurm account (default: Slurm's)",
        "8 on Slurm, else all",
    ):
        assert text in shown


def test_a_narrow_terminal_is_not_overrun():
    lines = typed("transfer.py", "--help", columns=60)[1].splitlines()
    assert max(map(len, lines)) <= 60
