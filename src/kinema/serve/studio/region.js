// Drawing on a frame: a rectangle, or a brush whose strokes become a mask.

import { html, useEffect, useRef } from "./assets/htm-preact.js";
import { Input } from "./ui.js";

const BRUSH = 0.08; // radius as a share of the longer side

/** A canvas over the player. Coordinates are pixels of the clip. */
export function Drawing({ clip, settings, change }) {
  const canvas = useRef();
  const { area, rectangle, strokes } = settings;
  useEffect(() => paint(canvas.current, clip, settings), [area, rectangle, strokes]);

  const point = (event) => {
    const box = canvas.current.getBoundingClientRect();
    const at = (value, low, size, side) => Math.round(Math.min(1, Math.max(0, (value - low) / size)) * side);
    return [at(event.clientX, box.left, box.width, clip.width), at(event.clientY, box.top, box.height, clip.height)];
  };
  const onPointerDown = (event) => {
    event.preventDefault();
    const target = event.currentTarget;
    target.focus();
    target.setPointerCapture(event.pointerId);
    const start = point(event);
    const stroke = { radius: BRUSH * Math.max(clip.width, clip.height), points: [start] };
    const onMove = (moved) => {
      const at = point(moved);
      if (area === "rectangle") change({ rectangle: between(start, at) });
      else {
        stroke.points.push(at);
        change({ strokes: [...strokes, { ...stroke, points: [...stroke.points] }] });
      }
    };
    if (area === "brush") onMove(event);
    target.addEventListener("pointermove", onMove);
    target.addEventListener("pointerup", () => target.removeEventListener("pointermove", onMove), { once: true });
  };
  const onKeyDown = (event) => {
    const by = { ArrowLeft: [-4, 0], ArrowRight: [4, 0], ArrowUp: [0, -4], ArrowDown: [0, 4] }[event.key];
    if (!by || area !== "rectangle") return;
    event.preventDefault();
    const now = rectangle ?? centred(clip);
    const moved = event.shiftKey ? { ...now, w: now.w + by[0], h: now.h + by[1] } : { ...now, x: now.x + by[0], y: now.y + by[1] };
    change({ rectangle: inside(moved, clip) });
  };
  return html`
    <canvas ref=${canvas} class="drawing" width=${clip.width * 4} height=${clip.height * 4} tabindex="0" role="img"
      aria-label=${area === "rectangle" ? "Draw a rectangle; arrow keys move it, with Shift they resize it" : "Paint over what is to change"}
      onPointerDown=${onPointerDown} onKeyDown=${onKeyDown}></canvas>`;
}

const between = ([x0, y0], [x1, y1]) => ({
  x: Math.min(x0, x1), y: Math.min(y0, y1), w: Math.max(1, Math.abs(x1 - x0)), h: Math.max(1, Math.abs(y1 - y0)),
});
export const centred = ({ width, height }) => ({
  x: Math.round(width / 4), y: Math.round(height / 4), w: Math.round(width / 2), h: Math.round(height / 2),
});

function inside({ x, y, w, h }, { width, height }) {
  const [wide, high] = [Math.min(width, Math.max(1, w)), Math.min(height, Math.max(1, h))];
  return { x: Math.min(width - wide, Math.max(0, x)), y: Math.min(height - high, Math.max(0, y)), w: wide, h: high };
}

/** The clip darkened, but for the part that is edited. */
function paint(canvas, clip, { area, rectangle, strokes }) {
  const context = canvas.getContext("2d");
  const accent = getComputedStyle(canvas).getPropertyValue("--mark");
  context.setTransform(canvas.width / clip.width, 0, 0, canvas.height / clip.height, 0, 0);
  context.clearRect(0, 0, clip.width, clip.height);
  context.globalCompositeOperation = "source-over";
  if (area === "rectangle" && rectangle) {
    const { x, y, w, h } = rectangle;
    context.fillStyle = "rgb(0 0 0 / 55%)";
    context.fillRect(0, 0, clip.width, clip.height);
    context.clearRect(x, y, w, h);
    context.strokeStyle = accent;
    context.lineWidth = (2 * clip.width) / canvas.clientWidth;
    context.strokeRect(x, y, w, h);
  }
  if (area === "brush") strokes.forEach((stroke) => trace(context, stroke, accent));
}

function trace(context, { radius, points }, colour) {
  context.strokeStyle = colour;
  context.lineWidth = 2 * radius;
  context.lineCap = context.lineJoin = "round";
  context.beginPath();
  context.moveTo(points[0][0] - 0.01, points[0][1]); // a line without length would not be drawn
  points.forEach(([x, y]) => context.lineTo(x, y));
  context.stroke();
}

/** The strokes as a PNG: white where the clip is edited, black elsewhere. */
export function maskOf({ width, height }, strokes) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d");
  context.fillRect(0, 0, width, height);
  strokes.forEach((stroke) => trace(context, stroke, "white"));
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

/** The rectangle in numbers. */
export function RectangleFields({ clip, settings, change, error }) {
  const rectangle = settings.rectangle ?? centred(clip);
  const names = { x: "Left", y: "Top", w: "Width", h: "Height" };
  const set = (key, value) => change({ rectangle: inside({ ...rectangle, [key]: Number(value) || 0 }, clip) });
  return html`
    <div class="grid quarters" role="group" aria-label="Rectangle in pixels">
      ${Object.entries(names).map(([key, label]) => html`
        <${Input} key=${key} id=${`region-${key}`} type="number" min="0" label=${label} value=${rectangle[key]}
          onChange=${(value) => set(key, value)} />`)}
    </div>
    ${error && html`<p class="error" role="alert">${error}</p>`}`;
}
