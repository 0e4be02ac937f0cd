// The page: its views, which the part of the address after # names, and what is around them.

import * as api from "./api.js";
import { html, render, useEffect, useState } from "./assets/htm-preact.js";
import { Composer } from "./composer.js";
import { Editor, VideoEditor } from "./editor.js";
import { Gallery } from "./gallery.js";
import { dismiss, start, useStore } from "./store.js";
import { Storyboard } from "./storyboard.js";
import { Icon, IconButton, Input } from "./ui.js";

const THEMES = ["auto", "light", "dark"];

function useHash() {
  const [hash, setHash] = useState(location.hash);
  useEffect(() => {
    const listener = () => {
      setHash(location.hash);
      window.scrollTo(0, 0);
    };
    addEventListener("hashchange", listener);
    return () => removeEventListener("hashchange", listener);
  }, []);
  return hash;
}

function App() {
  const state = useStore();
  const hash = useHash();
  const [reuse, setReuse] = useState(null);
  const [file, setFile] = useState(null);
  useEffect(() => {
    start();
  }, []);
  const onReuse = (draft) => {
    setReuse(draft);
    location.hash = "#/";
  };
  const onUpload = (media) => {
    setFile(media);
    location.hash = "#/file";
  };
  const view = viewOf(hash, { reuse, onReuse, file, onUpload });
  return html`
    <a class="skip" href="#main" onClick=${(event) => { event.preventDefault(); document.getElementById("main").focus(); }}>Skip to content</a>
    <${Header} hash=${hash} />
    ${state.problem && html`<p class="banner" role="alert"><${Icon} name="alert" />${state.problem}</p>`}
    <main id="main" tabindex="-1">${state.needsKey ? html`<${KeyForm} />` : view}</main>
    <${Footer} />
    <div class="visually-hidden" aria-live="polite" role="status">${state.announcement}</div>
    <div class="toasts" role="log" aria-live="polite">
      ${state.toasts.map(({ id, text, kind, href }) => html`
        <div key=${id} class=${`toast ${kind}`}>
          <span>${text}</span>
          ${href && html`<a href=${href} onClick=${() => dismiss(id)}>Open</a>`}
          <${IconButton} icon="close" label="Dismiss" onClick=${() => dismiss(id)} />
        </div>`)}
    </div>`;
}

function viewOf(hash, { reuse, onReuse, file, onUpload }) {
  const [, name, id] = hash.split("/");
  if (name === "edit" && id) return html`<${VideoEditor} id=${id} onReuse=${onReuse} />`;
  if (name === "file" && file) return html`<${Editor} key=${file.url} clip=${file} video=${null} onReuse=${onReuse} />`;
  if (name === "storyboard") return html`<${Storyboard} onReuse=${onReuse} />`;
  return html`
    <div class="create">
      <${Composer} reuse=${reuse} />
      <${Gallery} onReuse=${onReuse} onUpload=${onUpload} />
    </div>`;
}

function Header({ hash }) {
  const [theme, setTheme] = useState(document.documentElement.dataset.theme ?? "auto");
  const cycle = () => {
    const next = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    localStorage.setItem("kinema.theme", next);
    if (next === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = next;
    setTheme(next);
  };
  const isBoard = hash.startsWith("#/storyboard");
  const isCreate = !isBoard && !hash.startsWith("#/edit") && !hash.startsWith("#/file");
  return html`
    <header class="top">
      <a class="brand" href="#/" aria-label="Kinema, start"><img src="/studio/icon.svg" alt="" />Kinema</a>
      <nav aria-label="Views">
        <a href="#/" aria-current=${isCreate ? "page" : undefined}>Create</a>
        <a href="#/storyboard" aria-current=${isBoard ? "page" : undefined}>Storyboard</a>
      </nav>
      <${IconButton} icon=${theme} label=${`Colours: ${theme}. Change`} onClick=${cycle} />
    </header>`;
}

/** What is active on this server. */
function Footer() {
  const { policy, models } = useStore();
  if (!policy) return null;
  const facts = [
    models[0] && `Model ${models[0].id}, ${models[0].kinema.licence}`,
    `Moderation ${policy.moderation}`,
    policy.signed_provenance && "Results are signed (C2PA)",
    `Up to ${policy.max_seconds} s`,
  ];
  return html`<footer class="bottom">${facts.filter(Boolean).map((fact) => html`<span key=${fact}>${fact}</span>`)}
    <a href="/openapi.json">API</a></footer>`;
}

function KeyForm() {
  const [key, setKey] = useState("");
  const [error, setError] = useState(null);
  const onSubmit = (event) => {
    event.preventDefault();
    api.openSession(key).then(start, setError);
  };
  return html`
    <form class="panel key-form" onSubmit=${onSubmit}>
      <h1>This server needs a key</h1>
      <p class="hint">Its operator makes one with <code>kinema keys create</code>. It is kept in a cookie that scripts cannot read.</p>
      <${Input} id="key" label="API key" type="password" autocomplete="off" value=${key} onChange=${setKey} error=${error?.message} />
      <button class="button primary">Continue</button>
    </form>`;
}

render(html`<${App} />`, document.getElementById("app"));
