// The plots, drawn when they come into view, in the colours of the page; and the switch between light and dark.
const startCharts = () => {
  const dashes = ['solid', 'dash', 'dot', 'dashdot'];
  const canvases = [...document.querySelectorAll('.canvas')];
  const drawn = new Set();
  const button = document.getElementById('theme');
  const slider = document.getElementById('smooth');
  let printing = false;

  // Plotly reads a little HTML in its labels.
  const label = text => String(text).replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;');

  function colours() {
    const style = getComputedStyle(document.documentElement);
    const get = name => style.getPropertyValue(name).trim();
    return { ink: get('--ink'), soft: get('--soft'), line: get('--line'), raised: get('--raised'),
      list: [1, 2, 3, 4, 5, 6, 7, 8].map(i => get(`--c${i}`)) };
  }

  const faded = (hex, alpha) => `rgba(${[1, 3, 5].map(i => parseInt(hex.slice(i, i + 2), 16)).join(',')},${alpha})`;

  // A slider position as a number of points: 1, 3, 5, 9, 15, ...
  const width = () => slider ? [1, 3, 5, 9, 15, 21, 31, 45, 61, 81, 101, 151, 201][slider.value] : 1;

  // The mean of the points at most half a window away; where there is none of its own, no value.
  function smoothed(values, window) {
    if (window <= 1) return values;
    const half = (window - 1) / 2;
    return values.map((value, i) => {
      if (value === null) return null;
      const near = values.slice(Math.max(0, i - half), i + half + 1).filter(other => other !== null);
      return near.reduce((a, b) => a + b, 0) / near.length;
    });
  }

  function axisStyle(theme) {
    return { gridcolor: theme.line, linecolor: theme.line, zerolinecolor: theme.line, tickcolor: theme.line };
  }

  function layout(theme, x, y, more) {
    return { paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)', autosize: !printing,
      font: { color: theme.ink, family: 'system-ui, sans-serif', size: 12 },
      hovermode: 'x unified',
      hoverlabel: { bgcolor: theme.raised, bordercolor: theme.line, font: { color: theme.ink, size: 12 } },
      // A finger scrolls the page; a mouse drags a part of the plot closer.
      dragmode: matchMedia('(pointer: coarse)').matches ? false : 'zoom',
      legend: { orientation: 'h', x: 0, y: 0, yref: 'container', yanchor: 'bottom', font: { size: 11 }, itemwidth: 30 },
      modebar: { bgcolor: 'rgba(0,0,0,0)', color: theme.soft, activecolor: theme.ink },
      xaxis: { ...axisStyle(theme), ...x },
      yaxis: { ...axisStyle(theme), ...y }, ...more };
  }

  // How many rows a legend takes, so that the plot above it keeps its height.
  function legendRows(traces, width) {
    const named = traces.filter(trace => trace.showlegend !== false);
    if (named.length < 2) return 0;
    const widest = Math.max(...named.map(trace => 52 + 6.5 * trace.name.length));
    return Math.ceil(named.length / Math.max(1, Math.floor(width / widest)));
  }

  function curves(stage, panel, theme, canvas) {
    const window = width();
    const lines = panel.lines.concat(panel.stacked, panel.below);
    // Where there is a plot below, both begin where there is something to compare.
    const from = panel.below.length
      ? Math.min(...lines.map(([metric]) => stage.columns[metric].findIndex(value => value !== null))) : 0;
    const x = stage.steps.slice(from);
    const traces = [];
    if (panel.band) {
      const [low, high, name] = panel.band;
      const edge = { x, mode: 'lines', line: { width: 0 }, legendgroup: 'band' };
      traces.push(
        { ...edge, y: stage.columns[low], name: 'shortest', showlegend: false, hovertemplate: '%{y:,.0f}' },
        { ...edge, y: stage.columns[high], name: label(name), fill: 'tonexty', fillcolor: faded(theme.list[0], 0.14),
          hovertemplate: '%{y:,.0f} (longest)' });
    }
    const firsts = [...new Set(lines.map(line => line[1].split(' · ')[0]))];
    const seconds = [...new Set(lines.map(line => line[1].split(' · ')[1]))];
    lines.forEach(([metric, name], i) => {
      const below = i >= panel.lines.length + panel.stacked.length;
      const stacked = i >= panel.lines.length && !below;
      const percent = panel.percent || below;
      const [first, second] = name.split(' · ');
      // family · language: the colour tells the family, the dashes the language.
      const [c, d] = second ? [firsts.indexOf(first), seconds.indexOf(second)] : [i % 8, Math.floor(i / 8)];
      const total = panel.stacked.length > 0 && !stacked;  // the line over a stack
      const colour = total ? theme.ink : theme.list[(stacked ? i - panel.lines.length : c) % 8];
      const raw = stage.columns[metric].slice(from);
      const axes = below ? { yaxis: 'y2' } : {};
      const line = { color: colour, width: 2, dash: total ? 'dash' : dashes[d % 4] };
      const few = panel.sparse || raw.length <= 30;
      if (window > 1 && !stacked && lines.length <= 4)
        traces.push({ x, y: raw, ...axes, mode: 'lines', line: { ...line, width: 1 }, opacity: 0.3, hoverinfo: 'skip',
          showlegend: false, legendgroup: metric, connectgaps: panel.sparse });
      traces.push({ x, y: smoothed(raw, window), ...axes, name: label(name), legendgroup: metric, line, connectgaps: panel.sparse,
        mode: few && !stacked && window === 1 ? 'lines+markers' : 'lines', marker: { size: 4, color: colour },
        ...(stacked ? { stackgroup: 'stack', line: { ...line, width: 0.5 }, fillcolor: faded(colour, 0.55) } : {}),
        text: raw.map(value => value === null ? 'none' : percent ? `${(100 * value).toFixed(1)}%`
          : value.toLocaleString('en', { maximumSignificantDigits: 4 })),
        hovertemplate: `%{y:${percent ? '.1%' : '.4~g'}}` + (window > 1 ? ' (unsmoothed %{text})' : '') });
    });
    const rows = legendRows(traces, (printing ? 330 : canvas.clientWidth) - 20);
    canvas.style.height = `${(rows ? 274 : 264) + 20 * rows + (panel.below.length ? 110 : 0)}px`;
    const sizes = lines.flatMap(line => stage.columns[line[0]]).filter(value => value !== null).map(Math.abs);
    const largest = Math.max(...sizes);
    const decades = Math.log10(largest / Math.min(...sizes));
    const axis = { title: { text: label(panel.unit), standoff: 8 }, type: panel.log ? 'log' : 'linear',
      exponentformat: largest < 0.01 || largest >= 1e7 ? 'e' : 'none', separatethousands: true,
      rangemode: panel.log || panel.below.length ? 'normal' : 'tozero', ...(panel.log ? { dtick: decades > 3 ? 1 : 'D2' } : {}),
      ...(panel.percent ? { tickformat: '.2~%' } : {}) };
    const second = panel.below.length ? { hoversubplots: 'axis', yaxis2: { ...axisStyle(theme), domain: [0, 0.46],
      title: { text: 'truth', standoff: 8 }, tickformat: '.2~%' } } : {};
    if (panel.below.length) axis.domain = [0.54, 1];
    return [traces, layout(theme, { title: { text: 'step', standoff: 10 },
      ...(panel.below.length ? { anchor: 'y2' } : {}), unifiedhovertitle: { text: 'step %{x}' },
      spikethickness: 1, spikecolor: theme.soft, spikedash: 'dot' }, axis,
      { showlegend: rows > 0, margin: { l: 66, r: 14, t: 10, b: (rows ? 58 : 48) + 20 * rows, autoexpand: false }, ...second })];
  }

  // Predicted probability against observed share: all responses, and each task once its name is clicked.
  function reliability(plot, theme, canvas) {
    const share = value => (100 * value).toFixed(1);
    const traces = plot.lines.map((line, i) => {
      const colour = theme.list[i % 8];
      return { name: label(line.name), mode: 'lines+markers', x: line.points.map(p => p[0]), y: line.points.map(p => p[1]),
        visible: i === 0 ? true : 'legendonly', line: { color: colour, width: 2 }, marker: { color: colour, size: 7 },
        error_y: { type: 'data', symmetric: false, color: colour, thickness: 1.2, width: 3,
          array: line.points.map(p => p[3] - p[1]), arrayminus: line.points.map(p => p[1] - p[2]) },
        text: line.points.map(p => `predicted ${share(p[0])}%, observed ${share(p[1])}% [${share(p[2])}, ${share(p[3])}], `
          + `n = ${p[4]}`), hovertemplate: '%{text}' };
    });
    const diagonal = { x: [0, 1], y: [0, 1], mode: 'lines', line: { color: theme.soft, width: 1, dash: 'dash' },
      hoverinfo: 'skip', showlegend: false };
    const rows = legendRows(traces, (printing ? 330 : canvas.clientWidth) - 20);
    canvas.style.height = `${340 + 20 * rows}px`;
    const axis = { range: [-0.02, 1.02], tickformat: '.0%', dtick: 0.2, zeroline: false };
    return [[diagonal, ...traces], layout(theme, { ...axis, title: { text: 'predicted', standoff: 10 } },
      { ...axis, title: { text: 'observed', standoff: 8 } }, { hovermode: 'closest', showlegend: rows > 0,
        margin: { l: 60, r: 14, t: 10, b: (rows ? 58 : 48) + 20 * rows, autoexpand: false } })];
  }

  function forest(canvas, theme) {
    const { groups, levels, models, title } = DATA.forest;
    const spread = Math.min(0.5, 0.18 * (models.length - 1));
    const at = (g, m) => groups.length - 1 - g + (models.length > 1 ? spread / 2 - spread * m / (models.length - 1) : 0);
    const rows = Math.ceil(models.length / 4);
    canvas.style.height = `${66 + 22 * rows + groups.length * (14 + 8 * models.length)}px`;
    const names = 16 + 6.8 * Math.max(...groups.map(group => group.length));
    const symbols = ['circle-open', 'circle', 'square', 'diamond', 'triangle-up', 'cross', 'star', 'hexagon'];
    const share = value => (100 * value).toFixed(1);
    const traces = models.map((model, m) => {
      const points = model.figures.map((figure, g) => figure && { x: figure[0], y: at(g, m), group: groups[g],
        low: figure[1] ?? figure[0], high: figure[2] ?? figure[0] }).filter(Boolean);
      const colour = models.length === 2 && m === 0 ? theme.list[7] : theme.list[(m + 7 * (models.length === 2)) % 8];
      return { name: label(model.name), mode: 'markers', x: points.map(p => p.x), y: points.map(p => p.y),
        marker: { color: colour, size: 9, symbol: symbols[m % symbols.length] },
        error_x: { type: 'data', symmetric: false, color: colour, thickness: 1.8, width: 4,
          array: points.map(p => p.high - p.x), arrayminus: points.map(p => p.x - p.low) },
        text: points.map(p => `${label(p.group)}: ${share(p.x)}% [${share(p.low)}, ${share(p.high)}]`),
        hovertemplate: '%{text}' };
    });
    const ticks = groups.map((group, g) => levels[g] === 0 ? `<b>${label(group)}</b>` : label(group));
    return [traces, layout(theme, { title: { text: label(title), standoff: 12 }, tickformat: '.2~%', rangemode: 'tozero' },
      { tickvals: groups.map((_, g) => groups.length - 1 - g), ticktext: ticks, range: [-0.6, groups.length - 0.4] },
      { hovermode: 'closest', showlegend: models.length > 1,
        margin: { l: names, r: 14, t: 10, b: 50 + 22 * rows, autoexpand: false } })];
  }

  function draw(canvas) {
    const theme = colours();
    const stage = DATA.plots[canvas.dataset.stage];
    const [traces, shape] = 'forest' in canvas.dataset ? forest(canvas, theme)
      : 'reliability' in canvas.dataset ? reliability(DATA.reliability[canvas.dataset.reliability], theme, canvas)
      : curves(stage, stage.panels[canvas.dataset.panel], theme, canvas);
    if (printing) { shape.width = 'forest' in canvas.dataset ? 680 : 330; shape.height = canvas.clientHeight; }
    // Only these two buttons: Plotly's own set has one that would send the figures to a server.
    Plotly.react(canvas, traces, shape, { displaylogo: false, showSendToCloud: false, responsive: !printing,
      displayModeBar: matchMedia('(hover: hover)').matches ? 'hover' : false,
      modeBarButtons: [['toImage', 'resetScale2d']] });
    drawn.add(canvas);
  }

  const redraw = () => drawn.forEach(draw);

  button.addEventListener('click', () => {
    const now = document.documentElement.dataset.theme;
    const next = now === undefined ? 'light' : now === 'light' ? 'dark' : undefined;
    if (next) document.documentElement.dataset.theme = next; else delete document.documentElement.dataset.theme;
    button.textContent = `Colours: ${next ?? 'automatic'}`;
    redraw();
  });
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', redraw);

  if (slider) {
    // Long runs start a little smoothed, for their single steps are noise.
    const points = Math.max(...DATA.plots.map(stage => stage.steps.length));
    slider.value = points < 40 ? 0 : points < 120 ? 1 : points < 300 ? 2 : 3;
    const tell = () => { document.getElementById('smooth-shown').textContent = width(); };
    slider.addEventListener('input', () => { tell(); redraw(); });
    tell();
  }

  // Paper is white and as wide as it is, shows what is folded, and all plots.
  let before;
  addEventListener('beforeprint', () => {
    before = document.documentElement.dataset.theme;
    document.documentElement.dataset.theme = 'light';
    document.querySelectorAll('details.printed').forEach(details => { details.open = true; });
    printing = true;
    canvases.forEach(draw);
  });
  addEventListener('afterprint', () => {
    if (before) document.documentElement.dataset.theme = before; else delete document.documentElement.dataset.theme;
    printing = false;
    redraw();
  });

  const watcher = new IntersectionObserver(seen => seen.filter(entry => entry.isIntersecting).forEach(entry => {
    watcher.unobserve(entry.target);
    draw(entry.target);
  }), { rootMargin: '500px' });
  canvases.forEach(canvas => watcher.observe(canvas));
};
startCharts();
