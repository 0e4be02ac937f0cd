// Small parts that the views are made of.

import { html, useEffect, useRef } from "./assets/htm-preact.js";

const ICONS = {
  play: "M8 5.5v13l11-6.5z",
  download: "M12 4v11m-5-4 5 5 5-5M5 20h14",
  trash: "M5 7h14M10 7V4.5h4V7m3 0-.8 12.5H7.800L7 7m3.500 4v5m3-5v5",
  copy: "M9 9h10v11H9zM15 9V4H5v11h4",
  close: "M6 6l12 12M18 6 6 18",
  picture: "M4 5h16v14H4zm0 11 5-5 4 4 2.500-2.500L20 17M15.500 9.500h.01",
  dice: "M5 5h14v14H5zM9 9h.01M15 15h.01M12 12h.01M15 9h.01M9 15h.01",
  light: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 3v1.500m0 15V21m9-9h-1.500M4.500 12H3m15.400-6.400-1.100 1.100M6.700 17.300l-1.100 1.100m0-12.800 1.100 1.100m10.600 10.600 1.100 1.100",
  dark: "M20 14.500A8.500 8.500 0 0 1 9.500 4a8.500 8.500 0 1 0 10.500 10.500z",
  auto: "M12 3.500a8.500 8.500 0 1 0 0 17zm0 0a8.500 8.500 0 0 1 0 17",
  reuse: "M4 12a8 8 0 0 1 14-5.300L20 9m0-5v5h-5m5 3a8 8 0 0 1-14 5.300L4 15m0 5v-5h5",
  plus: "M12 5v14M5 12h14",
  film: "M4 5h16v14H4zM8 5v14m8-14v14M4 9.500h4m-4 5h4m8-5h4m-4 5h4",
  alert: "M12 4 2.500 20h19zM12 10v5m0 2.500v.01",
};

export const Icon = ({ name }) => html`
  <svg class="icon" viewBox="0 0 24 24" aria-hidden="true"><path d=${ICONS[name]} /></svg>`;

/** A button that shows an icon; `label` is its name for screen readers and its tooltip. */
export const IconButton = ({ icon, label, ...rest }) => html`
  <button type="button" class="icon-button" aria-label=${label} title=${label} ...${rest}><${Icon} name=${icon} /></button>`;

/** A control with its label, a hint, and the error of the API for it. `children` is a function of its attributes. */
export function Field({ id, label, hint, error, isWide, children }) {
  const notes = [hint && `${id}-hint`, error && `${id}-error`].filter(Boolean).join(" ");
  const attributes = { id, "aria-describedby": notes || undefined, "aria-invalid": error ? "true" : undefined };
  return html`
    <div class=${`field ${isWide ? "wide" : ""}`}>
      <label for=${id}>${label}</label>
      ${children(attributes)}
      ${hint && html`<p class="hint" id=${`${id}-hint`}>${hint}</p>`}
      ${error && html`<p class="error" id=${`${id}-error`}>${error}</p>`}
    </div>`;
}

/** An input of text or a number. `onChange` gets its text. */
export const Input = ({ id, label, hint, error, value, onChange, isWide, ...rest }) => html`
  <${Field} ...${{ id, label, hint, error, isWide }}>${(attributes) => html`
    <input ...${attributes} ...${rest} value=${value} onInput=${(event) => onChange(event.target.value)} />`}
  <//>`;

export const Select = ({ id, label, hint, error, value, onChange, options }) => html`
  <${Field} ...${{ id, label, hint, error }}>${(attributes) => html`
    <select ...${attributes} value=${value} onChange=${(event) => onChange(event.target.value)}>
      ${options.map(([key, text]) => html`<option key=${key} value=${key} selected=${key === value}>${text}</option>`)}
    </select>`}
  <//>`;

/** One of a few choices, as radio buttons. */
export const Segmented = ({ name, label, value, onChange, options, isHidden }) => html`
  <fieldset class="segmented field">
    <legend class=${isHidden ? "visually-hidden" : ""}>${label}</legend>
    <div class="segments">
      ${options.map(([key, text]) => html`
        <label key=${key}>
          <input type="radio" name=${name} value=${key} checked=${key === value} onChange=${() => onChange(key)} />
          <span>${text}</span>
        </label>`)}
    </div>
  </fieldset>`;

export const Switch = ({ label, hint, checked, onChange }) => html`
  <label class="switch">
    <input type="checkbox" role="switch" checked=${checked} onChange=${(event) => onChange(event.target.checked)} />
    <span><b>${label}</b>${hint && html`<small>${hint}</small>`}</span>
  </label>`;

/** The progress of a running video. */
export const Progress = ({ video }) => html`
  <div class="progress" role="progressbar" aria-label="Progress" aria-valuemin="0" aria-valuemax="100"
    aria-valuenow=${video.progress} aria-valuetext=${`${phaseOf(video)}, ${video.progress} percent`}>
    <span style=${{ width: `${Math.max(2, video.progress)}%` }}></span>
  </div>`;

export function phaseOf({ status, kinema }) {
  if (status === "queued") return "Queued";
  if (kinema.phase === "decode") return "Decoding";
  return kinema.step == null ? "Starting" : `Step ${kinema.step} of ${kinema.total}`;
}

/** A modal dialog. The browser keeps the focus inside and closes it with Escape. */
export function Dialog({ title, onClose, children, isWide }) {
  const ref = useRef();
  useEffect(() => {
    const before = document.activeElement;
    ref.current.showModal();
    return () => before?.isConnected && before.focus();
  }, []);
  const onClick = (event) => event.target === ref.current && onClose();
  return html`
    <dialog ref=${ref} class=${isWide ? "wide" : ""} aria-labelledby="dialog-title" onClose=${onClose} onClick=${onClick}>
      <div class="dialog-body">
        <header><h2 id="dialog-title">${title}</h2><${IconButton} icon="close" label="Close" onClick=${onClose} /></header>
        ${children}
      </div>
    </dialog>`;
}

/** Asks before something that cannot be undone. */
export const Confirm = ({ title, text, action, onConfirm, onClose }) => html`
  <${Dialog} title=${title} onClose=${onClose}>
    <p>${text}</p>
    <div class="actions">
      <button type="button" class="button" onClick=${onClose}>Keep it</button>
      <button type="button" class="button danger" onClick=${() => { onClose(); onConfirm(); }}>${action}</button>
    </div>
  <//>`;

export const seconds = (value) => `${Math.round(value * 100) / 100} s`;
/** The text of an error if it is about one of these fields of a request. */
export const errorOf = (error, ...names) =>
  error && names.some((name) => error.param === name || error.param?.startsWith(`${name}.`)) ? error.message : undefined;
/** A value that the browser keeps over reloads. */
export function stored(key, fallback) {
  try {
    return { ...fallback, ...JSON.parse(localStorage.getItem(key)) };
  } catch {
    return fallback;
  }
}
