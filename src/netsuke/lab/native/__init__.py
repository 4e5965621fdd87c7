"""Fast training of small integer networks: fused kernels in C for the forward and backward pass of a `QuantGraph`.

Torch needs some hundred small passes over memory for one step of such a network. Here a layer is one function:
convolution, batch norm, rounding and clipping, and all their gradients, on maps laid out [C, H, W, N]. It takes a
C compiler; where there is none, or a network has an op unknown here, torch does the work as ever.
"""

from netsuke.lab.native.network import forward, usable

__all__ = ["forward", "usable"]
