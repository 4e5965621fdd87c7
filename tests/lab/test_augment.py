"""Augmentation: each transform alone, on patterns whose answer is known."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from torch import Generator, Tensor

from netsuke.errors import OptionError
from netsuke.lab.augment import FILL, HANDWRITING, Augment

TRANSFORMS = [f.name for f in fields(Augment) if f.name not in ("fill", "clean")]
# A degree is small, a share is not.
EXTENT = {"rotate": 20.0, "shear": 20.0, "elastic": 2.0}


def rng(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def noise(n: int = 6, channels: int = 1, height: int = 12, width: int = 10) -> Tensor:
    return torch.rand(n, channels, height, width, generator=rng(9))


def only(name: str) -> Augment:
    return Augment(**{name: EXTENT.get(name, 0.5)})


def test_off_is_the_identity() -> None:
    x = noise()
    assert Augment().off
    assert Augment(fill="edge", clean=0.5).off
    assert torch.equal(Augment()(x, rng()), x)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_each_alone_changes_the_copy_only(name: str) -> None:
    x = noise(20)
    before = x.clone()
    augment = only(name)
    assert not augment.off
    y = augment(x, rng())
    assert not torch.equal(y, x)
    assert torch.equal(x, before)
    assert y.shape == x.shape
    assert y.dtype == torch.float32


@pytest.mark.parametrize("name", TRANSFORMS)
def test_the_generator_decides(name: str) -> None:
    x, augment = noise(20), only(name)
    torch.manual_seed(1)
    first = augment(x, rng(3))
    torch.manual_seed(2)  # the global stream plays no part
    assert torch.equal(first, augment(x, rng(3)))
    assert not torch.equal(first, augment(x, rng(4)))


@pytest.mark.parametrize("fill", FILL)
@pytest.mark.parametrize("channels", [1, 3])
def test_everything_at_once_stays_in_range(fill: str, channels: int) -> None:
    options = {name: EXTENT.get(name, 1.0) for name in TRANSFORMS if name != "scale"}
    y = Augment(**options, scale=0.9, fill=fill)(noise(50, channels), rng())
    assert torch.isfinite(y).all()
    assert y.min() >= 0
    assert y.max() <= 1


def test_each_image_draws_its_own() -> None:
    x = noise(1).expand(8, -1, -1, -1)
    for name in TRANSFORMS:
        y = only(name)(x, rng())
        assert any(not torch.equal(y[0], other) for other in y[1:]), name


def test_channels_of_an_image_move_together() -> None:
    x = noise(8).expand(-1, 3, -1, -1)
    options = {name: EXTENT.get(name, 0.3) for name in TRANSFORMS if name != "noise"}
    y = Augment(**options)(x, rng())
    assert torch.allclose(y[:, 0], y[:, 1])
    assert torch.allclose(y[:, 0], y[:, 2])


def test_flip_mirrors_exactly() -> None:
    x = noise()
    assert torch.allclose(Augment(flip=1)(x, rng()), x.flip(3), atol=1e-6)
    y = Augment(flip=0.5)(noise(200), rng())
    flipped = (y - noise(200).flip(3)).abs().amax((1, 2, 3)) < 1e-5
    assert 60 < int(flipped.sum()) < 140


def centre(x: Tensor) -> Tensor:
    """The centre of mass of each image: [n, 2] rows and columns, in pixels from the middle."""
    rows = torch.arange(x.shape[2]) - (x.shape[2] - 1) / 2
    columns = torch.arange(x.shape[3]) - (x.shape[3] - 1) / 2
    mass = x.sum((1, 2, 3))
    return torch.stack([(x.sum((1, 3)) * rows).sum(1) / mass, (x.sum((1, 2)) * columns).sum(1) / mass], 1)


def moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Variance along rows, along columns, and covariance of each image's mass."""
    rows = (torch.arange(x.shape[2]) - (x.shape[2] - 1) / 2)[:, None]
    columns = (torch.arange(x.shape[3]) - (x.shape[3] - 1) / 2)[None]
    weight = x[:, 0] / x.sum((1, 2, 3))[:, None, None]
    return tuple((weight * m).sum((1, 2)) for m in (rows * rows, columns * columns, rows * columns))  # type: ignore[return-value]


