// Settings that every request may have, and their place in its body.

import { html } from "./assets/htm-preact.js";
import { Input, Select, errorOf } from "./ui.js";

export const SAMPLING = { seed: "", steps: "", guidance: "", negative_prompt: "", model: "" };

/** Fields of a body from the settings; empty ones are left to the model. */
export function samplingBody(settings) {
  const { seed, steps, guidance, negative_prompt: negative, model } = settings;
  return clean({ seed: number(seed), steps: number(steps), guidance: number(guidance), negative_prompt: negative, model });
}

export const number = (text) => (text === "" || text === undefined ? undefined : Number(text));
export const clean = (body) => Object.fromEntries(
  Object.entries(body).filter(([, value]) => value !== undefined && value !== "" && value !== null && value !== false));

/** Steps, guidance and what else is rarely changed. `children` come first. */
export function Advanced({ id, settings, change, model, models, error, children }) {
  const own = model?.kinema;
  const isHere = errorOf(error, "steps", "guidance", "negative_prompt", "model", "frames", "size");
  return html`
    <details class="advanced" open=${isHere ? true : undefined}>
      <summary>Advanced</summary>
      <div class="grid">
        ${children}
        <${Input} id=${`${id}-steps`} label="Steps" type="number" min="1" max="1000" placeholder=${own?.steps}
          value=${settings.steps} onChange=${(steps) => change({ steps })} error=${errorOf(error, "steps")} />
        <${Input} id=${`${id}-guidance`} label="Guidance" type="number" min="0" max="100" step="0.1"
          placeholder=${own?.guidance} value=${settings.guidance} onChange=${(guidance) => change({ guidance })}
          error=${errorOf(error, "guidance")} />
        <${Input} id=${`${id}-negative`} label="Without" isWide value=${settings.negative_prompt}
          placeholder="What the video should not show" onChange=${(text) => change({ negative_prompt: text })}
          error=${errorOf(error, "negative_prompt")} />
        ${models.length > 1 && html`
          <div class="wide"><${Select} id=${`${id}-model`} label="Model" value=${settings.model}
            onChange=${(name) => change({ model: name })} error=${errorOf(error, "model")}
            options=${[["", `Default (${models[0].id})`], ...models.map(({ id: name }) => [name, name])]} /></div>`}
      </div>
    </details>`;
}
