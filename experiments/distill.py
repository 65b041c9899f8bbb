"""Distillation into the paper's six students: SFT on the set that rejection sampling collected.

    python -m r1jax run --config=experiments/distill.py:student=qwen_7b --dry_run
    python -m r1jax plan --config=experiments/distill.py:student=qwen_7b
    python -m r1jax run --config=experiments/distill.py:student=llama_8b,base=checkpoints/llama-8b --workdir=runs/llama_8b
"""

from ml_collections import ConfigDict

from experiments.common import V1, V2, cite, cite_evaluation, evaluation, lay_out
from r1jax.config import parse_arg
from r1jax.errors import UserError, nearest

# student -> (the base that the paper took, peak learning rate, preset, TPUs, mesh of one row of the batch of 64 for each
# of its parts but tensor)
STUDENTS = {
    'qwen_1_5b': ('Qwen2.5-Math-1.5B', 1e-4, 'qwen2.5-math-1.5b', 'v5e:8x8', {'data': 4, 'fsdp': 16, 'tensor': 1}),
    'qwen_7b': ('Qwen2.5-Math-7B', 8e-5, 'qwen2.5-math-7b', 'v5e:16x16', {'data': 2, 'fsdp': 32, 'tensor': 4}),
    'llama_8b': ('Llama-3.1-8B', 5e-5, 'llama3.1-8b', 'v5e:16x16', {'data': 2, 'fsdp': 32, 'tensor': 4}),
    'qwen_14b': ('Qwen2.5-14B', 7e-5, 'qwen2.5-14b', 'v6e:16x16', {'data': 2, 'fsdp': 32, 'tensor': 4}),
    'qwen_32b': ('Qwen2.5-32B', 6e-5, 'qwen2.5-32b', 'v6e:16x16', {'data': 1, 'fsdp': 64, 'tensor': 4}),
    'llama_70b': ('Llama-3.3-70B-Instruct', 2e-5, 'llama3.3-70b', 'v5p:4x8x8', {'data': 1, 'fsdp': 64, 'tensor': 4}),
}


def get_config(arg: str = '') -> ConfigDict:
    arg = parse_arg(arg, student='qwen_1_5b', base='', data='runs/r1/stages/rejection/data', evaluate='data/r1', seed=0)
    if arg.student not in STUDENTS:
        raise UserError(f"there is no student '{arg.student}'{nearest(arg.student, STUDENTS)}")
    base, rate, model, topology, mesh = STUDENTS[arg.student]
    config = ConfigDict()
    config.name = f'distill-{arg.student}'
    config.seed = arg.seed
    config.base = arg.base or f'checkpoints/{base}'
    lay_out(config, topology, mesh, model)
    config.sources = ()
    config.stages = ConfigDict()
    config.stages.distill = ConfigDict({
        'kind': 'sft', 'inputs': {'model': 'base', 'data': arg.data}, 'epochs': 2, 'batch': 64, 'row_length': 32_768,
        'micro_rows': 64, 'optimizer': {'learning_rate': rate, 'schedule': 'cosine', 'end_ratio': 0.1}})
    cite(config, 'stages.distill', f'{V2}, distillation: 2 to 3 epochs, cosine to a tenth, context 32,768, batch 64',
         'epochs', 'batch', 'row_length', 'optimizer.schedule', 'optimizer.end_ratio')
    cite(config, 'stages.distill', f'{V2}, distillation, learning rates: {base}', 'optimizer.learning_rate')
    config.sources = (*config.sources, ('base', f'{V1}, section 2.4'))
    config.evaluation = evaluation(f'{arg.evaluate}/evaluation', 32_768, 'r1_chat')
    cite_evaluation(config)
    return config
