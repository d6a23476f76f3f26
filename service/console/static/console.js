// Draws the charts of a page, whose tables are shown without this script, and says when a page is no longer up to date.
(() => {
  "use strict";
  const COLORS = ["#1f5fa8", "#b3261e", "#1b7f3b", "#8a5a00", "#6b3fa0", "#00708a", "#a03070", "#555555"];

  // Formats seconds since 1970 in the reader's language.
  const clock = (timeZone, more) => {
    const options = { timeZone, hour: "2-digit", minute: "2-digit", hourCycle: "h23", ...more };
    const format = new Intl.DateTimeFormat(document.documentElement.lang, options);
    return (seconds) => format.format(seconds * 1000);
  };

  const draw = (element) => {
    if (!element.dataset.chart) return;
    const { times, series } = JSON.parse(element.dataset.chart);
    const table = element.querySelector("table");
    const format = clock(element.dataset.zone, { month: "2-digit", day: "2-digit" });
    // The last interval is not over yet: a dashed line leads to it, which the legend leaves out.
    const last = times.length - 1;
    const styles = ({ label, values }, place) => {
      const value = (_chart, _drawn, _place, index) => values[index] ?? "--";
      const style = { label, value, stroke: COLORS[place % COLORS.length], width: 2, points: { show: times.length < 40 } };
      return [style, { ...style, dash: [4, 4], class: "unfinished" }];
    };
    const lines = ({ values }) => [
      values.map((value, place) => (place < last ? value : null)),
      values.map((value, place) => (place < last - 1 ? null : value)),
    ];
    const options = {
      // Inside the padding.
      width: element.querySelector("h3").clientWidth || 480,
      height: 200,
      scales: { x: { time: true } },
      padding: [null, 44, null, null], // half of the last time
      axes: [{ space: 100, size: 32, values: (_chart, all) => all.map(format) }, { size: 70 }],
      series: [
        { label: element.querySelector("th").textContent, value: (_chart, time) => (time ? format(time) : "--") },
        ...series.flatMap(styles),
      ],
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), element.dataset.zone),
    };
    element.querySelectorAll(".uplot").forEach((old) => old.remove());
    new uPlot(options, [times, ...series.flatMap(lines)], element);
    if (table) table.parentElement.classList.add("visually-hidden");
  };

  const drawAll = () => document.querySelectorAll("[data-chart]").forEach(draw);
  document.addEventListener("DOMContentLoaded", drawAll);
  document.addEventListener("htmx:after:swap", drawAll);

  const now = () => Date.now() / 1000;
  let upToDateAt = now();

  const warn = (because) => {
    const outdated = document.getElementById("outdated");
    if (!outdated) return;
    outdated.querySelector("time").textContent = clock(outdated.dataset.zone)(upToDateAt);
    outdated.querySelectorAll("p").forEach((text) => { text.hidden = text.dataset.because !== because; });
  };

  document.addEventListener("htmx:after:request", ({ detail: { ctx: { response } } }) => {
    if (response.status < 400) upToDateAt = now();
    warn(response.status < 400 ? "" : [401, 403].includes(response.status) ? "signed-out" : "no-answer");
  });
  document.addEventListener("htmx:error", () => warn("no-answer"));
})();
