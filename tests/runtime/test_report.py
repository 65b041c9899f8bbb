"""The report: what it says is what the run's folder says, and nothing in it can reach out or break out."""

import html.parser
import json
import math
import pathlib
import random
import re
import shutil

import numpy as np
import pytest

from r1jax.errors import UserError
from r1jax.runtime.datacard import make_card, write_card
from r1jax.runtime.metrics import MetricWriter, read_metrics
from r1jax.runtime.report import build_report
from r1jax.runtime.report.load import Stage
from r1jax.runtime.report.models import compared, models_of, result_of
from r1jax.runtime.report.reward_models import hacked, trend
from r1jax.runtime.report.tables import Figure, column_of, difference, split_name, split_suite, suites_in
from r1jax.runtime.rollouts import as_rows, read_rollouts, step_path, write_rollouts

FAMILIES, LANGUAGES = ('arithmetic', 'logic', 'choice', 'code'), ('en', 'zh')
HOSTILE = ('</script><script>alert(1)</script><img src="http://evil.example/x.png" onerror=alert(2)>'
           '&lt;{{ 7 * 7 }}\u2028')
THINKING = {
    'en': ['The crate holds {a} pears and {b} more arrive.', 'So the sum is {a} + {b} = {s}.',
           'Wait, let me check that.', 'But {a} + {b} could also be taken apart: {a} + {b} = {s}.',
           'I verify: {s} - {b} = {a}.'],
    'zh': ['箱子里有 {a} 个梨，又来了 {b} 个。', '所以总数是 {a} + {b} = {s}。', '等等，让我检查一下。',
           '验证：{s} - {b} = {a}。'],
}


