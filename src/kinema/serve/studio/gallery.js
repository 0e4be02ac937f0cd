// All videos, the newest first. Takes of one prompt stand side by side.

import { contentUrl } from "./api.js";
import { html, useRef, useState } from "./assets/htm-preact.js";
import { draftOf } from "./composer.js";
import { FileButton } from "./media.js";
import { cancel, isActive, loadMore, remove, shorten, useStore } from "./store.js";
import { Confirm, Icon, IconButton, Progress, phaseOf, seconds } from "./ui.js";

const MAX_TAKES = 4;
const TAKE_S = 5; // takes of one request are created within this time

export function Gallery({ onReuse, onUpload }) {
  const { videos, order, hasMore, isLoaded, problem } = useStore();
  const [isBusy, setBusy] = useState(false);
  const groups = grouped(order.map((id) => videos[id]).filter(Boolean));
  const more = async () => {
    setBusy(true);
    await loadMore().finally(() => setBusy(false));
  };
  return html`
    <section class="gallery" aria-labelledby="library-title">
      <header class="section-head">
        <h2 id="library-title">Library</h2>
        <${FileButton} label="Open a clip" accept="video/mp4,video/webm,video/quicktime,video/x-matroska"
          icon="film" onMedia=${onUpload} />
      </header>
      ${!isLoaded && !problem && html`<div class="cards" aria-label="Loading" role="status">
        ${[1, 2, 3, 4, 5, 6].map((key) => html`<div key=${key} class="card"><div class="frame shimmer"></div></div>`)}</div>`}
      ${isLoaded && !order.length && html`<${Empty} />`}
      <div class="cards">
        ${groups.map((group) => group.length > 1
          ? html`<${Takes} key=${group[0].id} videos=${group} onReuse=${onReuse} />`
          : html`<${Card} key=${group[0].id} video=${group[0]} onReuse=${onReuse} />`)}
      </div>
      ${hasMore && html`<button type="button" class="button more" disabled=${isBusy} onClick=${more}>
        ${isBusy ? "Loading…" : "Show older videos"}</button>`}
    </section>`;
}

const Empty = () => html`
  <div class="empty">
    <${Icon} name="film" />
    <h3>No videos yet</h3>
    <p>Describe one and press Generate. Prompts and videos stay on your server.</p>
    <button type="button" class="button" onClick=${() => document.getElementById("prompt").focus()}>Write a prompt</button>
  </div>`;

/** Neighbours that differ in their seed alone, together. */
function grouped(videos) {
  const likeness = ({ prompt, size, kinema }) => JSON.stringify([prompt, size, kinema.task, kinema.frames, kinema.steps, kinema.source]);
  const groups = [];
  for (const video of videos) {
    const last = groups.at(-1);
    const first = last?.at(-1);
    const isTake = first && likeness(first) === likeness(video) && Math.abs(first.created_at - video.created_at) <= TAKE_S
      && last.every(({ kinema }) => kinema.seed !== video.kinema.seed) && last.length < MAX_TAKES;
    if (isTake) last.push(video);
    else groups.push([video]);
  }
  return groups.map((group) => (group.length > 1 ? group.sort((a, b) => a.kinema.seed - b.kinema.seed) : group));
}

function Takes({ videos, onReuse }) {
  const ref = useRef();
  const playAll = () => ref.current.querySelectorAll("video").forEach((clip) => {
    clip.currentTime = 0;
    clip.play().catch(() => {});
  });
  const isReady = videos.some((video) => video.status === "completed");
  return html`
    <div class=${`takes takes-${videos.length}`} ref=${ref} role="group" aria-label=${`${videos.length} takes of ${videos[0].prompt}`}>
      <header><h3>${shorten(videos[0].prompt, 90)}</h3>
        ${isReady && html`<button type="button" class="link" onClick=${playAll}><${Icon} name="play" />Play together</button>`}
      </header>
      <div class="strip">
        ${videos.map((video) => html`<${Card} key=${video.id} video=${video} onReuse=${onReuse} isTake />`)}
      </div>
    </div>`;
}

