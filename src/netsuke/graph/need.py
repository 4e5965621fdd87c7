"""What the type rule of an op asks of its inputs and weights."""

from __future__ import annotations

import numpy as np

from netsuke.errors import GraphError
from netsuke.graph.types import INT32_MAX, MAX_SHIFT, Op, Tensors, Type


class Need:
    """What an inference function asks of its op, with errors that name the op."""

    def __init__(self, op: Op, inputs: list[Type], tensors: Tensors):
        self.op, self.inputs, self.tensors = op, inputs, tensors

    def fail(self, text: str) -> GraphError:
        return GraphError(f"{self.op.kind} {self.op.name!r}: {text}")

    def weight(self, role: str, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        name = self.op.tensor(role)
        array = self.tensors.get(name)
        if array is None:
            raise self.fail(f"its tensor {name!r} is missing")
        if array.shape != shape or array.dtype != dtype:
            raise self.fail(
                f"{role} must be {np.dtype(dtype).name} {list(shape)}, is {array.dtype.name} {list(array.shape)}"
            )
        if dtype is np.float32 and not np.isfinite(array).all():
            raise self.fail(f"{role} holds NaN or infinite values")
        return array

    def image(self, *dtypes: str) -> Type:
        """The only input, which must have three axes and one of `dtypes`."""
        x = self.inputs[0]
        if len(x.shape) != 3 or x.dtype not in dtypes:
            raise self.fail(f"needs a C, H, W map of {' or '.join(dtypes)}; gets {x.dtype} {list(x.shape)}")
        return x

    def vector(self, *dtypes: str) -> Type:
        x = self.inputs[0]
        if len(x.shape) != 1 or x.dtype not in dtypes:
            raise self.fail(f"needs a flat vector of {' or '.join(dtypes)}; gets {x.dtype} {list(x.shape)}")
        return x

    def window(
        self, x: Type, kernel: tuple[int, ...], padding: tuple[int, ...] = (0, 0, 0, 0)
    ) -> tuple[int, int]:
        """Rows and columns that a sliding window leaves."""
        top, left, bottom, right = padding
        stride = self.op.attrs["stride"]
        rows = (x.shape[1] + top + bottom - kernel[0]) // stride[0] + 1
        columns = (x.shape[2] + left + right - kernel[1]) // stride[1] + 1
        if rows < 1 or columns < 1:
            raise self.fail(
                f"a {kernel[0]}x{kernel[1]} window does not fit the {x.shape[1]}x{x.shape[2]} map it gets"
            )
        return rows, columns

    def within_bits(self, weight: np.ndarray) -> None:
        """Check that integer weights keep to the op's width."""
        bits = self.op.attrs["bits"]
        limit = (1 << (bits - 1)) - 1 if bits > 1 else 1
        if weight.size and max(int(weight.max()), -int(weight.min())) > limit:
            raise self.fail(f"a weight exceeds ±{limit}, the range of {bits} bits")
        if bits == 1 and (weight == 0).any():
            raise self.fail("a weight is 0; one bit means -1 or +1")

    def accumulate(self, weight: np.ndarray, x: Type) -> np.ndarray:
        """The largest |accumulator| each output channel can reach in any order of summation, int64."""
        bias = np.abs(self.weight("bias", weight.shape[:1], np.int32).astype(np.int64))
        flat = weight.reshape(len(weight), -1)
        top = np.maximum(flat, 0).sum(1, dtype=np.int64)
        bottom = -np.minimum(flat, 0).sum(1, dtype=np.int64)
        bound = bias + np.maximum(top * x.hi - bottom * x.lo, bottom * x.hi - top * x.lo)
        self.within_bits(weight)
        if (bound > INT32_MAX).any():
            raise self.fail("its sums can overflow int32")
        return bound

    def requantized(self, bound: np.ndarray) -> str:
        """Check that multiplier and shift cannot overflow; the resulting element type."""
        m = self.weight("multiplier", bound.shape, np.int32).astype(np.int64)
        s = self.weight("shift", bound.shape, np.int32).astype(np.int64)
        if (m < 0).any() or (s < 0).any() or (s > MAX_SHIFT).any():
            raise self.fail(f"multipliers must not be negative and shifts must be 0 to {MAX_SHIFT}")
        if (bound * m + ((1 << s) >> 1) > INT32_MAX).any():
            raise self.fail("its requantisation can overflow int32")
        return self.element()

    def element(self) -> str:
        return "s8" if self.op.attrs["signed"] else "u7"

    def averaged(self, bound: int, multiplier: int = 0) -> None:
        """Check that sums up to `bound` times the op's one multiplier stay within int32."""
        attrs = self.op.attrs
        if bound * (multiplier or attrs["multiplier"]) + ((1 << attrs["shift"]) >> 1) > INT32_MAX:
            raise self.fail("its requantisation can overflow int32")

    def pool(self, x: Type) -> tuple[int, int]:
        """Rows and columns that a pooling window leaves; its padding may be left out."""
        kernel, padding = self.op.attrs["kernel"], self.op.attrs.get("padding", (0, 0, 0, 0))
        if max(padding[0], padding[2]) >= kernel[0] or max(padding[1], padding[3]) >= kernel[1]:
            raise self.fail("its padding must be smaller than its window")
        return self.window(x, kernel, padding)
