"""Eight virtual CPU devices for every test, so that shardings are real; and the optional folder of real data."""

import os
import pathlib

os.environ['JAX_PLATFORMS'] = 'cpu'

import jax  # noqa: E402
import pytest  # noqa: E402  (after the environment: jax reads it once, at import)

from r1jax.parallel.mesh import split_cpu  # noqa: E402

split_cpu(8)


@pytest.fixture(scope='module', autouse=True)
def programs_of_a_file():
    """Forgets the programs of a file's tests after them. Each maps some pages of its own, a process may have 65,530 such
    pieces, and with all files' programs LLVM ran out of them: a segmentation fault in the middle of a compilation.
    """
    yield
    jax.clear_caches()


@pytest.fixture(scope='session')
def shared() -> pathlib.Path:
    """The folder of real data, tokenizers and models beside the checkout; tests that want it skip without it."""
    folder = pathlib.Path(__file__).resolve().parents[2] / 'shared'
    if not (folder / 'DATA.md').exists():
        pytest.skip('the folder shared/ with real data is not beside this checkout')
    return folder
