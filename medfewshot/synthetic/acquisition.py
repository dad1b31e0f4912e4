"""Simulate a scanner: blur, thick slices, bias field, noise, ringing and gamma, then normalisation.

Images are ``(M, 1, *S)`` with three axes ``S``. One protocol, strengths included, serves a whole cohort: every member
has the same blur, gamma, noise level and amplitude of the bias field. Each has its own noise and its own bias field.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Rng = np.random.Generator


@dataclass(frozen=True)
class Protocol:
    """Properties of one scanner and protocol: contrast, noise, resolution, artefacts."""

    blur_voxels: float
    """Standard deviation of the point spread function."""
    bias: float
    gamma: float
    noise: float
    noise_blur: float
    """Above 0 the noise is smooth, as after a reconstruction filter."""
    rician: bool
    ringing: float
    """Fraction of k-space that is kept along each in-plane axis; 1 is all."""
    slice_factor: int
    """Thickness of the acquired slices, in voxels of the last axis."""
    window: tuple[float, float] | None
    """Brightness that is clipped to (CT); None normalises by each scan's own statistics (MR)."""


def draw_protocol(style: str, thick: bool, rng: Rng) -> Protocol:
    """Draw a protocol for ``style`` (``ct`` or an MR style), with slices thicker than in-plane voxels if ``thick``."""
    ct = style == "ct"
    coin = lambda chance: bool(rng.random() < chance)  # noqa: E731
    low = rng.uniform(0.0, 0.2)
    return Protocol(
        blur_voxels=float(rng.uniform(0.2, 0.8)),
        bias=0.0 if ct else float(rng.uniform(0.05, 0.45)),
        gamma=1.0 if ct else float(np.exp(rng.normal(0, 0.25))),
        noise=float(rng.choice([0.015, 0.03, 0.06, 0.1])),
        noise_blur=float(rng.uniform(0.4, 1.0)) if coin(0.5) else 0.0,
        rician=not ct and coin(0.6),
        ringing=float(rng.uniform(0.5, 0.8)) if not ct and coin(0.3) else 1.0,
        slice_factor=1 if thick else int(rng.choice([1, 1, 1, 2, 3])),
        window=(float(low), float(rng.uniform(0.75, 1.1))) if ct else None,
    )


def acquire(clean: Tensor, protocol: Protocol, rng: Rng, generator: torch.Generator) -> Tensor:
    """Simulate the acquisition of ``clean (M, 1, *S)`` brightness; the result is not yet normalised."""
    image = blur(clean, protocol.blur_voxels)
    if protocol.slice_factor > 1 and image.shape[-1] >= 4 * protocol.slice_factor:
        thick = F.avg_pool3d(image, (1, 1, protocol.slice_factor), ceil_mode=True)
        image = F.interpolate(thick, size=image.shape[2:], mode="trilinear")
    if protocol.bias:
        rough = torch.randn((len(image), 1, 4, 4, 3), generator=generator).to(image)
        smooth = F.interpolate(rough, size=image.shape[2:], mode="trilinear", align_corners=True)
        image = image * smooth.mul(protocol.bias).exp()
    if protocol.gamma != 1:
        image = image.clamp_min(0).pow(protocol.gamma)
    if protocol.ringing < 1:
        image = _truncate(image, protocol.ringing)
    return _noise(image, protocol, generator)


def blur(image: Tensor, sigma: float) -> Tensor:
    """Blur with a separable Gaussian of ``sigma`` voxels; axes of one voxel stay as they are."""
    if sigma < 0.25:
        return image
    reach = max(1, round(2 * sigma + 0.5))
    x = torch.arange(-reach, reach + 1, device=image.device, dtype=image.dtype)
    kernel = torch.exp(-0.5 * (x / sigma) ** 2)
    kernel = kernel / kernel.sum()
    for axis in range(2, image.ndim):
        if image.shape[axis] > 2 * reach:
            moved = image.movedim(axis, -1)
            flat = F.pad(moved.reshape(-1, 1, moved.shape[-1]), (reach, reach), mode="replicate")
            parts = flat.unfold(2, len(kernel), 1) @ kernel
            image = parts.view(moved.shape).movedim(-1, axis)
    return image


def normalise(image: Tensor, protocol: Protocol) -> Tensor:
    """Normalise like :mod:`medfewshot.planning.normalise`: a window for the cohort, or a z-score per member."""
    if protocol.window is not None:
        low, high = protocol.window
        clipped = image.clamp(low, high)
        inside = clipped[(clipped > low) & (clipped < high)]
        inside = inside if inside.numel() > 1 else clipped.flatten()
        return (clipped - inside.mean()) / inside.std().clamp_min(1e-3)
    return torch.stack([_zscore(one) for one in image])


def _zscore(one: Tensor) -> Tensor:
    values = one.flatten()[:: max(1, one.numel() // 20_000) | 1].sort().values
    low, high = values[int(0.005 * (len(values) - 1))], values[int(0.995 * (len(values) - 1))]
    one = one.clamp(low, high)
    body = one > low + 0.1 * (high - low)
    # Masked sums keep shapes fixed, so the CPU does not wait for the device.
    count = body.sum().clamp_min(2)
    mean = (one * body).sum() / count
    deviation = ((one - mean).square() * body).sum().div(count - 1).sqrt()
    return (one - mean) / deviation.clamp_min(1e-6)


def _truncate(image: Tensor, kept: float) -> Tensor:
    """Simulate Gibbs ringing by removing high in-plane frequencies."""
    spectrum = torch.fft.rfftn(image, dim=(2, 3))
    fx = torch.fft.fftfreq(image.shape[2], device=image.device).abs().view(-1, 1, 1)
    fy = torch.fft.rfftfreq(image.shape[3], device=image.device).abs().view(1, -1, 1)
    mask = (fx <= kept / 2) & (fy <= kept / 2)
    return torch.fft.irfftn(spectrum * mask, s=image.shape[2:4], dim=(2, 3))


def _noise(image: Tensor, protocol: Protocol, generator: torch.Generator) -> Tensor:
    device_generator = torch.Generator(image.device)
    device_generator.manual_seed(int(torch.randint(2**62, (1,), generator=generator)))

    def field() -> Tensor:
        noise = torch.randn(image.shape, generator=device_generator, device=image.device)
        if protocol.noise_blur:
            noise = blur(noise, protocol.noise_blur)
            noise = noise / noise.std().clamp_min(1e-6)
        return protocol.noise * noise

    if protocol.rician:
        return ((image + field()).square() + field().square()).sqrt()
    return image + field()
