"""What the operators should give, by plain loops in numpy: written from the formulas, sharing nothing with jaxconv."""

import itertools

import numpy as np


def places(size, window, stride, pads, dilation):
    """Every (place, tap, pixel) that meet, padding left out: the windows of a convolution or pooling, as indices."""
    out = [
        (n + low + high - (d * (f - 1) + 1)) // s + 1
        for n, f, s, (low, high), d in zip(size, window, stride, pads, dilation)
    ]
    for place in itertools.product(*map(range, out)):
        for tap in itertools.product(*map(range, window)):
            pixel = [p * s + u * d - low for p, u, s, (low, _), d in zip(place, tap, stride, pads, dilation)]
            if all(0 <= q < n for q, n in zip(pixel, size)):
                yield place, tap, tuple(pixel)


def out_size(size, window, stride, pads, dilation):
    return tuple(
        (n + low + high - (d * (f - 1) + 1)) // s + 1
        for n, f, s, (low, high), d in zip(size, window, stride, pads, dilation)
    )


def conv(x, kernel, stride, pads, dilation, groups):
    """y[n, p, o] = Σ_u Σ_c x[n, p·stride + u·dilation − low, c] · kernel[u, c, o], group by group."""
    size, window = x.shape[1:-1], kernel.shape[:-2]
    *_, c, features = kernel.shape
    y = np.zeros((x.shape[0], *out_size(size, window, stride, pads, dilation), features))
    for place, tap, pixel in places(size, window, stride, pads, dilation):
        for o in range(features):
            first = o // (features // groups) * c
            for k in range(c):
                y[(slice(None), *place, o)] += x[(slice(None), *pixel, first + k)] * kernel[(*tap, k, o)]
    return y


def conv_gradients(x, kernel, dy, stride, pads, dilation, groups):
    """Of Σ dy · conv(x, kernel): every product x · kernel · dy of the sum, given to both of its factors."""
    dx, dk = np.zeros(x.shape), np.zeros(kernel.shape)
    size, window = x.shape[1:-1], kernel.shape[:-2]
    *_, c, features = kernel.shape
    for place, tap, pixel in places(size, window, stride, pads, dilation):
        for o in range(features):
            first = o // (features // groups) * c
            for k in range(c):
                d = dy[(slice(None), *place, o)]
                dx[(slice(None), *pixel, first + k)] += d * kernel[(*tap, k, o)]
                dk[(*tap, k, o)] += (d * x[(slice(None), *pixel, first + k)]).sum()
    return dx, dk


def pool(x, window, stride, pads, dilation, reduce):
    """``reduce`` of the real pixels under every window, channel by channel."""
    size = x.shape[1:-1]
    seen = {}
    for place, _, pixel in places(size, window, stride, pads, dilation):
        seen.setdefault(place, []).append(x[(slice(None), *pixel)])
    y = np.zeros((x.shape[0], *out_size(size, window, stride, pads, dilation), x.shape[-1]))
    for place, pixels in seen.items():
        y[(slice(None), *place)] = reduce(np.stack(pixels), axis=0)
    return y