def spot(n: int = 400, height: int = 40, width: int = 50, spread: float = 2.0) -> Tensor:
    """A soft round spot in the middle."""
    rows = (torch.arange(height) - (height - 1) / 2)[:, None]
    columns = (torch.arange(width) - (width - 1) / 2)[None]
    return torch.exp(-(rows**2 + columns**2) / (2 * spread**2)).expand(n, 1, -1, -1).clone()


def bar(n: int = 400, side: int = 41) -> Tensor:
    """An upright soft bar in the middle of a square."""
    at = torch.arange(side) - (side - 1) / 2
    return torch.exp(-(at[:, None] ** 2) / (2 * 6.0**2) - at[None] ** 2 / (2 * 1.5**2)).expand(n, 1, -1, -1)


def test_shift_moves_up_to_its_share_both_ways() -> None:
    moved = centre(Augment(shift=0.2)(spot(), rng()))
    for axis, side in ((0, 40), (1, 50)):
        assert moved[:, axis].abs().max() <= 0.2 * side + 0.05
        assert moved[:, axis].min() < -0.15 * side
        assert moved[:, axis].max() > 0.15 * side


def test_scale_zooms_about_the_middle() -> None:
    before = moments(spot(1))[0].item()
    y = Augment(scale=0.25)(spot(), rng())
    assert centre(y).abs().max() < 0.02
    rows, columns, _ = moments(y)
    for zoom in ((rows / before).sqrt(), (columns / before).sqrt()):
        assert 0.72 < zoom.min() < 0.8
        assert 1.2 < zoom.max() < 1.28
    assert not torch.allclose(rows, columns, rtol=0.05), "rows and columns are drawn apart"


def test_rotation_turns_the_axis_and_keeps_the_shape() -> None:
    rows, columns, both = moments(Augment(rotate=30)(bar(), rng()))
    angle = (0.5 * torch.atan2(2 * both, rows - columns)).rad2deg()
    assert angle.abs().max() <= 30.5
    assert angle.min() < -25
    assert angle.max() > 25
    straight = moments(bar(1))
    assert torch.allclose(rows + columns, (straight[0] + straight[1]).expand(400), rtol=0.02)


def test_rotation_keeps_angles_on_images_that_are_not_square() -> None:
    """A round spot off the middle stays round and at its distance."""
    x = spot(200, 40, 60).roll(10, 3)
    y = Augment(rotate=40)(x, rng())
    assert torch.allclose(centre(y).norm(dim=1), torch.tensor(10.0), atol=0.1)
    rows, columns, _ = (
        m - c for m, c in zip(moments(y), (centre(y)[:, 0] ** 2, centre(y)[:, 1] ** 2, 0), strict=True)
    )
    assert torch.allclose(rows, columns, rtol=0.05)


def test_shear_slants_and_keeps_the_height() -> None:
    rows, _, both = moments(Augment(shear=25)(bar(), rng()))
    slant = (both / rows).atan().rad2deg()
    assert slant.abs().max() <= 25.5
    assert slant.min() < -20
    assert slant.max() > 20
    assert torch.allclose(rows, moments(bar(1))[0].expand(400), rtol=0.02)


def test_elastic_moves_by_pixels_smoothly() -> None:
    ramp = torch.arange(40) / 40
    x = ramp.expand(50, 1, 40, 40).clone()
    y = Augment(elastic=1.0, fill="edge")(x, rng())
    moved = (y - x)[..., 4:-4] * 40  # on a ramp, a change of value is a displacement
    assert 0.2 < moved.std() < 1
    assert moved.abs().max() < 4
    assert (moved[:, :, 1:] - moved[:, :, :-1]).std() < 0.6 * moved.std()


