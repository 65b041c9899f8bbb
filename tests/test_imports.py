"""Which module may import which: TensorFlow stays at its door, and dependencies point one way."""

import ast
import pathlib
import subprocess
import sys

import pytest

import r1jax

PACKAGE = pathlib.Path(r1jax.__file__).parent
MODULES = {
    '.'.join(('r1jax', *path.relative_to(PACKAGE).with_suffix('').parts)).removesuffix('.__init__'): path
    for path in sorted(PACKAGE.rglob('*.py'))}
DOOR = 'r1jax.data.tasks'
TENSORFLOW = {'tensorflow', 'tensorflow_datasets', 'tensorflow_text', 'seqio', 'clu'}
NEVER = {'torch', 'transformers'}

# A module imports from its own layer and lower ones; what has no layer (rewards, data, interop, runtime, ...)
# may be imported by all and imports nothing from the stages upward.
LAYERS = {
    'models': 0, 'parallel': 0, 'sampling': 1, 'learning': 1, 'stages': 2, 'pipeline': 3, 'ablation': 4, 'dry_run': 4,
    'plan': 4, '__main__': 5}
STAGES = LAYERS['stages']


def imports(source: str, module: str) -> set[str]:
    """Absolute names of all that `source` imports, at the top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = module.split('.')[:-node.level] if node.level else []
            package += [node.module] if node.module else []
            found.update('.'.join([*package, alias.name]) for alias in node.names)
    return found


def layer(name: str) -> int | None:
    parts = name.split('.')
    return LAYERS.get(parts[1]) if parts[0] == 'r1jax' and len(parts) > 1 else None


def faults(module: str, imported: set[str]) -> list[str]:
    """What is wrong with a module's imports, in words."""
    wrong = []
    for name in sorted(imported):
        top = name.split('.')[0]
        if top in NEVER or (top in TENSORFLOW and module != DOOR):
            wrong.append(f'{module} imports {top}')
        here, there = layer(module), layer(name)
        if there is not None and (there > here if here is not None else there >= STAGES):
            wrong.append(f'{module} imports {name}, which lies above it')
    return wrong


@pytest.mark.parametrize('module', MODULES)
def test_imports_point_down_and_tensorflow_stays_at_the_door(module):
    assert not faults(module, imports(MODULES[module].read_text(encoding='utf-8'), module))


@pytest.mark.parametrize('module, source, fault', [
    ('r1jax.models.layers', 'from r1jax.sampling import engine', 'above'),
    ('r1jax.models.layers', 'def f():\n  import r1jax.stages.sft', 'above'),
    ('r1jax.learning.step', 'from r1jax import pipeline', 'above'),
    ('r1jax.learning.step', 'from ..stages import sft', 'above'),
    ('r1jax.rewards.base', 'from r1jax.stages.grpo import run', 'above'),
    ('r1jax.runtime.metrics', 'from clu import metric_writers', 'imports clu'),
    ('r1jax.interop.hf', 'def f():\n  import torch.nn', 'imports torch'),
    (DOOR, 'import transformers', 'imports transformers'),
    ('r1jax.stages.grpo', 'from r1jax.learning import grpo', ''),
    ('r1jax.stages.grpo', 'from r1jax.rewards.base import Example', ''),
    ('r1jax.sampling.engine', 'from ..models import transformer', ''),
    (DOOR, 'def f():\n  import seqio', ''),
])
def test_the_reader_of_imports_sees_faults(module, source, fault):
    found = faults(module, imports(source, module))
    assert fault in ' '.join(found) if fault else not found


@pytest.mark.parametrize('modules', [sorted(MODULES.keys() - {DOOR}), [DOOR]], ids=['all else', 'door'])
def test_importing_loads_no_tensorflow_and_needs_no_torch(modules):
    program = (
        'import importlib, sys\n'
        f'sys.modules.update(dict.fromkeys({NEVER!r}))\n'  # None: importing them fails, as if not installed
        f'for name in {modules!r}: importlib.import_module(name)\n'
        f'print(sorted({TENSORFLOW!r} & set(sys.modules)))')
    result = subprocess.run(
        [sys.executable, '-c', program], capture_output=True, text=True, cwd=PACKAGE.parent)
    assert (result.returncode, result.stdout.strip()) == (0, '[]'), result.stderr
