// The state that all parts of the page share, and the loop that keeps it equal to the server's.

import * as api from "./api.js";
import { useEffect, useState } from "./assets/htm-preact.js";

const PAGE = 24;
const ACTIVE_MS = 600;
const IDLE_MS = 8000;
const ERROR_MS = 3000;

let state = {
  videos: {}, // by id
  order: [], // ids, the newest first
  hasMore: false,
  isLoaded: false,
  problem: null, // why the server cannot be read
  needsKey: false,
  models: [],
  policy: null,
  toasts: [],
  announcement: "",
  cancelling: {}, // ids whose cancellation was asked for
};
const listeners = new Set();
let timer = 0;

export function set(changes) {
  state = { ...state, ...changes };
  listeners.forEach((listener) => listener());
}

/** The state, and a new rendering of the component after each change. */
export function useStore() {
  const [, render] = useState(0);
  useEffect(() => {
    const listener = () => render((count) => count + 1);
    listeners.add(listener);
    listener();
    return () => listeners.delete(listener);
  }, []);
  return state;
}

export const isActive = (video) => video.status === "queued" || video.status === "in_progress";
export const announce = (text) => set({ announcement: text });

let toastCount = 0;
export function toast(text, { kind = "info", href = null } = {}) {
  const id = ++toastCount;
  set({ toasts: [...state.toasts.slice(-2), { id, text, kind, href }] });
  setTimeout(() => dismiss(id), kind === "error" ? 12000 : 6000);
}
export const dismiss = (id) => set({ toasts: state.toasts.filter((item) => item.id !== id) });

/** Read models and policy, then keep the list of videos up to date. */
export async function start() {
  try {
    const [models, policy] = await Promise.all([api.getModels(), api.getPolicy()]);
    set({ models: models.data, policy, needsKey: false });
    poll();
  } catch (error) {
    fail(error);
    if (error.status !== 401) timer = setTimeout(start, ERROR_MS);
  }
}

function fail(error) {
  if (error.status === 401) set({ needsKey: true, problem: null });
  else set({ problem: error.message });
}

async function poll() {
  clearTimeout(timer);
  let wait = ERROR_MS;
  try {
    await refresh();
    const isBusy = Object.values(state.videos).some(isActive);
    wait = (isBusy ? ACTIVE_MS : IDLE_MS) * (document.hidden ? 4 : 1);
  } catch (error) {
    fail(error);
  }
  if (!state.needsKey) timer = setTimeout(poll, wait);
}

/** The newest page, and each running video of the pages behind it. */
async function refresh() {
  const page = await api.listVideos({ limit: PAGE });
  const fresh = page.data.map((video) => video.id);
  const end = state.order.indexOf(page.last_id);
  const tail = page.has_more && end >= 0 ? state.order.slice(end + 1).filter((id) => !fresh.includes(id)) : [];
  const order = [...fresh, ...tail];
  const waiting = tail.filter((id) => isActive(state.videos[id]));
  const others = await Promise.all(waiting.map((id) => api.getVideo(id)));
  merge([...page.data, ...others]);
  const videos = Object.fromEntries(order.map((id) => [id, state.videos[id]]));
  set({ videos, order, hasMore: tail.length ? state.hasMore : page.has_more, isLoaded: true, problem: null });
}

function merge(found) {
  found.forEach((video) => tellChange(state.videos[video.id], video));
  set({ videos: { ...state.videos, ...Object.fromEntries(found.map((video) => [video.id, video])) } });
}

/** Say what happened to a video, for screen readers, and as a note if it ended. */
function tellChange(before, video) {
  if (!before || (before.status === video.status && before.progress === video.progress)) return;
  const name = `“${shorten(video.prompt || video.kinema.task)}”`;
  if (video.status === "completed") {
    toast(`${name} is finished`, { href: `#/edit/${video.id}` });
  } else if (video.status === "failed") {
    const isCancelled = video.error?.code === "cancelled";
    toast(isCancelled ? `${name} was cancelled` : `${name} failed: ${video.error?.message}`,
      { kind: isCancelled ? "info" : "error" });
  } else if (Math.floor(before.progress / 25) !== Math.floor(video.progress / 25)) {
    announce(`${name}: ${video.progress} percent`);
  }
}

export const shorten = (text, length = 48) => (text.length > length ? `${text.slice(0, length - 1)}…` : text);

export async function loadMore() {
  const page = await api.listVideos({ limit: PAGE, after: state.order.at(-1) });
  merge(page.data);
  const order = [...state.order, ...page.data.map((video) => video.id).filter((id) => !state.order.includes(id))];
  set({ order, hasMore: page.has_more });
}

/** The videos of these requests, which are sent one after the other. Throws `ApiError`. */
export async function submitAll(requests) {
  const made = [];
  try {
    for (const request of requests) made.push(await api.submit(request));
  } finally {
    merge(made);
    set({ order: [...made.map((video) => video.id).reverse(), ...state.order] });
    if (made.length) announce(made.length > 1 ? `${made.length} videos are queued` : "The video is queued");
    poll();
  }
  return made;
}

/** Run an action on the server, then read the list again. Its error is shown as a note. */
async function act(action) {
  try {
    return await action();
  } catch (error) {
    toast(error.message, { kind: "error" });
    return null;
  } finally {
    poll();
  }
}

export function cancel(id) {
  set({ cancelling: { ...state.cancelling, [id]: true } });
  return act(() => api.cancelVideo(id));
}

export async function remove(id) {
  const done = await act(() => api.deleteVideo(id));
  if (done) {
    const { [id]: gone, ...videos } = state.videos;
    set({ videos, order: state.order.filter((other) => other !== id) });
    announce("The video was deleted");
  }
  return Boolean(done);
}

/** A file on the server: {id, filename}. Undefined if it was refused; the reason is shown. */
export const keepFile = (file, name) => act(() => api.upload(file, name ?? file.name));
