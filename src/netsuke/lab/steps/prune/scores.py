"""How much each weight matters: higher stays longer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Generator, Tensor, nn

from netsuke.data import Dataset
from netsuke.lab.inference import prepared, tensors
from netsuke.lab.objective import objective
from netsuke.lab.steps.prune.weights import gone, layers, original

IMAGES, BATCH = 2000, 32  # what gradients are taken on, and averaged over


def _magnitude(model: nn.Module, data: Dataset, seed: int) -> Iterator[Tensor]:
    """Han et al., Learning both weights and connections for efficient neural networks, 2015."""
    for layer in layers(model).values():
        yield layer.weight.detach().abs()  # type: ignore


def _random(model: nn.Module, data: Dataset, seed: int) -> Iterator[Tensor]:
    """The baseline that every other has to beat."""
    generator = Generator().manual_seed(seed)
    for layer in layers(model).values():
        weight: Tensor = layer.weight  # type: ignore
        yield torch.rand(weight.shape, generator=generator).to(weight.device)


def _gradient(model: nn.Module, data: Dataset, seed: int) -> Iterator[Tensor]:
    """|w * mean gradient|, what the loss changes by at first (Lee et al., SNIP, 2019)."""
    total = [sum(parts) for parts in zip(*_products(model, data), strict=True)]
    for score in total:
        yield torch.as_tensor(score).abs()


def _taylor(model: nn.Module, data: Dataset, seed: int) -> Iterator[Tensor]:
    """The mean of (w * gradient)^2 (Molchanov et al., Importance estimation for neural network pruning, 2019)."""
    total = [sum(p.square() for p in parts) for parts in zip(*_products(model, data), strict=True)]
    for score in total:
        yield torch.as_tensor(score)


def _products(model: nn.Module, data: Dataset) -> Iterator[list[Tensor]]:
    """Weight times gradient, layer by layer, for each batch of the training images."""
    parameters = [original(layer) for layer in layers(model).values()]
    weights = [layer.weight.detach() for layer in layers(model).values()]  # type: ignore
    images, labels = tensors(data.train)
    aim = objective(data)
    step = max(1, len(images) // IMAGES)
    where = parameters[0].device
    for x, y in zip(images[::step].split(BATCH), labels[::step].split(BATCH), strict=True):
        loss = aim.loss(model(prepared(x, where)), y.to(where))
        gradients = torch.autograd.grad(loss, parameters)
        yield [w * g for w, g in zip(weights, gradients, strict=True)]


IMPORTANCE: Mapping[str, Callable[[nn.Module, Dataset, int], Iterator[Tensor]]] = {
    "magnitude": _magnitude,
    "taylor": _taylor,
    "gradient": _gradient,
    "random": _random,
}


def scores(model: nn.Module, data: Dataset, importance: str, seed: int = 0) -> dict[str, Tensor]:
    """A score for each weight of `layers(model)`, in its shape; what is pruned already scores lowest."""
    was = model.training
    model.eval()
    found = dict(zip(layers(model), IMPORTANCE[importance](model, data, seed), strict=True))
    model.train(was)
    for name, layer in layers(model).items():
        found[name] = found[name].masked_fill(gone(layer), -torch.inf)
    return found
