"""Student's t distribution, without a numerical library. Checked against scipy in the tests.

The distribution function goes through the regularised incomplete beta function, by Lentz's continued fraction
(Press et al., Numerical Recipes, section 6.4); the quantile by bisection.
"""

from __future__ import annotations

import functools
import math

_TINY = 1e-300


def t_cdf(t: float, df: float) -> float:
    """P(T <= t) with `df` degrees of freedom."""
    square = t * t
    # of the two forms of the same integral, the one whose argument isn't rounded away near 1
    if square < df:
        tail = 0.5 * (1 - _beta(square / (df + square), 0.5, df / 2))
    else:
        tail = 0.5 * _beta(df / (df + square), df / 2, 0.5)
    return 1 - tail if t > 0 else tail


@functools.lru_cache(maxsize=256)
def t_quantile(p: float, df: float) -> float:
    """The t with P(T <= t) = p, for 0 < p < 1."""
    if p < 0.5:
        return -t_quantile(1 - p, df)
    low, high = 0.0, 2.0
    while t_cdf(high, df) < p:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if t_cdf(middle, df) < p else (low, middle)
    return (low + high) / 2


def _beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b)."""
    if x <= 0 or x >= 1:
        return min(max(x, 0.0), 1.0)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    if x > (a + 1) / (a + b + 2):
        return 1 - front * _fraction(1 - x, b, a) / b
    return front * _fraction(x, a, b) / a


def _fraction(x: float, a: float, b: float) -> float:
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1) or _TINY)
    result = d
    for m in range(1, 300):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1 / (1 + even * d or _TINY)
        c = 1 + even / c or _TINY
        result *= d * c
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d = 1 / (1 + odd * d or _TINY)
        c = 1 + odd / c or _TINY
        result *= d * c
        if abs(d * c - 1) < 1e-14:
            break
    return result
