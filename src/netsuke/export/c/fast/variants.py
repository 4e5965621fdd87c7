"""The vector units that the fast kernels know: how wide they are, and the header that speaks their language."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

BYTES = (
    16  # channels are stored in blocks of these many bytes, and so is every vector register made up of them
)


@dataclass(frozen=True)
class Variant:
    """`lanes` sums of int32 to a register; `registers` of them hold the sums of a tile and what they take.

    `unrolled` products make straight code, more of them a loop; `offset` is what `dot_signed` adds to activations;
    `together` rows of a depthwise layer are computed at once; `planes`: the header speaks planes.py's language.
    """

    name: str
    lanes: int
    registers: int
    unrolled: int = 192
    offset: int = 0
    together: int = 1
    planes: bool = False

    @property
    def chunk(self) -> int:
        """Bytes of a register."""
        return 4 * self.lanes

    @property
    def blocks(self) -> int:
        """Blocks of channels that fill a register of bytes."""
        return self.chunk // BYTES

    @property
    def per_block(self) -> int:
        """Registers of sums that one block of channels takes."""
        return BYTES // self.lanes

    @property
    def header(self) -> str:
        return (Path(__file__).parent / "lanes" / f"{self.name}.h").read_text(encoding="ascii")


VARIANTS = {
    v.name: v
    for v in (
        Variant("avx512", 16, 31, offset=128, together=2, planes=True),
        Variant("avx2", 8, 14),
        Variant("neon", 4, 30, together=2),
        Variant("simd128", 4, 14),
        Variant("portable", 4, 14, unrolled=24),
    )
}
