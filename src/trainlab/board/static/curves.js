"use strict";
// Curves of the page, drawn by uPlot, and drawn again when a run has logged more. Which line has which colour
// and dash stands in the list above them, where each can be left out.
for (const box of document.querySelectorAll(".curves")) {
  const items = [...box.querySelectorAll(".lines li")], log = "log" in box.dataset;
  const plots = [...box.querySelectorAll(".plot")].map((place) => ({ place, chart: null, shape: "" }));
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let seen = "", busy = false, known = [];

  const item = (line) => items[line % items.length];
  const shown = (line) => item(line).querySelector("input").checked;
  const faint = (color, share) => color.replace("rgb(", "rgba(").replace(")", `, ${share})`);
  const text = (number) => (number == null ? "" : String(Number(number.toPrecision(5))));
  const drawable = (values) => (log ? values.map((each) => (each > 0 ? each : null)) : values);
  const size = ({ clientWidth, clientHeight }) => ({ width: clientWidth, height: clientHeight });

  // What uPlot draws of some curves: their points over one common x, and a series for each row of them.
  const prepared = (curves) => {
    const series = [{ label: box.dataset.axis }], bands = [];
    const tables = curves.map((curve) => {
      const key = item(curve.line).querySelector(".key"), color = getComputedStyle(key).color;
      const dash = key.firstElementChild.getAttribute("stroke-dasharray")?.split(" ").map(Number);
      const rows = [curve.x];
      const add = (values, more) => {
        rows.push(drawable(values));
        series.push({ line: curve.line, show: shown(curve.line), spanGaps: true, ...more });
      };
      if (curve.low) {
        bands.push({ series: [series.length + 1, series.length], fill: faint(color, 0.2) });
        for (const end of [curve.low, curve.high]) add(end, { width: 0, points: { show: false } });
      } else add(curve.exact, { stroke: faint(color, 0.3), width: 1, points: { show: false } });
      add(curve.y, { stroke: color, dash, width: 2, main: true });
      return rows;
    });
    return { data: uPlot.join(tables), series, bands };
  };

  // The numbers beside the names are those at the pointer, or the last before it.
  const tell = (chart) => chart.series.forEach((series, row) => {
    if (!series.main) return;
    let place = chart.cursor.idx ?? -1;
    while (place > 0 && chart.data[row][place] == null) place--;
    item(series.line).querySelector("output").textContent = text(chart.data[row][place]);
  });

  const draw = (plot, curves) => {
    const { data, series, bands } = prepared(curves);
    const shape = JSON.stringify([curves.map((each) => [each.line, !each.low]), dark.matches]);
    if (plot.chart && plot.shape === shape) {
      const { min, max } = plot.chart.scales.x, all = plot.chart.data[0];
      plot.chart.setData(data, min <= all[0] && max >= all.at(-1)); // what was zoomed into stays
      return;
    }
    plot.chart?.destroy();
    plot.shape = shape;
    const stroke = getComputedStyle(box).color, line = { stroke: faint(stroke, 0.15), width: 1 };
    const axis = { stroke, grid: line, ticks: line };
    const axes = [{ ...axis, label: box.dataset.axis, labelSize: 20 }, { ...axis, size: 64 }];
    if (!log) axes[1].values = (_, values) => values.map(text);
    const scales = { x: { time: false }, y: log ? { distr: 3 } : {} };
    const options = { scales, axes, series, bands, hooks: { setCursor: [tell] }, legend: { show: false } };
    plot.chart = new uPlot({ ...size(plot.place), ...options }, data, plot.place);
  };
  const drawAll = () => plots.forEach((plot, panel) => {
    const curves = known.filter((each) => each.panel === panel && drawable(each.y).some((y) => y != null));
    if (curves.length) draw(plot, curves);
  });

  const load = async () => {
    if (busy) return;
    busy = true;
    try {
      const answer = await fetch(box.dataset.src, { headers: { "X-Seen": seen } });
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
  new ResizeObserver(() => plots.forEach(({ chart, place }) => chart?.setSize(size(place)))).observe(box);
  document.body.addEventListener("refresh", load);
  load();
}
