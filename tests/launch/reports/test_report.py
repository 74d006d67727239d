"""The report's page, by what is in the file; in a browser: test_browser.py."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from common.provenance import ROOT
from launch.report import Command, write
from tests.launch.reports.made_runs import HOSTILE, rewrite


def page(output_dir: Path, **options: Any) -> str:
    return write(Command(output_dir=output_dir, **options)).read_text()


def test_no_run_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^no run in \S+runs; start one with launch/pretrain\.py"):
        page(tmp_path)
    foreign = tmp_path / "runs" / "transfer" / "foreign" / "metrics.json"
    foreign.parent.mkdir(parents=True)
    foreign.write_text('{"kind": "somethi')
    with pytest.raises(UserError, match=r"^no run in .*foreign/metrics\.json is left out: it does"):
        page(tmp_path)
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"newest": -1}, "--newest -1: must be at least 0"),
        ({"map_size": 10}, "--map-size 10: must be at least 64"),
        ({"output": Path("/")}, "/ is a folder; give the file to write"),
    ],
)
def test_an_option_that_cannot_be(options: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(told)}"):
        page(tmp_path, **options)


def test_refusals_are_fast(tmp_path: Path) -> None:
    code = (
        "import sys, launch.report as r\n"
        "try: r.write(r.Command())\n"
        "except r.UserError: pass\n"
        "print([m for m in ('torch', 'pandas', 'matplotlib', 'jinja2') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_folders_that_are_no_runs_are_named_and_the_rest_is_there(output: Path) -> None:
    runs = output / "runs"
    (runs / "transfer" / "empty").mkdir()
    foreign = runs / "transfer" / "foreign"
    foreign.mkdir()
    (foreign / "metrics.json").write_text('["of something else"]')
    half = runs / "transfer" / "half"
    shutil.copytree(runs / "transfer" / "seed0", half)
    (half / "metrics.json").unlink()
    (half / "metrics.jsonl").write_bytes(b'{"iteration": 0, "total_loss": 2.5}\n\xff\xfe{"iter')
    (half / "config.yaml").write_text("MODEL: {")
    lewel = runs / "pretrain" / "lewel"
    for checkpoint in lewel.glob("checkpoint_*"):
        checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    text = page(output)
    assert f"{foreign / 'metrics.json'} is left out: it does not hold the metrics" in text
    assert "5 finished, 1 unfinished runs" in text and "No learning curve" in text
    assert re.search(r"No maps: \S+ is not a readable PyTorch checkpoint \(1000 bytes\)", text)


def test_no_finished_run_is_a_page_that_says_so(output: Path) -> None:
    for metrics in output.glob("runs/*/*/metrics.json"):
        metrics.unlink()
    text = page(output)
    assert "No run is finished yet" in text and text.count("<article") == 5
    assert not (output / "results" / "summary.md").exists()


def test_a_name_with_html_in_it_is_words(output: Path) -> None:
    scores = {"box_AP": {HOSTILE: 12.5, "$x^2$": None}}
    (output / "runs/transfer/seed0/inference/per_class.json").write_text(json.dumps(scores))
    for seed in range(2):
        rewrite(output / f"runs/transfer/seed{seed}/metrics.json", method=HOSTILE)
    text = page(output)
    assert "<img src=x" not in text and text.count("&lt;img src=x onerror=alert(1)&gt;") > 3
    tex = (output / "results" / "summary.tex").read_text()
    assert r"demo\_R\_18\_FPN" in tex and r"$\pm$" in tex and r"\bottomrule" in tex
    assert "## transfer" in (output / "results" / "summary.md").read_text()


def test_data_sets_that_are_not_here_are_named_and_the_rest_is_there(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for run in ("seed0", "seed1"):
        config = output / "runs" / "transfer" / run / "config.yaml"
        config.write_text(config.read_text().replace("demo_coco_val", "voc_2007_val"))
    rewrite(output / "runs/pretrain/lewel/config.json", data="/nowhere")
    text = page(output)
    assert "the test set voc_2007_val is not on this machine" in text
    assert "its validation images are not on this machine" in text
    assert text.count("ground truth of") == 8  # VOC's detector and the segmentation: four each


def test_two_hundred_runs_are_a_page(output: Path) -> None:
    runs = output / "runs" / "transfer"
    files = ("metrics.json", "metrics.jsonl", "config.yaml")
    for number in range(195):
        (runs / f"more{number}").mkdir()
        for name in files:
            shutil.copy(runs / "seed0" / name, runs / f"more{number}" / name)
        rewrite(runs / f"more{number}" / "metrics.json", seed=number + 2)
    text = page(output, newest=3)
    assert "maps are of the newest 3 of 200 runs (--newest); the tables have all" in text
    assert text.count("<article") == 200 and len(text) < 2e6


def test_the_published_curve_stands_beside_its_own_recipe_alone(output: Path) -> None:
    folder = output / "runs" / "pretrain" / "lewel"
    from pretrain.config import PretrainConfig

    recipe = PretrainConfig(data="demo", epochs=100).resolve()
    rows = [
        {"step": 1251 * (epoch + 1) - 1, "epoch": epoch, "epoch_loss": 0.8, "loss": 0.8}
        for epoch in range(3)
    ]
    told = "LEWEL's log"

    def shown(steps: int, **changes: Any) -> bool:
        fields = {f: getattr(recipe, f) for f in recipe.__dataclass_fields__}
        (folder / "config.json").write_text(json.dumps(fields | {"data": "/imagenet"} | changes))
        moved = [row | {"step": (row["step"] + 1) * steps // 1251 - 1} for row in rows]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in moved))
        return told in page(output)

    for rest in (output / "runs" / "transfer", output / "runs" / "segmentation"):
        shutil.rmtree(rest)
    for checkpoint in folder.glob("checkpoint*"):
        checkpoint.unlink()
    assert shown(1251)
    assert not shown(126)  # ImageNet-100
    assert not shown(1251, weight_decay=1.5e-6)
    assert not shown(1251, backbone="resnet18")
    assert not shown(1251, data="demo")
