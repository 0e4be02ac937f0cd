// What can be made of a clip. Each tool turns its settings into segments of the timeline and a request.

import { clean, samplingBody } from "./sampling.js";

/** Settings of all tools for a clip. */
export const settingsOf = (clip) => ({
  prompt: "", direction: "forward", added: 1, gap: 1, second: null, total: clip.seconds + 1,
  from: 0, to: clip.seconds, strength: 0.7, area: "all", rectangle: null, strokes: [],
});

const kept = (key, clip, from) => ({ key, kind: "kept", from, to: from + clip.seconds, label: clip.name, sheet: clip.sheet });
const made = (key, from, to, edge) => ({ key, kind: "made", from, to, label: "New", edges: edge ? [edge] : [] });

function extend(clip, settings, change, limits) {
  const { added, direction } = settings;
  const before = direction === "forward" ? 0 : added;
  const slider = (label, at) => ({
    label, at, value: added, min: limits.step, max: limits.max - clip.seconds, change: (value) => change({ added: value }),
  });
  const start = before + clip.seconds;
  const segments = [kept("clip", clip, before)];
  if (before) segments.unshift(made("before", 0, before, slider("Seconds added before", before)));
  if (direction !== "backward") segments.push(made("after", start, start + added, slider("Seconds added after", start + added)));
  return { segments, offset: before, total: start + (direction === "backward" ? 0 : added) };
}

function connect(clip, settings, change, limits) {
  const { gap, second } = settings;
  const start = clip.seconds + gap;
  const edge = {
    label: "Length of the transition", at: start, value: gap, min: limits.step, max: limits.max,
    change: (value) => change({ gap: value }),
  };
  const segments = [kept("first", clip, 0), made("gap", clip.seconds, start, edge)];
  if (second) segments.push(kept("second", second, start));
  return { segments, offset: 0, total: start + (second?.seconds ?? 0) };
}

function loop(clip, settings, change, limits) {
  const edge = {
    label: "Length of the loop", at: settings.total, value: settings.total, min: clip.seconds + limits.step, max: limits.max,
    change: (total) => change({ total }),
  };
  return { segments: [kept("clip", clip, 0), made("return", clip.seconds, settings.total, edge)], offset: 0, total: settings.total };
}

function edit(clip, settings, change, limits) {
  const { from, to } = settings;
  const edges = [
    { label: "Start of the edit", at: from, value: from, min: 0, max: to - limits.step, change: (value) => change({ from: value }) },
    { label: "End of the edit", at: to, value: to, min: from + limits.step, max: clip.seconds, change: (value) => change({ to: value }) },
  ];
  const edited = { key: "edited", kind: "edited", from, to, label: "Edited", edges };
  return { segments: [kept("clip", clip, 0), edited], offset: 0, total: clip.seconds };
}

export const TOOLS = { extend, connect, loop, edit };

const text = (value) => String(Math.round(value * 1000) / 1000);

/** The request of a tool. `mask` is the uploaded drawing of an edit. */
export function requestOf(tool, clip, settings, sampling, mask) {
  const shared = { prompt: settings.prompt.trim(), ...samplingBody(sampling) };
  const video = clip.reference;
  switch (tool) {
    case "extend":
      return { path: "/videos/extensions",
        body: clean({ video, seconds: text(settings.added), direction: settings.direction, ...shared }) };
    case "connect":
      return { path: "/videos",
        body: clean({ connect: { first: video, second: settings.second?.reference ?? null }, seconds: text(settings.gap), ...shared }) };
    case "loop":
      return { path: "/videos", body: clean({ loop: true, video, seconds: text(settings.total), ...shared }) };
    default:
      return { path: "/videos/edits", body: { ...editBody(clip, settings, mask), ...shared } };
  }
}

function editBody(clip, { strength, area, rectangle, from, to }, mask) {
  const body = { video: clip.reference, strength };
  if (area === "rectangle" && rectangle) body.region = [rectangle.x, rectangle.y, rectangle.w, rectangle.h].join(",");
  if (area === "brush") body.mask = { file_id: mask ?? "MASK_FILE_ID" };
  if (from > 0) body.start = Number(text(from));
  if (to < clip.seconds) body.end = Number(text(to));
  return body;
}
