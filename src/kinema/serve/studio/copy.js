// A request as a command line, as Python and as the CLI.

import { html, useState } from "./assets/htm-preact.js";
import { Dialog, Icon, Segmented } from "./ui.js";

const FORMS = { curl: asCurl, python: asPython, cli: asCli };
const PYTHON_FIELDS = ["prompt", "seconds", "size", "model"];

const quote = (text) => `'${String(text).replaceAll("'", String.raw`'\''`)}'`;

export function asCurl({ path, body }, origin = location.origin) {
  return `curl ${origin}/v1${path} \\\n  -H 'content-type: application/json' \\\n  -d ${quote(JSON.stringify(body, null, 2))}`;
}

/** A literal of Python. */
export function literal(value, indent = "") {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const inner = `${indent}    `;
  const items = Array.isArray(value)
    ? value.map((item) => literal(item, inner))
    : Object.entries(value).map(([key, item]) => `${JSON.stringify(key)}: ${literal(item, inner)}`);
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  const flat = `${open}${items.join(", ")}${close}`;
  return flat.length < 80 && !flat.includes("\n") ? flat : `${open}\n${items.map((item) => `${inner}${item},\n`).join("")}${indent}${close}`;
}

export function asPython({ path, body }, origin = location.origin) {
  const head = `from openai import OpenAI\n\nclient = OpenAI(base_url="${origin}/v1", api_key="none")\n`;
  const tail = 'client.videos.download_content(video.id).write_to_file("video.mp4")';
  if (path === "/videos" && body.prompt) {
    const known = Object.entries(body).filter(([name]) => PYTHON_FIELDS.includes(name));
    const own = Object.fromEntries(Object.entries(body).filter(([name]) => !PYTHON_FIELDS.includes(name)));
    const lines = known.map(([name, value]) => `    ${name}=${literal(value)},\n`);
    if (Object.keys(own).length) lines.push(`    extra_body=${literal(own, "    ")},\n`);
    return `${head}video = client.videos.create_and_poll(\n${lines.join("")})\n${tail}`;
  }
  return `${head.replace("OpenAI\n", "OpenAI\nfrom openai.types import Video\n")}
video = client.post(${JSON.stringify(path)}, body=${literal(body)}, cast_to=Video)
video = client.videos.poll(video.id)\n${tail}`;
}

/** Name of the local file of a clip or picture, and the command that gets it. */
function fileOf(reference, origin) {
  if (!reference.id) return { file: reference.file_id, get: `curl -o ${reference.file_id} ${origin}/v1/files/${reference.file_id}/content` };
  return { file: `${reference.id}.mp4`, get: `curl -o ${reference.id}.mp4 ${origin}/v1/videos/${reference.id}/content` };
}

export function asCli({ path, body }, origin = location.origin) {
  const gets = [];
  const file = (reference) => {
    const found = fileOf(reference, origin);
    if (!gets.includes(found.get)) gets.push(found.get);
    return found.file;
  };
  const words = [...verbOf(path, body, file), ...optionsOf(body, file), "-o video.mp4"];
  return [...gets, ...boardOf(body, file), `kinema ${words.filter(Boolean).join(" \\\n  ")}`].join("\n");
}

function verbOf(path, body, file) {
  const prompt = body.prompt ? quote(body.prompt) : "";
  if (path === "/videos/extensions") {
    return [`extend ${file(body.video)} ${prompt}`, `--seconds ${body.seconds}`, `--direction ${body.direction}`];
  }
  if (path === "/videos/edits") {
    const area = body.region ? `--region ${body.region}` : body.mask ? `--mask ${file(body.mask)}` : "";
    return [`edit ${file(body.video)} ${prompt}`, `--strength ${body.strength}`, area, body.start && `--start ${body.start}`,
      body.end && `--end ${body.end}`];
  }
  if (body.connect) return [`connect ${file(body.connect.first)} ${file(body.connect.second)} ${prompt}`, `--seconds ${body.seconds}`];
  if (body.storyboard) return ["storyboard board.yaml"];
  if (body.loop) return [`loop ${prompt}`, body.video && `--clip ${file(body.video)}`];
  return [`generate ${prompt}`];
}

function optionsOf(body, file) {
  const names = { negative_prompt: "negative", input_reference: "image", last_frame: "last-image" };
  const plain = ["size", "frames", "seed", "steps", "guidance", "negative_prompt"];
  const options = plain.filter((name) => body[name] !== undefined)
    .map((name) => `--${names[name] ?? name} ${name === "negative_prompt" ? quote(body[name]) : body[name]}`);
  if (body.seconds && !body.connect && !body.video) options.push(`--seconds ${body.seconds}`);
  if (body.loop && body.video && body.seconds) options.push(`--seconds ${body.seconds}`);
  for (const name of ["input_reference", "last_frame"]) {
    if (body[name]) options.push(`--${names[name]} ${file(body[name])}`);
  }
  if (body.expand) options.push("--expand");
  return options;
}

/** The file of a storyboard. */
function boardOf(body, file) {
  if (!body.storyboard) return [];
  const shots = body.storyboard.map(({ at, prompt, clip }) => [
    `- at: ${at}`, prompt && `  prompt: ${JSON.stringify(prompt)}`, clip && `  clip: ${file(clip)}`,
  ].filter(Boolean).join("\n"));
  return [`cat > board.yaml <<'END'\n${shots.join("\n")}\nEND`];
}

/** Several requests as one text: each writes its own file, and Python makes its client once. */
export function severalOf(texts) {
  if (texts.length === 1) return texts[0];
  const numbered = texts.map((text, index) => text.replace(/\bvideo\.mp4/g, `video-${index + 1}.mp4`));
  return numbered.map((text, index) => (index ? text.replace(/^from openai[^]*?\nclient = .*\n/, "") : text)).join("\n\n");
}

/** A button that opens the request as text. `requests` is a function, asked when the button is pressed. */
export function CopyAs({ requests }) {
  const [shown, setShown] = useState(null);
  return html`
    <button type="button" class="button" onClick=${() => setShown(requests())}><${Icon} name="copy" />Copy as</button>
    ${shown && html`<${CopyDialog} requests=${shown} onClose=${() => setShown(null)} />`}`;
}

function CopyDialog({ requests, onClose }) {
  const [form, setForm] = useState("curl");
  const [isCopied, setCopied] = useState(false);
  const text = severalOf(requests.map((request) => FORMS[form](request)));
  const copy = async () => {
    await navigator.clipboard.writeText(text);
    setCopied(true);
    setTimeout(() => setCopied(false), 2000);
  };
  return html`
    <${Dialog} title="Copy this request" isWide onClose=${onClose}>
      <${Segmented} name="form" label="As" isHidden value=${form} onChange=${setForm}
        options=${[["curl", "curl"], ["python", "Python"], ["cli", "CLI"]]} />
      <pre class="code" tabindex="0" aria-label="The request">${text}</pre>
      <div class="actions">
        <span role="status" class="hint">${isCopied ? "Copied" : ""}</span>
        <button type="button" class="button primary" onClick=${copy}><${Icon} name="copy" />Copy</button>
      </div>
    <//>`;
}
