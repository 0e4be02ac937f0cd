// One video from timed prompts, pictures and clips.

import { html, useEffect, useState } from "./assets/htm-preact.js";
import { sizesOf } from "./composer.js";
import { CopyAs } from "./copy.js";
import { Card } from "./gallery.js";
import { FileButton } from "./media.js";
import { Picker } from "./picker.js";
import { Prompt } from "./prompt.js";
import { Advanced, SAMPLING, clean, samplingBody } from "./sampling.js";
import { shorten, submitAll, useStore } from "./store.js";
import { Timeline } from "./timeline.js";
import { Icon, IconButton, Input, Select, errorOf, seconds, stored } from "./ui.js";

const KEY = "kinema.storyboard";
const EMPTY = { ...SAMPLING, length: 4, size: "", shots: [{ key: 1, at: 0, prompt: "" }] };
const SHOWN = ["prompt", "size", "seconds", "seed", "steps", "guidance", "negative_prompt", "model"];
const text = (value) => String(Math.round(value * 1000) / 1000);

/** The request of a board. */
function requestOf(board) {
  const shots = [...board.shots].sort((a, b) => a.at - b.at);
  const entries = shots.map(({ at, prompt, media }) => clean({ at: Number(text(at)), prompt: prompt?.trim(), clip: media?.reference }))
    .filter((entry) => entry.prompt || entry.clip)
    .map((entry) => ({ at: 0, ...entry }));
  return { path: "/videos", body: clean({ storyboard: entries, seconds: text(board.length), size: board.size, ...samplingBody(board) }) };
}

export function Storyboard({ onReuse }) {
  const { models, policy, videos, order } = useStore();
  const [board, setBoard] = useState(() => stored(KEY, EMPTY));
  const [selected, select] = useState(board.shots[0]?.key);
  const [made, setMade] = useState([]);
  const [error, setError] = useState(null);
  const [isBusy, setBusy] = useState(false);
  useEffect(() => localStorage.setItem(KEY, JSON.stringify(board)), [board]);
  const change = (changes) => setBoard((before) => ({ ...before, ...changes }));
  const setShot = (key, changes) => setBoard((before) => ({
    ...before, shots: before.shots.map((shot) => (shot.key === key ? { ...shot, ...changes } : shot)),
  }));
  const step = 1 / (models[0]?.kinema.fps ?? 8);
  const add = (shot) => {
    const key = Math.max(0, ...board.shots.map((other) => other.key)) + 1;
    const free = Math.min(board.length - step, Math.max(0, ...board.shots.map(({ at }) => at + 1)));
    change({ shots: [...board.shots, { key, at: board.shots.length ? free : 0, ...shot }] });
    select(key);
  };
  const erase = (key) => {
    change({ shots: board.shots.filter((shot) => shot.key !== key) });
    select(board.shots.find((shot) => shot.key !== key)?.key);
  };
  const submit = async (event) => {
    event?.preventDefault();
    if (isBusy) return;
    setBusy(true);
    setError(null);
    try {
      const [video] = await submitAll([requestOf(board)]);
      setMade([video.id, ...made]);
    } catch (problem) {
      setError(problem);
    }
    setBusy(false);
  };
  const sizes = models[0] ? sizesOf(models[0]) : [["", ""]];
  const shot = board.shots.find(({ key }) => key === selected);
  const results = order.filter((id) => made.includes(id) || videos[id]?.kinema.task === "storyboard");
  return html`
    <form class="editor board" aria-label="Storyboard" noValidate onSubmit=${submit}>
      <section class="panel stage-form">
        <header class="section-head"><h1>Storyboard</h1><${AddShots} add=${add} /></header>
        ${shot
          ? html`<${ShotForm} key=${shot.key} ...${{ shot, setShot, erase, board, step, submit, error }} />`
          : html`<div class="empty"><${Icon} name="film" /><h3>No shots yet</h3><p>Add a prompt, a picture or a clip.</p></div>`}
      </section>
      <${Timeline} total=${board.length} step=${step} lanes=${lanesOf({ board, selected, select, setShot, change, step, policy })} />
      <aside class="panel inspector" aria-label="Settings">
        <${Input} id="board-seconds" label="Length in seconds" type="number" min=${step} max=${policy?.max_seconds} step="0.5"
          value=${Math.round(board.length * 1000) / 1000} error=${errorOf(error, "seconds")}
          onChange=${(value) => Number(value) > 0 && change({ length: Number(value) })} />
        <${Select} id="board-size" label="Size" value=${board.size || sizes[0][0]} onChange=${(size) => change({ size })} error=${errorOf(error, "size")}
          options=${sizes} />
        <${Input} id="board-seed" label="Seed" type="number" min="0" placeholder="0" value=${board.seed}
          onChange=${(seed) => change({ seed })} error=${errorOf(error, "seed")} />
        <${Advanced} id="board" settings=${board} ...${{ change, model: models[0], models, error }} />
        ${error && !errorOf(error, ...SHOWN) && html`<p class="notice error" role="alert">${error.message}</p>`}
        <div class="actions">
          <${CopyAs} requests=${() => [requestOf(board)]} />
          <button class="button primary" disabled=${isBusy || !requestOf(board).body.storyboard.length}>
            ${isBusy ? "Sending…" : "Generate"}</button>
        </div>
      </aside>
      ${results.length > 0 && html`
        <section class="gallery results" aria-labelledby="board-results">
          <h2 id="board-results">Storyboards</h2>
          <div class="cards">${results.map((id) => html`<${Card} key=${id} video=${videos[id]} onReuse=${onReuse} />`)}</div>
        </section>`}
    </form>`;
}

