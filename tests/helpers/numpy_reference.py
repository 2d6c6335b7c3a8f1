"""Reference operators as loops in numpy, written from the formulas and independent of jaxconv."""

import itertools

import numpy as np


def window_entries(size, window, stride, pads, dilation):
    """Yield (position, kernel offset, pixel) for all pixels of all windows, without padding."""
    out = [
        (n + pad_low + pad_high - (d * (f - 1) + 1)) // s + 1
        for n, f, s, (pad_low, pad_high), d in zip(size, window, stride, pads, dilation)
    ]
    for position in itertools.product(*map(range, out)):
        for offset in itertools.product(*map(range, window)):
            pixel = [
                p * s + u * d - pad_low for p, u, s, (pad_low, _), d in zip(position, offset, stride, pads, dilation)
            ]
            if all(0 <= q < n for q, n in zip(pixel, size)):
                yield position, offset, tuple(pixel)


def out_size(size, window, stride, pads, dilation):
    return tuple(
        (n + low + high - (d * (f - 1) + 1)) // s + 1
        for n, f, s, (low, high), d in zip(size, window, stride, pads, dilation)
    )


def conv(x, kernel, stride, pads, dilation, groups):
    """Compute y[n, p, o] = Σ_u Σ_c x[n, p·stride + u·dilation − low, c] · kernel[u, c, o], group by group."""
    size, window = x.shape[1:-1], kernel.shape[:-2]
    *_, c, features = kernel.shape
    y = np.zeros((x.shape[0], *out_size(size, window, stride, pads, dilation), features))
    for position, offset, pixel in window_entries(size, window, stride, pads, dilation):
        for o in range(features):
            start = o // (features // groups) * c
            for channel in range(c):
                y[(slice(None), *position, o)] += (
                    x[(slice(None), *pixel, start + channel)] * kernel[(*offset, channel, o)]
                )
    return y


def conv_gradients(x, kernel, dy, stride, pads, dilation, groups):
    """Compute the gradients of Σ dy · conv(x, kernel) with respect to x and kernel."""
    dx, dk = np.zeros(x.shape), np.zeros(kernel.shape)
    size, window = x.shape[1:-1], kernel.shape[:-2]
    *_, c, features = kernel.shape
    for position, offset, pixel in window_entries(size, window, stride, pads, dilation):
        for o in range(features):
            start = o // (features // groups) * c
            for channel in range(c):
                d = dy[(slice(None), *position, o)]
                dx[(slice(None), *pixel, start + channel)] += d * kernel[(*offset, channel, o)]
                dk[(*offset, channel, o)] += (d * x[(slice(None), *pixel, start + channel)]).sum()
    return dx, dk


def pool(x, window, stride, pads, dilation, reduce):
    """Apply ``reduce`` to the pixels of every window, without padding, channel by channel."""
    size = x.shape[1:-1]
    windows = {}
    for position, _, pixel in window_entries(size, window, stride, pads, dilation):
        windows.setdefault(position, []).append(x[(slice(None), *pixel)])
    y = np.zeros((x.shape[0], *out_size(size, window, stride, pads, dilation), x.shape[-1]))
    for position, pixels in windows.items():
        y[(slice(None), *position)] = reduce(np.stack(pixels), axis=0)
    return y
