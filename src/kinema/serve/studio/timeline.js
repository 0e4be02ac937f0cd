// Clips, pictures and prompts over time. Every edge that can be dragged is a slider for the keyboard, too.

import { html, useEffect, useRef } from "./assets/htm-preact.js";
import { seconds } from "./ui.js";

const TICKS_S = [0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 30, 60];
const HEADROOM = 1.12;

/**
 * `lanes`: [{label, segments}]; a segment has `kind` (kept, made, edited, prompt), `from`, `to` in seconds, `label`,
 * and perhaps `sheet` (its frames), `edges` and `move`: sliders {label, value, min, max, change} that a drag changes.
 * `playhead`: such a slider for the time that the player shows.
 */
export function Timeline({ total, step, lanes, playhead }) {
  const body = useRef();
  const scale = useRef({ span: 1, isFrozen: false });
  if (!scale.current.isFrozen) scale.current.span = Math.max(total * HEADROOM, 4 * step);
  const { span } = scale.current;
  const tick = TICKS_S.find((value) => span / value <= 11) ?? 120;
  const marks = Array.from({ length: Math.floor(span / tick) + 1 }, (_, index) => index * tick);
  const shared = { body, scale, step };
  return html`
    <div class="timeline" role="group" aria-label=${`Timeline, ${seconds(total)}`}>
      <div class="lane-labels" aria-hidden="true"><span></span>${lanes.map(({ label }) => html`<span key=${label}>${label}</span>`)}</div>
      <div class="lanes" ref=${body}>
        <div class="ruler" aria-hidden="true" onPointerDown=${(event) => playhead && jump(event, body.current, span, playhead)}>
          ${marks.map((at) => html`<span key=${at} style=${{ left: percent(at, span) }}>${seconds(at)}</span>`)}
        </div>
        ${lanes.map((lane) => html`
          <div key=${lane.label} class="lane" role="group" aria-label=${lane.label}>
            ${lane.segments.map((segment) => html`<${Segment} key=${segment.key} ...${{ segment, span, ...shared }} />`)}
            ${!lane.segments.length && html`<p class="hint">${lane.empty}</p>`}
          </div>`)}
        ${playhead && html`<${Slider} className="playhead" slider=${playhead} style=${{ left: percent(playhead.value, span) }} ...${shared} />`}
      </div>
    </div>`;
}

const percent = (at, span) => `${(100 * at) / span}%`;

function Segment({ segment, span, ...shared }) {
  const { kind, from, to, label, sheet, edges = [], move, isSelected, select } = segment;
  const style = { left: percent(from, span), width: `max(${percent(to - from, span)}, 28px)` };
  const inside = html`${sheet && html`<${Filmstrip} sheet=${sheet} />`}<span class="segment-label">${label}</span>`;
  const classes = `segment ${kind} ${isSelected ? "selected" : ""}`;
  return html`
    ${move
      ? html`<${Slider} className=${classes} slider=${move} style=${style} onFocus=${select} ...${shared}>${inside}<//>`
      : html`<div class=${classes} style=${style} title=${label}>${inside}</div>`}
    ${edges.map((edge) => html`
      <${Slider} key=${edge.label} className="edge" slider=${edge} style=${{ left: percent(edge.at, span) }} ...${shared} />`)}`;
}

/** A slider: arrow keys change it by a frame, with Shift by a second, and a drag by the distance. */
function Slider({ slider, className, style, body, scale, step, onFocus, children }) {
  const { label, value, min, max, change, text } = slider;
  const set = (next) => change(Math.round(Math.min(max, Math.max(min, next)) / step) * step);
  const onKeyDown = (event) => {
    const by = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
    if (event.key === "Home") set(min);
    else if (event.key === "End" && Number.isFinite(max)) set(max);
    else if (by) set(value + by * (event.shiftKey ? Math.max(1, step) : step));
    else return;
    event.preventDefault();
  };
  const onPointerDown = (event) => {
    event.preventDefault();
    event.stopPropagation();
    const target = event.currentTarget;
    target.focus();
    target.setPointerCapture(event.pointerId);
    const perPixel = scale.current.span / body.current.clientWidth;
    scale.current.isFrozen = true;
    const onMove = (moved) => set(value + (moved.clientX - event.clientX) * perPixel);
    const onEnd = (ended) => {
      scale.current.isFrozen = false;
      target.removeEventListener("pointermove", onMove);
      onMove(ended);
    };
    target.addEventListener("pointermove", onMove);
    target.addEventListener("pointerup", onEnd, { once: true });
  };
  return html`
    <div class=${className} role="slider" tabindex="0" style=${style} title=${label} aria-label=${label}
      aria-valuemin=${min} aria-valuemax=${Number.isFinite(max) ? max : undefined} aria-valuenow=${round(value)}
      aria-valuetext=${text ?? seconds(value)} onKeyDown=${onKeyDown} onPointerDown=${onPointerDown} onFocus=${onFocus}>
      ${children}
    </div>`;
}

const round = (value) => Math.round(value * 1000) / 1000;

function jump(event, body, span, playhead) {
  const { left, width } = body.getBoundingClientRect();
  const at = ((event.clientX - left) / width) * span;
  playhead.change(Math.min(playhead.max, Math.max(playhead.min, at)));
}

/** Frames of a spritesheet, as many as fit. */
function Filmstrip({ sheet }) {
  const canvas = useRef();
  useEffect(() => {
    const image = new Image();
    const draw = () => image.complete && image.naturalWidth && drawStrip(canvas.current, image, sheet.count);
    const observer = new ResizeObserver(draw);
    observer.observe(canvas.current);
    image.onload = draw;
    image.src = sheet.url;
    return () => {
      image.onload = null;
      observer.disconnect();
    };
  }, [sheet.url]);
  return html`<canvas ref=${canvas} class="filmstrip" aria-hidden="true"></canvas>`;
}

function drawStrip(canvas, image, count) {
  const columns = Math.ceil(Math.sqrt(count));
  const width = image.naturalWidth / columns;
  const height = image.naturalHeight / Math.ceil(count / columns);
  canvas.width = canvas.clientWidth * devicePixelRatio;
  canvas.height = canvas.clientHeight * devicePixelRatio;
  if (!canvas.width || !canvas.height) return;
  const context = canvas.getContext("2d");
  const tile = (canvas.height * width) / height;
  const shown = Math.max(1, Math.ceil(canvas.width / tile));
  for (let index = 0; index < shown; index += 1) {
    const sprite = Math.min(count - 1, Math.floor(((index + 0.5) / shown) * count));
    const [x, y] = [(sprite % columns) * width, Math.floor(sprite / columns) * height];
    context.drawImage(image, x, y, width, height, index * tile, 0, tile, canvas.height);
  }
}
