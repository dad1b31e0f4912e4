"""Registration against transforms that are known on paper, in 2D and 3D."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from medfewshot.registration import LocalCorrelation, RegistrationOptions, Transform, centred_points, register, resized
from medfewshot.registration.separable import Diffusion, along, box_matrix, interpolation_matrix

QUICK = RegistrationOptions(levels=((2, 30), (1, 20)), affine_steps=40)


def ball(shape: tuple[int, ...], centre: tuple[float, ...], radius: float) -> torch.Tensor:
    axes = torch.meshgrid(*[torch.arange(n, dtype=torch.float32) for n in shape], indexing="ij")
    distance = sum((a - c) ** 2 for a, c in zip(axes, centre, strict=True)) ** 0.5
    return torch.sigmoid(radius - distance)[None]


def scene(shape: tuple[int, ...], shift: int = 0, more: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Image and structure ``(1, *shape)``: two balls in textured tissue, all ``shift`` voxels along the first axis.

    ``more`` voxels of the same tissue lie behind it.
    """
    whole = (shape[0] + 20, *shape[1:])
    texture = torch.randn(1, 1, *whole, generator=torch.Generator().manual_seed(0))
    pool = F.avg_pool2d if len(shape) == 2 else F.avg_pool3d
    texture = pool(texture, 3, 1, 1)[0]
    middle = [n / 2 for n in whole]
    large = ball(whole, tuple(middle), min(shape) / 3)
    small = ball(whole, (middle[0] * 0.75, *[m * 0.8 for m in middle[1:]]), min(shape) / 8)
    start = 10 - shift
    image, label = (texture / texture.std() + 2 * (large + small)), large
    end = start + shape[0] + more
    return image[:, start:end], label[:, start:end]


def overlap(a: torch.Tensor, b: torch.Tensor) -> float:
    a, b = a > 0.5, b > 0.5
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def read(volume: torch.Tensor, transform: Transform, size: tuple[int, ...]) -> torch.Tensor:
    return F.grid_sample(volume[None], transform.grid(size), padding_mode="border", align_corners=False)


def test_points_are_voxel_centres_in_mm():
    points = centred_points((4, 2), torch.tensor([8.0, 3.0]))  # voxels of 4 mm and 3 mm
    assert points[:, 0, 0].tolist() == [-6, -2, 2, 6]
    assert points[0, :, 1].tolist() == [-1.5, 1.5]


def test_the_identity_reads_every_voxel_where_it_is():
    image = torch.randn(1, 1, 6, 5, 4)
    half = torch.tensor([6.0, 5.0, 4.0])
    still = Transform(torch.eye(3)[None], torch.zeros(1, 3), torch.zeros(1, 3, 2, 2, 2), half, half[None])
    torch.testing.assert_close(F.grid_sample(image, still.grid((6, 5, 4)), align_corners=False), image)


def test_a_shift_in_mm_is_voxels_times_spacing():
    image = torch.randn(1, 1, 8, 6)
    half = torch.tensor([8.0, 6.0])  # 2 mm voxels
    moved = Transform(torch.eye(2)[None], torch.tensor([[4.0, 0.0]]), torch.zeros(1, 2, 2, 2), half, half[None])
    read = F.grid_sample(image, moved.grid((8, 6)), padding_mode="border", align_corners=False)
    torch.testing.assert_close(read[:, :, :-2], image[:, :, 2:])


@pytest.mark.parametrize(("size", "other"), [((6, 5, 4), (7, 3, 4)), ((8, 6), (5, 9))])
def test_single_points_go_where_the_grid_goes(size, other):
    dims = len(size)
    half, half_other = torch.rand(dims) + 2, torch.rand(1, dims) + 2
    field = 0.3 * torch.randn(1, dims, *[3] * dims)
    transform = Transform(torch.eye(dims)[None] + 0.1, torch.rand(1, dims), field, half, half_other)
    voxels = torch.stack(torch.meshgrid(*[torch.arange(n, dtype=torch.float32) for n in size], indexing="ij"))
    found = transform.voxels(voxels, size, other).movedim(0, -1)
    expected = ((transform.grid(size)[0].flip(-1) + 1) * torch.tensor(other) - 1) / 2
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_correlation_is_one_for_a_linear_change_and_minus_one_for_its_inverse():
    torch.manual_seed(0)
    a = torch.randn(1, 1, 10, 10, 10)
    assert float(LocalCorrelation(3 * a + 2, 5)(a).mean()) > 0.999
    assert float(LocalCorrelation(-a, 5)(a).mean()) < -0.999
    assert abs(float(LocalCorrelation(torch.randn_like(a), 5)(a).mean())) < 0.1


