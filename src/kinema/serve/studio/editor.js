// One clip: its player, what can be made of it, and its facts.

import * as api from "./api.js";
import { html, useEffect, useRef, useState } from "./assets/htm-preact.js";
import { CopyAs } from "./copy.js";
import { Details } from "./details.js";
import { Card } from "./gallery.js";
import { FileButton, mediaOf } from "./media.js";
import { Picker } from "./picker.js";
import { Prompt } from "./prompt.js";
import { Drawing, RectangleFields, centred, maskOf } from "./region.js";
import { Advanced, SAMPLING } from "./sampling.js";
import { isActive, keepFile, submitAll, useStore } from "./store.js";
import { Timeline } from "./timeline.js";
import { TOOLS, requestOf, settingsOf } from "./tools.js";
import { Icon, Input, Segmented, errorOf, seconds } from "./ui.js";

const TABS = [["details", "Details"], ["extend", "Extend"], ["connect", "Connect"], ["loop", "Loop"], ["edit", "Edit"]];
const SENTENCES = {
  extend: "The clip is kept, frame by frame. What is new follows its motion.",
  connect: "A transition is generated between two clips, which are both kept.",
  loop: "The clip is kept, and what is new leads back to its first frame.",
  edit: "A part of the clip is generated anew. All that is outside is kept.",
};
const SHOWN = ["prompt", "seconds", "seed", "steps", "guidance", "negative_prompt", "model", "region", "mask", "strength", "clip", "video",
  "first", "second", "connect"];

/** The view of a video of the server. */
export function VideoEditor({ id, onReuse }) {
  const { videos, isLoaded } = useStore();
  const [found, setFound] = useState(null);
  const [problem, setProblem] = useState(null);
  useEffect(() => {
    setFound(null);
    setProblem(null);
    if (isLoaded && !videos[id]) api.getVideo(id).then(setFound, setProblem);
  }, [id, isLoaded]);
  const video = videos[id] ?? (found?.id === id ? found : null);
  if (problem && !video) {
    return html`<div class="empty"><${Icon} name="alert" /><h1>This video is not here</h1><p>${problem.message}</p>
      <a class="button" href="#/">Back to the library</a></div>`;
  }
  if (!video) return html`<div class="panel shimmer tall" role="status" aria-label="Loading"></div>`;
  if (isActive(video) || video.status === "failed") {
    return html`<div class="single"><${Card} video=${video} onReuse=${onReuse} /></div>`;
  }
  return html`<${Editor} key=${id} clip=${mediaOf(video)} video=${video} onReuse=${onReuse} />`;
}

/** The view of a clip. `video` is its object on the server; null for an uploaded file. */
export function Editor({ clip, video, onReuse }) {
  const { videos, order, models, policy } = useStore();
  const [tool, setTool] = useState(video ? "details" : "extend");
  const [settings, setSettings] = useState(() => settingsOf(clip));
  const [made, setMade] = useState([]);
  const [time, setTime] = useState(0);
  const player = useRef();
  const change = (changes) => setSettings((before) => ({ ...before, ...changes }));

  const limits = { step: 1 / (models[0]?.kinema.fps ?? 8), max: policy?.max_seconds ?? 120 };
  const build = TOOLS[tool] ?? (() => ({ segments: [{ key: "clip", kind: "kept", from: 0, to: clip.seconds, label: clip.name, sheet: clip.sheet }],
    offset: 0, total: clip.seconds }));
  const { segments, offset, total } = build(clip, settings, change, limits);
  const seek = (at) => {
    player.current.currentTime = Math.min(clip.seconds - 0.01, Math.max(0, at - offset));
    setTime(player.current.currentTime);
  };
  const playhead = { label: "Time shown", value: time + offset, min: offset, max: offset + clip.seconds, change: seek };
  const isDrawing = tool === "edit" && settings.area !== "all";
  const results = order.filter((other) => made.includes(other) || (video && videos[other]?.kinema.source === video.id));
  return html`
    <div class="editor">
      <section class="stage" aria-label="Player">
        <div class="screen" style=${{ aspectRatio: `${clip.width || 16} / ${clip.height || 9}`, "--ratio": (clip.width || 16) / (clip.height || 9) }}>
          <video ref=${player} src=${clip.url} poster=${video ? api.contentUrl(video.id, "thumbnail") : undefined} loop muted playsinline
            controls=${!isDrawing} preload="auto" aria-label=${clip.name} onTimeUpdate=${(event) => setTime(event.target.currentTime)}></video>
          ${isDrawing && html`<${Drawing} ...${{ clip, settings, change }} />`}
        </div>
      </section>
      <${Timeline} total=${total} step=${limits.step} lanes=${[{ label: "Video", segments }]} playhead=${playhead} />
      <aside class="panel inspector" aria-label="Tools">
        <${Segmented} name="tool" label="Tool" isHidden value=${tool} onChange=${setTool} options=${video ? TABS : TABS.slice(1)} />
        ${tool === "details"
          ? html`<${Details} video=${video} onReuse=${onReuse} />`
          : html`<${ToolForm} key=${tool} ...${{ tool, clip, settings, change, limits }}
              onMade=${(list) => setMade([...made, ...list.map(({ id }) => id)])} />`}
      </aside>
      ${results.length > 0 && html`
        <section class="gallery results" aria-labelledby="results-title">
          <h2 id="results-title">Made from this clip</h2>
          <div class="cards">${results.map((other) => html`<${Card} key=${other} video=${videos[other]} onReuse=${onReuse} />`)}</div>
        </section>`}
    </div>`;
}

