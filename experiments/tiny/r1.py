"""The whole of R1 in miniature: R1-Zero, cold start, reasoning RL, rejection sampling, SFT, reward models, all-scenario RL,
and distillation into a smaller student of another family with another tokenizer.

    bash launch/local.sh experiments/tiny/r1.py
    bash launch/local.sh experiments/tiny/r1.py:seed=1,base=runs/tiny-pretrain-seed-1/stages/pretrain
    bash launch/local.sh experiments/tiny/r1.py:language=0       (control: the language reward weighs nothing)

The order and the parts are the paper's (DeepSeek-R1, arXiv 2501.12948, 2025 revision); sizes and rates are the laptop's.
"""

from ml_collections import ConfigDict

from experiments.tiny import suites
from experiments.tiny.r1_zero import ARMS
from r1jax.config import parse_arg

SAMPLING = {'slots': suites.SLOTS, 'max_tokens': suites.MAX_TOKENS, 'chunk': suites.CHUNK}
SFT = {
    'kind': 'sft', 'epochs': 2, 'batch': 64, 'row_length': 192, 'micro_rows': 4,
    # The paper: cosine to a tenth of the rate (5e-5 -> 5e-6).
    'optimizer': {'name': 'muon', 'learning_rate': 4e-3, 'schedule': 'cosine', 'warmup_steps': 5, 'end_ratio': 0.1},
}
# Shorter than r1_zero.py by what still creeps up there, for the sake of thirty minutes in all.
ZERO_STEPS = 40
FORM = ' <think> {thought} </think> <answer> {answer} </answer>'


def rl(**changed) -> dict:
    """The settings that all stages of reinforcement learning share."""
    return {
        'kind': 'grpo', 'task': 'tiny_reasoning', 'prompts': 16, 'group': 16, 'minibatches': 2, 'row_length': 192,
        'micro_rows': 4, 'sampling': dict(SAMPLING), 'loss': {'kl_coef': 0.001}, 'old_logprobs': 'sampler',
        'optimizer': {'learning_rate': 1e-4, 'warmup_steps': 5}} | changed


def get_config(arg: str = '') -> ConfigDict:
    arg = parse_arg(arg, seed=0, base='package:tiny_base', student='package:tiny_student', language=0.2)
    config = ConfigDict()
    config.name = 'tiny-r1'
    config.seed = arg.seed
    config.cpu_devices = 2
    config.base = arg.base
    config.stages = stages = ConfigDict()

    stages.r1_zero = ConfigDict({'label': 'Zero'} | rl(steps=ZERO_STEPS, rewards=ARMS['zero']))

    # Stage 1: what R1-Zero got right and wrote in one language, sampled at T = 1, teaches the base to write readably.
    stages.cold_start_data = ConfigDict({
        'kind': 'collect', 'inputs': {'model': 'r1_zero'}, 'task': 'tiny_reasoning', 'questions': 600, 'samples': 4,
        'sampling': dict(SAMPLING), 'form': FORM})
    stages.cold_start = ConfigDict({
        'label': 'Dev1', 'inputs': {'model': 'base', 'data': 'cold_start_data'}} | SFT)

    # Stage 2: reasoning RL with the language reward; clip 10 and a new reference every 400 steps are the paper's.
    stages.reasoning_rl = ConfigDict({'label': 'Dev2', 'inputs': {'model': 'cold_start'}} | rl(
        steps=20, rewards=f'accuracy=1,format=0.05,language={arg.language}', reference_every=400,
        loss={'kl_coef': 0.001, 'clip_low': 10.0, 'clip_high': 10.0}))

    # Stage 3: rejection sampling, three parts of reasoning to one of general data, and SFT of the base again.
    stages.rejection = ConfigDict({
        'kind': 'collect', 'inputs': {'model': 'reasoning_rl'}, 'task': 'tiny_reasoning', 'questions': 5600, 'samples': 1,
        'sampling': dict(SAMPLING), 'form': FORM, 'general': 'tiny_assistant', 'general_ratio': 1 / 3})
    stages.sft = ConfigDict({'label': 'Dev3', 'inputs': {'model': 'base', 'data': 'rejection'}} | SFT)

    # Reward models: the policy's architecture with a scalar head, from judged pairs and labelled responses. Their scores are
    # added up over the tokens, and half of the pairs are borrowed (WORKSPACE.md has what either is worth).
    judged = {'kind': 'preferences', 'inputs': {'model': 'sft'}, 'sampling': dict(SAMPLING)}
    reward_model = {
        'kind': 'reward_model', 'pooling': 'sum', 'batch': 32, 'row_length': 256, 'micro_rows': 4,
        'optimizer': {'name': 'muon', 'learning_rate': 2e-3, 'schedule': 'cosine', 'warmup_steps': 5}}
    stages.helpful_pairs = ConfigDict(judged | {
        'task': 'tiny_helpful', 'questions': 2600, 'samples': 4, 'borrowed': 2, 'margin': 2.0})
    stages.helpful_rm = ConfigDict(reward_model | {
        'inputs': {'model': 'sft', 'data': 'helpful_pairs'}, 'loss': 'pairwise', 'reads': 'summary'})
    stages.safety_labels = ConfigDict(judged | {
        'task': 'tiny_safety', 'form': 'labels', 'questions': 1500, 'samples': 1})
    stages.safety_rm = ConfigDict(reward_model | {
        'inputs': {'model': 'sft', 'data': 'safety_labels'}, 'loss': 'pointwise', 'reads': 'response'})

    # Stage 4: all scenarios at T = 0.7; general requests and preference rewards in the last part only. The true preference
    # is measured beside the reward models' score (weight 0), so that the report shows where the two part. Against hacking:
    # many prompts with few responses each; advantages in the rewards' own scale, because a group whose responses are all
    # good differs by the reward model's noise alone; a KL penalty in the reward, and one on repetition.
    general = 'everyday+knowledge+safety'
    stages.all_scenario_rl = ConfigDict({
        'label': 'R1', 'inputs': {'model': 'sft', 'helpful': 'helpful_rm', 'safety': 'safety_rm'}} | rl(
        steps=28, final={'steps': 25, 'task': 'tiny_scenarios'},
        rewards=f'accuracy=1,format=0.1,language={arg.language},repetition=3,true_helpfulness=0,true_harmlessness=0',
        reward_options={'repetition': {'n': 3, 'reads': 'summary'}},
        reward_models={'helpful': 2.0, 'safety': 0.2}, advantage_std=False,
        reward_tasks={
            'accuracy': 'arithmetic+logic+choice+function', 'helpful': general, 'safety': general, 'repetition': general,
            'true_helpfulness': general, 'true_harmlessness': general},
        sampling=SAMPLING | {'temperature': 0.7},
        prompts=32, group=8, optimizer={'learning_rate': 2e-4, 'warmup_steps': 5},
        loss={'kl_coef': 0.1, 'kl_in': 'reward', 'kl_estimator': 'k1', 'temperature': 0.7}))

    # Distillation: SFT of a student on the teacher's data; and RL on the same student, for comparison.
    stages.distill = ConfigDict({'label': 'distilled', 'inputs': {'model': arg.student, 'data': 'rejection'}} | SFT)
    stages.student_rl = ConfigDict({'label': 'student by RL', 'inputs': {'model': arg.student}} | rl(
        steps=25, rewards=ARMS['zero'], row_length=256, sampling=SAMPLING | {'max_tokens': suites.STUDENT_TOKENS}))

    config.evaluation = suites.stages()
    config.result = 'all_scenario_rl'
    return config
