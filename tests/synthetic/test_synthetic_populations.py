"""Procedural populations: shapes of known size, invertible warps, reproducible episodes that show what they claim."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from medfewshot.errors import InputError
from medfewshot.synthetic import Populations, PopulationSettings, acquisition, warp
from medfewshot.synthetic.parts import DrawnPart, Part, distance, draw_part
from medfewshot.synthetic.populations import draw_by_size
from medfewshot.synthetic.render import CoarseGrid, draw_view, render
from medfewshot.synthetic.templates import TEMPLATES

CPU = torch.device("cpu")
TINY = PopulationSettings(patches=((16, 16),), shots=(1, 1), ways=(1, 1))
SMALL = PopulationSettings(patches=((20, 20, 20), (24, 24, 8)), shots=(1, 2), ways=(1, 3))


def grid(n: int = 48, half: float = 1.0) -> torch.Tensor:
    axis = ((torch.arange(n) + 0.5) / n * 2 - 1) * half
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"))[None]


def exact(part: Part) -> DrawnPart:
    """The part as the template has it, in one member."""
    still = Part(**{**part.__dict__, "shift": 0.0, "scale": 0.0})
    return draw_part(still, None, 1, torch.Generator().manual_seed(0))


def volume(part: Part, points: torch.Tensor) -> float:
    inside = distance(part, exact(part), points, torch.zeros(1, 5, *points.shape[2:])) < 0
    return float(inside.float().mean()) * 8


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (Part("ball", "x", radii=(0.6, 0.6, 0.6)), 4 / 3 * math.pi * 0.6**3),
        (Part("egg", "x", radii=(0.8, 0.5, 0.3), tilt=0.7), 4 / 3 * math.pi * 0.12),
        (Part("rod", "x", "tube", radii=(0.3, 0, 0), path=((0, 0, -2), (0, 0, 0), (0, 0, 2))), math.pi * 0.09 * 2),
        (Part("pill", "x", "tube", radii=(0.3, 0, 0), path=((0, 0, -0.4), (0, 0, 0.4))), math.pi * 0.09 * 1.2),
        (Part("wall", "x", radii=(0.5, 0.5, 0.5), hollow=0.2), 4 / 3 * math.pi * (0.7**3 - 0.5**3)),
    ],
)
def test_shapes_have_the_volumes_of_geometry(part, expected):
    assert volume(part, grid(64)) == pytest.approx(expected, rel=0.05)


def test_higher_powers_are_boxier():
    volumes = [volume(Part("x", "x", radii=(0.6, 0.6, 0.6), power=power), grid()) for power in (2, 3, 4)]  # type: ignore[arg-type]
    assert volumes[0] < volumes[1] < volumes[2] < 1.2**3
    # The body |x|^4 + |y|^4 + |z|^4 < r^4 has volume (2 Gamma(5/4))^3 / Gamma(7/4) r^3.
    assert volumes[2] == pytest.approx((2 * math.gamma(1.25)) ** 3 / math.gamma(1.75) * 0.6**3, rel=0.05)


def test_distances_are_exact_along_the_axes():
    part = Part("egg", "x", radii=(0.8, 0.5, 0.3))
    points = torch.tensor([[0.9, 0, 0], [0, 0.2, 0], [0, 0, -0.5]]).T.view(1, 3, 3, 1, 1)
    found = distance(part, exact(part), points, torch.zeros(1, 5, 3, 1, 1)).flatten()
    torch.testing.assert_close(found, torch.tensor([0.1, -0.3, 0.2]), atol=1e-5, rtol=1e-4)


def test_warps_are_invertible_and_strong():
    """Flowing along a velocity and back along it is standing still; no voxel is folded over."""
    velocity = warp.velocity_fields(2, 0.1, torch.Generator().manual_seed(1), CPU)
    there, back = warp.integrate(velocity), warp.integrate(-velocity)
    points = grid(24, 0.9).expand(2, -1, -1, -1, -1)
    moved = points + warp.sample_lattice(there, points)
    returned = moved + warp.sample_lattice(back, moved)
    assert float((moved - points).abs().amax()) > 0.1
    assert float((returned - points).abs().mean()) < 0.003
    step = 1.8 / 24
    columns = [moved.diff(dim=axis)[:, :, :23, :23, :23] / step for axis in (2, 3, 4)]
    jacobian = torch.stack([c.movedim(1, -1) for c in columns], -1)
    assert float(torch.linalg.det(jacobian).amin()) > 0


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_template_renders(name):
    rng = np.random.default_rng(3)
    parts = TEMPLATES[name][1](rng)
    names = [part.name for part in parts]
    assert len(set(names)) == len(names)
    assert all(part.within is None or part.within in names[: names.index(part.name)] for part in parts)
    focus = next(part for part in parts if part.labelled)
    view = draw_view(parts, focus, (20, 20, 20), np.ones(3), rng)
    rendered = render(
        parts, view, (20, 20, 20), 2, thick=False, other_contrast_for=0, rng=rng,
        generator=torch.Generator().manual_seed(0), device=CPU,
    )  # fmt: skip
    assert rendered.images.shape == (2, 1, 20, 20, 20)
    assert torch.isfinite(rendered.images).all()
    assert len(rendered.labels.unique()) > 3


@pytest.mark.parametrize("name", TEMPLATES)
def test_no_part_is_cut_by_its_box(name):
    """Parts are evaluated where a coarse look finds them; a full look finds them nowhere else."""
    rng, generator = np.random.default_rng(4), torch.Generator().manual_seed(4)
    parts = TEMPLATES[name][1](rng)
    points = grid(32, 1.05).repeat(2, 1, 1, 1, 1)
    points[1] = points[1] * 1.1 + 0.1
    noise = warp.sample_smooth(warp.noise_lattice((2,), (5, 7, 10, 14, 20), 28, generator, CPU), points)
    edge = 2.1 / 32
    coarse = CoarseGrid(points, noise)
    boxed = 0
    for part in parts:
        draw = draw_part(part, None, 2, generator)
        covered = distance(part, draw, points, noise) < edge / 2
        box = coarse.box(part, draw, edge)
        if box is None:
            assert not covered.any(), part.name
            continue
        boxed += box != tuple(slice(0, 32) for _ in range(3))
        outside = covered.clone()
        outside[(..., *box)] = False
        # A thread thinner than the coarse grid may lose a tip, nothing more.
        assert int(outside.sum()) <= 0.002 * int(covered.sum()), part.name
    assert boxed > 1


@pytest.mark.parametrize("seed", range(6))
def test_episodes_are_what_they_claim(seed):
    episode = Populations(SMALL).sample(seed, progress=0.5)
    support, query = episode.support, episode.query
    shape = support.patch_size
    assert shape in SMALL.patches
    assert 1 <= support.shots <= 2
    assert support.spacing_mm is not None
    assert len(support.spacing_mm) == 3
    assert all(image.shape == (1, *shape) and image.dtype == torch.float32 for image in support.images)
    assert all(label.shape == shape and label.dtype == torch.int64 for label in support.labels)
    assert query.image.shape == (1, 1, *shape)
    assert query.label.shape == (1, *shape)
    seen = set(torch.stack(support.labels).unique().tolist())
    assert seen == set(range(support.classes))  # every class is in some support
    assert int(query.label.max()) < support.classes
    assert all(torch.isfinite(image).all() and 0.3 < float(image.std()) < 3 for image in support.images)
    assert not set(episode.support_subjects) & set(episode.query_subjects)


def test_a_seed_decides_everything():
    first, again, other = (Populations(SMALL).sample(seed, progress=0.2) for seed in (7, 7, 8))
    assert torch.equal(first.query.image, again.query.image)
    assert all(torch.equal(a, b) for a, b in zip(first.support.labels, again.support.labels, strict=True))
    assert first.task == again.task
    assert first.task != other.task or not torch.equal(first.query.image[..., :8], other.query.image[..., :8])


def test_members_differ():
    episode = Populations(PopulationSettings(patches=((20, 20, 20),), shots=(2, 2))).sample(1, progress=0.0)
    a, b = (label > 0 for label in episode.support.labels)
    assert float((a & b).sum()) > 0 or not (a.any() and b.any())
    assert not torch.equal(a, b)


def test_planar_episodes_are_slices():
    episode = Populations(PopulationSettings(patches=((32, 32),), shots=(1, 1))).sample(2, progress=0.0)
    assert episode.support.images[0].shape == (1, 32, 32)
    assert episode.query.label.shape == (1, 32, 32)
    assert len(episode.support.spacing_mm) == 2


def test_some_queries_lack_the_structure():
    found = []
    for seed in range(16):
        episode = Populations(PopulationSettings(patches=((16, 16),), shots=(1, 1), ways=(1, 1))).sample(
            seed, progress=1
        )
        found.append(bool(episode.query.label.any()))
    assert 0 < 16 - sum(found) < 10


def test_the_curriculum_goes_from_large_to_small():
    rng, settings = np.random.default_rng(0), PopulationSettings()
    parts = TEMPLATES["trunk"][1](rng)
    first, last = (
        np.median([draw_by_size(parts, exponent, rng).size for _ in range(200)])
        for exponent in (settings.large_first, settings.small_last)
    )
    assert first > 3 * last


def test_progress_takes_the_curriculum_from_one_end_to_the_other():
    """Extreme exponents leave one choice: the largest labelled part at first, the smallest at last."""
    drawn = []

    def look(parts, *args, **options):
        drawn.append([part for part in parts if part.labelled])
        return render(parts, *args, **options)

    tasks = Populations(TINY.replace(merge=0.0, large_first=150.0, small_last=-150.0), look)
    for progress, best in ((0.0, max), (1.0, min)):
        for seed in range(4):
            name = tasks.sample(seed, progress=progress).task.partition("[")[2].rstrip("]").partition("+")[0]
            sizes = {part.name: min(part.size, 0.5) for part in drawn[-1]}
            assert sizes[name] == pytest.approx(best(sizes.values()), rel=0.3)


@pytest.mark.parametrize(("chance", "other"), [(0.0, False), (1.0, True)])
def test_queries_may_have_another_contrast_than_supports(chance, other):
    """Members of one contrast differ by a few hundredths; the query's is then another one altogether."""
    seen = []

    def acquire(clean, *args):
        seen.append(clean)
        return acquisition.acquire(clean, *args)

    def look(*args, **options):
        seen.append(render(*args, **options, acquire=acquire).labels)
        return render(*args, **options)

    tasks = Populations(TINY.replace(shots=(3, 3), other_contrast=chance), look)
    apart = []
    for seed in range(4):
        seen.clear()
        tasks.sample(seed, progress=0.5)
        for clean, labels in zip(seen[::2], seen[1::2], strict=True):
            apart.append(query_apart(clean[:, 0], labels))
    assert max(apart) > 0.2 if other else max(apart) < 0.15


