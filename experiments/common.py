"""What the experiments at the paper's scale share: where its figures stand, how they are written beside the settings, and
which TPUs they are laid out for.
"""

import dataclasses
from collections.abc import Mapping

from ml_collections import ConfigDict

from r1jax.errors import UserError, nearest

# DeepSeek-R1: arXiv 2501.12948; v2 is the revision of 2025, with the supplement of the version in Nature.
V1 = 'DeepSeek-R1, arXiv 2501.12948 v1'
V2 = 'DeepSeek-R1, arXiv 2501.12948 v2'


@dataclasses.dataclass(frozen=True)
class Scale:
    """A model and the TPUs on which `r1jax plan` finds room for its stages.

    Attributes:
        base: its folder.
        model: its preset, for a plan without that folder.
        topology, mesh: the TPUs, and how they are laid out.
        rows: packed rows of a micro-batch, one for each part of the mesh that has rows of its own.
        slots: completions that are sampled at a time.
    """

    base: str
    model: str
    topology: str
    mesh: Mapping[str, int]
    rows: int
    slots: int


# Policies for reinforcement learning: the paper's, and its comparison of distillation with RL on a 32B model (section 4.1).
SCALES = {
    '671b': Scale('checkpoints/deepseek-v3-base', 'deepseek-v3', 'v5p:8x8x8',
                  {'data': 1, 'fsdp': 16, 'expert': 8, 'tensor': 4}, rows=128, slots=1024),
    '70b': Scale('checkpoints/llama-3.3-70b', 'llama3.3-70b', 'v5p:4x8x8',
                 {'data': 1, 'fsdp': 32, 'expert': 1, 'tensor': 8}, rows=32, slots=256),
    '32b': Scale('checkpoints/qwen2.5-32b', 'qwen2.5-32b', 'v5p:4x4x8',
                 {'data': 1, 'fsdp': 32, 'expert': 1, 'tensor': 4}, rows=32, slots=256),
}


def scale(size: str) -> Scale:
    """Returns the named one. Raises UserError with the nearest name if there is none."""
    if size not in SCALES:
        raise UserError(f"there is no size '{size}'{nearest(size, SCALES)}")
    return SCALES[size]


def lay_out(config: ConfigDict, topology: str, mesh: Mapping[str, int], model: str) -> None:
    """Sets what an experiment needs to run on a pod: mesh, layers in a loop, and only their inputs kept for the gradient."""
    config.dtype = 'bfloat16'
    config.mesh = dict(mesh)
    config.scan_layers = True
    config.remat = 'full'
    config.plan = {'topology': topology, 'model': model}


def cite(config: ConfigDict, prefix: str, source: str, *settings: str) -> None:
    """Records that settings below `prefix` ('stages.sft') have their values from `source`; `run --dry_run` shows it."""
    for setting in settings:
        config.sources = (*config.sources, (f'{prefix}.{setting}', source))


def evaluation(data: str, max_tokens: int, template: str) -> ConfigDict:
    """The paper's protocol on files of the benchmarks' questions, one JSON object a line (question, answer).

    Args:
        data: the folder of aime24.jsonl, math500.jsonl and gpqa.jsonl.
        max_tokens: the longest response.
        template: the prompt template of the model.
    """
    def suite(file: str, problems: int, samples: int, task: str = 'math') -> dict:
        return {
            'task': f'jsonl:path={data}/{file}.jsonl,task={task},template={template}', 'problems': problems,
            'samples': samples,
            'sampling': {'slots': 256, 'max_tokens': max_tokens, 'temperature': 0.6, 'top_p': 0.95}}

    return ConfigDict({'suites': {
        'aime24': suite('aime24', 30, 64), 'math500': suite('math500', 500, 16), 'gpqa': suite('gpqa', 198, 64, 'choice')}})


def cite_evaluation(config: ConfigDict) -> None:
    """The sources of `evaluation`."""
    for name in config.evaluation.suites:
        cite(config, f'evaluation.suites.{name}', f'{V1}, section 3: 64 samples on AIME and GPQA, 16 on MATH-500; T 0.6, '
             'top-p 0.95, at most 32,768 tokens', 'samples', 'sampling.temperature', 'sampling.top_p', 'sampling.max_tokens')