function ToolForm({ tool, clip, settings, change, limits, onMade }) {
  const { models } = useStore();
  const [sampling, setSampling] = useState(SAMPLING);
  const [error, setError] = useState(null);
  const [isBusy, setBusy] = useState(false);
  const update = (changes) => setSampling({ ...sampling, ...changes });
  const missing = missingOf(tool, settings);

  const submit = async () => {
    if (isBusy || missing) return;
    setBusy(true);
    setError(null);
    try {
      const mask = tool === "edit" && settings.area === "brush"
        ? await keepFile(await maskOf(clip, settings.strokes), "mask.png") : null;
      onMade(await submitAll([requestOf(tool, clip, settings, sampling, mask?.id)]));
    } catch (problem) {
      setError(problem);
    }
    setBusy(false);
  };
  const onSubmit = (event) => {
    event.preventDefault();
    submit();
  };
  return html`
    <form class="tool" aria-label=${tool} noValidate onSubmit=${onSubmit}>
      <p class="hint">${SENTENCES[tool]}</p>
      <${ToolFields} ...${{ tool, clip, settings, change, limits, error }} />
      <${Prompt} id="tool-prompt" label=${tool === "edit" ? "What the edited clip shows" : "What happens there"} value=${settings.prompt}
        onChange=${(prompt) => change({ prompt })} onSubmit=${submit} model=${sampling.model}
        placeholder=${tool === "edit" ? "A blue car on the road" : "The clip’s own prompt"} error=${errorOf(error, "prompt")} />
      <${Input} id="tool-seed" label="Seed" type="number" min="0" placeholder="0" value=${sampling.seed}
        onChange=${(seed) => update({ seed })} error=${errorOf(error, "seed")} />
      <${Advanced} id="tool" settings=${sampling} change=${update} model=${models[0]} models=${models} error=${error} />
      ${error && !errorOf(error, ...SHOWN.filter((name) => isShown(name, tool))) && html`
        <p class="notice error" role="alert">${error.message}</p>`}
      ${missing && html`<p class="hint" id="missing">${missing}</p>`}
      <div class="actions">
        <${CopyAs} requests=${() => [requestOf(tool, clip, settings, sampling)]} />
        <button class="button primary" disabled=${isBusy || Boolean(missing)} aria-describedby=${missing ? "missing" : undefined}>
          ${isBusy ? "Sending…" : "Generate"}
        </button>
      </div>
    </form>`;
}

const isShown = (name, tool) => !["clip", "video", "first", "second", "connect", "mask"].includes(name)
  && (name !== "region" || tool === "edit") && (name !== "seconds" || tool !== "edit");

function missingOf(tool, { second, prompt, area, strokes }) {
  if (tool === "connect" && !second) return "Choose the second clip.";
  if (tool === "edit" && !prompt.trim()) return "Write what the edited clip shows.";
  if (tool === "edit" && area === "brush" && !strokes.length) return "Paint over what is to change.";
  return "";
}

/** What only this tool has. */
function ToolFields({ tool, clip, settings, change, limits, error }) {
  const length = (label, key, max = limits.max) => html`
    <${Input} id=${`tool-${key}`} label=${label} type="number" min=${limits.step} max=${max} step=${limits.step}
      value=${Math.round(settings[key] * 1000) / 1000} error=${errorOf(error, "seconds")}
      onChange=${(text) => Number(text) > 0 && change({ [key]: Number(text) })} />`;
  switch (tool) {
    case "extend":
      return html`
        <${Segmented} name="direction" label="Direction" value=${settings.direction} onChange=${(direction) => change({ direction })}
          options=${[["backward", "Before"], ["forward", "After"], ["both", "Both"]]} />
        ${length(settings.direction === "both" ? "Seconds to add at each side" : "Seconds to add", "added")}`;
    case "connect":
      return html`<${Second} ...${{ settings, change }} />${length("Length of the transition in seconds", "gap")}`;
    case "loop":
      return length("Length of the loop in seconds", "total");
    default:
      return html`<${EditFields} ...${{ clip, settings, change, error }} />`;
  }
}

function EditFields({ clip, settings, change, error }) {
  const choose = (area) => change({ area, rectangle: area === "rectangle" ? settings.rectangle ?? centred(clip) : settings.rectangle });
  return html`
    <${Segmented} name="area" label="Where" value=${settings.area} onChange=${choose}
      options=${[["all", "Whole frame"], ["rectangle", "Rectangle"], ["brush", "Brush"]]} />
    ${settings.area === "rectangle" && html`<${RectangleFields} ...${{ clip, settings, change }} error=${errorOf(error, "region")} />`}
    ${settings.area === "brush" && html`
      <p class="hint">Paint on the player. <button type="button" class="link" onClick=${() => change({ strokes: [] })}>Clear</button></p>`}
    <div class="field">
      <label for="strength">Strength <output>${Math.round(settings.strength * 100)} %</output></label>
      <input id="strength" type="range" min="0.1" max="1" step="0.05" value=${settings.strength}
        onInput=${(event) => change({ strength: Number(event.target.value) })} />
      <p class="hint">From ${seconds(settings.from)} to ${seconds(settings.to)}: drag the ends on the timeline.</p>
    </div>`;
}

function Second({ settings, change }) {
  const [isOpen, setOpen] = useState(false);
  const { second } = settings;
  const take = (media) => {
    change({ second: media });
    setOpen(false);
  };
  return html`
    <div class="slots">
      <div class="slot" role="group" aria-label="Second clip">
        <button type="button" class="slot-button" onClick=${() => setOpen(true)}>
          <${Icon} name="film" />${second ? second.name : "Choose the second clip"}</button>
      </div>
      <${FileButton} label="Upload" accept="video/*" onMedia=${take} />
    </div>
    ${isOpen && html`<${Picker} title="Second clip" onPick=${take} onClose=${() => setOpen(false)} />`}`;
}
