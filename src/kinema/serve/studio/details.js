// Facts of a finished video, its files and its quality report.

import { contentUrl } from "./api.js";
import { html, useState } from "./assets/htm-preact.js";
import { draftOf } from "./composer.js";
import { Drift } from "./drift.js";
import { remove } from "./store.js";
import { Confirm, Icon, IconButton, seconds } from "./ui.js";

export function Details({ video, onReuse }) {
  const [isAsking, setAsking] = useState(false);
  const { id, prompt, size, kinema, created_at: created, expires_at: expires, model } = video;
  const date = (value) => new Date(value * 1000).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
  const facts = [
    ["Size", size.replace("x", " × ")], ["Length", `${seconds(Number(video.seconds))}, ${kinema.frames} frames`], ["Seed", kinema.seed],
    ["Steps", `${kinema.steps}, ${kinema.sampler}`], ["Guidance", Number(kinema.guidance.toFixed(2))], ["Model", model],
    ["Time to make", kinema.run_s != null && seconds(kinema.run_s)], ["Fit to the prompt", kinema.similarity?.toFixed(2)],
    ["Created", date(created)], ["Kept until", expires && date(expires)],
  ].filter(([, value]) => value || value === 0);
  const remarks = [...kinema.adjusted.map((text) => `Adjusted: ${text}`), kinema.words, ...kinema.notes].filter(Boolean);
  const erase = async () => {
    if (await remove(id)) location.hash = "#/";
  };
  return html`
    <div class="details">
      <h1>${prompt || "Without a prompt"}</h1>
      ${kinema.expanded_prompt && html`<p class="expanded"><b>Expanded</b> ${kinema.expanded_prompt}</p>`}
      ${remarks.map((text) => html`<p key=${text} class="hint">${text}</p>`)}
      <div class="actions start">
        <a class="button primary" href=${contentUrl(id)} download=${`kinema-${kinema.seed}-${id.slice(-6)}.mp4`}>
          <${Icon} name="download" />Download</a>
        <button type="button" class="button" onClick=${() => onReuse(draftOf(video))}><${Icon} name="reuse" />Use settings</button>
        <${IconButton} icon="trash" label="Delete" onClick=${() => setAsking(true)} />
      </div>
      <dl>${facts.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>
      <h2>Drift</h2>
      <${Drift} video=${video} />
      ${isAsking && html`<${Confirm} title="Delete this video?" text="Its files are removed. This cannot be undone." action="Delete"
        onConfirm=${erase} onClose=${() => setAsking(false)} />`}
    </div>`;
}
