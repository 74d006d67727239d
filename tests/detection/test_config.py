"""A transfer job's configuration: mistakes in it, and the name of its run folder."""

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import pytest
import yaml
from detectron2.config import CfgNode, get_cfg
from hypothesis import given, settings
from hypothesis import strategies as st

import segmentation  # noqa: F401  registers FCN
from common.errors import UserError
from common.weights import Weights
from detection.config import TransferConfig, read, resolve
from tests.detection.helpers import CONFIGS

FPN = CONFIGS / "coco_R_50_FPN_1x_infomin.yaml"
LEWEL = Weights(
    "resnet50", "R-50.pkl", sha256="0123456789abcdef", method="LEWEL_B", norm="eman", epochs=200
)


def job(*overrides: str, **options: Any) -> TransferConfig:
    return resolve(read(FPN), LEWEL, overrides=overrides, **options)


def content(cfg: CfgNode) -> Any:
    """All values, without the difference between nested tuples and lists."""
    return yaml.safe_load(cfg.dump())


def test_options_and_overrides_are_in_the_detectron2_config() -> None:
    cfg = job("SOLVER.MAX_ITER", "7", "SOLVER.STEPS", "(3, 5)", lr=2e-4, seed=3).detectron2()
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS, cfg.SOLVER.BASE_LR) == (7, (3, 5), 2e-4)
    assert (cfg.MODEL.WEIGHTS, cfg.SEED) == ("", 3)
    plain = read(FPN).cfg
    cfg.merge_from_list(["SOLVER.MAX_ITER", 90000, "SOLVER.STEPS", (60000, 80000), "SEED", -1,
                         "SOLVER.BASE_LR", 0.02, "MODEL.WEIGHTS", "See Instructions"])  # fmt: skip
    assert content(cfg) == content(plain)  # and nothing else


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("[!B]*.yaml")), ids=lambda path: path.stem)
def test_a_jobs_text_is_the_whole_config(path: Path) -> None:
    expected = get_cfg()
    expected.merge_from_file(str(path))
    expected.MODEL.WEIGHTS, expected.SEED = "", 0
    config = pickle.loads(pickle.dumps(resolve(read(path))))
    assert content(config.detectron2()) == content(expected)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("SOLVER.MAX_ITERS", "5"), r"SOLVER\.MAX_ITERS is not a key"),
        (("SOLVR.MAX_ITER", "5"), r"SOLVR\.MAX_ITER is not a key"),
        (("SOLVER.MAX_ITER.X", "5"), r"SOLVER\.MAX_ITER\.X is not a key"),
        (("MODEL.DEVICE.cu", "5"), r"MODEL\.DEVICE\.cu is not a key"),
        (("SOLVER.MAX_ITER.X.Y", "5"), r"SOLVER\.MAX_ITER\.X\.Y is not a key"),
        (("SOLVER.MAX_ITER",), r"SOLVER\.MAX_ITER has no value"),
        (("SOLVER.MAX_ITER", "5", "SEED"), "SEED has no value"),
        (("MODEL.WEIGHTS", "a.pkl"), r"MODEL\.WEIGHTS has an option .*--weights"),
        (("OUTPUT_DIR", "there"), "OUTPUT_DIR has an option .*--output-dir"),
        (("SEED", "5"), "SEED has an option .*--seed"),
        (("SOLVER.MAX_ITER", "many"), r"SOLVER\.MAX_ITER cannot be many"),
        (("SOLVER.STEPS", "60000"), r"SOLVER\.STEPS cannot be 60000"),
        (("MODEL.MASK_ON", "3"), r"MODEL\.MASK_ON cannot be 3"),
        (("SOLVER", "3"), "SOLVER "),
    ],
)
def test_a_wrong_override_is_named(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        job(*overrides).detectron2()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        ("MODEL: {DEEP: 50}", r"is not a Detectron2 config: .*MODEL\.DEEP"),
        ("MODEL: [1, 2", "is not a Detectron2 config"),
        ("SOLVER: {MAX_ITER: many}", "is not a Detectron2 config: .*MAX_ITER"),
        ("_BASE_: nowhere.yaml", r"is not a Detectron2 config: .*nowhere\.yaml"),
        ("just words", "is not a Detectron2 config"),
        ("- a\n- list", "is not a Detectron2 config"),
        ("", "is not a Detectron2 config"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "mine.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=rf"mine\.yaml.*{message}") as error:
        read(path)
    assert "\n" not in str(error.value)


def test_a_run_name_says_what_it_is() -> None:
    assert job().run_name() == "coco_R_50_FPN_1x_infomin-01234567-lr0.02-b16-s0"
    assert job("SOLVER.IMS_PER_BATCH", "8", lr=2e-4, seed=4).run_name() == (
        "coco_R_50_FPN_1x_infomin-01234567-lr0.0002-b8-s4"
    )
    assert resolve(read(FPN)).run_name().startswith("coco_R_50_FPN_1x_infomin-random-lr")
    ours = resolve(read(FPN), dataclasses.replace(LEWEL, run="lewel_b-eman-s0"))
    assert ours.run_name() == "coco_R_50_FPN_1x_infomin-lewel_b-eman-s0@200-lr0.02-b16-s0"


jobs = st.builds(
    resolve,
    st.sampled_from([read(FPN), read(CONFIGS / "coco_R_50_C4_1x_infomin.yaml")]),
    weights=st.sampled_from([Weights(), LEWEL, Weights("", "b.pkl", sha256="fedcba9876543210")]),
    lr=st.sampled_from([None, 0.01, 2e-4]),
    seed=st.integers(0, 2),
    overrides=st.lists(
        st.tuples(st.sampled_from(["SOLVER.MAX_ITER", "SOLVER.IMS_PER_BATCH"]),
                  st.sampled_from(["8", "24"])),
        max_size=2, unique_by=lambda pair: pair[0],
    ).map(lambda pairs: tuple(word for pair in pairs for word in pair)),
)  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(jobs, jobs)
def test_run_names_differ_exactly_where_jobs_do(one: TransferConfig, other: TransferConfig) -> None:
    same = str(one.detectron2()) == str(other.detectron2()) and one.weights == other.weights
    assert (one.run_name() == other.run_name()) == same


@pytest.mark.parametrize(
    ("lr", "overrides", "low"),
    [
        (None, (), False),
        (2e-4, (), True),
        (0.002, (), False),  # a tenth of the config's 0.02 is not under a tenth
        (0.00199, (), True),
        (0.2, (), False),
        (None, ("SOLVER.BASE_LR", "0.0002"), True),
    ],
)
def test_a_low_learning_rate_is_marked(
    lr: float | None, overrides: tuple[str, ...], low: bool
) -> None:
    assert job(*overrides, lr=lr).low_lr is low


def test_another_batch_is_scaled_by_detectron2s_rule() -> None:
    """Half the batch: half the learning rate, twice the iterations, steps and warm-up."""
    one = job(lr=0.01, batch_size=8)
    solver = one.detectron2().SOLVER
    assert (solver.IMS_PER_BATCH, solver.BASE_LR, solver.MAX_ITER) == (8, 0.005, 180000)
    assert (solver.STEPS, solver.WARMUP_ITERS) == ((120000, 160000), 2000)
    assert solver.REFERENCE_WORLD_SIZE == 0
    assert one.run_name().startswith("coco_R_50_FPN_1x_infomin-01234567-lr0.005-b8-scaled-s")
    assert not one.low_lr and job(lr=0.0019, batch_size=8).low_lr
    literal = job("SOLVER.IMS_PER_BATCH", "8", lr=0.005)
    assert literal.detectron2().SOLVER.MAX_ITER == 90000
    assert literal.run_name() != one.run_name()


def test_overrides_are_never_scaled() -> None:
    one = job("SOLVER.MAX_ITER", "100", "SOLVER.BASE_LR", "0.01", batch_size=4)
    assert (one.detectron2().SOLVER.MAX_ITER, one.detectron2().SOLVER.BASE_LR) == (100, 0.01)
    assert one.detectron2().SOLVER.STEPS == (240000, 320000)


def test_options_and_their_keys_are_one() -> None:
    assert job("SOLVER.BASE_LR", "0.01").detectron2().SOLVER.BASE_LR == 0.01
    assert job(batch_size=16).run_name() == job().run_name()  # the config's own
    with pytest.raises(UserError, match=r"SOLVER\.BASE_LR and --lr are the same"):
        job("SOLVER.BASE_LR", "0.01", lr=0.02)
    with pytest.raises(UserError, match=r"IMS_PER_BATCH and --batch-size are the same"):
        job("SOLVER.IMS_PER_BATCH", "8", batch_size=8)
    with pytest.raises(UserError, match="--batch-size 0: must be at least 1"):
        job(batch_size=0)


def test_an_evaluation_is_another_run_than_a_training() -> None:
    one = job(eval_only=True)
    assert one.run_name() == f"{job().run_name()}-eval" and one.identity() != job().identity()
