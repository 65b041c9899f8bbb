// The browser of completions. Text is only ever put in as text nodes: the model may have written anything.
const startSamples = () => {
  const form = document.getElementById('filters');
  if (!form) return;
  const { pairs, training, models, labels, words } = DATA.samples;
  const perPage = 10;
  let page = 0;

  const element = (name, attributes = {}, ...children) => {
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children.filter(child => child !== null));
    return node;
  };

  // English words stand alone; words of a script without spaces are found anywhere, as they were counted.
  const plain = words.filter(word => /^[a-z]+$/.test(word)).join('|');
  const anywhere = words.filter(word => !/^[a-z]+$/.test(word)).join('|');
  const pieces = new RegExp(
    '(</?(?:think|answer)>)'
    + `|((?<![a-z])(?:${plain})(?![a-z])${anywhere && '|' + anywhere})`
    + '|(\\[… [\\d,]+ characters left out of this page …\\])', 'gi');

  function highlighted(text, prompt) {
    const box = document.createDocumentFragment();
    let region = /<think>\s*$/.test(prompt) ? 'think' : '';  // a template may have opened the tag itself
    const put = (string, kind) => {
      if (!string) return;
      const content = kind === 'mark' ? element('mark', {}, string)
        : kind ? element('span', { class: kind }, string) : string;
      box.append(region ? element('span', { class: region }, content) : content);
    };
    let end = 0;
    for (const match of text.matchAll(pieces)) {
      put(text.slice(end, match.index), '');
      if (match[1]) {
        const name = match[1].toLowerCase().replace(/[<>/]/g, '');
        const closes = match[1][1] === '/';
        if (!closes) region = name;
        put(match[1], 'tag');
        if (closes) region = '';
      } else put(match[0], match[2] ? 'mark' : 'left-out');
      end = match.index + match[0].length;
    }
    put(text.slice(end), '');
    return box;
  }

  const number = value => value === null || value === undefined ? 'unknown'
    : value.toLocaleString('en', { maximumSignificantDigits: 4 });
  const verdict = right => right === null ? ['unclear', 'not graded']
    : right ? ['better', '✓ right'] : ['worse', '✗ wrong'];

  function chips(sample) {
    const [kind, label] = verdict(sample.right);
    const parts = Object.entries(sample.rewards).map(([name, value]) => `${name} ${number(value)}`).join(', ');
    return element('p', { class: 'chips' },
      element('strong', { class: kind }, label),
      element('span', {}, `${number(sample.tokens)} tokens${sample.finished === false ? ', cut at the limit' : ''}`),
      element('span', {}, `reward ${number(sample.reward)}${parts ? ` (${parts})` : ''}`),
      sample.step === undefined || sample.advantage === null ? null
        : element('span', {}, `advantage ${number(sample.advantage)}`),
      element('span', {}, `reflection words ${number(sample.reflection)}`),
      sample.logprob === null ? null : element('span', {}, `log-prob. ${number(sample.logprob)} nats/token`));
  }

  const completion = (sample, prompt) => {
    const box = element('pre', { class: 'text', tabindex: '0', 'aria-label': 'completion' });
    box.append(sample.text ? highlighted(sample.text, prompt)
      : element('span', { class: 'left-out' }, 'nothing was written'));
    return box;
  };

  function heading(entry, ...more) {
    const difficulty = entry.difficulty === null ? '' : `difficulty ${entry.difficulty}`;
    const parts = [entry.task, entry.kind, entry.language, difficulty];
    return element('h3', {}, parts.filter(Boolean).join(' · '), ...more);
  }

  const asked = entry => [
    element('pre', { class: 'text prompt', tabindex: '0', 'aria-label': 'prompt' }, entry.prompt),
    element('p', { class: 'gold' }, element('strong', {}, 'Expected: '), entry.answer || 'no fixed answer')];

  function side(model, entry) {
    const of = entry.models[model];
    const box = element('div', { class: 'side' });
    if (!of) {
      box.append(element('h4', {}, labels[model]), element('p', { class: 'empty' }, 'no sample of this problem'));
      return box;
    }
    const body = element('div');
    const show = index => body.replaceChildren(
      chips(of.samples[index]), completion(of.samples[index], of.prompt || entry.prompt));
    const title = element('h4', {}, labels[model], element('span', {},
      of.right === null ? `${of.of} samples, not graded` : `${of.right} of ${of.of} samples right`));
    if (of.samples.length > 1) {
      let index = 0;
      const next = element('button', { type: 'button' });
      const tell = () => { next.textContent = `sample ${index + 1} of ${of.samples.length} here: next`; };
      next.addEventListener('click', () => { index = (index + 1) % of.samples.length; tell(); show(index); });
      tell();
      title.append(next);
    }
    show(0);
    const prompt = { class: 'text prompt', tabindex: '0', 'aria-label': `prompt of ${labels[model]}` };
    box.append(title, of.prompt ? element('pre', prompt, of.prompt) : '', body);
    return box;
  }

  const rightOf = (entry, model) => entry.models[model]?.samples[0]?.right ?? null;

  function pairCard(entry) {
    const said = models.map(model => verdict(rightOf(entry, model)));
    const outcome = element('span', { class: 'outcome' }, 'first sample: ');
    said.forEach(([kind, label], i) => outcome.append(i ? ' → ' : '', element('span', { class: kind }, label)));
    return element('article', { class: 'card' }, heading(entry, outcome), ...asked(entry),
      element('div', { class: 'sides' }, ...models.map(model => side(model, entry))));
  }

  const trainingCard = entry => element('article', { class: 'card' },
    heading(entry, element('span', { class: 'outcome' }, `${entry.stage}, step ${entry.step.toLocaleString('en')}`)),
    ...asked(entry), chips(entry), completion(entry, entry.prompt));

  // Each filter: the choices for the entries of a view, and the test of an entry against a choice.
  const last = models[models.length - 1];
  const lastLabel = labels[last];
  const shown = (entry, view) => view === 'pairs' ? entry.models[last]?.samples[0] : entry;
  const distinct = (entries, key) => [...new Set(entries.map(entry => entry[key]))].filter(value => value !== undefined);
  const byKey = key => ({ choices: entries => distinct(entries, key).map(value => [value, String(value) || 'none']),
    test: (entry, choice) => String(entry[key]) === choice });
  const outcomes = { rr: [true, true], wr: [false, true], rw: [true, false], ww: [false, false] };
  const filters = {
    task: byKey('task'), language: byKey('language'), set: byKey('set'), stage: byKey('stage'), step: byKey('step'),
    outcome: {
      choices: (entries, view) => view === 'pairs' && models.length > 1
        ? [['wr', 'wrong, then right'], ['rw', 'right, then wrong'], ['rr', 'right both times'], ['ww', 'wrong both times']]
        : [['right', 'right'], ['wrong', 'wrong'], ['none', 'not graded']],
      test: (entry, choice, view) => choice in outcomes
        ? outcomes[choice].every((right, i) => rightOf(entry, models[i]) === right)
        : (view === 'pairs' ? rightOf(entry, last) : entry.right) === { right: true, wrong: false, none: null }[choice],
    },
    reflection: {
      choices: (entries, view) => [['some', view === 'pairs' && models.length > 1 ? `${lastLabel} uses some` : 'some'],
        ['none', view === 'pairs' && models.length > 1 ? `${lastLabel} uses none` : 'none']],
      test: (entry, choice, view) => (shown(entry, view)?.reflection > 0) === (choice === 'some'),
    },
  };

  const view = () => form.elements.view.value;
  const entries = () => view() === 'pairs' ? pairs : training;
  const written = entry => entry.models
    ? Object.values(entry.models).flatMap(of => of.samples.map(sample => sample.text)) : [entry.text];

  function fillChoices() {
    for (const [name, filter] of Object.entries(filters)) {
      const select = form.elements[name];
      const choices = filter.choices(entries(), view());
      const before = select.value;
      select.replaceChildren(new Option('all', ''), ...choices.map(([value, label]) => new Option(label, String(value))));
      select.value = choices.some(([value]) => String(value) === before) ? before : '';
      form.querySelector(`[data-for=${name}]`).hidden = choices.length < 2;
    }
  }

  function render() {
    const wanted = form.elements.text.value.trim().toLowerCase();
    const found = entries().filter(entry =>
      Object.entries(filters).every(([name, filter]) => {
        const choice = form.elements[name].value;
        return choice === '' || filter.test(entry, choice, view());
      }) && (!wanted || [entry.prompt, entry.answer, ...written(entry)].some(text => text.toLowerCase().includes(wanted))));
    page = Math.max(0, Math.min(page, Math.ceil(found.length / perPage) - 1));
    const first = page * perPage;
    const part = found.slice(first, first + perPage);
    const what = view() === 'pairs' ? 'test problems' : 'training completions';
    document.getElementById('shown').textContent = found.length
      ? `${first + 1} to ${first + part.length} of ${found.length} ${what} (${entries().length} in the page)`
      : `None of the ${entries().length} ${what} in the page fits these choices.`;
    document.getElementById('cards').replaceChildren(...part.map(view() === 'pairs' ? pairCard : trainingCard));
    document.getElementById('previous').disabled = page === 0;
    document.getElementById('next').disabled = first + perPage >= found.length;
  }

  form.addEventListener('submit', event => event.preventDefault());
  form.addEventListener('input', event => {
    page = 0;
    if (event.target.name === 'view') fillChoices();
    render();
  });
  const turn = by => { page += by; render(); document.getElementById('samples').scrollIntoView(); };
  document.getElementById('previous').addEventListener('click', () => turn(-1));
  document.getElementById('next').addEventListener('click', () => turn(1));
  fillChoices();
  render();
};
startSamples();
