"""What SAN reads of its maps, written as the paper writes it: matrices as large as the formulas say (chapter 12)."""

from __future__ import annotations

import torch
from torch import Tensor


def centring_matrix(s: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """The s x s matrix that takes the mean away and divides by s: (1 - ones / s) / s, equation 7."""
    return (torch.eye(s, dtype=dtype) - torch.ones(s, s, dtype=dtype) / s) / s


def covariance_by_matrix(x: Tensor) -> Tensor:
    """Maps (B, C, H, W) become X centring X' (B, C, C), equation 7: memory for (H W)^2 numbers."""
    rows = x.flatten(2)
    return rows @ centring_matrix(rows.shape[-1], rows.dtype).to(rows.device) @ rows.mT


def newton_schulz_loop(matrix: Tensor, iterations: int = 5, trace: bool = True) -> Tensor:
    """Matrices (..., C, C) become nearly their roots: equations 9-11, without any thought of a trace of 0."""
    one = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    total = torch.einsum("...ii->...", matrix)[..., None, None] if trace else torch.ones_like(matrix[..., :1, :1])
    y, z = matrix / total, one
    for _ in range(iterations):
        factor = (3 * one - z @ y) / 2
        y, z = y @ factor, factor @ z
    root: Tensor = total.sqrt() * y
    return root


def eigen_sqrt(matrix: Tensor, power: float = 0.5) -> Tensor:
    """Symmetric matrices (..., C, C) to a power, 1/2 for the root: U L^power U', equation 8; what is below 0 is 0."""
    values, vectors = torch.linalg.eigh(matrix)
    raised: Tensor = (vectors * values.clamp(min=0).pow(power)[..., None, :]) @ vectors.mT
    return raised


def non_local_loop(theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
    """What each place has seen of all places: theta (c, h, w), phi and g (c, h', w') become (c, h, w).

    y_i = sum over j of exp(theta_i . phi_j) g_j / C, with C the sum of the exponentials: one place i after the other.
    """
    out = torch.empty_like(theta)
    for y in range(theta.shape[1]):
        for x in range(theta.shape[2]):
            alike = torch.einsum("c,cij->ij", theta[:, y, x], phi)
            weights = torch.exp(alike - alike.max())  # the factor exp(-max) cancels
            out[:, y, x] = torch.einsum("ij,cij->c", weights, g) / weights.sum()
    return out
