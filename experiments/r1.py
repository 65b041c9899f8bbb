"""The stages of DeepSeek-R1 with the paper's settings, from an R1-Zero that `experiments/r1_zero.py` has made.

    python -m r1jax run --config=experiments/r1.py --dry_run
    python -m r1jax plan --config=experiments/r1.py --stage=reasoning_rl
    python -m r1jax run --config=experiments/r1.py:size=32b,zero=runs/r1_zero/stages/r1_zero --workdir=runs/r1

`size` is the policy, as for R1-Zero.

`data` holds the prompts: reasoning.jsonl as for R1-Zero; general.jsonl (question, and response where it is to be a
demonstration for SFT); safety.jsonl; scenarios.jsonl (all of them together, where 'task' tells which is which).
`judge` is who compares pairs and labels responses: an OpenAI-compatible endpoint or a checkpoint.
"""

from ml_collections import ConfigDict

from experiments.common import V1, V2, cite, cite_evaluation, evaluation, lay_out, scale
from experiments.r1_zero import UPDATES, cite_rl, rl
from r1jax.config import parse_arg

TEMPLATE = 'r1_chat'
FORM = '{thought}\n</think>\n\n{summary}'


def get_config(arg: str = '') -> ConfigDict:
    arg = parse_arg(
        arg, size='671b', base='', zero='runs/r1_zero/stages/r1_zero', data='data/r1', seed=0,
        judge='http://127.0.0.1:8000/v1', judge_name='deepseek-v3')
    on = scale(arg.size)
    config = ConfigDict()
    config.name = 'r1'
    config.seed = arg.seed
    config.base = arg.base or on.base
    lay_out(config, on.topology, on.mesh, on.model)
    config.sources = ()
    config.stages = stages = ConfigDict()
    judge = {'model': arg.judge, 'name': arg.judge_name}
    sampling = {'slots': on.slots, 'max_tokens': 32_768, 'chunk': 64}
    sft = {
        'kind': 'sft', 'epochs': 2, 'batch': 128, 'row_length': 32_768, 'micro_rows': on.rows,
        'optimizer': {'learning_rate': 5e-5, 'schedule': 'cosine', 'end_ratio': 0.1}}

    # Stage 1. Thousands of long chains of thought, sampled from R1-Zero.
    stages.cold_start_data = ConfigDict({
        'kind': 'collect', 'inputs': {'model': arg.zero}, 'task': f'jsonl:path={arg.data}/reasoning.jsonl,template=r1_zero',
        'questions': 10_000, 'samples': 4, 'sampling': sampling | {'temperature': 1.0}, 'template': TEMPLATE, 'form': FORM,
        'reward_workers': 64,
        'keep': {'correct': True, 'language': 1.0}})
    cite(config, 'stages.cold_start_data', f'{V2}, cold start: sampled from R1-Zero at T = 1, kept if correct and readable',
         'sampling.temperature', 'keep.correct', 'keep.language')
    stages.cold_start = ConfigDict(sft | {
        'label': 'Dev1', 'inputs': {'model': 'base', 'data': 'cold_start_data'}})

    # Stage 2.
    stages.reasoning_rl = ConfigDict(rl(arg.data, TEMPLATE, on) | {
        'label': 'Dev2', 'inputs': {'model': 'cold_start'}, 'rewards': 'accuracy=1,format=1,language=1',
        'loss': {'kl_coef': 0.001, 'temperature': 1.0, 'clip_low': 10.0, 'clip_high': 10.0}})
    cite_rl(config, 'reasoning_rl')
    cite(config, 'stages.reasoning_rl', f'{V2}, training details of the first RL stage of R1', 'loss.clip_low',
         'loss.clip_high')
    cite(config, 'stages.reasoning_rl', f'{V2}, the language reward: share of words in the target language', 'rewards')

    # Stage 3: about 600,000 of reasoning and 200,000 general.
    stages.rejection = ConfigDict({
        'kind': 'collect', 'inputs': {'model': 'reasoning_rl'},
        'task': f'jsonl:path={arg.data}/reasoning.jsonl,template={TEMPLATE}', 'questions': 80_000, 'samples': 16, 'most': 8,
        'sampling': sampling | {'temperature': 1.0}, 'judge': judge, 'reward_workers': 64,
        'keep': {'correct': True, 'language': 1.0, 'code_blocks': False, 'paragraph': 4000},
        'general': f'jsonl:path={arg.data}/general.jsonl,task=general,template={TEMPLATE}', 'general_ratio': 1 / 3})
    cite(config, 'stages.rejection', f'{V1}, section 2.3.3: correct ones only; mixed languages, long paragraphs and code '
         'blocks are dropped', 'keep.correct', 'keep.language', 'keep.code_blocks')
    cite(config, 'stages.rejection', f'{V1}, section 2.3.3: about 600,000 of reasoning and 200,000 general', 'general_ratio')
    stages.sft = ConfigDict(sft | {'label': 'Dev3', 'inputs': {'model': 'base', 'data': 'rejection'}})
    cite(config, 'stages.sft', f'{V1}, section 2.3.3: two epochs', 'epochs')
    for name in ('cold_start', 'sft'):
        cite(config, f'stages.{name}', f'{V2}, SFT: 2 to 3 epochs, cosine 5e-5 to 5e-6, context 32,768, batch 128', 'epochs',
             'batch', 'row_length', 'optimizer.learning_rate', 'optimizer.schedule', 'optimizer.end_ratio')

    # Reward models.
    reward_model = {
        'kind': 'reward_model', 'epochs': 1, 'batch': 256, 'row_length': 16_384, 'micro_rows': on.rows,
        'optimizer': {'learning_rate': 6e-6}}
    judged = {'kind': 'preferences', 'inputs': {'model': 'sft'}, 'sampling': sampling | {'max_tokens': 8192}, 'judge': judge}
    general = f'jsonl:path={arg.data}/general.jsonl,task=general,template={TEMPLATE}'
    stages.helpful_pairs = ConfigDict(judged | {
        'task': general, 'questions': 66_000, 'samples': 2, 'votes': 4, 'margin': 1.0})
    cite(config, 'stages.helpful_pairs', f'{V2}, helpful reward model: 66,000 pairs, judged four times in random order, '
         'kept where the difference exceeds 1', 'questions', 'votes', 'margin')
    stages.helpful_rm = ConfigDict(reward_model | {
        'inputs': {'model': 'sft', 'data': 'helpful_pairs'}, 'loss': 'pairwise', 'reads': 'summary'})
    stages.safety_labels = ConfigDict(judged | {
        'task': f'jsonl:path={arg.data}/safety.jsonl,task=safety,template={TEMPLATE}', 'form': 'labels',
        'questions': 106_000, 'samples': 1})
    cite(config, 'stages.safety_labels', f'{V2}, safety reward model: 106,000 prompts, safe or unsafe', 'questions')
    stages.safety_rm = ConfigDict(reward_model | {
        'inputs': {'model': 'sft', 'data': 'safety_labels'}, 'loss': 'pointwise', 'reads': 'response'})
    for name, loss in (('helpful_rm', 'pairwise, reads the summary'), ('safety_rm', 'pointwise, reads the whole response')):
        cite(config, f'stages.{name}', f'{V2}, reward models: batch 256, rate 6e-6, one epoch; {loss}', 'epochs', 'batch',
             'optimizer.learning_rate', 'loss', 'reads')

    # Stage 4: 1,700 updates, the last 400 of them on all scenarios.
    stages.all_scenario_rl = ConfigDict(rl(arg.data, TEMPLATE, on) | {
        'label': 'R1', 'inputs': {'model': 'sft', 'helpful': 'helpful_rm', 'safety': 'safety_rm'},
        'steps': 1700 // UPDATES,
        'final': {'steps': 400 // UPDATES, 'task': f'jsonl:path={arg.data}/scenarios.jsonl,template={TEMPLATE}'},
        'rewards': 'accuracy=1,format=1,language=1', 'reward_models': {'helpful': 1.0, 'safety': 1.0},
        'reward_tasks': {'accuracy': 'math+choice+code+logic', 'helpful': 'general', 'safety': 'general+safety'},
        'sampling': sampling | {'temperature': 0.7}, 'loss': {'kl_coef': 0.001, 'temperature': 0.7}})
    cite_rl(config, 'all_scenario_rl')
    cite(config, 'stages.all_scenario_rl', f'{V2}, second RL stage of R1: 1,700 steps at T = 0.7; general data and '
         'preference rewards in the last 400', 'steps', 'final.steps', 'sampling.temperature', 'loss.temperature')
    config.evaluation = evaluation(f'{arg.data}/evaluation', 32_768, TEMPLATE)
    cite_evaluation(config)
    return config
