// The form for a new video.

import { html, useEffect, useState } from "./assets/htm-preact.js";
import { CopyAs } from "./copy.js";
import { PictureSlot } from "./media.js";
import { Prompt, Vocabulary } from "./prompt.js";
import { Advanced, SAMPLING, clean, number, samplingBody } from "./sampling.js";
import { submitAll, useStore } from "./store.js";
import { IconButton, Input, Segmented, Select, Switch, errorOf, stored } from "./ui.js";

const KEY = "kinema.draft";
const EMPTY = {
  ...SAMPLING, prompt: "", size: "", custom: "", seconds: "", frames: "", takes: 1, loop: false, expand: false,
};
const ASPECTS = [[1, 1], [16, 9], [9, 16], [4, 3], [3, 4]];
const FIELDS = ["prompt", "size", "seconds", "frames", "seed", "steps", "guidance", "negative_prompt", "model",
  "input_reference", "first", "last_frame", "last"];

/** Sizes that a model was trained with: its own, and one of each aspect ratio as large as it makes them. */
export function sizesOf(model) {
  const { default_width, default_height, min_side: low, max_side: high, side_multiple: multiple } = model.kinema;
  const fit = (side) => Math.max(low, Math.round(side / multiple) * multiple);
  const sizes = ASPECTS.map(([w, h]) => [fit((high * w) / Math.max(w, h)), fit((high * h) / Math.max(w, h))]);
  const names = new Map([[`${default_width}x${default_height}`, "default"]]);
  for (const [w, h] of sizes) {
    const key = `${w}x${h}`;
    if (!names.has(key)) names.set(key, w === h ? "square" : w > h ? "landscape" : "portrait");
  }
  return [...names].map(([size, name]) => [size, `${size.replace("x", " × ")} · ${name}`]);
}

/** The requests of a draft, one for each take. */
export function requestsOf(draft, pictures, seed) {
  const body = {
    prompt: draft.prompt.trim(),
    size: draft.size === "custom" ? draft.custom : draft.size,
    ...(draft.frames ? { frames: number(draft.frames) } : { seconds: draft.seconds }),
    loop: draft.loop,
    expand: draft.expand,
    input_reference: pictures.first?.reference,
    last_frame: pictures.last?.reference,
    ...samplingBody(draft),
  };
  const takes = Array.from({ length: draft.takes }, (_, index) => index);
  return takes.map((take) => ({ path: "/videos", body: clean({ ...body, seed: seed === null ? undefined : seed + take }) }));
}

const randomSeed = () => Math.floor(Math.random() * 1e6);

