"""The Detectron2 that the installer has installed, at work."""

import importlib.metadata
import importlib.util
import sysconfig

import pytest
import torch
import torchvision
from packaging.requirements import Requirement

import install_detectron2 as installer


@pytest.fixture(scope="module")
def repacked() -> None:
    if installer.installed_tag() is None:
        pytest.skip("the installed Detectron2 is not the repacked one")
    found = importlib.util.find_spec("detectron2")
    if not (found and found.origin and found.origin.startswith(sysconfig.get_path("purelib"))):
        pytest.skip("another Detectron2 comes before the repacked one on the path")


def test_it_is_kept(repacked, capsys: pytest.CaptureFixture[str]) -> None:
    assert installer.installed_tag() == installer.tool_tag(), "run tools/install_detectron2.py"
    with pytest.raises(SystemExit) as ended:
        installer.main([])
    said = "keeping Detectron2 0.6 (without compiled operators) at "
    assert capsys.readouterr().out.startswith(said) and not ended.value.code


def test_its_requirements_hold_today(repacked) -> None:
    stated = map(Requirement, importlib.metadata.requires("detectron2") or ())
    requirements = {one.name.lower(): one for one in stated}
    assert set(requirements) == set(
        "pillow matplotlib pycocotools termcolor yacs tabulate cloudpickle tqdm tensorboard "
        "fvcore iopath omegaconf hydra-core".split()
    )
    assert requirements["iopath"].specifier.contains("0.1.10")


def test_its_code_has_none_of_the_removed_names(repacked) -> None:
    removed = [f"np.{name}{end}" for name in ("bool", "int", "float", "str") for end in "),"]
    removed += ["Image.LINEAR", "pkg_resources", "torch.cuda.amp", "from detectron2 import _C\n\n"]
    files = [path for path in importlib.metadata.files("detectron2") or () if path.suffix == ".py"]
    assert len(files) > 150
    for path in files:
        text = path.read_text(encoding="utf-8")
        compile(text, path.name, "exec")
        found = [old for old in removed if old in text.replace("# difficult = np", "")]
        assert path.name == "fast_eval_api.py" or not found, path


def test_mask_rcnn_layers_are_torchvisions(repacked) -> None:
    from detectron2.layers import ROIAlign, batched_nms

    features, boxes = torch.rand(2, 4, 16, 16), torch.tensor([[0, 1, 2, 9, 9], [1, 0, 0, 5, 7]])
    ours = ROIAlign((7, 7), 0.5, 2, aligned=True)(features, boxes.float())
    theirs = torchvision.ops.roi_align(features, boxes.float(), (7, 7), 0.5, 2, aligned=True)
    assert torch.equal(ours, theirs)
    xyxy = torch.tensor([[0, 0, 10, 10], [1, 1, 10, 10], [0, 0, 10, 10], [20, 20, 30, 30]]).float()
    keep = batched_nms(xyxy, torch.tensor([0.9, 0.8, 0.7, 0.6]), torch.tensor([0, 0, 1, 1]), 0.5)
    assert keep.tolist() == [0, 2, 3]


def test_compiled_operators_fail_only_when_used(repacked) -> None:
    import copy

    from detectron2.layers import DeformConv
    from detectron2.layers.rotated_boxes import pairwise_iou_rotated

    copy.deepcopy(DeformConv(4, 4, 3))
    boxes = torch.tensor([[5.0, 5.0, 4.0, 4.0, 30.0]])
    with pytest.raises(ImportError, match=r"detectron2\._C\.box_iou_rotated is not available"):
        pairwise_iou_rotated(boxes, boxes)


def test_model_zoo_finds_its_configs(repacked) -> None:
    from detectron2 import model_zoo

    cfg = model_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.yaml")
    assert cfg.MODEL.ROI_HEADS.NAME == "Res5ROIHeads" and cfg.SOLVER.BASE_LR == 0.02
    with pytest.raises(RuntimeError, match="not available in Model Zoo"):
        model_zoo.get_config_file("COCO-Detection/nothing.yaml")
