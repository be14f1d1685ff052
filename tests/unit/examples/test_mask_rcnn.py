"""The parts of ``examples/mask_rcnn.py``: rate, data, backbone, judgement; and the made-up data."""

from __future__ import annotations

import json
from itertools import product
from types import SimpleNamespace

import pytest
import torch
import torchvision
from detection.checkpoints import Checkpoints
from detection.coco_format import Coco
from detection.detector import backbone, build_detector
from detection.judging import average_precision, judge, results
from detection.options import read_options, schedule
from detection.passes import mirrored, read_passes
from made_up_coco import CATEGORIES, SIDE, write_split
from mask_rcnn import equal_facts
from support.coco import change, change_first_object, write_coco
from torch import nn
from torchvision.ops import FrozenBatchNorm2d, box_iou, masks_to_boxes

from hvd_utils.cli.errors import BadInput
from hvd_utils.horovod_backend.consistency import require_equal
from hvd_utils.horovod_backend.world import start_world
from hvd_utils.paper.logical_workers import share
from hvd_utils.paper.results import PRINTED
from hvd_utils.reproduction.detection import detection_command
from hvd_utils.run.checkpoint import save_checkpoint


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return write_coco(tmp_path_factory.mktemp("shapes"))


def options_of(*more):
    return read_options(["--data", "COCO", *map(str, more)])


def agreement(target):
    """Return the least IoU of an object's box and its mask's, whose last pixel counts too."""
    around = masks_to_boxes(target["masks"]) + torch.tensor([0, 0, 1, 1])
    return box_iou(target["boxes"], around).diagonal().min()


@pytest.mark.parametrize("row", PRINTED["detection"], ids=lambda row: f"{row['gpus']} GPUs")
def test_a_row_of_table_3b_has_its_rate_and_steps(row):
    """One worker a GPU; warmup and decay come after as many images in each row."""
    words = detection_command(row["gpus"], "torchvision/resnet50", seed=7).split()
    options, settings = read_options(words[words.index("--data") :])
    minibatch = settings.with_workers(row["gpus"]).minibatch
    rate = schedule(minibatch, options)
    assert (minibatch, rate.end, settings.seed) == (row["minibatch"], row["steps"], 7)
    warm, decayed = 500 * 16 // minibatch, 120_000 * 16 // minibatch
    assert rate(0) == rate(warm - 1) == pytest.approx(row["rate"] / 3)
    assert rate(warm) == rate(decayed - 1) == pytest.approx(row["rate"])
    assert rate(decayed) == pytest.approx(row["rate"] / 10)


def test_gradual_warmup_rises_to_the_rate():
    rate = schedule(16, options_of("--warmup", "gradual")[0])
    assert [rate(0), rate(250), rate(500)] == pytest.approx([0.02 / 3, 0.04 / 3, 0.02])
    assert schedule(16, options_of("--warmup", "none")[0])(0) == pytest.approx(0.02)


def test_small_sets_what_is_not_given():
    options, settings = options_of("--small", "--min-size", 96)
    assert (options.min_size, options.rois) == (96, 32)
    assert not settings.nesterov
    with pytest.raises(BadInput, match="--nonsense"):
        options_of("--nonsense")


def test_the_made_up_set_is_the_same_again(shapes, tmp_path):
    write_split(tmp_path, "train2017", 20, seed=1)
    for path in tmp_path.rglob("*.*"):
        assert path.read_bytes() == (shapes / path.relative_to(tmp_path)).read_bytes()
    content = json.loads((shapes / "annotations/instances_train2017.json").read_text())
    assert {one["category_id"] for one in content["annotations"]} == set(CATEGORIES)


def test_pictures_come_with_boxes_labels_and_masks(shapes):
    data = Coco(shapes, "train2017", only_with_objects=True)
    assert list(data.categories.values()) == ["circle", "square", "triangle"]
    seen = set()
    for item in range(len(data)):
        image, target = data[item]
        assert image.shape == (3, SIDE, SIDE)
        assert 0 <= image.min() < image.max() <= 1
        assert agreement(target) > 0.85
        inside = image[:, target["masks"].bool().any(dim=0)]
        # Shapes are brighter than the noise; an outline's pixels may count as either.
        assert (inside > 0.48).float().mean() > 0.9
        seen |= set(target["labels"].tolist())
    assert seen == {1, 2, 3}


def test_a_mirrored_picture_keeps_its_objects(shapes):
    image, target = Coco(shapes, "train2017")[0]
    turned, there = mirrored(image, target)
    assert torch.equal(turned, image.flip(-1))
    assert agreement(there) > 0.85
    assert torch.equal(there["masks"], target["masks"].flip(-1))
    assert torch.equal(mirrored(turned, there)[0], image)


def test_crowds_and_pictures_without_objects_are_not_learned(shapes, tmp_path):
    write_split(tmp_path, "train2017", 3, seed=1)
    content = json.loads((tmp_path / "annotations/instances_train2017.json").read_text())
    kept = []
    for one in content["annotations"]:
        if one["image_id"] == 1:
            one["iscrowd"] = 1
        if one["image_id"] != 2:
            kept.append(one)
    change(tmp_path, "train2017", annotations=kept)
    data = Coco(tmp_path, "train2017", only_with_objects=True)
    assert [data.image_id(item) for item in range(len(data))] == [3]
    everything = Coco(tmp_path, "train2017")
    assert len(everything) == 3
    assert everything[0][1]["masks"].shape == (0, SIDE, SIDE)