function AddShots({ add }) {
  const [isOpen, setOpen] = useState(false);
  const pick = (media) => {
    add({ media });
    setOpen(false);
  };
  return html`
    <div class="actions">
      <button type="button" class="button" onClick=${() => add({ prompt: "" })}><${Icon} name="plus" />Prompt</button>
      <${FileButton} label="Picture" accept="image/png,image/jpeg,image/webp" icon="picture" onMedia=${(media) => add({ media })} />
      <button type="button" class="button" onClick=${() => setOpen(true)}><${Icon} name="film" />Clip</button>
      ${isOpen && html`<${Picker} title="Clip of the storyboard" onPick=${pick} onClose=${() => setOpen(false)} />`}
    </div>`;
}

function ShotForm({ shot, setShot, erase, board, step, submit, error }) {
  const { key, at, prompt, media } = shot;
  const kind = !media ? "Prompt" : media.kind === "picture" ? "Picture" : "Clip";
  return html`
    <div class="shot">
      <header class="section-head"><h2>${kind} at ${seconds(at)}</h2>
        <${IconButton} icon="trash" label=${`Remove this ${kind.toLowerCase()}`} onClick=${() => erase(key)} /></header>
      ${media
        ? html`<p class="picked">${media.sheet
            ? html`<video src=${media.url} muted loop playsinline controls></video>`
            : html`<span>${media.name}</span>`}</p>`
        : html`<${Prompt} id="shot-prompt" label=${at === 0 ? "What the video shows" : "What it shows from then on"} value=${prompt}
            onChange=${(value) => setShot(key, { prompt: value })} onSubmit=${submit} model=${board.model}
            placeholder="A rocket stands in the desert" error=${errorOf(error, "prompt")} />`}
      <${Input} id="shot-at" label="Begins at second" type="number" min="0" max=${board.length} step=${step}
        value=${Math.round(at * 1000) / 1000} onChange=${(value) => setShot(key, { at: Math.max(0, Number(value) || 0) })} />
    </div>`;
}

/** Prompts reach to the next prompt, clips to their end; a picture holds one moment. */
function lanesOf({ board, selected, select, setShot, change, step, policy }) {
  const sorted = [...board.shots].sort((a, b) => a.at - b.at);
  const segmentOf = (shot, to, label, extra) => ({
    key: shot.key, from: shot.at, to, label, isSelected: shot.key === selected, select: () => select(shot.key), ...extra,
    move: { label: `Start of ${label || "an empty prompt"}`, value: shot.at, min: 0, max: board.length - step,
      change: (at) => setShot(shot.key, { at }) },
  });
  const prompts = sorted.filter(({ media }) => !media);
  const pieces = sorted.filter(({ media }) => media);
  const end = {
    label: "Length of the video", at: board.length, value: board.length, min: step, max: policy?.max_seconds ?? 120,
    change: (length) => change({ length }),
  };
  const promptSegments = prompts.map((shot, index) => segmentOf(
    shot, prompts[index + 1]?.at ?? board.length, shorten(shot.prompt || "Empty prompt", 60), { kind: "prompt" }));
  const clipSegments = pieces.map((shot) => segmentOf(
    shot, Math.min(board.length, shot.at + (shot.media.seconds || step)), shot.media.name, { kind: "kept", sheet: shot.media.sheet }));
  const last = { key: "end", kind: "end", from: board.length, to: board.length, label: "", edges: [end] };
  return [
    { label: "Prompts", segments: [...promptSegments, last] },
    { label: "Video", segments: clipSegments, empty: "Pictures and clips that the video keeps go here." },
  ];
}
