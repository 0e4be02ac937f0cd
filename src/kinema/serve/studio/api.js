// The public API of the server, as this page uses it.

export class ApiError extends Error {
  /** `param` names the field of the request that is wrong, or is null. */
  constructor(status, { message, param = null, code = null }) {
    super(message);
    Object.assign(this, { status, param, code });
  }
}

async function call(method, path, body) {
  const init = { method };
  if (body instanceof FormData) init.body = body;
  else if (body) Object.assign(init, { body: JSON.stringify(body), headers: { "content-type": "application/json" } });

  let reply;
  try {
    reply = await fetch(`/v1${path}`, init);
  } catch {
    throw new ApiError(0, { message: "The server does not answer. Start it again: nothing is lost." });
  }
  const answer = await reply.json().catch(() => ({}));
  if (reply.ok) return answer;
  throw new ApiError(reply.status, answer.error ?? { message: `The server answered ${reply.status}.` });
}

const query = (values) => new URLSearchParams(Object.entries(values).filter(([, value]) => value)).toString();

export const getModels = () => call("GET", "/models");
export const getPolicy = () => call("GET", "/policy");
export const openSession = (key) => call("POST", "/session", { key });
export const readPrompt = (prompt, model) => call("POST", "/prompts/read", model ? { prompt, model } : { prompt });
export const listVideos = (values) => call("GET", `/videos?${query(values)}`);
export const getVideo = (id) => call("GET", `/videos/${id}`);
export const submit = ({ path, body }) => call("POST", path, body);
export const cancelVideo = (id) => call("POST", `/videos/${id}/cancel`);
export const deleteVideo = (id) => call("DELETE", `/videos/${id}`);
export const getDrift = (id) => call("GET", `/videos/${id}/content?variant=drift`);

export function upload(file, name) {
  const form = new FormData();
  form.append("purpose", "user_data");
  form.append("file", file, name);
  return call("POST", "/files", form);
}

/** Address of a file of a video. `version` makes the browser ask again. */
export const contentUrl = (id, variant = "video", version = "") =>
  `/v1/videos/${id}/content?${query({ variant: variant === "video" ? "" : variant, v: version })}`;
