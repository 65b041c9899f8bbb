"""Operations of matrix products in a function, counted in its jaxpr: loops as often as they turn, whatever the platform."""

import math
from collections.abc import Callable

from jax.extend.core import ClosedJaxpr, Jaxpr

from r1jax.models.attention import CAUSAL


def count(function: Callable, *args, **static) -> float:
    """Returns the floating-point operations of all matrix products of one call, over all devices together.

    Of causal attention half is counted, which is what kernels compute of it: the other half is masked. Work that several
    devices repeat counts once, a grouped product by the rows that it has.

    Args:
        function: a jitted function.
        args: shapes and dtypes of its arguments are enough.
    """
    return _of_jaxpr(function.trace(*args, **static).jaxpr)


def _of_jaxpr(jaxpr) -> float:
    jaxpr = getattr(jaxpr, 'jaxpr', jaxpr)
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation) -> float:
    name, params = equation.primitive.name, equation.params
    if name == 'dot_general':
        (contracted, _), _ = params['dimension_numbers']
        lhs = equation.invars[0].aval.shape
        operations = 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(lhs[i] for i in contracted)
        return operations / 2 if CAUSAL in str(equation.source_info.name_stack) else operations
    if name == 'ragged_dot_general':
        rows_lhs, rhs = (v.aval.shape for v in equation.invars[:2])
        out = equation.outvars[0].aval.shape
        # Rows times inputs times outputs, whichever of the three the product sums over: the groups share out the rows.
        groups = equation.invars[2].aval.shape[0]
        return 2.0 * math.sqrt(math.prod(rows_lhs) * math.prod(rhs) * math.prod(out) / groups)
    turns = params['length'] if name == 'scan' else 1
    if name == 'cond':
        return max(map(_of_jaxpr, params['branches']))
    inner = [
        value for param in params.values() for value in (param if isinstance(param, tuple | list) else (param,))
        if isinstance(value, Jaxpr | ClosedJaxpr)]
    return turns * sum(map(_of_jaxpr, inner))