def query_apart(images: torch.Tensor, labels: torch.Tensor) -> float:
    """How far the last member's median brightness of a part is from the others', at most; small parts are ignored."""
    gaps = [0.0]
    for part in labels.unique().tolist():
        if all(int((member == part).sum()) >= 20 for member in labels):
            medians = [float(image[member == part].median()) for image, member in zip(images, labels, strict=True)]
            gaps.append(min(abs(medians[-1] - median) for median in medians[:-1]))
    return max(gaps)


NOTHING = acquisition.Protocol(
    blur_voxels=0.0, bias=0.0, gamma=1.0, noise=0.0, noise_blur=0.0, rician=False, ringing=1.0, slice_factor=1,
    window=None,
)  # fmt: skip


def acquired(clean: torch.Tensor, **changes) -> torch.Tensor:
    protocol = replace(NOTHING, **changes)
    return acquisition.acquire(clean, protocol, np.random.default_rng(0), torch.Generator().manual_seed(0))


def test_a_scanner_without_faults_shows_what_is_there():
    clean = torch.rand((2, 1, 8, 8, 8), generator=torch.Generator().manual_seed(1))
    assert torch.equal(acquired(clean), clean)


def test_a_scanner_blurs():
    point = torch.zeros(1, 1, 11, 11, 11)
    point[..., 5, 5, 5] = 1
    spread = acquired(point, blur_voxels=1.0)
    assert float(spread.sum()) == pytest.approx(1, abs=1e-5)
    assert 0.04 < float(spread[..., 5, 5, 5]) < 0.1  # (2 pi)^-1.5 = 0.063


