"""What the experiments at the paper's scale share: where its figures stand, and how they are written beside the settings."""

from ml_collections import ConfigDict

# DeepSeek-R1: arXiv 2501.12948; v2 is the revision of 2025, with the supplement of the version in Nature.
V1 = 'DeepSeek-R1, arXiv 2501.12948 v1'
V2 = 'DeepSeek-R1, arXiv 2501.12948 v2'


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