def test_correlation_equals_numpys_on_one_window():
    torch.manual_seed(1)
    a, b = torch.randn(1, 1, 3, 3), torch.randn(1, 1, 3, 3)
    middle = float(LocalCorrelation(b, 3)(a)[0, 0, 1, 1])
    expected = float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])
    assert middle == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("shape", [(32, 28), (28, 24, 16)])
def test_a_shifted_scene_is_found_again(shape):
    (support, label), (query, truth) = scene(shape), scene(shape, shift=4)
    transform, correlation = register([support], query, (2.0,) * len(shape), QUICK)
    assert overlap(label, truth) < 0.8
    assert overlap(read(label, transform, shape)[0], truth) > 0.93
    assert correlation.min() >= -1.001
    assert correlation.max() <= 1.001


def test_supports_of_other_shapes_are_registered_together():
    shape = (28, 24, 16)
    query, truth = scene(shape)
    supports = [scene(shape, 2), scene(shape, -2, more=6)]
    transform, _ = register([image for image, _ in supports], query, (1.0, 1.0, 1.0), QUICK)
    for (_, label), grid in zip(supports, transform.grid(shape), strict=True):
        found = F.grid_sample(label[None], grid[None], padding_mode="border", align_corners=False)[0]
        assert overlap(found, truth) > 0.9


def test_every_support_is_followed_from_the_start_that_fits_it_best():
    """Three supports lie where a start is; the beginning tells, and the few steps taken move no farther than 2 mm."""
    shape = (40, 30)
    whole = F.avg_pool2d(torch.randn(1, 60, 50, generator=torch.Generator().manual_seed(0)), 3, 1)
    read = lambda x, y: whole[:, x : x + shape[0], y : y + shape[1]]  # noqa: E731
    query, supports = read(10, 10), [read(2, 10), read(10, 10), read(10, 16)]
    options = RegistrationOptions(starts=0.2, affine_steps=3, levels=())
    transform, _ = register(supports, query, (1.0, 1.0), options)
    expected = torch.tensor([[8.0, 0.0], [0.0, 0.0], [0.0, -6.0]])
    torch.testing.assert_close(transform.shift, expected, atol=2.0, rtol=0)


def test_registration_works_where_gradients_are_switched_off_and_leaves_them_so():
    with torch.no_grad():
        transform, _ = register([scene((16, 16), 1)[0]], scene((16, 16))[0], (1.0, 1.0), QUICK)
        assert not torch.is_grad_enabled()
    assert not transform.field.requires_grad
    assert torch.is_grad_enabled()


def test_boxes_at_every_second_voxel_have_the_correlation_of_these_voxels():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 1, 9, 8, 1, generator=generator), torch.randn(1, 1, 9, 8, 1, generator=generator)
    some = LocalCorrelation(b, 5, stride=2)
    assert [at.tolist() for at in some.at] == [[0, 2, 4, 6, 8], [0, 2, 4, 6], [0]]
    torch.testing.assert_close(some(a), LocalCorrelation(b, 5)(a)[:, :, ::2, :7:2])


def test_edges_are_repeated_in_a_moving_average():
    found = along(torch.tensor([[1.0, 2.0, 6.0]]), [box_matrix(3, 3)], 1)
    torch.testing.assert_close(found, torch.tensor([[4 / 3, 3.0, 14 / 3]]))


def test_diffusion_is_the_mean_squared_slope_of_the_field():
    points = torch.randn(2, 3, 4, 2, generator=torch.Generator().manual_seed(0))
    smooth = [interpolation_matrix(n, m, align_corners=True) for n, m in ((6, 3), (8, 4))]
    field = along(points, smooth, 1)
    slopes = [field.diff(dim=1) / 2.0, field.diff(dim=2) / 3.0]
    expected = sum(slope.square().sum(-1).flatten(1).mean(1).sum() for slope in slopes)
    torch.testing.assert_close(Diffusion(smooth, torch.tensor([2.0, 3.0]))(points), expected)


def test_shrinking_averages_and_growing_interpolates():
    x = torch.tensor([[0.0, 2.0], [4.0, 6.0], [8.0, 10.0], [1.0, 3.0]]).view(1, 1, 4, 2)
    assert resized(x, (2, 2)).flatten().tolist() == [2, 4, 4.5, 6.5]
    assert resized(x, (2, 1)).flatten().tolist() == [3, 5.5]
    assert torch.equal(resized(x, (4, 2)), x)
    assert resized(x, (2, 4))[0, 0, 0].tolist() == pytest.approx([2, 2.5, 3.5, 4])
    assert resized(torch.ones(1, 2, 5, 6, 7), (3, 9, 7)).allclose(torch.ones(1, 2, 3, 9, 7))
