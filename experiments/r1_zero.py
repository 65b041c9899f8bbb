"""R1-Zero with the paper's settings: GRPO on a base model with rule rewards, no SFT.

    python -m r1jax run --config=experiments/r1_zero.py --dry_run
    python -m r1jax plan --config=experiments/r1_zero.py
    python -m r1jax run --config=experiments/r1_zero.py:size=32b --workdir=runs/r1_zero

`size` is the policy: 671b (DeepSeek-V3, the paper's), 70b or 32b, see `experiments/common.py`.

The paper's step is one update on 32 questions x 16 responses. It samples 8,192 responses at a time and makes 16 updates of
them; that is one step here. 10,400 updates are 650 steps, and the longer responses after update 8,200 come with step 513.

`data`/reasoning.jsonl holds the questions, one JSON object a line: question, answer, and task ('math', 'choice', 'code' or
'logic').
"""

from ml_collections import ConfigDict

from experiments.common import V2, Scale, cite, cite_evaluation, evaluation, lay_out, scale
from r1jax.config import parse_arg

UPDATES = 16  # of one rollout of 8,192 responses


def rl(data: str, template: str, on: Scale) -> dict:
    """The settings that R1-Zero shares with R1's stages of reinforcement learning."""
    return {
        'kind': 'grpo',
        'task': f'jsonl:path={data}/reasoning.jsonl,template={template}',
        'steps': 10_400 // UPDATES,
        'prompts': 8192 // 16,
        'group': 16,
        'minibatches': UPDATES,
        'inner_epochs': 1,
        'rewards': 'accuracy=1,format=1',
        'reward_workers': 64,
        'reference_every': 400 // UPDATES,
        'sampling': {'slots': on.slots, 'max_tokens': 32_768, 'temperature': 1.0, 'chunk': 64},
        'loss': {'kl_coef': 0.001, 'temperature': 1.0},
        'optimizer': {'learning_rate': 3e-6},
        'row_length': 34_816,
        'micro_rows': on.rows,
        'checkpoint_every': 5,
    }


def cite_rl(config: ConfigDict, stage: str) -> None:
    """The sources of `rl`."""
    at = f'stages.{stage}'
    cite(config, at, f'{V2}, training details of R1-Zero: 32 questions of 16 outputs a step, rollouts of 8,192 outputs in '
         '16 minibatches of one inner epoch', 'prompts', 'group', 'minibatches', 'inner_epochs')
    cite(config, at, f'{V2}, training details of R1-Zero', 'sampling.max_tokens', 'optimizer.learning_rate', 'loss.kl_coef',
         'sampling.temperature')
    cite(config, at, f'{V2}, training details of R1-Zero: every 400 updates', 'reference_every')


def get_config(arg: str = '') -> ConfigDict:
    arg = parse_arg(arg, size='671b', base='', data='data/r1', seed=0)
    on = scale(arg.size)
    config = ConfigDict()
    config.name = 'r1_zero'
    config.seed = arg.seed
    config.base = arg.base or on.base
    lay_out(config, on.topology, on.mesh, on.model)
    config.sources = ()
    config.stages = ConfigDict()
    config.stages.r1_zero = ConfigDict(rl(arg.data, 'r1_zero', on) | {
        'row_length': 67_584, 'final': {'steps': 138, 'max_tokens': 65_536}})
    cite_rl(config, 'r1_zero')
    cite(config, 'stages.r1_zero', f'{V2}, training details of R1-Zero: 10,400 updates, 1.6 epochs', 'steps')
    cite(config, 'stages.r1_zero', f'{V2}, eq. 4: accuracy and format, equal weights', 'rewards')
    cite(config, 'stages.r1_zero', f'{V2}, training details of R1-Zero: 65,536 tokens after update 8,200', 'final.steps',
         'final.max_tokens')
    config.evaluation = evaluation(f'{arg.data}/evaluation', 32_768, 'r1_zero')
    cite_evaluation(config)
    return config
