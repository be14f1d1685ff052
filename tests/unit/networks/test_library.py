"""How networks of libraries are built: initialised, checked, refused."""

import pytest
import timm
import torch
from torch import nn

from hvd_utils.cli.errors import BadInput
from hvd_utils.config.command_line import load_settings
from hvd_utils.networks.head import head_layers, head_names
from hvd_utils.networks.library import CLASSIFIERS, refuse_other_statistics
from hvd_utils.nn.batch_norm import batch_norms, normalise_by_worker
from hvd_utils.nn.batch_norm_act import WorkerBatchNormAct2d
from hvd_utils.nn.models import build_model, recipe_model
from hvd_utils.training.optimizer import parameter_groups


def build(name, by="paper", zero_gamma=True, sides=()):
    return build_model(name, 7, zero_gamma=zero_gamma, seed=1, by=by, sides=sides)


def zero_gammas(model):
    return sum(1 for norm in batch_norms(model) if not norm.weight.any())


@pytest.mark.parametrize("by", ["paper", "library"])
@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("timm/resnet18", 8),
        ("timm/test_resnet", 4),
        ("timm/regnetx_002", 13),  # of batch norms with activations
        ("timm/test_byobnet", 4),  # by its blocks' init_weights
        ("resnet18", 8),
        ("torchvision/resnet18", 8),
        ("mobilenet_v2", 0),  # has no way of its own
    ],
)
def test_gamma_is_zero_where_the_library_has_a_way_and_the_setting_asks(name, blocks, by):
    assert zero_gammas(build(name, by)) == blocks
    assert zero_gammas(build(name, by, zero_gamma=False)) == 0


def test_the_papers_initialisation_is_of_convolutions_batch_norms_and_the_head():
    model = build("timm/seresnet18")
    assert model.fc.weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert not model.fc.bias.any()
    conv = model.layer4[0].conv2
    assert conv.weight.std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.05)
    ours, theirs = (
        build("timm/test_vit", sides=[160]),
        build("timm/test_vit", "library", sides=[160]),
    )
    assert torch.equal(ours.blocks[0].mlp.fc1.weight, theirs.blocks[0].mlp.fc1.weight)
    assert not torch.equal(ours.head.weight, theirs.head.weight)


@pytest.mark.parametrize("by", ["paper", "library"])
def test_the_setting_reaches_the_network(by):
    """The paper draws the head by a standard deviation of 0.01; timm's ResNets by another."""
    given = ["--recipe", "demo", "--model", "timm/test_resnet", "--initialise", by]
    model = recipe_model(load_settings(given, {}), 100)
    assert (model.fc.weight.std().item() == pytest.approx(0.01, rel=0.1)) == (by == "paper")


def test_the_librarys_initialisation_is_its_own():
    ours = build("timm/regnetx_002", "library")
    torch.manual_seed(1)
    theirs = timm.create_model("regnetx_002", num_classes=7)
    assert all(
        torch.equal(ours.state_dict()[name], value) for name, value in theirs.state_dict().items()
    )


def test_layers_that_normalise_do_not_decay():
    for name in ("timm/regnetx_002", "timm/test_vit", "timm/test_efficientnet_gn"):
        model = build(name)
        decayed, kept = parameter_groups(model, 1e-4)
        norms = [m for m in model.modules() if "Norm" in type(m).__name__ and hasattr(m, "eps")]
        assert norms
        assert {id(p) for p in kept["params"]} == {
            *(id(p) for m in norms for p in m.parameters(recurse=False))
        }
        assert decayed["params"]


def test_batch_norms_with_activations_are_grouped_under_their_own_names():
    model = build("timm/regnetx_002")
    before = [name for name, _ in model.named_parameters()]
    normalise_by_worker(model, [range(2)], 3)
    assert {type(norm) for norm in batch_norms(model)} == {WorkerBatchNormAct2d}
    assert [name for name, _ in model.named_parameters()] == before


def test_the_head_is_found_in_every_kind_of_network():
    for name, head in {
        "timm/test_resnet": "fc",
        "timm/test_byobnet": "head.fc",
        "timm/test_vit": "head",
        "squeezenet1_1": "classifier.1",
        "mobilenet_v3_small": "classifier.3",
        "googlenet": "fc",
    }.items():
        assert head_names(build(name)) == {f"{head}.weight", f"{head}.bias"}, name
    assert len(head_layers(build("timm/levit_128s"))) == 2


def test_every_classifier_of_torchvision_is_known():
    """Built without memory, where its library allows it."""
    made = 0
    with torch.device("meta"):
        for name in CLASSIFIERS:
            try:
                model = build(name)
            except BadInput as error:
                assert "meta" in str(error), name  # noqa: PT017
                continue
            (layer,) = head_layers(model)
            assert 7 in layer.weight.shape, name
            made += 1
    assert made >= 55


@pytest.mark.parametrize(
    ("name", "sides", "words"),
    [
        ("resnet9", [], "no model resnet9: did you mean resnet.*timm/NAME"),
        ("timm/none", [], "no model timm/none: .*timm/NAME"),
        ("torchvision/resnet8", [], "no model torchvision/resnet8"),
        ("hub/resnet18", [], "no model hub/resnet18"),
        ("vit_b_16", [50], "--model vit_b_16 cannot be made .*indivisible"),
        (
            "timm/deit_tiny_patch16_224",
            [64, 128],
            "takes no images of 128 × 128 pixels .*--val-resolution",
        ),
        ("squeezenet1_1", [8], "takes no images of 8 × 8 pixels"),
    ],
)
def test_what_cannot_be_trained_is_refused(name, sides, words):
    with pytest.raises(BadInput, match=words):
        build(name, sides=sides)


def test_what_follows_the_images_other_than_batch_norms_is_refused():
    from timm.layers import EvoNorm2dB0

    for layer in (
        EvoNorm2dB0(4),
        nn.SyncBatchNorm(4),
        nn.InstanceNorm2d(4, track_running_stats=True),
    ):
        with pytest.raises(
            BadInput, match=f"mixes the workers' images in {type(layer).__name__} '1'"
        ):
            refuse_other_statistics(nn.Sequential(nn.Conv2d(3, 4, 1), layer), "x")
    refuse_other_statistics(nn.Sequential(nn.BatchNorm2d(4), nn.BatchNorm1d(4)), "x")


def test_a_fixed_size_follows_the_recipe():
    assert build("timm/test_vit", sides=[128, 128]).patch_embed.img_size == (128, 128)
