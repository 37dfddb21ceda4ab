"""Layer ranges as people write them."""

from __future__ import annotations

from adapterprobe.errors import ConfigError


def parse_blocks(spec: str, n_layers: int) -> list[int]:
    """Blocks that an adapter sits in, counted 0 .. n_layers - 1.

    >>> parse_blocks("last:2", 30)
    [28, 29]

    Raises:
        ConfigError: see `parse_layers`.
    """
    rule = f"blocks go from 0 to {n_layers - 1} (last block = {n_layers - 1}, its output = state {n_layers})"
    return parse_layers(spec, 0, n_layers - 1, "block", rule)


def parse_states(spec: str, n_layers: int) -> list[int]:
    """Hidden states that are recorded or read, counted 0 .. n_layers: 0 enters the first block, l leaves the l-th.

    >>> parse_states("last:2", 30)
    [29, 30]

    Raises:
        ConfigError: see `parse_layers`.
    """
    rule = f"states go from 0 to {n_layers} (last block = {n_layers - 1}, its output = state {n_layers})"
    return parse_layers(spec, 0, n_layers, "hidden state", rule)


def parse_layers(spec: str, low: int, high: int, what: str = "layer", rule: str = "") -> list[int]:
    """Layers named by `spec` out of low .. high (both inclusive), sorted.

    >>> parse_layers("last:2", 0, 9), parse_layers("first:2", 0, 9), parse_layers("2-4", 0, 9)
    ([8, 9], [0, 1], [2, 3, 4])
    >>> parse_layers("1,5,7-8", 0, 9), parse_layers("all", 0, 2)
    ([1, 5, 7, 8], [0, 1, 2])
    >>> parse_layers("33%-83%", 0, 29) == list(range(10, 25)), parse_layers("50%-100%", 0, 3)
    (True, [2, 3])

    Args:
        what: what is counted, for errors.
        rule: how it is counted, for errors.

    Raises:
        ConfigError: not in this notation, or a layer that does not exist (says which do).
    """
    try:
        layers = _parse(str(spec).strip(), low, high)
    except ValueError:
        raise ConfigError(
            f"layers '{spec}' not understood; expected all, last:4, first:4, 8-20, 3,5 or 33%-83%"
        ) from None
    outside = [layer for layer in layers if not low <= layer <= high]
    if outside or not layers:
        raise ConfigError(
            f"layers '{spec}': there is no {what} {outside[0] if outside else ''}; {rule or f'they go from {low} to {high}'}"
        )
    return layers


def _parse(spec: str, low: int, high: int) -> list[int]:
    if spec == "all":
        return list(range(low, high + 1))
    if spec.startswith(("last:", "first:")):
        count = int(spec.split(":")[1])
        if count < 1:
            raise ValueError
        return list(range(high - count + 1, high + 1) if spec[0] == "l" else range(low, low + count))
    if "%" in spec:
        start, end = (float(part.strip().removesuffix("%")) / 100 for part in spec.split("-"))
        if not 0 <= start < end <= 1:
            raise ValueError
        count = high - low + 1
        return [low + i for i in range(count) if start <= i / count < end]
    found = set()
    for part in spec.split(","):
        start, dash, end = part.partition("-")
        found.update(range(int(start), int(end if dash else start) + 1))
    return sorted(found)