def completion(rng, a, b, language, skill):
    """(text, right, tokens, finished): better in every way with more skill (0 to 1)."""
    right = rng.random() < 0.05 + 0.75 * skill
    answer = a + b if right else a + b + rng.choice([-10, -1, 1, 2])
    thoughts = THINKING[language]
    n = 1 + int(rng.random() * (1 + 4 * skill)) if rng.random() < 0.9 else 6
    thought = ' '.join(thoughts[min(i, len(thoughts) - 1)].format(a=a, b=b, s=answer) for i in range(n))
    formed = rng.random() < 0.2 + 0.79 * skill
    text = f' <think> {thought} </think> <answer> {answer} </answer>' if formed else f' {thought} {answer}'
    finished = rng.random() < 0.85 + 0.14 * skill
    if not finished:
        text, right = text[:len(text) * 2 // 3], False
    return text, right, len(text) // 3 + 1, finished


def rollouts(rng, step, skill, problems, group):
    rows = []
    for prompt_id in problems:
        problem = random.Random(prompt_id)
        task, language = FAMILIES[prompt_id % 4], LANGUAGES[prompt_id // 4 % 2]
        a, b = problem.randrange(10, 500), problem.randrange(10, 500)
        question = {'en': f'{a} pears and {b} more: how many?', 'zh': f'{a} 个梨再加 {b} 个，一共多少？'}
        for sample in range(group):
            text, right, tokens, finished = completion(rng, a, b, language, skill)
            parts = {'accuracy': float(right), 'format': float('</answer>' in text)}
            words = len(re.findall(r'\b(?:wait|check|but|verify)\b|等等|检查|验证', text, re.I))
            rows.append({
                'step': step, 'prompt_id': prompt_id, 'sample': sample, 'task': task, 'kind': 'sum',
                'language': language, 'difficulty': 1 + prompt_id % 3,
                'prompt': f'A conversation about sums.\nUser: {question[language]}\nAssistant:',
                'completion': text, 'answer': str(a + b), 'reward': sum(parts.values()), 'rewards': parts,
                'advantage': rng.gauss(0, 1), 'n_tokens': tokens, 'finished': finished,
                'reflection_words': words, 'logprob_mean': -rng.random(),
                'id': '', 'question': question[language], 'options': [], 'tests': ''})
    return rows


def step_metrics(rng, step, skill):
    def near(value, noise=0.1):
        return value * (1 + noise * rng.gauss(0, 1))
    share = 0.05 + 0.75 * skill
    metrics = {
        'reward/mean': near(share + 0.2 + 0.79 * skill), 'reward/std': near(0.5),
        'reward/accuracy': near(share),
        'reward/format': min(1, near(0.2 + 0.79 * skill, 0.03)), 'pass_rate': near(share),
        'groups/zero_variance': near(0.3 + 0.2 * skill), 'groups/resampled': 0.1 * rng.random(),
        'length/mean': near(60 + 90 * skill), 'length/min': near(12),
        'length/max': min(256.0, near(220 + 30 * skill)),
        'length/finished_mean': near(55 + 88 * skill), 'truncated': near(0.15 * (1 - skill) + 0.01),
        'format_rate': min(1, near(0.2 + 0.79 * skill, 0.03)),
        'language_consistency': min(1, near(0.9 + 0.08 * skill, 0.02)),
        'reflection_per_1k': near(2 + 12 * skill), 'entropy': near(1.4 - 0.9 * skill, 0.05),
        'kl_ref': near(0.3 * skill + 1e-4),
        'ratio/mean': 1 + 0.001 * rng.gauss(0, 1), 'ratio/max': 1.1 + rng.random(), 'clip/low': near(0.01),
        'clip/high': near(0.02), 'grad_norm': near(0.8), 'lr': 3e-4 * min(1, (step + 1) / 10),
        'logp_diff/mean': near(2e-7),
        'logp_diff/max': near(3e-6, 0.5), 'tokens_per_s/sampling': near(5200),
        'tokens_per_s/training': near(21000),
        'seconds/sampling': near(6 + 6 * skill), 'seconds/rewards': near(0.8), 'seconds/scoring': near(1.5),
        'seconds/update': near(4), 'seconds/step': near(12.5 + 6 * skill),
        'rewards/timeouts': 0, 'rewards/crashes': 0, 'rewards/unparseable': 3}
    for i, family in enumerate(FAMILIES):
        for j, language in enumerate(LANGUAGES):
            if rng.random() < 0.9:
                rate = near(share * (1.2 - 0.12 * i - 0.1 * j), 0.2)
                metrics[f'pass_rate/{family}/{language}'] = min(1, max(0, rate))
    return metrics


def interval(mean, half, n):
    return {'mean': mean, 'low': mean - half, 'high': mean + half, 'n': n}


def write_summary(workdir, rng):
    stages = {'base': {}, 'r1_zero': {}}
    groups = ['all', *FAMILIES, *(f'{family}/{language}' for family in FAMILIES for language in LANGUAGES)]
    for model, skill in (('base', 0.05), ('r1_zero', 0.8)):
        for i, group in enumerate(groups):
            n = 400 if group == 'all' else 100 if '/' not in group else 50
            share = (0.05 + 0.75 * skill) * (1.1 - 0.02 * i)
            named = {'pass@1/T=0.6': share, 'pass@1/T=1': share * 0.9, 'cons@16': min(1, share * 1.25),
                     'pass@16': min(1, share * 1.4 + 0.1), 'format': 0.2 + 0.79 * skill,
                     'last_answer': min(1, share * 1.1),
                     'language_consistency': 0.95, 'truncated': 0.15 * (1 - skill)}
            for name, mean in named.items():
                half = 1.96 * math.sqrt(mean * (1 - mean) / n)
                stages[model][f'{name}/{group}'] = interval(mean, half, n)
            for name, mean in (('length', 60 + 90 * skill), ('reflection_per_1k', 2 + 12 * skill)):
                mean *= 1 + 0.1 * rng.random()
                stages[model][f'{name}/{group}'] = interval(mean, 0.05 * mean, n)
    summary = {'experiment': 'tiny-r1_zero', 'seed': 7, 'stages': stages}
    (workdir / 'summary.json').write_text(json.dumps(summary))
    return summary


def make_run(workdir, steps=60, problems=24, group=4, done=True):
    """A whole run of 'tiny R1-Zero', made up."""
    rng = random.Random(1)
    summary = write_summary(workdir, rng)
    manifest = {
        'experiment': {'name': 'tiny-r1_zero', 'stages': {'r1_zero': {'kind': 'grpo'}}, 'seed': 7}, 'hash': '0' * 64,
        'commit': 'f00ba47', 'version': '0.1', 'created': '2026-01-01T00:00:00+00:00'}
    (workdir / 'manifest.json').write_text(json.dumps(manifest))
    folder = workdir / 'stages' / 'r1_zero'
    with MetricWriter(folder) as writer:
        for step in range(1, steps + 1):
            skill = 1 / (1 + math.exp(-10 * (step / steps - 0.45)))
            writer.write(step, step_metrics(rng, step, skill))
            if step % 5 == 0 or step == 1:
                chosen = [(step * problems + i) % 1000 for i in range(problems)]
                rows = rollouts(rng, step, skill, chosen, group)
                write_rollouts(step_path(folder / 'rollouts', step), rows)
    config = {'lr': 3e-4, 'group': group, 'steps': steps, 'template': 'tiny'}
    (folder / 'config.json').write_text(json.dumps(config))
    write_rollouts(folder / 'eval' / 'base_T=0.6.parquet', rollouts(rng, 0, 0.05, range(problems * 2), group))
    write_rollouts(folder / 'eval' / 'T=0.6.parquet', rollouts(rng, steps, 0.8, range(problems * 2), group))
    if done:
        (folder / 'DONE').touch()
    return summary


class Page(html.parser.HTMLParser):
    """What a browser would make of the page: its elements, its texts and its data."""

    def __init__(self, path):
        super().__init__()
        self.source = path.read_text(encoding='utf-8')
        self.elements, self.texts, self._open = [], [], []
        self.tables = {}  # what a screen reader calls a table -> its rows -> its cells' texts
        self.feed(self.source)
        data, = (text for _, attributes, text in self.texts if attributes.get('id') == 'data')
        self.data = json.loads(data)
        visible = [text for tag, _, text in self.texts if tag not in ('script', 'style')]
        self.visible = ' '.join(' '.join(visible).split())

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._open.append((tag, dict(attributes)))
        if tag == 'table':
            self._rows = self.tables.setdefault(self._open[-2][1]['aria-label'], [])
        elif tag == 'tr':
            self._rows.append([])
        elif tag in ('td', 'th'):
            self._rows[-1].append('')

    def handle_endtag(self, tag):
        while self._open and self._open.pop()[0] != tag:  # <meta>, <input> and the like have no end
            pass

    def handle_data(self, text):
        if self._open and text.strip():
            self.texts.append((*self._open[-1], text))
            if any(tag in ('td', 'th') for tag, _ in self._open):
                self._rows[-1][-1] = f'{self._rows[-1][-1]} {" ".join(text.split())}'.strip()

    def of(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def findings(self):
        return [text for tag, _, text in self.texts if tag == 'li']


@pytest.fixture(scope='module')
def whole_run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp('whole')
    summary = make_run(workdir)
    return workdir, summary, Page(build_report(workdir))


MODELS = {'base': 0.1, 'r1_zero': 0.5, 'sft': 0.6, 'all_scenario_rl': 0.8, 'distill': 0.4}
LABELS = {'r1_zero': 'Zero', 'sft': 'Dev3', 'all_scenario_rl': 'R1'}
SUITES = {'helpful': 'everyday', 'harmful': 'safety', 'longer': 'arithmetic'}
ORDER = {'r1_zero': 'grpo', 'rejection': 'collect', 'sft': 'sft', 'helpful_rm': 'reward_model', 'all_scenario_rl': 'grpo',
         'distill': 'sft', 'student_rl': 'grpo'}
INPUTS = {'rejection': {'model': 'r1_zero'}, 'sft': {'model': 'package:tiny_base', 'data': 'rejection'}}
BINS = [{'predicted': 0.1 * i + 0.05, 'observed': 0.1 * i, 'n': 20} for i in range(10)]


def r1_figures(skill):
    """What an evaluation of a model writes: the main suite at two temperatures, and three suites beside it."""
    figures = {}
    for t in ('0.6', '1'):
        for i, group in enumerate(('all', 'arithmetic', 'arithmetic/zh', 'arithmetic:sum', 'logic')):
            for j, name in enumerate(('pass@1', 'cons@16', 'format', 'truncated', 'last_answer', 'last_answer_cons@16')):
                figures[f'{name}/T={t}/{group}'] = interval(skill + 0.01 * i + 0.001 * j, 0.02, 512)
            figures[f'length/T={t}/{group}'] = interval(50 * skill, 1, 512)
    for suite, family in SUITES.items():
        for group in (f'{suite}/all', f'{suite}/{family}', f'{suite}/{family}/en'):
            names = ('pass@1', 'cons@16') if suite == 'longer' else ('helpfulness', 'harmlessness')
            for name in (*names, 'format'):
                figures[f'{name}/T=0.6/{group}'] = interval(skill / 2, 0.05, 96)
            figures[f'length/T=0.6/{group}'] = interval(20 * skill, 1, 96)
    return figures


def preference_metrics(steps, first, score, truth, seed=0):
    """Metrics of a stage in which a reward model pays from step `first` on; score and truth go from one value to another."""
    rng = random.Random(seed)
    lines = []
    for step in range(1, steps + 1):
        line = {'step': step, 'time': 1e9 + step, 'reward/mean': 1.0}
        if step >= first:
            at = (step - first) / (steps - first)
            line['reward/helpful'] = score[0] + (score[1] - score[0]) * at + 0.1 * rng.gauss(0, 1)
            line['reward/true_helpfulness'] = truth[0] + (truth[1] - truth[0]) * at + 0.03 * rng.gauss(0, 1)
            line['reward/accuracy'] = 0.9
        lines.append(line)
    return lines


def make_r1_run(workdir):
    """A run of many stages, made up: data, SFT, a reward model, RL against it, and a stage that has not begun."""
    summary = make_run(workdir)
    rng = random.Random(2)
    stages = {name: r1_figures(skill) for name, skill in MODELS.items()}
    counts = {'examples': {'mean': 6, 'low': 6, 'high': 6, 'n': 6}, 'too_long': {'mean': 1, 'low': 1, 'high': 1, 'n': 7}}
    stages['sft'] |= counts
    stages['rejection'] = {f'acceptance/T=1/{group}': interval(0.75, 0.1, 4) for group in ('all', 'logic', 'logic/en')}
    stages['helpful_rm'] = {f'{name}{task}': interval(mean, 0.04, n) for name, mean, n in (
        ('accuracy', 0.81, 60), ('calibration_error', 0.052, 60), ('brier', 0.187, 60), ('recall_unsafe', 0.5, 6))
        for task in ('', '/everyday')} | counts | {'alike': {'mean': 2, 'low': 2, 'high': 2, 'n': 9}}
    summary = {'experiment': 'tiny-r1', 'seed': 7, 'labels': LABELS, 'result': 'all_scenario_rl',
               'stages': {name: stages[name] for name in ('base', *ORDER) if name in stages}}
    (workdir / 'summary.json').write_text(json.dumps(summary))
    planned = {name: {'kind': kind} for name, kind in ORDER.items()}
    manifest = {'experiment': {'name': 'tiny-r1', 'seed': 7, 'stages': planned},
                'stages': {name: {'inputs': {role: {'from': source, 'hash': '0'} for role, source in roles.items()}}
                           for name, roles in INPUTS.items()}}
    (workdir / 'manifest.json').write_text(json.dumps(manifest))
    for name, kind in ORDER.items():
        folder = workdir / 'stages' / name
        if name == 'student_rl':
            continue
        folder.mkdir(exist_ok=True)
        config = {'kind': kind} | ({'reward_models': {'helpful': 0.5}} if name == 'all_scenario_rl' else {})
        (folder / 'config.json').write_text(json.dumps(config))
        (folder / 'DONE').touch()
        if name in MODELS and name != 'r1_zero':
            for suite in ('main', 'helpful'):
                rows = rollouts(rng, 0, MODELS[name], range(16), 2)
                write_rollouts(folder / 'eval' / f'{name}.{suite}.parquet', [
                    row | {'task': 'everyday', 'rewards': {'accuracy': 0.0}} if suite == 'helpful' else row for row in rows])
    for suite in ('main', 'helpful'):
        rows = rollouts(rng, 0, 0.1, range(16), 2)
        write_rollouts(workdir / 'stages' / 'r1_zero' / 'eval' / f'base.{suite}.parquet', [
            row | {'task': 'everyday', 'rewards': {'accuracy': 0.0}} if suite == 'helpful' else row for row in rows])
    kept = [{'task': 'logic', 'language': 'en', 'source': 'reasoning', 'n_tokens': n} for n in (10, 20, 30)]
    kept += [{'task': 'everyday', 'language': 'zh', 'source': 'general', 'n_tokens': 5}]
    write_card(workdir / 'stages' / 'rejection' / 'data', make_card(
        {'stage': 'rejection', 'task': 'tiny_reasoning', 'temperature': 1.0}, kept, ['logic/en'] * 8,
        [('logic/en', reason) for reason in ('wrong', 'mixed_language', 'wrong', 'enough', 'duplicate')]))
    reward = workdir / 'stages' / 'helpful_rm'
    (reward / 'model').mkdir()
    (reward / 'model' / 'reward.json').write_text(json.dumps({'loss': 'pairwise', 'reads': 'summary', 'mean': 0, 'std': 1}))
    (reward / 'calibration.json').write_text(json.dumps({'all': BINS, 'everyday': BINS[:3]}))
    write_metrics(workdir / 'stages' / 'all_scenario_rl', preference_metrics(40, 16, (0, 1), (0.5, 0.9)))
    write_rollouts(step_path(workdir / 'stages' / 'all_scenario_rl' / 'rollouts', 40), rollouts(rng, 40, 0.8, range(4), 2))
    return summary


def write_metrics(folder, lines):
    (folder / 'metrics.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))


@pytest.fixture(scope='module')
def r1_run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp('r1')
    summary = make_r1_run(workdir)
    return workdir, summary, Page(build_report(workdir))


@pytest.fixture
def r1_copy(r1_run, tmp_path):
    """A copy of the run of many stages to break."""
    shutil.copytree(r1_run[0], tmp_path / 'run')
    return tmp_path / 'run'


@pytest.fixture
def run_copy(whole_run, tmp_path):
    """A copy of the whole run to break."""
    shutil.copytree(whole_run[0], tmp_path / 'run')
    return tmp_path / 'run'


def test_a_whole_run_has_nothing_missing(whole_run):
    workdir, _, page = whole_run
    assert page.findings == [] and 'Nothing is missing' in page.visible
    assert (workdir / 'report.html').stat().st_size < 6_000_000
    for fact in ('tiny-r1_zero', 'f00ba47', 'stages/r1_zero/config.json', '"template": "tiny"'):
        assert fact in page.visible
    assert not [path for path in workdir.iterdir() if path.name.endswith('.tmp')]


@pytest.mark.parametrize('run', ['whole_run', 'r1_run'])
def test_the_page_fetches_nothing(run, request):
    page = request.getfixturevalue(run)[2]
    for tag, attributes in page.elements:
        assert tag not in ('link', 'img', 'iframe', 'object', 'embed', 'base', 'video', 'audio', 'source')
        for name in ('src', 'srcset', 'action', 'formaction', 'data', 'poster', 'background'):
            assert name not in attributes, (tag, attributes)
        assert attributes.get('href', '#').startswith('#')
    policy, = (meta['content'] for meta in page.of('meta') if 'http-equiv' in meta)
    assert "default-src 'none'" in policy and 'http' not in policy and 'connect-src' not in policy
    style, = (text for tag, _, text in page.texts if tag == 'style')
    assert '@import' not in style and 'url(' not in style
    ours = [text for tag, attributes, text in page.texts
            if tag == 'script' and 'plotly.js v' not in text[:200] and attributes.get('id') != 'data']
    assert len(ours) == 2
    reaches_out = re.compile(r'fetch\(|XMLHttpRequest|WebSocket|sendBeacon|import\(|https?:|innerHTML|eval\(')
    assert not any(reaches_out.search(script) for script in ours)
    # Plotly shows a button that uploads the figures unless it is told which buttons to show.
    assert 'showSendToCloud: false' in ours[1] and "modeBarButtons: [['toImage', 'resetScale2d']]" in ours[1]


def test_every_figure_of_the_summary_is_in_the_table(whole_run):
    _, summary, page = whole_run
    cells = {(cell['data-model'], cell['data-metric'], cell['data-group']): cell['title']
             for cell in page.of('td') if 'title' in cell}
    shown = {}
    for tag, attributes, text in page.texts:
        if tag == 'td' and 'data-metric' in attributes:
            shown[(attributes['data-model'], attributes['data-metric'], attributes['data-group'])] = text
    expected = {(model, *split_name(name)): figure for model, named in summary['stages'].items()
                for name, figure in named.items()}
    assert len(expected) == 2 * 13 * 10 and cells.keys() == expected.keys() == shown.keys()
    for key, figure in expected.items():
        assert cells[key] == f'{float(figure["mean"])}, n = {figure["n"]}'
        scale = 1 if key[1] in ('length', 'reflection_per_1k') else 100
        assert float(shown[key]) == pytest.approx(scale * figure['mean'], abs=0.0501)
    base = summary['stages']['base']['pass@1/T=0.6/all']
    assert f'[{100 * base["low"]:.1f}, {100 * base["high"]:.1f}]' in page.visible


def test_split_name_keeps_the_temperature_with_the_metric():
    assert split_name('pass@1/T=0.6/logic/en') == ('pass@1/T=0.6', 'logic/en')
    assert split_name('cons@16/all') == ('cons@16', 'all')
    assert split_name('length') == ('length', 'all')


def test_columns_know_their_direction_and_unit():
    assert column_of('cons@64').label == 'cons@64' and column_of('cons@64').better == 1
    assert column_of('last_answer_cons@16').label == 'last answer cons@16' and column_of('last_answer_pass@4').percent
    assert column_of('truncated').better == -1 and column_of('length').better == 0
    assert column_of('pass@1/T=1').label == 'pass@1, T=1' and column_of('pass@1/T=1').show(0.12345) == '12.3'
    assert column_of('something/T=1').show(0.12345) == '0.123'
    assert column_of('format').show(-0.0001, sign=True) == '+0.0'
    assert column_of('length').show(3750.4) == '3,750'


def wilson(right, n, z=1.959964):
    p = right / n
    centre, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return Figure(p, (centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n), n)


def test_the_interval_of_a_change_is_newcombes():
    # Newcombe 1998, table II, first example, method 10: 56/70 - 48/80 = 0.2 [0.0524, 0.3339].
    change = difference(wilson(48, 80), wilson(56, 70), better=1)
    assert change.mean == pytest.approx(0.2)
    assert change.low == pytest.approx(0.0524, abs=5e-5) and change.high == pytest.approx(0.3339, abs=5e-5)


@pytest.mark.parametrize('before, after, better, verdict', [
    (10, 40, 1, 'better'), (40, 10, 1, 'worse'), (40, 10, -1, 'better'), (10, 40, 0, 'changed'),
    (38, 40, 1, 'unclear')])
def test_a_change_is_only_claimed_beyond_its_interval(before, after, better, verdict):
    assert difference(wilson(before, 80), wilson(after, 80), better).verdict == verdict


def test_a_change_without_intervals_claims_nothing():
    assert difference(Figure(0.1, None, None, None), wilson(70, 80), 1).verdict == 'unknown'


def test_the_curves_are_the_metrics(whole_run):
    workdir, _, page = whole_run
    lines = read_metrics(workdir / 'stages' / 'r1_zero')
    stage, = page.data['plots']
    assert stage['steps'] == [line['step'] for line in lines]
    assert stage['every'] == 1 and stage['absent'] == []
    names = {name for line in lines for name in line} - {'step', 'time'}
    drawn = {name for panel in stage['panels'] for name, _ in panel['lines'] + panel['stacked']}
    drawn |= {name for panel in stage['panels'] for name in (panel['band'] or [])[:2]}
    assert names <= drawn and drawn == stage['columns'].keys()
    for name in names:
        for shown, line in zip(stage['columns'][name], lines, strict=True):
            assert shown == (pytest.approx(line[name], rel=1e-4) if name in line else None)
    # By family: the mean over its languages of the steps that have them.
    for step, value in enumerate(stage['columns']['pass rate, family logic']):
        cells = [lines[step].get(f'pass_rate/logic/{language}') for language in LANGUAGES]
        cells = [cell for cell in cells if cell is not None]
        assert value == (pytest.approx(sum(cells) / len(cells), rel=1e-4) if cells else None)
    assert len(page.of('figure')) == len(stage['panels']) + 1
    for panel in stage['panels']:
        assert panel['title'] in page.visible and panel['unit']


def test_a_long_run_is_thinned_without_losing_its_extremes(tmp_path):
    with MetricWriter(tmp_path / 'stages' / 'rl') as writer:
        for step in range(5000):
            low, high = (2, 99) if step == 777 else (9, 50)
            writer.write(step, {'length/min': low, 'length/max': high, 'length/mean': step, 'loss': 1})
    page = Page(build_report(tmp_path))
    stage, = page.data['plots']
    assert len(stage['steps']) <= 600 and stage['every'] == 9 and 'stands for 9 of them' in page.visible
    columns = stage['columns']
    assert min(columns['length/min']) == 2 and max(columns['length/max']) == 99
    assert columns['length/mean'][:2] == [4, 13]  # means of 0..8 and of 9..17
    assert [panel['title'] for panel in stage['panels']] == ['Response length', 'loss']


def test_samples_pair_the_same_problem_before_and_after(whole_run):
    workdir, _, page = whole_run
    samples = page.data['samples']
    assert samples['models'] == ['base', 'r1_zero']
    assert samples['pairs_of'] == len(samples['pairs']) == 48
    for model, name in (('base', 'base_T=0.6'), ('r1_zero', 'T=0.6')):
        rows = as_rows(read_rollouts(workdir / 'stages' / 'r1_zero' / 'eval' / f'{name}.parquet'))
        for pair in samples['pairs']:
            mine = [row for row in rows if row['prompt_id'] == pair['id']]
            shown = pair['models'][model]
            assert shown['of'] == 4 and shown['right'] == sum(row['rewards']['accuracy'] for row in mine)
            assert [sample['text'] for sample in shown['samples']] == [row['completion'] for row in mine[:2]]
            assert pair['prompt'] == mine[0]['prompt'] and pair['answer'] == mine[0]['answer']
    # Families and languages in turn, so that whatever is left out is left out of all alike.
    assert len({(pair['task'], pair['language']) for pair in samples['pairs'][:8]}) == 8
    of_one_kind = [pair['id'] for pair in samples['pairs'] if pair['id'] % 8 == 3]
    assert of_one_kind == sorted(of_one_kind) and len(of_one_kind) == 6
    assert samples['steps_held'] == samples['steps_of'] == 13
    assert {entry['step'] for entry in samples['training']} == {1, *range(5, 61, 5)}
    assert all(entry['sample'] == 0 for entry in samples['training']) and '等等' in samples['words']


def test_models_asked_through_different_templates_keep_their_prompts(run_copy):
    path = run_copy / 'stages' / 'r1_zero' / 'eval' / 'base_T=0.6.parquet'
    rows = as_rows(read_rollouts(path))
    write_rollouts(path, [row | {'prompt': 'plain: ' + row['prompt']} for row in rows])
    for pair in Page(build_report(run_copy)).data['samples']['pairs']:
        prompts = [pair['models'][model].get('prompt', pair['prompt']) for model in ('base', 'r1_zero')]
        assert prompts[0] == 'plain: ' + prompts[1]


def test_big_rollouts_are_capped_and_the_page_says_so(tmp_path):
    rng = random.Random(0)
    folder = tmp_path / 'stages' / 'r1_zero'
    for step in range(40):
        rows = [row | {'completion': '<p>' * 5000} for row in rollouts(rng, step, 0.5, range(20), 2)]
        write_rollouts(step_path(folder / 'rollouts', step), rows)
    long = f'begin {9000 * "x"} end'
    rows = [row | {'completion': long} for row in rollouts(rng, 0, 0.5, range(500), 2)]
    write_rollouts(folder / 'eval' / 'test.parquet', rows)
    path = build_report(tmp_path)
    page = Page(path)
    samples = page.data['samples']
    assert path.stat().st_size < 6_000_000
    assert 10 < len(samples['pairs']) < 200 and samples['pairs_of'] == 500
    assert f'Of 500 test problems the page holds {len(samples["pairs"])}' in page.visible
    assert 'Of 40 steps with rollouts' in page.visible
    assert {0, 39} <= {entry['step'] for entry in samples['training']}
    text = samples['pairs'][0]['models']['r1_zero']['samples'][0]['text']
    assert text.startswith('begin x') and text.endswith('x end')
    assert '[… 4,510 characters left out of this page …]' in text


def test_hostile_text_stays_text(run_copy, whole_run):
    folder = run_copy / 'stages' / 'r1_zero'
    for path in (folder / 'eval').iterdir():
        texts = dict.fromkeys(('prompt', 'completion', 'answer', 'task', 'kind'), HOSTILE)
        write_rollouts(path, [row | texts for row in as_rows(read_rollouts(path))])
    summary = json.loads((run_copy / 'summary.json').read_text())
    summary |= {'experiment': HOSTILE, 'note': HOSTILE}
    figures = {f'{HOSTILE}/{HOSTILE}': {'mean': 1, 'low': 0, 'high': 2, 'n': 1}}
    for name in (HOSTILE, 'a<b>&"c'):  # a reward model, and a third model, which is the result
        summary['stages'][name] = figures | {f'calibration_error/{HOSTILE}': 0.1, 'calibration_error': 0.1, HOSTILE: 2}
    summary['stages']['a<b>&"c'] |= {f'pass@1/T=0.6/{name}': 1 for name in (HOSTILE, 'all', f'{HOSTILE[2:8]}/all')}
    summary |= {'labels': {'a<b>&"c': HOSTILE, 'r1_zero': HOSTILE}, 'result': 'a<b>&"c'}
    (run_copy / 'summary.json').write_text(json.dumps(summary))
    (folder / 'config.json').write_text(json.dumps({HOSTILE: HOSTILE, 'kind': HOSTILE}))
    (folder / 'model').mkdir()
    (folder / 'model' / 'reward.json').write_text(json.dumps({'loss': HOSTILE, 'reads': HOSTILE}))
    bins = [{'predicted': 0.5, 'observed': 0.4, 'n': 3}]
    (folder / 'calibration.json').write_text(json.dumps({HOSTILE: bins}))
    card = make_card({HOSTILE: HOSTILE}, [{'task': HOSTILE, 'language': HOSTILE, 'source': HOSTILE, 'n_tokens': 3}],
                     [f'{HOSTILE}/{HOSTILE}'] * 2, [(f'{HOSTILE}/{HOSTILE}', HOSTILE)])
    write_card(folder / 'data', card)
    manifest = json.loads((run_copy / 'manifest.json').read_text())
    manifest['stages'] = {'r1_zero': {'inputs': {HOSTILE: {'from': HOSTILE}}}}
    (run_copy / 'manifest.json').write_text(json.dumps(manifest))
    with MetricWriter(folder, last_step=60) as writer:
        writer.write(61, {HOSTILE: 1.0})
    shutil.copytree(folder, run_copy / 'stages' / 'a<b>&"c')
    page = Page(build_report(run_copy))
    assert page.of('img') == [] and len(page.of('script')) == len(whole_run[2].of('script')) == 4
    assert not any(name.startswith('on') for _, attributes in page.elements for name in attributes)
    pair = page.data['samples']['pairs'][0]
    assert pair['models'].keys() == {'base', 'a<b>&"c'} and pair['prompt'] == HOSTILE
    assert all(of_model['samples'][0]['text'] == HOSTILE for of_model in pair['models'].values())
    assert page.visible.count('{{ 7 * 7 }}') > 30 and 'a<b>&"c' in page.visible
    data, = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page.source, re.DOTALL)
    assert '<' not in data and '\u2028' not in data


def only(folder, *keep):
    for path in folder.iterdir():
        if path.name not in keep:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def test_a_run_just_begun(tmp_path):
    (tmp_path / 'stages' / 'r1_zero').mkdir(parents=True)
    page = Page(build_report(tmp_path))
    assert any('no final evaluation' in finding for finding in page.findings)
    assert 'Stage r1_zero is not finished: it recorded no step.' in page.findings
    for empty in ('No figures yet', 'No curves', 'No samples', 'No configuration'):
        assert empty in page.visible
    assert not any('plotly.js v' in text[:200] for tag, _, text in page.texts if tag == 'script')


def test_before_the_first_evaluation_the_manifest_says_what_runs(run_copy):
    (run_copy / 'summary.json').unlink()
    manifest = json.loads((run_copy / 'manifest.json').read_text())
    manifest['experiment']['stages'] = {'z_first': {}, 'r1_zero': {}}
    (run_copy / 'manifest.json').write_text(json.dumps(manifest))
    shutil.copytree(run_copy / 'stages' / 'r1_zero', run_copy / 'stages' / 'z_first')
    page = Page(build_report(run_copy))
    assert [text for tag, _, text in page.texts if tag == 'h1'] == ['tiny-r1_zero']
    assert [stage['name'] for stage in page.data['plots']] == ['z_first', 'r1_zero']
    assert 'not recorded' not in page.visible.split('Stages')[0]


def test_kinds_stand_below_their_family_beside_its_languages(run_copy):
    summary = json.loads((run_copy / 'summary.json').read_text())
    for figures in summary['stages'].values():
        figures['pass@1/T=0.6/logic:order'] = interval(0.5, 0.1, 20)
    (run_copy / 'summary.json').write_text(json.dumps(summary))
    forest = Page(build_report(run_copy)).data['forest']
    levels = dict(zip(forest['groups'], forest['levels'], strict=True))
    assert levels['logic'] == 1 and levels['logic · order'] == levels['logic · en'] == 2
    at = forest['groups'].index('logic')
    assert set(forest['groups'][at + 1:at + 4]) == {'logic · en', 'logic · zh', 'logic · order'}


def test_an_interrupted_run(run_copy):
    only(run_copy, 'stages')
    only(run_copy / 'stages' / 'r1_zero', 'metrics.jsonl', 'rollouts', 'config.json')
    path = run_copy / 'stages' / 'r1_zero' / 'metrics.jsonl'
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b''.join(lines[:20] + lines[21:30]) + lines[30][:40])
    page = Page(build_report(run_copy))
    assert 'Stage r1_zero is not finished: its last recorded step is 30 of 60.' in page.findings
    assert 'Stage r1_zero: metrics are missing between steps 20 and 22.' in page.findings
    assert 'No test samples were kept' in page.visible and page.data['samples']['training']
    assert page.data['plots'][0]['steps'][-1] == 30


def test_only_a_summary(run_copy):
    only(run_copy, 'summary.json')
    page = Page(build_report(run_copy))
    assert 'There is no stage: the folder stages/ is empty or not there.' in page.findings
    assert any('No evaluation samples were kept' in finding for finding in page.findings)
    assert len(page.data['forest']['groups']) == 13


def test_one_model_alone_is_not_compared(run_copy):
    summary = json.loads((run_copy / 'summary.json').read_text())
    del summary['stages']['base']
    (run_copy / 'summary.json').write_text(json.dumps(summary))
    (run_copy / 'stages' / 'r1_zero' / 'eval' / 'base_T=0.6.parquet').unlink()
    page = Page(build_report(run_copy))
    assert 'Only r1_zero was evaluated: there is nothing to compare it with.' in page.findings
    assert page.data['samples']['models'] == ['r1_zero'] and len(page.data['samples']['pairs']) == 48
    assert '▲' not in page.visible.split('Samples')[0]


def test_odd_metrics_are_reported(run_copy):
    with MetricWriter(run_copy / 'stages' / 'r1_zero', last_step=60) as writer:
        for step in range(61, 71):
            kl = math.nan if step > 68 else 0.1
            writer.write(step, {'kl_ref': kl, 'rewards/timeouts': 2, 'truncated': 0.5})
    page = Page(build_report(run_copy))
    assert any('kl_ref was not a finite number at 2 steps (69, 70)' in finding for finding in page.findings)
    assert 'Stage r1_zero: 20 reward computations timed out over the whole stage.' in page.findings
    assert any('50% of the completions of the last steps were cut' in finding for finding in page.findings)
    assert page.data['plots'][0]['columns']['kl_ref'][-3:] == [0.1, None, None]


def test_files_that_cannot_be_read_are_named(run_copy):
    (run_copy / 'summary.json').write_text('{"stages": {')
    (run_copy / 'stages' / 'r1_zero' / 'rollouts' / 'step_000060.parquet').write_bytes(b'PAR1 and no more')
    page = Page(build_report(run_copy))
    assert any(finding.startswith('summary.json is not valid JSON') for finding in page.findings)
    assert any('step_000060.parquet cannot be read as rollouts' in finding for finding in page.findings)
    assert page.data['samples']['training'][-1]['step'] == 55


def test_numbers_that_are_not_finite_leave_the_page_valid(run_copy):
    summary = json.loads((run_copy / 'summary.json').read_text())
    summary['stages']['base']['pass@1/T=0.6/all'] = interval(math.nan, math.inf, 0)
    (run_copy / 'summary.json').write_text(json.dumps(summary))
    path = step_path(run_copy / 'stages' / 'r1_zero' / 'rollouts', 60)
    bad = {'reward': math.nan, 'rewards': {'accuracy': math.nan}, 'advantage': -math.inf}
    write_rollouts(path, [row | bad for row in as_rows(read_rollouts(path))])
    page = Page(build_report(run_copy))
    last = page.data['samples']['training'][-1]
    assert last['reward'] is None and last['right'] is None and last['rewards'] == {'accuracy': None}
    assert page.data['forest']['models'][0]['figures'][0] is None


def test_stages_of_a_pipeline_stand_in_their_order(run_copy):
    shutil.copytree(run_copy / 'stages' / 'r1_zero', run_copy / 'stages' / 'cold_start')
    (run_copy / 'manifest.json').write_text(json.dumps({'stages': ['r1_zero', 'cold_start']}))
    page = Page(build_report(run_copy))
    assert [stage['name'] for stage in page.data['plots']] == ['r1_zero', 'cold_start']


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match='neither summary.json nor stages/'):
        build_report(tmp_path)
    with pytest.raises(UserError, match='no such folder'):
        build_report(tmp_path / 'none')
    assert list(tmp_path.iterdir()) == []


# ---- experiments of many stages ----

FIRST, FULL = 'All models, on test problems', 'All models, every figure of all problems of a suite'


def cells_of(page, attribute):
    """(model, metric, suite) -> the title of each cell of a table of all models."""
    return {(cell['data-model'], cell[f'data-{attribute}'], cell['data-suite']): cell['title']
            for cell in page.of('td') if f'data-{attribute}' in cell}


def test_all_models_stand_side_by_side(r1_run):
    _, summary, page = r1_run
    assert page.tables[FIRST][0] == [
        'figure', 'base', 'Zero r1_zero', 'Dev3 sft', 'R1 all_scenario_rl the result', 'distill']
    # Every figure of all problems of every suite stands in the full table, and nothing else.
    expected = {}
    for model in MODELS:
        for name, figure in summary['stages'][model].items():
            if name.endswith('/all'):
                metric, group = split_name(name)
                expected[(model, metric, group.removesuffix('all').rstrip('/'))] = f'{figure["mean"]}, n = {figure["n"]}'
    assert len(expected) == 5 * (7 * 2 + 4 * 3) and cells_of(page, 'full') == expected
    # At first sight: what each suite is for.
    first = cells_of(page, 'first')
    assert first.items() <= expected.items()
    assert {(metric, suite) for _, metric, suite in first} == {
        ('pass@1/T=0.6', ''), ('pass@1/T=1', ''), ('cons@16/T=0.6', ''), ('format/T=0.6', ''), ('last_answer/T=0.6', ''),
        ('length/T=0.6', ''), ('helpfulness/T=0.6', 'helpful'), ('helpfulness/T=0.6', 'harmful'),
        ('harmlessness/T=0.6', 'helpful'), ('harmlessness/T=0.6', 'harmful'), ('pass@1/T=0.6', 'longer'),
        ('cons@16/T=0.6', 'longer')}
    rows = page.tables[FIRST]
    assert [row[0] for row in rows if len(row) == 1] == ['Reasoning', 'Preference', 'Other suites']
    assert rows[2] == ['pass@1, T=0.6 % · n = 512', '10.0 [8.0, 12.0]', '50.0 [48.0, 52.0]', '60.0 [58.0, 62.0]',
                       '80.0 [78.0, 82.0]', '40.0 [38.0, 42.0]']
    assert ['helpfulness, T=0.6, on harmful % · n = 96', '5.0 [0.0, 10.0]'] in [row[:2] for row in rows]
    # It comes before all else in Results.
    results = page.visible.index('Results', page.visible.index('Read this first'))
    assert results < page.visible.index(FIRST) < page.visible.index('base against R1') < page.visible.index('Right answers')


def test_by_family_the_first_model_meets_the_result_alone(r1_run):
    _, summary, page = r1_run
    cells = {(cell['data-model'], cell['data-metric'], cell['data-group']) for cell in page.of('td') if 'data-group' in cell}
    assert {model for model, _, _ in cells} == {'base', 'all_scenario_rl'}
    # All groups of both are there, kinds, languages and suites included.
    assert cells == {
        (model, *split_name(name)) for model in ('base', 'all_scenario_rl') for name in summary['stages'][model]}
    forest = page.data['forest']
    assert [model['name'] for model in forest['models']] == ['base', 'R1']
    assert forest['models'][1]['figures'][0] == pytest.approx([0.8, 0.78, 0.82])
    assert 'change is R1 minus base' in page.visible
    assert [row[0] for row in page.tables['On test problems of the suite helpful'] if 'n = ' in row[0]] == [
        'helpful · all n = 96', 'helpful · everyday n = 96', 'helpful · everyday · en n = 96']
    # No table shows a column that is empty throughout.
    assert page.tables['On test problems of the suite longer'][0] == [
        'problems', 'model', 'pass@1, T=0.6 %', 'cons@16, T=0.6 %', 'format, T=0.6 %', 'length, T=0.6 tokens']


def test_two_models_have_no_table_of_all(whole_run):
    page = whole_run[2]
    assert FIRST not in page.tables and ' against ' not in page.visible.split('Samples')[0]
    assert not page.data['reliability'] and 'Reward models' not in page.visible


@pytest.mark.parametrize('result, models, expected, pair', [
    ('b', 'abc', 'b', ['a', 'b']), ('', 'abc', 'c', ['a', 'c']), ('gone', 'abc', 'c', ['a', 'c']), ('a', 'abc', 'a', ['a']),
    ('a', 'ab', 'a', ['a', 'b']), ('', 'a', 'a', ['a']), ('', '', None, [])])
def test_the_result_is_the_one_that_is_named_or_the_last(result, models, expected, pair):
    stages = {name: {'pass@1/T=1/all': {'mean': 1}} for name in models}
    summary = {'result': result, 'stages': {'data': {'kept': {'mean': 1}}} | stages | {'rm': {'accuracy': {'mean': 1}}}}
    assert models_of(summary) == list(models) and result_of(summary) == expected and compared(summary) == pair
    del summary['result']
    assert result_of(summary) == (models[-1] if models else None)


def test_where_nothing_can_be_graded_lengths_tell_who_is_a_model():
    stages = {'base': {'length/T=1/all': {}, 'format/T=1/all': {}}, 'data': {'acceptance/T=1/all': {}}}
    assert models_of({'stages': stages}) == ['base']
    assert models_of({'stages': stages | {'rl': {'pass@1/T=1/all': {}}}}) == ['rl']
    assert models_of({}) == models_of({'stages': ['a']}) == []


def test_suites_are_told_from_families():
    groups = ['all', 'all/en', 'logic', 'logic/en', 'logic:order', 'helpful/all', 'helpful/all/en', 'helpful/logic', 'x:y']
    assert suites_in(groups) == ['helpful']
    split = [split_suite(group, ['helpful']) for group in ('all', 'logic/en', 'helpful/all', 'helpful/all/en', 'helpful')]
    assert split == [('', 'all'), ('', 'logic/en'), ('helpful', 'all'), ('helpful', 'all/en'), ('', 'helpful')]


def test_a_result_that_is_not_evaluated_yet_is_named(r1_copy):
    summary = json.loads((r1_copy / 'summary.json').read_text())
    for name in ('all_scenario_rl', 'distill'):
        del summary['stages'][name]
    (r1_copy / 'summary.json').write_text(json.dumps(summary))
    page = Page(build_report(r1_copy))
    assert 'The result, all_scenario_rl, is not evaluated yet: sft stands in its place.' in page.findings
    assert page.tables[FIRST][0][-1] == 'Dev3 sft the last so far' and 'base against Dev3' in page.visible


def test_a_model_under_evaluation_keeps_the_names_of_its_suites(r1_copy):
    summary = json.loads((r1_copy / 'summary.json').read_text())
    summary['stages'] = {name: summary['stages'][name] for name in ('base', 'r1_zero')}
    (r1_copy / 'summary.json').write_text(json.dumps(summary))
    for name in ('distill', 'all_scenario_rl'):
        shutil.rmtree(r1_copy / 'stages' / name)
    for path in (r1_copy / 'stages' / 'r1_zero' / 'eval').glob('*T=0.6*'):
        path.unlink()
    samples = Page(build_report(r1_copy)).data['samples']
    assert samples['models'] == ['base', 'sft'] and {pair['set'] for pair in samples['pairs']} == {'main', 'helpful'}


def test_samples_are_of_the_first_model_and_the_result(r1_run):
    samples = r1_run[2].data['samples']
    assert samples['models'] == ['base', 'all_scenario_rl']
    assert samples['labels'] == {'base': 'base', 'all_scenario_rl': 'R1'}
    sides = {(pair['set'], model): [(side['right'], sample['right']) for side in [pair['models'][model]]
                                    for sample in side['samples']]
             for pair in samples['pairs'] for model in pair['models']}
    # What no rule can grade is not called wrong.
    assert set(sides[('helpful', 'base')] + sides[('helpful', 'all_scenario_rl')]) == {(None, None)}
    assert all(right in (True, False) for _, right in sides[('main', 'base')])


def test_reward_models_have_their_figures_and_their_reliability(r1_run):
    _, summary, page = r1_run
    cells = {(cell['data-reward'], cell['data-task']): cell['title'] for cell in page.of('td') if 'data-reward' in cell}
    metrics = ('accuracy', 'calibration_error', 'brier', 'recall_unsafe')
    named = summary['stages']['helpful_rm']
    assert cells == {(metric, task): f'{named[key]["mean"]}, n = {named[key]["n"]}' for metric in metrics
                     for task, key in (('all', metric), ('everyday', f'{metric}/everyday'))}
    rows = page.tables['Reward models']
    assert rows[0] == ['model', 'task', 'n prompts', 'accuracy %', 'calibration error %', 'Brier', 'recall of unsafe %']
    assert rows[1] == ['helpful_rm pairwise, reads the summary', 'all', '60', '81.0 [77.0, 85.0]', '5.2 [1.2, 9.2]',
                       '0.187 [0.147, 0.227]', '50.0 [46.0, 54.0] n = 6']
    plot, = page.data['reliability']
    assert plot['stage'] == 'helpful_rm' and [line['name'] for line in plot['lines']] == ['all', 'everyday']
    for point, b in zip(plot['lines'][0]['points'], BINS, strict=True):
        figure = wilson(round(b['observed'] * b['n']), b['n'])
        expected = [b['predicted'], b['observed'], max(0, figure.low), figure.high, 20]
        assert point == pytest.approx(expected, rel=2e-3, abs=1e-9)
    assert len([figure for figure in page.of('div') if 'data-reliability' in figure]) == 1
    assert 'predicted → observed: 5% → 0%; 15% → 10%' in page.visible


def test_score_and_truth_stand_one_over_the_other(r1_run):
    page = r1_run[2]
    stage = page.data['plots'][-1]
    panel, = (panel for panel in stage['panels'] if panel['title'] == 'Reward model against true preference')
    assert panel['lines'] == [['reward/helpful', 'score: helpful']]
    assert panel['below'] == [['reward/true_helpfulness', 'true helpfulness']]
    assert 'score: helpful' in panel['summary'] and '%' in panel['summary']
    assert stage['columns']['reward/helpful'][:15] == [None] * 15 and None not in stage['columns']['reward/helpful'][15:]
    # What stands there is not drawn a second time among the rewards.
    parts, = (panel for panel in stage['panels'] if panel['title'] == 'Reward by component')
    assert parts['lines'] == [['reward/accuracy', 'accuracy']]
    assert not any('true preference' in panel['title'] for panel in page.data['plots'][0]['panels'])


def rl_stage(lines, roles=('helpful',)):
    return Stage(name='rl', folder=pathlib.Path('rl'), done=True, config={'reward_models': dict.fromkeys(roles, 0.5)},
                 metrics=lines, rollout_steps=[1], eval_files=[], card={}, reward={}, calibration={})


def test_reward_hacking_is_told(r1_copy):
    folder = r1_copy / 'stages' / 'all_scenario_rl'
    write_metrics(folder, preference_metrics(40, 16, (-0.5, 1), (0.9, 0.5)))
    finding, = (finding for finding in Page(build_report(r1_copy)).findings if 'reward hacking' in finding)
    lines = read_metrics(folder)[15:]
    score, truth = ([line[name] for line in lines] for name in ('reward/helpful', 'reward/true_helpfulness'))
    up = f'{np.mean(score[:6]):.2f} → {np.mean(score[-6:]):.2f}'.replace('-', '−')
    down = f'{np.mean(truth[:6]):.1%} → {np.mean(truth[-6:]):.1%}'
    assert f'Score up: helpful ({up}). Truth down: true helpfulness ({down}).' in finding and '25 steps' in finding


@pytest.mark.parametrize('score, truth, told', [
    ((-0.5, 1), (0.9, 0.5), True),
    ((-0.5, 1), (0.5, 0.9), False), ((1, -0.5), (0.9, 0.5), False), ((1, -0.5), (0.5, 0.9), False),
    ((-0.5, 1), (0.7, 0.7), False), ((0.5, 0.5), (0.9, 0.5), False)])
def test_hacking_is_a_score_that_rises_over_a_truth_that_falls(score, truth, told):
    assert (hacked(rl_stage(preference_metrics(40, 16, score, truth))) is not None) == told


def test_hacking_is_looked_for_where_the_reward_model_pays_and_in_enough_steps():
    # Before the last part nothing was paid: there the truth was lower, and it does not count.
    lines = preference_metrics(40, 16, (-0.5, 1), (0.9, 0.5))
    early = [line | ({'reward/true_helpfulness': 0.1} if line['step'] < 16 else {}) for line in lines]
    assert hacked(rl_stage(early)) == hacked(rl_stage(lines)) is not None
    # The other way round: a truth that fell before the first pay is not the reward model's doing.
    calm = preference_metrics(40, 16, (-0.5, 1), (0.5, 0.5))
    fallen = [line | ({'reward/true_helpfulness': 0.9} if line['step'] < 16 else {}) for line in calm]
    assert hacked(rl_stage(fallen)) is None
    assert hacked(rl_stage(preference_metrics(34, 16, (-0.5, 1), (0.9, 0.5)))) is None  # 19 steps
    assert hacked(rl_stage(preference_metrics(35, 16, (-0.5, 1), (0.9, 0.5)))) is not None  # 20 steps
    assert hacked(rl_stage(lines, roles=())) is None and hacked(rl_stage([])) is None


def test_noise_is_rarely_called_hacking():
    told = [hacked(rl_stage(preference_metrics(40, 16, (-0.5, 1), (0.7, 0.7), seed))) for seed in range(400)]
    # The score does rise, so that chance errs where it takes the truth to fall: 0.7% by Student's t with 10 degrees.
    assert sum(sentence is not None for sentence in told) <= 10


@pytest.mark.parametrize('seed', range(5))
def test_a_trend_is_clear_beyond_three_standard_errors_of_welch(seed):
    rng = np.random.default_rng(seed)
    first, middle, last = rng.normal(size=6), rng.normal(size=13), 3 * rng.normal(size=6)
    error = np.sqrt(first.var(ddof=1) / 6 + last.var(ddof=1) / 6)
    for sign in (1, -1):
        for times, clear in ((2.99, 0), (3.01, sign)):
            moved = last - last.mean() + first.mean() + sign * times * error
            found = trend([*first, *middle, *moved])
            assert found.clear == clear
            assert [found.first, found.last] == pytest.approx([first.mean(), moved.mean()])
    assert trend([]) is None and trend([1.0]).clear == 0
    assert trend([0.0] * 9 + [1.0] * 10).clear == 0 and trend([0.0] * 10 + [1.0] * 10).clear == 1
    assert trend([0.1] * 100).clear == 0


def test_data_cards_stand_as_tables(r1_run):
    page = r1_run[2]
    rows = page.tables['Data of rejection']
    assert rows[0] == ['family', 'source', 'sampled', 'kept', 'acceptance %', 'tokens 5%, median, 95%', 'why dropped']
    dropped = 'wrong 2, mixed language 1, enough 1, duplicate 1'
    assert rows[1:] == [
        ['everyday/zh', 'general', '0', '1', '–', '5, 5, 5', '–'],
        ['logic/en', 'reasoning', '8', '3', '75.0 [65.0, 85.0]', '11, 20, 29', dropped],
        ['all', '', '8', '4', '75.0 [65.0, 85.0]', '6, 15, 28', dropped]]
    assert 'rejection : 4 examples (reasoning 3, general 1), of 8 sampled, acceptance 75.0% [65.0, 85.0]' in page.visible


def test_the_stages_stand_in_the_order_of_the_experiment(r1_run):
    _, _, page = r1_run
    rows = {row[0]: dict(zip(page.tables['Stages'][0], row, strict=True)) for row in page.tables['Stages'][1:]}
    assert list(rows) == [
        'r1_zero Zero', 'rejection', 'sft Dev3', 'helpful_rm', 'all_scenario_rl R1', 'distill', 'student_rl']
    assert [row['kind'] for row in rows.values()] == [kind.replace('_', ' ') for kind in ORDER.values()]
    assert rows['sft Dev3']['inputs'] == 'model package:tiny_base data rejection'
    assert rows['sft Dev3']['figures of its own'] == 'examples 6 too long 1'
    assert rows['rejection']['figures of its own'] == 'acceptance, T=1 75.0% [65.0, 85.0]'
    assert rows['helpful_rm']['figures of its own'] == 'examples 6 too long 1 alike 2'
    assert [row['state'] for row in rows.values()] == ['done'] * 6 + ['not begun']
    assert rows['all_scenario_rl R1']['steps'] == '1 to 40' and rows['student_rl']['steps'] == '–'
    assert rows['all_scenario_rl R1']['time first to last step'] == '39 s'
    assert 'Not begun yet: student_rl.' in page.findings


def test_the_columns_of_stages_know_their_direction():
    directions = {'helpfulness/T=0.6': 1, 'harmlessness': 1, 'acceptance/T=1': 1, 'accuracy': 1, 'recall_unsafe': 1,
                  'orders_agree': 1, 'calibration_error': -1, 'brier': -1, 'too_long': -1, 'kept': 0, 'labelled_safe': 0,
                  'examples': 0, 'alike': 0, 'something': 0}
    assert {name: column_of(name).better for name in directions} == directions
    assert column_of('helpfulness/T=0.6').show(0.1234) == '12.3' and column_of('brier').show(0.1234) == '0.123'
    assert column_of('examples').show(12345) == '12,345' and all(column_of(name).help for name in directions)
    assert column_of('kept').text(Figure(0.5, 0.4, 0.6, 9)) == '50.0% [40.0, 60.0]'
    assert column_of('examples').text(Figure(5, 5, 5, 9)) == '5'
    assert column_of('length').text(Figure(5, None, None, 9)) == '5.0 tokens'


@pytest.mark.parametrize('text', [
    '{"families": {}}', '{"families": {"a": 3}, "examples": {"all": 1}, "tokens": null}', '[]'])
def test_files_of_stages_that_are_something_else_are_named(r1_copy, text):
    (r1_copy / 'stages' / 'rejection' / 'data' / 'card.json').write_text(text)
    bins = '{"all": [{"predicted": NaN, "observed": 0.5, "n": 3}]}'
    (r1_copy / 'stages' / 'helpful_rm' / 'calibration.json').write_text(bins)
    page = Page(build_report(r1_copy))
    assert any(finding.startswith('stages/rejection/data/card.json') for finding in page.findings)
    assert 'stages/helpful_rm/calibration.json holds no bins' in page.findings
    assert page.data['reliability'] == [] and 'Data of rejection' not in page.tables


def test_large_tables_leave_less_room_for_samples(r1_copy):
    summary = json.loads((r1_copy / 'summary.json').read_text())
    for model in MODELS:
        figures = summary['stages'][model]
        figures |= {name.replace('arithmetic', f'family{i}'): figure for i in range(20) for name, figure in figures.items()
                    if 'arithmetic' in name and 'longer' not in name}
    (r1_copy / 'summary.json').write_text(json.dumps(summary))
    rng = random.Random(0)
    for name in ('base', 'all_scenario_rl'):
        folder = r1_copy / 'stages' / ('r1_zero' if name == 'base' else name)
        rows = [row | {'completion': 'x' * 2000} for row in rollouts(rng, 0, 0.5, range(300), 2)]
        write_rollouts(folder / 'eval' / f'{name}.main.parquet', rows)
    path = build_report(r1_copy)
    held = len(Page(path).data['samples']['pairs'])
    assert 5_700_000 < path.stat().st_size < 6_000_000 and 10 < held < 40
    for model in MODELS:
        for name in list(summary['stages'][model]):
            if 'family' in name:
                del summary['stages'][model][name]
    (r1_copy / 'summary.json').write_text(json.dumps(summary))
    assert len(Page(build_report(r1_copy)).data['samples']['pairs']) > held
