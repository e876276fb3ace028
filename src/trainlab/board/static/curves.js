"use strict";
// Curves of the page, drawn by uPlot, and drawn again when a run has logged more. Which line has which colour
// and dash stands in the list above them, where each can be left out.
for (const box of document.querySelectorAll(".curves")) {
  const items = [...box.querySelectorAll(".lines li")];
  const plots = [...box.querySelectorAll(".plot")].map((place) => ({ place, chart: null, shape: "" }));
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let seen = "", busy = false, known = [];

  const faint = (color, share) => color.replace("rgb(", "rgba(").replace(")", `, ${share})`);
  const style = (line) => {
    const key = items[line % items.length].querySelector(".key");
    const dash = key.firstElementChild.getAttribute("stroke-dasharray");
    return { color: getComputedStyle(key).color, dash: dash ? dash.split(" ").map(Number) : undefined };
  };
  const shown = (line) => items[line % items.length].querySelector("input").checked;
  const value = (number) => (number == null ? "" : String(Number(number.toPrecision(5))));
  const drawable = (values) => ("log" in box.dataset ? values.map((each) => (each > 0 ? each : null)) : values);

  // What uPlot draws of some curves: their points over one common x, and a series for each row of them.
  const prepared = (curves) => {
    const tables = [], series = [{ label: box.dataset.axis }], bands = [];
    for (const curve of curves) {
      const { color, dash } = style(curve.line), common = { line: curve.line, show: shown(curve.line), spanGaps: true };
      const rows = [curve.x];
      const add = (values, more) => rows.push(drawable(values)) && series.push({ ...common, ...more });
      if (curve.low) {
        bands.push({ series: [series.length + 1, series.length], fill: faint(color, 0.2) });
        add(curve.low, { width: 0, points: { show: false } });
        add(curve.high, { width: 0, points: { show: false } });
      } else add(curve.exact, { stroke: faint(color, 0.3), width: 1, points: { show: false } });
      add(curve.y, { stroke: color, dash, width: 2, main: true });
      tables.push(rows);
    }
    return { data: uPlot.join(tables), series, bands };
  };

  // The numbers beside the names are those at the pointer, or the last before it.
  const tell = (chart) => {
    items.forEach((item) => (item.querySelector("output").textContent = ""));
    chart.series.forEach((series, row) => {
      let place = chart.cursor.idx;
      if (!series.main || place == null) return;
      while (place > 0 && chart.data[row][place] == null) place--;
      items[series.line % items.length].querySelector("output").textContent = value(chart.data[row][place]);
    });
  };

  const draw = (plot, curves) => {
    const { data, series, bands } = prepared(curves);
    const shape = JSON.stringify([curves.map((each) => [each.line, !each.low]), dark.matches]);
    if (plot.chart && plot.shape === shape) {
      const { min, max } = plot.chart.scales.x, [all] = plot.chart.data;
      plot.chart.setData(data, min <= all[0] && max >= all[all.length - 1]); // what was zoomed into stays
      return;
    }
    plot.chart?.destroy();
    plot.shape = shape;
    const text = getComputedStyle(box).color, log = "log" in box.dataset;
    const axis = { stroke: text, grid: { stroke: faint(text, 0.15), width: 1 }, ticks: { stroke: faint(text, 0.15), width: 1 } };
    const scales = { x: { time: false }, y: log ? { distr: 3 } : {} };
    const numbers = (_, values) => values.map(value);
    const axes = [{ ...axis, label: box.dataset.axis, labelSize: 20 }, { ...axis, size: 64, values: log ? undefined : numbers }];
    const size = { width: plot.place.clientWidth, height: plot.place.clientHeight };
    const hooks = { setCursor: [tell] };
    plot.chart = new uPlot({ ...size, scales, axes, series, bands, hooks, legend: { show: false } }, data, plot.place);
  };
  const drawAll = () => plots.forEach((plot, panel) => {
    const curves = known.filter((each) => each.panel === panel && drawable(each.y).some((y) => y != null));
    if (curves.length) draw(plot, curves);
  });

  const load = async () => {
    if (busy) return;
    busy = true;
    try {
      const answer = await fetch(box.dataset.src, { headers: seen ? { "X-Seen": seen } : {} });
      if (answer.status === 200) {
        seen = answer.headers.get("X-Seen");
        known = await answer.json();
        drawAll();
      }
    } catch {} // board.js says that the board does not answer
    busy = false;
  };
  box.addEventListener("change", () => plots.forEach(({ chart }) => chart?.series.forEach((each, row) => {
    if (row && each.show !== shown(each.line)) chart.setSeries(row, { show: shown(each.line) });
  })));
  dark.addEventListener("change", drawAll);
  new ResizeObserver(() => plots.forEach(({ chart, place }) => chart?.setSize({ width: place.clientWidth, height: place.clientHeight }))).observe(box);
  document.body.addEventListener("refresh", load);
  load();
}
