// All video operations as the official node client sends them. Arguments: base URL, id of a completed video.
import OpenAI from "openai";

const [baseURL, id] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "any", maxRetries: 0 });
const small = { size: "96x96", steps: 2, frames: 5 };
const prompt = "a penguin walks across the snow";
const png =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==";

const made = {};
made.create = await client.videos.create({ prompt, ...small });
made.picture = await client.videos.create({
  prompt, ...small, input_reference: { image_url: `data:image/png;base64,${png}` },
});
made.edit = await client.videos.edit({ prompt, video: { id }, steps: 2 });
made.extend = await client.videos.extend({ prompt, video: { id }, seconds: "1", steps: 2 });
made.remix = await client.videos.remix(id, { prompt: "a fox hops on grass" });
const file = await client.videos.downloadContent(id);
const bytes = await file.arrayBuffer();
const upload = new File([bytes], "clip.mp4", { type: "video/mp4" });
const character = await client.videos.createCharacter({ name: "Pip", video: upload });
const found = await client.videos.getCharacter(character.id);
const listed = [];
for await (const video of client.videos.list({ limit: 2 })) listed.push(video.id);
const deleted = await client.videos.delete(made.create.id);
const ids = Object.fromEntries(Object.entries(made).map(([name, video]) => [name, video.id]));
console.log(JSON.stringify({ ids, size: bytes.byteLength, name: found.name, listed: listed.length, deleted }));