def test_any_number_of_processes_reads_the_same_minibatches(shapes):
    data = Coco(shapes, "train2017")
    _, settings = options_of("--workers", 3)

    def passes(size):
        found = {}
        for rank in range(size):
            mine = share(3, rank, size)
            read = read_passes(data, settings, mine, range(2))
            found |= dict(zip(product(range(2), mine), read, strict=True))
        return found

    alone, shared = passes(1), passes(2)
    assert set(alone) == set(shared)
    assert len(alone) == 2 * 3
    for place, (images, targets) in alone.items():
        assert len(images) == 2
        assert all(map(torch.equal, images, shared[place][0]))
        for ours, theirs in zip(targets, shared[place][1], strict=True):
            assert ours.keys() == theirs.keys()
            assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    shown = [image for images, _ in alone.values() for image in images]
    plain = [data[item][0] for item in range(len(data))]
    as_they_lie = [any(torch.equal(image, one) for one in plain) for image in shown]
    assert 0 < sum(as_they_lie) < len(shown)  # some are mirrored
    either = {min(i.numpy().tobytes(), i.flip(-1).numpy().tobytes()) for i in shown}
    assert len(either) == len(shown)  # another picture in each place of the epoch


def test_ranks_whose_validation_annotations_differ_are_refused(tmp_path):
    """Each would find other pictures by the numbers that it takes from its own file."""
    write_coco(tmp_path, train=1)
    found = []
    for spoil in (lambda folder: None, lambda folder: change_first_object(folder, area=7)):
        spoil(tmp_path)
        facts = equal_facts(options_of()[1], {}, Coco(tmp_path, "val2017"))
        found.append(("a host", facts))
    with pytest.raises(BadInput, match="validation annotations"):
        require_equal(found, 0)


def test_another_runs_checkpoint_is_refused_by_what_differs(tmp_path):
    _, settings = options_of("--output", tmp_path)
    theirs = {**settings.experiment(), "annotations": "sha256:1"}
    content = {"step": 1, "experiment": theirs, "model": {}, "optimizer": {}}
    save_checkpoint(tmp_path, content, keep=1)
    checkpoints = Checkpoints(settings, {"annotations": "sha256:2"}, None, start_world("cpu"))
    with pytest.raises(BadInput, match="another run: annotations was sha256:1, now sha256:2: go "):
        checkpoints.resume()


def write_weights(path, model):
    torch.save(model.state_dict(), path)
    return str(path)


def test_the_backbone_is_taken_whole(tmp_path):
    """Features are those of the classifier that was exported, in evaluation."""
    classifier = torchvision.models.resnet18(num_classes=3).eval()
    for norm in filter(lambda m: isinstance(m, nn.BatchNorm2d), classifier.modules()):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    file = write_weights(tmp_path / "w.pth", classifier)
    options, settings = options_of("--small", "--model", "resnet18", "--init", file)
    model, told, _ = build_detector(settings, options, categories=3)
    assert told.startswith(f"init: all 100 tensors of the backbone from {file} (sha256:")
    assert told.endswith("new: the pyramid and the heads; not used: fc.weight, fc.bias")
    body = model.train().backbone.body
    assert any(isinstance(module, FrozenBatchNorm2d) for module in body.modules())
    images = torch.rand(1, 3, 64, 64)
    classifier.avgpool = classifier.fc = nn.Identity()
    torch.testing.assert_close(body(images)["3"].flatten(1), classifier(images))
    frozen = {name.split(".")[0] for name, p in body.named_parameters() if not p.requires_grad}
    assert frozen == {"conv1", "layer1"}


def test_weights_of_another_network_are_refused(tmp_path):
    file = write_weights(tmp_path / "w.pth", torchvision.models.resnet18())
    with pytest.raises(BadInput, match="of another network than --model resnet34"):
        backbone("resnet34", file)
    with pytest.raises(BadInput, match="no ResNet of torchvision"):
        backbone("vgg11", None)


class Perfect(nn.Module):
    """Finds what there is in ``items`` of ``data``, read in turn."""

    def __init__(self, data, items=None):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.answers = iter(data[item][1] for item in items or range(len(data)))

    def forward(self, images):
        target = next(self.answers)
        scores = torch.ones(len(target["labels"]))
        return [{**target, "scores": scores, "masks": target["masks"][:, None].float()}]


def test_a_perfect_detector_has_an_average_precision_of_100_percent(shapes):
    data = Coco(shapes, "val2017")
    precision = judge(Perfect(data), data, start_world("cpu"))
    assert precision == pytest.approx(dict.fromkeys(precision, 100))
    assert set(precision) == {"box_ap", "box_ap50", "mask_ap", "mask_ap50"}


def test_each_rank_judges_a_part_and_all_count(shapes):
    data, parts = Coco(shapes, "val2017"), []

    def gather(mine):
        parts.append(mine)
        return parts

    for rank in (1, 0):
        world = SimpleNamespace(
            rank=rank, size=2, is_root=rank == 0, device=torch.device("cpu"), gather=gather
        )
        precision = judge(Perfect(data, range(rank, len(data), 2)), data, world)
        assert (precision is None) == (rank == 1)
    assert precision == pytest.approx(dict.fromkeys(precision, 100))


def test_the_average_precision_falls_with_what_is_wrong(shapes):
    data = Coco(shapes, "val2017")
    categories = list(data.categories)
    found = []
    for item in range(len(data)):
        _, target = data[item]
        boxes = target["boxes"] + torch.tensor([0.0, 0, 8, 0])  # too wide: IoU about 0.85
        answer = {**target, "boxes": boxes, "scores": torch.ones(len(boxes))}
        answer["masks"] = target["masks"][:, None].float()
        found += results(data.image_id(item), answer, categories)
    precision = average_precision(data, found)
    assert precision["box_ap50"] == precision["mask_ap"] == pytest.approx(100)
    assert 40 < precision["box_ap"] < 90
    assert set(average_precision(data, []).values()) == {0.0}
