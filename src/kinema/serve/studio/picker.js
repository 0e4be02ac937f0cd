// A dialog to choose a finished video.

import { contentUrl } from "./api.js";
import { html } from "./assets/htm-preact.js";
import { mediaOf } from "./media.js";
import { shorten, useStore } from "./store.js";
import { Dialog, seconds } from "./ui.js";

export function Picker({ title, onPick, onClose }) {
  const { videos, order } = useStore();
  const finished = order.map((id) => videos[id]).filter(({ status }) => status === "completed");
  return html`
    <${Dialog} title=${title} isWide onClose=${onClose}>
      ${!finished.length && html`<p class="hint">There is no finished video yet.</p>`}
      <div class="picks">
        ${finished.map((video) => html`
          <button type="button" key=${video.id} class="pick" data-id=${video.id} onClick=${() => onPick(mediaOf(video))}>
            <img src=${contentUrl(video.id, "thumbnail")} alt="" loading="lazy" />
            <span>${shorten(video.prompt || video.kinema.task, 50)}<small>${seconds(Number(video.seconds))}</small></span>
          </button>`)}
      </div>
    <//>`;
}
