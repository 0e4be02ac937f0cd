// The quality report of a long video: each metric over time, with its change per second.

import * as api from "./api.js";
import { html, useEffect, useState } from "./assets/htm-preact.js";
import { seconds } from "./ui.js";

const [WIDTH, HEIGHT, EDGE] = [240, 48, 4];

export function Drift({ video }) {
  const [report, setReport] = useState(null);
  const [problem, setProblem] = useState(null);
  const isOffered = video.kinema.variants.includes("drift");
  useEffect(() => {
    if (isOffered) api.getDrift(video.id).then(setReport, setProblem);
  }, [video.id]);
  if (!isOffered) return html`<p class="hint">Videos of several windows have a drift report. This one was made in one window.</p>`;
  if (problem) return html`<p class="notice error">${problem.message}</p>`;
  if (!report) return html`<div class="shimmer line" role="status" aria-label="Loading the report"></div>`;
  return html`
    <div class="drift">
      ${Object.entries(report.slopes).map(([name, slope]) => html`
        <${Metric} key=${name} ...${{ name, slope, windows: report.windows }} />`)}
      ${report.joins.map((join) => html`
        <p key=${join.frame} class="hint">Join at ${seconds(join.seconds)}: ${join.ratio} times the median change of a frame.</p>`)}
    </div>`;
}

function Metric({ name, slope, windows }) {
  const values = windows.map((window) => Number(window[name]));
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const x = (index) => EDGE + (index / Math.max(1, values.length - 1)) * (WIDTH - 2 * EDGE);
  const y = (value) => HEIGHT - EDGE - ((value - low) / (high - low || 1)) * (HEIGHT - 2 * EDGE);
  const points = values.map((value, index) => `${x(index)},${y(value)}`).join(" ");
  const label = name.replace("clip_", "CLIP ");
  return html`
    <figure>
      <figcaption><b>${label}</b><span>${slope > 0 ? "+" : ""}${slope.toFixed(2)} per second</span></figcaption>
      <svg viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label=${`${label}: ${values.join(", ")}`}>
        <polyline points=${points} />
        ${values.map((value, index) => html`<circle key=${index} cx=${x(index)} cy=${y(value)} r="2.5" />`)}
      </svg>
    </figure>`;
}
