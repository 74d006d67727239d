"""The Detectron2 that the installer has installed, at work."""

import importlib.util
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

import detectron2_wheel as wheels
import install_detectron2 as installer


@pytest.fixture(scope="module")
def repacked() -> None:
    if installer.installed_tag() is None:
        pytest.skip("the installed Detectron2 is not the repacked one")
    found = importlib.util.find_spec("detectron2")
    if not (found and found.origin and found.origin.startswith(sysconfig.get_path("purelib"))):
        pytest.skip("another Detectron2 comes before the repacked one on the path")


def test_keeps_what_is_installed(repacked) -> None:
    assert installer.installed_tag() == wheels.tool_tag(), "run tools/install_detectron2.py"
    state = installer.ensure("index", installer.COMMIT)
    assert state.startswith("keeping Detectron2 0.6 (without compiled operators) at ")


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


def test_evaluation_falls_back_to_pycocotools(repacked) -> None:
    from detectron2.evaluation import coco_evaluation
    from pycocotools.cocoeval import COCOeval

    assert coco_evaluation.COCOeval_opt is COCOeval


def test_model_zoo_finds_its_configs(repacked) -> None:
    from detectron2 import model_zoo

    cfg = model_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.yaml")
    assert cfg.MODEL.ROI_HEADS.NAME == "Res5ROIHeads" and cfg.SOLVER.BASE_LR == 0.02
    with pytest.raises(RuntimeError, match="not available in Model Zoo"):
        model_zoo.get_config_file("COCO-Detection/nothing.yaml")


def test_semantic_segmentation_evaluator_by_hand(repacked, tmp_path: Path) -> None:
    """Two classes, 8 pixels: IoU 2/3 and 5/6 (one pixel of class 0 predicted as class 1)."""
    from detectron2.data import DatasetCatalog, MetadataCatalog
    from detectron2.evaluation import SemSegEvaluator
    from PIL import Image

    truth = np.array([[0, 0, 0, 1], [1, 1, 1, 1]], dtype=np.uint8)
    guess = np.array([[0, 0, 1, 1], [1, 1, 1, 1]])
    Image.fromarray(truth).save(tmp_path / "truth.png")
    name = "test_install_detectron2_sem_seg"
    entry = {"file_name": "image.jpg", "sem_seg_file_name": str(tmp_path / "truth.png")}
    DatasetCatalog.register(name, lambda: [entry])
    try:
        MetadataCatalog.get(name).set(stuff_classes=["a", "b"], ignore_label=255)
        evaluator = SemSegEvaluator(name, distributed=False)
        evaluator.reset()
        scores = torch.nn.functional.one_hot(torch.from_numpy(guess)).permute(2, 0, 1).float()
        evaluator.process([entry], [{"sem_seg": scores}])
        result = evaluator.evaluate()["sem_seg"]
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    assert result["IoU-a"] == pytest.approx(200 / 3) and result["IoU-b"] == pytest.approx(500 / 6)
    assert result["mIoU"] == pytest.approx(75.0) and result["pACC"] == pytest.approx(87.5)


def test_mask_rcnn_trains_and_predicts(repacked) -> None:
    """One step and one prediction, of a small Mask R-CNN FPN."""
    from detectron2 import model_zoo
    from detectron2.modeling import build_model
    from detectron2.structures import Boxes, Instances, PolygonMasks
    from detectron2.utils.events import EventStorage

    torch.manual_seed(0)
    cfg = model_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml")
    cfg.merge_from_list(
        "MODEL.DEVICE cpu MODEL.RESNETS.DEPTH 18 MODEL.RESNETS.RES2_OUT_CHANNELS 64 "
        "MODEL.RESNETS.NORM BN MODEL.RPN.POST_NMS_TOPK_TEST 20 MODEL.RPN.POST_NMS_TOPK_TRAIN 20 "
        "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE 16 MODEL.ROI_HEADS.SCORE_THRESH_TEST 0.0".split()
    )
    model = build_model(cfg)
    truth = Instances((96, 128))
    truth.gt_boxes = Boxes(torch.tensor([[20.0, 30.0, 90.0, 80.0]]))
    truth.gt_classes = torch.tensor([3])
    truth.gt_masks = PolygonMasks([[np.array([20.0, 30, 90, 30, 90, 80, 20, 80])]])
    image = {"image": torch.rand(3, 96, 128) * 255, "instances": truth, "height": 96, "width": 128}
    with EventStorage(0):
        losses = model([image])
        sum(losses.values()).backward()
    assert set(losses) == {"loss_cls", "loss_box_reg", "loss_mask", "loss_rpn_cls", "loss_rpn_loc"}
    gradient = model.backbone.bottom_up.res4[0].conv1.weight.grad
    assert torch.isfinite(gradient).all() and gradient.abs().sum() > 0
    model.eval()
    with torch.no_grad():
        predicted = model([image])[0]["instances"]
    assert predicted.image_size == (96, 128) and predicted.pred_masks.shape[1:] == (96, 128)
