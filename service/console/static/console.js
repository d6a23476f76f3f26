// Draws the charts of a page. Without this script, their tables are shown.
(() => {
  "use strict";
  const COLORS = ["#1f5fa8", "#b3261e", "#1b7f3b", "#8a5a00", "#6b3fa0", "#00708a", "#a03070", "#555555"];

  const draw = (element) => {
    if (!element.dataset.chart) return;
    const { times, series, unit } = JSON.parse(element.dataset.chart);
    const table = element.querySelector("table");
    const options = {
      width: element.clientWidth || 480,
      height: 200,
      scales: { x: { time: true } },
      axes: [{}, { size: 60, label: unit || undefined }],
      series: [{}, ...series.map(({ label }, place) => ({
        label, stroke: COLORS[place % COLORS.length], width: 2, points: { show: times.length < 40 },
      }))],
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), element.dataset.zone),
    };
    element.querySelectorAll(".uplot").forEach((old) => old.remove());
    new uPlot(options, [times, ...series.map(({ values }) => values)], element);
    if (table) table.parentElement.classList.add("visually-hidden");
  };

  const drawAll = () => document.querySelectorAll("[data-chart]").forEach(draw);
  document.addEventListener("DOMContentLoaded", drawAll);
  document.addEventListener("htmx:after:swap", drawAll);
})();