def test_thick_slices_are_the_mean_of_thin_ones():
    stripes = torch.tensor([0.0, 1.0]).repeat(4).expand(1, 1, 6, 6, 8)
    torch.testing.assert_close(acquired(stripes, slice_factor=2), torch.full((1, 1, 6, 6, 8), 0.5))


def test_a_bias_field_is_a_smooth_factor():
    """Normal random knots to the power of e, 4 x 4 x 3 of them at equal distances: seen where they lie."""
    field = acquired(torch.full((1, 1, 10, 10, 9), 0.7), bias=0.3)[0, 0].div(0.7).log()
    knots = torch.randn((4, 4, 3), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(field[::3, ::3, ::4], 0.3 * knots)
    torch.testing.assert_close(field[1, 0, 0], (2 * field[0, 0, 0] + field[3, 0, 0]) / 3)


def test_gamma_is_a_power():
    clean = torch.linspace(0, 1, 64).view(1, 1, 4, 4, 4)
    torch.testing.assert_close(acquired(clean, gamma=2.0), clean.square())


@pytest.mark.parametrize("kept", [0.5, 0.6, 0.8])
def test_a_scanner_rings_at_edges(kept):
    edge = torch.zeros(1, 1, 32, 32, 2)
    edge[:, :, 16:] = 1
    rung = acquired(edge, ringing=kept)
    assert float(rung.amax()) > 1.05
    assert float(rung.mean()) == pytest.approx(0.5, abs=1e-5)


@pytest.mark.parametrize("noise_blur", [0.0, 0.8])
def test_noise_has_the_strength_that_was_drawn(noise_blur):
    flat = torch.ones(1, 1, 20, 20, 20)
    noise = acquired(flat, noise=0.1, noise_blur=noise_blur) - flat
    assert float(noise.std()) == pytest.approx(0.1, rel=0.05)
    along = float((noise[:, :, 1:] * noise[:, :, :-1]).mean()) / 0.01
    assert along > 0.3 if noise_blur else abs(along) < 0.05


def test_noise_of_a_magnitude_is_rayleighs_where_nothing_is():
    dark = acquired(torch.zeros(1, 1, 20, 20, 20), noise=0.1, rician=True)
    assert float(dark.mean()) == pytest.approx(0.1 * math.sqrt(math.pi / 2), rel=0.05)


def test_protocols_have_the_faults_of_their_modality():
    rng = np.random.default_rng(0)
    drawn = {
        style: [acquisition.draw_protocol(style, thick, rng) for thick in (False, True) * 50] for style in ("ct", "t1")
    }
    for protocols in drawn.values():
        assert all(p.noise > 0 and 0.2 <= p.blur_voxels <= 0.8 for p in protocols)
        assert {p.slice_factor for p in protocols[::2]} == {1, 2, 3}
        assert {p.slice_factor for p in protocols[1::2]} == {1}  # the patch's own slices are thick already
        assert {p.noise_blur > 0 for p in protocols} == {True, False}
    assert all((p.bias, p.gamma, p.ringing, p.rician) == (0, 1, 1, False) and p.window for p in drawn["ct"])
    assert all(p.bias >= 0.05 and p.gamma != 1 and p.window is None for p in drawn["t1"])
    assert {p.ringing < 1 for p in drawn["t1"]} == {p.rician for p in drawn["t1"]} == {True, False}


def test_episodes_show_what_the_scanner_gave():
    seen = []

    def acquire(clean, protocol, *args):
        seen.append((clean, acquisition.acquire(clean, protocol, *args), protocol))
        return seen[-1][1]

    tasks = Populations(TINY.replace(other_contrast=0.0), partial(render, acquire=acquire))
    episode = tasks.sample(3, progress=0.5)
    clean, image, protocol = seen[-1]
    assert float((image - clean).abs().amax()) > 0.02
    shown = torch.stack([*episode.support.images, *episode.query.image])
    assert torch.equal(shown, acquisition.normalise(image, protocol).squeeze(-1))


def test_blur_spreads_a_point_like_a_gaussian():
    point = torch.zeros(1, 1, 21, 21, 21)
    point[..., 10, 10, 10] = 1
    spread = acquisition.blur(point, 1.0)[0, 0]
    assert float(spread.sum()) == pytest.approx(1, abs=1e-5)
    variance = float((spread.sum((1, 2)) * (torch.arange(21) - 10) ** 2).sum())
    assert variance == pytest.approx(1.0, rel=0.15)


@pytest.mark.parametrize(
    "wrong", [{"patches": ((8, 8), (8, 8, 8))}, {"shots": (0, 2)}, {"ways": (3, 2)}, {"queries": 0}]
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        PopulationSettings(**wrong)
