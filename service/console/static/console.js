// Draws the charts of a page, whose tables are shown without this script, and says when a page is no longer up to date.
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

  let upToDateAt = new Date();

  const warn = (because) => {
    const outdated = document.getElementById("outdated");
    if (!outdated) return;
    const format = { timeZone: outdated.dataset.zone, hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
    outdated.querySelector("time").textContent = upToDateAt.toLocaleTimeString(document.documentElement.lang, format);
    outdated.querySelectorAll("p").forEach((text) => { text.hidden = text.dataset.because !== because; });
  };

  document.addEventListener("htmx:after:request", ({ detail: { ctx: { response } } }) => {
    if (response.status < 400) upToDateAt = new Date();
    warn(response.status < 400 ? "" : [401, 403].includes(response.status) ? "signed-out" : "no-answer");
  });
  document.addEventListener("htmx:error", () => warn("no-answer"));
})();
