"""What the two forerunners of TTSR share here: they enlarge bicubically and add what they borrow from a reference."""

from torch import Tensor, nn

from course_lib.super_resolution.layers import as_batch
from course_lib.super_resolution.ttsr import SCALE, bicubic_up, down_up


class Borrowing(nn.Module):
    """Enlarge four times: the bicubic enlargement, plus the reference's fine detail, brought to its place.

    The detail of a reference is what bicubic shrinking and enlarging takes away from it, `ref - ref_down_up`. Nothing
    here is trained, so what is seen is the alignment alone. Subclasses say in `borrowed` how they align.
    """

    scale = SCALE

    def forward(
        self, lr: Tensor, lr_up: Tensor | None = None, ref: Tensor | None = None, ref_down_up: Tensor | None = None
    ) -> Tensor:
        """Return (..., 3, 4h, 4w), not clamped, of lr (..., 3, h, w) in [0, 1].

        lr_up: (..., 3, 4h, 4w), `lr` enlarged; None: `ttsr.bicubic_up` makes it. ref: a reference for each picture,
        (..., 3, H, W) with multiples of 4; None: nothing is borrowed. ref_down_up: `ref` shrunk and enlarged again;
        None: `ttsr.down_up` makes it. Raises TypeError or ValueError naming the argument.
        """
        small = as_batch("lr", lr)
        large = bicubic_up(small) if lr_up is None else as_batch("lr_up", lr_up)
        expected = (*small.shape[:2], *(SCALE * n for n in small.shape[-2:]))
        if large.shape != expected:
            raise ValueError(f"lr_up must be {expected}, got {tuple(large.shape)}")
        if ref is not None:
            value = as_batch("ref", ref)
            if len(value) != len(small) or any(n % SCALE for n in value.shape[-2:]):
                raise ValueError(
                    f"ref must be {len(small)} pictures with multiples of {SCALE} pixels, got {tuple(ref.shape)}"
                )
            blurred = down_up(value) if ref_down_up is None else as_batch("ref_down_up", ref_down_up)
            if blurred.shape != value.shape:
                raise ValueError(f"ref_down_up must be {tuple(value.shape)}, got {tuple(blurred.shape)}")
            large = large + self.borrowed(large, value, blurred)
        return large.reshape(*lr.shape[:-3], *large.shape[-3:])

    def borrowed(self, lr_up: Tensor, ref: Tensor, ref_down_up: Tensor) -> Tensor:
        """Return what is added to lr_up (B, 3, 4h, 4w), in its shape; ref and ref_down_up: (B, 3, H, W)."""
        raise NotImplementedError