const CARD_TASKS = { generate: "", image: "From pictures", loop: "Loop", connect: "Connected", extend: "Extended", edit: "Edited",
  storyboard: "Storyboard", remix: "Remix" };

export function Card({ video, onReuse, isTake }) {
  const [isAsking, setAsking] = useState(false);
  const { status, prompt, kinema, size, seconds: length } = video;
  const name = prompt || CARD_TASKS[kinema.task];
  const facts = isTake ? [`Seed ${kinema.seed}`] : [CARD_TASKS[kinema.task], size.replace("x", " × "), seconds(Number(length))];
  return html`
    <article class=${`card ${status}`} aria-label=${`${name}, ${status.replace("_", " ")}`} data-id=${video.id} data-status=${status}>
      <${Media} video=${video} name=${name} />
      <div class="card-text">
        ${!isTake && html`<h3 title=${prompt}>${shorten(name, 90)}</h3>`}
        ${kinema.expanded_prompt && html`<p class="expanded"><b>Expanded</b> ${kinema.expanded_prompt}</p>`}
        <p class="facts">${facts.filter(Boolean).join(" · ")}</p>
        <div class="card-actions">
          ${isActive(video)
            ? html`<${CancelButton} id=${video.id} />`
            : html`
              ${status === "completed" && html`<a class="icon-button" href=${contentUrl(video.id)} title="Download" aria-label="Download"
                download=${`kinema-${kinema.seed}-${video.id.slice(-6)}.mp4`}><${Icon} name="download" /></a>`}
              ${onReuse && html`<${IconButton} icon="reuse" label="Use these settings" onClick=${() => onReuse(draftOf(video))} />`}
              <${IconButton} icon="trash" label="Delete" onClick=${() => setAsking(true)} />`}
        </div>
      </div>
      ${isAsking && html`<${Confirm} title="Delete this video?" text="Its files are removed. This cannot be undone."
        action="Delete" onConfirm=${() => remove(video.id)} onClose=${() => setAsking(false)} />`}
    </article>`;
}

export function CancelButton({ id }) {
  const { cancelling } = useStore();
  return html`<button type="button" class="link" disabled=${cancelling[id]} onClick=${() => cancel(id)}>
    ${cancelling[id] ? "Cancelling…" : "Cancel"}</button>`;
}

/** The clip of a finished video, which plays under the pointer or focus; else what there is of it. */
export function Media({ video, name }) {
  const { cancelling } = useStore();
  const clip = useRef();
  const { id, status, kinema, error } = video;
  const style = { aspectRatio: `${kinema.width} / ${kinema.height}` };
  if (status === "completed") {
    const play = () => clip.current?.play().catch(() => {});
    const stop = () => clip.current?.pause();
    return html`
      <a class="frame" href=${`#/edit/${id}`} style=${style} aria-label=${`Open ${name}`}
        onMouseEnter=${play} onMouseLeave=${stop} onFocus=${play} onBlur=${stop}>
        <video ref=${clip} src=${contentUrl(id)} poster=${contentUrl(id, "thumbnail")} muted loop playsinline preload="none"></video>
      </a>`;
  }
  if (status === "failed") {
    const isCancelled = error?.code === "cancelled";
    return html`<div class="frame problem" style=${style}><${Icon} name=${isCancelled ? "close" : "alert"} />
      <p>${isCancelled ? "Cancelled" : error?.message}</p></div>`;
  }
  return html`
    <div class="frame shimmer" style=${style}>
      ${kinema.has_preview && !cancelling[id] && html`
        <img src=${contentUrl(id, "preview", kinema.step)} alt="Preview of the video so far" />`}
      <div class="running"><span>${phaseOf(video)}</span><span>${video.progress} %</span><${Progress} video=${video} /></div>
    </div>`;
}
