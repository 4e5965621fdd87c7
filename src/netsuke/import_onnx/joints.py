"""Readers of what joins and cuts channels."""

from __future__ import annotations

from dataclasses import replace

from netsuke.import_onnx.builder import Builder, Value


def _channels(r: Builder, x: Value, axis: int) -> None:
    """Refuse an axis that is not the channels' of a map, or the only one of a vector."""
    whole = x.dims == (x.shape if not x.nhwc else (*x.shape[1:], x.shape[0]))
    pixel = x.dims == (*x.shape, 1, 1)  # the average of a map
    own = 3 if x.nhwc else 1
    if not (whole or pixel) or x.order is not None or axis % (len(x.dims) + 1) != own:
        raise r.fail(f"along axis {axis} of a value of the shape {list(x.dims)}; only channels are known")


def _with_channels(x: Value, name: str, count: int) -> Value:
    dims = (*x.dims[:-1], count) if x.nhwc else (count, *x.dims[1:])
    return replace(x, name=name, shape=(count, *x.shape[1:]), dims=dims, shared=False)


def concat(r: Builder) -> Value:
    parts = [r.materialized(r.value(i)) for i in range(len(r.node.input))]
    for part in parts:
        _channels(r, part, r.attrs["axis"])
    first, count = parts[0], sum(part.shape[0] for part in parts)
    form = _with_channels(first, "", 1)
    if any(_with_channels(p, "", 1).dims != form.dims or p.nhwc != first.nhwc for p in parts):
        raise r.fail("of values that differ in more than their channels")
    if len(parts) == 1:
        return first
    first, *others = parts = r.alike(*parts)
    if any(len(p.shape) != len(first.shape) for p in others):
        raise r.fail("of values that differ in more than their channels")
    return _with_channels(first, r.emit("concat", parts, (count, *first.shape[1:])).name, count)


def _part(r: Builder, x: Value, start: int, stop: int) -> Value:
    if (start, stop) == (0, x.shape[0]):
        return x
    y = r.emit("slice", [x], (stop - start, *x.shape[1:]), start=start, stop=stop)
    return _with_channels(x, y.name, stop - start)


def cut(r: Builder) -> Value:
    """Slice along the channels: since opset 10 its ends are inputs."""
    x = r.materialized(r.value())
    given = r.attrs if "starts" in r.attrs else None
    starts, ends = (given[k] if given else r.weight(i) for i, k in ((1, "starts"), (2, "ends")))
    axes = given.get("axes") if given else r.constant(3)
    steps = None if given else r.constant(4)
    if len(starts) != 1 or axes is None or (steps is not None and int(steps[0]) != 1):
        raise r.fail("over more axes than one, or with steps")
    _channels(r, x, int(axes[0]))
    start, stop, _ = slice(int(starts[0]), int(ends[0])).indices(x.shape[0])
    if stop <= start:
        raise r.fail(f"from {start} to {stop}, which leaves nothing")
    return _part(r, x, start, stop)


def split(r: Builder) -> list[Value | None]:
    """One value an output, None for those that nothing reads."""
    x, outputs = r.materialized(r.value()), r.node.output
    _channels(r, x, r.attrs.get("axis", 0))
    sizes = r.constant(1) if len(r.node.input) > 1 else r.attrs.get("split")
    if sizes is None:
        size = -(-x.shape[0] // len(outputs))
        sizes = [size] * (len(outputs) - 1) + [x.shape[0] - size * (len(outputs) - 1)]
    if len(sizes) != len(outputs) or sum(sizes) != x.shape[0] or min(sizes) < 1:
        raise r.fail(f"of {x.shape[0]} channels into {[int(v) for v in sizes]}")
    ends = [int(sum(sizes[: i + 1])) for i in range(len(sizes))]
    parts = zip(outputs, [0, *ends[:-1]], ends, strict=True)
    return [_part(r, x, start, stop) if r.uses[name] else None for name, start, stop in parts]
