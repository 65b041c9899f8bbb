"""R1-Zero in miniature: pure GRPO on the shipped tiny base model, with rule rewards and no SFT.

    bash launch/local.sh experiments/tiny/r1_zero.py
    bash launch/local.sh experiments/tiny/r1_zero.py:arm=random_reward     (control: rewards are coin flips)
    bash launch/local.sh experiments/tiny/r1_zero.py:arm=format_only       (control: only the tags are paid)
    bash launch/local.sh experiments/tiny/r1_zero.py:arm=language          (thinking in the question's language is paid too)
    bash launch/local.sh experiments/tiny/r1_zero.py:steps=40,problems=128  (shorter, and measured on fewer problems)
    bash launch/local.sh experiments/tiny/r1_zero.py:seed=1,base=runs/tiny-pretrain-seed-1/stages/pretrain
"""

from ml_collections import ConfigDict

from experiments.tiny import suites
from r1jax.config import parse_arg
from r1jax.errors import UserError, nearest

# The paper pays accuracy and format alike (DeepSeek-R1, arXiv 2501.12948, 2025 revision, eq. 4). Here format is quick to
# learn and accuracy is not: at a weight of 0.2 the policy first collapsed to tagged guesses, and the reflection that leads
# to right answers died out (14 -> 2 words per 1,000 tokens in 20 steps); at 0.05 it grew.
ARMS = {
    'zero': 'accuracy=1,format=0.05',
    'format_only': 'format=1',
    'random_reward': 'random=1',
    'language': 'accuracy=1,format=0.05,language=0.2',
}


def get_config(arg: str = '') -> ConfigDict:
    arg = parse_arg(arg, arm='zero', seed=0, base='package:tiny_base', problems=512, steps=50)
    if arg.arm not in ARMS:
        raise UserError(f"experiments/tiny/r1_zero.py: there is no arm '{arg.arm}'{nearest(arg.arm, ARMS)}")
    config = ConfigDict()
    config.name = 'tiny-r1_zero' if arg.arm == 'zero' else f'tiny-r1_zero-{arg.arm}'
    config.seed = arg.seed
    config.cpu_devices = 2
    config.base = arg.base
    config.stages = ConfigDict()
    config.stages.r1_zero = ConfigDict({
        'kind': 'grpo',
        'task': 'tiny_reasoning',
        # Accuracy still creeps up afterwards, but reflection has its peak near step 30: at 60, one seed of three has less
        # than twice its base's at T = 1 (12.9 -> 25.4 words per 1,000 tokens; 26.8 at 50).
        'steps': arg.steps,
        'prompts': 16,
        'group': 16,
        'minibatches': 2,
        'rewards': ARMS[arg.arm],
        'sampling': {'slots': suites.SLOTS, 'max_tokens': suites.MAX_TOKENS, 'chunk': suites.CHUNK},
        'loss': {'kl_coef': 0.001},
        'row_length': 192,
        'micro_rows': 4,
        'optimizer': {'learning_rate': 1e-4, 'warmup_steps': 5},
    })
    config.evaluation = suites.paper(arg.problems)
    return config
