// A prompt with how the model reads it, and the words that the model knows.

import * as api from "./api.js";
import { html, useEffect, useState } from "./assets/htm-preact.js";
import { Field } from "./ui.js";

const PAUSE_MS = 350;

export function Prompt({ id, label = "Prompt", value, onChange, onSubmit, model, placeholder, error, hint }) {
  const onKeyDown = (event) => {
    if (event.key === "Enter" && (event.metaKey || event.ctrlKey)) onSubmit?.();
  };
  return html`
    <div class="prompt">
      <${Field} ...${{ id, label, error, hint }}>${(attributes) => html`
        <textarea ...${attributes} rows="3" maxlength="2000" value=${value} placeholder=${placeholder}
          onInput=${(event) => onChange(event.target.value)} onKeyDown=${onKeyDown}></textarea>`}
      <//>
      <${Reading} prompt=${value} model=${model} />
    </div>`;
}

/** What the model makes of each word, asked for while the prompt is written. */
function Reading({ prompt, model }) {
  const [reading, setReading] = useState(null);
  useEffect(() => {
    if (!prompt.trim()) {
      setReading(null);
      return undefined;
    }
    let isCurrent = true;
    const ask = () => api.readPrompt(prompt, model).then((found) => isCurrent && setReading(found), () => {});
    const timer = setTimeout(ask, PAUSE_MS);
    return () => {
      isCurrent = false;
      clearTimeout(timer);
    };
  }, [prompt, model]);

  const { replaced = [], unknown = [], num_read: count } = reading ?? {};
  const isAsWritten = reading && !replaced.length && !unknown.length && count;
  return html`
    <div class="reading" aria-live="polite">
      ${isAsWritten && html`<p>Every word is read as written.</p>`}
      ${(replaced.length > 0 || unknown.length > 0) && html`
        <ul aria-label="How the model reads the words">
          ${replaced.map(([word, used]) => html`<li key=${word}>${word}<i aria-label="is read as"> → </i><b>${used}</b></li>`)}
          ${unknown.map((word) => html`
            <li key=${word} class="unknown"><del>${word}</del><span class="visually-hidden"> is left out</span></li>`)}
        </ul>
        ${unknown.length > 0 && html`<p>Crossed-out words are left out: the model has not learnt them.</p>`}`}
    </div>`;
}

/** The words that a model knows; a press adds one to the prompt. */
export function Vocabulary({ model, onAdd }) {
  const kinds = Object.entries(model?.kinema.vocabulary ?? {}).filter(([, words]) => words.length > 1);
  if (!kinds.length) return null;
  return html`
    <details class="vocabulary">
      <summary>Words this model knows</summary>
      ${kinds.map(([kind, words]) => html`
        <div key=${kind} role="group" aria-label=${kind}>
          <h3>${kind}</h3>
          <div class="chips">
            ${words.map((word) => html`
              <button key=${word} type="button" class="chip" onClick=${() => onAdd(word)}>${word}</button>`)}
          </div>
        </div>`)}
    </details>`;
}
