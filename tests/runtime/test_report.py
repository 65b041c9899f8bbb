"""The report: what it says is what the run's folder says, and nothing in it can reach out or break out."""

import html.parser
import json
import math
import random
import re
import shutil

import pytest

from r1jax.errors import UserError
from r1jax.runtime.metrics import MetricWriter, read_metrics
from r1jax.runtime.report import build_report
from r1jax.runtime.report.tables import Figure, column_of, difference, split_name
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
                'reflection_words': words, 'logprob_mean': -rng.random()})
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
        'rewards/timeouts': 0, 'rewards/crashes': 0}
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
        self.feed(self.source)
        data, = (text for _, attributes, text in self.texts if attributes.get('id') == 'data')
        self.data = json.loads(data)
        visible = [text for tag, _, text in self.texts if tag not in ('script', 'style')]
        self.visible = ' '.join(' '.join(visible).split())

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._open.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        while self._open and self._open.pop()[0] != tag:  # <meta>, <input> and the like have no end
            pass

    def handle_data(self, text):
        if self._open and text.strip():
            self.texts.append((*self._open[-1], text))

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


def test_the_page_fetches_nothing(whole_run):
    page = whole_run[2]
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
    summary['stages'][HOSTILE] = {f'{HOSTILE}/{HOSTILE}': {'mean': 1, 'low': 0, 'high': 2, 'n': 1}}
    (run_copy / 'summary.json').write_text(json.dumps(summary))
    (folder / 'config.json').write_text(json.dumps({HOSTILE: HOSTILE}))
    with MetricWriter(folder, last_step=60) as writer:
        writer.write(61, {HOSTILE: 1.0})
    shutil.copytree(folder, run_copy / 'stages' / 'a<b>&"c')
    page = Page(build_report(run_copy))
    assert page.of('img') == [] and len(page.of('script')) == len(whole_run[2].of('script')) == 4
    assert not any(name.startswith('on') for _, attributes in page.elements for name in attributes)
    pair = page.data['samples']['pairs'][0]
    assert pair['models'].keys() == {'base', 'a<b>&"c'} and pair['prompt'] == HOSTILE
    assert all(of_model['samples'][0]['text'] == HOSTILE for of_model in pair['models'].values())
    assert page.visible.count('{{ 7 * 7 }}') > 5 and 'a<b>&"c' in page.visible
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