export function Composer({ reuse }) {
  const { models } = useStore();
  const [draft, setDraft] = useState(() => stored(KEY, EMPTY));
  const [pictures, setPictures] = useState({ first: null, last: null });
  const [error, setError] = useState(null);
  const [isBusy, setBusy] = useState(false);
  const change = (changes) => setDraft((before) => ({ ...before, ...changes }));
  useEffect(() => localStorage.setItem(KEY, JSON.stringify(draft)), [draft]);
  useEffect(() => {
    if (!reuse) return;
    setDraft({ ...EMPTY, ...reuse });
    document.getElementById("prompt")?.focus();
  }, [reuse]);

  const model = models.find(({ id }) => id === draft.model) ?? models[0];
  const submit = async () => {
    if (isBusy) return;
    setBusy(true);
    setError(null);
    try {
      await submitAll(requestsOf(draft, pictures, draft.seed === "" ? randomSeed() : Number(draft.seed)));
    } catch (problem) {
      setError(problem);
      document.getElementById(problem.param ?? "")?.focus();
    }
    setBusy(false);
  };
  const onSubmit = (event) => {
    event.preventDefault();
    submit();
  };

  return html`
    <form class="panel composer" aria-label="New video" noValidate onSubmit=${onSubmit}>
      <h1>New video</h1>
      <${Prompt} id="prompt" value=${draft.prompt} onChange=${(prompt) => change({ prompt })} onSubmit=${submit}
        model=${draft.model} placeholder="A penguin walks across the snow at sunset" error=${errorOf(error, "prompt")} />
      <${Vocabulary} model=${model} onAdd=${(word) => change({ prompt: `${draft.prompt.trimEnd()} ${word}`.trimStart() })} />
      <div class="slots">
        <${PictureSlot} label="First frame" value=${pictures.first} error=${errorOf(error, "input_reference", "first")}
          onChange=${(first) => setPictures({ ...pictures, first })} />
        <${PictureSlot} label="Last frame" value=${pictures.last} error=${errorOf(error, "last_frame", "last")}
          onChange=${(last) => setPictures({ ...pictures, last })} />
      </div>
      <${Shape} ...${{ draft, change, model, error }} />
      <${Segmented} name="takes" label="Takes, each with its own seed" value=${draft.takes}
        onChange=${(takes) => change({ takes })} options=${[1, 2, 3, 4].map((count) => [count, count])} />
      <${Switch} label="Seamless loop" hint="The last frame leads back to the first" checked=${draft.loop}
        onChange=${(loop) => change({ loop })} />
      <${Switch} label="Expand the prompt" hint="Rewritten in the style of the training captions" checked=${draft.expand}
        onChange=${(expand) => change({ expand })} />
      <${Advanced} id="advanced" settings=${draft} ...${{ change, model, models, error }}>
        <${Input} id="frames" label="Frames" type="number" min="1" placeholder="From the length" value=${draft.frames}
          onChange=${(frames) => change({ frames })} error=${errorOf(error, "frames")} />
      <//>
      ${error && !errorOf(error, ...FIELDS) && html`<p class="notice error" role="alert">${error.message}</p>`}
      <div class="actions sticky">
        <${CopyAs} requests=${() => requestsOf(draft, pictures, draft.seed === "" && draft.takes === 1 ? null : Number(draft.seed))} />
        <button class="button primary" disabled=${isBusy || !models.length}>
          ${isBusy ? "Sending…" : draft.takes > 1 ? `Generate ${draft.takes} takes` : "Generate"}
        </button>
      </div>
    </form>`;
}

/** Size, length and seed. */
function Shape({ draft, change, model, error }) {
  const own = model?.kinema;
  const native = own ? own.default_frames / own.fps : 0;
  const isLong = own && Number(draft.seconds) > own.max_frames / own.fps;
  const sizes = model ? sizesOf(model) : [["", ""]];
  return html`
    <div class="grid">
      <div class="wide">
        <${Select} id="size" label="Size" value=${draft.size || sizes[0][0]} onChange=${(size) => change({ size })}
          options=${[...sizes, ["custom", "Custom…"]]} error=${draft.size === "custom" ? undefined : errorOf(error, "size")} />
      </div>
      ${draft.size === "custom" && html`
        <${Input} id="custom" label="Width x height" isWide value=${draft.custom} placeholder="128x96"
          onChange=${(custom) => change({ custom })} error=${errorOf(error, "size")} />`}
      <${Input} id="seconds" label="Length in seconds" type="number" min="0" step="0.5" inputmode="decimal"
        placeholder=${native.toFixed(1)} value=${draft.seconds} onChange=${(seconds) => change({ seconds })}
        hint=${isLong && "Made in several windows"} error=${errorOf(error, "seconds")} />
      <div class="with-button">
        <${Input} id="seed" label="Seed" type="number" min="0" placeholder="Random" value=${draft.seed}
          onChange=${(seed) => change({ seed })} error=${errorOf(error, "seed")} />
        <${IconButton} icon="dice" label="Choose a seed" onClick=${() => change({ seed: String(randomSeed()) })} />
      </div>
    </div>`;
}

/** The draft that makes a video again. */
export const draftOf = ({ prompt, size, kinema }) => ({
  prompt, size: "custom", custom: size, frames: String(kinema.frames), seed: String(kinema.seed), steps: String(kinema.steps),
  guidance: String(Number(kinema.guidance.toFixed(2))), loop: kinema.task === "loop",
});