@pytest.mark.parametrize(("fill", "lowest"), [("zero", 0.0), ("edge", 1.0), ("reflect", 1.0)])
def test_fill_says_what_comes_in(fill: str, lowest: float) -> None:
    y = Augment(shift=0.4, rotate=30, fill=fill)(torch.ones(50, 1, 9, 9), rng())
    assert y.min() == pytest.approx(lowest, abs=1e-5)


def test_fill_edge_and_reflect_differ() -> None:
    x = noise()
    assert not torch.allclose(
        Augment(shift=0.4, fill="edge")(x, rng()), Augment(shift=0.4, fill="reflect")(x, rng())
    )


def test_thickness_grows_and_thins_strokes() -> None:
    x = torch.zeros(200, 1, 9, 9)
    x[:, :, 2:7, 3:6] = 1  # three columns wide
    ink = Augment(thickness=1)(x, rng()).sum((1, 2, 3))
    assert 3 <= ink.min() < 6  # the erosion leaves 3x1
    assert 30 < ink.max() <= 35  # the dilation makes 7x5


def test_blur_is_a_binomial() -> None:
    x = torch.zeros(3, 2, 5, 5)
    x[:, :, 2, 2] = 1
    y = Augment(blur=1)(x, rng())
    want = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
    assert torch.allclose(y[:, :, 1:4, 1:4], want.expand(3, 2, 3, 3))
    assert y.sum() == pytest.approx(6)


def test_contrast_brightness_and_noise_have_their_size() -> None:
    x = torch.full((400, 1, 6, 6), 0.5)
    for name in ("contrast", "brightness"):
        y = Augment(**{name: 0.4})(x, rng())
        reach = 0.4 * (0.5 if name == "contrast" else 1)
        assert torch.allclose(y.amax((1, 2, 3)), y.amin((1, 2, 3))), "one value an image"
        assert (y - 0.5).abs().max() <= reach + 1e-6
        assert (y - 0.5).max() > 0.9 * reach
        assert (y - 0.5).min() < -0.9 * reach
    assert (Augment(noise=0.1)(x, rng()) - 0.5).std() == pytest.approx(0.1, rel=0.05)


def test_erase_blanks_one_rectangle() -> None:
    x = torch.ones(300, 2, 20, 20)
    blank = Augment(erase=0.5)(x, rng()) == 0
    assert torch.equal(blank[:, 0], blank[:, 1])
    rows, columns = blank[:, 0].any(2), blank[:, 0].any(1)
    assert torch.equal(blank[:, 0], rows[:, :, None] & columns[:, None, :])
    assert 8 <= rows.sum(1).max() <= 11
    assert 8 <= columns.sum(1).max() <= 11
    assert rows.any(0).all(), "every row is reached"
    assert columns.any(0).all(), "every column is reached"


def test_clean_leaves_its_share() -> None:
    x = noise(500)
    y = Augment(noise=0.3, clean=0.4)(x, rng())
    same = (y == x).all(3).all(2).all(1)
    assert 150 < int(same.sum()) < 250
    assert torch.equal(Augment(noise=0.3, clean=1)(x, rng()), x)


def test_handwriting_is_legible() -> None:
    """The preset keeps a digit's ink in the picture."""
    x = spot(200, 28, 28, 4.0)
    y = HANDWRITING(x, rng())
    assert (y.sum((1, 2, 3)) / x.sum((1, 2, 3))).min() > 0.5
    assert centre(y).abs().max() < 5


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"fill": "mirror"}, "zero, edge, reflect"),
        ({"rotate": -1}, "rotate"),
        ({"noise": float("nan")}, "noise"),
        ({"elastic": float("inf")}, "elastic"),
        ({"flip": 1.5}, "flip"),
        ({"clean": 2}, "clean"),
        ({"erase": 1.1}, "erase"),
        ({"shift": 3}, "shift"),
        ({"scale": 1.01}, "scale"),
    ],
    ids=str,
)
def test_errors_name_the_option(options: dict, word: str) -> None:
    with pytest.raises(OptionError, match=word):
        Augment(**options)


def test_scale_of_one_is_finite() -> None:
    assert torch.isfinite(Augment(scale=1)(noise(2000), rng())).all()
