// Clips and pictures: videos of the server, and files that the page uploads.

import { contentUrl } from "./api.js";
import { html, useRef, useState } from "./assets/htm-preact.js";
import { keepFile, shorten } from "./store.js";
import { Icon, IconButton } from "./ui.js";

/** A clip of a video: what requests name it by, and what the page shows of it. */
export const mediaOf = (video) => ({
  kind: "clip",
  reference: { id: video.id },
  name: shorten(video.prompt || video.kinema.task, 40),
  url: contentUrl(video.id),
  seconds: video.kinema.frames / video.kinema.fps,
  width: video.kinema.width,
  height: video.kinema.height,
  sheet: { url: contentUrl(video.id, "spritesheet"), count: Math.min(16, video.kinema.frames) },
});

/** A file as a clip or picture, after its upload. Null if the server or the browser cannot read it. */
export async function mediaOfFile(file) {
  const kept = await keepFile(file);
  if (!kept) return null;
  const url = URL.createObjectURL(file);
  const facts = file.type.startsWith("image/") ? await pictureFacts(url) : await clipFacts(url);
  return { reference: { file_id: kept.id }, name: kept.filename, url, ...facts };
}

const pictureFacts = (url) => new Promise((resolve) => {
  const image = new Image();
  image.onload = () => resolve({ kind: "picture", seconds: 0, width: image.naturalWidth, height: image.naturalHeight });
  image.onerror = () => resolve({ kind: "picture", seconds: 0 });
  image.src = url;
});

const clipFacts = (url) => new Promise((resolve) => {
  const clip = document.createElement("video");
  const facts = () => ({ kind: "clip", seconds: clip.duration || 0, width: clip.videoWidth, height: clip.videoHeight });
  clip.onloadedmetadata = () => resolve(facts());
  clip.onerror = () => resolve(facts());
  clip.src = url;
});

/** A button that opens a file; `onMedia` gets it. */
export function FileButton({ label, accept, onMedia, className = "button", icon = "plus" }) {
  const input = useRef();
  const [isBusy, setBusy] = useState(false);
  const onChange = async () => {
    const [file] = input.current.files;
    if (!file) return;
    setBusy(true);
    const media = await mediaOfFile(file);
    setBusy(false);
    input.current.value = "";
    if (media) onMedia(media);
  };
  return html`
    <button type="button" class=${className} disabled=${isBusy} onClick=${() => input.current.click()}>
      <${Icon} name=${icon} />${isBusy ? "Uploading…" : label}
    </button>
    <input ref=${input} type="file" accept=${accept} hidden aria-label=${label} onChange=${onChange} />`;
}

/** A place for one picture. */
export const PictureSlot = ({ label, value, onChange, error }) => html`
  <div class="slot" role="group" aria-label=${label}>
    ${value
      ? html`
        <img src=${value.url} alt="" />
        <span>${label}<small>${shorten(value.name, 20)}</small></span>
        <${IconButton} icon="close" label=${`Remove ${label.toLowerCase()}`} onClick=${() => onChange(null)} />`
      : html`<${FileButton} label=${label} accept="image/png,image/jpeg,image/webp" icon="picture"
          className="slot-button" onMedia=${onChange} />`}
    ${error && html`<p class="error">${error}</p>`}
  </div>`;
