"""Networks that run in stages: the maps of those that are asked for."""

from collections.abc import Collection, Sequence

from torch import Tensor, nn


def run_stages(
    network: nn.Module, x: Tensor, names: Sequence[str], wanted: Collection[str]
) -> dict[str, Tensor]:
    """The maps of the wanted stages, by name; what comes behind the last one is not computed.

    Args:
        network: has a submodule of each name.
        x: what goes into the first one.
        names: of the stages, in order.
        wanted: whose maps are given.
    """
    maps: dict[str, Tensor] = {}
    for name in names:
        if maps.keys() >= set(wanted):
            break
        x = getattr(network, name)(x)
        if name in wanted:
            maps[name] = x
    return maps
