"""Pretrains the tiny base model on the tiny world's documents, from scratch, tokenizer included.

    bash launch/local.sh experiments/tiny/pretrain.py:seed=1
    bash launch/local.sh experiments/tiny/pretrain.py:world=plain
    bash launch/local.sh experiments/tiny/pretrain.py:model=tiny-student

`world` is the mixture of documents: 'reflective' (the shipped base) or 'plain', the counter-world whose documents do not
favour reflection. `model` is the preset: 'tiny', or 'tiny-student', the smaller model that others are distilled into.
"""

from ml_collections import ConfigDict

from experiments.tiny import suites
from r1jax.config import parse_arg

# How long each preset is trained: those of the shipped models. Any other as long as 'tiny'.
STEPS = {'tiny': 3200, 'tiny-student': 2400}


def get_config(arg: str = '') -> ConfigDict:
    arg = parse_arg(arg, world='reflective', model='tiny', seed=0)
    config = ConfigDict()
    config.name = f'tiny-pretrain-{arg.world}' if arg.model == 'tiny' else f'tiny-pretrain-{arg.world}-{arg.model}'
    config.seed = arg.seed
    config.cpu_devices = 2
    config.stages = ConfigDict()
    config.stages.pretrain = ConfigDict({
        'kind': 'pretrain',
        'model': arg.model,
        'recipe': arg.world,
        'steps': STEPS.get(arg.model, STEPS['tiny']),
        'documents_per_step': 64,
        'optimizer': {
            'name': 'muon', 'learning_rate': 6e-3, 'schedule': 'cosine', 'warmup_steps': 100,
            'end_ratio': 0.02, 'weight_decay': 0.05},
    })
    config.evaluation = suites.short()
    return config
